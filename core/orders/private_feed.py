"""What only an order's owner may see: the engine's own events of it, and `account.orders` (docs/contract.md#private-events).

Both go to every connection of the user on this instance, joined into one write a beat: nothing is encoded twice, and what
belongs to a user without connections costs one look into a dictionary.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import ujson

from core.accounts.account_balances import ACCOUNT_BALANCES, AccountBalances
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS, Tag
from core.delivery.subscriber import Subscriber
from core.orders.account_trades import ACCOUNT_TRADES, AccountTrades, seq_text
from core.orders.ahead import AccountPosition, Ahead
from core.orders.fills import OwnFills
from core.orders.index import age
from core.orders.order import Order
from core.orders.pieces import GiveWay, framed, in_pieces, nobody_else, sort_in_pieces
from core.orders.recent_closings import RecentClosings

ACCOUNT_ORDERS: Final = "account.orders"

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
        *,
        trades: AccountTrades | None = None,
        balances: AccountBalances | None = None,
        closings: RecentClosings | None = None,
    ) -> None:
        """`deliver` is the hub's; `open_orders` are a user's, in any order; `state_of` makes an order's public state;
        `give_way`: see `core.orders.pieces`. `trades` and `balances` are the other channels, None: of no fills, and not
        offered. `closings` is what is known for who comes back, None: nothing.
        """
        self._closings = RecentClosings(dict, dict, dict) if closings is None else closings
        self.trades = AccountTrades(deliver, OwnFills(), dict, str) if trades is None else trades
        self.balances = balances
        self._ahead = Ahead(self.trades.seq, self.trades.epoch, self.trades.clock)
        self._going_on: set[asyncio.Task[None]] = set()
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
        self._ahead.forget(subscriber)
        self.trades.unsubscribe(user_id, subscriber)
        if self.balances is not None:
            self.balances.unsubscribe(user_id, subscriber)
        if not user.connections:
            del self._users[user_id]
            self._to_tell.pop(user_id, None)

    def has_joined(self, user_id: str, subscriber: Subscriber) -> bool:
        """Whether the connection is signed in as this user, now."""
        user = self._users.get(user_id)
        return user is not None and subscriber in user.connections

    async def subscribe(self, user_id: str, subscriber: Subscriber, since: AccountPosition | None = None) -> None:
        """Add `account.orders`: the open orders, a piece at a time, and then each change. Nothing for a connection that has left.

        With `since` those that have closed behind that are told before the open ones, if all of them are known; one that is
        ahead of this instance is told nothing before that has come as far. Who was subscribed already is told nothing until
        then, and begins anew.
        """
        user = self._users.get(user_id)
        if user is None or subscriber not in user.connections:
            return
        if self._ahead.waits(subscriber, since, lambda: self._go_on(user_id, subscriber, since)):
            user.listeners.discard(subscriber)
            user.joining.pop(subscriber, None)
            return
        joining = user.joining[subscriber] = _Joining()
        await self._begin(user_id, user, subscriber, joining, since)

    def _go_on(self, user_id: str, subscriber: Subscriber, since: AccountPosition | None) -> None:
        """Who had to wait; in another turn of the loop, as it may be long."""
        user = self._users[user_id]  # who leaves waits no more
        joining = user.joining[subscriber] = _Joining()
        task = asyncio.get_running_loop().create_task(self._begin(user_id, user, subscriber, joining, since))
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)

    async def _begin(
        self, user_id: str, user: _User, subscriber: Subscriber, joining: _Joining, since: AccountPosition | None
    ) -> None:
        if user.joining.get(subscriber) is not joining:
            return
        if user.events or user.changes:
            self._tell(user)  # what others are told yet is in the snapshot already
        user.listeners.discard(subscriber)
        head, closed = self._head(user_id, since)
        before = self._before(head)
        texts: list[bytes] = []
        async for piece in in_pieces(closed, self._give_way):
            texts += self._written(piece, joining)
        orders = await sort_in_pieces(self._open_orders(user_id), age, self._give_way)
        async for piece in in_pieces(orders, self._give_way):
            if user.joining.get(subscriber) is not joining:
                return
            texts += self._written([order for order in piece if not order.is_closed], joining)
        frame = await framed(before, texts, b'],"snapshot":true}}', self._give_way)
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
            self._deliver(Bundle([self._notification(untold)], private=True), (subscriber,), LOSSLESS)

    def _head(self, user_id: str, since: AccountPosition | None) -> tuple[bytes, list[Order]]:
        """How a first notification begins, and what has closed behind `since`."""
        head = b'{"epoch":' + json.dumps(self.trades.epoch()).encode() + b","
        if since is None:
            return head, []
        is_same_life = since.epoch in (None, self.trades.epoch())
        closed = self._closings.since(user_id, since.positions) if is_same_life else None
        return head + b'"recovered":%b,' % (b"false" if closed is None else b"true"), list(closed or ())

    def _written(self, orders: list[Order], joining: _Joining) -> list[bytes]:
        """Their states as one text, if there are any."""
        for order in orders:
            joining.write(order)
        return [_json([self._state_of(order) for order in orders])[1:-1]] if orders else []

    def unsubscribe(self, user_id: str, subscriber: Subscriber) -> None:
        """Drop `account.orders`; the engine's own events go on."""
        if user_id in self._users:
            self._ahead.forget(subscriber)
            self._users[user_id].listeners.discard(subscriber)
            self._users[user_id].joining.pop(subscriber, None)

    def drop(self, user_id: str, subscriber: Subscriber, names: Collection[str]) -> None:
        """Drop those of the account's channels that are among these."""
        if ACCOUNT_ORDERS in names:
            self.unsubscribe(user_id, subscriber)
        if ACCOUNT_TRADES in names:
            self.trades.unsubscribe(user_id, subscriber)
        if ACCOUNT_BALANCES in names and self.balances is not None:
            self.balances.unsubscribe(user_id, subscriber)

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
        """Say what came since the last call, at the end of a beat."""
        self._closings.end_beat()
        self._ahead.look()
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

    def _notification(self, orders: list[Mapping[str, object]]) -> bytes:
        return self._before(b"{") + _json(orders)[1:-1] + b"]}}"

    def _before(self, head: bytes) -> bytes:
        seq = seq_text(self.trades.seq())
        return head + f'"channel_name":"{ACCOUNT_ORDERS}","seq":{seq},"notification":{{"orders":['.encode()


def _json(orders: list[Mapping[str, object]]) -> bytes:
    return ujson.dumps(orders, escape_forward_slashes=False, ensure_ascii=False, reject_bytes=True).encode()
