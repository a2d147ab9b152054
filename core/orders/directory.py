"""The order directory: every order there is, whose it is and what became of it, on whichever instance it was placed.

It is folded from the two topics alone, so all instances come to the same, in whatever order the records of one topic
reach them between those of the other. Each topic is read once: a record at an offset that was folded before changes
nothing, so a second warm-up may start anywhere. What this instance is about to publish is known from `register` on, before
any record of it, so that a repeat in the next moment finds it.

An order is shown to its owner (listed, and told of as a change) once it may be on the topic: when it is acknowledged, of
unknown outcome, read from the topic, or spoken of by the engine. One that was certainly not written was never shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, cast

from core.errors import PoisonedRecord
from core.messages.attributes import Attribute
from core.messages.commands import PlaceOrder
from core.messages.events import AMEND_ANSWERS, Event, Fill, OrderEvent
from core.messages.order_records import AmendRecord, PlacedRecord, read_order_record
from core.messages.times import Times
from core.orders.already_folded import AlreadyFolded
from core.orders.early_events import EarlyEvent, EarlyEvents
from core.orders.fills import KnownFill, OwnFills, own_side
from core.orders.index import OrderIndex
from core.orders.new_order import of_event, of_record, registered, shared
from core.orders.order import Order, Outcome, Status, fold, state, terms_digest
from core.orders.order_observer import OrderObserver
from core.orders.pending_amends import PendingAmends
from core.orders.read_positions import ReadPositions
from core.orders.releases import Releases

MAX_EARLY_EVENTS = 100_000
# Records that were produced here and not read back yet.
MAX_OWN = 20_000

_NOT_OWN: Final[tuple[None, int]] = (None, 0)
# Of an order, what both topics tell.
_READ_FIELDS: Final = tuple(
    field for field in Order.__struct_fields__ if field not in ("order_id", "in_flight", "ended_ms")
)
_AWAITED, _UNKNOWN, _ACCEPTED = Outcome.AWAITED, Outcome.UNKNOWN, Outcome.ACCEPTED


def _untold(_order_id: str, _symbol: str) -> None:
    """Nobody keeps what is known."""


def _unheard(_symbol: str | None) -> None:
    """Nobody keeps what waits."""


class OrderDirectory:
    """All orders by id, by their owner's client_order_id, and the open ones by owner. No I/O; time comes in."""

    def __init__(
        self,
        *,
        keep_terminal_seconds: float,
        on_change: Callable[[Order], None],
        on_private: Callable[[str, bytes], None],
        observer: OrderObserver | None = None,
        max_early_events: int = MAX_EARLY_EVENTS,
        max_terminal: int | None = None,
        times: Times | None = None,
        releases: Releases | None = None,
        fills: OwnFills | None = None,
        attributes: Sequence[Attribute] = (),
        on_fill: Callable[[str, KnownFill], None] = lambda _user_id, _fill: None,
    ) -> None:
        """`on_change(order)`: a shown order's state is another one; `on_private(user_id, payload)`: an event for its owner.

        Both are called from within the call that caused it, in the order of the records, and must not call back.
        `max_terminal`: of the orders that closed (or are of unknown outcome) the newest so many are kept, by when they did;
        the others are let go before their time, and then as unknown as if they had never been. None sets no bound but
        the time. `releases` is told what ended, and so has nothing reserved any more. `fills` is where own fills are kept;
        `on_fill(user_id, fill)`: there is another one, as `on_change`. `attributes`: what orders on the topic may carry besides.
        """
        self.index = OrderIndex(int(keep_terminal_seconds * 1000), max_terminal)
        # For whoever keeps the orders: called with an order's id and symbol before an accepted order of that symbol
        # changes, comes or goes, and with an event's symbol when it begins to wait.
        self.before_change: Callable[[str, str], None] = _untold
        self.before_wait: Callable[[str | None], None] = _unheard
        self._on_change = on_change
        self._on_private = on_private
        self._observer = observer or OrderObserver()
        self.times = times or Times()
        self.releases = releases or Releases()
        self.fills = OwnFills() if fills is None else fills
        self._on_fill = on_fill
        self.attributes = attributes
        self.amends = PendingAmends()
        self._own: dict[bytes, tuple[Order, int]] = {}
        self.early_events = EarlyEvents(max_early_events, self._release)
        self.read_to = ReadPositions(self.early_events)
        # While records may come again that orders which were taken back have in them.
        self.already_folded: AlreadyFolded | None = None
        # While somebody is about to take in orders that are older: by order, what is said of any.
        self.heard: dict[str, list[EarlyEvent]] | None = None

    def __len__(self) -> int:
        return len(self.index)

    # What this instance does itself

    def register(
        self, order_id: str, user_id: str | None, placed: PlaceOrder, time_ms: int, quantity: Decimal | None = None
    ) -> Order:
        """This instance is about to publish an order: found at once, shown later. `quantity` is the reserved one, if any.

        An order that is known by then is returned as it is: another instance published it meanwhile, or its outcome is
        unknown and this is one more attempt. Raises ValueError if it has no quantity.
        """
        self.releases.took(order_id)
        order = self.index.get(order_id)
        if order is not None:
            order.in_flight = True
            if order.outcome is _UNKNOWN:
                order.created_ms = order.time_ms = time_ms
                self._on_change(order)
            return order
        quantity = placed.quantity if quantity is None else quantity
        if quantity is None:
            raise ValueError("an order by amount is registered with the quantity that was reserved for it")
        order = registered(order_id, user_id, placed, time_ms, quantity)
        self.index.add(order)
        self._fold_early(order)
        return order

    def confirm(self, order: Order) -> None:
        """Its record was acknowledged."""
        was_shown = order.outcome is not _AWAITED
        order.in_flight = False
        if order.outcome is not _ACCEPTED:
            self.before_change(order.order_id, order.symbol)
            order.outcome = _ACCEPTED
        if not was_shown:
            self._show(order)

    def mark_unknown(self, order: Order) -> None:
        """It is not known whether its record was written; unless an earlier sign of it was."""
        was_shown = order.outcome is not _AWAITED
        order.in_flight = False
        if order.is_certain:
            return
        order.outcome = _UNKNOWN
        self.index.end(order, order.time_ms, is_doubt=True)
        if not was_shown:
            self._show(order)

    def withdraw(self, order: Order) -> bool:
        """This attempt was certainly not written. Whether the order is forgotten.

        False if it lives on: an earlier attempt may have been written (`is_certain` is False), or it was meanwhile read
        from the topic or spoken of by the engine (`is_certain`).
        """
        order.in_flight = False
        if order.outcome is not _AWAITED:
            return False
        self.index.remove(order)
        self.releases.forget(order.order_id)
        return True

    # What is read

    def produced(self, order: Order, command: bytes) -> None:
        """The record of an order registered here is on its way: read back, it is known by its bytes, unparsed."""
        if order.is_certain:
            return  # its terms are those of another record, or of an event, and this one may have more to say
        if len(self._own) >= MAX_OWN:
            self._own.clear()  # they were never read back; what is read after all is parsed
        self._own[command] = order, order.created_ms

    def fold_command(self, partition: int, offset: int, time_ms: int, value: bytes | None, live: bool) -> None:
        """One record of the order topic. `live` is False for what was there before anybody was served.

        Never raises for what is in the record: a bad one is told to the observer and skipped. Of repeated order ids the
        first counts, and its terms are the order's. Cancels change nothing by themselves.
        """
        if not self.read_to.is_new_command(partition, offset):
            return
        if not self._apply_own_record(value):
            self._read(partition, offset, time_ms, value, live)
        self.early_events.read_to(partition, offset + 1)
        if self.already_folded is not None:
            self.already_folded.command_is_read(partition, offset)
            self._look_whether_past()

    def _read(self, partition: int, offset: int, time_ms: int, value: bytes | None, live: bool) -> None:
        try:
            record = read_order_record(value, self.attributes)
            if isinstance(record, PlacedRecord):
                record = self.times.in_order(record, time_ms)
        except PoisonedRecord as error:
            self._observer.poisoned_command(partition, offset, error)
        else:
            if record is None:
                return
            if isinstance(record, AmendRecord):
                order = self.index.get(record.order_id)
                # What was read back the engine may have answered: a repeat of it is produced again, which changes nothing.
                if live and order is not None and not order.is_closed and order.user_id == record.user_id:
                    self.amends.read(record, self.times.now_ms())
                return
            already = self.already_folded
            # It may have been forgotten since: then it must not come back.
            if already is None or not already.has_command(record.symbol, partition, offset):
                self._take_in(record, time_ms, live)

    def fold_event(self, event: Event, partition: int, offset: int, time_ms: int, live: bool) -> None:
        """One event of the market topic; all but order events and fills are ignored.

        `live` events of an order are passed on to its owner, each once and in the order of their records.

        An order that ends here is kept from when that was heard on: now if `live`, else by Kafka's time of the record, or of
        an earlier one of the partition if that is later, or from when it was placed if that is.
        """
        if not isinstance(event, OrderEvent | Fill) or not self.read_to.is_new_event(partition, offset):
            return
        heard_ms = None if live else self.read_to.read_back(partition, offset, time_ms)
        if isinstance(event, OrderEvent):
            self._apply_event(event.order_id, event, partition, offset, time_ms, live, heard_ms)
        else:
            self._apply_event(event.buy_order_id, event, partition, offset, time_ms, live, heard_ms)
            self._apply_event(event.sell_order_id, event, partition, offset, time_ms, live, heard_ms)
        if self.already_folded is not None:
            self.already_folded.event_is_read(partition, offset)
            self._look_whether_past()

    def resume(
        self,
        already_folded: AlreadyFolded,
        waiting: Iterable[EarlyEvent],
        commands_from: Mapping[int, int],
        events_from: Mapping[int, int],
    ) -> None:
        """Orders were taken back into the index: some of what is read next they have in them already.

        `waiting` are events that wait for theirs again. By partition of either topic, nothing before these offsets is of use
        to anybody.
        """
        self.already_folded = already_folded
        already_folded.begin(commands_from, events_from)
        for early in waiting:
            if early.order_id in self.index:
                self._contained(early, self._fold_waited)
            else:
                self._keep_early(*early[1:])
        for partition, offset in commands_from.items():
            self.early_events.read_to(partition, offset)
        self.read_to.resume(commands_from, events_from)
        self._look_whether_past()

    def take_in_older(self, older: Order, is_named: bool, until: Mapping[int, int]) -> bool:
        """An order as whoever read more knows it, who has read the market topic up to these offsets; what came behind them is
        in `heard`. Whether that is another one than it was here.
        """
        heard = () if self.heard is None else self.heard.get(older.order_id, ())
        behind = [early for early in heard if early.offset >= until.get(early.partition, 0)]
        self.early_events.take(older.order_id)  # those, and what is in it already
        order = self.index.get(older.order_id)
        if order is None:
            order, was = older, None
        else:
            was = state(order)
            if not behind and was == state(older) and order.terms_digest == older.terms_digest and order.is_on_topic:
                return False
            self.before_change(order.order_id, order.symbol)
            self.index.remove(order)
            ended_ms = older.ended_ms if order.ended_ms is None else order.ended_ms
            for field in _READ_FIELDS:
                setattr(order, field, getattr(older, field))
            order.ended_ms = ended_ms if older.is_closed else None
        self.before_change(order.order_id, order.symbol)
        self.index.add(order, is_named=is_named)
        if order.ended_ms is None:
            self.index.add_open(order)
        else:
            self.index.end(order, order.ended_ms)
        for early in behind:
            self._contained(early._replace(live=False), self._fold_waited)
            if isinstance(early.event, Fill) and order.user_id is not None:
                # It was told without the order's terms, if only an event told of that.
                self.fills.add_older(order.user_id, [own_side(order, early.event, early.partition, early.offset)])
        is_news = state(order) != was
        if is_news and (was is not None or not order.is_closed):
            self._on_change(order)
        return is_news

    def _look_whether_past(self) -> None:
        assert self.already_folded is not None
        if self.already_folded.is_past and not self.early_events:
            self.already_folded = None

    def forget_order_topic(self) -> None:
        """The order topic was deleted and made again: offsets start anew. The orders stay known."""
        self.read_to.forget_commands()
        self.early_events.forget_positions()
        if self.already_folded is not None:
            self.already_folded.forget_commands()

    def forget_event_topic(self) -> None:
        """The market topic was deleted and made again: offsets start anew."""
        self.releases.forget_places()
        self.fills.clear()
        self.read_to.forget_events()
        if self.already_folded is not None:
            self.already_folded.forget_events()

    # What is asked

    def get(self, order_id: str) -> Order | None:
        """An order, whoever's it is."""
        return self.index.get(order_id)

    def find(self, user_id: str | None, order_id: str) -> Order | None:
        """The caller's own order; None is the anonymous caller, and finds anonymous orders only."""
        order = self.index.get(order_id)
        return order if order is not None and order.user_id == user_id else None

    def find_by_client_order_id(self, user_id: str | None, client_order_id: str) -> Order | None:
        """The caller's own order by the name the caller gave it."""
        return self.index.by_client_order_id(user_id, client_order_id)

    def open_orders(self, user_id: str, symbol: str | None = None) -> list[Order]:
        """A user's orders that are shown and not closed (of one symbol, if given), oldest first."""
        return self.index.open_orders(user_id, symbol)

    def shown_orders(self, user_id: str) -> list[Order]:
        """The same in no order, for who has many."""
        return self.index.shown(user_id)

    def orders_of_connection(self, connection: str) -> list[Order]:
        """Orders whose record names this connection, shown and not closed, in no order."""
        return self.index.shown_of_connection(connection)

    def sweep(self, now_ms: int, at_most: int = 500) -> bool:
        """Forget up to so many orders that were closed long ago; whether to go on at once. Microseconds an order.

        Orders of which nothing was seen since their outcome was unknown go the same way.
        """
        dropped = self.index.drop_ended(now_ms, at_most, self._before_forgetting)
        if dropped:
            self._observer.terminal_dropped(dropped)
        return self.index.is_due(now_ms)

    def _before_forgetting(self, order: Order) -> None:
        self.releases.forget(order.order_id)
        if order.is_certain:
            self.before_change(order.order_id, order.symbol)

    # Orders

    def _take_in(self, record: PlacedRecord, time_ms: int, live: bool) -> None:
        order = self.index.get(record.order_id)
        if order is not None:
            if not order.is_on_topic:
                self._apply_record(order, record, time_ms, live)
            return
        order = of_record(record, time_ms)
        self.before_change(order.order_id, order.symbol)
        self.index.add(order)
        self.index.add_open(order)
        if live:
            self._on_change(order)
        self._fold_early(order)

    def _apply_record(self, order: Order, record: PlacedRecord, time_ms: int, live: bool) -> None:
        """The first record of an order that this instance registered, or that an event told of: it has the last word.

        Its terms are other ones where two instances published one client_order_id with different terms at once.
        """
        created_ms = time_ms if record.timestamp_ms is None else record.timestamp_ms
        digest = None if record.terms_hash is None else terms_digest(record.terms_hash)
        was_shown = order.outcome is not _AWAITED
        is_news = False
        # The engine's word is the later one.
        price, quantity = (order.price, order.quantity) if order.is_amended else (record.price, record.quantity)
        self.before_change(order.order_id, order.symbol)
        if record.symbol != order.symbol:
            self.before_change(order.order_id, record.symbol)
        order.is_on_topic = True
        order.outcome = _ACCEPTED
        if record.connection != order.connection:
            self.index.remove_open(order)
            order.connection = sys.intern(record.connection)
        if (
            created_ms != order.created_ms
            or quantity != order.quantity
            or price != order.price
            or record.side is not order.side
            or record.symbol != order.symbol
            or record.order_type is not order.order_type
            or record.time_in_force is not order.time_in_force
            or record.client_order_id != order.client_order_id
            or record.user_id != order.user_id
            or digest != order.terms_digest
            or record.attributes != order.attributes
        ):
            shown = state(order)
            self.index.remove(order)
            order.user_id = shared(record.user_id)
            order.client_order_id = record.client_order_id
            order.symbol = sys.intern(record.symbol)
            order.side, order.order_type = record.side, record.order_type
            order.time_in_force = record.time_in_force
            order.price, order.quantity = price, quantity
            order.terms_digest = digest
            order.attributes = sys.intern(record.attributes)
            order.created_ms = created_ms
            if order.status is Status.PENDING:
                order.time_ms = created_ms
            self.index.add(order)
            is_news = state(order) != shown
            if order.is_closed:
                self.releases.ended(order)
        if not order.is_closed:
            self.index.add_open(order)
        # What is in flight here concerns somebody who is being served, whatever else the record is read for.
        if not was_shown or (is_news and live):
            self._on_change(order)

    def _apply_own_record(self, value: bytes | None) -> bool:
        """`_apply_record` for a record that this instance produced, if it is one: every term is the same."""
        order, created_ms = self._own.pop(value, _NOT_OWN) if value is not None else _NOT_OWN
        # The record of another attempt than the last has another time.
        if order is None or order.created_ms != created_ms or self.index.get(order.order_id) is not order:
            return False
        was_shown = order.outcome is not _AWAITED
        self.before_change(order.order_id, order.symbol)
        order.is_on_topic = True
        order.outcome = _ACCEPTED
        if not order.is_closed:
            self.index.add_open(order)
        if not was_shown:
            self._on_change(order)
        return True

    def _apply_event(
        self,
        order_id: str,
        event: OrderEvent | Fill,
        partition: int,
        offset: int,
        time_ms: int,
        live: bool,
        heard_ms: int | None,
    ) -> None:
        if self.heard is not None:
            early = EarlyEvent(0, order_id, event, partition, offset, time_ms, live, None)
            self.heard.setdefault(order_id, []).append(early)
        order = self.index.get(order_id)
        already = self.already_folded
        if already is not None and already.has_event(
            event.symbol if order is None else order.symbol, partition, offset
        ):
            return
        if order is not None:
            self._fold(order, event, partition, offset, time_ms, live, heard_ms)
            return
        self._observer.event_came_early()
        self.before_wait(event.symbol)
        self._keep_early(order_id, event, partition, offset, time_ms, live, None)

    def _keep_early(
        self,
        order_id: str,
        event: OrderEvent | Fill,
        partition: int,
        offset: int,
        time_ms: int,
        live: bool,
        kept_by: int | None,
    ) -> None:
        given_up = self.early_events.keep(order_id, event, partition, offset, time_ms, live, kept_by)
        if given_up is not None:
            self._observer.early_events_overflow()
            self._pass_on_unknown(given_up)

    def _fold(
        self,
        order: Order,
        event: OrderEvent | Fill,
        partition: int,
        offset: int,
        time_ms: int,
        live: bool,
        heard_ms: int | None = None,
    ) -> None:
        """`heard_ms`: when the event was heard; None is now."""
        was_shown = order.outcome is not _AWAITED
        self.before_change(order.order_id, order.symbol)
        order.outcome = _ACCEPTED
        changed = fold(order, event, time_ms)
        if changed and order.is_closed:
            self.index.remove_open(order)
            # It was placed before, by the clock of a gateway, whatever the engine's says.
            self.index.end(order, self.times.now_ms() if heard_ms is None else max(heard_ms, order.created_ms))
            self.releases.ended(order, partition, offset)
            self.amends.closed(order.order_id)
        elif not was_shown:
            self.index.add_open(order)
        if not was_shown or (changed and live):
            self._on_change(order)
        if event.type in AMEND_ANSWERS:
            self._amend_answered(order, cast(OrderEvent, event), live)
        user_id = order.user_id
        if user_id is None:
            return
        if isinstance(event, Fill):
            known = own_side(order, event, partition, offset)
            if self.fills.add(user_id, known) and live:
                self._on_fill(user_id, known)
        elif live:
            self._on_private(user_id, event.payload)

    def _amend_answered(self, order: Order, event: OrderEvent, live: bool) -> None:
        self.amends.answered(order.order_id, event)
        if live and event.type == "order_amend_rejected" and not order.is_closed:
            # Told once: it says nothing of the order, which is as it was.
            order.reason = event.reason
            try:
                self._on_change(order)
            finally:
                order.reason = None

    def _show(self, order: Order) -> None:
        self.index.add_open(order)
        self._on_change(order)

    def _fold_early(self, order: Order) -> None:
        for early in self.early_events.take(order.order_id):
            self._contained(early, self._fold_waited)

    def _release(self, events: list[EarlyEvent]) -> None:
        """Their orders are older than what was read of the order topic, or never were on it."""
        for step in (self._take_in_event, self._fold_waited):
            for early in events:
                self._contained(early, step)

    def _contained(self, early: EarlyEvent, step: Callable[[EarlyEvent], None]) -> None:
        """Many events are let go together: each fails for itself."""
        try:
            step(early)
        except Exception as error:
            self._observer.failed(error, f"{early.event.type} of order {early.order_id}, which had waited for it")

    def _fold_waited(self, early: EarlyEvent) -> None:
        order = self.index.get(early.order_id)
        if order is None:
            self._pass_on_unknown(early)
        elif self._counts(early, order.symbol):
            self._fold(order, early.event, early.partition, early.offset, early.time_ms, early.live)

    def _take_in_event(self, early: EarlyEvent) -> None:
        """An order of which only the engine tells: all but its time in force and client_order_id, if it tells all."""
        order_id, event, time_ms = early.order_id, early.event, early.time_ms
        if not isinstance(event, OrderEvent) or event.type != "order_accepted" or order_id in self.index:
            return
        if event.user_id is None or event.symbol is None or not self._counts(early, event.symbol):
            return
        order = of_event(order_id, event, time_ms)
        self.before_change(order.order_id, order.symbol)
        self.index.add(order)
        self.index.add_open(order)

    def _counts(self, early: EarlyEvent, symbol: str) -> bool:
        """Whether an order of this symbol has it in itself not yet."""
        return self.already_folded is None or self.already_folded.counts(early, symbol)

    def _pass_on_unknown(self, early: EarlyEvent) -> None:
        event = early.event
        if isinstance(event, OrderEvent):
            self.releases.ended_unknown(early.order_id, event, early.time_ms, early.partition, early.offset)
        if event.user_id is None or isinstance(event, Fill):
            self._observer.event_was_nobodys()
        elif early.live:
            self._on_private(event.user_id, event.payload)
