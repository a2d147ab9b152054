"""What is taken for the time of a record, and of what it tells: whoever wrote it had another clock, or another unit.

Many things move one way with time: a window of 24 hours, a history, the time that a book is shown with. One record from the
future would move them for good, and every warm-up would read it again. So a time that is more than a minute ahead of our own
clock is not followed (docs/contract.md#times-of-others): of what a record tells, Kafka's time of the record stands in, on
which all instances agree however late they read it; for Kafka's own, or where it has none, our clock does. What can only be
seconds, microseconds or nanoseconds is read as that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from core.messages.events import Event, UnknownEvent
from core.messages.order_records import PlacedRecord

AHEAD_MS: Final = 60_000
# Why a time was not taken as it was written: a closed set, for each becomes a metric label.
AHEAD: Final = "ahead"
KINDS: Final = (AHEAD, "seconds", "microseconds", "nanoseconds")

# Between these a number is taken for milliseconds: from 1973 to the year 5138. In seconds from 2001 on, and in microseconds and
# nanoseconds from 1973 on, a time is outside. What is less than any of them is what tests write.
_LEAST_SECONDS: Final = 10**9
_LEAST_MS: Final = 10**11
_LEAST_MICROSECONDS: Final = 10**14
_LEAST_NANOSECONDS: Final = 10**17


def _untold(_kind: str, _what: str, _time: int) -> None:
    """Nobody counts."""


class Times:
    """Decides what a foreign time is taken for. Milliseconds since the Unix epoch."""

    def __init__(
        self, clock: Callable[[], float] = time.time, on_odd: Callable[[str, str, int], None] = _untold
    ) -> None:
        """`clock` is ours, seconds since the epoch. `on_odd` hears of a time that is not taken as it is: which of
        `KINDS`, what has it, and the number.
        """
        self._clock = clock
        self._on_odd = on_odd

    def now_ms(self) -> int:
        """Our own time."""
        return int(self._clock() * 1000)

    def of_record(self, given: int) -> int:
        """Kafka's time of a record; ours where it has none (that is told as less than 1)."""
        now_ms = self.now_ms()
        if _LEAST_MS <= given <= now_ms + AHEAD_MS:
            return given
        return self._taken(given, "record", now_ms, now_ms) if given > 0 else now_ms

    def in_event(self, event: Event, record_ms: int) -> Event:
        """The event with the time that is taken for its own, if it has one. `record_ms` is its record's, as taken."""
        if isinstance(event, UnknownEvent):
            return event
        given = event.timestamp_ms
        # What is no later than its record is not ahead, as that is not: most events need no look at the clock.
        if given is None or _LEAST_MS <= given <= record_ms or _LEAST_MS <= given <= self.now_ms() + AHEAD_MS:
            return event
        return replace(event, timestamp_ms=self._in(given, event.type, record_ms))

    def in_order(self, placed: PlacedRecord, record_ms: int) -> PlacedRecord:
        """The same for an order as it is read back."""
        given = placed.timestamp_ms
        if given is None or _LEAST_MS <= given <= record_ms or _LEAST_MS <= given <= self.now_ms() + AHEAD_MS:
            return placed
        return placed._replace(timestamp_ms=self._in(given, "place_order", record_ms))

    def in_account(self, given: int | None, record_ms: int) -> int:
        """What is taken for the time of an account record; its record's where it told none."""
        if given is None or _LEAST_MS <= given <= record_ms or _LEAST_MS <= given <= self.now_ms() + AHEAD_MS:
            return record_ms if given is None else given
        return self._in(given, "account", record_ms)

    def _in(self, given: int, what: str, record_ms: int) -> int:
        now_ms = self.now_ms()
        return self._taken(given, what, record_ms if record_ms > 0 else now_ms, now_ms)

    def _taken(self, given: int, what: str, instead_ms: int, now_ms: int) -> int:
        kind, taken = None, given
        if given >= _LEAST_NANOSECONDS:
            kind, taken = "nanoseconds", given // 1_000_000
        elif given >= _LEAST_MICROSECONDS:
            kind, taken = "microseconds", given // 1_000
        elif _LEAST_SECONDS <= given < _LEAST_MS:
            kind, taken = "seconds", given * 1_000
        if taken > now_ms + AHEAD_MS:
            kind, taken = AHEAD, instead_ms
        if kind is not None:
            self._on_odd(kind, what, given)
        return taken
