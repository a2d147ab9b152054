"""How late the loop is: a timer that notes how long after its time it was called.

A loop that is held up for long calls it once, where it should have been called many times: what each of them would have
seen is noted too, or else the worst would weigh least (coordinated omission).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# 15 microseconds each: 0.015 % of a core.
PERIOD_SECONDS: Final = 0.1
# A machine that was asleep has not missed a million turns.
MAX_NOTED: Final = 100


class LoopLag:
    """Begins when it is made; call `stop` at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Callable[[float], None]) -> None:
        """`observe` is told seconds."""
        self._loop = loop
        self._observe = observe
        self._due = loop.time() + PERIOD_SECONDS
        self._timer = loop.call_at(self._due, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        late = max(0.0, now - self._due)
        for number in range(min(MAX_NOTED, 1 + int(late / PERIOD_SECONDS))):
            self._observe(late - number * PERIOD_SECONDS)
        self._due = now + PERIOD_SECONDS
        self._timer = self._loop.call_at(self._due, self._look)
