"""The property: whatever becomes of the attempts, one order has one id, and who was told of one finds it on the topic.

And whoever was told of it finds it at every instance, and is never told of two orders under one name.
"""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from core.errors import BusUnavailable, OrderConflict, OutcomeUnknown
from core.messages.commands import PlaceOrder
from core.messages.order_ids import order_id_for
from core.orders.attempt import Placed
from core.orders.order import Order
from tests.core.attempts import LIMIT, start
from tests.core.fakes import turns
from tests.core.trading import CERTAINLY_NOT, NAMESPACE, Produced, Trade
from tests.support.examples import examples

USERS = st.sampled_from(["alice", "bob", None])
NAMES = st.sampled_from(["my-1", "my-2"])
QUANTITIES = st.sampled_from([Decimal("2.0"), Decimal("2.00"), Decimal("3")])


class Retries(RuleBasedStateMachine):
    """Two instances that read one topic. What was lost is written in the end, or never, as the test has it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.instances = [Trade(), Trade()]
        for instance in self.instances:
            instance.topic.answers = False
        self.topic: list[bytes] = []
        self.runs: list[tuple[int, int]] = [(0, 0), (0, 0)]
        self.owners: dict[Produced, int] = {}
        self.lists: list[tuple[set[str], asyncio.Task[list[Order]]]] = []
        self.finds: list[asyncio.Task[Order | None]] = []
        self.read = [0, 0]
        self.taken = [0, 0]
        self.on_its_way: list[Produced] = []
        self.lost: list[Produced] = []
        self.done: set[asyncio.Task[Placed]] = set()
        self.tasks: list[tuple[str | None, PlaceOrder, asyncio.Task[Placed]]] = []

    def teardown(self) -> None:
        for task in (*(task for _, _, task in self.tasks), *(task for _, task in self.lists), *self.finds):
            task.cancel()
        self.runner.run(turns())
        self.runner.close()

    def settle(self) -> None:
        self.runner.run(turns())
        for number, instance in enumerate(self.instances):
            fresh = instance.log.produced[self.taken[number] :]
            self.on_its_way += fresh
            self.owners.update((one, number) for one in fresh)
            self.taken[number] = len(instance.log.produced)
        for user_id, order, task in self.tasks:
            if task.done() and task not in self.done:
                self.done.add(task)
                self.told(user_id, order, task)

    def told(self, user_id: str | None, order: PlaceOrder, task: asyncio.Task[Placed]) -> None:
        """The attempt has just been answered."""
        error = task.exception()
        assert error is None or isinstance(error, BusUnavailable | OutcomeUnknown | OrderConflict)

    def may_be_written(self) -> set[tuple[str | None, str]]:
        """The names of what is on the topic, or may get there yet."""
        commands = [*self.topic, *(one.command for one in (*self.on_its_way, *self.lost))]
        return {(record["user_id"], record["client_order_id"]) for record in map(json.loads, commands)}

    @rule(instance=st.integers(0, 1), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        order = replace(LIMIT, client_order_id=name, quantity=quantity)
        trade = self.instances[instance]

        async def begin() -> asyncio.Task[Placed]:
            return start(trade.entry.place(user_id, order))

        self.tasks.append((user_id, order, self.runner.run(begin())))
        self.settle()

    @rule(instance=st.integers(0, 1), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place_while_the_bus_is_away(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        self.instances[instance].log.refuses = CERTAINLY_NOT
        self.place(instance, user_id, name, quantity)
        self.instances[instance].log.refuses = None

    def take(self, which: int) -> Produced:
        return self.on_its_way.pop(which % len(self.on_its_way))

    @precondition(lambda self: self.on_its_way)
    @rule(which=st.integers(0, 9))
    def acknowledge(self, which: int) -> None:
        one = self.take(which)
        owner, offset = self.owners[one], len(self.topic)
        since, end = self.runs[owner]
        since = since if end == offset else offset
        self.runs[owner] = since, offset + 1
        self.topic.append(one.command)
        one.ack(since)
        self.settle()

    def accepted(self, user_id: str) -> set[str]:
        """What this user has been told of."""
        return {
            task.result().order_id
            for owner, _, task in self.tasks
            if owner == user_id and task.done() and task.exception() is None
        }

    @rule(instance=st.integers(0, 1), user_id=st.sampled_from(["alice", "bob"]))
    def list_orders(self, instance: int, user_id: str) -> None:
        async def begin() -> asyncio.Task[list[Order]]:
            return start(self.instances[instance].lookup.open_orders(user_id))

        self.lists.append((self.accepted(user_id), self.runner.run(begin())))
        self.settle()

    @rule(instance=st.integers(0, 1), user_id=st.sampled_from(["alice", "bob"]))
    def find_what_was_accepted(self, instance: int, user_id: str) -> None:
        async def begin(order_id: str) -> asyncio.Task[Order | None]:
            return start(self.instances[instance].lookup.find(user_id, order_id))

        self.finds += (self.runner.run(begin(order_id)) for order_id in self.accepted(user_id))
        self.settle()

    @rule(instance=st.integers(0, 1))
    def answer_where_the_topic_ends(self, instance: int) -> None:
        topic = self.instances[instance].topic
        if topic.asked:
            topic.answer(len(self.topic))
        self.settle()

    @precondition(lambda self: self.on_its_way)
    @rule(which=st.integers(0, 9))
    def lose(self, which: int) -> None:
        one = self.take(which)
        self.lost.append(one)
        one.lose()
        self.settle()

    @precondition(lambda self: self.lost)
    @rule(which=st.integers(0, 9), is_written=st.booleans())
    def find(self, which: int, is_written: bool) -> None:
        one = self.lost.pop(which % len(self.lost))
        if is_written:
            self.topic.append(one.command)

    @precondition(lambda self: self.on_its_way)
    @rule(which=st.integers(0, 9))
    def refuse(self, which: int) -> None:
        self.take(which).fail(CERTAINLY_NOT)
        self.settle()

    @rule(instance=st.integers(0, 1), records=st.integers(1, 3))
    def read_the_topic(self, instance: int, records: int) -> None:
        at = self.read[instance]
        for command in self.topic[at : at + records]:
            self.instances[instance].see(command)
            self.read[instance] += 1
        self.settle()

    @invariant()
    def one_order_has_one_id(self) -> None:
        ids: dict[tuple[str | None, str], str] = {}
        for record in map(json.loads, self.topic):
            name = (record["user_id"], record["client_order_id"])
            assert ids.setdefault(name, record["order_id"]) == record["order_id"]

    @invariant()
    def who_was_told_finds_the_order_on_the_topic_once(self) -> None:
        once = list(dict.fromkeys(json.loads(command)["order_id"] for command in self.topic))
        written = {(record["user_id"], record["client_order_id"]) for record in map(json.loads, self.topic)}
        for user_id, order, task in self.tasks:
            if task.done() and task.exception() is None:
                assert once.count(task.result().order_id) == 1
                assert task.result().order_id == order_id_for(NAMESPACE, user_id, order.client_order_id)
        assert len(once) == len(written)

    @invariant()
    def who_was_told_of_an_order_has_its_terms(self) -> None:
        terms: dict[str, str] = {}
        for record in map(json.loads, self.topic):
            terms.setdefault(record["order_id"], record["terms_hash"])
        for _, order, task in self.tasks:
            if task.done() and task.exception() is None:
                assert terms[task.result().order_id] == order.terms_hash, "two orders were accepted under one name"

    @invariant()
    def what_was_accepted_is_known_everywhere(self) -> None:
        for accepted, task in self.lists:
            assert not task.done() or accepted <= {order.order_id for order in task.result()}
        assert all(task.result() is not None for task in self.finds if task.done())


class OneInstance(Retries):
    """With one instance a refusal is the truth about all attempts, and no other terms ever get to the topic."""

    def told(self, user_id: str | None, order: PlaceOrder, task: asyncio.Task[Placed]) -> None:
        super().told(user_id, order, task)
        if isinstance(task.exception(), BusUnavailable):
            assert (user_id, order.client_order_id) not in self.may_be_written(), "503 is certain"

    @rule(instance=st.just(0), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        super().place(0, user_id, name, quantity)

    @rule(instance=st.just(0), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place_while_the_bus_is_away(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        super().place_while_the_bus_is_away(0, user_id, name, quantity)

    @invariant()
    def terms_of_a_name_are_those_of_its_first_record(self) -> None:
        terms: dict[str, str] = {}
        for record in map(json.loads, self.topic):
            assert terms.setdefault(record["order_id"], record["terms_hash"]) == record["terms_hash"]


TestRetriesOverTwoInstances = Retries.TestCase
TestRetriesOverTwoInstances.settings = settings(max_examples=examples(150), stateful_step_count=40)
TestRetries = OneInstance.TestCase
TestRetries.settings = settings(max_examples=examples(150), stateful_step_count=40)
