"""What was said of one symbol lately, by offset, so that a client who comes back can have what it missed.

Invariant: every public event of the symbol with an offset above `complete_after` is here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter

import msgspec

from core.market.trade import Trade

# Dropped entries are cut off in runs, so that dropping one costs nothing.
COMPACT_AT = 256


_offset = attrgetter("offset")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One public event: where it stands, Kafka's time for it, its bytes, and the trade if it was one."""

    partition: int
    offset: int
    time_ms: int
    symbol: str
    payload: bytes
    trade: Trade | None


class History:
    """At most `records` entries, none older than `seconds` when the next one comes."""

    __slots__ = (
        "_entries",
        "_max_age_ms",
        "_max_records",
        "_start",
        "_trade_start",
        "_trades",
        "complete_after",
    )

    def __init__(self, records: int, seconds: float, complete_after: int) -> None:
        self._max_records = records
        self._max_age_ms = int(seconds * 1000)
        self._entries: list[Entry] = []
        self._start = 0
        # Of these the trades, for who wants nothing else: they are few among changes of books.
        self._trades: list[Trade] = []
        self._trade_start = 0
        self.complete_after = complete_after

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def add(self, entry: Entry) -> None:
        """Append the newest entry and drop what is too much or too old."""
        if not self._max_records:
            self.complete_after = entry.offset
            return
        entries = self._entries
        entries.append(entry)
        if entry.trade is not None:
            self._trades.append(entry.trade)
        oldest_ms = entry.time_ms - self._max_age_ms
        if len(entries) - self._start > self._max_records or entries[self._start].time_ms < oldest_ms:
            self._drop(oldest_ms)

    def _drop(self, oldest_ms: int) -> None:
        """What is too much, or older than this."""
        entries = self._entries
        while len(self) > self._max_records or entries[self._start].time_ms < oldest_ms:
            dropped = entries[self._start]
            self.complete_after = dropped.offset
            self._trade_start += dropped.trade is not None
            self._start += 1
        if self._start >= COMPACT_AT and self._start * 2 >= len(entries):
            del entries[: self._start], self._trades[: self._trade_start]
            self._start = self._trade_start = 0

    def after(self, offset: int) -> Iterator[Entry]:
        """Entries with a greater offset, oldest first; to be used up before the next `add`."""
        position = max(bisect_right(self._entries, offset, key=_offset), self._start)
        while position < len(self._entries):
            yield self._entries[position]
            position += 1

    @property
    def trade_count(self) -> int:
        """How many of the entries are trades."""
        return len(self._trades) - self._trade_start

    def trades_after(self, offset: int, most: int) -> list[Trade]:
        """The first trades with a greater offset, oldest first."""
        start = max(bisect_right(self._trades, offset, key=_offset), self._trade_start)
        return self._trades[start : start + most]

    def trades_before(self, offset: int, most: int) -> list[Trade]:
        """The last trades with a smaller offset, newest first."""
        end = max(bisect_left(self._trades, offset, key=_offset), self._trade_start)
        return self._trades[max(end - most, self._trade_start) : end][::-1]
