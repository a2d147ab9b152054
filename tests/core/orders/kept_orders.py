"""A directory of orders of which all is kept."""

from __future__ import annotations

from typing import Any

from core.messages.kept_state import VERSION, Cursor
from core.messages.times import Times
from core.orders.order import state
from core.orders.state import OrderState
from tests.core.fake_orders import Fed

KEEP_SECONDS = 100.0


PIECE = 100


def cursor_at(events: dict[int, int], commands: dict[int, int]) -> Cursor:
    return Cursor(
        version=VERSION,
        market_epoch="",
        order_epoch="",
        market=0,
        events=events,
        orders=commands,
        known_since_ms=None,
        time_ms=0,
    )


class Kept(Fed):
    """A directory of which all is kept, on one partition unless told otherwise; `now` is in seconds."""

    def __init__(self, partitions: int = 1, **options: Any) -> None:
        self.now = 1.0
        super().__init__(**({"keep_terminal_seconds": KEEP_SECONDS, "times": Times(lambda: self.now)} | options))
        self.kept = OrderState(self.directory, lambda: partitions)

    def state_of(self, order_id: str) -> dict[str, Any]:
        """Also what is not shown."""
        order = self.directory.get(order_id)
        assert order is not None
        return {**state(order), "ended_ms": order.ended_ms, "user_id": order.user_id, "named": order.client_order_id}

    def cut(
        self, keys: set[str] | None = None, partition: int = 0, *, is_whole: bool = False
    ) -> dict[str, bytes | None]:
        """All records, the last of each key."""
        pieces = list(self.kept.cut(partition, keys, is_whole=is_whole))
        assert all(len(piece) <= PIECE for piece in pieces)
        return {record.key: record.value for piece in pieces for record in piece}

    def changed(self, partition: int = 0) -> set[str]:
        return self.kept.journal.since(partition, self.kept.journal.generation)

    def sweep(self) -> None:
        while self.directory.sweep(int(self.now * 1000)):
            pass

    def taken_back(
        self, records: dict[str, bytes | None], cursor: Cursor | None = None, partition: int = 0, **options: Any
    ) -> Kept:
        """A fresh directory with these in it."""
        fresh = Kept(**options)
        fresh.now = self.now
        for key, value in records.items():
            fresh.kept.take_back(partition, key, value)
        fresh.kept.resume({partition: cursor or self.cursor()})
        fresh._command_offset, fresh._event_offset = self._command_offset, self._event_offset
        return fresh

    def cursor(self) -> Cursor:
        return cursor_at({0: self._event_offset}, {0: self._command_offset})
