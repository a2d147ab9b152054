"""What only an order's owner may see: the engine's own events of it, and `account.orders` (docs/contract.md#private-events).

Both go to every connection of the user on this instance, joined into one write a beat: nothing is encoded twice, and what
belongs to a user without connections costs one look into a dictionary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import ujson

from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS, Tag
from core.delivery.subscriber import Subscriber
from core.orders.account_trades import ACCOUNT_TRADES, AccountPosition, AccountTrades, seq_text
from core.orders.fills import OwnFills
from core.orders.order import Order
from core.orders.recent_closings import RecentClosings

ACCOUNT_ORDERS: Final = "account.orders"

Deliver = Callable[[Bundle, Iterable[Subscriber], Tag], None]


class _User:
    """The connections of one user, and what they are to be told at the end of the beat."""

    __slots__ = ("changes", "connections", "events", "listeners")

    def __init__(self) -> None:
        self.connections: set[Subscriber] = set()
        self.listeners: set[Subscriber] = set()
        self.events: list[bytes] = []
        self.changes: list[Mapping[str, object]] = []


class PrivateFeed:
    """Who is signed in on which connection, and what is said to them."""

    def __init__(
        self,
        deliver: Deliver,
        open_orders: Callable[[str], Collection[Order]],
        state_of: Callable[[Order], Mapping[str, object]],
        *,
        trades: AccountTrades | None = None,
        closings: RecentClosings | None = None,
    ) -> None:
        """`deliver` is the hub's; `state_of` makes an order's public state. `trades` is the other channel, None: of no fills.
        `closings` is what is known for who comes back, None: nothing.
        """
        self._closings = RecentClosings(dict, dict) if closings is None else closings
        self.trades = AccountTrades(deliver, OwnFills(), dict, str) if trades is None else trades
        self._deliver = deliver
        self._open_orders = open_orders
        self._state_of = state_of
        self._users: dict[str, _User] = {}
        self._to_tell: dict[str, _User] = {}

    @property
    def connections(self) -> int:
        """Connections that are signed in."""
        return sum(len(user.connections) for user in self._users.values())

    @property
    def listeners(self) -> int:
        """Connections that are subscribed to `account.orders`."""
        return sum(len(user.listeners) for user in self._users.values())

    def join(self, user_id: str, subscriber: Subscriber) -> None:
        """A connection has signed in: from now on it is told of its user's orders."""
        self._users.setdefault(user_id, _User()).connections.add(subscriber)

    def leave(self, user_id: str, subscriber: Subscriber) -> None:
        """A connection ended, or its token expired. Harmless when repeated."""
        user = self._users.get(user_id)
        if user is None:
            return
        user.connections.discard(subscriber)
        user.listeners.discard(subscriber)
        self.trades.unsubscribe(user_id, subscriber)
        if not user.connections:
            del self._users[user_id]
            self._to_tell.pop(user_id, None)

    def has_joined(self, user_id: str, subscriber: Subscriber) -> bool:
        """Whether the connection is signed in as this user, now."""
        user = self._users.get(user_id)
        return user is not None and subscriber in user.connections

    def subscribe(self, user_id: str, subscriber: Subscriber, since: AccountPosition | None = None) -> None:
        """Add `account.orders`: the open orders now, each change from now on. Nothing for a connection that has left.

        With `since` those that have closed behind that are told before the open ones, if all of them are known.
        """
        user = self._users.get(user_id)
        if user is None or subscriber not in user.connections:
            return
        if user.events or user.changes:
            self._tell(user)  # what others are told yet is in the snapshot already
        user.listeners.add(subscriber)
        head, closed = b'{"epoch":' + json.dumps(self.trades.epoch()).encode() + b",", None
        if since is not None:
            if since.epoch in (None, self.trades.epoch()):
                closed = self._closings.since(user_id, since.positions)
            head += b'"recovered":false,' if closed is None else b'"recovered":true,'
        orders = [self._state_of(order) for order in [*(closed or ()), *self._open_orders(user_id)]]
        text = self._notification(orders, head, b',"snapshot":true')
        # A snapshot can be larger than what may wait for a connection.
        self._deliver(Bundle([text], private=True), (subscriber,), EXEMPT)

    def unsubscribe(self, user_id: str, subscriber: Subscriber) -> None:
        """Drop `account.orders`; the engine's own events go on."""
        if user_id in self._users:
            self._users[user_id].listeners.discard(subscriber)

    def drop(self, user_id: str, subscriber: Subscriber, names: Collection[str]) -> None:
        """Drop those of the account's channels that are among these."""
        if ACCOUNT_ORDERS in names:
            self.unsubscribe(user_id, subscriber)
        if ACCOUNT_TRADES in names:
            self.trades.unsubscribe(user_id, subscriber)

    def on_event(self, user_id: str, payload: bytes) -> None:
        """The engine said something of one of the user's orders."""
        user = self._users.get(user_id)
        if user is not None:
            user.events.append(payload)
            self._to_tell[user_id] = user

    def on_change(self, order: Order) -> None:
        """An order's state changed: its state of now is told, also if it changes once more in this beat."""
        self._closings.note(order)
        user = self._users.get(order.user_id) if order.user_id is not None else None
        if user is not None and user.listeners:
            user.changes.append(self._state_of(order))
            assert order.user_id is not None
            self._to_tell[order.user_id] = user

    def flush(self) -> None:
        """Say what came since the last call, at the end of a beat."""
        self._closings.end_beat()
        while self._to_tell:  # one by one: where one fails the others are still to be told
            _, user = self._to_tell.popitem()
            self._tell(user)
        self.trades.flush()

    def _tell(self, user: _User) -> None:
        events, changes = user.events, user.changes
        user.events, user.changes = [], []
        others = user.connections - user.listeners
        if events and others:
            self._deliver(Bundle(events, private=True), others, LOSSLESS)
        if user.listeners:
            texts = [*events, self._notification(changes)] if changes else events
            self._deliver(Bundle(texts, private=True), tuple(user.listeners), LOSSLESS)

    def _notification(self, orders: list[Mapping[str, object]], head: bytes = b"{", more: bytes = b"") -> bytes:
        told = ujson.dumps(orders, escape_forward_slashes=False, ensure_ascii=False, reject_bytes=True).encode()
        before = f'"channel_name":"{ACCOUNT_ORDERS}","seq":{seq_text(self.trades.seq())},"notification":{{"orders":'
        return head + before.encode() + told + more + b"}}"
