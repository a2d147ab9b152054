"""Events of orders that are not known yet, until it is certain that the order topic does not tell whose they are.

The two topics have no order between them, but the engine speaks of an order only after its command was written. So an
event that comes before its command waits until the order topic has been read past the point that it had reached when the
event came (docs/contract.md#order-directory). That point is asked for: the high watermarks of the order topic, in a question
sent after the event came. One question at a time, and none while an answer is waited out: what comes meanwhile goes
with the next. What the answer releases belongs to orders older than the warm-up, or to none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from core.messages.events import Fill, OrderEvent

_NOTHING: Final = 0  # the number of no event: they count from 1


class EarlyEvent(NamedTuple):
    """An event, and one order that it tells of. A fill of two unknown orders is kept twice.

    `partition` and `offset` are its record's. `kept_by`: taken back from that partition of the kept state, and so for orders
    of that partition alone.
    """

    number: int
    order_id: str
    event: OrderEvent | Fill
    partition: int
    offset: int
    time_ms: int
    live: bool
    kept_by: int | None


class EarlyEvents:
    """Those that wait, in the order in which they came; knows how far the order topic has been read."""

    def __init__(self, most: int, on_released: Callable[[list[EarlyEvent]], None]) -> None:
        """`most` events at once; then the oldest is given up. `on_released` is told of orders that are not on the topic."""
        self._most = most
        self._on_released = on_released
        self._last = _NOTHING
        self._queue: OrderedDict[int, EarlyEvent] = OrderedDict()
        self._numbers_of: dict[str, list[int]] = {}
        self._positions: dict[int, int] = {}
        self._asked: int | None = None  # a question is under way, which covers the events up to this number
        self._covered = _NOTHING
        self._missing: dict[int, int] | None = None  # an answer is waited out: partitions, and how far to read each

    def __len__(self) -> int:
        return len(self._queue)

    def waiting(self) -> tuple[EarlyEvent, ...]:
        """Those that wait now, in the order in which they came."""
        return tuple(self._queue.values())

    def first_waiting(self) -> dict[int, int]:
        """By partition of the market topic, where the first is of those that wait."""
        first: dict[int, int] = {}
        for early in self._queue.values():
            if early.offset < first.get(early.partition, early.offset + 1):
                first[early.partition] = early.offset
        return first

    def fills(self) -> frozenset[tuple[int, int]]:
        """Partition and offset of each fill that waits for one of its orders, or for both."""
        return frozenset((one.partition, one.offset) for one in self._queue.values() if isinstance(one.event, Fill))

    def keep(
        self,
        order_id: str,
        event: OrderEvent | Fill,
        partition: int,
        offset: int,
        time_ms: int,
        live: bool,
        kept_by: int | None = None,
    ) -> EarlyEvent | None:
        """Keep an event; the one that had to go for it, if any."""
        self._last += 1
        self._queue[self._last] = EarlyEvent(self._last, order_id, event, partition, offset, time_ms, live, kept_by)
        self._numbers_of.setdefault(order_id, []).append(self._last)
        if len(self._queue) <= self._most:
            return None
        _, oldest = self._queue.popitem(last=False)
        numbers = self._numbers_of[oldest.order_id]
        del numbers[0]
        if not numbers:
            del self._numbers_of[oldest.order_id]
        return oldest

    def take(self, order_id: str) -> list[EarlyEvent]:
        """The order has become known: its events, in order. They wait no longer."""
        numbers = self._numbers_of.pop(order_id, None)
        return [self._queue.pop(number) for number in numbers] if numbers else []

    @property
    def needs_ends(self) -> bool:
        """Whether there are events that no question covers, and none is under way or waited out."""
        return bool(self._queue) and self._asked is None and self._missing is None

    def ends_asked(self) -> None:
        """The question is being sent: it covers all that waits now."""
        self._asked = self._last

    def on_ends(self, ends: Mapping[int, int] | None) -> None:
        """The high watermarks (partition: next offset) have come; None if that failed (ask again, after a while).

        The answer to a question of before `forget_positions` is not used.
        """
        asked, self._asked = self._asked, None
        if ends is None or not asked:
            return
        self._covered = asked
        self._missing = {partition: end for partition, end in ends.items() if self._positions.get(partition, 0) < end}
        if not self._missing:
            self._release()

    def read_to(self, partition: int, position: int) -> None:
        """The order topic has been read up to this offset (the next one to read)."""
        if position <= self._positions.get(partition, 0):
            return
        self._positions[partition] = position
        missing = self._missing
        if missing is None or position < missing.get(partition, position + 1):
            return
        del missing[partition]
        if not missing:
            self._release()

    def _release(self) -> None:
        """What was asked for is read: every event of each order that the question covered goes, in the order of their coming.

        An order of which one event is covered is not on the topic, so its later events need no question of their own.
        """
        self._missing = None
        orders = set()
        for number, one in self._queue.items():
            if number > self._covered:
                break
            orders.add(one.order_id)
        self._on_released(sorted(one for order_id in orders for one in self.take(order_id)))

    def forget_positions(self) -> None:
        """The order topic begins anew: no answer or question of before says anything about it."""
        self._positions.clear()
        self._missing = None
        if self._asked is not None:
            self._asked = _NOTHING
