"""What is kept of the orders: written down by any instance at any time, taken back, and both topics read on."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from core.messages.commands import CancelOrder
from core.messages.events import read_event
from core.messages.kept_state import Cursor, KeptRecord, order_partition
from core.messages.times import Times
from core.orders.directory import OrderDirectory
from core.orders.order import Order, state
from core.orders.state import OrderState
from tests.core.fake_orders import Told, command, placed
from tests.core.orders.kept_orders import cursor_at
from tests.support.examples import examples

PARTITIONS = 3  # of the market topic, and of what is kept
ORDER_PARTITIONS = 2
# Each on another partition of the kept state; where its events and orders are is for the engine and the client to say.
SYMBOLS = ("J/EUR", "A/EUR", "B/EUR", "G/EUR")
EVENTS_ON = dict(zip(SYMBOLS, (1, 2, 2, 0), strict=True))
ORDERS_ON = dict(zip(SYMBOLS, (0, 0, 1, 1), strict=True))
USERS = ("alice", "bob", None)
OWNERS = ("alice", "bob", "carol")
CLOSED = ("filled", "cancelled", "rejected")
NEEDS: dict[str, dict[str, Any]] = {
    "order_accepted": {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "3"},
    "order_filled": {},
    "order_cancelled": {"filled_quantity": "0.5"},
    "order_rejected": {"reason": "no funds"},
}
KINDS = tuple(NEEDS)
LONG_MS = 10**9
# Of which it is counted what they reach.
HISTORIES = 80


def test_symbols_have_partitions_that_differ() -> None:
    assert [order_partition(symbol, PARTITIONS) for symbol in SYMBOLS] == [0, 1, 2, 1]


@dataclass
class Plan:
    """One order of the history. `kind`: placed by another instance, by ours, or before what is read of the topic."""

    order_id: str
    kind: str
    user_id: str | None
    symbol: str
    name: str | None
    is_placed: bool = False
    was_heard: bool = False
    is_closed: bool = False

    @property
    def can_be_heard(self) -> bool:
        return self.is_placed or self.kind == "older"


@dataclass
class Appended:
    """One record; `ours`: the plan that it places, for an instance that registered it."""

    topic: str
    partition: int
    value: bytes
    time_ms: int
    ours: Plan | None = None


@dataclass
class History:
    """What is appended, in this order. Where orders are forgotten, nothing more is said of a closed one."""

    plans: list[Plan]
    is_forgetting: bool
    records: list[Appended] = field(default_factory=list)

    def append(self, topic: str, plan: Plan, value: bytes, ours: Plan | None = None) -> None:
        partition = (EVENTS_ON if topic == "events" else ORDERS_ON)[plan.symbol]
        self.records.append(Appended(topic, partition, value, 1_000 + len(self.records), ours))


@st.composite
def histories(draw: st.DrawFn) -> History:
    plans = []
    for number in range(draw(st.integers(2, 6))):
        kind = draw(st.sampled_from(("others", "others", "ours", "older")))
        symbol = draw(st.sampled_from(SYMBOLS))
        # Two of one name, one after the other on a partition: the first is found by it. One without has none.
        name = f"same-{symbol[0]}" if kind == "others" and draw(st.booleans()) else f"my-{number}"
        order_id = str(number) if number % 2 else f"id-{number}"
        plans.append(Plan(order_id, kind, draw(st.sampled_from(USERS)), symbol, None if number == 4 else name))
    history = History(plans, draw(st.booleans()))
    steps = st.tuples(st.sampled_from(plans), st.sampled_from(plans), st.integers(0, 9), st.booleans())
    for plan, other, choice, has_symbol in draw(st.lists(steps, min_size=10, max_size=40)):
        step(history, plan, other, choice, has_symbol)
    return history


def step(history: History, plan: Plan, other: Plan, choice: int, has_symbol: bool) -> None:
    """Append the next thing to be said of an order."""
    number = len(history.records)
    if plan.kind != "older" and not plan.is_placed:
        plan.is_placed = True
        value = command(plan.order_id, plan.user_id, plan.name, number, quantity="3", symbol=plan.symbol)
        history.append("commands", plan, value, plan if plan.kind == "ours" else None)
    elif choice == 0:
        history.append("commands", plan, CancelOrder(plan.order_id, None).encode(plan.order_id, plan.symbol, None, 1))
    elif choice == 1 and plan.kind != "older" and not history.is_forgetting:
        history.append("commands", plan, command(plan.order_id, "mallory", plan.name, number, symbol=plan.symbol))
    elif history.is_forgetting and plan.is_closed:
        return
    elif choice <= 5:
        is_counterpart = other.symbol == plan.symbol and other.can_be_heard and other is not plan
        if history.is_forgetting and other.is_closed:
            is_counterpart = False
        sell = other if is_counterpart else None
        heard = [plan, *([sell] if sell else [])]
        if any(one.kind == "older" and not one.was_heard for one in heard):
            return  # the engine accepts an order before anything else
        members = {
            "buy_order_id": written(plan.order_id),
            "sell_order_id": written(sell.order_id if sell else "nobody"),
        }
        fill = {"type": "fill", "symbol": plan.symbol, "price": "1.50", "quantity": "0.2", "timestamp": number}
        if number % 2:
            members |= {"taker_side": "ask", "buy_fee": "-0.01", "sell_fee": f"0.{number}", "fee_currency": "EUR"}
        history.append("events", plan, json.dumps(fill | members).encode())
    else:
        kind = KINDS[choice - 6]
        if plan.kind == "older" and not plan.was_heard:
            kind = "order_accepted"
        plan.was_heard = True
        plan.is_closed = plan.is_closed or kind != "order_accepted"
        members = {"type": kind, "order_id": written(plan.order_id), **NEEDS[kind], "number": number}
        if plan.kind == "older":
            members |= {"symbol": plan.symbol, "user_id": plan.user_id or "carol"}
        elif has_symbol:
            members["symbol"] = plan.symbol
        if number % 3:
            members["timestamp"] = number
        history.append("events", plan, json.dumps(members).encode())


def written(order_id: str) -> str | int:
    """Ids of older engines are integers."""
    return int(order_id) if order_id.isdecimal() else order_id


Topics = dict[str, list[list[Appended]]]


def empty_topics() -> Topics:
    return {"commands": [[] for _ in range(ORDER_PARTITIONS)], "events": [[] for _ in range(PARTITIONS)]}


class Instance:
    """A directory, how far it has read both topics, and what is kept of it."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self.directory = OrderDirectory(
            keep_terminal_seconds=LONG_MS / 1000,
            on_change=lambda _order: None,
            on_private=lambda _user_id, _payload: None,
            observer=Told(),
            times=Times(lambda: 100.0),
        )
        self.state = OrderState(self.directory, lambda: PARTITIONS)
        self.read_to = {"commands": [0] * ORDER_PARTITIONS, "events": [0] * PARTITIONS}
        self.in_flight: list[Order] = []
        # Of the last cut of a partition that was written, the generation that began with it.
        self.written: dict[int, int] = {}

    def read(self, topic: str, partition: int) -> bool:
        offset = self.read_to[topic][partition]
        if offset >= len(self.topics[topic][partition]):
            return False
        self.read_to[topic][partition] += 1
        record = self.topics[topic][partition][offset]
        if topic == "commands":
            self.directory.fold_command(partition, offset, record.time_ms, record.value, False)
        else:
            self.directory.fold_event(read_event(record.value), partition, offset, record.time_ms, False)
        return True

    def register(self, record: Appended) -> None:
        plan = record.ours
        assert plan is not None
        time_ms = json.loads(record.value)["timestamp"]
        terms = placed(plan.name, "3", plan.symbol)
        order = self.directory.register(plan.order_id, plan.user_id, terms, time_ms)
        self.directory.produced(order, record.value)
        self.in_flight.append(order)

    def settle(self, *, is_doubt: bool) -> None:
        if self.in_flight:
            (self.directory.mark_unknown if is_doubt else self.directory.confirm)(self.in_flight.pop(0))

    def release(self) -> None:
        """Ask how far the order topic reaches, and be told at once."""
        early = self.directory.early_events
        for partition, position in enumerate(self.read_to["commands"]):
            early.read_to(partition, position)
        if early.needs_ends:
            early.ends_asked()
            early.on_ends({number: len(records) for number, records in enumerate(self.topics["commands"])})

    def forget_closed(self) -> None:
        """That takes so long that all commands have been read by then."""
        for partition in range(ORDER_PARTITIONS):
            while self.read("commands", partition):
                pass
        while self.directory.sweep(2 * LONG_MS):
            pass

    def cursor(self) -> Cursor:
        events, commands = (dict(enumerate(self.read_to[topic])) for topic in ("events", "commands"))
        return cursor_at(events, commands)

    def read_all(self) -> None:
        for topic in ("events", "commands"):
            for partition in range(len(self.topics[topic])):
                while self.read(topic, partition):
                    pass

    def finish(self) -> None:
        while self.in_flight:
            self.settle(is_doubt=False)
        self.read_all()
        while len(self.directory.early_events):
            self.release()

    def known(self, history: History) -> dict[str, dict[str, Any]]:
        """All that can be seen of each order."""
        seen: dict[str, dict[str, Any]] = {}
        for plan in history.plans:
            order = self.directory.get(plan.order_id)
            if order is not None:
                seen[plan.order_id] = {
                    **state(order),
                    "user_id": order.user_id,
                    "created_ms": order.created_ms,
                    "terms": order.terms_digest,
                    "is_certain": order.is_certain,
                    "is_on_topic": order.is_on_topic,
                    "is_open": order.user_id is None or order in self.directory.open_orders(order.user_id),
                }
        return seen

    def names(self, history: History) -> dict[tuple[str | None, str], str]:
        """Which order each name finds."""
        found = {}
        for plan in history.plans:
            if plan.name is not None:
                order = self.directory.find_by_client_order_id(plan.user_id, plan.name)
                if order is not None:
                    found[plan.user_id, plan.name] = order.order_id
        return found


@dataclass
class Writing:
    """A cut that is under way."""

    writer: Instance
    partition: int
    cursor: Cursor
    generation: int
    pieces: Iterator[list[KeptRecord]]
    records: list[KeptRecord] = field(default_factory=list)


class Kept:
    """The topic of the kept state: what was committed, and the last cursor of each partition."""

    def __init__(self) -> None:
        self.log: dict[int, list[KeptRecord]] = defaultdict(list)
        self.cursors: dict[int, Cursor] = {}
        self.last_writer: dict[int, tuple[Instance, bool]] = {}
        self.under_way: dict[int, Writing] = {}
        # Of each partition all whose writing was committed.
        self.writers: dict[int, set[int]] = defaultdict(set)

    def begin(self, writer: Instance, partition: int) -> None:
        """By whoever is past what was written before; who wrote until now can write no more."""
        cursor = writer.cursor()
        last = self.cursors.get(partition)
        if last is not None and not (is_past(cursor.events, last.events) and is_past(cursor.orders, last.orders)):
            return
        # Nothing less than this: the keys since the last one that this writer wrote, all that it knows to have changed if none.
        since = writer.written.get(partition, 0)
        generation = writer.state.journal.rotate()
        keys = writer.state.journal.since(partition, since)
        is_whole = self.last_writer.get(partition) != (writer, True)
        if partition not in writer.written and not self.log[partition]:
            keys_or_all = None if len(keys) % 2 else keys
        else:
            keys_or_all = keys
        pieces = writer.state.cut(partition, keys_or_all, is_whole=is_whole)
        self.under_way[partition] = Writing(writer, partition, cursor, generation, pieces)
        self.last_writer[partition] = writer, False

    def pull(self, partition: int) -> None:
        writing = self.under_way.get(partition)
        if writing is None:
            return
        piece = next(writing.pieces, None)
        if piece is not None:
            assert len(piece) <= 100
            writing.records += piece
            return
        del self.under_way[partition]
        self.log[partition] += writing.records
        self.cursors[partition] = writing.cursor
        writing.writer.written[partition] = writing.generation
        self.last_writer[partition] = writing.writer, True
        self.writers[partition].add(id(writing.writer))

    def finish(self, partition: int) -> None:
        while partition in self.under_way:
            self.pull(partition)

    def fail(self, partition: int) -> None:
        self.under_way.pop(partition, None)

    def restore(self, instance: Instance, *, is_compacted: bool, without: set[int], earlier: int) -> None:
        """Take back what there is, and begin to read where it is needed, or before that."""
        cursors = {}
        for partition, records in self.log.items():
            if is_compacted:
                latest = {record.key: record for record in records}
                records = [record for record in records if record is latest[record.key]]
            for record in records:
                instance.state.take_back(partition, record.key, record.value)
            if partition in without or partition not in self.cursors:
                instance.state.discard(partition)
            else:
                cursors[partition] = self.cursors[partition]
        instance.state.resume(cursors)
        if len(cursors) == PARTITIONS:
            for topic, positions in (
                ("events", [cursor.events for cursor in cursors.values()]),
                ("commands", [cursor.orders for cursor in cursors.values()]),
            ):
                for partition in range(len(instance.topics[topic])):
                    least = min(position[partition] for position in positions)
                    instance.read_to[topic][partition] = max(least - earlier, 0)


def is_past(positions: dict[int, int], others: dict[int, int]) -> bool:
    return all(positions[partition] >= position for partition, position in others.items())


class World:
    """Two instances that read, and by turns write what is kept."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.topics = empty_topics()
        self.instances = [Instance(self.topics), Instance(self.topics)]
        self.kept = Kept()
        self.to_come = list(reversed(history.records))

    def act(self, choice: int, partition: int, which: int) -> None:
        """One of the things that may happen next; nothing if it cannot now."""
        instance = self.instances[which]
        match choice:
            case 0 | 1 | 2 | 3:
                self.append()
            case 4 | 5 | 6:
                instance.read("events", partition)
            case 7 | 8 | 9:
                instance.read("commands", partition % ORDER_PARTITIONS)
            case 10:
                instance.release()
            case 11:
                instance.settle(is_doubt=bool(partition == 2))
            case 12:
                self.kept.begin(instance, partition)
            case 13 | 14:
                self.kept.begin(instance, partition)
                self.kept.finish(partition)
            case 15 | 16 | 17:
                self.kept.pull(partition)
            case 18:  # else nobody is ever past what another one wrote
                instance.read_all()
            case 19:
                self.kept.finish(partition)
            case 20:
                self.kept.fail(partition)
            case 21 if self.history.is_forgetting:
                instance.forget_closed()
            case _:
                for number in range(PARTITIONS):
                    instance.read("events", number)

    def append(self) -> None:
        if not self.to_come:
            return
        record = self.to_come.pop()
        if record.ours is not None:
            self.instances[0].register(record)
        self.topics[record.topic][record.partition].append(record)


ACTIONS = st.lists(
    st.tuples(st.integers(0, 22), st.integers(0, PARTITIONS - 1), st.integers(0, 1)), min_size=30, max_size=200
)
WITHOUT = st.just(set()) | st.sets(st.integers(0, PARTITIONS - 1), max_size=2)


@settings(max_examples=examples(150))
@given(histories(), ACTIONS, st.booleans(), WITHOUT, st.integers(0, 3), ACTIONS)
def test_orders_that_were_taken_back_come_to_what_both_topics_say(
    history: History,
    actions: list[tuple[int, int, int]],
    is_compacted: bool,
    without: set[int],
    earlier: int,
    afterwards: list[tuple[int, int, int]],
) -> None:
    world = World(history)
    for action in actions:
        world.act(*action)
    restored = Instance(world.topics)
    world.kept.restore(restored, is_compacted=is_compacted, without=without, earlier=earlier)
    world.instances = [restored, Instance(world.topics)]
    world.kept.last_writer.clear()
    world.kept.under_way.clear()
    for choice, partition, _which in afterwards:
        if choice < 15:  # it reads on, and writes nothing yet
            world.act(choice if choice < 12 else 4, partition, 0)
    compare(world, restored)


@settings(max_examples=examples(100))
@given(histories(), ACTIONS, ACTIONS, ACTIONS)
def test_orders_that_were_taken_back_are_written_and_taken_back_again(
    history: History,
    actions: list[tuple[int, int, int]],
    afterwards: list[tuple[int, int, int]],
    at_last: list[tuple[int, int, int]],
) -> None:
    world = World(history)
    for part in (actions, afterwards, at_last):
        for action in part:
            world.act(*action)
        while world.instances[0].in_flight:  # of an instance that dies nobody hears any more
            world.instances[0].settle(is_doubt=False)
        world.instances = [Instance(world.topics), Instance(world.topics)]
        world.kept.last_writer.clear()
        world.kept.under_way.clear()
        for instance in world.instances:
            world.kept.restore(instance, is_compacted=bool(len(part) % 2), without=set(), earlier=0)
    compare(world, world.instances[1])


def test_random_histories_reach_what_they_are_there_for() -> None:
    reached: Counter[str] = Counter()

    @settings(max_examples=HISTORIES, derandomize=True, database=None, phases=[Phase.generate])
    @given(histories(), ACTIONS)
    def walk(history: History, actions: list[tuple[int, int, int]]) -> None:
        world = World(history)
        for action in actions:
            world.act(*action)
        kept = world.kept
        values = {record.key: record.value for records in kept.log.values() for record in records}
        said = [(key, json.loads(value)) for key, value in values.items() if value is not None]
        reached["written by one after another"] += any(len(writers) > 1 for writers in kept.writers.values())
        reached["of three moments"] += len({str(cursor) for cursor in kept.cursors.values()}) == PARTITIONS
        reached["events that wait"] += any(key.startswith("early/") and value["events"] for key, value in said)
        reached["an order not read from its topic"] += any("events" in value for key, value in said if "order/" in key)
        reached["a cut that is under way"] += bool(kept.under_way)

    walk()
    assert {what: count for what, count in reached.items() if count < HISTORIES // 40} == {}


def fills_of(user_id: str, world: World) -> list[dict[str, Any]]:
    """The slow way: every fill on the topic, and whose orders those were."""
    plans = {plan.order_id: plan for plan in world.history.plans}
    found = []
    for partition, records in enumerate(world.topics["events"]):
        for offset, record in enumerate(records):
            event = json.loads(record.value)
            for side, member, is_taker in (("bid", "buy", False), ("ask", "sell", True)):
                plan = plans.get(str(event.get(f"{member}_order_id")))
                if plan is None:
                    continue
                owner = plan.user_id or ("carol" if plan.kind == "older" else None)
                if owner == user_id:
                    fee = event.get(f"{member}_fee")
                    liquidity = ("taker" if is_taker else "maker") if "taker_side" in event else None
                    fill = {
                        "fill_id": f"{partition}-{offset}",
                        "order_id": plan.order_id,
                        "client_order_id": None if plan.kind == "older" else plan.name,
                        "symbol": plan.symbol,
                        "side": side,
                        "price": event["price"],
                        "quantity": event["quantity"],
                        "liquidity": liquidity,
                        "fee": fee,
                        "fee_currency": None if fee is None else event["fee_currency"],
                        "time": event["timestamp"] / 1000,
                    }
                    found.append(((event["timestamp"], partition, offset, side == "bid"), fill))
    return [fill for _, fill in sorted(found, key=lambda one: one[0])]


def compare(world: World, restored: Instance) -> None:
    while world.to_come:
        world.append()
    restored.finish()
    reference = Instance(world.topics)
    for number in range(ORDER_PARTITIONS):
        while reference.read("commands", number):
            pass
    reference.finish()
    history = world.history
    if history.is_forgetting:
        expected = reference.known(history)
        assert all(seen == expected[order_id] for order_id, seen in restored.known(history).items())
        reference.forget_closed()
        restored.forget_closed()
    else:
        assert restored.names(history) == reference.names(history)
    assert restored.known(history) == reference.known(history)
    assert len(restored.directory) == len(reference.directory)
    for user_id in OWNERS:
        with restored.directory.index.walk_closed(user_id) as walked:
            closed = {order.order_id for order in walked}
        seen = restored.known(history).items()
        assert closed == {one for one, said in seen if said["user_id"] == user_id and said["status"] in CLOSED}
        fills = [one.shown() for one in restored.directory.fills.of(user_id)]
        assert fills == fills_of(user_id, world)
    assert len(restored.directory.early_events) == 0
