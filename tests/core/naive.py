"""What the market-data channels have to say, worked out from the contract the slow way: every state of every symbol is
kept, and nothing is updated in place. It shares no code with what it judges."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext
from typing import Any

DAY_MS = 86_400_000
ZERO = Decimal(0)
WIDE = Context(prec=300)

Levels = dict[Decimal, Decimal]


def exact(text: str | bytes) -> Any:
    """JSON with every number exact."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@dataclass(frozen=True)
class Fill:
    offset: int
    price: Decimal
    quantity: Decimal
    time_ms: int
    taker: str | None  # buy or sell, where the engine said so
    buy_order_id: str | int
    sell_order_id: str | int

    def is_shown_as(self, shown: Any, as_object: bool, partition: int | None = None) -> bool:
        """By its name too, where a partition is given."""
        if as_object:
            same = {k: v for k, v in shown.items() if k != "side"} == {
                "price": self.price, "quantity": self.quantity, "timestamp": Decimal(self.time_ms),
                "buy_order_id": self.buy_order_id, "sell_order_id": self.sell_order_id,
            }  # fmt: skip
            side = shown["side"]
        else:
            price, quantity, side, *others = shown
            name = [] if partition is None else [f"{partition}-{self.offset}"]
            wanted = [self.price, self.quantity, Decimal(self.time_ms) / 1000, False, *name]
            same = [price, quantity, *others] == wanted
        return same and side in ("buy", "sell") and self.taker in (None, side)


@dataclass(frozen=True)
class State:
    """One symbol after one of its public events."""

    known: bool = False
    crossed: bool = False
    distrusted: bool = False
    bids: Levels = field(default_factory=dict)
    asks: Levels = field(default_factory=dict)
    time_ms: int = 0
    fills: tuple[Fill, ...] = ()
    event: dict[str, Any] = field(default_factory=dict)

    @property
    def stale(self) -> bool:
        return self.crossed or self.distrusted

    def after(self, event: dict[str, Any], offset: int, kafka_ms: int) -> State:
        known, crossed, distrusted = self.known, self.crossed, self.distrusted
        bids, asks, fills = dict(self.bids), dict(self.asks), self.fills
        if event["type"] == "orderbook_snapshot":
            bids, asks = (
                {Decimal(at["price"]): Decimal(at["quantity"]) for at in event[side]} for side in ("bids", "asks")
            )
            known, crossed, distrusted = True, _is_crossed(bids, asks), False
        elif event["type"] == "orderbook_delta":
            if known and not self.stale:
                for change in event["deltas"]:
                    side = bids if change["side"] == "bid" else asks
                    side[Decimal(change["price"])] = Decimal(change["quantity"])
                bids, asks = _without_zeros(bids), _without_zeros(asks)
                crossed = _is_crossed(bids, asks)
        else:
            taker = {"bid": "buy", "ask": "sell", None: None}[event.get("taker_side")]
            price, quantity = Decimal(event["price"]), Decimal(event["quantity"])
            ids = event["buy_order_id"], event["sell_order_id"]
            fills = (*fills, Fill(offset, price, quantity, event["timestamp"], taker, *ids))
        time_ms = max(self.time_ms, event.get("timestamp", kafka_ms))
        return State(known, crossed, distrusted, bids, asks, time_ms, fills, event)

    def after_malformed(self) -> State:
        return State(self.known, self.crossed, self.known, self.bids, self.asks, self.time_ms, self.fills, self.event)

    def window(self, grouping: int | None, depth: int | None, tick: Decimal) -> tuple[Levels, Levels]:
        bids, asks = self.bids, self.asks
        if grouping is not None:
            bids = _grouped(bids, grouping * tick, ROUND_FLOOR)
            asks = _grouped(asks, grouping * tick, ROUND_CEILING)
        return (
            {price: bids[price] for price in sorted(bids, reverse=True)[:depth]},
            {price: asks[price] for price in sorted(asks)[:depth]},
        )

    def total(self, side: Levels) -> Decimal:
        with localcontext(WIDE):
            return sum(side.values(), ZERO)

    def day(self, end_ms: int) -> list[Fill]:
        return [fill for fill in self.fills if fill.time_ms > end_ms - DAY_MS]

    def ends(self, first_ms: int, last_ms: int) -> list[int]:
        """When a day may have ended that was told of between two moments, as far as it makes a difference."""
        left = {fill.time_ms + DAY_MS for fill in self.fills}
        return sorted({first_ms, *(end_ms for end_ms in left if first_ms < end_ms <= last_ms)})

    @property
    def last_price(self) -> Decimal:
        return self.fills[-1].price if self.fills else ZERO

    def figures(self, end_ms: int) -> dict[str, Decimal]:
        """The day in numbers; 0 is unknown."""
        day = self.day(end_ms)
        prices = [fill.price for fill in day]
        with localcontext(WIDE):
            opened = min(day, key=lambda fill: fill.time_ms).price if day else ZERO
            return {
                "high": max(prices, default=ZERO),
                "low": min(prices, default=ZERO),
                "open": opened,
                "last": self.last_price,
                "change": self.last_price - opened if day else ZERO,
                "volume": sum((fill.quantity for fill in day), ZERO),
                "value": sum((fill.price * fill.quantity for fill in day), ZERO),
            }

    def best(self, side: str) -> tuple[Decimal, Decimal]:
        levels = self.bids if side == "bid" else self.asks
        if not levels:
            return ZERO, ZERO
        price = max(levels) if side == "bid" else min(levels)
        return price, levels[price]

    def mark(self) -> Decimal:
        if self.bids and self.asks:
            with localcontext(WIDE):
                return (max(self.bids) + min(self.asks)) / 2
        return self.last_price

    # What each kind of channel shows of it.

    def as_ticker(self, end_ms: int) -> dict[str, Decimal]:
        figures, mark = self.figures(end_ms), self.mark()
        (bid, bid_amount), (ask, ask_amount) = self.best("bid"), self.best("ask")
        return {
            "mark_price": mark, "best_bid_price": bid, "best_bid_amount": bid_amount, "best_ask_price": ask,
            "best_ask_amount": ask_amount, "last_price": figures["last"], "volume_24h": figures["volume"],
            "value_24h": figures["value"], "low_price_24h": figures["low"], "high_price_24h": figures["high"],
            "change_24h": figures["change"], "delta": Decimal(1), "index": mark, "forward": mark, "collar_low": mark,
            "collar_high": mark, "funding_mark": ZERO, "funding_rate": ZERO, "realised_funding_24h": ZERO,
            "average_funding_rate_24h": ZERO, "open_interest": ZERO,
        }  # fmt: skip

    def as_lwt(self) -> dict[str, Any]:
        sides = [[*self.best(side), self.total(getattr(self, side + "s"))] for side in ("bid", "ask")]
        return {"b": sides[0], "a": sides[1], "l": self.last_price, "m": self.mark()}

    def stats_24h(self, end_ms: int) -> dict[str, Decimal] | None:
        if not self.fills:
            return None
        figures = self.figures(end_ms)
        return {
            "high_24h": figures["high"], "low_24h": figures["low"], "volume_24h": figures["value"],
            "open_24h": figures["open"], "last_price": figures["last"],
        }  # fmt: skip


def _is_crossed(bids: Levels, asks: Levels) -> bool:
    return any(bid >= ask for bid in bids for ask in asks)


def _without_zeros(levels: Levels) -> Levels:
    return {price: quantity for price, quantity in levels.items() if quantity}


def _grouped(levels: Levels, step: Decimal, rounding: str) -> Levels:
    sums: Levels = {}
    with localcontext(WIDE):
        for price, quantity in levels.items():
            at = (price / step).to_integral_value(rounding) * step
            sums[at] = sums.get(at, ZERO) + quantity
    return sums
