"""One trade as clients are told of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from core.market.ladder import number_text
from core.market.statistics import Aggressor
from core.messages.order_ids import order_id_json


def seconds_text(time_ms: int) -> str:
    """Milliseconds since the Unix epoch as the decimal digits of seconds; no binary float on the way."""
    whole, thousandths = divmod(time_ms, 1000)
    return f"{whole}.{thousandths:03d}"


@dataclass(slots=True)
class Trade:
    """A fill with its aggressor's side. Its two shapes are written once each, when asked for."""

    price: Decimal
    quantity: Decimal
    side: Aggressor
    timestamp_ms: int
    buy_order_id: str
    sell_order_id: str
    _tuple: str = field(default="", repr=False, compare=False)
    _object: str = field(default="", repr=False, compare=False)

    def as_tuple(self) -> str:
        """`[price, quantity, side, time, false]`."""
        if not self._tuple:
            time = seconds_text(self.timestamp_ms)
            self._tuple = f'[{number_text(self.price)},{number_text(self.quantity)},"{self.side}",{time},false]'
        return self._tuple

    def as_object(self) -> str:
        """The older dialects' `{price, quantity, side, timestamp, buy_order_id, sell_order_id}`."""
        if not self._object:
            self._object = (
                f'{{"price":{number_text(self.price)},"quantity":{number_text(self.quantity)},"side":"{self.side}",'
                f'"timestamp":{self.timestamp_ms},"buy_order_id":{order_id_json(self.buy_order_id)},'
                f'"sell_order_id":{order_id_json(self.sell_order_id)}}}'
            )
        return self._object


def trades_text(trades: Iterable[Trade], as_objects: bool) -> str:
    """A JSON array of them, in the one shape or the older one."""
    return f"[{','.join([trade.as_object() if as_objects else trade.as_tuple() for trade in trades])}]"
