from __future__ import annotations

import asyncio
import logging

import pytest
from confluent_kafka import OFFSET_END, TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException

from core.kafka.feed import BATCH
from core.kafka.warmup_start import GivenStart
from core.messages.feed_record import KeyedRecord
from tests.core.fakes import turns
from tests.core.kafka.fakes import FakeConsumer, FakeMessage, end_of
from tests.core.kafka.feeds import NOW_MS, SINCE_MS, ScriptedFeed, joined, on_feed, record, warmed_up, with_feed


@on_feed()
async def test_feed_never_asks_the_client_that_it_drains(scripted: ScriptedFeed) -> None:
    # confluent-kafka makes other calls of a client wait for one that is under way: `drain` would, on the loop.
    asker = FakeConsumer({})
    scripted.feed.offsets._client = asker  # type: ignore[assignment]
    asker.highs[0], asker.by_time = 7, lambda _number, _moment: 5
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.consumer.assigned == [{0: 5}]
    ends: list[object] = []
    scripted.feed.ask_ends(ends.append)
    await turns()
    assert ends == [{0: 7}]
    assert (scripted.consumer.asked_moments, scripted.consumer.highs) == ([], {})
    await scripted.feed.close(1.0)
    assert (scripted.consumer.closed, asker.closed) == (1, 1)


@on_feed()
async def test_feed_that_is_closed_while_it_asks_where_its_topic_ends_cannot_tell(scripted: ScriptedFeed) -> None:
    async def closed(*_: object) -> None:
        raise RuntimeError("Consumer closed")

    await scripted.feed.close(1.0)
    scripted.calls.run = closed  # type: ignore[assignment, method-assign]
    ends: list[object] = []
    scripted.feed.ask_ends(ends.append)
    await turns()
    assert ends == [None]


# Where reading begins.


@on_feed()
async def test_feed_begins_a_warm_up_ago_and_shows_nothing_before_it_has_caught_up(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=40, end=42)
    assert scripted.feed.set_topic_partitions(1) is False
    assert not scripted.feed.is_live
    await turns()
    assert scripted.consumer.asked_moments == [{0: SINCE_MS}]
    assert scripted.consumer.assigned == [{0: 40}]
    assert scripted.told == []
    assert scripted.arrive(FakeMessage(40, data=b"a")) == ([record(0, 40, b"a", False)], [], False)
    assert not scripted.feed.is_live
    # What came behind the warm-up in the same batch is still part of what is shown first.
    records = [record(0, 41, b"b", False), record(0, 42, b"c", False)]
    assert scripted.arrive(FakeMessage(41, data=b"b"), FakeMessage(42, data=b"c"), end_of(0, 43)) == (
        records,
        [0],
        False,
    )
    assert scripted.feed.is_live
    assert scripted.feed.known_since_ms() == SINCE_MS
    assert scripted.arrive(FakeMessage(43, data=None)) == ([record(0, 43, None, True)], [], False)


@on_feed()
async def test_feed_begins_at_the_very_first_offset_when_that_is_young_enough(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=0, end=3)
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.consumer.assigned == [{0: 0}]
    assert scripted.arrive(FakeMessage(0), FakeMessage(1), FakeMessage(2))[1] == [0]


@pytest.mark.parametrize("first_young", [5, 6], ids=["at the end", "behind the end"])
def test_feed_misses_nothing_that_arrives_while_it_asks(monkeypatch: pytest.MonkeyPatch, first_young: int) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        def one_arrives(_partition: int, _moment_ms: int) -> int:
            scripted.consumer.highs[0] = 7
            return first_young

        scripted.consumer.highs[0] = 5
        scripted.consumer.by_time = one_arrives
        scripted.feed.set_topic_partitions(1)
        await turns()
        assert scripted.consumer.assigned == [{0: 5}]
        assert scripted.told == [("live", [0])]

    with_feed(main, monkeypatch)


@on_feed()
async def test_feed_is_live_at_once_where_nothing_is_as_young_as_the_warm_up(scripted: ScriptedFeed) -> None:
    scripted.consumer.highs[0] = 500
    scripted.consumer.by_time = lambda _, moment_ms: OFFSET_END if moment_ms else 0
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.consumer.asked_moments == [{0: SINCE_MS}, {0: 0}]
    assert scripted.consumer.assigned == [{0: 500}]
    assert scripted.told == [("live", [0])]
    assert scripted.feed.is_live
    assert scripted.feed.known_since_ms() == SINCE_MS


@on_feed()
async def test_feed_is_live_at_once_where_nothing_is_at_all(scripted: ScriptedFeed) -> None:
    scripted.consumer.lows[0] = scripted.consumer.highs[0] = 7
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.consumer.asked_moments == [{0: SINCE_MS}], "an empty partition needs no second question"
    assert scripted.consumer.assigned == [{0: 7}]
    assert scripted.told == [("live", [0])]


@on_feed()
async def test_feed_begins_so_many_records_ago_where_the_cluster_cannot_tell_by_time(scripted: ScriptedFeed) -> None:
    scripted.consumer.highs[0] = 500
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.consumer.assigned == [{0: 400}]
    assert scripted.told == []
    assert scripted.feed.known_since_ms() is None, "no record has been read yet"
    scripted.arrive(FakeMessage(400, time_ms=1234), FakeMessage(401, time_ms=5678))
    assert scripted.feed.known_since_ms() == 1234


@on_feed()
async def test_feed_takes_no_time_of_kafkas_that_cannot_be(scripted: ScriptedFeed) -> None:
    scripted.consumer.highs[0] = 500
    scripted.feed.set_topic_partitions(1)
    await turns()
    given = [NOW_MS + 86_400_000, NOW_MS // 1000, NOW_MS * 1000, -1, NOW_MS + 60_000]
    records, _, _ = scripted.arrive(*(FakeMessage(400 + n, time_ms=time) for n, time in enumerate(given)))
    assert [one.time_ms for one in records] == [NOW_MS] * 4 + [NOW_MS + 60_000]
    assert scripted.feed.known_since_ms() == NOW_MS, "what is known begins no later than now"
    assert [why for why, _, _ in scripted.odd_times] == ["ahead", "seconds", "microseconds"]


@pytest.mark.parametrize("end", [100, 160], ids=["no more than the warm-up", "and more"])
def test_feed_begins_at_the_first_record_there_is(monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        scripted.consumer.lows[0], scripted.consumer.highs[0] = 60, end
        scripted.feed.set_topic_partitions(1)
        await turns()
        assert scripted.consumer.assigned == [{0: 60}]
        assert scripted.feed.known_since_ms() is None, "what the topic has dropped may have been young"
        scripted.arrive(FakeMessage(60, time_ms=SINCE_MS + 77))
        assert scripted.feed.known_since_ms() == SINCE_MS + 77

    with_feed(main, monkeypatch)


@on_feed()
async def test_feed_looks_up_each_partition_by_itself(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=5, end=5)
    scripted.topic(1, start=3, end=9)
    scripted.topic(2, start=8, end=8)
    scripted.feed.set_topic_partitions(3)
    await turns()
    assert scripted.consumer.asked_moments == [{0: SINCE_MS, 1: SINCE_MS, 2: SINCE_MS}]
    assert scripted.consumer.assigned == [{0: 5, 1: 3, 2: 8}]
    assert scripted.told == [("live", [0, 2])]
    assert not scripted.feed.is_live
    assert scripted.arrive(FakeMessage(8, of=1))[1] == [1]
    assert scripted.feed.is_live


@on_feed()
async def test_feed_knows_since_the_latest_of_its_beginnings(scripted: ScriptedFeed) -> None:
    assert scripted.feed.known_since_ms() is None
    scripted.topic(0, start=5, end=5)
    scripted.consumer.highs[1] = 500
    scripted.feed.set_topic_partitions(2)
    await turns()
    assert scripted.feed.known_since_ms() == SINCE_MS
    scripted.arrive(FakeMessage(400, of=1, time_ms=SINCE_MS + 77))
    assert scripted.feed.known_since_ms() == SINCE_MS + 77


@pytest.mark.parametrize(
    "error", [KafkaException(KafkaError(KafkaError._TRANSPORT)), TimeoutError()], ids=["kafka", "timeout"]
)
def test_feed_asks_again_every_second_until_it_knows_where_to_begin(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        scripted.topic(0, start=4, end=9)
        scripted.calls.raises.extend([error, error])
        scripted.feed.set_topic_partitions(1)
        await asyncio.sleep(1.9)
        assert scripted.consumer.assigned == []
        await asyncio.sleep(0.2)
        assert scripted.consumer.assigned == [{0: 4}]
        assert len(scripted.calls.timeouts) == 3

    with_feed(main, monkeypatch)
    assert [text for text in caplog.messages if "could not be asked" in text] != []


@on_feed()
async def test_feed_asks_again_when_one_partition_could_not_tell(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=4, end=9)
    scripted.consumer.time_errors.append(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    scripted.feed.set_topic_partitions(1)
    await asyncio.sleep(1.1)
    assert scripted.consumer.assigned == [{0: 4}]


# So many records in any case: times are somebody else's.


@pytest.mark.parametrize(
    ("low", "by_time", "begins"),
    [
        pytest.param(0, OFFSET_END, 400, id="all times are behind"),
        pytest.param(0, 470, 400, id="few records are young"),
        pytest.param(0, 300, 300, id="many records are young"),
        pytest.param(450, OFFSET_END, 450, id="the topic has no more"),
    ],
)
def test_feed_reads_back_no_fewer_records_than_it_has_to(
    monkeypatch: pytest.MonkeyPatch, low: int, by_time: int, begins: int
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        scripted.consumer.lows[0], scripted.consumer.highs[0] = low, 500
        scripted.consumer.by_time = lambda _, moment_ms: by_time if moment_ms else low
        scripted.feed.set_topic_partitions(1)
        await turns()
        assert (scripted.consumer.assigned, scripted.begun) == ([{0: begins}], [(0, begins)])
        assert scripted.told == []
        # An older record that is read as well makes nothing known of the time between.
        scripted.arrive(FakeMessage(begins, time_ms=1_600_000_000_000))
        assert scripted.feed.known_since_ms() == SINCE_MS

    with_feed(main, monkeypatch, warmup_min_records=100)


@on_feed(warmup_min_records=300)
async def test_feed_reads_back_no_fewer_records_where_the_cluster_cannot_tell_by_time(scripted: ScriptedFeed) -> None:
    scripted.consumer.highs[0] = 500
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.consumer.assigned == [{0: 200}]


@on_feed(warmup_min_records=100)
async def test_feed_goes_twice_as_far_back_until_it_finds_a_record(scripted: ScriptedFeed) -> None:
    scripted.consumer.lows[0], scripted.consumer.highs[0] = 50, 500
    scripted.consumer.by_time = lambda _, moment_ms: OFFSET_END if moment_ms else 50
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.arrive(end_of(0, 500)) == ([], [], False)
    assert scripted.arrive(end_of(0, 500)) == ([], [], False)
    assert scripted.consumer.assigned == [{0: 400}, {0: 300}, {0: 100}]
    assert scripted.arrive(FakeMessage(120)) == ([record(0, 120, b"value", False)], [], False)
    assert scripted.arrive(end_of(0, 500)) == ([], [0], False)
    assert scripted.begun == [(0, 400), (0, 300), (0, 100)]
    assert (scripted.feed.positions(), scripted.feed.known_since_ms()) == ({0: 500}, SINCE_MS)


@on_feed(warmup_min_records=5, broadcast=False)
async def test_feed_looks_no_further_back_in_what_it_has_lost(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=500, end=500)
    scripted.feed.set_topic_partitions(1)
    scripted.rebalance("on_assign", 0)
    await turns()
    scripted.rebalance("on_assign")
    await turns()
    assert scripted.arrive(end_of(0, 500)) == ([], [], False)
    assert (scripted.consumer.assigned, scripted.told) == ([{0: 495}, {}], [("lost", 0)])


@on_feed(warmup_min_records=100)
async def test_feed_is_live_where_no_offset_holds_a_record(scripted: ScriptedFeed) -> None:
    scripted.consumer.lows[0], scripted.consumer.highs[0] = 350, 500
    scripted.consumer.by_time = lambda _, moment_ms: OFFSET_END if moment_ms else 350
    scripted.feed.set_topic_partitions(1)
    await turns()
    scripted.arrive(end_of(0, 500))
    assert scripted.arrive(end_of(0, 500)) == ([], [0], False)
    assert scripted.consumer.assigned == [{0: 400}, {0: 350}]
    assert scripted.feed.is_live
    assert scripted.arrive(end_of(0, 500)) == ([], [], False)


@on_feed()
async def test_feed_knows_since_its_first_record_where_the_topic_dropped_younger_ones(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=60, end=100, low=60)
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.feed.known_since_ms() is None, "no record has been read yet"
    scripted.arrive(FakeMessage(60, time_ms=SINCE_MS + 5), FakeMessage(61, time_ms=SINCE_MS + 9))
    assert scripted.feed.known_since_ms() == SINCE_MS + 5


@on_feed()
async def test_feed_knows_since_now_where_the_topic_has_dropped_everything(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=OFFSET_END, end=100, low=100)
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert (scripted.told, scripted.feed.known_since_ms()) == ([("live", [0])], NOW_MS)


# From where it is told to.


class Starts:
    """Whoever knows what is before some offset."""

    def __init__(self, **given: int) -> None:
        self.given = {int(name[1:]): GivenStart(offset, NOW_MS - 7) for name, offset in given.items()}
        self.asked: list[list[int]] = []

    async def __call__(self, numbers: list[int]) -> dict[int, GivenStart]:
        self.asked.append(numbers)
        return self.given


@on_feed(starts=Starts(p0=480, p1=500, p2=100, p3=99, p4=501), warmup_min_records=100)
async def test_feed_begins_where_it_is_told_to_if_the_topic_has_what_follows(scripted: ScriptedFeed) -> None:
    for number in range(6):
        scripted.topic(number, start=490, end=500, low=100)
    scripted.feed.set_topic_partitions(6)
    await turns()
    warmed_up = [(3, 400), (4, 400), (5, 400)]
    assert sorted(scripted.begun) == [(0, 480), (1, 500), (2, 100), *warmed_up]
    assert scripted.consumer.assigned == [dict(scripted.begun)]
    assert scripted.consumer.asked_moments == [{3: SINCE_MS, 4: SINCE_MS, 5: SINCE_MS}]
    assert scripted.told == [("live", [1])]


@on_feed(starts=Starts(p0=480))
async def test_feed_begins_no_later_than_it_is_told_to_where_that_is_not_enough(scripted: ScriptedFeed) -> None:
    starts = scripted.feed.starts
    assert isinstance(starts, Starts)
    for number, start in ((0, 470), (1, 490)):
        scripted.topic(number, start=start, end=500)
        starts.given[number] = GivenStart(480, NOW_MS - 7, is_enough=False)
    scripted.feed.set_topic_partitions(2)
    await turns()
    assert sorted(scripted.begun) == [(0, 470), (1, 480)]
    assert scripted.feed.begins() == {0: 470, 1: 480}


@on_feed()
async def test_feed_tells_how_much_of_its_warm_up_is_read(scripted: ScriptedFeed) -> None:
    assert scripted.feed.warm_up() == (0, 0)
    scripted.topic(0, start=90, end=100)
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.feed.warm_up() == (0, 10)
    scripted.arrive(FakeMessage(90), FakeMessage(91))
    assert scripted.feed.warm_up() == (2, 10)
    scripted.arrive(*(FakeMessage(offset) for offset in range(92, 101)))
    assert scripted.feed.warm_up() is None


@on_feed(starts=Starts(p0=480), warmup_min_records=100)
async def test_feed_knows_since_what_it_is_told_and_looks_no_further_back(scripted: ScriptedFeed) -> None:
    scripted.topic(0, start=490, end=500)
    scripted.feed.set_topic_partitions(1)
    await turns()
    assert scripted.feed.known_since_ms() == NOW_MS - 7
    assert scripted.arrive(end_of(0, 500)) == ([], [0], False)
    assert (scripted.feed.is_live, scripted.begun) == (True, [(0, 480)])


def test_feed_asks_where_to_begin_with_each_partition_that_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(p0=11, p1=11)

    async def main(scripted: ScriptedFeed) -> None:
        await joined(scripted, 0)
        scripted.rebalance("on_assign", 0, 1)
        await turns()
        assert starts.asked == [[0], [1]]
        assert scripted.begun == [(0, 11), (1, 11)]

    with_feed(main, monkeypatch, broadcast=False, starts=starts)


@pytest.mark.parametrize("error", [KafkaException(KafkaError(KafkaError._TRANSPORT)), TimeoutError()])
def test_feed_asks_again_where_it_could_not_be_told_where_to_begin(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def starts(_numbers: list[int]) -> dict[int, GivenStart]:
        if errors:
            raise errors.pop()
        return {0: GivenStart(11, None)}

    errors = [error]

    async def main(scripted: ScriptedFeed) -> None:
        scripted.topic(0, start=10, end=12)
        scripted.feed.set_topic_partitions(1)
        await asyncio.sleep(1.1)
        assert scripted.begun == [(0, 11)]

    with_feed(main, monkeypatch, starts=starts)


# What arrives.


@on_feed()
async def test_feed_has_nothing_to_say_when_nothing_has_arrived(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted)
    assert scripted.arrive() == ([], [], False)


@on_feed()
async def test_feed_says_that_more_waits_when_its_batch_was_full(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted)
    scripted.consumer.waiting.extend(FakeMessage(10 + number) for number in range(BATCH + 1))
    records, _, more = scripted.feed.drain()
    assert (len(records), more) == (BATCH, True)
    records, _, more = scripted.feed.drain()
    assert ([record.offset for record in records], more) == ([10 + BATCH], False)


@on_feed()
async def test_feed_skips_offsets_that_it_has_read_before(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted)
    offsets = [9, 10, 10, 11, 9, 10, 13, 12, 14]
    records, done, _ = scripted.arrive(*(FakeMessage(offset) for offset in offsets))
    assert [record.offset for record in records] == [10, 11, 13, 14]
    assert done == [0]


@on_feed()
async def test_feed_skips_what_belongs_to_no_partition_that_it_reads(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted)
    records, done, _ = scripted.arrive(
        FakeMessage(10, of=1), FakeMessage(10, of=None), FakeMessage(None), end_of(1, 99)
    )
    assert (records, done) == ([], [])
    assert not scripted.feed.is_live


@on_feed()
async def test_feed_is_live_at_the_end_even_if_the_last_offsets_hold_no_records(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, end=20)
    assert scripted.arrive(FakeMessage(10)) == ([record(0, 10, b"value", False)], [], False)
    assert scripted.arrive(end_of(0, 20)) == ([], [0], False)
    assert scripted.feed.lag() == {0: 0}
    assert scripted.arrive(end_of(0, 20)) == ([], [], False)
    assert scripted.arrive(FakeMessage(20)) == ([record(0, 20, b"value", True)], [], False)


@on_feed()
async def test_feed_does_not_go_back_at_an_end_that_names_no_offset(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted)
    scripted.arrive(FakeMessage(10), FakeMessage(11), end_of(0, None))
    records, _, _ = scripted.arrive(FakeMessage(11), FakeMessage(12))
    assert [record.offset for record in records] == [12]


@on_feed()
async def test_feed_counts_the_lag_from_what_the_client_knows(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, partitions=3, start=10, end=15)
    scripted.consumer.cached_highs = {0: 30, 1: 3}
    scripted.arrive(FakeMessage(10), FakeMessage(10, of=1))
    assert scripted.feed.lag() == {0: 19, 1: 4, 2: 5}
    scripted.arrive(*(FakeMessage(offset, of=2) for offset in range(10, 18)))
    assert scripted.feed.lag()[2] == 0


# The end.


@on_feed()
async def test_feed_leaves_the_group_at_its_close_and_looks_nothing_up_any_more(scripted: ScriptedFeed) -> None:
    scripted.calls.gate.clear()
    await warmed_up(scripted)
    scripted.calls.gate.set()
    await scripted.feed.close(2)
    await turns()
    assert scripted.consumer.closed == 2, "the client that is asked, too"
    assert scripted.calls.timeouts[-1] == 2
    assert scripted.consumer.assigned == []


@on_feed()
async def test_feed_that_read_nothing_yet_can_be_closed(scripted: ScriptedFeed) -> None:
    await scripted.feed.close(2)
    assert scripted.consumer.closed == 2, "the client that is asked, too"


@pytest.mark.parametrize("broadcast", [True, False])
def test_feed_takes_no_partitions_after_its_close(monkeypatch: pytest.MonkeyPatch, broadcast: bool) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        await scripted.feed.close(2)
        # The bus may become reachable, or the other topic be read to its end, while the process is ending.
        assert not scripted.feed.set_topic_partitions(4)
        await turns()
        assert (scripted.consumer.assigned, scripted.consumer.subscribed) == ([], [])

    with_feed(main, monkeypatch, broadcast=broadcast)


@pytest.mark.parametrize(
    "error", [TimeoutError("late"), KafkaException(KafkaError(KafkaError._STATE)), RuntimeError("closed already")]
)
def test_feed_raises_nothing_at_its_close(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        scripted.calls.raises.append(error)
        await scripted.feed.close(2)

    with_feed(main, monkeypatch)
    assert "the consumer did not close in time" in caplog.text


# Properties of the client.


@on_feed(extra={"fetch.wait.max.ms": 77, "group.id": "theirs", "error_cb": "theirs", "auto.offset.reset": "error"})
async def test_feed_lets_the_operator_set_properties_but_not_its_group_and_callback(scripted: ScriptedFeed) -> None:
    properties = scripted.consumer.properties
    assert (properties["fetch.wait.max.ms"], properties["group.id"]) == (77, "gateway")
    assert callable(properties["error_cb"])


@on_feed()
async def test_feed_sees_a_gap_instead_of_jumping_over_it_and_commits_nothing(scripted: ScriptedFeed) -> None:
    properties = scripted.consumer.properties
    assert (properties["auto.offset.reset"], properties["enable.auto.commit"]) == ("error", False)
    assert properties["enable.partition.eof"] is True
    assert properties["fetch.wait.max.ms"] == 100


@on_feed(embedded=True)
async def test_feed_asks_the_embedded_cluster_often_because_it_wakes_nobody(scripted: ScriptedFeed) -> None:
    assert scripted.consumer.properties["fetch.wait.max.ms"] == 5


def test_feed_logs_what_it_is_assigned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        await joined(scripted, 2, 0)
        scripted.rebalance("on_revoke", 2, 0)

    with caplog.at_level(logging.INFO):
        with_feed(main, monkeypatch, broadcast=False)
    assert "rebalance: assigned partitions [0, 2] of market-events" in caplog.messages
    assert "market-events partition 2: warm-up from offset 10 to 12" in caplog.messages
    assert "rebalance: partitions [0, 2] of market-events are shared out anew" in caplog.messages


@on_feed(with_keys=True)
async def test_feed_that_is_to_tells_the_keys_of_records(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, start=10, end=10)
    records, _, _ = scripted.arrive(FakeMessage(10, 0, b"value", name=b"alice"), FakeMessage(11, 0, None))
    assert records == [record(0, 10, b"value", True), record(0, 11, None, True)]
    assert [one.key for one in records if isinstance(one, KeyedRecord)] == [b"alice", None]


@on_feed(with_keys=True)
async def test_feed_that_tells_keys_tells_when_a_broker_appended_a_record(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, start=10, end=10)
    by_broker = FakeMessage(11, 0, time_ms=1_600_000_000_007, whose_time=TIMESTAMP_LOG_APPEND_TIME)
    records, _, _ = scripted.arrive(FakeMessage(10, 0), by_broker)
    assert [one.appended_ms for one in records if isinstance(one, KeyedRecord)] == [None, 1_600_000_000_007]
