"""The property: whatever becomes of the attempts, one order has one id, and who was told of one finds it on the topic."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.errors import BusUnavailable, OrderConflict, OutcomeUnknown
from core.messages.commands import PlaceOrder
from core.orders.attempt import Placed
from core.orders.directory import order_id_for
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
        self.topic: list[bytes] = []
        self.read = [0, 0]
        self.taken = [0, 0]
        self.on_its_way: list[Produced] = []
        self.lost: list[Produced] = []
        self.done: set[asyncio.Task[Placed]] = set()
        self.tasks: list[tuple[str | None, PlaceOrder, asyncio.Task[Placed]]] = []

    def teardown(self) -> None:
        for _, _, task in self.tasks:
            task.cancel()
        self.runner.run(turns())
        self.runner.close()

    def settle(self) -> None:
        self.runner.run(turns())
        for number, instance in enumerate(self.instances):
            self.on_its_way += instance.log.produced[self.taken[number] :]
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
        self.topic.append(one.command)
        one.ack()
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
