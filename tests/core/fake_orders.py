"""Records of both topics in short, and a directory that keeps what it says."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from core.errors import PoisonedRecord
from core.messages.commands import PlaceOrder
from core.messages.events import Event, read_event
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.directory import OrderDirectory
from core.orders.order import Order, state
from core.orders.order_observer import OrderObserver

SYMBOL = "KCN/EUR"


def placed(
    client_order_id: str | None = None,
    quantity: str = "2.0",
    symbol: str = SYMBOL,
    price: str = "1.50",
    connection: str = "",
) -> PlaceOrder:
    """A limit order to buy."""
    terms = (symbol, Side.BID, OrderType.LIMIT, Decimal(price), Decimal(quantity), TimeInForce.GTC)
    return PlaceOrder(*terms, client_order_id, connection=connection)


def command(
    order_id: str, user_id: str | None = "alice", client_order_id: str | None = None, time_ms: int = 1, **terms: Any
) -> bytes:
    """Its record on the order topic."""
    return placed(client_order_id, **terms).encode(order_id, user_id, time_ms)


def event(kind: str, order_id: str | int, **fields: Any) -> Event:
    """A market event of one order, with what its kind needs."""
    needs: dict[str, Any] = {
        "order_accepted": {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0"},
        "order_cancelled": {"filled_quantity": "0"},
        "order_rejected": {"reason": "no funds"},
        "order_amended": {"price": "1.75", "quantity": "3.0"},
        "order_amend_rejected": {"reason": "too late"},
    }.get(kind, {})
    return read_event(json.dumps({"type": kind, "order_id": order_id, **needs, **fields}).encode())


def fill(buy: str | int, sell: str | int, quantity: str = "0.5", timestamp: int = 9, **fields: Any) -> Event:
    """Two orders traded."""
    members = {"buy_order_id": buy, "sell_order_id": sell, "symbol": SYMBOL, "price": "1.50", "quantity": quantity}
    return event("fill", "unused", timestamp=timestamp, **(members | fields))


class Told(OrderObserver):
    """What came out of a directory, in order."""

    def __init__(self) -> None:
        self.changes: list[dict[str, Any]] = []
        self.private: list[tuple[str, bytes]] = []
        self.counts: dict[str, int] = {}
        self.poison: list[tuple[int, int, str]] = []

    def on_change(self, order: Order) -> None:
        """An order changed."""
        self.changes.append(state(order))

    def on_private(self, user_id: str, payload: bytes) -> None:
        """An event for an order's owner."""
        self.private.append((user_id, payload))

    def event_came_early(self) -> None:
        self._count("early")

    def event_was_nobodys(self) -> None:
        self._count("nobodys")

    def early_events_overflow(self) -> None:
        self._count("overflow")

    def poisoned_command(self, partition: int, offset: int, error: PoisonedRecord) -> None:
        self.poison.append((partition, offset, error.reason))

    def terminal_dropped(self, orders: int) -> None:
        self._count("terminal_dropped", orders)

    def _count(self, name: str, more: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + more

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Who was told of which kind of event."""
        return [(user_id, json.loads(payload)["type"]) for user_id, payload in self.private]

    @property
    def statuses(self) -> list[tuple[str, str]]:
        """Order and status of each change."""
        return [(change["order_id"], change["status"]) for change in self.changes]


class Fed:
    """A directory, and the two topics that it reads; offsets are counted here. All is live unless told otherwise."""

    def __init__(self, **options: Any) -> None:
        self.told = Told()
        self.directory = OrderDirectory(
            **({"keep_terminal_seconds": 100.0} | options),
            on_change=self.told.on_change,
            on_private=self.told.on_private,
            observer=self.told,
        )
        self._command_offset = 0
        self._event_offset = 0

    def commands(self, *values: bytes | None, live: bool = True, time_ms: int = 1) -> Fed:
        """Records of partition 0 of the order topic."""
        for value in values:
            self.directory.fold_command(0, self._command_offset, time_ms, value, live)
            self._command_offset += 1
        return self

    def events(self, *events: Event, live: bool = True, time_ms: int = 5) -> Fed:
        """Records of partition 0 of the market topic."""
        for one in events:
            self.directory.fold_event(one, 0, self._event_offset, time_ms, live)
            self._event_offset += 1
        return self

    def mark(self) -> Fed:
        """The order topic has been read to the end that it has now."""
        early = self.directory.early_events
        assert early.needs_ends
        early.ends_asked()
        early.on_ends({0: self._command_offset})
        return self

    def state(self, order_id: str) -> dict[str, Any]:
        """Of an order that has to be known."""
        order = self.directory.get(order_id)
        assert order is not None
        return state(order)

    def open(self, user_id: str = "alice", symbol: str | None = None) -> list[str]:
        """Ids of the open orders."""
        return [order.order_id for order in self.directory.open_orders(user_id, symbol)]
