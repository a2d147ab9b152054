from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException

from core.kafka.feed import BATCH, Feed
from core.pump import Record
from tests.core.fakes import run, turns
from tests.core.kafka.fakes import FakeConsumer, FakeMessage, InlineCalls, end_of

NOW_MS = 1_700_000_000_000
WARMUP_SECONDS = 3600.0
SINCE_MS = NOW_MS - 3_600_000

T = TypeVar("T")


def record(partition: int, offset: int, value: bytes | None, live: bool) -> Record:
    """A record with the time that `FakeMessage` gives."""
    return Record(partition, offset, 1_600_000_000_000, value, live)


class Bench:
    """A feed over a topic of which a test says what is on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.calls = InlineCalls()
        self.troubles: list[str] = []
        self.told: list[tuple[str, object]] = []  # what became of partitions, in order
        self.begun: list[tuple[int, int]] = []
        self.unread: list[set[int]] = []
        self.now = 5000.0
        self.rebalances = 0
        self.errors: list[str] = []
        monkeypatch.setattr("core.kafka.feed.Consumer", FakeConsumer)
        self.feed = Feed(
            "127.0.0.1:9",
            "market-events",
            "gateway",
            changes.pop("extra", {}),
            broadcast=changes.pop("broadcast", True),
            warmup_seconds=WARMUP_SECONDS,
            warmup_records=100,
            calls=self.calls,  # type: ignore[arg-type]
            on_trouble=self.troubles.append,
            on_lost=lambda number: self.told.append(("lost", number)),
            on_begin=lambda number, offset: self.begun.append((number, offset)),
            on_unread=lambda numbers: self.unread.append(set(numbers)),
            on_live=lambda numbers: self.told.append(("live", numbers)),
            on_rebalance=self._on_rebalance,
            on_error=self.errors.append,
            clock=lambda: NOW_MS / 1000,
            monotonic=lambda: self.now,
            **changes,
        )
        self.consumer: FakeConsumer = self.feed._consumer  # type: ignore[assignment]
        # Whom the feed asks is another client; here it answers from the same topic.
        self.feed._asker = self.consumer  # type: ignore[assignment]

    def _on_rebalance(self) -> None:
        self.rebalances += 1

    def topic(self, partition: int, start: int, end: int, low: int = 0) -> None:
        """Partition `partition` holds offsets `low` to `end`; the warm-up begins at `start` by its time."""
        self.consumer.lows[partition] = low
        self.consumer.highs[partition] = end
        before = self.consumer.by_time
        self.consumer.by_time = lambda number, moment: start if number == partition else before(number, moment)

    def arrive(self, *messages: FakeMessage | Callable[[], None]) -> tuple[list[Record], list[int], bool]:
        self.consumer.waiting.extend(messages)
        return self.feed.drain()

    def rebalance(self, callback: str, *partitions: int) -> None:
        self.arrive(lambda: self.consumer.tell(callback, *partitions))


def in_bench(main: Callable[[Bench], Coroutine[Any, Any, T]], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> T:
    """Run `main` on a bench in virtual time; a fault that only the loop hears of fails it."""

    async def whole() -> T:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        result = await main(Bench(monkeypatch, **changes))
        await turns()
        assert faults == []
        return result

    return run(whole())


Test = Callable[[Bench], Coroutine[Any, Any, None]]


def on_bench(**changes: Any) -> Callable[[Test], Callable[[pytest.MonkeyPatch], None]]:
    def decorate(test: Test) -> Callable[[pytest.MonkeyPatch], None]:
        def tested(monkeypatch: pytest.MonkeyPatch) -> None:
            in_bench(test, monkeypatch, **changes)

        return tested

    return decorate


@on_bench()
async def test_feed_never_asks_the_client_that_it_drains(bench: Bench) -> None:
    # confluent-kafka makes other calls of a client wait for one that is under way: `drain` would, on the loop.
    asker = FakeConsumer({})
    bench.feed._asker = asker  # type: ignore[assignment]
    asker.highs[0], asker.by_time = 7, lambda _number, _moment: 5
    bench.feed.set_topic_partitions(1)
    await turns()
    assert bench.consumer.assigned == [{0: 5}]
    ends: list[object] = []
    bench.feed.ask_ends(ends.append)
    await turns()
    assert ends == [{0: 7}]
    assert (bench.consumer.asked_moments, bench.consumer.highs) == ([], {})
    await bench.feed.close(1.0)
    assert (bench.consumer.closed, asker.closed) == (1, 1)


# Where reading begins.


@on_bench()
async def test_feed_begins_a_warm_up_ago_and_shows_nothing_before_it_has_caught_up(bench: Bench) -> None:
    bench.topic(0, start=40, end=42)
    assert bench.feed.set_topic_partitions(1) is False
    assert not bench.feed.is_live
    await turns()
    assert bench.consumer.asked_moments == [{0: SINCE_MS}]
    assert bench.consumer.assigned == [{0: 40}]
    assert bench.told == []
    assert bench.arrive(FakeMessage(40, data=b"a")) == ([record(0, 40, b"a", False)], [], False)
    assert not bench.feed.is_live
    # What came behind the warm-up in the same batch is still part of what is shown first.
    records = [record(0, 41, b"b", False), record(0, 42, b"c", False)]
    assert bench.arrive(FakeMessage(41, data=b"b"), FakeMessage(42, data=b"c"), end_of(0, 43)) == (records, [0], False)
    assert bench.feed.is_live
    assert bench.feed.known_since_ms() == SINCE_MS
    assert bench.arrive(FakeMessage(43, data=None)) == ([record(0, 43, None, True)], [], False)


@on_bench()
async def test_feed_begins_at_the_very_first_offset_when_that_is_young_enough(bench: Bench) -> None:
    bench.topic(0, start=0, end=3)
    bench.feed.set_topic_partitions(1)
    await turns()
    assert bench.consumer.assigned == [{0: 0}]
    assert bench.arrive(FakeMessage(0), FakeMessage(1), FakeMessage(2))[1] == [0]


@pytest.mark.parametrize("first_young", [5, 6], ids=["at the end", "behind the end"])
def test_feed_misses_nothing_that_arrives_while_it_asks(monkeypatch: pytest.MonkeyPatch, first_young: int) -> None:
    async def main(bench: Bench) -> None:
        def one_arrives(_partition: int, _moment_ms: int) -> int:
            bench.consumer.highs[0] = 7
            return first_young

        bench.consumer.highs[0] = 5
        bench.consumer.by_time = one_arrives
        bench.feed.set_topic_partitions(1)
        await turns()
        assert bench.consumer.assigned == [{0: 5}]
        assert bench.told == [("live", [0])]

    in_bench(main, monkeypatch)


@on_bench()
async def test_feed_is_live_at_once_where_nothing_is_as_young_as_the_warm_up(bench: Bench) -> None:
    bench.consumer.highs[0] = 500
    bench.consumer.by_time = lambda _, moment_ms: OFFSET_END if moment_ms else 0
    bench.feed.set_topic_partitions(1)
    await turns()
    assert bench.consumer.asked_moments == [{0: SINCE_MS}, {0: 0}]
    assert bench.consumer.assigned == [{0: 500}]
    assert bench.told == [("live", [0])]
    assert bench.feed.is_live
    assert bench.feed.known_since_ms() == SINCE_MS


@on_bench()
async def test_feed_is_live_at_once_where_nothing_is_at_all(bench: Bench) -> None:
    bench.consumer.lows[0] = bench.consumer.highs[0] = 7
    bench.feed.set_topic_partitions(1)
    await turns()
    assert bench.consumer.asked_moments == [{0: SINCE_MS}], "an empty partition needs no second question"
    assert bench.consumer.assigned == [{0: 7}]
    assert bench.told == [("live", [0])]


@on_bench()
async def test_feed_begins_so_many_records_ago_where_the_cluster_cannot_tell_by_time(bench: Bench) -> None:
    bench.consumer.highs[0] = 500
    bench.feed.set_topic_partitions(1)
    await turns()
    assert bench.consumer.assigned == [{0: 400}]
    assert bench.told == []
    assert bench.feed.known_since_ms() is None, "no record has been read yet"
    bench.arrive(FakeMessage(400, time_ms=1234), FakeMessage(401, time_ms=5678))
    assert bench.feed.known_since_ms() == 1234


@pytest.mark.parametrize("end", [100, 160], ids=["no more than the warm-up", "and more"])
def test_feed_begins_at_the_first_record_there_is(monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    async def main(bench: Bench) -> None:
        bench.consumer.lows[0], bench.consumer.highs[0] = 60, end
        bench.feed.set_topic_partitions(1)
        await turns()
        assert bench.consumer.assigned == [{0: 60}]
        # All that the topic holds is known; older than the warm-up is none of it promised.
        assert bench.feed.known_since_ms() == SINCE_MS

    in_bench(main, monkeypatch)


@on_bench()
async def test_feed_looks_up_each_partition_by_itself(bench: Bench) -> None:
    bench.topic(0, start=5, end=5)
    bench.topic(1, start=3, end=9)
    bench.topic(2, start=8, end=8)
    bench.feed.set_topic_partitions(3)
    await turns()
    assert bench.consumer.asked_moments == [{0: SINCE_MS, 1: SINCE_MS, 2: SINCE_MS}]
    assert bench.consumer.assigned == [{0: 5, 1: 3, 2: 8}]
    assert bench.told == [("live", [0, 2])]
    assert not bench.feed.is_live
    assert bench.arrive(FakeMessage(8, of=1))[1] == [1]
    assert bench.feed.is_live


@on_bench()
async def test_feed_knows_since_the_latest_of_its_beginnings(bench: Bench) -> None:
    assert bench.feed.known_since_ms() is None
    bench.topic(0, start=5, end=5)
    bench.consumer.highs[1] = 500
    bench.feed.set_topic_partitions(2)
    await turns()
    assert bench.feed.known_since_ms() == SINCE_MS
    bench.arrive(FakeMessage(400, of=1, time_ms=SINCE_MS + 77))
    assert bench.feed.known_since_ms() == SINCE_MS + 77


@pytest.mark.parametrize(
    "error", [KafkaException(KafkaError(KafkaError._TRANSPORT)), TimeoutError()], ids=["kafka", "timeout"]
)
def test_feed_asks_again_every_second_until_it_knows_where_to_begin(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def main(bench: Bench) -> None:
        bench.topic(0, start=4, end=9)
        bench.calls.raises.extend([error, error])
        bench.feed.set_topic_partitions(1)
        await asyncio.sleep(1.9)
        assert bench.consumer.assigned == []
        await asyncio.sleep(0.2)
        assert bench.consumer.assigned == [{0: 4}]
        assert len(bench.calls.timeouts) == 3

    in_bench(main, monkeypatch)
    assert [text for text in caplog.messages if "could not be asked" in text] != []


@on_bench()
async def test_feed_asks_again_when_one_partition_could_not_tell(bench: Bench) -> None:
    bench.topic(0, start=4, end=9)
    bench.consumer.time_errors.append(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    bench.feed.set_topic_partitions(1)
    await asyncio.sleep(1.1)
    assert bench.consumer.assigned == [{0: 4}]


# What arrives.


async def warmed_up(bench: Bench, partitions: int = 1, start: int = 10, end: int = 12) -> None:
    for number in range(partitions):
        bench.topic(number, start, end)
    bench.feed.set_topic_partitions(partitions)
    await turns()


@on_bench()
async def test_feed_has_nothing_to_say_when_nothing_has_arrived(bench: Bench) -> None:
    await warmed_up(bench)
    assert bench.arrive() == ([], [], False)


@on_bench()
async def test_feed_says_that_more_waits_when_its_batch_was_full(bench: Bench) -> None:
    await warmed_up(bench)
    bench.consumer.waiting.extend(FakeMessage(10 + number) for number in range(BATCH + 1))
    records, _, more = bench.feed.drain()
    assert (len(records), more) == (BATCH, True)
    records, _, more = bench.feed.drain()
    assert ([record.offset for record in records], more) == ([10 + BATCH], False)


@on_bench()
async def test_feed_skips_offsets_that_it_has_read_before(bench: Bench) -> None:
    await warmed_up(bench)
    offsets = [9, 10, 10, 11, 9, 10, 13, 12, 14]
    records, done, _ = bench.arrive(*(FakeMessage(offset) for offset in offsets))
    assert [record.offset for record in records] == [10, 11, 13, 14]
    assert done == [0]


@on_bench()
async def test_feed_skips_what_belongs_to_no_partition_that_it_reads(bench: Bench) -> None:
    await warmed_up(bench)
    records, done, _ = bench.arrive(FakeMessage(10, of=1), FakeMessage(10, of=None), FakeMessage(None), end_of(1, 99))
    assert (records, done) == ([], [])
    assert not bench.feed.is_live


@on_bench()
async def test_feed_is_live_at_the_end_even_if_the_last_offsets_hold_no_records(bench: Bench) -> None:
    await warmed_up(bench, end=20)
    assert bench.arrive(FakeMessage(10)) == ([record(0, 10, b"value", False)], [], False)
    assert bench.arrive(end_of(0, 20)) == ([], [0], False)
    assert bench.feed.lag() == {0: 0}
    assert bench.arrive(end_of(0, 20)) == ([], [], False)
    assert bench.arrive(FakeMessage(20)) == ([record(0, 20, b"value", True)], [], False)


@on_bench()
async def test_feed_does_not_go_back_at_an_end_that_names_no_offset(bench: Bench) -> None:
    await warmed_up(bench)
    bench.arrive(FakeMessage(10), FakeMessage(11), end_of(0, None))
    records, _, _ = bench.arrive(FakeMessage(11), FakeMessage(12))
    assert [record.offset for record in records] == [12]


@on_bench()
async def test_feed_counts_the_lag_from_what_the_client_knows(bench: Bench) -> None:
    await warmed_up(bench, partitions=3, start=10, end=15)
    bench.consumer.cached_highs = {0: 30, 1: 3}
    bench.arrive(FakeMessage(10), FakeMessage(10, of=1))
    assert bench.feed.lag() == {0: 19, 1: 4, 2: 5}
    bench.arrive(*(FakeMessage(offset, of=2) for offset in range(10, 18)))
    assert bench.feed.lag()[2] == 0


# Partitions that come and go: every partition for itself.


@on_bench()
async def test_feed_reads_a_new_partition_and_the_others_from_where_they_are(
    bench: Bench,
) -> None:
    await warmed_up(bench)
    bench.arrive(FakeMessage(10), FakeMessage(11), FakeMessage(12))
    bench.topic(1, start=3, end=3)
    assert bench.feed.set_topic_partitions(2) is True
    await turns()
    assert bench.consumer.asked_moments[1:] == [{1: SINCE_MS}]
    assert bench.consumer.assigned[1:] == [{0: 13, 1: 3}]
    assert bench.told == [("live", [1])]
    assert bench.feed.set_topic_partitions(2) is False
    await turns()
    assert len(bench.consumer.assigned) == 2
    assert (bench.feed.assigned, bench.feed.topic_partitions, bench.feed.is_partial) == (2, 2, False)


@on_bench()
async def test_feed_forgets_the_partitions_of_a_topic_that_has_fewer(bench: Bench) -> None:
    await warmed_up(bench, partitions=2)
    assert bench.feed.set_topic_partitions(1) is True
    await turns()
    assert bench.told == [("lost", 1)]
    assert bench.consumer.assigned[-1] == {0: 10}


@on_bench()
async def test_feed_forgets_everything_and_warms_up_anew_when_the_topic_is_another_one(bench: Bench) -> None:
    await warmed_up(bench, partitions=2)
    bench.arrive(*(FakeMessage(offset, of=number) for offset in (10, 11) for number in (0, 1)))
    assert bench.feed.is_live
    bench.topic(0, start=1, end=3)
    bench.topic(1, start=0, end=0)
    bench.feed.restart()
    assert sorted(bench.told, key=str) == [("lost", 0), ("lost", 1)]
    assert (bench.feed.is_live, bench.feed.assigned) == (False, 2)
    assert bench.arrive(FakeMessage(12))[0] == [], "of the old topic"
    await turns()
    assert bench.consumer.assigned[1:] == [{0: 1, 1: 0}]
    assert bench.told[2:] == [("live", [1])]
    assert bench.arrive(FakeMessage(1), FakeMessage(2))[1] == [0]


# Partitions that come and go: a share of them.


@on_bench(broadcast=False)
async def test_feed_subscribes_once_and_reads_nothing_before_it_is_assigned(bench: Bench) -> None:
    assert bench.feed.set_topic_partitions(4) is False
    assert bench.feed.set_topic_partitions(6) is True
    await turns()
    assert bench.consumer.subscribed == [["market-events"]]
    assert bench.consumer.assigned == []
    assert (bench.feed.assigned, bench.feed.is_partial, bench.feed.is_live) == (0, True, False)
    assert bench.rebalances == 0


async def joined(bench: Bench, *partitions: int) -> None:
    for number in range(4):
        bench.topic(number, start=10, end=12)
    bench.feed.set_topic_partitions(4)
    bench.rebalance("on_assign", *partitions)
    await turns()


@on_bench(broadcast=False)
async def test_feed_assigns_nothing_until_it_knows_where_to_begin(bench: Bench) -> None:
    bench.calls.gate.clear()
    await joined(bench, 0, 2)
    assert bench.consumer.assigned == [{}]
    bench.calls.gate.set()
    await turns()
    assert bench.consumer.assigned == [{}, {0: 10, 2: 10}]
    assert (bench.feed.assigned, bench.feed.is_partial, bench.rebalances) == (2, True, 1)


@on_bench(broadcast=False)
async def test_feed_keeps_gains_and_loses_partitions_in_a_rebalance(bench: Bench) -> None:
    await joined(bench, 0, 1)
    bench.arrive(*(FakeMessage(offset, of=number) for offset in (10, 11, 12) for number in (0, 1)))
    assert bench.feed.is_live
    bench.rebalance("on_revoke", 0, 1)
    assert bench.consumer.unassigned == 1
    assert (bench.feed.assigned, bench.feed.is_live) == (0, False)
    assert bench.told == [], "what comes back at once needs no warm-up"
    bench.rebalance("on_assign", 1, 2)
    assert bench.told == [("lost", 0)]
    assert not bench.feed.is_live
    await turns()
    assert bench.consumer.asked_moments[1:] == [{2: SINCE_MS}]
    assert bench.consumer.assigned[-2:] == [{}, {1: 13, 2: 10}]
    records, done, _ = bench.arrive(FakeMessage(13, of=1), FakeMessage(10, of=2), FakeMessage(13, of=0), end_of(2, 12))
    assert records == [record(1, 13, b"value", True), record(2, 10, b"value", False)]
    assert done == [2]
    assert bench.feed.is_live
    assert bench.rebalances == 3


@on_bench(broadcast=False)
async def test_feed_reads_on_without_asking_when_a_rebalance_changes_nothing(bench: Bench) -> None:
    await joined(bench, 0, 1, 2, 3)
    bench.rebalance("on_revoke", 0, 1, 2, 3)
    bench.rebalance("on_assign", 3, 2, 1, 0)
    await turns()
    assert len(bench.consumer.asked_moments) == 1
    assert bench.consumer.assigned[-1] == {0: 10, 1: 10, 2: 10, 3: 10}
    assert bench.told == []
    assert not bench.feed.is_partial


@on_bench(broadcast=False)
async def test_feed_has_lost_what_is_not_assigned_again(bench: Bench) -> None:
    await joined(bench, 0, 1)
    bench.rebalance("on_lost", 0, 1)
    bench.rebalance("on_assign")
    await turns()
    assert sorted(bench.told, key=str) == [("lost", 0), ("lost", 1)]
    assert bench.consumer.assigned[-1] == {}
    assert (bench.feed.assigned, bench.feed.is_live, bench.feed.lag()) == (0, False, {})


def test_feed_warns_that_it_reads_only_a_part(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(bench: Bench) -> None:
        await joined(bench, 2)
        assert "reading 1 of 4 partitions of market-events" in caplog.text
        caplog.clear()
        bench.rebalance("on_assign")
        assert "reading" not in caplog.text, "one without any says so by not being ready"
        bench.rebalance("on_assign", 0, 1, 2, 3)
        await turns()
        assert "reading" not in caplog.text

    in_bench(main, monkeypatch, broadcast=False)


@on_bench(broadcast=False)
async def test_feed_drops_a_lookup_that_a_new_assignment_has_overtaken(bench: Bench) -> None:
    bench.calls.gate.clear()
    await joined(bench, 0, 1)
    bench.rebalance("on_assign", 2)
    bench.calls.gate.set()
    await turns()
    assert bench.consumer.asked_moments == [{2: SINCE_MS}]
    assert bench.consumer.assigned == [{}, {}, {2: 10}]
    assert list(bench.feed.lag()) == [2]


def answer_despite_the_cancel(bench: Bench) -> None:
    """Python 3.11's wait_for returns the result of a call that is done, even to a task that is cancelled meanwhile."""

    async def run_despite_the_cancel(call: Callable[[], Any], _timeout_seconds: float) -> Any:
        try:
            await bench.calls.gate.wait()
        except asyncio.CancelledError:
            pass
        return call()

    bench.calls.gate.clear()
    bench.calls.run = run_despite_the_cancel  # type: ignore[assignment,method-assign]


@on_bench(broadcast=False)
async def test_feed_drops_a_lookup_that_is_answered_in_the_turn_of_the_new_assignment(bench: Bench) -> None:
    answer_despite_the_cancel(bench)
    await joined(bench, 0, 1)
    bench.rebalance("on_assign", 2)
    bench.calls.gate.set()
    await turns()
    assert bench.consumer.assigned == [{}, {}, {2: 10}]
    assert list(bench.feed.lag()) == [2]


@on_bench(broadcast=False)
async def test_feed_drops_a_lookup_of_partitions_that_were_revoked_meanwhile(bench: Bench) -> None:
    bench.calls.gate.clear()
    await joined(bench, 0, 1)
    bench.rebalance("on_revoke", 0, 1)
    bench.calls.gate.set()
    await turns()
    assert bench.consumer.assigned == [{}], "another member of the group reads them now"
    assert bench.told == []


@on_bench()
async def test_feed_drops_a_lookup_in_a_topic_that_was_made_anew_meanwhile(bench: Bench) -> None:
    answer_despite_the_cancel(bench)
    bench.topic(0, start=10, end=12)
    bench.feed.set_topic_partitions(1)
    await turns()
    bench.feed.restart()
    bench.calls.gate.set()
    await turns()
    assert bench.consumer.assigned == [{0: 10}], "once, by the lookup in the topic there is now"


@on_bench(broadcast=False)
async def test_feed_has_nothing_to_give_back_before_it_was_assigned_anything(bench: Bench) -> None:
    bench.feed.set_topic_partitions(4)
    bench.rebalance("on_revoke")
    bench.topic(0, start=10, end=12)
    bench.rebalance("on_assign", 0)
    await turns()
    assert bench.consumer.assigned[-1] == {0: 10}


@on_bench(broadcast=False)
async def test_feed_asks_no_more_about_partitions_that_were_revoked_meanwhile(bench: Bench) -> None:
    bench.calls.raises.extend([TimeoutError()] * 10)
    await joined(bench, 0, 1)
    bench.rebalance("on_revoke", 0, 1)
    await asyncio.sleep(5)
    assert len(bench.calls.timeouts) == 1


# What goes wrong.


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE])
def test_feed_warms_a_partition_up_again_whose_next_records_are_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    async def main(bench: Bench) -> None:
        await warmed_up(bench, partitions=2)
        bench.arrive(*(FakeMessage(offset, of=number) for offset in (10, 11) for number in (0, 1)))
        assert bench.feed.is_live
        bench.topic(0, start=70, end=90, low=70)
        gone = FakeMessage(None, 0, None, KafkaError(code, "gone"))
        records, done, _ = bench.arrive(gone, FakeMessage(70), FakeMessage(12, of=1))
        assert (records, done) == ([record(1, 12, b"value", True)], [])
        assert bench.told == [("lost", 0)]
        assert not bench.feed.is_live
        await turns()
        assert bench.consumer.assigned[-1] == {1: 13, 0: 70}
        assert bench.arrive(FakeMessage(89)) == ([record(0, 89, b"value", False)], [0], False)
        assert bench.arrive(FakeMessage(90)) == ([record(0, 90, b"value", True)], [], False)
        assert bench.errors == [KafkaError(code).name()]

    in_bench(main, monkeypatch)
    assert "partition 0: the records after offset 11 are gone" in caplog.text


@on_bench()
async def test_feed_tells_nothing_of_a_partition_behind_its_loss(bench: Bench) -> None:
    await warmed_up(bench, end=11)
    bench.topic(0, start=70, end=90, low=70)
    gone = FakeMessage(None, 0, None, KafkaError(KafkaError._AUTO_OFFSET_RESET))
    records, done, _ = bench.arrive(FakeMessage(10), FakeMessage(11), gone)
    # Folded after the partition was forgotten they would make a book that the warm-up then continues over the gap.
    assert not (bench.told and (records or done))
    bench.arrive()
    assert bench.told == [("lost", 0)]


def test_feed_counts_and_logs_other_errors_and_reads_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(bench: Bench) -> None:
        await warmed_up(bench)
        failed = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not allowed")
        unknown = KafkaError(KafkaError._AUTO_OFFSET_RESET, "not read")
        errors = [FakeMessage(None, 0, None, failed), FakeMessage(None, 7, None, unknown)]
        records, _, _ = bench.arrive(FakeMessage(10), *errors, FakeMessage(11))
        assert [record.offset for record in records] == [10, 11]
        assert bench.errors == ["TOPIC_AUTHORIZATION_FAILED", "_AUTO_OFFSET_RESET"]
        assert bench.told == []

    in_bench(main, monkeypatch)
    assert caplog.messages == [
        "consumer: TOPIC_AUTHORIZATION_FAILED: not allowed",
        "consumer: _AUTO_OFFSET_RESET: not read",
    ]


@on_bench()
async def test_feed_tells_of_trouble_only_when_every_broker_is_down(bench: Bench) -> None:
    tell = bench.consumer.properties["error_cb"]
    tell(KafkaError(KafkaError._TRANSPORT, "refused"))
    assert bench.troubles == []
    tell(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert bench.troubles == ["all brokers are down"]
    assert bench.errors == ["_TRANSPORT", "_ALL_BROKERS_DOWN"]


def test_feed_logs_the_same_error_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(bench: Bench) -> None:
        for _ in range(3):
            bench.consumer.properties["error_cb"](KafkaError(KafkaError._TRANSPORT, "refused"))

    in_bench(main, monkeypatch)
    assert caplog.messages == ["consumer: _TRANSPORT: refused"]


# The end.


@on_bench()
async def test_feed_leaves_the_group_at_its_close_and_looks_nothing_up_any_more(bench: Bench) -> None:
    bench.calls.gate.clear()
    await warmed_up(bench)
    bench.calls.gate.set()
    await bench.feed.close(2)
    await turns()
    assert bench.consumer.closed == 2, "the client that is asked, too"
    assert bench.calls.timeouts[-1] == 2
    assert bench.consumer.assigned == []


@on_bench()
async def test_feed_that_read_nothing_yet_can_be_closed(bench: Bench) -> None:
    await bench.feed.close(2)
    assert bench.consumer.closed == 2, "the client that is asked, too"


@pytest.mark.parametrize("broadcast", [True, False])
def test_feed_takes_no_partitions_after_its_close(monkeypatch: pytest.MonkeyPatch, broadcast: bool) -> None:
    async def main(bench: Bench) -> None:
        await bench.feed.close(2)
        # The bus may become reachable, or the other topic be read to its end, while the process is ending.
        assert not bench.feed.set_topic_partitions(4)
        await turns()
        assert (bench.consumer.assigned, bench.consumer.subscribed) == ([], [])

    in_bench(main, monkeypatch, broadcast=broadcast)


@pytest.mark.parametrize(
    "error", [TimeoutError("late"), KafkaException(KafkaError(KafkaError._STATE)), RuntimeError("closed already")]
)
def test_feed_raises_nothing_at_its_close(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def main(bench: Bench) -> None:
        bench.calls.raises.append(error)
        await bench.feed.close(2)

    in_bench(main, monkeypatch)
    assert "the consumer did not close in time" in caplog.text


# Properties of the client.


@on_bench(extra={"fetch.wait.max.ms": 77, "group.id": "theirs", "error_cb": "theirs", "auto.offset.reset": "error"})
async def test_feed_lets_the_operator_set_properties_but_not_its_group_and_callback(bench: Bench) -> None:
    properties = bench.consumer.properties
    assert (properties["fetch.wait.max.ms"], properties["group.id"]) == (77, "gateway")
    assert callable(properties["error_cb"])


@on_bench()
async def test_feed_sees_a_gap_instead_of_jumping_over_it_and_commits_nothing(bench: Bench) -> None:
    properties = bench.consumer.properties
    assert (properties["auto.offset.reset"], properties["enable.auto.commit"]) == ("error", False)
    assert properties["enable.partition.eof"] is True
    assert properties["fetch.wait.max.ms"] == 100


@on_bench(embedded=True)
async def test_feed_asks_the_embedded_cluster_often_because_it_wakes_nobody(bench: Bench) -> None:
    assert bench.consumer.properties["fetch.wait.max.ms"] == 5


def test_feed_logs_what_it_is_assigned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def main(bench: Bench) -> None:
        await joined(bench, 2, 0)
        bench.rebalance("on_revoke", 2, 0)

    with caplog.at_level(logging.INFO):
        in_bench(main, monkeypatch, broadcast=False)
    assert "rebalance: assigned partitions [0, 2] of market-events" in caplog.messages
    assert "market-events partition 2: warm-up from offset 10 to 12" in caplog.messages
    assert "rebalance: revoked partitions [0, 2]" in caplog.messages


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
def test_feed_tells_once_of_a_partition_that_is_not_read_for_five_seconds_and_once_when_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async def main(bench: Bench) -> None:
        await warmed_up(bench)
        tell = bench.consumer.properties["stats_cb"]
        tell(READ)
        for _ in range(4):
            bench.now += 1.2
            tell(text)
        assert bench.unread == []
        bench.now += 0.2
        for _ in range(3):
            tell(text)
        assert bench.unread == [{0}]
        tell(READ)
        tell(READ)
        assert bench.unread == [{0}, set()]

    in_bench(main, monkeypatch)
    assert [text for text in caplog.messages if "not being read" in text] == ["partitions [0] are not being read"]


@on_bench()
async def test_feed_takes_a_broker_that_answers_nothing_for_five_seconds_for_dead(bench: Bench) -> None:
    await warmed_up(bench)
    tell = bench.consumer.properties["stats_cb"]
    tell(READ)
    for idle_seconds in (1.0, 2.0, 3.0, 4.0, 4.9):
        bench.now += 1.0 if idle_seconds < 4.5 else 0.9
        tell(statistics((0, "active", 1), idle_seconds=idle_seconds))
    assert bench.unread == []
    bench.now += 0.3
    tell(statistics((0, "active", 1), idle_seconds=5.2))
    assert bench.unread == [{0}], "frozen, but connected"


@on_bench()
async def test_feed_judges_each_partition_and_none_before_it_could_be_read(bench: Bench) -> None:
    tell = bench.consumer.properties["stats_cb"]
    tell(statistics(state="DOWN"))
    bench.now += 60
    tell(statistics(state="DOWN"))
    assert bench.unread == []
    await warmed_up(bench, partitions=2)
    tell(statistics((0, "active", 1), (1, "active", 2)))
    bench.now += 4
    tell(statistics((0, "active", 1), (1, "active", 2)))
    assert bench.unread == []
    bench.now += 2
    tell(statistics((0, "active", 1), (1, "active", 2)))
    assert bench.unread == [{1}]


@on_bench(broadcast=False)
async def test_feed_gives_a_partition_that_comes_back_its_time(bench: Bench) -> None:
    await joined(bench, 0)
    tell = bench.consumer.properties["stats_cb"]
    tell(READ)
    bench.rebalance("on_revoke", 0)
    bench.rebalance("on_assign")
    await turns()
    bench.now += 100
    bench.rebalance("on_assign", 0)
    await turns()
    tell(UNREAD["the fetcher has stopped"])
    assert bench.unread == []


@on_bench()
async def test_feed_says_where_its_reading_begins_before_anything_is_read(bench: Bench) -> None:
    await warmed_up(bench, partitions=2, start=10, end=12)
    assert bench.begun == [(0, 10), (1, 10)]
