"""A thread that waits for what the client of the order topic reports, and wakes the loop for it: once for many.

The beat would find it, too, a millisecond or two later. While much is under way, and for a moment after, it is left to the beat:
a thread that is woken for each record takes the loop's time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Protocol

# Seconds that one wait takes at most.
WAIT_SECONDS = 0.1
# With more commands under way than these the beat looks after them.
MOST_AWAITED = 4
# Seconds for which it goes on to: those of a busy client come in bursts, and to wake the thread between two costs more than it
# saves.
CALM_SECONDS = 0.05


class Reports(Protocol):
    """What is waited for."""

    under_way: int
    """Commands that the client has yet to report on."""

    def serve(self, timeout_seconds: float) -> bool:
        """Wait for reports; whether there are any to settle."""

    def settle(self) -> None:
        """On the loop: look at them."""


class AcknowledgementThread:
    """`expect` is called whenever something is awaited."""

    def __init__(
        self, reports: Reports, most_awaited: int = MOST_AWAITED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reports = reports
        self._most_awaited = most_awaited
        self._clock = clock
        self._is_busy_until = -CALM_SECONDS
        self._loop = asyncio.get_running_loop()
        self._awaited = threading.Event()
        self._closed = False
        self._is_told = False
        self._thread = threading.Thread(target=self._run, name="acknowledgements", daemon=True)
        self._thread.start()

    def expect(self) -> None:
        """Something is under way."""
        if self._reports.under_way > self._most_awaited:
            self._is_busy_until = self._clock() + CALM_SECONDS
            self._rest()
        elif not self._awaited.is_set() and self._clock() >= self._is_busy_until:
            self._awaited.set()

    def _rest(self) -> None:
        # Once it is closed, the thread has to come to its end.
        if not self._closed:
            self._awaited.clear()

    @property
    def waits(self) -> bool:
        """Whether the thread is to wait for reports."""
        return self._awaited.is_set()

    def close(self) -> None:
        """Wait for no more; the thread ends within `WAIT_SECONDS`."""
        self._closed = True
        self._awaited.set()

    def join(self, timeout_seconds: float) -> None:
        """Blocking: until the thread has ended. Raises TimeoutError."""
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            raise TimeoutError

    def _run(self) -> None:
        while True:
            self._awaited.wait()
            if self._closed:
                return
            if self._reports.serve(WAIT_SECONDS) and not self._is_told:
                self._is_told = True
                try:
                    self._loop.call_soon_threadsafe(self._settle)
                except RuntimeError:
                    return  # the loop is closed: the process is at its end

    def _settle(self) -> None:
        self._is_told = False
        self._reports.settle()
        if not self._reports.under_way:
            self._rest()
