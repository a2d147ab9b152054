"""The order directory against a naive reference, over any interleaving of the two topics.

A history is made first: what gateways and the engine append to the topics, the engine of an order only after its command.
A reader then takes it in, each partition in its own order and otherwise as it pleases, also while the history is still
being appended, and with marks asked for and answered at any time. The reference knows all commands from the start.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages.commands import CancelOrder
from core.messages.events import Fill, OrderEvent, read_event
from core.orders.directory import OrderDirectory
from core.orders.order import Order, Outcome, state
from tests.core.fake_orders import Told, command, placed
from tests.support.examples import examples

SYMBOLS = ("A/EUR", "B/EUR")  # each on the partition of its index
USERS = ("alice", "bob", None)
KINDS = ("order_accepted", "order_filled", "order_cancelled", "order_rejected")
NEEDS: dict[str, dict[str, Any]] = {
    "order_accepted": {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "3"},
    "order_filled": {},
    "order_cancelled": {"filled_quantity": "0.5"},
    "order_rejected": {"reason": "no funds"},
}


@dataclass
class Plan:
    """One order of the history. `kind`: placed by another instance, by ours, or before what is read of the topic."""

    order_id: str
    kind: str
    user_id: str | None
    partition: int
    is_placed: bool = False
    was_heard: bool = False


@dataclass
class Appended:
    """One record: on which topic and partition, and, of a command of ours, which order it places."""

    topic: str
    partition: int
    value: bytes
    time_ms: int
    ours: str | None = None


@dataclass
class History:
    """What is appended, in this order."""

    plans: list[Plan]
    records: list[Appended] = field(default_factory=list)

    def append(self, topic: str, plan: Plan, value: bytes, ours: str | None = None) -> None:
        self.records.append(Appended(topic, plan.partition, value, 1_000 + len(self.records), ours))


@st.composite
def histories(draw: st.DrawFn) -> History:
    kinds = draw(st.lists(st.sampled_from(("others", "ours", "older")), min_size=2, max_size=5))
    plans = [
        Plan(str(number) if number % 2 else f"id-{number}", kind, draw(st.sampled_from(USERS)), draw(st.integers(0, 1)))
        for number, kind in enumerate(kinds)
    ]
    history = History(plans)
    for plan, other, choice in draw(
        st.lists(st.tuples(st.sampled_from(plans), st.sampled_from(plans), st.integers(0, 9)), min_size=10, max_size=30)
    ):
        step(history, plan, other, choice)
    return history


def step(history: History, plan: Plan, other: Plan, choice: int) -> None:
    """Append the next thing to be said of an order."""
    number = len(history.records)
    symbol = SYMBOLS[plan.partition]
    if plan.kind != "older" and not plan.is_placed:
        plan.is_placed = True
        value = command(plan.order_id, plan.user_id, f"my-{plan.order_id}", number, quantity="3", symbol=symbol)
        history.append("commands", plan, value, plan.order_id if plan.kind == "ours" else None)
    elif choice == 0:
        history.append("commands", plan, CancelOrder(plan.order_id, None).encode(plan.order_id, symbol, None, 1))
    elif choice == 1 and plan.kind != "older":
        again = command(plan.order_id, "mallory", f"my-{plan.order_id}", number, quantity="9", symbol=symbol)
        history.append("commands", plan, again)
    elif choice == 2:
        history.append("commands", plan, b"{")
    elif choice <= 5:
        is_counterpart = other.partition == plan.partition and (other.is_placed or other.kind == "older")
        sell = other if is_counterpart and other is not plan else None
        members = {
            "buy_order_id": written(plan.order_id),
            "sell_order_id": written(sell.order_id if sell else "nobody"),
        }
        fill = {"type": "fill", "symbol": symbol, "price": "1.50", "quantity": "0.7", "timestamp": number, **members}
        history.append("events", plan, json.dumps(fill).encode())
        for heard in (plan, *([sell] if sell else [])):
            heard.was_heard = True
    else:
        # The engine accepts an order before anything else; of an older one the rest may be all that is read.
        kind = KINDS[choice - 6]
        if kind == "order_accepted" and plan.kind == "older" and plan.was_heard:
            kind = "order_filled"
        plan.was_heard = True
        members = {"type": kind, "order_id": written(plan.order_id), **NEEDS[kind], "number": number}
        if plan.kind == "older":
            members |= {"symbol": symbol, "user_id": plan.user_id}
        if number % 3:
            members["timestamp"] = number
        history.append("events", plan, json.dumps(members).encode())


def written(order_id: str) -> str | int:
    """Ids of older engines are integers."""
    return int(order_id) if order_id.isdecimal() else order_id


# the reference


@dataclass
class Outcomes:
    """What it has to come to: order states, and for each order what its owner was told."""

    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    private: dict[str, list[tuple[str, bytes]]] = field(default_factory=lambda: defaultdict(list))


def reference(history: History, is_live: Callable[[Appended, int], bool]) -> Outcomes:
    """Every command first, then every event."""
    come_to = Outcomes()
    owners: dict[str, str | None] = {}
    for record in history.records:
        if record.topic == "commands" and b"place_order" in record.value:
            said = json.loads(record.value)
            order_id = str(said["order_id"])
            if order_id not in owners:
                owners[order_id] = said["user_id"]
                come_to.states[order_id] = new_state(order_id, said) | {"time": said["timestamp"] / 1000}
    offsets = [0, 0]
    for record in history.records:
        if record.topic != "events":
            continue
        offset = offsets[record.partition]
        offsets[record.partition] += 1
        said = json.loads(record.value)
        time_ms = said.get("timestamp", record.time_ms)
        if said["type"] == "fill":
            for side in ("buy_order_id", "sell_order_id"):
                if (order_id := str(said[side])) in come_to.states:
                    naive_fold(come_to.states[order_id], said, time_ms)
            continue
        order_id = str(said["order_id"])
        owner = owners.get(order_id, said.get("user_id"))
        if order_id not in come_to.states and said["type"] == "order_accepted" and owner is not None:
            owners[order_id] = owner
            come_to.states[order_id] = new_state(order_id, said)
        if order_id in come_to.states:
            naive_fold(come_to.states[order_id], said, time_ms)
        if owner is not None and is_live(record, offset):
            come_to.private[order_id].append((owner, record.value))
    return come_to


def new_state(order_id: str, said: dict[str, Any]) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "client_order_id": said.get("client_order_id"),
        "symbol": said["symbol"],
        "side": said["side"],
        "order_type": said["order_type"],
        "time_in_force": said.get("time_in_force"),
        "price": said["price"],
        "quantity": said["quantity"],
        "filled_quantity": "0",
        "status": "pending",
    }


def naive_fold(order: dict[str, Any], said: dict[str, Any], time_ms: int) -> None:
    if order["status"] in ("filled", "cancelled", "rejected"):
        return
    if said["type"] == "fill":
        filled = Decimal(order["filled_quantity"]) + Decimal(said["quantity"])
        is_all = filled >= Decimal(order["quantity"])
        order["filled_quantity"] = order["quantity"] if is_all else str(filled)
        order["status"] = "filled" if is_all else "partially_filled"
    elif said["type"] == "order_accepted":
        if order["status"] != "pending":
            return
        order["status"] = "open"
    elif said["type"] == "order_filled":
        order["filled_quantity"], order["status"] = order["quantity"], "filled"
    elif said["type"] == "order_cancelled":
        order["filled_quantity"], order["status"] = said["filled_quantity"], "cancelled"
    else:
        order["reason"], order["status"] = said["reason"], "rejected"
    order["time"] = time_ms / 1000


# the reader


class Reader:
    """Takes a history in, step by step."""

    def __init__(self, history: History, is_live: Callable[[Appended, int], bool]) -> None:
        self.told = Told()
        self.directory = OrderDirectory(
            keep_terminal_seconds=1e6,
            on_change=self.told.on_change,
            on_private=self.told.on_private,
            observer=self.told,
        )
        self._is_live = is_live
        self._users = {plan.order_id: plan.user_id for plan in history.plans}
        self._to_come = list(reversed(history.records))
        self._topics: dict[str, list[list[Appended]]] = {"commands": [[], []], "events": [[], []]}
        self._read = {"commands": [0, 0], "events": [0, 0]}
        self._in_flight: list[Order] = []
        self._asked_ends: dict[int, int] | None = None

    def act(self, choice: int) -> None:
        """One of the things that may happen next; nothing if it cannot now."""
        partition = choice % 2
        match choice // 2:
            case 0 | 1 | 2:
                self.append()
            case 3 | 4:
                self.read("commands", partition)
            case 5 | 6:
                self.read("events", partition)
            case 7:
                self.ask()
            case 8:
                self.answer(is_late=bool(partition))
            case 9:
                self.settle(is_doubt=bool(partition))
            case 10:
                self.read_again("commands" if partition else "events", 0, 1)
            case 11 if partition:
                self.publish_again()
            case _:
                for partition, position in enumerate(self._read["commands"]):
                    self.directory.early_events.read_to(partition, position)

    def append(self) -> None:
        if not self._to_come:
            return
        record = self._to_come.pop()
        if record.ours is not None:
            said = json.loads(record.value)
            order = placed(said["client_order_id"], said["quantity"], said["symbol"])
            registered = self.directory.register(record.ours, self._users[record.ours], order, said["timestamp"])
            self._publish(registered, record)
        else:
            self._topics[record.topic][record.partition].append(record)

    def _publish(self, order: Order, record: Appended) -> None:
        self.directory.produced(order, record.value)
        self._in_flight.append(order)
        self._topics["commands"][record.partition].append(record)

    def publish_again(self) -> None:
        """An order of ours whose outcome is unknown; its first record is on the topic, read or not."""
        for order_id, user_id in self._users.items():
            order = self.directory.get(order_id)
            if order is not None and order.outcome is Outcome.UNKNOWN and not order.in_flight:
                time_ms = order.created_ms + 1_000
                terms = {"quantity": order.quantity, "symbol": order.symbol}
                value = command(order_id, user_id, order.client_order_id, time_ms, **terms)
                self.directory.register(order_id, user_id, placed(order.client_order_id, **terms), time_ms)
                self._publish(order, Appended("commands", SYMBOLS.index(order.symbol), value, time_ms))

    def read(self, topic: str, partition: int) -> None:
        offset = self._read[topic][partition]
        if offset < len(self._topics[topic][partition]):
            self._read[topic][partition] += 1
            self._fold(topic, partition, offset)

    def read_again(self, topic: str, *partitions: int) -> None:
        """From the start of each partition to where it has been read."""
        for partition in partitions:
            for offset in range(self._read[topic][partition]):
                self._fold(topic, partition, offset)

    def _fold(self, topic: str, partition: int, offset: int) -> None:
        record = self._topics[topic][partition][offset]
        live = self._is_live(record, offset)
        if topic == "commands":
            self.directory.fold_command(partition, offset, record.time_ms, record.value, live)
        else:
            self.directory.fold_event(read_event(record.value), partition, offset, record.time_ms, live)

    def ask(self) -> None:
        if self.directory.early_events.wants_mark:
            self.directory.early_events.ask_mark()
            self._asked_ends = self._ends()

    def answer(self, *, is_late: bool) -> None:
        """The broker looked at its topic at some time between question and answer; or (rarely) the question failed."""
        if self._asked_ends is not None:
            ends, self._asked_ends = self._asked_ends, None
            self.directory.early_events.answer_mark(
                None if len(self.told.private) % 5 == 4 else self._ends() if is_late else ends
            )

    def _ends(self) -> dict[int, int]:
        return {partition: len(records) for partition, records in enumerate(self._topics["commands"])}

    def settle(self, *, is_doubt: bool) -> None:
        if self._in_flight:
            (self.directory.doubt if is_doubt else self.directory.confirm)(self._in_flight.pop(0))

    def finish(self) -> None:
        """All that is left, and every question answered."""
        while self._to_come:
            self.append()
        while self._in_flight:
            self.settle(is_doubt=False)
        for topic in ("events", "commands"):
            for partition in (0, 1):
                while self._read[topic][partition] < len(self._topics[topic][partition]):
                    self.read(topic, partition)
        if self._asked_ends is not None:
            self._asked_ends = None
            self.directory.early_events.answer_mark(self._ends())
        while self.directory.early_events.wants_mark:
            self.directory.early_events.ask_mark()
            self.directory.early_events.answer_mark(self._ends())

    def come_to(self) -> Outcomes:
        come_to = Outcomes()
        for plan in self._users:
            order = self.directory.get(plan)
            if order is not None:
                come_to.states[plan] = state(order)
        for user_id, payload in self.told.private:
            come_to.private[str(json.loads(payload)["order_id"])].append((user_id, payload))
        return come_to


# At first each partition of each topic may have so many records that are of before anybody was served.
WARM_UPS = st.fixed_dictionaries({"commands": st.integers(0, 6), "events": st.integers(0, 6)})
CHOICES = st.lists(st.integers(0, 23), min_size=20, max_size=100)


def live_after(warm_up: dict[str, int]) -> Callable[[Appended, int], bool]:
    return lambda record, offset: offset >= warm_up[record.topic]


@settings(max_examples=examples(300))
@given(histories(), CHOICES, WARM_UPS)
def test_directory_comes_to_the_same_in_whatever_order_it_reads(
    history: History, choices: list[int], warm_up: dict[str, int]
) -> None:
    reader = Reader(history, live_after(warm_up))
    for choice in choices:
        reader.act(choice)
    reader.finish()
    expected = reference(history, live_after(warm_up))
    come_to = reader.come_to()
    assert come_to.states == expected.states
    assert come_to.private == expected.private
    assert len(reader.directory.early_events) == 0
    for user_id in ("alice", "bob"):
        is_open = {
            plan.order_id: come_to.states[plan.order_id]["status"] in ("pending", "open", "partially_filled")
            for plan in history.plans
            if plan.user_id == user_id and plan.order_id in come_to.states
        }
        listed = [order.order_id for order in reader.directory.open_orders(user_id)]
        assert sorted(listed) == sorted(order_id for order_id, one in is_open.items() if one)


@settings(max_examples=examples(150))
@given(histories(), CHOICES)
def test_directory_tells_of_every_change_and_of_nothing_else(history: History, choices: list[int]) -> None:
    reader = Reader(history, lambda _record, _offset: True)
    for choice in choices:
        reader.act(choice)
    reader.finish()
    last: dict[str, dict[str, Any]] = {}
    for change in reader.told.changes:
        assert change != last.get(change["order_id"])
        last[change["order_id"]] = change
    assert last == reader.come_to().states


@settings(max_examples=examples(100))
@given(histories(), CHOICES)
def test_directory_is_not_changed_by_reading_any_of_it_again(history: History, choices: list[int]) -> None:
    reader = Reader(history, lambda _record, _offset: True)
    for choice in choices:
        reader.act(choice)
    told = len(reader.told.changes), len(reader.told.private), dict(reader.told.counts), list(reader.told.poison)
    before = reader.come_to(), len(reader.directory.early_events)
    for topic in ("events", "commands"):
        reader.read_again(topic, 0, 1)
    assert (reader.come_to(), len(reader.directory.early_events)) == before
    assert (len(reader.told.changes), len(reader.told.private), reader.told.counts, reader.told.poison) == told


def test_histories_have_what_the_directory_is_asked_to_cope_with() -> None:
    """The reference would agree with a reader of nothing: so much has to come about."""
    found: dict[str, int] = defaultdict(int)

    @settings(deadline=None, max_examples=200, database=None, derandomize=True)
    @given(histories(), CHOICES)
    def look(history: History, choices: list[int]) -> None:
        reader = Reader(history, lambda _record, _offset: True)
        for choice in choices:
            reader.act(choice)
        for name, count in reader.told.counts.items():
            found[name] += count
        found["in flight"] += any(order.in_flight for order in map(reader.directory.get, reader._users) if order)
        found["private"] += len(reader.told.private)
        for record in history.records:
            if record.topic == "events":
                found[type(read_event(record.value)).__name__] += 1

    look()
    assert all(
        found[name] > 20 for name in ("early", "nobodys", "in flight", "private", Fill.__name__, OrderEvent.__name__)
    ), dict(found)
