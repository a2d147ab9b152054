"""A symbol's trades by their names: beside a list of all there were, and what is said of those that are not kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.market.kept_trades import (
    TradeId,
    last_trades,
    read_trade_id,
    trade_text,
    trades_after,
    trades_before,
)
from core.market.symbol_market import SNAPSHOT_TRADES, SymbolMarket
from core.market.trade import Trade
from tests.core.driven_hub import WALL_MS, DrivenHub
from tests.core.fakes import delta, fill

SYMBOL = "KCN/EUR"


def market_of(kinds: list[bool], history: int) -> tuple[SymbolMarket, list[int]]:
    """After so many events from offset 10 on, trades where true; and the trades' offsets."""
    driven = DrivenHub(history_records=history)
    driven.market.partitions.begin(0, 10)
    for offset, is_trade in enumerate(kinds, 10):
        driven.say((0, offset, fill(timestamp=WALL_MS) if is_trade else delta()))
    return driven.market.of(SYMBOL), [offset for offset, is_trade in enumerate(kinds, 10) if is_trade]


def names(trades: list[Trade]) -> list[int]:
    assert all(trade.partition == 0 for trade in trades)
    return [trade.offset for trade in trades]


@given(
    kinds=st.lists(st.sampled_from([True, True, False]), min_size=1, max_size=250),
    history=st.integers(1, 300),
    offset=st.integers(0, 270),
    most=st.integers(1, 120),
)
def test_trades_before_and_after_one_are_all_there_were_or_the_gap_is_told(
    kinds: list[bool], history: int, offset: int, most: int
) -> None:
    market, everything = market_of(kinds, history)
    folded_to = 9 + len(kinds)
    kept = everything[-max(SNAPSHOT_TRADES, sum(kinds[-history:])) :]
    later = [one for one in everything if one > offset]
    after = trades_after(market, TradeId(0, offset), most, folded_to)
    assert names(after.trades) == [one for one in kept if one > offset][:most]
    if not after.has_gap:
        assert names(after.trades) == later[:most]
        assert offset <= folded_to
    elif offset <= folded_to:
        assert len(kept) < len(everything) or offset < 10 or offset < kept[0]
    earlier = [one for one in everything if one < offset][::-1]
    before = trades_before(market, TradeId(0, offset), most, folded_to)
    assert names(before.trades) == [one for one in reversed(kept) if one < offset][:most]
    if not before.has_gap:
        assert names(before.trades) == earlier[:most]
        assert before.trades
    assert names(last_trades(market, most).trades) == everything[::-1][:most][: len(kept)]
    # From one to the next, there and back, nothing is left out and nothing is told twice.
    for start in kept:
        assert not trades_after(market, TradeId(0, start), most, folded_to).has_gap


@pytest.mark.parametrize("history", [1000, 3])
def test_trades_are_walked_through_page_by_page(history: int) -> None:
    market, everything = market_of([True, False] * 30, history)
    page, walked = last_trades(market, 7).trades, []
    while page:
        walked += names(page)
        found = trades_before(market, TradeId(0, page[-1].offset), 7, 100)
        page = found.trades
    assert walked == everything[::-1]
    assert found.has_gap, "what was before the reading began is not known"
    walked, at = [], everything[0]
    while page := trades_after(market, TradeId(0, at), 7, 100).trades:
        walked += names(page)
        at = page[-1].offset
    assert walked == everything[1:]


def test_trades_of_a_topic_that_was_read_from_its_beginning_end_without_a_gap() -> None:
    driven = DrivenHub()
    driven.say((0, 0, fill()), (0, 1, fill()))
    assert trades_before(driven.market.of(SYMBOL), TradeId(0, 0), 5, 1) == ([], False)
    assert trades_after(driven.market.of(SYMBOL), TradeId(0, 1), 5, 1) == ([], False)


def test_name_of_another_partition_or_that_was_not_read_yet_has_a_gap() -> None:
    market, everything = market_of([True] * 5, 1000)
    assert trades_before(market, TradeId(1, 12), 5, 14) == ([], True)
    other = trades_after(market, TradeId(1, 12), 5, 14)
    assert (names(other.trades), other.has_gap) == (everything, True)
    assert trades_after(market, TradeId(0, 15), 5, 14) == ([], True)
    ahead = trades_before(market, TradeId(0, 15), 2, 14)
    assert (names(ahead.trades), ahead.has_gap) == ([14, 13], True)


def test_trades_that_were_kept_without_names_come_before_those_that_have_one() -> None:
    market, _ = market_of([True] * 4, 2)
    for trade in list(market.trades)[:2]:
        trade.offset = -1
    assert [trade.trade_id for trade in last_trades(market, 9).trades] == ["0-13", "0-12", None, None]
    first = trades_before(market, TradeId(0, 12), 9, 13)
    assert ([trade.trade_id for trade in first.trades], first.has_gap) == ([None, None], False)
    earlier = trades_before(market, TradeId(0, 11), 9, 13)
    assert (len(earlier.trades), earlier.has_gap) == (2, True)
    assert trades_after(market, TradeId(0, 10), 9, 13).has_gap
    assert json.loads(trade_text(market.trades[0]))["trade_id"] is None


def test_trade_is_told_with_its_name_and_every_digit() -> None:
    driven = DrivenHub()
    driven.say((2, 7, fill(price="1E-7", quantity="2.50", timestamp=WALL_MS + 5, taker_side="bid")))
    [trade] = driven.market.of(SYMBOL).trades
    told: dict[str, Any] = json.loads(trade_text(trade))
    assert told == {
        "trade_id": "2-7", "price": "0.0000001", "quantity": "2.50", "side": "buy", "time": (WALL_MS + 5) / 1000,
    }  # fmt: skip


def test_trade_id_is_partition_and_offset_in_one_spelling() -> None:
    assert read_trade_id("0-123456789012345678") == TradeId(0, 123456789012345678)
    for text in (
        "",
        "-1",
        "0-",
        "0--1",
        "00-1",
        "0-01",
        "1",
        "0-1-2",
        "0-1234567890123456789",
        "12345678901-1",
        "0-\u0661",
    ):
        with pytest.raises(ValueError, match="partition-offset"):
            read_trade_id(text)


def test_trades_of_a_history_that_dropped_many_are_those_it_still_has() -> None:
    market, everything = market_of([True, False] * 600, 301)
    assert market.history.trade_count == len([one for one in everything if one > market.history.complete_after]) > 100
    kept = everything[-market.history.trade_count :]
    assert names(trades_after(market, TradeId(0, kept[0]), 1000, 1209).trades) == kept[1:]
    assert names(trades_before(market, TradeId(0, kept[9]), 1000, 1209).trades) == kept[8::-1]
    assert trades_after(market, TradeId(0, kept[0] - 3), 1, 1209) == (market.history.trades_after(0, 1), True)
