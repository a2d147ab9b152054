"""A thread that waits for what the client of the order topic reports, and wakes the loop for it: once for many.

The beat would find it, too, a millisecond or two later. While much is under way, and for a moment after, it is left to the beat:
a thread that is woken for each record takes the loop's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from core.kafka.waiting_thread import WAIT_SECONDS, WaitingThread

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


class AcknowledgementThread(WaitingThread):
    """`expect` is called whenever something is awaited."""

    def __init__(
        self, reports: Reports, most_awaited: int = MOST_AWAITED, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(self._run, "acknowledgements")
        self._reports = reports
        self._most_awaited = most_awaited
        self._clock = clock
        self._is_busy_until = -CALM_SECONDS
        self._is_told = False
        self._thread.start()

    def expect(self) -> None:
        """Something is under way."""
        if self._reports.under_way > self._most_awaited:
            self._is_busy_until = self._clock() + CALM_SECONDS
            self._rest()
        elif not self._may_wait.is_set() and self._clock() >= self._is_busy_until:
            self._may_wait.set()

    def _rest(self) -> None:
        # Once it is closed, the thread has to come to its end.
        if not self._closed:
            self._may_wait.clear()

    @property
    def is_busy(self) -> bool:
        """Whether so much is under way, or was a moment ago, that the beat looks after it, and comes often."""
        return self._reports.under_way > self._most_awaited or self._clock() < self._is_busy_until

    @property
    def waits(self) -> bool:
        """Whether the thread is to wait for reports."""
        return self._may_wait.is_set()

    def _run(self) -> None:
        while True:
            self._may_wait.wait()
            if self._closed:
                return
            if self._reports.serve(WAIT_SECONDS) and not self._is_told:
                self._is_told = True
                if not self._tell_loop(self._settle):
                    return

    def _settle(self) -> None:
        self._is_told = False
        self._reports.settle()
        if not self._reports.under_way:
            self._rest()
