"""What the orders that were taken back have in them already, of what both topics are read for again (core/orders/state.py).

All orders of a partition of the kept state were written down at one moment, those of another one at another; reading begins
where the first of them needs it, or earlier. So up to where a record counts depends on whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from core.messages.kept_state import Cursor
from core.orders.early_events import EarlyEvent


class AlreadyFolded:
    """Up to where both topics are in the orders of each partition of the kept state. Needed until both are past it."""

    def __init__(self, cursors: Mapping[int, Cursor], partition_of: Callable[[str], int]) -> None:
        """`partition_of` is the partition that keeps the orders of a symbol; one without a cursor has nothing."""
        self._partition_of = partition_of
        self._events = {partition: cursor.events for partition, cursor in cursors.items()}
        self._commands = {partition: cursor.orders for partition, cursor in cursors.items()}
        # By partition of either topic: behind this one there is nothing that anybody has. Those that are past it are gone.
        self._events_until = _furthest(self._events.values())
        self._commands_until = _furthest(self._commands.values())

    @property
    def is_past(self) -> bool:
        """Whether nothing is read again any more; what waits may still be from before."""
        return not self._events_until and not self._commands_until

    def has_event(self, symbol: str | None, partition: int, offset: int) -> bool:
        """Whether the orders of this symbol have this event, which is read now, in them; False where that is not known."""
        if symbol is None or partition not in self._events_until:
            return False
        positions = self._events.get(self._partition_of(symbol))
        return positions is not None and offset < positions.get(partition, 0)

    def has_command(self, symbol: str, partition: int, offset: int) -> bool:
        """Whether an order of this symbol, of which the order topic tells here, was known, or had been forgotten by then."""
        if partition not in self._commands_until:
            return False
        positions = self._commands.get(self._partition_of(symbol))
        return positions is not None and offset < positions.get(partition, 0)

    def counts(self, early: EarlyEvent, symbol: str) -> bool:
        """Whether an event that waited for its order counts, now that it is known to be one of this symbol.

        What was taken back from a partition counts for its orders alone. What was read again counts for all: a fill names its
        symbol, and so has not been waiting where it is in the orders already, and any other event changes nothing twice.
        """
        return early.kept_by is None or early.kept_by == self._partition_of(symbol)

    def event_is_read(self, partition: int, offset: int) -> None:
        """The market topic has been read so far."""
        if offset + 1 >= self._events_until.get(partition, offset + 2):
            del self._events_until[partition]

    def command_is_read(self, partition: int, offset: int) -> None:
        """The order topic has been read so far."""
        if offset + 1 >= self._commands_until.get(partition, offset + 2):
            del self._commands_until[partition]

    def begin(self, commands_from: Mapping[int, int], events_from: Mapping[int, int]) -> None:
        """Nothing is read again before these offsets."""
        for partition, offset in events_from.items():
            self.event_is_read(partition, offset - 1)
        for partition, offset in commands_from.items():
            self.command_is_read(partition, offset - 1)

    def forget_events(self) -> None:
        """The market topic is another one: what is read of it is in nothing yet."""
        self._events.clear()
        self._events_until.clear()

    def forget_commands(self) -> None:
        """The order topic is another one."""
        self._commands.clear()
        self._commands_until.clear()


def _furthest(of_all: Iterable[Mapping[int, int]]) -> dict[int, int]:
    furthest: dict[int, int] = {}
    for positions in of_all:
        for partition, offset in positions.items():
            if offset > furthest.get(partition, 0):
                furthest[partition] = offset
    return furthest
