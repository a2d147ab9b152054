"""What the keeper makes of both topics, without Kafka."""

from __future__ import annotations

import asyncio

import pytest

from core.kafka.state_keeper import GENERATIONS_KEPT, StateKeeper
from core.kafka.state_reader import Found, Route, Wanted
from core.kafka.state_writer import StateWriter
from core.messages.kept_state import VERSION, Cursor, Offsets
from tests.core.kept_rooms import FakeRoom, FakeTopics


class Uncounted:
    """As `KeeperObserver`."""

    def state_written(self, records: int, size: int, seconds: float) -> None:
        pass

    def state_restored(self, records: int, size: int, seconds: float) -> None:
        pass

    def state_unused(self, why: str) -> None:
        pass


def keeper(topics: FakeTopics) -> StateKeeper:
    return StateKeeper(
        "none:1", "state", {}, {}, topics, Uncounted(), interval_seconds=1.0, give_way=lambda: asyncio.sleep(0)
    )


@pytest.mark.parametrize(
    ("lives", "known_from"),
    [
        (("market-1", "orders-1"), Offsets(3, {0: 4}, {0: 5})),
        (("market-1", "orders-2"), Offsets(3, {0: 4}, {0: 9})),
        (("market-2", "orders-1"), Offsets(9, {0: 9}, {0: 5})),
    ],
)
def test_what_is_known_goes_back_to_where_what_was_taken_back_did_while_the_topics_are_the_same(
    lives: tuple[str, str], known_from: Offsets
) -> None:
    topics = FakeTopics(1)
    topics.begun, topics.lives = {0: 9}, lives
    kept = keeper(topics)
    taken_back = Cursor(
        market=9,
        events={0: 9},
        orders={0: 9},
        version=VERSION,
        market_epoch="market-1",
        order_epoch="orders-1",
        known_since_ms=None,
        time_ms=0,
        known_from=Offsets(3, {0: 4}, {0: 5}),
    )
    for cursors in kept._restored.values():
        cursors[0] = taken_back
    assert kept._known_from(0) == known_from


def test_nothing_is_taken_back_before_it_is_known_which_topics_these_are() -> None:
    topics = FakeTopics(1)
    topics.lives, topics.awaits_epochs = None, True
    with pytest.raises(TimeoutError):
        asyncio.run(keeper(topics)._restore("orders", FakeRoom("order"), [0]))
    topics.awaits_epochs = False
    assert asyncio.run(keeper(topics)._restore("orders", FakeRoom("order"), [0])) == {}


def test_record_that_cannot_be_read_is_no_problem_once_a_later_one_of_its_key_is_there() -> None:
    found, room = Found(), FakeRoom("order")
    route = Route(0, [Wanted(("order",), room.take_back, {0: found})])
    for key, value, problem in (
        (b"order/a", b"1", False),
        (b"order/a", b"{", True),
        (b"order/b", b"1", True),
        (b"order/a", b"2", False),
        (b"order/\xff", b"2", True),
        (b"order/\xff", None, False),
        (b"order/b", b"{", True),
        (b"cursor", b'{"version":2}', True),
        (b"order/b", b"3", True),
    ):
        route.hand_over(key, value)
        assert (found.problem is not None) is problem
    assert "version" in str(found.problem)
    assert room.values == {(0, "a"): 2, (0, "b"): 3}


@pytest.mark.parametrize("written", [1, None], ids=["it wrote", "it never wrote"])
def test_generation_that_a_failing_writer_would_go_on_from_stays_known(written: int | None) -> None:
    kept, room = keeper(FakeTopics(1)), FakeRoom("order")
    kept.rooms = [room]
    kept._begin_generation()
    writer = kept._writers[0] = StateWriter(
        0, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0)
    )
    writer.written = written

    async def rounds() -> None:
        room.set(0, "a", 1)
        for _ in range(GENERATIONS_KEPT + 5):
            await kept._write()

    asyncio.run(rounds())
    if written is None:
        with pytest.raises(LookupError):
            room.journal.since(0, 1)
    else:
        assert room.journal.since(0, written) == set()
        assert kept._generations[0][0] == written
