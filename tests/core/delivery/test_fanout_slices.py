"""When a slice of the fan-out ends, when the next one comes, and what a failure in one costs."""

from __future__ import annotations

import pytest

from core.delivery.fanout import SENDS_BETWEEN_LOOKS
from core.delivery.subscriber import Crowd
from tests.core.fanout_clients import FanoutClients, text


class Failure(Exception):
    """Of who is told of trouble."""


def fail(*_trouble: object) -> None:
    raise Failure


def served(said: FanoutClients) -> int:
    return sum(bool(client.transport.sends) for client in said.clients)


LOOKS = 12


@pytest.mark.parametrize(("wanted_at", "looks"), [(0, 1), (3, 3), (4, 4), (LOOKS, 10)])
def test_slice_ends_when_somebody_wants_the_loop_but_not_before_a_tenth_of_it(wanted_at: int, looks: int) -> None:
    # A second for each look at the clock; the slice is ten of them.
    said = FanoutClients(LOOKS * SENDS_BETWEEN_LOOKS, slice_seconds=10.0)
    said.fanout.others_wait = lambda: served(said) >= wanted_at * SENDS_BETWEEN_LOOKS
    said.fanout.gather(text(1), said.audience(*range(len(said.clients))))
    said.fanout.flush()
    assert served(said) == looks * SENDS_BETWEEN_LOOKS


@pytest.mark.parametrize(("waited", "looks"), [(0, 1), (4, 5), (30, 8)])
def test_slice_is_not_shorter_than_it_was_waited_for(waited: int, looks: int) -> None:
    said = FanoutClients(LOOKS * SENDS_BETWEEN_LOOKS, slice_seconds=8.0)
    said.fanout.others_wait = lambda: True
    said.fanout.gather(text(1), said.audience(*range(len(said.clients))))
    said.fanout.flush()
    before = served(said)
    for _ in range(waited):
        said.fanout._clock()
    said.turn()
    assert served(said) - before == looks * SENDS_BETWEEN_LOOKS


def test_next_round_begins_in_another_turn_when_a_slice_was_used_up() -> None:
    said = FanoutClients(3, slice_seconds=4.0)
    said.fanout.gather(text(1), said.audience(0, 1))
    said.fanout.flush()
    assert (served(said), len(said.turns)) == (2, 1), "two looks at the clock: half the slice"
    said.fanout.gather(text(2), said.audience(0, 2))
    said.fanout.flush()
    assert said.fanout.is_busy
    assert served(said) == 2, "what else the loop has to do comes first"
    said.turn()
    assert [client.texts() for client in said.clients] == [[b"1", b"2"], [b"1"], [b"2"]]


def test_next_round_begins_at_once_when_little_of_a_slice_was_used() -> None:
    said = FanoutClients(2, slice_seconds=5.0)
    for number in (1, 2):
        said.fanout.gather(text(number), said.audience(0, 1))
        said.fanout.flush()
        assert not said.turns
        assert not said.fanout.is_busy
        assert [len(client.transport.sends) for client in said.clients] == [number, number]


def test_failure_in_one_slice_costs_nobody_else_anything() -> None:
    said = FanoutClients(3 * SENDS_BETWEEN_LOOKS)
    said.fanout._on_trouble = fail
    said.clients[0].transport.broken = True
    said.fanout.gather(text(1), [client.subscriber for client in said.clients])
    with pytest.raises(Failure):
        said.fanout.flush()
    assert not said.turns
    said.fanout.gather(text(2), [client.subscriber for client in said.clients[1:]])
    said.settle()
    assert all(client.texts() == [b"1", b"2"] for client in said.clients[1:])


def test_failure_over_one_who_does_not_take_all_costs_the_others_like_it_nothing() -> None:
    said = FanoutClients(3, slice_seconds=float("inf"))
    audience = [client.subscriber for client in said.clients]
    for client in said.clients:
        client.transport.room = 1
    said.fanout.gather(text(0), audience)
    said.fanout.flush()
    said.fanout._on_trouble = fail
    said.clients[0].outbox.close()
    said.fanout.gather(text(1), audience)
    with pytest.raises(Failure):
        said.fanout.flush()
    said.settle()
    assert [client.texts() for client in said.clients[1:]] == [[b"0", b"1"]] * 2


def test_failure_at_the_end_of_a_round_leaves_nobody_out_of_the_next_one() -> None:
    said = FanoutClients(2 * SENDS_BETWEEN_LOOKS)
    audience = [client.subscriber for client in said.clients]
    said.fanout.gather(text(1), audience)
    said.fanout.flush()
    last = said.clients[-1]
    said.fanout.send(text(2), [last.subscriber])
    said.fanout._on_trouble = fail
    said.clients[-2].transport.broken = True
    with pytest.raises(Failure):
        said.turn()
    said.fanout.gather(text(3), audience)
    said.fanout._on_trouble = lambda *_trouble: None
    said.settle()
    assert last.texts() == [b"1", b"2", b"3"]


def test_nothing_more_is_taken_while_what_was_said_waits() -> None:
    said = FanoutClients(3 * SENDS_BETWEEN_LOOKS)
    crowd = Crowd(client.subscriber for client in said.clients)
    said.fanout.gather(text(1), crowd)
    said.fanout.flush()
    assert said.fanout.takes_more
    said.fanout.gather(text(2), crowd)
    said.fanout.flush()
    assert not said.fanout.takes_more
    said.turn()
    assert said.fanout.takes_more
