"""Where orders are found, and how long: by id, by their owner's client_order_id, the open ones by owner and by the connection that
their record names, the ended by time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from itertools import chain

from core.orders.order import Order


class OrderIndex:
    """Every order that is known. Who adds, shows and ends them is the directory."""

    def __init__(self, keep_ms: int, max_terminal: int | None) -> None:
        """Ended orders are kept for `keep_ms`, and `max_terminal` of them at most; None sets no bound but the time.

        Those of unknown outcome count as ended.
        """
        self._keep_ms = keep_ms
        self._max_terminal = max_terminal
        self._orders: dict[str, Order | None] = {}
        self._by_client: dict[str, Order] = {}
        # By owner; nobody asks for the anonymous ones. A set of one would take more room than its order's other indexes.
        # The empty set has the collector follow it from the beginning, and so freeze it once, not let go of it whenever
        # all owners have one order and look at all of it when one has two.
        self._open: dict[str, Order | set[Order]] = {"": set()}
        # By connection, those of them that name one, nobody's too.
        self._open_of_connection: dict[str, Order | set[Order]] = {"": set()}
        # By owner, those that are closed, in the same way.
        self._closed: dict[str, Order | set[Order]] = {"": set()}
        # Whose closed ones somebody walks over: what is to be among them, or not, afterwards.
        self._closed_later: dict[str, dict[Order, bool]] = {}
        # When it came to its end, which order, and whether that is only a doubt.
        self._ended: list[tuple[int, str, bool]] = []
        # An order by its id, or None; a method of its own would cost as much again as the look-up.
        self.get: Callable[[str], Order | None] = self._orders.get
        # While somebody walks over the orders, their dictionary must not change its size: what comes is kept beside it, and of
        # what goes the place stays, empty.
        self._walks = 0
        self._came: dict[str, Order] = {}
        self._emptied: set[str] = set()

    def __len__(self) -> int:
        return len(self._orders) - len(self._emptied) + len(self._came)

    def __contains__(self, order_id: str) -> bool:
        return self.get(order_id) is not None

    def add(self, order: Order, *, is_named: bool = True) -> None:
        """To be found from now on; it has to be unknown.

        Of two with one client_order_id the earlier is found by that, and never one that is not `is_named`.
        """
        order_id = order.order_id
        if not self._walks:
            self._orders[order_id] = order
        elif order_id in self._emptied:
            self._emptied.remove(order_id)
            self._orders[order_id] = order
        else:
            self._came[order_id] = order
        if is_named and order.client_order_id is not None:
            self._by_client.setdefault(_name(order.user_id, order.client_order_id), order)
        if order.ended_ms is not None:
            self._set_closed(order, is_closed=True)

    def remove(self, order: Order) -> None:
        """Not to be found any more, nor shown. Harmless when repeated."""
        order_id = order.order_id
        if self.get(order_id) is not order:
            return
        if not self._walks:
            del self._orders[order_id]
        elif self._came.pop(order_id, None) is None:
            self._orders[order_id] = None
            self._emptied.add(order_id)
        if order.client_order_id is not None:
            key = _name(order.user_id, order.client_order_id)
            if self._by_client.get(key) is order:
                del self._by_client[key]
        self.remove_open(order)
        if order.ended_ms is not None:
            self._set_closed(order, is_closed=False)

    @contextmanager
    def walk(self) -> Iterator[Iterator[Order]]:
        """All orders, for who takes a few at a time; of what is added or removed meanwhile, some are among them or not."""
        if not self._walks:
            self.get = self._get_while_walked
        self._walks += 1
        try:
            orders = chain(self._orders.values(), tuple(self._came.values()))
            yield (order for order in orders if order is not None)
        finally:
            self._walks -= 1
            if not self._walks:
                self.get = self._orders.get
                for order_id in self._emptied:
                    del self._orders[order_id]
                self._orders.update(self._came)
                self._emptied.clear()
                self._came.clear()

    def _get_while_walked(self, order_id: str) -> Order | None:
        order = self._orders.get(order_id)
        return self._came.get(order_id) if order is None else order

    def add_open(self, order: Order) -> None:
        """One of its owner's open orders from now on. Harmless when repeated."""
        _put(self._open, order.user_id, order)
        if order.connection:
            _put(self._open_of_connection, order.connection, order)

    def remove_open(self, order: Order) -> None:
        """Open no longer. Harmless when repeated."""
        _take(self._open, order.user_id, order)
        if order.connection:
            _take(self._open_of_connection, order.connection, order)

    def by_client_order_id(self, user_id: str | None, client_order_id: str) -> Order | None:
        """An order by its owner and the name that the owner gave it."""
        return self._by_client.get(_name(user_id, client_order_id))

    def open_orders(self, user_id: str, symbol: str | None) -> list[Order]:
        """A user's orders that are shown (of one symbol, if given), oldest first."""
        return sorted((order for order in self.shown(user_id) if symbol is None or order.symbol == symbol), key=age)

    def shown(self, user_id: str) -> list[Order]:
        """A user's orders that are shown, in no order."""
        return _all(self._open, user_id)

    def shown_of_connection(self, connection: str) -> list[Order]:
        """Orders that are shown and name this connection, in no order."""
        return _all(self._open_of_connection, connection)

    def shown_count(self, user_id: str) -> int:
        """How many that are."""
        of_user = self._open.get(user_id, ())
        return 1 if isinstance(of_user, Order) else len(of_user)

    @contextmanager
    def walk_closed(self, user_id: str) -> Iterator[Iterator[Order]]:
        """A user's orders that have come to their end, in no order, for who takes a few at a time; one walk at a time of a user's.

        What ends meanwhile is not among them, and what is forgotten may be.
        """
        later: dict[Order, bool] = {}
        self._closed_later[user_id] = later
        try:
            of_user = self._closed.get(user_id, ())
            yield iter((of_user,) if isinstance(of_user, Order) else of_user)
        finally:
            del self._closed_later[user_id]
            for order, is_closed in later.items():
                self._set_closed(order, is_closed=is_closed)

    def _set_closed(self, order: Order, *, is_closed: bool) -> None:
        later = self._closed_later.get(order.user_id or "")
        if later is not None:
            later[order] = is_closed
        elif is_closed:
            _put(self._closed, order.user_id, order)
        else:
            _take(self._closed, order.user_id, order)

    def end(self, order: Order, time_ms: int, *, is_doubt: bool = False) -> None:
        """It has come to its end, or (`is_doubt`) will count as never written unless there is a sign of it."""
        if not is_doubt:
            order.ended_ms = time_ms
            self._set_closed(order, is_closed=True)
        heappush(self._ended, (time_ms, order.order_id, is_doubt))

    def drop_ended(self, now_ms: int, at_most: int, before: Callable[[Order], None]) -> int:
        """Forget up to so many orders whose time is over, each after `before` was told of it; how many those were."""
        dropped = 0
        for _ in range(at_most):
            if not self.is_due(now_ms):
                break
            time_ms, order_id, is_doubt = heappop(self._ended)
            order = self.get(order_id)
            if order is None:
                continue
            # The other end is that of an order of the same id, which was removed.
            if not (order.is_certain or order.in_flight) if is_doubt else order.ended_ms == time_ms:
                before(order)
                self.remove(order)
                dropped += 1
        return dropped

    def is_due(self, now_ms: int) -> bool:
        """Whether there is an order to forget."""
        ended = self._ended
        if not ended:
            return False
        is_too_many = self._max_terminal is not None and len(ended) > self._max_terminal
        return is_too_many or self.is_over(ended[0][0], now_ms)

    def drop_ends_of_unknown(self) -> None:
        """Orders were removed before their time: they count no more among those that ended."""
        self._ended = [end for end in self._ended if end[1] in self]
        heapify(self._ended)

    def is_over(self, ended_ms: int, now_ms: int) -> bool:
        """Whether what ended then is not kept any more."""
        return ended_ms <= now_ms - self._keep_ms


def _put(orders: dict[str, Order | set[Order]], key: str | None, order: Order) -> None:
    if key is None:
        return
    others = orders.get(key)
    if others is None:
        orders[key] = order
    elif isinstance(others, set):
        others.add(order)
    elif others is not order:
        orders[key] = {others, order}


def _take(orders: dict[str, Order | set[Order]], key: str | None, order: Order) -> None:
    if key is None:
        return
    others = orders.get(key)
    if isinstance(others, set):
        others.discard(order)
        if not others:
            del orders[key]
    elif others is order:
        del orders[key]


def _all(orders: dict[str, Order | set[Order]], key: str) -> list[Order]:
    found = orders.get(key, ())
    return [found] if isinstance(found, Order) else list(found)


def _name(user_id: str | None, client_order_id: str) -> str:
    """An order's name among those of all owners.

    Not a tuple: the collector follows a new one until it has seen that it holds nothing but text, and with it the whole
    dictionary that it is a key of, each time anew. At 300,000 orders that was a sixth of the CPU.
    """
    return f":{client_order_id}" if user_id is None else f"{len(user_id)}:{user_id}{client_order_id}"


def closed_at(order: Order) -> tuple[int, str]:
    """What closed orders are sorted by, the one that changed first at first."""
    return order.time_ms, order.order_id


def age(order: Order) -> tuple[int, str]:
    """What orders are sorted by, the oldest first."""
    return order.created_ms, order.order_id
