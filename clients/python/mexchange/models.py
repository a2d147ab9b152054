"""What is told, as values. Prices and quantities are `Decimal`, exact to the last digit; times are seconds since the Unix
epoch, `Decimal` too, with milliseconds behind the point."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

Side = Literal["bid", "ask"]
Number = Decimal | str | int


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


# Made once: json.loads with a hook makes a decoder for each call, which costs as much as a small message.
decode = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse).decode


def decimal(value: Any) -> Decimal:
    """A number of a message, which is an int where it has no point, or a decimal's text."""
    return value if type(value) is Decimal else Decimal(value)


def decimal_or_none(value: Any) -> Decimal | None:
    return None if value is None else decimal(value)


def text(value: Number) -> str:
    """A decimal as it is sent. TypeError for a float, whose digits are not those that were meant."""
    if isinstance(value, float):
        raise TypeError(f"{value!r} is a binary float: give a Decimal, a str or an int")
    return format(value, "f") if isinstance(value, Decimal) else str(value)


class Level(NamedTuple):
    price: Decimal
    quantity: Decimal


class Trade(NamedTuple):
    """`side` is the aggressor's, `buy` or `sell`; `trade_id` is None for what was kept by an older gateway."""

    symbol: str
    price: Decimal
    quantity: Decimal
    side: str
    time: Decimal
    trade_id: str | None


class Candle(NamedTuple):
    """`volume` is in base, `value` in quote."""

    open_time_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    value: Decimal
    trades: int
    closed: bool


class Ticker(NamedTuple):
    """What is unknown is 0; all is, while it is `stale`."""

    symbol: str
    mark_price: Decimal
    best_bid_price: Decimal
    best_bid_amount: Decimal
    best_ask_price: Decimal
    best_ask_amount: Decimal
    last_price: Decimal
    volume_24h: Decimal
    value_24h: Decimal
    low_price_24h: Decimal
    high_price_24h: Decimal
    change_24h: Decimal
    mark_timestamp: Decimal
    stale: bool


class Event(NamedTuple):
    """The engine's own event: `body` as it was written, decimals in it as text."""

    type: str
    symbol: str | None
    body: dict[str, Any]
    partition: int | None
    seq: int
    is_snapshot: bool


class Fill(NamedTuple):
    """One's own side of a trade. Who trades with himself has two of one `fill_id`, told apart by `side`."""

    fill_id: str
    order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    liquidity: str | None
    fee: Decimal | None
    fee_currency: str | None
    time: Decimal


class Balance(NamedTuple):
    """The last that is known, while it is `stale`."""

    currency: str
    available: Decimal
    reserved: Decimal
    stale: bool = False


class Status(NamedTuple):
    """What the exchange says of itself. `body` has all of it."""

    state: str | None
    body: dict[str, Any]


class Ack(NamedTuple):
    """The bus has the command. What the engine makes of it, `orders` and `events` tell."""

    order_id: str
    client_order_id: str | None
    duplicate: bool


class Gap(NamedTuple):
    """In place of what was missed and cannot be had. What follows is right again."""

    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream was read, to go on from in another run: `since=`. The same on every instance."""

    epoch: str
    seq: int | dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "seq": self.seq}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Position:
        return cls(value["epoch"], value["seq"])


@dataclass(frozen=True, slots=True)
class OrderState:
    """An order's last known state. `attributes` are what else this exchange's orders carry."""

    order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    order_type: str
    time_in_force: str | None
    price: Decimal | None
    quantity: Decimal | None
    filled_quantity: Decimal
    status: str
    time: Decimal
    reason: str | None = None
    amend_rejected: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.status in ("pending", "open", "partially_filled")


_ORDER_MEMBERS = frozenset(OrderState.__dataclass_fields__) - {"attributes"}
_TICKER_MEMBERS = Ticker._fields[1:-1]


def trade(symbol: str, told: list[Any]) -> Trade:
    """From `[price, quantity, side, time, false, trade_id]`."""
    price, quantity, side, time, _, trade_id = told
    return Trade(symbol, decimal(price), decimal(quantity), side, decimal(time), trade_id)


def trade_of_rest(symbol: str, told: Mapping[str, Any]) -> Trade:
    price, quantity = Decimal(told["price"]), Decimal(told["quantity"])
    return Trade(symbol, price, quantity, told["side"], decimal(told["time"]), told["trade_id"])


def candle(told: list[Any]) -> Candle:
    open_time_ms, *figures, trades, closed = told
    return Candle(open_time_ms, *map(decimal, figures), trades, closed)  # type: ignore[arg-type, call-arg]


def ticker(symbol: str, told: Mapping[str, Any]) -> Ticker:
    figures = [decimal(told[name]) for name in _TICKER_MEMBERS]
    return Ticker(symbol, *figures, bool(told.get("stale")))  # type: ignore[call-arg, arg-type]


def fill(told: Mapping[str, Any]) -> Fill:
    return Fill(
        told["fill_id"],
        told["order_id"],
        told["client_order_id"],
        told["symbol"],
        told["side"],
        decimal(told["price"]),
        decimal(told["quantity"]),
        told["liquidity"],
        decimal_or_none(told["fee"]),
        told["fee_currency"],
        decimal(told["time"]),
    )


def balances(told: Mapping[str, Mapping[str, Any]]) -> list[Balance]:
    return [Balance(name, decimal(of["available"]), decimal(of["reserved"])) for name, of in told.items()]


def order_state(told: Mapping[str, Any]) -> OrderState:
    known = {name: value for name, value in told.items() if name in _ORDER_MEMBERS}
    for name in ("price", "quantity"):
        known[name] = decimal_or_none(known.get(name))
    for name in ("filled_quantity", "time"):
        known[name] = decimal(known[name])
    return OrderState(**known, attributes={name: value for name, value in told.items() if name not in _ORDER_MEMBERS})
