"""A circuit breaker: after so many failures in a row, do not ask again for a while, then with one request at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("gateway.services")


class CircuitBreaker:
    """Closed while the service answers. Whoever is admitted has to say how it went."""

    def __init__(
        self, name: str, max_failures: int, pause_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`name` is the service's, for the log; it opens with the `max_failures`th failure in a row."""
        self._name = name
        self._max_failures = max_failures
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0
        self.problem: str | None = None
        """Why the circuit is open, for people; None while it is closed."""

    def admit(self) -> bool:
        """Whether to ask. While open one request in `pause_seconds` is let through, to see."""
        if self.problem is None:
            return True
        now = self._clock()
        if now < self._probe_at:
            return False
        # Not a flag that the probe clears: a probe that never comes back would keep the circuit open for good.
        self._probe_at = now + self._pause_seconds
        return True

    def succeeded(self) -> None:
        """The service answered."""
        self._failures = 0
        if self.problem is not None:
            self.problem = None
            log.info("%s answers again", self._name)

    def failed(self, reason: str) -> None:
        """The service did not answer, or with a fault of its own."""
        self._failures += 1
        if self._failures < self._max_failures:
            return
        if self.problem is None:
            log.error("%s failed %d times in a row (%s): it is left alone", self._name, self._failures, reason)
        self.problem = f"{self._name} fails: {reason}"
        self._probe_at = self._clock() + self._pause_seconds
