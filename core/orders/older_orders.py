"""Orders that are kept, and older than what this instance has read: taken into its directory while all goes on.

Whoever started when nothing was kept yet has read both topics from some place on; what is kept since may be of before. So the kept
orders of one partition are taken back beside the directory, and brought forward by what both topics say behind their cursor.
Meanwhile the directory hears out what is said of any order, known or not: from it each one that is taken in gets what came
behind the place up to which it was brought. So it is as if the directory had read it from the beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from core.errors import PoisonedRecord
from core.messages.events import Fill, OrderEvent, read_event
from core.messages.feed_record import Record
from core.messages.kept_state import order_partition
from core.orders.directory import OrderDirectory
from core.orders.fills import KnownFill
from core.orders.order import Order, Outcome
from core.orders.state import OrderState

# Orders and users that are taken in before others have a turn: a few microseconds each.
TAKEN_AT_ONCE: Final = 100


class OlderOrders:
    """Those of one partition of the kept state. `room` takes back what is kept; then `fold_command` and `fold_event` all that
    both topics say behind its cursor, the order topic first; then `take_in`, all of it within `listening`.
    """

    def __init__(
        self, directory: OrderDirectory, partition: int, partitions: int, *, keep_terminal_seconds: float
    ) -> None:
        self._directory = directory
        self._partition = partition
        self._partitions = partitions
        self._older = OrderDirectory(
            keep_terminal_seconds=keep_terminal_seconds,
            on_change=lambda _order: None,
            on_private=lambda _user_id, _payload: None,
            times=directory.times,
            attributes=directory.attributes,
        )
        self.room = OrderState(self._older, lambda: partitions)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what is said of orders from now on."""
        self._directory.heard = {}
        try:
            yield
        finally:
            self._directory.heard = None

    def _is_here(self, symbol: str) -> bool:
        return order_partition(symbol, self._partitions) == self._partition

    def fold_command(self, record: Record) -> None:
        """A record of the order topic."""
        self._older.fold_command(record.partition, record.offset, record.time_ms, record.value, False)

    def fold_event(self, record: Record) -> None:
        """A record of the market topic."""
        try:
            event = self._older.times.in_event(read_event(record.value), record.time_ms)
        except PoisonedRecord:
            return  # counted where it is read for all
        if isinstance(event, OrderEvent | Fill) and (event.symbol is None or self._is_here(event.symbol)):
            self._older.fold_event(event, record.partition, record.offset, record.time_ms, False)

    async def take_in(self, until: Mapping[int, int], give_way: Callable[[], Awaitable[None]]) -> int:
        """Have the directory know all of them; how many were news to it. `until`: by partition of the market topic, up to where
        they were brought, and the directory has read at least as far.
        """
        taken = 0
        with self._older.index.walk() as orders:
            for number, order in enumerate(orders):
                if order.outcome is Outcome.ACCEPTED and self._is_here(order.symbol):
                    taken += self._directory.take_in_older(order, self._is_named(order), until)
                if number % TAKEN_AT_ONCE == TAKEN_AT_ONCE - 1:
                    await give_way()
        older: dict[str, list[KnownFill]] = {}
        for user_id, known in self._older.fills.walk():
            if self._is_here(known.fill.symbol):
                older.setdefault(user_id, []).append(known)
        for user_id, fills in older.items():
            self._directory.fills.add_older(user_id, fills)
            await give_way()
        return taken

    def _is_named(self, order: Order) -> bool:
        name = order.client_order_id
        return name is None or self._older.index.by_client_order_id(order.user_id, name) is order
