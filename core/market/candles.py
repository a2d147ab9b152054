"""A symbol's candles: what was traded in each minute, 5 and 15 minutes, hour, 4 hours and day (UTC), by the fills' own times.

One pass: a fill goes into the minute that is under way, and what ends becomes a part of the next larger one; so a larger
one that is under way is its own part and those of the smaller ones together. A late fill changes the candle that it belongs
to, in each interval up to the one of which it is still under way.

The open is the fill with the least time, the close the one with the greatest; of several at one time the first, and the
last, in the order of the topic. Periods without a trade are not kept, but told: they repeat the close with a volume of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from decimal import Decimal
from typing import Final

import msgspec

from core.market.candle_series import MOST_CANDLES, PAGES_AN_INTERVAL, Candle, CandlePage, CandleSeries, line_start
from core.messages.model import EXACT

# Each divides the next.
CANDLE_INTERVALS_MS: Final = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
}
CANDLE_PAGES: Final = PAGES_AN_INTERVAL * len(CANDLE_INTERVALS_MS)
_MINUTE_MS: Final = 60_000
# Where the close is when a line is split at its quotation marks.
_CLOSE: Final = 7

_add = EXACT.add


class KeptCandles(msgspec.Struct, frozen=True):
    """`at` is the offset of the last fill; `under_way` has the candles that have not ended, the smallest interval first."""

    at: int
    under_way: list[Candle]


class Candles:
    """All candles of a symbol. `revision` is the offset of the last fill, which changed them; -1 before the first."""

    __slots__ = ("_of", "_series", "now_ms", "revision")

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms` is our own time, by which periods end."""
        self.now_ms = now_ms
        self._series = [CandleSeries(width_ms) for width_ms in CANDLE_INTERVALS_MS.values()]
        self._of = dict(zip(CANDLE_INTERVALS_MS, range(len(self._series)), strict=True))
        self.revision = -1

    def add(self, price: Decimal, quantity: Decimal, value: Decimal, time_ms: int, offset: int) -> None:
        """Count one fill, of price times quantity as its `value`."""
        self.revision = offset
        minute = self._series[0].under_way
        at_ms = time_ms - minute.start_ms
        if not 0 <= at_ms < _MINUTE_MS:
            if at_ms < 0:
                self._add_late(price, quantity, value, time_ms)
                return
            minute = self._begin(time_ms)
            at_ms = time_ms - minute.start_ms
        if not minute.trades:
            minute.open = minute.high = minute.low = minute.close = price
            minute.first_ms = minute.last_ms = at_ms
            minute.volume, minute.value, minute.trades = quantity, value, 1
            return
        if at_ms >= minute.last_ms:
            minute.close = price
            minute.last_ms = at_ms
        elif at_ms < minute.first_ms:
            minute.open = price
            minute.first_ms = at_ms
        if price > minute.high:
            minute.high = price
        elif price < minute.low:
            minute.low = price
        minute.volume = _add(minute.volume, quantity)
        minute.value = _add(minute.value, value)
        minute.trades += 1

    def _begin(self, time_ms: int) -> Candle:
        """A minute starts that is later than all before; what has ended with the last one ends. Returns the new one."""
        ended: Candle | None = None
        for series in self._series:
            start_ms = time_ms - time_ms % series.width_ms
            if ended is not None:
                series.under_way.absorb(ended)
            if series.under_way.start_ms == start_ms:
                break
            ended = series.under_way
            series.end(start_ms)
        return self._series[0].under_way

    def _add_late(self, price: Decimal, quantity: Decimal, value: Decimal, time_ms: int) -> None:
        for series in self._series:
            if time_ms >= series.under_way.start_ms:
                series.under_way.fold(price, quantity, value, time_ms)
                return
            series.add_late(price, quantity, value, time_ms)

    def _under_way(self, number: int) -> Candle:
        """The whole candle of the newest fill's period."""
        candle = copy(self._series[0].under_way)
        for series in self._series[1 : number + 1]:
            larger = copy(series.under_way)
            larger.absorb(candle)
            candle = larger
        return candle

    def rows(
        self,
        interval: str,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int,
        as_numbers: bool = False,
    ) -> list[str]:
        """Candles as JSON, `[open_time_ms, open, high, low, close, volume, value, trades, closed]`, oldest first; decimals are
        strings, or numbers.

        Those that open from `start_ms` to `end_ms` (both may be one of them), at most `limit` and `MOST_CANDLES`: the first
        ones where there is a `start_ms`, else the last. Periods without a trade are among them, from the oldest that is kept to
        the one that our clock is in. Raises KeyError for an interval that is none.
        """
        number = self._of[interval]
        series = self._series[number]
        if self.revision < 0:
            return []
        width_ms, now_ms = series.width_ms, self.now_ms()
        newest = self._under_way(number)
        last_ms = max(newest.start_ms, now_ms - now_ms % width_ms)
        if end_ms is not None:
            last_ms = min(last_ms, end_ms - end_ms % width_ms)
        first_ms = series.oldest_ms()
        if start_ms is not None:
            first_ms = max(first_ms, start_ms + -start_ms % width_ms)
        # The times between the first and the last.
        most_ms = (min(limit, MOST_CANDLES) - 1) * width_ms
        if start_ms is not None:
            last_ms = min(last_ms, first_ms + most_ms)
        else:
            first_ms = max(first_ms, last_ms - most_ms)
        if first_ms > last_ms:
            return []
        lines = series.lines_between(first_ms, last_ms)
        if newest.start_ms <= last_ms:
            lines.append(newest.line())
        return _told(_filled(lines, first_ms, last_ms, width_ms), now_ms - width_ms, as_numbers)

    def oldest_ms(self, interval: str) -> int:
        """Where the oldest candle starts that is told; 0 before the first fill."""
        return 0 if self.revision < 0 else self._series[self._of[interval]].oldest_ms()

    def newest_ms(self, interval: str) -> int:
        """Where the period of the newest fill starts. Only after a fill."""
        return self._series[self._of[interval]].under_way.start_ms

    def rows_at(self, interval: str, starts: Iterable[int]) -> list[str]:
        """Of the candles that have ended those that start then and are kept, as rows of numbers, oldest first."""
        series = self._series[self._of[interval]]
        lines = series.lines_at(sorted(starts))
        return _told([line.rsplit(",", 2)[0] for line in lines], self.now_ms() - series.width_ms, True)

    def follow(self, interval: str) -> dict[int, None]:
        """From now on the starts of those that end, or are changed afterwards, are put into this: one follows at a time."""
        series = self._series[self._of[interval]]
        changed: dict[int, None] = {}
        series.changed = changed
        return changed

    def unfollow(self, interval: str, changed: dict[int, None]) -> None:
        """Who was given this asks no more."""
        series = self._series[self._of[interval]]
        if series.changed is changed:
            series.changed = None

    # What is kept.

    def kept(self) -> KeptCandles | None:
        """What is under way, to be written at once; None before the first fill."""
        return None if self.revision < 0 else KeptCandles(self.revision, [one.under_way for one in self._series])

    def take_pages(self, everything: bool = False) -> dict[int, CandlePage | None]:
        """What has ended: the pages that changed since they were taken last, by number; None for one with nothing on it."""
        return {
            number * PAGES_AN_INTERVAL + page: taken
            for number, series in enumerate(self._series)
            for page, taken in series.take_pages(everything).items()
        }

    def restore(self, kept: KeptCandles, pages: Mapping[int, CandlePage]) -> None:
        """Of new ones: be those that these were taken of. Raises ValueError for what cannot be."""
        if kept.at < 0 or len(kept.under_way) != len(self._series):
            raise ValueError(f"at, under_way: expected an offset and {len(self._series)} candles")
        newest_ms = kept.under_way[0].start_ms
        if not kept.under_way[0].trades:
            raise ValueError("under_way: expected a trade in the minute of the newest")
        self.revision = kept.at
        for number, (series, under_way) in enumerate(zip(self._series, kept.under_way, strict=True)):
            if under_way.start_ms != newest_ms - newest_ms % series.width_ms:
                raise ValueError(f"under_way: none of {series.width_ms} ms starts at {under_way.start_ms}")
            first = number * PAGES_AN_INTERVAL
            numbers = range(first, first + PAGES_AN_INTERVAL)
            series.restore({page - first: pages[page] for page in numbers if page in pages}, under_way)


def start_of(row: str) -> int:
    """Where the candle of one of `Candles.rows` opens."""
    return int(row[1 : row.index(",")])


def _filled(lines: Sequence[str], first_ms: int, last_ms: int, width_ms: int) -> list[str]:
    """The candles of all periods, without what is not told: `lines` may begin before the first, and has no gap at its end."""
    rows: list[str] = []
    flat = ""
    next_ms = first_ms
    for line in lines:
        start_ms = line_start(line)
        while next_ms < start_ms:
            rows.append(f"{next_ms},{flat}")
            next_ms += width_ms
        close = line.split('"', _CLOSE + 1)[_CLOSE]
        flat = f'"{close}","{close}","{close}","{close}","0","0",0'
        if start_ms >= first_ms:
            rows.append(line.rsplit(",", 2)[0])
            next_ms = start_ms + width_ms
    while next_ms <= last_ms:
        rows.append(f"{next_ms},{flat}")
        next_ms += width_ms
    return rows


def _told(rows: list[str], last_closed_ms: int, as_numbers: bool) -> list[str]:
    """As arrays of JSON: closed are those that start no later than this."""
    told = [f"[{row},{'true' if line_start(row) <= last_closed_ms else 'false'}]" for row in rows]
    return [row.replace('"', "") for row in told] if as_numbers else told
