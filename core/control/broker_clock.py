"""The time by the brokers' clock, as far as what they append to the control topic tells: one clock for who was killed and who starts.

Each record that is read was appended before: so it is at least so late. Told where the topic has `message.timestamp.type=LogAppendTime`.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class BrokerClock:
    """What is known of it. It is behind by as much as the last record took to be read."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # Of our monotonic clock, seconds.
        self._ahead = float("-inf")

    def heard(self, appended_ms: int) -> None:
        """A record is read that was appended then: milliseconds since the Unix epoch, by its broker's clock."""
        self._ahead = max(self._ahead, appended_ms / 1000 - self._monotonic())

    def age(self, appended_ms: int) -> float:
        """How many seconds ago a record was appended that was read, at least."""
        return self._monotonic() + self._ahead - appended_ms / 1000
