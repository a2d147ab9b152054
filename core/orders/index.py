"""Where orders are found, and how long: by id, by their owner's client_order_id, the open ones by owner, the ended by time."""

from __future__ import annotations

from heapq import heappop, heappush

from core.orders.order import Order


class OrderIndex:
    """Every order that is known. Who adds, shows and ends them is the directory."""

    def __init__(self, keep_ms: int, max_terminal: int | None) -> None:
        """Ended orders are kept for `keep_ms`, and `max_terminal` of them at most; None sets no bound but the time.

        Those of unknown outcome count as ended.
        """
        self._keep_ms = keep_ms
        self._max_terminal = max_terminal
        self._orders: dict[str, Order] = {}
        self._by_client: dict[str, Order] = {}
        # By owner; nobody asks for the anonymous ones. A set of one would take more room than its order's other indexes.
        # The empty set has the collector follow it from the beginning, and so freeze it once, not let go of it whenever
        # all owners have one order and look at all of it when one has two.
        self._open: dict[str, Order | set[Order]] = {"": set()}
        # When it came to its end, which order, and whether that is only a doubt.
        self._ended: list[tuple[int, str, bool]] = []
        # An order by its id, or None; a method of its own would cost as much again as the look-up.
        self.get = self._orders.get

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, order_id: str) -> bool:
        return order_id in self._orders

    def add(self, order: Order) -> None:
        """To be found from now on; it has to be unknown. Of two with one client_order_id the earlier is found by that."""
        self._orders[order.order_id] = order
        if order.client_order_id is not None:
            self._by_client.setdefault(_name(order.user_id, order.client_order_id), order)

    def remove(self, order: Order) -> None:
        """Not to be found any more, nor shown. Harmless when repeated."""
        if self._orders.get(order.order_id) is not order:
            return
        del self._orders[order.order_id]
        if order.client_order_id is not None:
            key = _name(order.user_id, order.client_order_id)
            if self._by_client.get(key) is order:
                del self._by_client[key]
        self.hide(order)

    def show(self, order: Order) -> None:
        """One of its owner's open orders from now on. Harmless when repeated."""
        user_id = order.user_id
        if user_id is None:
            return
        shown = self._open.get(user_id)
        if shown is None:
            self._open[user_id] = order
        elif isinstance(shown, set):
            shown.add(order)
        elif shown is not order:
            self._open[user_id] = {shown, order}

    def hide(self, order: Order) -> None:
        """Open no longer. Harmless when repeated."""
        user_id = order.user_id
        if user_id is None:
            return
        shown = self._open.get(user_id)
        if isinstance(shown, set):
            shown.discard(order)
            if not shown:
                del self._open[user_id]
        elif shown is order:
            del self._open[user_id]

    def by_client_order_id(self, user_id: str | None, client_order_id: str) -> Order | None:
        """An order by its owner and the name that the owner gave it."""
        return self._by_client.get(_name(user_id, client_order_id))

    def open_orders(self, user_id: str, symbol: str | None) -> list[Order]:
        """A user's orders that are shown (of one symbol, if given), oldest first."""
        shown = self._open.get(user_id, ())
        orders = (shown,) if isinstance(shown, Order) else shown
        return sorted((order for order in orders if symbol is None or order.symbol == symbol), key=_age)

    def end(self, order: Order, time_ms: int, *, is_doubt: bool = False) -> None:
        """It has come to its end, or (`is_doubt`) will count as never written unless there is a sign of it."""
        heappush(self._ended, (time_ms, order.order_id, is_doubt))

    def drop_ended(self, now_ms: int, at_most: int) -> int:
        """Forget up to so many orders whose time is over; how many those were."""
        dropped = 0
        for _ in range(at_most):
            if not self.is_due(now_ms):
                break
            _, order_id, is_doubt = heappop(self._ended)
            order = self._orders.get(order_id)
            if order is not None and not (is_doubt and (order.is_certain or order.in_flight)):
                self.remove(order)
                dropped += 1
        return dropped

    def is_due(self, now_ms: int) -> bool:
        """Whether there is an order to forget."""
        ended = self._ended
        if not ended:
            return False
        is_too_many = self._max_terminal is not None and len(ended) > self._max_terminal
        return is_too_many or ended[0][0] <= now_ms - self._keep_ms


def _name(user_id: str | None, client_order_id: str) -> str:
    """An order's name among those of all owners.

    Not a tuple: the collector follows a new one until it has seen that it holds nothing but text, and with it the whole
    dictionary that it is a key of, each time anew. At 300,000 orders that was a sixth of the CPU.
    """
    return f":{client_order_id}" if user_id is None else f"{len(user_id)}:{user_id}{client_order_id}"


def _age(order: Order) -> tuple[int, str]:
    return order.created_ms, order.order_id
