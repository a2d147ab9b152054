"""What only an order's owner may see: the engine's own events of it, and `account.orders` (docs/contract.md#private-events).

Both go to every connection of the user on this instance, joined into one write a beat: nothing is encoded twice, and what
belongs to a user without connections costs one look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import ujson

from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS, Tag
from core.delivery.subscriber import Subscriber
from core.orders.index import age
from core.orders.order import Order
from core.orders.pieces import GiveWay, framed, in_pieces, nobody_else, sort_in_pieces

ACCOUNT_ORDERS: Final = "account.orders"

_BEFORE: Final = b'{"channel_name":"%b","notification":{"orders":[' % ACCOUNT_ORDERS.encode()

Deliver = Callable[[Bundle, Iterable[Subscriber], Tag], None]


class _Joining:
    """One who is being told the open orders: what has changed since that began.

    An order's state is as of when it was written. So of its changes only those are still to be told that come after: of
    those, `written` knows how many changes there were before.
    """

    __slots__ = ("changed", "changes", "written")

    def __init__(self) -> None:
        self.changes: list[tuple[Order, Mapping[str, object]]] = []
        self.changed: set[Order] = set()
        self.written: dict[Order, int] = {}

    def note(self, order: Order, state: Mapping[str, object]) -> None:
        self.changes.append((order, state))
        self.changed.add(order)

    def write(self, order: Order) -> None:
        if order in self.changed:
            self.written[order] = len(self.changes)

    def untold(self) -> list[Mapping[str, object]]:
        return [state for at, (order, state) in enumerate(self.changes) if at >= self.written.get(order, 0)]


class _User:
    """The connections of one user, and what they are to be told at the end of the beat."""

    __slots__ = ("changes", "connections", "events", "joining", "listeners")

    def __init__(self) -> None:
        self.connections: set[Subscriber] = set()
        self.listeners: set[Subscriber] = set()
        self.joining: dict[Subscriber, _Joining] = {}
        self.events: list[bytes] = []
        self.changes: list[Mapping[str, object]] = []


class PrivateFeed:
    """Who is signed in on which connection, and what is said to them."""

    def __init__(
        self,
        deliver: Deliver,
        open_orders: Callable[[str], Collection[Order]],
        state_of: Callable[[Order], Mapping[str, object]],
        give_way: GiveWay = nobody_else,
    ) -> None:
        """`deliver` is the hub's; `open_orders` are a user's, in any order; `state_of` makes an order's public state;
        `give_way`: see `core.orders.pieces`.
        """
        self._deliver = deliver
        self._open_orders = open_orders
        self._state_of = state_of
        self._give_way = give_way
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
        user.joining.pop(subscriber, None)
        if not user.connections:
            del self._users[user_id]
            self._to_tell.pop(user_id, None)

    async def subscribe(self, user_id: str, subscriber: Subscriber) -> None:
        """Add `account.orders`: the open orders, a piece at a time, and then each change. Nothing for a connection that has left.

        Who was subscribed already is told nothing until then, and begins anew.
        """
        user = self._users.get(user_id)
        if user is None or subscriber not in user.connections:
            return
        if user.events or user.changes:
            self._tell(user)  # what others are told yet is in the snapshot already
        user.listeners.discard(subscriber)
        joining = user.joining[subscriber] = _Joining()
        texts: list[bytes] = []
        orders = await sort_in_pieces(self._open_orders(user_id), age, self._give_way)
        async for piece in in_pieces(orders, self._give_way):
            if user.joining.get(subscriber) is not joining:
                return
            texts += self._written([order for order in piece if not order.is_closed], joining)
        frame = await framed(_BEFORE, texts, b'],"snapshot":true}}', self._give_way)
        if user.joining.get(subscriber) is not joining:
            return
        del user.joining[subscriber]
        if user.events or user.changes:
            self._tell(user)
        user.listeners.add(subscriber)
        # A snapshot can be larger than what may wait for a connection.
        self._deliver(Bundle.of_frame(frame), (subscriber,), EXEMPT)
        untold = joining.untold()
        if untold:
            self._deliver(Bundle([_notification(untold)], private=True), (subscriber,), LOSSLESS)

    def _written(self, orders: list[Order], joining: _Joining) -> list[bytes]:
        """Their states as one text, if there are any."""
        for order in orders:
            joining.write(order)
        return [_json([self._state_of(order) for order in orders])[1:-1]] if orders else []

    def unsubscribe(self, user_id: str, subscriber: Subscriber) -> None:
        """Drop `account.orders`; the engine's own events go on."""
        if user_id in self._users:
            self._users[user_id].listeners.discard(subscriber)
            self._users[user_id].joining.pop(subscriber, None)

    def on_event(self, user_id: str, payload: bytes) -> None:
        """The engine said something of one of the user's orders."""
        user = self._users.get(user_id)
        if user is not None:
            user.events.append(payload)
            self._to_tell[user_id] = user

    def on_change(self, order: Order) -> None:
        """An order's state changed: its state of now is told, also if it changes once more in this beat."""
        user = self._users.get(order.user_id) if order.user_id is not None else None
        if user is None or not (user.listeners or user.joining):
            return
        state = self._state_of(order)
        for joining in user.joining.values():
            joining.note(order, state)
        if user.listeners:
            user.changes.append(state)
            assert order.user_id is not None
            self._to_tell[order.user_id] = user

    def flush(self) -> None:
        """Say what came since the last call."""
        while self._to_tell:  # one by one: where one fails the others are still to be told
            _, user = self._to_tell.popitem()
            self._tell(user)

    def _tell(self, user: _User) -> None:
        events, changes = user.events, user.changes
        user.events, user.changes = [], []
        others = user.connections - user.listeners
        if events and others:
            self._deliver(Bundle(events, private=True), others, LOSSLESS)
        if user.listeners:
            texts = [*events, _notification(changes)] if changes else events
            self._deliver(Bundle(texts, private=True), tuple(user.listeners), LOSSLESS)


def _notification(orders: list[Mapping[str, object]]) -> bytes:
    return _BEFORE + _json(orders)[1:-1] + b"]}}"


def _json(orders: list[Mapping[str, object]]) -> bytes:
    return ujson.dumps(orders, escape_forward_slashes=False, ensure_ascii=False, reject_bytes=True).encode()
