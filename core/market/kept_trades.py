"""A symbol's trades as far as they are kept, by their names: those of its history, or its last ones where these reach further.

A name is `partition-offset` of the trade's record (docs/contract.md#market-data).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from core.market.symbol_market import SymbolMarket
from core.market.trade import Trade, seconds_text
from core.messages.model import decimal_text

_is_trade_id = re.compile(r"(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,17})").fullmatch
EVERYTHING: Final = 1 << 63


class TradeId(NamedTuple):
    """A trade's name."""

    partition: int
    offset: int


class TradesFound(NamedTuple):
    """Some trades; `has_gap`: between the name that was given and the first of them may be others that are not kept here."""

    trades: list[Trade]
    has_gap: bool


def read_trade_id(text: str) -> TradeId:
    """A name as it was told. Raises ValueError."""
    found = _is_trade_id(text)
    if found is None:
        raise ValueError("expected a trade_id: partition-offset")
    return TradeId(int(found[1]), int(found[2]))


def last_trades(market: SymbolMarket, most: int) -> TradesFound:
    """The last ones, newest first."""
    return TradesFound(_before(market, EVERYTHING, most), False)


def trades_before(market: SymbolMarket, name: TradeId, most: int, folded_to: int) -> TradesFound:
    """Those before a trade, newest first. `folded_to`: the last offset of the partition that is folded in."""
    if name.partition != market.partition:
        return TradesFound([], True)
    trades = _before(market, name.offset, most)
    complete_after = _complete_after(market)
    if not trades:
        return TradesFound([], complete_after >= 0)  # from -1 on everything is there
    nearest = trades[0].offset
    # One without a name comes right before the first that has one.
    is_next = nearest > complete_after if nearest >= 0 else name.offset == complete_after + 1
    return TradesFound(trades, not is_next or name.offset > folded_to)


def trades_after(market: SymbolMarket, name: TradeId, most: int, folded_to: int) -> TradesFound:
    """Those after a trade, oldest first; all that are kept where it is of another partition."""
    is_here = name.partition == market.partition
    offset = name.offset if is_here else -1
    if _reaches_further(market):
        trades = [trade for trade in market.trades if trade.offset > offset][:most]
    else:
        trades = market.history.trades_after(offset, most)
    return TradesFound(trades, not (is_here and _complete_after(market) <= offset <= folded_to))


def trade_text(trade: Trade) -> str:
    """A trade as REST tells it: JSON, decimals as strings."""
    name = "null" if trade.trade_id is None else f'"{trade.trade_id}"'
    return (
        f'{{"trade_id":{name},"price":"{decimal_text(trade.price)}","quantity":"{decimal_text(trade.quantity)}",'
        f'"side":"{trade.side}","time":{seconds_text(trade.timestamp_ms)}}}'
    )


def _reaches_further(market: SymbolMarket) -> bool:
    """Whether the last trades reach further back than the history: either ends with the last one."""
    return len(market.trades) > market.history.trade_count


def _before(market: SymbolMarket, offset: int, most: int) -> list[Trade]:
    if _reaches_further(market):
        return [trade for trade in reversed(market.trades) if trade.offset < offset][:most]
    return market.history.trades_before(offset, most)


def _complete_after(market: SymbolMarket) -> int:
    """All trades with a greater offset are kept."""
    first = next((trade.offset for trade in market.trades if trade.offset >= 0), EVERYTHING)
    return min(market.history.complete_after, first - 1)
