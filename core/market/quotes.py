"""What is asked of a symbol's market once or told by its channels: the ticker, and the top of the book; JSON texts, exact."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from core.market.ladder import number_text
from core.market.statistics import Statistics
from core.market.symbol_market import SymbolMarket, known_or_zero
from core.market.trade import seconds_text
from core.messages.model import Side

Best = tuple[Decimal | None, Decimal | None]

_NO_LEVEL: Final[Best] = (None, None)


def ticker_members(market: SymbolMarket) -> str:
    """The members of a ticker but its time; what is unknown is 0."""
    bid, ask = market.book.best(Side.BID), market.book.best(Side.ASK)
    return _ticker_members(market.mark(), bid or _NO_LEVEL, ask or _NO_LEVEL, market.statistics)


def unknown_ticker_members() -> str:
    """The same where nothing is known."""
    return _ticker_members(None, _NO_LEVEL, _NO_LEVEL, Statistics())


def _ticker_members(mark_price: Decimal | None, bid: Best, ask: Best, stats: Statistics) -> str:
    mark = known_or_zero(mark_price)
    return (
        f'"mark_price":{mark},"best_bid_price":{known_or_zero(bid[0])},"best_bid_amount":{known_or_zero(bid[1])},'
        f'"best_ask_price":{known_or_zero(ask[0])},"best_ask_amount":{known_or_zero(ask[1])},'
        f'"last_price":{known_or_zero(stats.last_price)},"volume_24h":{known_or_zero(stats.volume)},'
        f'"value_24h":{known_or_zero(stats.value)},"low_price_24h":{known_or_zero(stats.low)},'
        f'"high_price_24h":{known_or_zero(stats.high)},"change_24h":{known_or_zero(stats.change)},'
        # What clients of the derivatives feed that this is modelled on also expect.
        f'"delta":1,"index":{mark},"forward":{mark},"collar_low":{mark},"collar_high":{mark},"funding_mark":0,'
        '"funding_rate":0,"realised_funding_24h":0,"average_funding_rate_24h":0,"open_interest":0'
    )


def ticker_text(market: SymbolMarket) -> str:
    """The ticker as of now. Written once an event, however many ask."""
    market.move_on()
    if market.quoted is None:
        market.quoted = f'{{{ticker_members(market)},"mark_timestamp":{seconds_text(market.time_ms)}}}'
    return market.quoted


def stale_ticker_text(market: SymbolMarket | None) -> str:
    """The same where nothing that is known can be trusted, with the word for it."""
    time = "0" if market is None else seconds_text(market.time_ms)
    return f'{{{unknown_ticker_members()},"mark_timestamp":{time},"stale":true}}'


def top_of_book_text(market: SymbolMarket, depth: int) -> str:
    """`{bids, asks, last?, time}`: levels `[price, amount, outright amount]`, best first; no order here is implied."""
    last = market.statistics.last_price
    bids, asks = (_levels_text(ladder.levels(depth)) for ladder in (market.book.bids, market.book.asks))
    told_last = "" if last is None else f'"last":{number_text(last)},'
    return f'{{"bids":{bids},"asks":{asks},{told_last}"time":{seconds_text(market.time_ms)}}}'


def _levels_text(levels: Iterable[tuple[Decimal, Decimal]]) -> str:
    rows = [f"[{number_text(price)},{number_text(amount)},{number_text(amount)}]" for price, amount in levels]
    return f"[{','.join(rows)}]"
