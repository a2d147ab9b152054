from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.market.statistics import (
    MAX_BUCKETS,
    WIDTHS_MS,
    WINDOW_MS,
    Aggressor,
    AggressorRule,
    Statistics,
    _Extreme,
    aggressor,
)
from core.messages.events import Fill
from core.messages.model import EXACT, Side

NOON_MS = 1_700_000_000_000

# Up to 30 digits, on either side of the point.
amounts = st.builds(
    lambda digits, places: EXACT.scaleb(Decimal(digits), -places), st.integers(1, 10**30 - 1), st.integers(0, 30)
)
prices = st.one_of(st.integers(1, 6).map(Decimal), amounts)


def trade(statistics: Statistics, price: str, timestamp_ms: int, quantity: str = "1") -> None:
    statistics.add(Decimal(price), Decimal(quantity), EXACT.multiply(Decimal(price), Decimal(quantity)), timestamp_ms)


def shown(statistics: Statistics, names: str) -> str:
    return " ".join(str(getattr(statistics, name)) for name in names.split())


def test_statistics_know_nothing_before_a_trade() -> None:
    statistics = Statistics()
    assert statistics.expire(NOON_MS) is False
    assert shown(statistics, "high low open last_price volume value change") == "None None None None 0 0 0"


def test_statistics_sum_up_the_trades_of_the_window() -> None:
    statistics = Statistics()
    for price, quantity in (("2.5", "10"), ("4.00", "0.5"), ("1.5", "2"), ("3", "1")):
        trade(statistics, price, NOON_MS, quantity)
    assert shown(statistics, "high low open last_price volume value change") == "4.00 1.5 2.5 3 13.5 33 0.5"


def test_statistics_lose_a_trade_when_it_is_exactly_a_day_old() -> None:
    statistics = Statistics()
    trade(statistics, "9", NOON_MS)
    trade(statistics, "5", NOON_MS + 1)
    assert statistics.expire(NOON_MS + WINDOW_MS - 1) is False
    assert shown(statistics, "high open") == "9 9"
    assert statistics.expire(NOON_MS + WINDOW_MS) is True
    assert shown(statistics, "high open volume") == "5 5 1"


def test_statistics_take_a_trade_of_the_very_first_millisecond() -> None:
    statistics = Statistics()
    trade(statistics, "9", 0)
    assert shown(statistics, "open volume") == "9 1"


def test_statistics_keep_the_last_price_when_the_window_is_empty() -> None:
    statistics = Statistics()
    trade(statistics, "9", NOON_MS)
    assert statistics.expire(NOON_MS + WINDOW_MS) is True
    assert shown(statistics, "last_price high low open volume value change") == "9 None None None 0 0 0"


def test_statistics_take_a_trade_that_is_out_of_the_window_for_the_last_price_only() -> None:
    statistics = Statistics()
    trade(statistics, "9", NOON_MS + 1)
    statistics.expire(NOON_MS + WINDOW_MS)
    trade(statistics, "7", NOON_MS)
    assert shown(statistics, "last_price low volume") == "7 9 1"
    assert len(statistics) == 1


def test_statistics_move_the_window_back_with_a_clock_that_was_ahead() -> None:
    statistics = Statistics()
    trade(statistics, "7", NOON_MS - 1)
    assert statistics.expire(NOON_MS + 2 * WINDOW_MS)
    trade(statistics, "7", NOON_MS)
    assert statistics.volume == 0
    assert not statistics.expire(NOON_MS)
    trade(statistics, "7", NOON_MS)
    assert statistics.volume == 1


def test_statistics_open_with_the_oldest_trade_when_it_comes_late() -> None:
    statistics = Statistics()
    trade(statistics, "3", NOON_MS)
    trade(statistics, "2", NOON_MS - 5)
    trade(statistics, "1", NOON_MS - 5)
    assert shown(statistics, "open last_price change") == "2 1 -1"


def test_statistics_go_on_when_a_trade_comes_from_the_far_future() -> None:
    statistics = Statistics()
    trade(statistics, "100", 2**64 - 1)
    trade(statistics, "3", NOON_MS)
    trade(statistics, "2", NOON_MS + 1)
    statistics.expire(NOON_MS + WINDOW_MS)
    assert shown(statistics, "open low high volume") == "2 2 100 2"


def test_statistics_of_a_busy_day_stay_small_and_within_a_minute() -> None:
    statistics = Statistics()
    trades = WINDOW_MS // 10_000
    for count in range(trades):
        trade(statistics, str(1 + count), NOON_MS + count * 10_000)
        assert len(statistics) <= MAX_BUCKETS
    assert shown(statistics, "width_ms open high volume") == "60000 1 8640 8640"
    statistics.expire(NOON_MS + WINDOW_MS + 90_000)
    # Ten trades are out of the window (90 seconds, both ends of them); a bucket of a minute may still hold six.
    assert trades - 10 <= statistics.volume <= trades - 4
    assert statistics.low == statistics.open == 1 + trades - statistics.volume


def test_statistics_open_with_the_oldest_trade_of_a_wide_bucket() -> None:
    statistics = Statistics(max_buckets=3)
    for millisecond in (0, 1, 2, 13):
        trade(statistics, str(50 + millisecond), NOON_MS + 10 + millisecond)
    assert shown(statistics, "width_ms open volume") == "100 50 4"
    trade(statistics, "7", NOON_MS + 10)
    assert shown(statistics, "open low") == "50 7"
    trade(statistics, "8", NOON_MS + 5)
    trade(statistics, "6", NOON_MS + 9)
    assert shown(statistics, "open low") == "8 6"


def test_statistics_lose_all_of_a_wide_bucket_at_once() -> None:
    statistics = Statistics(max_buckets=3)
    for millisecond in (0, 1, 2, 3, 500):
        trade(statistics, str(50 + millisecond), NOON_MS + millisecond, "2")
    assert shown(statistics, "width_ms volume value") == "10 10 1512"
    statistics.expire(NOON_MS + WINDOW_MS + 8)
    assert shown(statistics, "volume value") == "10 1512"
    statistics.expire(NOON_MS + WINDOW_MS + 9)
    assert shown(statistics, "open volume value high low") == "550 2 1100 550 550"


@pytest.mark.parametrize(
    ("late", "then"),
    [
        ("5", "9 8 2 1"),  # between the others in price: never an extreme
        ("10", "10 10 2 1"),  # the highest, as long as it is there
        ("8.5", "9 8.5 2 1"),  # the highest once the one before it has left
        ("0.5", "9 8 0.5 0.5"),
    ],
)
def test_statistics_place_a_late_trade_by_its_own_time(late: str, then: str) -> None:
    statistics = Statistics()
    trade(statistics, "9", NOON_MS)
    trade(statistics, "2", NOON_MS + 10)
    trade(statistics, "8", NOON_MS + 20)
    trade(statistics, "1", NOON_MS + 30)
    trade(statistics, late, NOON_MS + 5)
    seen = [statistics.high]
    statistics.expire(NOON_MS + WINDOW_MS)
    seen.append(statistics.high)
    statistics = Statistics()
    trade(statistics, "2", NOON_MS + 10)
    trade(statistics, late, NOON_MS + 5)
    seen.append(statistics.low)
    trade(statistics, "1", NOON_MS + 30)
    seen.append(statistics.low)
    assert " ".join(map(str, seen)) == then


def test_statistics_widen_no_more_than_they_need() -> None:
    statistics = Statistics()
    for millisecond in range(MAX_BUCKETS):
        trade(statistics, "1", NOON_MS + millisecond)
    assert (statistics.width_ms, len(statistics)) == (1, MAX_BUCKETS)
    trade(statistics, "1", NOON_MS + MAX_BUCKETS)
    assert (statistics.width_ms, len(statistics)) == (10, MAX_BUCKETS // 10 + 1)
    assert statistics.volume == MAX_BUCKETS + 1


def test_statistics_widen_until_half_of_the_buckets_are_free() -> None:
    statistics = Statistics(max_buckets=6)
    for millisecond in (0, 1, 2, 3, 10, 11, 20):
        trade(statistics, "1", NOON_MS + millisecond)
    assert (statistics.width_ms, len(statistics)) == (10, 3)
    statistics = Statistics(max_buckets=6)
    for millisecond in (0, 1, 2, 10, 11, 20, 30):
        trade(statistics, "1", NOON_MS + millisecond)
    assert (statistics.width_ms, len(statistics)) == (100, 1)


def test_statistics_are_exact_again_when_the_window_was_empty() -> None:
    statistics = Statistics()
    for millisecond in range(MAX_BUCKETS + 1):
        trade(statistics, "1", NOON_MS + millisecond)
    assert statistics.width_ms == 10
    statistics.expire(NOON_MS + 2 * WINDOW_MS)
    assert shown(statistics, "width_ms volume") == "1 0"


def test_statistics_stay_small_when_the_window_is_never_moved() -> None:
    statistics = Statistics(max_buckets=5)
    for minute in range(40):
        trade(statistics, str(40 - minute), NOON_MS + minute * 60_000)
    assert len(statistics) == 5
    assert shown(statistics, "volume open high low") == "5 5 5 1"


def test_widths_divide_each_other_and_the_widest_fits_a_day_into_half_the_buckets() -> None:
    assert all(wide % narrow == 0 for narrow, wide in pairwise(WIDTHS_MS))
    assert WINDOW_MS // WIDTHS_MS[-1] <= MAX_BUCKETS // 2


@dataclass
class NaiveTrade:
    price: Decimal
    quantity: Decimal
    timestamp_ms: int


class NaiveStatistics:
    """Keeps every trade, sorts and sums them all whenever asked; told only how wide the buckets are."""

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms
        self.trades: list[NaiveTrade] = []
        self.out_ms = -1

    def add(self, trade: NaiveTrade) -> None:
        if trade.timestamp_ms > self.out_ms:
            self.trades.append(trade)

    def expire(self, now_ms: int, width_ms: int) -> bool:
        self.out_ms = now_ms - self.window_ms
        before = len(self.trades)
        self.trades = [
            trade for trade in self.trades if trade.timestamp_ms // width_ms * width_ms + width_ms - 1 > self.out_ms
        ]
        return len(self.trades) < before


def agree(statistics: Statistics, naive: NaiveStatistics) -> None:
    trades = naive.trades
    prices = [trade.price for trade in trades]
    assert statistics.high == max(prices, default=None)
    assert statistics.low == min(prices, default=None)
    oldest = min(trades, key=lambda trade: trade.timestamp_ms, default=None)  # the first of equals
    assert statistics.open == (oldest.price if oldest else None)
    assert Fraction(statistics.volume) == sum((Fraction(trade.quantity) for trade in trades), Fraction(0))
    value = sum((Fraction(trade.price) * Fraction(trade.quantity) for trade in trades), Fraction(0))
    assert Fraction(statistics.value) == value
    # However the sums came about, they are written in one way.
    for total in (statistics.volume, statistics.value):
        text = format(total, "f")
        assert total.as_tuple().exponent == -len(text.partition(".")[2])
        assert "." not in text or not text.endswith("0")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.sampled_from([0, 0, 0, 1, 9, 60, -1, -8, -70, -900]), prices, amounts),
        st.tuples(st.just("rush"), st.integers(2, 12), prices, amounts),
        st.tuples(st.just("expire"), st.integers(-1, 12), prices, amounts),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([(1_000, 1_000), (1_000, 8), (10_000, 12), (120_000, 8), (WINDOW_MS, 2_880)]))
def test_statistics_agree_with_naive_ones(
    steps: Sequence[tuple[str, int, Decimal, Decimal]], bounds: tuple[int, int]
) -> None:
    window_ms, max_buckets = bounds
    statistics, naive = Statistics(window_ms, max_buckets), NaiveStatistics(window_ms)
    clock_ms = NOON_MS
    for kind, amount, price, quantity in steps:
        times: list[int] = []
        if kind == "trade":
            clock_ms += max(amount, 0)
            times = [clock_ms + min(amount, 0)]  # a negative step is a trade that comes late
        elif kind == "rush":
            times = [clock_ms + 3 * i for i in range(amount)]
            clock_ms = times[-1]
        else:
            now_ms = clock_ms + window_ms * amount // 10
            clock_ms = max(clock_ms, now_ms)
            width_ms = statistics.width_ms
            assert statistics.expire(now_ms) is naive.expire(now_ms, width_ms)
        for i, time_ms in enumerate(times):
            rising = EXACT.add(price, Decimal(i))
            statistics.add(rising, quantity, EXACT.multiply(rising, quantity), time_ms)
            naive.add(NaiveTrade(rising, quantity, time_ms))
            assert statistics.last_price == rising
        assert len(statistics) <= max_buckets
        agree(statistics, naive)


def fill(price: str | Decimal, taker_side: Side | None = None, buyer: str = "b", seller: str = "a") -> Fill:
    return Fill("fill", b"", None, "KCN/EUR", buyer, seller, Decimal(price), Decimal(1), NOON_MS, taker_side)


BID, ASK = Decimal("99"), Decimal("101.00")


@pytest.mark.parametrize(
    ("price", "bid", "ask", "previous_price", "previous_tick", "expected"),
    [
        # The quote rule, whatever the ticks say.
        ("101", BID, ASK, "102", "sell", "buy"),
        ("105", BID, ASK, "106", "sell", "buy"),
        ("99.00", BID, ASK, "98", "buy", "sell"),
        ("90", BID, ASK, "89", "buy", "sell"),
        ("100.0000000000000000000000000000000001", BID, ASK, "101", "sell", "buy"),
        ("99.9999999999999999999999999999999999", BID, ASK, "98", "buy", "sell"),
        # One side of the book.
        ("101", None, ASK, "102", "sell", "buy"),
        ("100.99", None, ASK, "98", "buy", "sell"),
        ("99", BID, None, "98", "buy", "sell"),
        ("99.01", BID, None, "102", "sell", "buy"),
        # The tick rule: the midpoint, no quotes, crossed quotes.
        ("100", BID, ASK, "99.99", "sell", "buy"),
        ("100", BID, ASK, "100.01", "buy", "sell"),
        ("100", BID, ASK, "100.00", "buy", "buy"),
        ("100", BID, ASK, "100.00", "sell", "sell"),
        ("100", None, None, "99", "sell", "buy"),
        ("100", None, None, "101", "buy", "sell"),
        ("100.5", ASK, BID, "101", "buy", "sell"),
        ("99.5", ASK, BID, "99", "sell", "buy"),
        ("100", Decimal(100), Decimal(100), "101", "buy", "sell"),
    ],
)
def test_aggressor_goes_by_quotes_then_ticks(
    price: str,
    bid: Decimal | None,
    ask: Decimal | None,
    previous_price: str,
    previous_tick: Aggressor,
    expected: Aggressor,
) -> None:
    assert aggressor(fill(price), bid, ask, Decimal(previous_price), previous_tick) == expected


@pytest.mark.parametrize(("taker_side", "expected"), [(Side.BID, "buy"), (Side.ASK, "sell")])
@pytest.mark.parametrize("price", ["98", "100", "102"])
def test_aggressor_is_whom_the_engine_names(taker_side: Side, expected: Aggressor, price: str) -> None:
    assert aggressor(fill(price, taker_side), BID, ASK, None, None) == expected


@pytest.mark.parametrize(
    ("buyer", "seller", "expected"),
    [
        ("10", "9", "buy"),
        ("9", "10", "sell"),
        ("-9", "-10", "buy"),
        ("018c2f6e-0000-7000-8000-000000000002", "018c2f6e-0000-7000-8000-000000000001", "buy"),
        ("018c2f6e-0000-7000-8000-000000000001", "018c2f6e-0000-7000-8000-000000000002", "sell"),
        ("7", "06", "buy"),
        ("06", "7", "sell"),
    ],
)
@pytest.mark.parametrize("quotes", [(None, None), (BID, ASK)])
def test_aggressor_is_the_younger_order_when_nothing_else_tells(
    buyer: str, seller: str, expected: Aggressor, quotes: tuple[Decimal | None, Decimal | None]
) -> None:
    assert aggressor(fill("100", None, buyer, seller), *quotes, None, None) == expected
    assert aggressor(fill("100", None, buyer, seller), *quotes, Decimal(100), None) == expected


def test_aggressor_rule_goes_by_the_quotes_before_the_ticks() -> None:
    rule = AggressorRule()
    assert rule.side(fill("101"), BID, ASK) == "buy"
    assert rule.side(fill("99"), BID, ASK) == "sell"
    # Downwards and then upwards, but nearer to the other quote; with one side of the book empty, away from the other.
    assert rule.side(fill("98"), Decimal(90), Decimal(98)) == "buy"
    assert rule.side(fill("99"), Decimal(99), Decimal(110)) == "sell"
    assert rule.side(fill("98"), Decimal(97), None) == "buy"
    assert rule.side(fill("99"), None, Decimal(100)) == "sell"


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([None, None, Side.BID, Side.ASK])), max_size=12))
def test_aggressor_rule_takes_a_zero_tick_for_the_last_different_price(trades: list[tuple[int, Side | None]]) -> None:
    rule = AggressorRule()
    sides: list[Aggressor] = []
    for i, (price, taker_side) in enumerate(trades):
        expected: Aggressor
        before = [earlier for earlier, _ in trades[: i + 1]]
        moves = [now - then for then, now in pairwise(before) if now != then]
        if taker_side is not None:
            expected = "buy" if taker_side is Side.BID else "sell"
        elif moves:
            expected = "buy" if moves[-1] > 0 else "sell"
        else:
            expected = sides[0] if sides else "buy"  # "b" is the younger order
        sides.append(rule.side(fill(Decimal(price), taker_side), None, None))
        assert sides[-1] == expected


@given(prices, prices, prices, st.none() | prices, st.sampled_from([None, "buy", "sell"]), st.booleans())
def test_aggressor_mirrors_when_the_market_is_turned_round(
    price: Decimal,
    one: Decimal,
    other: Decimal,
    previous: Decimal | None,
    tick: Aggressor | None,
    buyer_is_younger: bool,
) -> None:
    """Prices reflected and sides swapped give the other aggressor: the rules lean to neither side."""
    bid, ask = min(one, other), max(one, other)
    turned: dict[Aggressor | None, Aggressor | None] = {"buy": "sell", "sell": "buy", None: None}
    top = Decimal(10) ** 31

    def reflected(value: Decimal) -> Decimal:
        return EXACT.subtract(top, value)

    trade = fill(price, None, "2" if buyer_is_younger else "1", "1" if buyer_is_younger else "2")
    mirror = replace(trade, price=reflected(price), buy_order_id=trade.sell_order_id, sell_order_id=trade.buy_order_id)
    mirrored = aggressor(
        mirror, reflected(ask), reflected(bid), None if previous is None else reflected(previous), turned[tick]
    )
    assert mirrored == turned[aggressor(trade, bid, ask, previous, tick)]


def test_extreme_since_a_bucket_has_that_one_and_what_came_later() -> None:
    lows = _Extreme(lambda price, other: price < other)
    for start_ms, price in ((1_000, 1), (2_000, 2), (3_000, 3)):
        lows.add(start_ms, Decimal(price))
    assert [start for start, _ in lows.since(2_000)] == [2_000, 3_000]
    assert [start for start, _ in lows.since(0)] == [1_000, 2_000, 3_000]
    assert lows.since(4_000) == []
