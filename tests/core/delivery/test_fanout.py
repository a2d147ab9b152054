"""The fan-out: whatever is said, to whom, and however little time there is, each gets its own in the order it was said."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from gc import collect
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.delivery import fanout
from core.delivery.fanout import MOST_JOINS, PLAN_ITSELF, SENDS_BETWEEN_LOOKS, _Plan
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS, Conflatable, Offer, Tag
from core.delivery.subscriber import Crowd, Members
from tests.core.fakes import TEXT, Client, read_frames
from tests.core.fanout_clients import FanoutClients, text
from tests.support.examples import examples


@dataclass(frozen=True)
class Gather:
    to: frozenset[int]


@dataclass(frozen=True)
class Say:
    """To a crowd, as it is then."""

    crowd: int


@dataclass(frozen=True)
class Join:
    who: int
    crowd: int


@dataclass(frozen=True)
class Leave:
    who: int
    crowd: int


@dataclass(frozen=True)
class Send:
    to: int


@dataclass(frozen=True)
class Takes:
    who: int
    size: int


@dataclass(frozen=True)
class Ping:
    """The transport writes something of its own, while the kernel takes nothing."""

    who: int


@dataclass(frozen=True)
class Drop:
    who: int
    crowd: int


CLIENTS = 4 * SENDS_BETWEEN_LOOKS + 3
WHO = st.integers(0, CLIENTS - 1)
CROWD = st.integers(0, 1)
# What is said to each crowd is said by a source of its own, as on a conflatable channel.
SOURCES = ("first", "second")
STEPS = st.one_of(
    st.builds(Gather, st.frozensets(WHO) | st.just(frozenset(range(CLIENTS)))),
    st.builds(Say, CROWD),
    st.builds(Say, CROWD),
    st.builds(Join, WHO, CROWD),
    st.builds(Leave, WHO, CROWD),
    st.builds(Send, WHO),
    st.builds(Takes, WHO, st.sampled_from([1, 2, 5, 100])),
    st.builds(Ping, WHO),
    st.builds(Drop, WHO, CROWD),
    st.sampled_from(["flush", "turn", "loop"]),
    st.sampled_from(["flush", "turn", "loop"]),
)


class Expected:
    """What one client is to get, and which of it may still be dropped: what it has not been given."""

    def __init__(self, said: FanoutClients, who: int) -> None:
        self.texts: list[tuple[bytes, Tag]] = []
        self._transport = said.clients[who].transport

    def add(self, number: int, tag: Tag) -> None:
        self.texts.append((b"%d" % number, tag))

    def drop(self, source: object) -> Conflatable | None:
        given = len(self._given())
        tags = [tag for _, tag in self.texts[given:] if isinstance(tag, Conflatable) and tag.source is source]
        self.texts = self.texts[:given] + [text for text in self.texts[given:] if text[1] not in tags]
        return next(iter(tags), None)

    def _given(self) -> list[bytes]:
        frames, _ = read_frames(bytes(self._transport.wire + self._transport.buffer))
        return [payload for opcode, payload in frames if opcode == TEXT]


@settings(max_examples=examples(300))
@given(st.lists(STEPS, max_size=60), st.sets(WHO), st.sets(WHO))
def test_fanout_gives_each_what_was_said_to_it_in_order(
    steps: list[Gather | Say | Join | Leave | Send | Takes | Ping | Drop | str], slow: set[int], deflating: set[int]
) -> None:
    said = FanoutClients(CLIENTS)
    for number in slow:
        said.clients[number].transport.room = 0
    for number in deflating:
        said.clients[number].subscriber.deflates = True
    crowds = [Crowd(said.audience(*range(CLIENTS))), Crowd(said.audience(*range(0, CLIENTS, 2)))]
    expected = {said.clients[number].subscriber: Expected(said, number) for number in range(CLIENTS)}
    for number, step in enumerate(steps):
        match step:
            case Gather(to):
                said.fanout.gather(text(number), said.audience(*to))
                for one in to:
                    expected[said.clients[one].subscriber].add(number, LOSSLESS)
            case Say(crowd):
                tag = Conflatable(SOURCES[crowd], number)
                said.fanout.gather(text(number), crowds[crowd], tag)
                for subscriber in crowds[crowd]:
                    expected[subscriber].add(number, tag)
            case Join(who, crowd):
                crowds[crowd].add(said.clients[who].subscriber)
            case Leave(who, crowd):
                crowds[crowd].discard(said.clients[who].subscriber)
            case Send(to=one):
                said.fanout.send(text(number), (said.clients[one].subscriber,))
                expected[said.clients[one].subscriber].add(number, LOSSLESS)
            case Takes(who, size):
                said.clients[who].transport.take(size)
            case Ping(who):
                said.clients[who].transport.room = 0
                said.clients[who].transport.ping()
            case Drop(who, crowd):
                oldest = expected[said.clients[who].subscriber].drop(SOURCES[crowd])
                assert said.fanout.drop(said.clients[who].subscriber, SOURCES[crowd]) is oldest
            case "flush":
                said.fanout.flush()
            case "turn":
                said.turn()
            case _:
                for client in said.clients:
                    client.transport.turn()
    said.settle()
    assert [client.texts() for client in said.clients] == [
        [payload for payload, _ in one.texts] for one in expected.values()
    ]
    assert not said.trouble
    assert not said.fanout.is_busy


def test_fanout_serves_a_crowd_in_the_order_in_which_it_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    said = FanoutClients(5)
    order: list[int] = []
    for number, client in enumerate(said.clients):
        monkeypatch.setattr(client.transport, "send", partial(note, order, number))
    crowd = Crowd(said.clients[number].subscriber for number in (3, 1, 4, 0))
    crowd.add(said.clients[2].subscriber)
    said.fanout.gather(text(1), crowd)
    said.fanout.flush()
    assert order == [3, 1, 4, 0, 2]


def note(order: list[int], number: int, frames: bytes) -> int:
    order.append(number)
    return len(frames)


def test_fanout_does_not_send_past_what_a_transport_began_to_write_between_two_slices() -> None:
    said = FanoutClients(3 * SENDS_BETWEEN_LOOKS)
    crowd = Crowd(client.subscriber for client in said.clients)
    said.fanout.gather(text(1), crowd)
    said.fanout.flush()
    last = said.clients[-1]
    last.transport.room = 0
    last.transport.ping()
    said.turn()
    last.transport.room = 100
    said.turn()
    assert last.texts() == []
    said.settle()
    assert last.texts() == [b"1"]


def test_fanout_leaves_out_who_has_left_between_two_slices() -> None:
    said = FanoutClients(2 * SENDS_BETWEEN_LOOKS)
    said.fanout.gather(text(1), Crowd(client.subscriber for client in said.clients))
    said.fanout.flush()
    said.clients[-1].outbox.close()
    said.settle()
    assert said.clients[-1].transport.sends == []
    assert [(subscriber, offer) for subscriber, offer, _ in said.trouble] == [
        (said.clients[-1].subscriber, Offer.CLOSED)
    ]
    assert said.clients[-2].texts() == [b"1"]


def test_fanout_keeps_nobody_who_has_left() -> None:
    said = FanoutClients(3)
    crowd = Crowd(client.subscriber for client in said.clients)
    said.fanout.gather(text(1), crowd)
    said.settle()
    left = ref(said.clients[0].transport)
    assert left() is not None
    crowd.discard(said.clients[0].subscriber)
    said.clients[0].outbox.close()
    del said.clients[0]
    said.fanout.flush()  # as each beat does, whether there is anything to say or not
    collect()  # the stand-ins refer to each other
    assert left() is None


@pytest.mark.parametrize("tick", [1, 3])
def test_fanout_works_out_once_who_gets_what_until_somebody_joins_or_leaves_or_does_not_take_all(
    tick: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Members, ...]] = []
    monkeypatch.setattr(fanout, "_Plan", lambda audiences: made.append(audiences) or _Plan(audiences))
    said = FanoutClients(4, slice_seconds=float("inf"))
    crowds = [Crowd(said.audience(*range(number, 3))) for number in range(tick)]

    def is_planned_anew() -> bool:
        made.clear()
        for number, crowd in enumerate(crowds):
            said.fanout.gather(text(number), crowd)
        said.fanout.flush()
        return bool(made)

    assert is_planned_anew()
    assert not is_planned_anew()
    crowds[0].add(said.clients[3].subscriber)
    assert is_planned_anew()
    assert not is_planned_anew()
    crowds[0].add(said.clients[3].subscriber)
    crowds[0].discard(Client().subscriber)
    assert not is_planned_anew(), "nobody joined, nobody left"
    crowds[0].discard(said.clients[3].subscriber)
    assert is_planned_anew()
    said.clients[2].transport.room = 1
    assert not is_planned_anew()
    assert is_planned_anew(), "one did not take all"
    said.clients[2].transport.settle()
    assert is_planned_anew(), "it can be sent to directly again"
    assert not is_planned_anew()


def test_fanout_keeps_plans_for_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "MOST_PLANNED", 10 * PLAN_ITSELF)
    said = FanoutClients(1)
    for number in range(40):
        said.fanout.gather(text(number), said.audience(0))
        said.settle()
        assert len(said.fanout._plans) <= 11
    assert said.clients[0].texts() == [b"%d" % number for number in range(40)]


def test_fanout_joins_what_one_gets_in_a_tick_into_one_send() -> None:
    said = FanoutClients(3, slice_seconds=float("inf"))
    said.fanout.gather(text(1), said.audience(0, 1))
    said.fanout.gather(text(2), said.audience(1, 2))
    said.fanout.gather(text(3), said.audience(0, 1, 2))
    said.fanout.flush()
    assert [len(client.transport.sends) for client in said.clients] == [1, 1, 1]
    assert [client.texts() for client in said.clients] == [[b"1", b"3"], [b"1", b"2", b"3"], [b"2", b"3"]]


def test_fanout_gives_those_who_get_the_same_the_very_same_bytes() -> None:
    said = FanoutClients(3)
    for number in range(3):
        said.fanout.gather(text(number), said.audience(0, 1, 2))
    said.fanout.flush()
    assert len({id(client.transport.sends[0]) for client in said.clients}) == 1


def test_fanout_gives_the_loop_a_turn_when_its_slice_is_used_up() -> None:
    said = FanoutClients(3 * SENDS_BETWEEN_LOOKS)
    said.fanout.gather(text(1), said.audience(*range(3 * SENDS_BETWEEN_LOOKS)))
    said.fanout.flush()
    assert sum(bool(client.transport.sends) for client in said.clients) == SENDS_BETWEEN_LOOKS
    assert said.fanout.is_busy
    assert len(said.turns) == 1
    said.turn()
    assert sum(bool(client.transport.sends) for client in said.clients) == 2 * SENDS_BETWEEN_LOOKS


def test_fanout_joins_what_is_said_while_it_is_busy() -> None:
    everybody = range(2 * SENDS_BETWEEN_LOOKS)
    said = FanoutClients(len(everybody))
    for number in range(4):
        said.fanout.gather(text(number), said.audience(*everybody))
        said.fanout.flush()
    while said.turns:
        said.turn()
    assert {len(client.transport.sends) for client in said.clients} == {2}
    assert all(client.texts() == [b"0", b"1", b"2", b"3"] for client in said.clients)


def test_fanout_ends_its_slice_between_connections_that_get_different_things_as_well() -> None:
    said = FanoutClients(6)
    for number in range(3):
        said.fanout.gather(text(number), said.audience(2 * number, 2 * number + 1))
    said.fanout.flush()
    assert sends(said) == [1, 1, 0, 0, 0, 0]
    said.turn()
    assert sends(said) == [1, 1, 1, 1, 0, 0]


def sends(said: FanoutClients) -> list[int]:
    return [len(client.transport.sends) for client in said.clients]


def test_fanout_lets_what_is_said_meanwhile_go_along_with_what_is_under_way() -> None:
    few = SENDS_BETWEEN_LOOKS
    said = FanoutClients(4 * few)
    crowd = Crowd(client.subscriber for client in said.clients)
    said.fanout.gather(text(1), crowd)
    said.fanout.flush()
    assert said.fanout.takes_more
    said.fanout.gather(text(2), crowd)
    said.turn()
    said.fanout.gather(text(3), crowd)
    said.turn()
    assert [client.texts() for client in said.clients[::few]] == [[b"1"], [b"1", b"2"], [b"1", b"2", b"3"], []]
    said.turn()
    assert sends(said) == [1] * 4 * few, "the rest got all of it in one send"
    assert not said.fanout.takes_more, "the round has come to its end but for those who were before the others"
    said.fanout.gather(text(4), crowd)
    said.turn()
    said.turn()
    assert said.counts.is_all is False
    said.settle()
    assert said.counts.is_all is True
    assert all(client.transport.sends for client in said.clients)
    expected = [b"1", b"2", b"3", b"4"]
    assert [read_all(client) for client in said.clients] == [expected] * 4 * few


@pytest.mark.parametrize("who", range(4))
def test_fanout_answers_between_slices_behind_what_each_has_had_and_has_still_to_get(who: int) -> None:
    few = SENDS_BETWEEN_LOOKS
    said = FanoutClients(4 * few)
    crowd = Crowd(client.subscriber for client in said.clients)
    said.fanout.gather(text(1), crowd)
    said.fanout.flush()
    said.fanout.gather(text(2), crowd)
    said.turn()
    # The first have had 1, the second 1 and 2, the others nothing.
    client = said.clients[who * few]
    said.fanout.send(text(3), (client.subscriber,))
    assert read_all(client) == [b"1", b"2", b"3"]
    said.settle()
    assert read_all(client) == [b"1", b"2", b"3"]
    assert all(read_all(other) == [b"1", b"2"] for other in said.clients if other is not client)


def test_fanout_gives_nobody_twice_what_was_given_ahead_before_it_could_go_along() -> None:
    said = FanoutClients(3 * SENDS_BETWEEN_LOOKS)
    crowd = Crowd(client.subscriber for client in said.clients)
    said.fanout.gather(text(1), crowd)
    said.fanout.flush()
    said.fanout.gather(text(2), crowd)
    said.fanout.send(text(3), (said.clients[0].subscriber,))
    said.settle()
    assert read_all(said.clients[0]) == [b"1", b"2", b"3"]
    assert all(read_all(client) == [b"1", b"2"] for client in said.clients[1:])


def read_all(client: Client) -> list[bytes]:
    frames, rest = read_frames(bytes(client.transport.wire))
    assert not rest
    return [payload for _, payload in frames]


@pytest.mark.parametrize("trouble", ["another audience", "an answer", "a ping", "somebody who takes less", "often"])
def test_fanout_takes_nothing_more_into_a_round_that_is_not_as_it_was(trouble: str) -> None:
    said = FanoutClients(20 * SENDS_BETWEEN_LOOKS)
    crowd = Crowd(client.subscriber for client in said.clients)
    if trouble == "somebody who takes less":
        said.clients[0].transport.room = 2
    said.fanout.gather(text(1), crowd)
    said.fanout.flush()
    if trouble == "another audience":
        crowd.discard(said.clients[-1].subscriber)
    elif trouble == "an answer":
        said.fanout.send(text(0), (said.clients[-2].subscriber,))
    elif trouble == "a ping":
        said.clients[5].transport.room = 0
        said.clients[5].transport.ping()
    elif trouble == "often":
        for _ in range(MOST_JOINS):
            said.fanout.gather(text(2), crowd)
            said.turn()
    assert said.fanout.takes_more is (trouble == "another audience")
    at = sum(bool(client.transport.sends) for client in said.clients)
    said.fanout.gather(text(3), crowd)
    said.turn()
    assert read_all(said.clients[at])[-1] != b"3"
    said.settle()
    assert read_all(said.clients[at])[-1] == b"3"


def test_fanout_serves_all_at_once_when_there_is_no_loop() -> None:
    said = FanoutClients(5 * SENDS_BETWEEN_LOOKS, slice_seconds=float("inf"))
    said.fanout.gather(text(1), said.audience(*range(5 * SENDS_BETWEEN_LOOKS)))
    said.fanout.flush()
    assert not said.fanout.is_busy
    assert all(client.texts() == [b"1"] for client in said.clients)


def test_fanout_sends_an_answer_behind_what_waits_for_its_turn() -> None:
    everybody = range(3 * SENDS_BETWEEN_LOOKS)
    said = FanoutClients(len(everybody))
    said.fanout.gather(text(1), said.audience(*everybody))
    said.fanout.flush()
    said.fanout.gather(text(2), said.audience(*everybody))
    last = next(client for client in said.clients if not client.transport.sends)
    said.fanout.send(text(3), (last.subscriber,))
    assert last.texts() == [b"1", b"2", b"3"]
    said.settle()
    assert last.texts() == []


def test_fanout_drops_what_a_conflated_channel_had_still_to_say() -> None:
    everybody = range(3 * SENDS_BETWEEN_LOOKS)
    said = FanoutClients(len(everybody))
    tag, later = Conflatable("book", 1), Conflatable("book", 2)
    said.fanout.gather(text(1), said.audience(*everybody), tag)
    said.fanout.gather(text(2), said.audience(*everybody), LOSSLESS)
    said.fanout.flush()
    last = next(client for client in said.clients if not client.transport.sends)
    said.fanout.gather(text(3), said.audience(*everybody), later)
    assert said.fanout.drop(last.subscriber, "book") is tag
    said.settle()
    assert last.texts() == [b"2"]


def test_fanout_tells_of_each_channel_that_a_full_outbox_refused_once() -> None:
    said = FanoutClients(1, slice_seconds=float("inf"))
    [client] = said.clients
    client.transport.room = 0
    tag = Conflatable("book")
    said.fanout.send(Bundle([b"x"]), (client.subscriber,), EXEMPT)
    huge = Bundle([b"y" * 600_000])
    for one in (tag, Conflatable("book"), LOSSLESS):
        said.fanout.gather(huge, said.audience(0), one)
    said.fanout.flush()
    assert said.trouble == [(client.subscriber, Offer.CONFLATED, tag)]


@pytest.mark.parametrize("is_gathered", [True, False])
def test_fanout_tells_who_is_gone_and_serves_the_others(is_gathered: bool) -> None:
    said = FanoutClients(3, slice_seconds=float("inf"))
    said.clients[1].transport.broken = True
    if is_gathered:
        said.fanout.gather(text(1), said.audience(0, 1, 2))
        said.fanout.flush()
    else:
        said.fanout.send(text(1), [client.subscriber for client in said.clients])
    assert [(subscriber, offer) for subscriber, offer, _ in said.trouble] == [
        (said.clients[1].subscriber, Offer.CLOSED)
    ]
    assert said.clients[0].texts() == said.clients[2].texts() == [b"1"]


def test_fanout_counts_each_message_for_each_who_gets_it() -> None:
    said = FanoutClients(3, slice_seconds=float("inf"))
    said.clients[2].transport.room = 0
    said.fanout.gather(Bundle([b"1", b"2"]), said.audience(0, 1))
    said.fanout.gather(text(3), said.audience(1, 2))
    said.fanout.flush()
    said.fanout.send(Bundle([b"4", b"5"]), (said.clients[2].subscriber,))
    assert said.counts.messages == 2 + 3 + 1 + 2


def test_fanout_tells_how_long_it_took_once_with_all_its_slices() -> None:
    everybody = range(3 * SENDS_BETWEEN_LOOKS)
    said = FanoutClients(len(everybody))
    said.fanout.gather(text(1), said.audience(*everybody))
    said.fanout.flush()
    said.turn()
    assert said.counts.took == []
    said.settle()
    [seconds] = said.counts.took
    assert seconds >= 2 * 3  # three slices, and two looks at the clock in each


def test_fanout_takes_no_time_where_nothing_is_said() -> None:
    said = FanoutClients(3)
    said.fanout.flush()
    assert said.counts.took == []


def test_fanout_is_over_when_the_last_of_the_rest_was_given_its_own_beforehand() -> None:
    everybody = range(SENDS_BETWEEN_LOOKS + 1)
    said = FanoutClients(len(everybody))
    said.fanout.gather(text(1), said.audience(*everybody))
    said.fanout.flush()
    last = next(client for client in said.clients if not client.transport.sends)
    said.fanout.catch_up(last.subscriber)
    said.settle()
    assert len(said.counts.took) == 1


def test_fanout_makes_no_plan_for_what_is_said_to_one_alone() -> None:
    said = FanoutClients(2)
    said.fanout.gather(text(1), said.audience(0))
    said.fanout.gather(text(2), said.audience(1))
    said.fanout.gather(text(3), said.audience(0))
    said.fanout.flush()
    assert ([client.texts() for client in said.clients], said.turns) == ([[b"1", b"3"], [b"2"]], [])
    assert not said.fanout._plans


def test_fanout_sends_in_another_turn_what_is_said_because_one_alone_was_gone() -> None:
    said = FanoutClients(2)
    said.clients[0].transport.broken = True
    said.fanout._on_trouble = lambda *_: said.fanout.gather(text(2), said.audience(1))
    said.fanout.gather(text(1), said.audience(0))
    said.fanout.flush()
    assert (said.clients[1].texts(), len(said.turns), said.counts.is_all) == ([], 1, False)
    said.settle()
    assert said.clients[1].texts() == [b"2"]
