"""Some instances, one of which leads: whoever dies or is replaced at whatever moment, each order that ended is released.

What is kept is one partition, events are one topic, and an instance hears some of them before it knows their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from core.messages.events import OrderEvent
from core.messages.kept_state import Cursor
from core.orders import releases as module
from core.orders.order import Order
from core.orders.releases import RELEASE, Releases
from tests.core.fake_orders import SYMBOL
from tests.core.orders.ending import anybody, cursor
from tests.support.examples import examples

INSTANCES = 2
CANCELLED, FILLED = "order_cancelled", "order_filled"


@dataclass
class Topic:
    """What is kept, as it was committed last."""

    cursor: Cursor | None = None
    records: dict[str, bytes] = field(default_factory=dict)


class Instance:
    """Has read `at` events; of those that `wait` it does not know the order yet."""

    def __init__(self, topic: Topic) -> None:
        self.releases = Releases(anybody)
        self.releases.touch = self._touch
        self.releases.leads = lambda _partition: self.is_leader
        self.at = 0 if topic.cursor is None else topic.cursor.events[0]
        self.wait: dict[str, int] = {}
        self.is_leader = False
        # Keys that changed, by how far it had read then.
        self.touched: list[tuple[int, str]] = []
        # Released, as a cursor told when it took over; what it had heard of by then.
        self.settled: set[str] = set()
        for key, value in topic.records.items():
            self.releases.take_back(0, key, value)
        if topic.cursor is not None:
            # What waited is kept beside, and waits again.
            self.wait = {f"{offset}": offset for offset in range(topic.cursor.ended_to.get(0, self.at), self.at)}

    def _touch(self, _partition: int, key: str) -> None:
        self.touched.append((self.at, key))


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.topic = Topic()
        # By the place of its end, which its name tells too.
        self.ends: list[str] = []
        self.instances = [Instance(self.topic) for _ in range(INSTANCES)]
        self.released: set[str] = set()
        self.now = 0.0

    def _leader(self) -> Instance | None:
        return next((one for one in self.instances if one.is_leader), None)

    def _fold(self, one: Instance, offset: int) -> None:
        one.wait.pop(f"{offset}", None)
        if self.ends[offset] == CANCELLED:
            event = OrderEvent(CANCELLED, b"", "alice", f"{offset}", SYMBOL)
            one.releases.ended_unknown(f"{offset}", event, 1, 0, offset)

    @rule(kinds=st.lists(st.sampled_from([CANCELLED, CANCELLED, FILLED]), min_size=1))
    def order_ends(self, kinds: list[str]) -> None:
        self.ends += kinds

    @rule(which=st.integers(0, INSTANCES - 1), are_known=st.lists(st.sampled_from([True, True, False]), min_size=1))
    def events_are_read(self, which: int, are_known: list[bool]) -> None:
        one = self.instances[which]
        for is_known in are_known[: len(self.ends) - one.at]:
            one.at += 1
            if is_known:
                self._fold(one, one.at - 1)
            else:
                one.wait[f"{one.at - 1}"] = one.at - 1

    @rule(which=st.integers(0, INSTANCES - 1))
    def order_becomes_known(self, which: int) -> None:
        one = self.instances[which]
        if one.wait:
            self._fold(one, min(one.wait.values()))

    @rule(which=st.integers(0, INSTANCES - 1))
    def instance_takes_over(self, which: int) -> None:
        one, topic = self.instances[which], self.topic
        if topic.cursor is not None:  # it has to have read so far
            self.events_are_read(which, [True] * (topic.cursor.events[0] - one.at))
        if (leader := self._leader()) is not None:
            leader.is_leader = False
        one.is_leader = True
        kept = topic.records if topic.cursor is None or topic.cursor.releases != 0 else {}
        if topic.cursor is not None:
            # A generation of its journal that began there.
            one.touched = [(at, key) for at, key in one.touched if at >= topic.cursor.events[0]]
            until = topic.cursor.ended_to.get(0, topic.cursor.events[0])
            one.settled = {f"{n}" for n in range(until) if RELEASE + f"{n}" not in kept} - one.wait.keys()
        for _ in one.releases.take_over(0, topic.cursor, kept):
            pass

    @rule(which=st.integers(0, INSTANCES - 1))
    def instance_starts_again(self, which: int) -> None:
        self.instances[which] = Instance(self.topic)

    @rule(is_committed=st.sampled_from([True, True, True, False]))
    @precondition(lambda self: self._leader() is not None)
    def leader_writes(self, is_committed: bool) -> None:
        one = self._leader()
        assert one is not None
        written = dict(one.releases.describe(0, {key for _, key in one.touched}))
        if not is_committed:
            one.is_leader = False  # it has to take over again
            return
        one.touched.clear()
        self.topic.cursor = cursor(one.at, one.releases.count(0), {0: min(one.wait.values())} if one.wait else {})
        for key, value in written.items():
            self.topic.records.pop(key, None)
            if value is not None:
                self.topic.records[key] = value
        assert self.topic.records.keys() == set(one.releases.keys(0))

    @rule(
        are_carried_out=st.lists(st.sampled_from([True, True, False]), min_size=1),
        are_answered=st.sampled_from([True, True, False]),
    )
    @precondition(lambda self: self._leader() is not None)
    def leader_tells_the_service(self, are_carried_out: list[bool], are_answered: bool) -> None:
        one = self._leader()
        assert one is not None
        for is_carried_out in are_carried_out:
            self._tell(one, is_carried_out, are_answered)

    def _tell(self, one: Instance, is_carried_out: bool, is_answered: bool) -> bool:
        due = one.releases.next(self.now, _unknown)
        if due is None:
            return False
        assert self.ends[int(due.order_id)] == CANCELLED
        assert due.order_id not in one.settled, "it knew that it was released"
        one.releases.begin(due)
        if is_carried_out:
            self.released.add(due.order_id)
        if is_carried_out and is_answered:
            one.releases.confirm(due.order_id)
        else:
            one.releases.failed(due.order_id, self.now)
            self.now += 100
        return True

    @rule(which=st.integers(0, INSTANCES - 1))
    def others_look(self, which: int) -> None:
        one = self.instances[which]
        if self.topic.cursor is not None and one.releases.behind(10**9):
            one.releases.seen(0, self.topic.cursor)

    @invariant()
    def those_that_do_not_lead_know_no_more_than_what_ended(self) -> None:
        for one in self.instances:
            assert all(self.ends[int(key.removeprefix(RELEASE))] == CANCELLED for key in one.releases.keys(0))

    def teardown(self) -> None:
        # Whoever is there by then.
        which = len(self.ends) % INSTANCES
        one = self.instances[which]
        self.events_are_read(which, [True] * (len(self.ends) - one.at))
        for offset in sorted(one.wait.values()):
            self._fold(one, offset)
        self.instance_takes_over(which)
        while self._tell(one, True, True):
            pass
        cancelled = {f"{offset}" for offset, kind in enumerate(self.ends) if kind == CANCELLED}
        assert self.released == cancelled
        assert one.releases.count(0) == 0


def _unknown(_order_id: str) -> Order | None:
    return None


@pytest.mark.parametrize("most", [module.MOST, 1], ids=["few are due", "too many are due"])
def test_each_order_that_ended_is_released_whoever_leads_and_dies(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", most)
    run_state_machine_as_test(
        Fleet,
        settings=settings(max_examples=examples(150), stateful_step_count=60, deadline=None, phases=(Phase.generate,)),
    )
