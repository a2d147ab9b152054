"""How far both topics have been folded into the orders, by partition: what a record that comes again is known by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from core.orders.early_events import EarlyEvents

# Of those that wait, to find out where the first one is: a tenth of a millisecond.
MAX_LOOKED_THROUGH: Final = 1_000


class ReadPositions:
    """Offsets are those of the last record, but for `events_read_to`, the offset behind it."""

    def __init__(self, early_events: EarlyEvents) -> None:
        self._early_events = early_events
        # By partition of the market topic, the offset that is read next, of whatever record.
        self.events_at: Callable[[], Mapping[int, int]] = dict
        self._commands: dict[int, int] = {}
        self._events: dict[int, int] = {}
        self._events_told: dict[int, int] = {}
        self._read_back: dict[int, int] = {}
        # By partition, Kafka's latest time of what was read back: what follows was written no earlier.
        self._heard_ms: dict[int, int] = {}

    def is_new_command(self, partition: int, offset: int) -> bool:
        """Whether a record of the order topic has not been read before; now it has."""
        if offset <= self._commands.get(partition, -1):
            return False
        self._commands[partition] = offset
        return True

    def is_new_event(self, partition: int, offset: int) -> bool:
        """Whether an event of an order has not been read before; now it has."""
        if offset <= self._events.get(partition, -1):
            return False
        self._events[partition] = offset
        return True

    def read_back(self, partition: int, offset: int, time_ms: int) -> int:
        """An event that is not live, with Kafka's time of it; when it was heard, which is no earlier than those before it."""
        self._read_back[partition] = offset
        heard_ms = self._heard_ms[partition] = max(time_ms, self._heard_ms.get(partition, 0))
        return heard_ms

    def resume(self, commands_from: Mapping[int, int], events_from: Mapping[int, int]) -> None:
        """Nothing before these offsets is of use to anybody."""
        for partition, offset in commands_from.items():
            self._commands[partition] = offset - 1
        for partition, offset in events_from.items():
            self._events[partition] = offset - 1

    def events_read_to(self) -> dict[int, int]:
        """By partition of the market topic, behind the last event that was folded in or begins to be."""
        return {partition: offset + 1 for partition, offset in self._events.items()}

    def folded_to(self) -> Mapping[int, int]:
        """By partition of the market topic, the last event of an order that was read."""
        return self._events

    def read_back_to(self) -> Mapping[int, int]:
        """By partition of the market topic, the last event of an order that was not live."""
        return self._read_back

    def seq(self) -> Mapping[int, int]:
        """By partition of the market topic, up to where no event of an order is missing in what is known: none waits there.

        It counts records of whatever kind, so that it is the same on an instance that began behind the last of those events. What
        waits is looked through for it, but for more than a few: then it stays where it was.
        """
        if len(self._early_events) <= MAX_LOOKED_THROUGH:
            read = {partition: position - 1 for partition, position in self.events_at().items() if position > 0}
            for partition, offset in self._events.items():
                if offset > read.get(partition, -1):
                    read[partition] = offset
            for partition, offset in self._early_events.first_waiting().items():
                if partition in read:
                    read[partition] = min(read[partition], offset - 1)
            self._events_told = read
        return self._events_told

    def waiting_fills(self) -> frozenset[tuple[int, int]]:
        """Partition and offset of fills that wait for an order; none where more waits than is looked through."""
        is_few = 0 < len(self._early_events) <= MAX_LOOKED_THROUGH
        return self._early_events.fills() if is_few else frozenset()

    def forget_commands(self) -> None:
        """The order topic was deleted and made again: offsets start anew."""
        self._commands.clear()

    def forget_events(self) -> None:
        """The market topic was."""
        self._events.clear()
        self._events_told = {}
        self._read_back.clear()
        self._heard_ms.clear()
