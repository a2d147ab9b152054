"""What ended orders left reserved at the account service, until that is released (docs/contract.md#account-service).

Every instance folds the end of every order, so every one knows what falls due. Only who leads the partition of the kept state
that an order is of tells the service, and writes down what the service has not confirmed yet. So an order that ended before a
cursor, and of which nothing is kept there, has been released: that is how whoever takes over knows what is left to do. A release
may be asked for twice, which the service answers with 404; it is never forgotten, and never asked for an order that lives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Final, TypeVar

import msgspec

from core.messages.events import OrderEvent
from core.messages.kept_state import Cursor
from core.orders.order import Order

log = logging.getLogger("gateway.orders")

PREFIX: Final = "release"
RELEASE: Final = f"{PREFIX}/"

# Where others lead, so many are kept of a partition, or for so long, before it is worth a look what they have written.
MOST: Final = 2_000
LONG_MS: Final = 60_000
# What is little work.
PIECE: Final = 500
# Between two tries of one order, doubling; after a refusal it is the longest at once.
PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0

NOT_KNOWN: Final = -1  # the partition that keeps a symbol's orders
_BEFORE: Final = -1  # of a place: before any cursor

T = TypeVar("T")
OrderOf = Callable[[str], Order | None]


class KeptRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value of `release/<order_id>`: whose order it was, and since when its release is due, in ms since the epoch."""

    symbol: str
    user_id: str
    since_ms: int


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(KeptRelease).decode


class Due(msgspec.Struct, eq=False, gc=False):
    """What is still to be released.

    `kept_by` is the partition of the kept state; `partition` and `offset` are those of the event that ended the order, -1
    where it was taken back. `at` is when to try it next, in seconds of the clock of who does; `tries` is how many failed.
    """

    order_id: str
    symbol: str
    user_id: str
    since_ms: int
    kept_by: int
    partition: int
    offset: int
    is_own: bool
    at: float = 0.0
    tries: int = 0

    def is_before(self, cursor: Cursor) -> bool:
        """Whether whoever wrote this cursor knew that the order had ended."""
        ended_to = cursor.ended_to.get(self.partition, cursor.events.get(self.partition, 0))
        return self.partition == _BEFORE or self.offset < ended_to


def _leads_nothing(_partition: int) -> bool:
    return False


def _one_partition(_symbol: str) -> int:
    return 0


class Releases:
    """All that is due, by order. No I/O, and no clock: times come in.

    leads: whether this instance leads a partition of the kept state; who does is told of all that is due of it by `take_over`.
    is_alone: nobody leads, or this instance cannot know: it releases what it took itself, and knows of nothing else.
    """

    prefix = PREFIX

    def __init__(self, may_be_reserved: Callable[[str, str], bool] | None = None) -> None:
        """`may_be_reserved(order_id, user_id)`: whether the account service can have been asked for such an order's funds.
        None: there is no service. Then nothing falls due here, and what is kept stays so.
        """
        self.is_alone = False
        self.leads: Callable[[int], bool] = _leads_nothing
        # Of the kept state: who keeps a symbol's orders, and whom to tell that a key changes.
        self.partition_of: Callable[[str], int] = _one_partition
        self.touch: Callable[[int, str], None] = lambda _partition, _key: None
        # By partition of the market, where the first of the events is that still wait for their order.
        self.ended_to: Callable[[], dict[int, int]] = dict
        # Something may be told to the service now.
        self.wake: Callable[[], None] = lambda: None
        self._may_be_reserved = may_be_reserved
        self._due: dict[str, Due] = {}
        # By partition of the kept state, those in the order in which they fell due, near enough.
        self._of: dict[int, dict[str, Due]] = {}
        # By partition that was taken over, those that may have a record.
        self._written: dict[int, set[str]] = {}
        # Orders that live and were taken by this instance.
        self._own: set[str] = set()
        # (at, since_ms, order_id); what is not as it is in `_due` any more is passed over.
        self._queue: list[tuple[float, int, str]] = []
        self._under_way: set[str] = set()
        self._taking_over = 0
        self._watching: list[set[str]] = []

    def __contains__(self, order_id: str) -> bool:
        return order_id in self._due

    # What becomes of orders

    def took(self, order_id: str) -> None:
        """This instance is about to publish it."""
        if self._may_be_reserved is not None:
            self._own.add(order_id)

    def forget(self, order_id: str) -> None:
        """It was certainly not published, or is not known any more."""
        self._own.discard(order_id)

    def ended(self, order: Order, partition: int = _BEFORE, offset: int = _BEFORE) -> None:
        """An order is closed, by the event there; without a place it has been told of before, and what it is was not known.

        One that was filled completely leaves nothing.
        """
        if order.user_id is None or order.filled == order.quantity:
            self._own.discard(order.order_id)
            self.confirm(order.order_id)
            return
        assert order.ended_ms is not None
        self._fall_due(order.order_id, order.symbol, order.user_id, order.ended_ms, partition, offset)

    def ended_unknown(self, order_id: str, event: OrderEvent, time_ms: int, partition: int, offset: int) -> None:
        """An event of an order of which nothing else is known. If it ends it, and tells whose it was, that is enough."""
        if (
            event.type in ("order_cancelled", "order_rejected")
            and event.user_id is not None
            and event.symbol is not None
        ):
            self._fall_due(order_id, event.symbol, event.user_id, time_ms, partition, offset)

    def _fall_due(self, order_id: str, symbol: str, user_id: str, since_ms: int, partition: int, offset: int) -> None:
        known = self._due.get(order_id)
        is_own = order_id in self._own or (known is not None and known.is_own)
        self._own.discard(order_id)
        if self._may_be_reserved is None or not self._may_be_reserved(order_id, user_id):
            return
        if self.is_alone and not is_own:
            return
        if known is not None:
            self._remove(known)
            if partition == _BEFORE:
                partition, offset = known.partition, known.offset
        kept_by = self.partition_of(symbol)
        due = Due(order_id, symbol, user_id, since_ms, kept_by, partition, offset, is_own)
        self._add(due)
        self._queue_up(due)
        self.wake()

    def _add(self, due: Due) -> None:
        self._due[due.order_id] = self._of.setdefault(due.kept_by, {})[due.order_id] = due
        self._touch(due)

    def _remove(self, due: Due) -> None:
        del self._due[due.order_id], self._of[due.kept_by][due.order_id]
        self._touch(due)

    def _touch(self, due: Due) -> None:
        if due.kept_by != NOT_KNOWN:
            self.touch(due.kept_by, RELEASE + due.order_id)

    def _drop(self, due: Due) -> None:
        self._remove(due)
        for released in self._watching:
            released.add(due.order_id)

    def forget_places(self) -> None:
        """The market topic was deleted and made again: offsets start anew."""
        for due in self._due.values():
            due.partition = due.offset = _BEFORE

    @contextmanager
    def watching(self) -> Iterator[Container[str]]:
        """Orders that are due no more since, for who asks for funds meanwhile."""
        released: set[str] = set()
        self._watching.append(released)
        try:
            yield released
        finally:
            # Not by its value: two that are empty are equal.
            self._watching = [one for one in self._watching if one is not released]

    # Telling the service

    @property
    def ours(self) -> int:
        """How many this instance has to release."""
        return sum(len(dues) for dues in self._our_parts())

    def oldest_ms(self) -> int | None:
        """Since about when the first of those is due, in ms since the epoch."""
        return min((next(iter(dues.values())).since_ms for dues in self._our_parts() if dues), default=None)

    def our_ids(self) -> Iterator[str]:
        """The orders of those."""
        return (order_id for dues in self._our_parts() for order_id in dues)

    def _our_parts(self) -> Iterator[dict[str, Due]]:
        return (dues for partition, dues in self._of.items() if self.is_alone or self.leads(partition))

    def next(self, now: float, order_of: OrderOf) -> Due | None:
        """What is to be told to the service next, the one that is due for longest. It is so until `begin`.

        `order_of` is what is known of an order: while it lives, it has what it may have been given anew.
        """
        queue = self._queue
        while not self._taking_over and queue and queue[0][0] <= now:
            at, _, order_id = queue[0]
            due = self._due.get(order_id)
            if due is not None and due.at == at and order_id not in self._under_way and self._is_ours(due):
                order = order_of(order_id)
                if order is None or (order.is_closed and order.filled != order.quantity):
                    return due
                if order.is_closed:
                    self._drop(due)
                else:
                    self._put_off(due, now, _pause_after(due.tries))
            heappop(queue)
        return None

    def begin(self, due: Due) -> None:
        """The service is being told; what comes of it is told by `confirm` or `failed`."""
        self._under_way.add(due.order_id)

    def confirm(self, order_id: str) -> None:
        """It is released, or there was nothing to release. Harmless when repeated."""
        self._under_way.discard(order_id)
        due = self._due.get(order_id)
        if due is not None:
            self._drop(due)

    def failed(self, order_id: str, now: float, *, is_refused: bool = False) -> None:
        """It is not certain that it is released: to be tried again, after a pause."""
        self._under_way.discard(order_id)
        due = self._due.get(order_id)
        if due is not None:
            self._put_off(due, now, LONGEST_PAUSE_SECONDS if is_refused else _pause_after(due.tries))

    def _put_off(self, due: Due, now: float, seconds: float) -> None:
        due.tries += 1
        due.at = now + seconds
        self._queue_up(due)

    def _is_ours(self, due: Due) -> bool:
        return self.is_alone or self.leads(due.kept_by)

    def _queue_up(self, due: Due) -> None:
        if self._taking_over or self._is_ours(due):
            heappush(self._queue, (due.at, due.since_ms, due.order_id))

    # Who leads

    def act_alone(self, is_alone: bool) -> None:
        """Whether each instance releases what it took itself, and leaves to others what they took."""
        if is_alone and not self.is_alone:
            for due in [due for due in self._due.values() if not due.is_own]:
                self._drop(due)
        was_alone, self.is_alone = self.is_alone, is_alone
        if is_alone and not was_alone:
            for due in self._due.values():
                self._queue_up(due)
            self.wake()

    def take_over(self, partition: int, cursor: Cursor | None, kept: Mapping[str, bytes]) -> Iterator[None]:
        """This instance leads a partition once this has come to its end, piece by piece. All that is due of it is written again.

        `cursor` is the last one there is, None if it says nothing of what is known here; `kept` are the records there.
        """
        # What is put into the queue meanwhile is to be found there at the end: nobody may look, and pass it over as not ours.
        self._taking_over += 1
        try:
            yield from self._take_over(partition, cursor, kept)
        finally:
            self._taking_over -= 1
        self.wake()

    def _take_over(self, partition: int, cursor: Cursor | None, kept: Mapping[str, bytes]) -> Iterator[None]:
        written = self._written[partition] = {key.removeprefix(RELEASE) for key in kept}
        if cursor is not None and cursor.releases is not None:
            for some in _pieces(self._of.get(partition, {}).values()):
                for due in some:
                    if due.order_id not in written and due.is_before(cursor) and self._due.get(due.order_id) is due:
                        self._drop(due)
                yield
        found = {}
        for records in _pieces(kept.items()):
            for key, value in records:
                order_id = key.removeprefix(RELEASE)
                self.touch(partition, key)
                if order_id not in self._due:
                    try:
                        found[order_id] = due = self._taken_back(partition, order_id, value)
                    except ValueError as error:
                        log.error(
                            "what is kept as still to be released cannot be read, and is dropped: %s: %s", key, error
                        )
                    else:
                        self._add(due)
            yield
        for some in _pieces(self._of.get(partition, {}).values()):
            for due in some:
                self._touch(due)
                self._queue_up(due)
            yield
        # What was kept fell due first.
        found = {order_id: due for order_id, due in found.items() if self._due.get(order_id) is due}
        self._of[partition] = found | self._of.get(partition, {})

    def behind(self, now_ms: int) -> list[int]:
        """Partitions that others lead, of which it is worth while to be told by `seen` what they wrote last."""
        # Where the number of partitions was not known, as between two lives of a topic.
        for due in list(self._of.pop(NOT_KNOWN, {}).values()):
            due.kept_by = self.partition_of(due.symbol)
            self._add(due)
            self._queue_up(due)
        return [
            partition
            for partition, dues in self._of.items()
            if dues
            and partition != NOT_KNOWN
            and not (self.is_alone or self.leads(partition))
            and (len(dues) > MOST or next(iter(dues.values())).since_ms < now_ms - LONG_MS)
        ]

    def seen(self, partition: int, cursor: Cursor) -> None:
        """The last cursor of a partition that others lead. Where they had released all, all that ended before is done.

        Else it is not known what of it they had not, unless somebody reads it. Of too many all that is kept there is left to
        who takes over, and reads it then.
        """
        dues = self._of.get(partition, {})
        if cursor.releases == 0 or (cursor.releases is not None and len(dues) > MOST):
            for due in [due for due in dues.values() if due.is_before(cursor)]:
                self._drop(due)

    # What is kept

    def count(self, partition: int) -> int | None:
        """How many are due of a partition of the kept state; None where there is no service, and so nobody knows."""
        return None if self._may_be_reserved is None else len(self._of.get(partition, ()))

    def keys(self, partition: int) -> list[str]:
        """Of the records of all that is due."""
        return [RELEASE + order_id for order_id in self._of.get(partition, ())]

    def describe(self, partition: int, keys: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """What is to be written under these keys, where anything is."""
        written = self._written.setdefault(partition, set())
        for key in keys:
            order_id = key.removeprefix(RELEASE)
            due = self._of.get(partition, {}).get(order_id)
            if due is not None:
                written.add(order_id)
                yield key, _encode(KeptRelease(due.symbol, due.user_id, due.since_ms))
            elif order_id in written:
                written.discard(order_id)
                yield key, None

    def take_back(self, partition: int, key: str, value: bytes | None) -> None:
        """A record as it is kept. Raises ValueError for one that cannot be read, or is none of this partition."""
        order_id = key.removeprefix(RELEASE)
        due = None if value is None else self._taken_back(partition, order_id, value)
        known = self._due.get(order_id)
        if known is not None and known.kept_by == partition:
            self._remove(known)
        if due is not None and order_id not in self._due:
            self._add(due)

    def discard(self, partition: int) -> None:
        """What was taken back of this partition is not to be used."""
        for due in list(self._of.get(partition, {}).values()):
            if due.partition == _BEFORE:
                self._remove(due)

    def _taken_back(self, partition: int, order_id: str, value: bytes) -> Due:
        kept = _decode(value)
        kept_by = self.partition_of(kept.symbol)
        if kept_by != partition:
            raise ValueError(f"symbol: the orders of {kept.symbol} are not kept by partition {partition}")
        return Due(order_id, kept.symbol, kept.user_id, kept.since_ms, kept_by, _BEFORE, _BEFORE, False)


def _pieces(those: Collection[T]) -> Iterator[list[T]]:
    """As they are now, a few at a time."""
    now = list(those)
    return (now[first : first + PIECE] for first in range(0, len(now), PIECE))


def _pause_after(tries: int) -> float:
    """Seconds, after one more than so many tries that failed."""
    return min(PAUSE_SECONDS * float(1 << min(tries, 10)), LONGEST_PAUSE_SECONDS)
