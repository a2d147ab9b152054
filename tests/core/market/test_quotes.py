"""What is asked of a market once: its ticker and the top of its book."""

from __future__ import annotations

import json
from decimal import Decimal

from core.market.quotes import ticker_text, top_of_book_text
from core.market.symbol_market import SymbolMarket
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import fill, snapshot

SYMBOL = "KCN/EUR"


def market_after(*events: bytes) -> SymbolMarket:
    driven = DrivenHub()
    driven.say(*((0, offset, event) for offset, event in enumerate(events, 1)))
    market = driven.market.find(SYMBOL)
    assert market is not None
    return market


def test_ticker_is_what_the_channel_tells() -> None:
    driven = DrivenHub()
    client = driven.connect(f"ticker.{SYMBOL}.raw")
    driven.say((0, 1, snapshot(SYMBOL)), (0, 2, fill(SYMBOL)))
    told = json.loads(client.texts()[-1], parse_float=Decimal)["notification"]
    told.pop("snapshot", None)
    market = driven.market.find(SYMBOL)
    assert market is not None
    assert json.loads(ticker_text(market), parse_float=Decimal) == told


def test_top_of_book_is_the_best_levels_of_each_side_and_the_last_price() -> None:
    market = market_after(snapshot(SYMBOL))
    bids, asks = market.book.bids.levels(), market.book.asks.levels()
    for depth in (1, 5):
        told = json.loads(top_of_book_text(market, depth), parse_float=Decimal)
        assert told["bids"] == [[price, amount, amount] for price, amount in bids[:depth]]
        assert told["asks"] == [[price, amount, amount] for price, amount in asks[:depth]]
        assert "last" not in told
    told = json.loads(top_of_book_text(market_after(snapshot(SYMBOL), fill(SYMBOL, price="1.23")), 5))
    assert told["last"] == 1.23


def test_market_that_only_a_listener_made_is_not_found() -> None:
    driven = DrivenHub()
    driven.connect(f"ticker.{SYMBOL}.raw")
    assert driven.market.find(SYMBOL) is None
    assert driven.market.find("A/B") is None
