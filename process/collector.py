"""Python's garbage collector, kept from looking at what lives long.

A connection is some 70 objects that the collector follows. Its full collections look at all of them: with 15,000 connections
one took 1 to 1.5 s of CPU, in which nothing else happened, and they were a third of what connecting cost. They never found
anything: connections, books and histories go when the last reference does. So what has survived a full collection is
frozen, and the next one looks only at what is new, of which there are never more than some thousands.

The price: a cycle that was frozen before it became garbage stays. What is frozen has to go without the collector, then; the
tests see to it that connections do, and what little is caught on its way is thawed when the process is small.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

# New objects that the youngest waits for, and rounds that the others wait for: a full collection each 8,400 as it takes
# turns with the two below, which takes it 10 ms. Python's own 700 for the youngest looked four times as often at what 64
# orders in flight hold: 5 % of the CPU of an order.
THRESHOLDS = (2800, 0, 0)
THAW_SECONDS = 3600.0
# What may be looked at in one go: some 100 ms.
MOST_THAWED = 100_000


class GarbageCollector:
    """The collector of this process, from `start` to `stop`."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        """`call_later` is the loop's."""
        self._call_later = call_later
        self._before = gc.get_threshold()

    def start(self) -> None:
        """Freeze what there is, and from now on what proves to live long."""
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._on_collection)
        gc.collect()
        self._call_later(THAW_SECONDS, self._thaw)

    def stop(self) -> None:
        """As it was."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)
            gc.set_threshold(*self._before)
            gc.unfreeze()

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            gc.freeze()

    def _thaw(self) -> None:
        if gc.get_freeze_count() <= MOST_THAWED:
            gc.unfreeze()
            gc.collect()
        self._call_later(THAW_SECONDS, self._thaw)
