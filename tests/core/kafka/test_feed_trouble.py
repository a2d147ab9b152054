"""What the feed makes of errors, of records that are gone, and of a topic from which nothing comes."""

from __future__ import annotations

import asyncio
import json

import pytest
from confluent_kafka import KafkaError, KafkaException

from core.kafka.feed import RETRY_SECONDS
from tests.core.fakes import turns
from tests.core.kafka.fakes import FakeConsumer, FakeMessage
from tests.core.kafka.feeds import ScriptedFeed, joined, on_feed, record, warmed_up, with_feed

# What goes wrong.


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE])
def test_feed_warms_a_partition_up_again_whose_next_records_are_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted, partitions=2)
        scripted.arrive(*(FakeMessage(offset, of=number) for offset in (10, 11) for number in (0, 1)))
        assert scripted.feed.is_live
        scripted.topic(0, start=70, end=90, low=70)
        gone = FakeMessage(None, 0, None, KafkaError(code, "gone"))
        records, done, _ = scripted.arrive(gone, FakeMessage(70), FakeMessage(12, of=1))
        assert (records, done) == ([record(1, 12, b"value", True)], [])
        assert scripted.told == [("lost", 0)]
        assert not scripted.feed.is_live
        await turns()
        assert scripted.consumer.assigned[-1] == {1: 13, 0: 70}
        assert scripted.arrive(FakeMessage(89)) == ([record(0, 89, b"value", False)], [0], False)
        assert scripted.arrive(FakeMessage(90)) == ([record(0, 90, b"value", True)], [], False)
        assert scripted.errors == [KafkaError(code).name()]

    with_feed(main, monkeypatch)
    assert "partition 0: the records after offset 11 are gone" in caplog.text


def test_feed_whose_records_are_gone_reads_nothing_before_it_was_told_which_topic_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [False, False, True]
    asked: list[bool] = []

    async def ask() -> bool:
        asked.append(answers.pop(0))
        return asked[-1]

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        assert asked == [], "nothing is in doubt yet"
        scripted.topic(0, start=70, end=90, low=70)
        scripted.arrive(FakeMessage(None, 0, None, KafkaError(KafkaError._AUTO_OFFSET_RESET)))
        await asyncio.sleep(RETRY_SECONDS + 0.1)
        assert asked == [False, False]
        assert scripted.consumer.assigned[-1] == {0: 10}
        await asyncio.sleep(RETRY_SECONDS)
        assert asked == [False, False, True]
        assert scripted.consumer.assigned[-1] == {0: 70}

    with_feed(main, monkeypatch, ask=ask)


def test_feed_asks_which_topic_it_is_when_it_could_not_learn_where_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    async def main(scripted: ScriptedFeed) -> None:
        async def ask() -> bool:
            asked.append(len(scripted.calls.timeouts))
            return True

        scripted.feed._ask = ask
        scripted.topic(0, start=4, end=9)
        scripted.calls.raises.append(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
        scripted.feed.set_topic_partitions(1)
        await asyncio.sleep(RETRY_SECONDS + 0.1)
        assert asked == [1], "after the first question where to begin, and before the second"
        assert scripted.consumer.assigned == [{0: 4}]

    with_feed(main, monkeypatch)


@on_feed()
async def test_feed_tells_nothing_of_a_partition_behind_its_loss(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, end=11)
    scripted.topic(0, start=70, end=90, low=70)
    gone = FakeMessage(None, 0, None, KafkaError(KafkaError._AUTO_OFFSET_RESET))
    records, done, _ = scripted.arrive(FakeMessage(10), FakeMessage(11), gone)
    # Folded after the partition was forgotten they would make a book that the warm-up then continues over the gap.
    assert not (scripted.told and (records or done))
    scripted.arrive()
    assert scripted.told == [("lost", 0)]


def test_feed_counts_and_logs_other_errors_and_reads_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        failed = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not allowed")
        unknown = KafkaError(KafkaError._AUTO_OFFSET_RESET, "not read")
        errors = [FakeMessage(None, 0, None, failed), FakeMessage(None, 7, None, unknown)]
        records, _, _ = scripted.arrive(FakeMessage(10), *errors, FakeMessage(11))
        assert [record.offset for record in records] == [10, 11]
        assert scripted.errors == ["TOPIC_AUTHORIZATION_FAILED", "_AUTO_OFFSET_RESET"]
        assert scripted.told == []

    with_feed(main, monkeypatch)
    assert caplog.messages == [
        "consumer: TOPIC_AUTHORIZATION_FAILED: not allowed",
        "consumer: _AUTO_OFFSET_RESET: not read",
    ]


@on_feed()
async def test_feed_tells_of_trouble_only_when_every_broker_is_down(scripted: ScriptedFeed) -> None:
    tell = scripted.consumer.properties["error_cb"]
    tell(KafkaError(KafkaError._TRANSPORT, "refused"))
    assert scripted.troubles == []
    tell(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert scripted.troubles == ["all brokers are down"]
    assert scripted.errors == ["_TRANSPORT", "_ALL_BROKERS_DOWN"]


def test_feed_logs_the_same_error_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        for _ in range(3):
            scripted.consumer.properties["error_cb"](KafkaError(KafkaError._TRANSPORT, "refused"))

    with_feed(main, monkeypatch)
    assert caplog.messages == ["consumer: _TRANSPORT: refused"]


@on_feed()
async def test_feed_whose_client_fails_reads_on_with_the_next_look(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted)

    def fail() -> None:
        raise KafkaException(KafkaError(KafkaError._FAIL, "for once"))

    assert scripted.arrive(fail) == ([], [], False)
    assert scripted.errors == ["_FAIL"]
    assert [one.offset for one in scripted.arrive(FakeMessage(10))[0]] == [10]


# Quiet or dead.


def statistics(
    *partitions: tuple[int, str, int], topic: str = "market-events", state: str = "UP", idle_seconds: float = 0.1
) -> str:
    """The client's statistics: partitions with their fetch state and leader, and broker 1."""
    described = {str(number): {"fetch_state": fetching, "leader": leader} for number, fetching, leader in partitions}
    broker = {"nodeid": 1, "state": state, "rxidle": int(idle_seconds * 1_000_000)}
    bootstrap = {"nodeid": -1, "state": "INIT", "rxidle": -1}
    return json.dumps({"brokers": {"b:1": broker, "b:2": bootstrap}, "topics": {topic: {"partitions": described}}})


READ = statistics((0, "active", 1))
UNREAD = {
    "the broker is down": statistics((0, "active", 1), state="DOWN"),
    "the fetcher has stopped": statistics((0, "stopped", 1)),
    "there is no leader": statistics((0, "active", -1)),
    "the leader is not known": statistics((0, "active", 9)),
    "the partition is not there": statistics(),
    "the topic is not there": statistics((0, "active", 1), topic="another"),
}


@pytest.mark.parametrize("text", UNREAD.values(), ids=UNREAD)
def test_feed_tells_of_a_partition_that_is_not_read_for_five_seconds_with_each_look_until_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        tell = scripted.consumer.properties["stats_cb"]
        tell(READ)
        for _ in range(4):
            scripted.now += 1.2
            tell(text)
        assert scripted.unread == []
        scripted.now += 0.2
        for _ in range(3):
            tell(text)
        assert scripted.unread == [{0}]
        tell(READ)
        tell(READ)
        assert scripted.unread == [{0}, set()]
        assert scripted.looks == 10

    with_feed(main, monkeypatch)
    assert [text for text in caplog.messages if "not being read" in text] == ["partitions [0] are not being read"]


@on_feed()
async def test_feed_takes_a_broker_that_answers_nothing_for_five_seconds_for_dead(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted)
    tell = scripted.consumer.properties["stats_cb"]
    tell(READ)
    for idle_seconds in (1.0, 2.0, 3.0, 4.0, 4.9):
        scripted.now += 1.0 if idle_seconds < 4.5 else 0.9
        tell(statistics((0, "active", 1), idle_seconds=idle_seconds))
    assert scripted.unread == []
    scripted.now += 0.3
    tell(statistics((0, "active", 1), idle_seconds=5.2))
    assert scripted.unread == [{0}], "frozen, but connected"


@on_feed()
async def test_feed_judges_each_partition_and_none_before_it_could_be_read(scripted: ScriptedFeed) -> None:
    tell = scripted.consumer.properties["stats_cb"]
    tell(statistics(state="DOWN"))
    scripted.now += 60
    tell(statistics(state="DOWN"))
    assert scripted.unread == []
    await warmed_up(scripted, partitions=2)
    tell(statistics((0, "active", 1), (1, "active", 2)))
    scripted.now += 4
    tell(statistics((0, "active", 1), (1, "active", 2)))
    assert scripted.unread == []
    scripted.now += 2
    tell(statistics((0, "active", 1), (1, "active", 2)))
    assert scripted.unread == [{1}]


@on_feed(broadcast=False)
async def test_feed_gives_a_partition_that_comes_back_its_time(scripted: ScriptedFeed) -> None:
    await joined(scripted, 0)
    tell = scripted.consumer.properties["stats_cb"]
    tell(READ)
    scripted.rebalance("on_revoke", 0)
    scripted.rebalance("on_assign")
    await turns()
    scripted.now += 100
    scripted.rebalance("on_assign", 0)
    await turns()
    tell(UNREAD["the fetcher has stopped"])
    assert scripted.unread == []


@on_feed()
async def test_feed_says_where_its_reading_begins_before_anything_is_read(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, partitions=2, start=10, end=12)
    assert scripted.begun == [(0, 10), (1, 10)]


@on_feed()
async def test_feed_throws_away_what_its_asking_client_would_keep_for_ever_while_the_brokers_are_gone(
    scripted: ScriptedFeed,
) -> None:
    asker = FakeConsumer({})
    scripted.feed.offsets._client = asker  # type: ignore[assignment]
    error = KafkaError(KafkaError._TRANSPORT, "connection refused")
    refused = FakeMessage(None, None, None, error)
    for _ in range(36_000):  # of an hour
        asker.waiting.extend([refused] * 2)
        scripted.now += 0.1
        scripted.arrive(lambda: scripted.consumer.properties["error_cb"](error))
        await turns(3)
        assert len(asker.waiting) <= 2 * 11, "once a second"
        assert len(asyncio.all_tasks()) <= 2
    assert len(scripted.calls.timeouts) <= 3_601


@on_feed()
async def test_feed_whose_asking_client_is_asked_something_throws_away_what_it_keeps_later(
    scripted: ScriptedFeed,
) -> None:
    asker = FakeConsumer({})
    scripted.feed.offsets._client = asker  # type: ignore[assignment]
    error = KafkaError(KafkaError._TRANSPORT, "connection refused")
    asker.waiting.append(FakeMessage(None, None, None, error))
    scripted.calls.raises.append(TimeoutError())
    for waiting in (1, 0):
        scripted.now += RETRY_SECONDS
        scripted.arrive(lambda: scripted.consumer.properties["error_cb"](error))
        await turns()
        assert len(asker.waiting) == waiting


@on_feed(broadcast=False)
async def test_feed_tells_what_its_group_refuses_and_leaves_it_to_the_reading_client_that_brokers_are_away(
    scripted: ScriptedFeed,
) -> None:
    scripted.feed.set_topic_partitions(1)
    tell = scripted.member.properties["error_cb"]
    for code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError.GROUP_AUTHORIZATION_FAILED):
        tell(KafkaError(code))
    assert (scripted.errors, scripted.troubles) == (["GROUP_AUTHORIZATION_FAILED"], [])
