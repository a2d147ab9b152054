"""Candles worked out from the contract the slow way: all fills are kept, and each row is made of them anew."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from core.market.candles import Candles
from tests.core.naive import exact

INTERVALS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}
MOST = 1_500

Row = list[Any]


class Trade(NamedTuple):
    price: Decimal
    quantity: Decimal
    time_ms: int


def periods(fills: list[Trade], interval: str) -> dict[int, list[Trade]]:
    """The fills of each period, by where it starts, in the order of the topic; the oldest that are not kept are left out."""
    width_ms = INTERVALS[interval] * 1000
    found: dict[int, list[Trade]] = {}
    for fill in fills:
        found.setdefault(fill.time_ms // width_ms * width_ms, []).append(fill)
    # The newest is under way, and as many as are kept have ended.
    return {start: found[start] for start in sorted(found)[-MOST - 1 :]}


def row_of(start_ms: int, fills: list[Trade], is_closed: bool) -> Row:
    first = min(fills, key=lambda fill: fill.time_ms)
    last = max(reversed(fills), key=lambda fill: fill.time_ms)
    prices = [fill.price for fill in fills]
    volume = sum(Fraction(fill.quantity) for fill in fills)
    value = sum(Fraction(fill.quantity) * Fraction(fill.price) for fill in fills)
    return [start_ms, first.price, max(prices), min(prices), last.price, volume, value, len(fills), is_closed]


def naive_rows(fills: list[Trade], interval: str, now_ms: int) -> list[Row]:
    """All rows that there are; not for where trades are far apart."""
    if not fills:
        return []
    width_ms = INTERVALS[interval] * 1000
    found = periods(fills, interval)
    rows: list[Row] = []
    start_ms = min(found)
    while start_ms <= max(max(found), now_ms // width_ms * width_ms):
        is_closed = start_ms + width_ms <= now_ms
        if start_ms in found:
            rows.append(row_of(start_ms, found[start_ms], is_closed))
        else:
            rows.append([start_ms, *4 * [rows[-1][4]], 0, 0, 0, is_closed])
        start_ms += width_ms
    return rows


def shown_rows(candles: Candles, interval: str, **asked: Any) -> list[Row]:
    """What is told, with every number as exact as the naive ones."""
    rows = [exact(row) for row in candles.rows(interval, **{"limit": MOST, **asked})]
    for row in rows:
        assert [type(one) for one in row] == [Decimal, *6 * [str], Decimal, bool]
    return [[row[0], *map(Decimal, row[1:5]), Fraction(row[5]), Fraction(row[6]), *row[7:]] for row in rows]
