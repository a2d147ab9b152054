"""Which of what is kept is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from confluent_kafka import KafkaException

from core.kafka.state_reader import Found, Route, Wanted
from core.messages.kept_state import VERSION, Cursor
from tests.core.kafka.keepers import AWAY, keeper
from tests.core.kept_rooms import FakeRoom, FakeTopics


def test_nothing_is_taken_back_before_it_is_known_which_topics_these_are() -> None:
    topics = FakeTopics(1)
    topics.lives, topics.awaits_epochs = None, True
    with pytest.raises(TimeoutError):
        asyncio.run(keeper(topics).restored._restore("orders", FakeRoom("order"), [0]))
    topics.awaits_epochs = False
    assert asyncio.run(keeper(topics).restored._restore("orders", FakeRoom("order"), [0])) is None


@pytest.mark.parametrize("error", [TimeoutError(), KafkaException(AWAY)], ids=["no answer", "no brokers"])
def test_state_is_asked_for_again_as_long_as_it_cannot_be_read(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.kafka.state_restore.RETRY_SECONDS", 0.0)
    kept, room = keeper(FakeTopics(1)).restored, FakeRoom("order")
    room.values[0, "half"] = 1
    answers: list[Exception | None] = [error, None]

    async def restored(*_: object) -> dict[int, Cursor]:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        assert room.values == {}, "what had come is left out"
        return {}

    monkeypatch.setattr(kept, "_restore", restored)
    assert asyncio.run(kept.restore("orders", room, [0])) == {}
    assert answers == []


def test_partition_that_contradicts_itself_is_left_and_the_others_are_used() -> None:
    class Picky(FakeRoom):
        def resume(self, cursors: Mapping[int, Cursor]) -> None:
            if 1 in cursors:
                raise ValueError("symbol/KCN/EUR: sequence: expected that of the book")
            super().resume(cursors)

    kept, room = keeper(FakeTopics(2)).restored, Picky("symbol")
    cursor = Cursor(
        market=1, events={0: 1, 1: 1}, orders={0: 1, 1: 1}, version=VERSION, market_epoch="", order_epoch="",
        known_since_ms=None, time_ms=0,
    )  # fmt: skip
    usable = {0: cursor, 1: cursor}
    kept._resume("market", room, usable)
    assert (list(usable), list(room.cursors), kept._unused["market"], kept.spoilt) == ([0], [0], {1}, {1})


@pytest.mark.parametrize(
    ("low", "end", "why"),
    [({0: 0}, {0: 9}, None), ({0: 5}, {0: 9}, "retention"), ({0: 0}, {0: 3}, "retention")],
    ids=["all is there", "records are gone", "the topics end before it"],
)
def test_state_is_used_where_the_topics_go_on_from_it(
    low: dict[int, int], end: dict[int, int], why: str | None
) -> None:
    topics = FakeTopics(1)
    topics.low, topics.end = low, end
    cursor = Cursor(
        market=4, events={0: 4}, orders={0: 4}, version=VERSION, market_epoch="market-1", order_epoch="orders-1",
        known_since_ms=None, time_ms=0, market_topic="market", order_topic="orders",
    )  # fmt: skip
    assert keeper(topics).restored._fault(0, Found(cursor), *topics.bounds())[0] == why


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (b"cursor", b'{"version": %d}' % (VERSION + 1), "version"),
        (b"cursor", b'{"version": 1}', "poisoned"),
        (b"order/version", b"{", "poisoned"),
    ],
    ids=["another version", "not a cursor", "a record that speaks of one"],
)
def test_what_cannot_be_read_is_of_another_version_only_if_its_cursor_says_so(
    key: bytes, value: bytes, why: str
) -> None:
    topics, found = FakeTopics(1), {0: Found()}
    Route(0, [Wanted(("order",), FakeRoom("order").take_back, found)]).hand_over(key, value)
    assert keeper(topics).restored._fault(0, found[0], *topics.bounds())[0] == why
