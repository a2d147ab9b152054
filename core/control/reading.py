"""Whether what comes off the control topic has just been written, and whether the clocks of those who write it agree with ours.

Only then is it counted from when it is read, by our own monotonic clock, so that no other one matters. After a start, and after
a pause of our own, what is read may be older than that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from core.log_throttle import QuietLog

log = logging.getLogger("gateway.control")

# By so much the clocks of two instances may differ.
SKEW_MS: Final = 1000
# Whoever did not look for so long has stood still; for as long again, a minute at most, it has to catch up.
PAUSE_SECONDS: Final = 0.5
MOST_CATCHING_UP_SECONDS: Final = 60.0
# A record may be on its way for some seconds, when brokers fail; one from the future is no matter of that.
ON_ITS_WAY_MS: Final = 10_000


class Reading:
    """`beat` has to be called often, after what has come is taken."""

    def __init__(
        self,
        is_read: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_read`: the topic has been read to its end, and can be read on. `clock` is in seconds since the Unix epoch."""
        self._is_read = is_read
        self._clock = clock
        self._monotonic = monotonic
        self._beat_at = monotonic()
        self._catches_up_until = float("-inf")
        self._quiet_log = QuietLog(log, monotonic)

    def beat(self) -> None:
        """What has come is taken."""
        now = self._monotonic()
        self._catches_up_until = max(self._catches_up_until, self._caught_up_at(now))
        self._beat_at = now

    def is_live(self) -> bool:
        """Whether what is taken now has just been written, as far as can be known."""
        now = self._monotonic()
        return now >= self._catches_up_until and self._caught_up_at(now) <= now and self._is_read()

    def _caught_up_at(self, now: float) -> float:
        pause = now - self._beat_at
        return now + min(pause, MOST_CATCHING_UP_SECONDS) if pause > PAUSE_SECONDS else now

    def check_time(self, time_ms: int) -> None:
        """Warn if a record's time, milliseconds since the Unix epoch by its writer's clock, shows that the clocks differ."""
        ahead_ms = time_ms - int(self._clock() * 1000)
        if ahead_ms > SKEW_MS or (ahead_ms < -ON_ITS_WAY_MS and self.is_live()):
            self._quiet_log.warning(
                "clocks",
                "the clock of another instance or broker is %.1f s %s: set both, for what is to happen at a moment of one clock happens by another",
                abs(ahead_ms) / 1000, "ahead of this one's" if ahead_ms > 0 else "behind this one's",
            )  # fmt: skip
