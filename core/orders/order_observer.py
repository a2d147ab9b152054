"""Whom the order directory tells of what an operator counts."""

from __future__ import annotations

from core.errors import PoisonedRecord


class OrderObserver:
    """What the directory tells whoever counts. Every method may be overridden."""

    def event_came_early(self) -> None:
        """An event of an order that is not known yet waits (a fill for each such order)."""

    def event_was_nobodys(self) -> None:
        """An event was nobody's: not known when it was released, and without a user_id of its own."""

    def early_events_overflow(self) -> None:
        """Too many wait: the oldest was released before its time."""

    def poisoned_command(self, partition: int, offset: int, error: PoisonedRecord) -> None:
        """A record of the order topic was skipped; `error.reason` is one of `core.messages.order_records.REASONS`."""

    def failed(self, error: Exception, place: str) -> None:
        """A record, or an event that had waited, met a fault of ours: it is lost, and nothing else."""

    def terminal_dropped(self, orders: int) -> None:
        """So many orders, closed for long or of unknown outcome and never seen, were forgotten."""
