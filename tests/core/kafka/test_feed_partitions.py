"""Partitions that come and go, and what the feed keeps of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.fakes import turns
from tests.core.kafka.fakes import FakeMessage, end_of
from tests.core.kafka.feeds import SINCE_MS, Bench, in_bench, joined, on_bench, record, warmed_up

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
