"""One trade as clients are told of it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from operator import attrgetter
from typing import Final

import msgspec

from core.market.ladder import number_text
from core.market.statistics import Aggressor
from core.messages.order_ids import order_id_json


def seconds_text(time_ms: int) -> str:
    """Milliseconds since the Unix epoch as the decimal digits of seconds; no binary float on the way."""
    whole, thousandths = divmod(time_ms, 1000)
    return f"{whole}.{thousandths:03d}"


class Trade(msgspec.Struct, eq=False, gc=False):
    """A fill with its aggressor's side, and where its record stands (offset -1: not known). Its texts are written once each,
    when asked for.
    """

    price: Decimal
    quantity: Decimal
    side: Aggressor
    timestamp_ms: int
    buy_order_id: str
    sell_order_id: str
    partition: int = -1
    offset: int = -1
    _members: str = ""
    _object: str = ""

    def __eq__(self, other: object) -> bool:
        """The same, whichever of the texts were asked for."""
        return isinstance(other, Trade) and bool(_told(self) == _told(other))

    @property
    def trade_id(self) -> str | None:
        """Its name, the same on every instance; None where it was kept by one that did not know names yet."""
        return None if self.offset < 0 else f"{self.partition}-{self.offset}"

    def as_tuple(self) -> str:
        """`[price, quantity, side, time, false]`."""
        if not self._members:
            time = seconds_text(self.timestamp_ms)
            self._members = f'[{number_text(self.price)},{number_text(self.quantity)},"{self.side}",{time},false'
        return self._members + "]"

    def as_named_tuple(self) -> str:
        """`[price, quantity, side, time, false, trade_id]`."""
        name = "null" if self.offset < 0 else f'"{self.partition}-{self.offset}"'
        return f"{self.as_tuple()[:-1]},{name}]"

    def as_object(self) -> str:
        """The older dialects' `{price, quantity, side, timestamp, buy_order_id, sell_order_id}`."""
        if not self._object:
            self._object = (
                f'{{"price":{number_text(self.price)},"quantity":{number_text(self.quantity)},"side":"{self.side}",'
                f'"timestamp":{self.timestamp_ms},"buy_order_id":{order_id_json(self.buy_order_id)},'
                f'"sell_order_id":{order_id_json(self.sell_order_id)}}}'
            )
        return self._object


_told = attrgetter(*(name for name in Trade.__struct_fields__ if not name.startswith("_")))


def trades_text(trades: Iterable[Trade], as_objects: bool) -> str:
    """A JSON array of them, in the one shape or the older one."""
    return f"[{','.join([trade.as_object() if as_objects else trade.as_tuple() for trade in trades])}]"


def named_trades_text(trades: Iterable[Trade], as_objects: bool) -> str:
    """The same with their names, which the older shape has not."""
    return f"[{','.join([trade.as_object() if as_objects else trade.as_named_tuple() for trade in trades])}]"


class TradeRun:
    """Trades that are told together; each of their two shapes is written once."""

    __slots__ = ("_texts", "trades")

    def __init__(self, trades: list[Trade]) -> None:
        self.trades = trades
        self._texts: dict[bool, str] = {}

    def text(self, as_objects: bool) -> str:
        """As `trades_text`."""
        text = self._texts.get(as_objects)
        if text is None:
            text = self._texts[as_objects] = trades_text(self.trades, as_objects)
        return text


NO_TRADES: Final = TradeRun([])


class TradePlace:
    """A place among a symbol's trades: those behind it are kept as long as somebody keeps it."""

    __slots__ = ("next", "trade")

    trade: Trade

    def __init__(self) -> None:
        self.next: TradePlace | None = None


class TradeTape:
    """A symbol's trades as they become news, for all who tell them later. `noted` is how many there were."""

    __slots__ = ("_since", "end", "noted")

    def __init__(self) -> None:
        self.noted = 0
        self.end = TradePlace()
        self._since: dict[TradePlace, TradeRun] = {}

    def note(self, trade: Trade, is_told: bool) -> None:
        """A trade is news; one that is not told is only counted."""
        self.noted += 1
        if is_told:
            self._since.clear()
            place = self.end
            place.trade = trade
            place.next = self.end = TradePlace()

    def since(self, place: TradePlace) -> TradeRun:
        """The trades behind a place; worked out once, however many ask."""
        if place is self.end:
            return NO_TRADES
        run = self._since.get(place)
        if run is None:
            trades = []
            at = place
            while at.next is not None:
                trades.append(at.trade)
                at = at.next
            run = self._since[place] = TradeRun(trades)
        return run
