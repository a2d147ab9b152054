"""What outlives the process of what is known of orders: written down as of one moment, and taken back.

All orders of a partition are described as they were when `cut` was called, while events go on being folded: an order that is about
to change and has not been described yet is described first. What no other partition tells of that moment is described with them:
the events that waited for an order that is, or may turn out to be, one of this partition. Those of orders of other partitions
are in the description of these; so whichever moment each partition is of, every event is in each order once.

    order/<order_id>     an order that is certainly on the order topic; closed ones until they are forgotten
    early/<partition>    the first of the events that waited, and how many such records count: early/<partition>/1, ...
    release/<order_id>   an order that ended, and that the account service has still to release (core/orders/releases.py)
    fill/<partition>-<offset>/<side>/<user>
                         one side of a fill, its owner's (core/orders/fills.py); the user percent-encoded
    fills/<partition>    from where on those are all there are

What is kept of fills may be of a little later than that moment: a fill that is read again is known by its name.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Final, TypeVar, cast
from urllib.parse import quote, unquote

import msgspec

from core.errors import PoisonedRecord
from core.messages.attributes import attribute_values, written
from core.messages.events import Fill, OrderEvent, read_event, with_fees
from core.messages.kept_state import Cursor, Journal, KeptRecord
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.already_folded import AlreadyFolded
from core.orders.directory import OrderDirectory
from core.orders.early_events import EarlyEvent
from core.orders.fills import FillKey, OwnFill, read_fill_id
from core.orders.journal import FILL, ORDER, OrderJournal, PartitionOf
from core.orders.order import NOTHING, TERMS_DIGEST_BYTES, Order, Outcome, Status
from core.orders.releases import RELEASE

EARLY: Final = "early/"
FILLS: Final = "fills/"

# Records of one piece, and orders that are looked at for it: what is little work.
PIECE: Final = 100
LOOKED_AT: Final = 2_000

_ACCEPTED: Final = Outcome.ACCEPTED
_CLOSED: Final = frozenset({Status.FILLED, Status.CANCELLED, Status.REJECTED})

_are_decimals = re.compile(r"[0-9]+(?:\.[0-9]+)?(?: [0-9]+(?:\.[0-9]+)?){2}").fullmatch

T = TypeVar("T")


class KeptOrder(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The value of `order/<order_id>`: as `Order`, field by field. What has its default is left out.

    `is_named`: found by its client_order_id, which no earlier order of its owner has. `ended_ms` is that of a closed one.
    `events`, of one that had not been read from the order topic: up to where each partition of the market topic had been read.
    Another instance may not know the order when it goes on writing: then its events wait there, also those of before.
    """

    symbol: str
    side: Side
    order_type: OrderType
    quantity: str
    created_ms: int
    time_ms: int
    price: str | None = None
    time_in_force: TimeInForce | None = None
    user_id: str | None = None
    client_order_id: str | None = None
    is_named: bool = True
    terms_digest: bytes | None = None
    is_on_topic: bool = False
    status: Status = Status.PENDING
    filled: str = NOTHING
    reason: str | None = None
    ended_ms: int | None = None
    is_amended: bool = False
    events: dict[int, int] | None = None
    attributes: dict[str, bool | int | str] = {}
    connection: str = ""


class KeptEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A market event that waited for this order: where it is, Kafka's time of it, and what it says."""

    order_id: str
    partition: int
    offset: int
    time_ms: int
    payload: str


class KeptEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value of `early/...`: the first says how many `records` there are, and those behind it count no more."""

    records: int
    events: list[KeptEvent]


class KeptReach(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value of `fills/<partition>`, by partition of the market topic: from where on all fills are known, and up to where some
    were dropped because there were more than may be kept.
    """

    begins: dict[int, int]
    dropped_to: dict[int, int]


_SIDES: Final = {side.value: side for side in Side}
_encode_fast: Final = msgspec.json.Encoder().encode
_decode_order: Final = msgspec.json.Decoder(KeptOrder).decode
_decode_events: Final = msgspec.json.Decoder(KeptEvents).decode
_decode_fill: Final = msgspec.json.Decoder(OwnFill).decode
_decode_reach: Final = msgspec.json.Decoder(KeptReach).decode


class _Cut:
    """A description under way."""

    def __init__(self, partition: int, keys: set[str] | None, events: dict[int, int]) -> None:
        self.partition = partition
        self.keys = keys
        # Up to where the market topic has been read.
        self.events = events
        # Those that changed since, as they were, and the records among them that are not handed over yet.
        self.described: set[str] = set()
        self.ahead: list[KeptRecord] = []


class OrderState:
    """The orders, as whoever keeps the state sees them: a `KeptState`."""

    def __init__(self, directory: OrderDirectory, partitions: Callable[[], int]) -> None:
        """`partitions` of the kept state; 0 while that is not known: then nothing is journalled, and nothing taken back."""
        self._directory = directory
        self._index = directory.index
        self._partitions = partitions
        self._partition_of = PartitionOf(partitions)
        journal = OrderJournal(self._partition_of)
        self.journal: Journal = journal
        self._ids_of = journal.ids_of
        self._changed = journal.all_orders
        self._changed_fills = journal.all_fills
        self._cuts: list[_Cut] = []
        # By partition and number, what was taken back of events that waited; and how many records of them may be kept.
        self._early: dict[int, dict[int, tuple[int, list[EarlyEvent]]]] = {}
        self._early_records: dict[int, int] = {}
        # By partition, orders that are kept and should not be, before anything was written.
        self._unwanted: dict[int, set[str]] = {}
        # Of orders that had not been read from the order topic, `KeptOrder.events`, until both topics are read on.
        self._events_in: dict[str, dict[int, int]] = {}
        self._last_events: dict[int, int] = {}
        self._releases = releases = directory.releases
        releases.partition_of, releases.touch = self._partition_of.__getitem__, journal.touch
        releases.ended_to = directory.early_events.first_waiting
        directory.before_change = self._before_change
        directory.before_wait = self._before_wait
        self._fills = directory.fills
        self._fills.on_change = self._on_fill
        self._reach: dict[int, KeptReach] = {}

    # Written down

    def _on_fill(self, user_id: str, key: FillKey, symbol: str) -> None:
        partition = self._partition_of[symbol]
        if partition >= 0:
            self.journal.touch(partition, fill_key(user_id, key))

    def _before_change(self, order_id: str, symbol: str) -> None:
        self._ids_of[symbol].add(order_id)
        if self._cuts:
            self._describe_ahead(self._partition_of[symbol], ORDER + order_id)

    def _before_wait(self, symbol: str | None) -> None:
        if symbol is not None:
            partition = self._partition_of[symbol]
            concerned: Iterable[int] = () if partition < 0 else (partition,)
        else:
            concerned = range(self._partitions())
        for partition in concerned:
            self.journal.touch(partition, f"{EARLY}{partition}")

    def _describe_ahead(self, partition: int, key: str) -> None:
        for cut in self._cuts:
            if cut.partition != partition or key in cut.described:
                continue
            if cut.keys is None or key in cut.keys:
                cut.described.add(key)
                cut.ahead.append(self._describe(cut, key))

    def _describe(self, cut: _Cut, key: str) -> KeptRecord:
        order = self._index.get(key[len(ORDER) :])
        if order is None or order.outcome is not _ACCEPTED or self._partition_of[order.symbol] != cut.partition:
            return KeptRecord(key, None)
        return KeptRecord(key, self._encode_order(cut, order))

    def _encode_order(self, cut: _Cut, order: Order) -> bytes:
        name = order.client_order_id
        is_named = name is None or self._index.by_client_order_id(order.user_id, name) is order
        return _encode(
            KeptOrder(
                order.symbol,
                order.side,
                order.order_type,
                order.quantity,
                order.created_ms,
                order.time_ms,
                order.price,
                order.time_in_force,
                order.user_id,
                name,
                is_named,
                order.terms_digest,
                order.is_on_topic,
                order.status,
                order.filled,
                order.reason,
                order.ended_ms,
                order.is_amended,
                None if order.is_on_topic else cut.events,
                dict(attribute_values(order.attributes)),
                order.connection,
            )
        )

    def cut(self, partition: int, keys: set[str] | None, *, is_whole: bool) -> Generator[list[KeptRecord], None, None]:
        """All as it is now, in pieces of at most `PIECE` records, some of them without any. `keys` must not change meanwhile.

        It has to be closed or forgotten, where it is not used up. Whoever writes down that both topics have been read to some
        place has to have a cut of that moment, also if no key changed.
        """
        if not is_whole:
            self._unwanted.pop(partition, None)  # has been written
        elif keys is not None:
            # Told by the journal at the beginning, which whoever takes over later does not ask for any more.
            keys = keys | self._unwanted.get(partition, set())
        cut = _Cut(partition, keys, self._directory.read_to.events_read_to())
        pieces = self._pieces(cut, self._directory.early_events.waiting(), is_whole)
        next(pieces)  # begun, so that it ends whatever becomes of it
        return pieces

    def _pieces(
        self, cut: _Cut, waiting: tuple[EarlyEvent, ...], is_whole: bool
    ) -> Generator[list[KeptRecord], None, None]:
        walk: AbstractContextManager[Iterator[Order]] = nullcontext(iter(()))
        keys: Iterable[str] = ()
        if cut.keys is None:
            # What is gone by now may be kept by whoever wrote before.
            unwanted = tuple(self._unwanted.get(cut.partition, ()))
            due = self._releases.keys(cut.partition)
            fills = self._changed_fills(cut.partition)
            walk, keys = self._index.walk(), chain(unwanted, self._changed(cut.partition), due, fills)
        else:
            keys = cut.keys
        self._cuts.append(cut)
        try:
            with walk as orders:
                yield []
                for piece in chain(self._walked(cut, orders), self._listed(cut, keys)):
                    yield piece
                    while cut.ahead:
                        yield _taken(cut.ahead)
        finally:
            self._cuts.remove(cut)
        while cut.ahead:
            yield _taken(cut.ahead)
        yield from self._early_pieces(cut.partition, waiting, is_whole)
        if cut.keys is None:
            yield from self._all_fills(cut.partition)
        if cut.keys is None or any(key.startswith(FILL) for key in cut.keys):
            reach = KeptReach(self._fills.begins(), self._fills.dropped_to)
            if reach.begins:
                yield [KeptRecord(f"{FILLS}{cut.partition}", _encode(reach))]

    def _all_fills(self, partition: int) -> Iterator[list[KeptRecord]]:
        walk = self._fills.walk()
        while some := list(islice(walk, PIECE)):
            yield [
                KeptRecord(fill_key(user_id, known.key), _encode(known.fill))
                for user_id, known in some
                if self._partition_of[known.fill.symbol] == partition
            ]

    def _described_fill(self, partition: int, key: str) -> KeptRecord:
        fill = self._fills.get(*_read_fill_key(key))
        is_here = fill is not None and self._partition_of[fill.symbol] == partition
        return KeptRecord(key, _encode(fill) if fill is not None and is_here else None)

    def _walked(self, cut: _Cut, orders: Iterator[Order]) -> Iterator[list[KeptRecord]]:
        partition, partition_of = cut.partition, self._partition_of
        looked_at, piece = 0, []
        for order in orders:
            looked_at += 1
            if partition_of[order.symbol] == partition and order.outcome is _ACCEPTED:
                key = ORDER + order.order_id
                if key not in cut.described:
                    piece.append(KeptRecord(key, self._encode_order(cut, order)))
            if len(piece) >= PIECE or looked_at >= LOOKED_AT:
                yield piece
                looked_at, piece = 0, []
        yield piece

    def _listed(self, cut: _Cut, keys: Iterable[str]) -> Iterator[list[KeptRecord]]:
        listed = iter(keys)
        while some := list(islice(listed, PIECE)):
            fresh = [key for key in some if key.startswith(ORDER) and key not in cut.described]
            piece = [self._describe(cut, key) for key in fresh]
            piece += [self._described_fill(cut.partition, key) for key in some if key.startswith(FILL)]
            if cut.keys is None:  # all are walked over: only those that are gone are left
                piece = [record for record in piece if record.value is None]
            # As they are by now: what has been released since has been, and what has ended since is found again by its event.
            due = self._releases.describe(cut.partition, (key for key in some if key.startswith(RELEASE)))
            yield [*piece, *(KeptRecord(key, value) for key, value in due)]

    def _early_pieces(
        self, partition: int, waiting: tuple[EarlyEvent, ...], is_whole: bool
    ) -> Iterator[list[KeptRecord]]:
        kept: list[KeptEvent] = []
        for first in range(0, len(waiting), LOOKED_AT):
            some = waiting[first : first + LOOKED_AT]
            kept += [_kept(early) for early in some if self._concerns(early, partition)]
            yield []
        records = -(-len(kept) // PIECE)
        for number in range(records):
            events = KeptEvents(records, kept[number * PIECE : (number + 1) * PIECE])
            yield [KeptRecord(_early_key(partition, number), _encode(events))]
        # Of those of another writer the first is enough: without it the others are not read.
        before = max(self._early_records.get(partition, 0), int(is_whole))
        self._early_records[partition] = records
        if before > records:
            yield [KeptRecord(_early_key(partition, number), None) for number in range(records, before)]

    def _concerns(self, early: EarlyEvent, partition: int) -> bool:
        """Whether its order is one of the partition, or may be."""
        symbol = early.event.symbol
        of_symbol = partition if symbol is None else self._partition_of[symbol]
        return of_symbol == partition and early.kept_by in (None, partition)

    # Taken back

    def take_back(self, partition: int, key: str, value: bytes | None) -> None:
        """Raises ValueError for a record that cannot be read, is no order's or none of this partition.

        An order whose time is over is not taken back, and is forgotten by the next who writes.
        """
        if key.startswith(RELEASE):
            self._releases.take_back(partition, key, value)
            return
        if key.startswith((FILL, FILLS)):
            self._take_back_fill(partition, key, value)
            return
        if not key.startswith(ORDER):
            self._take_back_early(partition, key, value)
            return
        order_id = key[len(ORDER) :]
        known = self._index.get(order_id)
        is_own = known is not None and self._partition_of[known.symbol] == partition
        if value is None:
            if known is not None and is_own:
                self._index.remove(known)
            return
        kept = _decode(_decode_order, KeptOrder, value)
        order = _order(order_id, kept)
        if self._partition_of[order.symbol] != partition:
            raise ValueError(f"symbol: the orders of {order.symbol} are not kept by partition {partition}")
        if kept.ended_ms is not None and self._index.is_over(kept.ended_ms, self._directory.times.now_ms()):
            self._forget(partition, key)
            if known is not None and is_own:
                self._index.remove(known)
            return
        if known is not None:
            if not is_own:  # its symbol became another one, and one of the partitions does not know yet
                if known.is_on_topic and not order.is_on_topic:
                    self._forget(partition, key)
                    return
                self._forget(self._partition_of[known.symbol], key)
            self._index.remove(known)
        self._index.add(order, is_named=kept.is_named)
        if kept.events is not None:
            if kept.events != self._last_events:
                self._last_events = kept.events
            self._events_in[order_id] = self._last_events
        if kept.ended_ms is None:
            self._index.add_open(order)
        elif known is None or known.ended_ms != kept.ended_ms:
            self._index.end(order, kept.ended_ms)

    def _take_back_fill(self, partition: int, key: str, value: bytes | None) -> None:
        if key.startswith(FILLS):
            if value is not None:
                self._reach[partition] = _decode_reach(value)
            return
        user_id, name = _read_fill_key(key)
        fill = None if value is None else _decode(_decode_fill, OwnFill, value)
        if fill is not None:
            if not _are_decimals(f"{fill.quantity} {fill.price} 0"):
                fields = {"quantity": fill.quantity, "price": fill.price}
                raise ValueError(f"quantity, price: expected decimals in plain notation, got {fields}")
            if self._partition_of[fill.symbol] != partition:
                raise ValueError(f"symbol: the fills of {fill.symbol} are not kept by partition {partition}")
        self._fills.take_back(user_id, name, fill)

    def _take_back_early(self, partition: int, key: str, value: bytes | None) -> None:
        own, _, number = key.removeprefix(EARLY).partition("/")
        if not key.startswith(EARLY) or own != str(partition) or not (number.isdecimal() or key == f"{EARLY}{own}"):
            raise ValueError(f"key: {key} is none of the orders of partition {partition}")
        records = self._early.setdefault(partition, {})
        index = int(number or 0)
        if value is None:
            records.pop(index, None)
            return
        kept = _decode(_decode_events, KeptEvents, value)
        records[index] = kept.records, [self._early_event(partition, one) for one in kept.events]
        self._early_records[partition] = max(self._early_records.get(partition, 0), index + 1)

    def _early_event(self, partition: int, kept: KeptEvent) -> EarlyEvent:
        try:
            event = read_event(kept.payload.encode())
        except (PoisonedRecord, UnicodeEncodeError) as error:
            raise ValueError(f"payload: {error}") from error
        if not isinstance(event, OrderEvent | Fill):
            raise ValueError(f"payload: of an event of type {event.type}, which is no order's")
        event = cast("OrderEvent | Fill", self._directory.times.in_event(event, kept.time_ms))
        return EarlyEvent(0, kept.order_id, event, kept.partition, kept.offset, kept.time_ms, False, partition)

    def _forget(self, partition: int, key: str) -> None:
        self._unwanted.setdefault(partition, set()).add(key)
        self.journal.touch(partition, key)

    def discard(self, partition: int) -> None:
        """Its orders are not known any more, and are forgotten by the next who writes. Takes as long as there are orders."""
        with self._index.walk() as orders:
            dropped = [order for order in orders if self._partition_of[order.symbol] == partition]
        for order in dropped:
            self._index.remove(order)
            self._forget(partition, ORDER + order.order_id)
        self._index.drop_ends_of_unknown()
        self._early.pop(partition, None)
        self._releases.discard(partition)
        self._reach.pop(partition, None)
        # Each is told as one that went, and so forgotten by the next who writes.
        self._fills.discard(lambda symbol: self._partition_of[symbol] == partition)

    def resume(self, cursors: Mapping[int, Cursor]) -> None:
        """Orders of a partition without a cursor have nothing in them: everything that is read counts for them.

        Where each partition has one, nothing that is in all orders already is looked at again.
        """
        waiting = [event for partition in sorted(cursors) for event in self._waiting_again(partition)]
        self._early.clear()
        self._events_in.clear()
        is_whole = len(cursors) == self._partitions()
        self._resume_fills(cursors, is_whole)
        self._directory.resume(
            AlreadyFolded(cursors, self._partition_of.__getitem__),
            waiting,
            _least([cursor.orders for cursor in cursors.values()]) if is_whole else {},
            _least([cursor.events for cursor in cursors.values()]) if is_whole else {},
        )

    def _resume_fills(self, cursors: Mapping[int, Cursor], is_whole: bool) -> None:
        begins: dict[int, int] = {}
        for number, cursor in cursors.items():
            reach = self._reach.get(number)
            # Whoever kept none yet knew them from there on.
            for partition, first in (cursor.events if reach is None else reach.begins).items():
                begins[partition] = max(first, begins.get(partition, 0))
            for partition, offset in ({} if reach is None else reach.dropped_to).items():
                self._fills.dropped_to[partition] = max(offset, self._fills.dropped_to.get(partition, 0))
        self._reach.clear()
        self._fills.resume(begins if is_whole else {})

    def _waiting_again(self, partition: int) -> Iterator[EarlyEvent]:
        kept = self._early.get(partition, {})
        records = kept[0][0] if 0 in kept else 0
        for number in range(records):
            yield from (early for early in kept[number][1] if not self._has_event(early))

    def _has_event(self, early: EarlyEvent) -> bool:
        """Whether whoever described its order knew of it, and only whoever wrote after that did not know the order."""
        read_to = self._events_in.get(early.order_id)
        return read_to is not None and early.offset < read_to.get(early.partition, 0)


def _order(order_id: str, kept: KeptOrder) -> Order:
    """Raises ValueError if it contradicts itself."""
    quantity, price, filled = kept.quantity, kept.price, kept.filled
    if not _are_decimals(f"{quantity} {filled} {price or 0}"):
        fields = {"quantity": quantity, "filled": filled, "price": price}
        raise ValueError(f"quantity, filled, price: expected decimals in plain notation, got {fields}")
    if (kept.ended_ms is not None) is not (kept.status in _CLOSED):
        raise ValueError(f"ended_ms: {kept.ended_ms} of an order that is {kept.status}")
    if kept.terms_digest is not None and len(kept.terms_digest) != TERMS_DIGEST_BYTES:
        raise ValueError(f"terms_digest: expected {TERMS_DIGEST_BYTES} bytes, got {len(kept.terms_digest)}")
    return Order(
        order_id,
        None if kept.user_id is None else sys.intern(kept.user_id),
        kept.client_order_id,
        sys.intern(kept.symbol),
        kept.side,
        kept.order_type,
        kept.time_in_force,
        price,
        quantity,
        kept.terms_digest,
        kept.created_ms,
        # One object for what is the same takes less room.
        kept.created_ms if kept.time_ms == kept.created_ms else kept.time_ms,
        _ACCEPTED,
        False,
        kept.is_on_topic,
        kept.status,
        quantity if filled == quantity else filled,
        kept.reason,
        kept.is_amended,
        kept.ended_ms,
        sys.intern(written(kept.attributes)),
        sys.intern(kept.connection),
    )


def _kept(early: EarlyEvent) -> KeptEvent:
    payload = with_fees(early.event) if isinstance(early.event, Fill) else early.event.payload
    return KeptEvent(early.order_id, early.partition, early.offset, early.time_ms, payload.decode())


def fill_key(user_id: str, key: FillKey) -> str:
    """Under which one side of a fill is kept."""
    return f"{FILL}{key.fill_id}/{key.side.value}/{quote(user_id, safe='', errors='surrogatepass')}"


def _read_fill_key(key: str) -> tuple[str, FillKey]:
    fill_id, _, rest = key.removeprefix(FILL).partition("/")
    side, _, user = rest.partition("/")
    if not user or side not in _SIDES:
        raise ValueError(f"key: expected fill/<fill_id>/<side>/<user>, got {key}")
    return sys.intern(unquote(user, errors="surrogatepass")), FillKey(*read_fill_id(fill_id), _SIDES[side])


def _early_key(partition: int, number: int) -> str:
    return f"{EARLY}{partition}/{number}" if number else f"{EARLY}{partition}"


def _taken(ahead: list[KeptRecord]) -> list[KeptRecord]:
    taken = ahead[:PIECE]
    del ahead[:PIECE]
    return taken


def _encode(kept: KeptOrder | KeptEvents | OwnFill | KeptReach) -> bytes:
    try:
        return _encode_fast(kept)
    except UnicodeEncodeError:  # half of a surrogate pair, which a user's id may have: ASCII has an escape for it
        return json.dumps(msgspec.to_builtins(kept), separators=(",", ":")).encode()


def _decode(decode: Callable[[bytes], T], kind: type[T], value: bytes) -> T:
    if b"\\ud" not in value:
        return decode(value)
    try:
        return msgspec.convert(json.loads(value), kind)
    except RecursionError as error:
        raise ValueError("expected an object, got endless nesting") from error


def _least(of_all: list[dict[int, int]]) -> dict[int, int]:
    """The least offset of each partition that is in all of them."""
    everywhere = set(of_all[0]).intersection(*of_all) if of_all else ()
    return {partition: min(positions[partition] for positions in of_all) for partition in everywhere}
