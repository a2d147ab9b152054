"""Partitions that come and go, and what the feed keeps of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.fakes import turns
from tests.core.kafka.fakes import FakeMessage, end_of
from tests.core.kafka.feeds import SINCE_MS, ScriptedFeed, joined, on_feed, record, warmed_up, with_feed

# Partitions that come and go: every partition for itself.


@on_feed()
async def test_feed_reads_a_new_partition_and_the_others_from_where_they_are(
    scripted: ScriptedFeed,
) -> None:
    await warmed_up(scripted)
    scripted.arrive(FakeMessage(10), FakeMessage(11), FakeMessage(12))
    scripted.topic(1, start=3, end=3)
    assert scripted.feed.set_topic_partitions(2) is True
    await turns()
    assert scripted.consumer.asked_moments[1:] == [{1: SINCE_MS}]
    assert scripted.consumer.assigned[1:] == [{0: 13, 1: 3}]
    assert scripted.told == [("live", [1])]
    assert scripted.feed.set_topic_partitions(2) is False
    await turns()
    assert len(scripted.consumer.assigned) == 2
    assert (scripted.feed.assigned, scripted.feed.topic_partitions, scripted.feed.is_partial) == (2, 2, False)


@on_feed()
async def test_feed_forgets_the_partitions_of_a_topic_that_has_fewer(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, partitions=2)
    assert scripted.feed.set_topic_partitions(1) is True
    await turns()
    assert scripted.told == [("lost", 1)]
    assert scripted.consumer.assigned[-1] == {0: 10}


@on_feed()
async def test_feed_forgets_everything_and_warms_up_anew_when_the_topic_is_another_one(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, partitions=2)
    scripted.arrive(*(FakeMessage(offset, of=number) for offset in (10, 11) for number in (0, 1)))
    assert scripted.feed.is_live
    scripted.topic(0, start=1, end=3)
    scripted.topic(1, start=0, end=0)
    scripted.feed.restart()
    assert sorted(scripted.told, key=str) == [("lost", 0), ("lost", 1)]
    assert (scripted.feed.is_live, scripted.feed.assigned) == (False, 2)
    assert scripted.arrive(FakeMessage(12))[0] == [], "of the old topic"
    await turns()
    assert scripted.consumer.assigned[1:] == [{0: 1, 1: 0}]
    assert scripted.told[2:] == [("live", [1])]
    assert scripted.arrive(FakeMessage(1), FakeMessage(2))[1] == [0]


# Partitions that come and go: a share of them.


@on_feed(broadcast=False)
async def test_feed_subscribes_once_and_reads_nothing_before_it_is_assigned(scripted: ScriptedFeed) -> None:
    assert scripted.feed.set_topic_partitions(4) is False
    assert scripted.feed.set_topic_partitions(6) is True
    await turns()
    assert (scripted.member.subscribed, scripted.consumer.subscribed) == ([["market-events"]], [])
    assert scripted.consumer.assigned == []
    assert (scripted.feed.assigned, scripted.feed.is_partial, scripted.feed.is_live) == (0, True, False)
    assert scripted.rebalances == 0


@on_feed(broadcast=False)
async def test_feed_assigns_nothing_until_it_knows_where_to_begin(scripted: ScriptedFeed) -> None:
    scripted.calls.gate.clear()
    await joined(scripted, 0, 2)
    assert scripted.consumer.assigned == []
    scripted.calls.gate.set()
    await turns()
    assert (scripted.consumer.assigned, scripted.member.assigned) == ([{0: 10, 2: 10}], [{}])
    assert (scripted.feed.assigned, scripted.feed.is_partial, scripted.rebalances) == (2, True, 1)


@on_feed(broadcast=False)
async def test_feed_keeps_gains_and_loses_partitions_in_a_rebalance(scripted: ScriptedFeed) -> None:
    await joined(scripted, 0, 1)
    scripted.arrive(*(FakeMessage(offset, of=number) for offset in (10, 11, 12) for number in (0, 1)))
    assert scripted.feed.is_live
    scripted.rebalance("on_revoke", 0, 1)
    assert (scripted.member.unassigned, scripted.consumer.unassigned) == (1, 0)
    assert (scripted.feed.assigned, scripted.feed.is_live) == (2, True)
    assert scripted.told == [], "it reads on until they are shared out anew"
    scripted.rebalance("on_assign", 1, 2)
    assert scripted.told == [("lost", 0)]
    assert not scripted.feed.is_live
    await turns()
    assert scripted.consumer.asked_moments[1:] == [{2: SINCE_MS}]
    assert scripted.consumer.assigned == [{0: 10, 1: 10}, {1: 13, 2: 10}]
    records, done, _ = scripted.arrive(
        FakeMessage(13, of=1), FakeMessage(10, of=2), FakeMessage(13, of=0), end_of(2, 12)
    )
    assert records == [record(1, 13, b"value", True), record(2, 10, b"value", False)]
    assert done == [2]
    assert scripted.feed.is_live
    assert scripted.rebalances == 3


@on_feed(broadcast=False)
async def test_feed_reads_on_without_asking_when_a_rebalance_changes_nothing(scripted: ScriptedFeed) -> None:
    await joined(scripted, 0, 1, 2, 3)
    scripted.rebalance("on_revoke", 0, 1, 2, 3)
    scripted.rebalance("on_assign", 3, 2, 1, 0)
    await turns()
    assert len(scripted.consumer.asked_moments) == 1
    assert scripted.consumer.assigned == [{0: 10, 1: 10, 2: 10, 3: 10}]
    assert scripted.told == []
    assert not scripted.feed.is_partial


@on_feed(broadcast=False)
async def test_feed_has_lost_what_is_not_assigned_again(scripted: ScriptedFeed) -> None:
    await joined(scripted, 0, 1)
    scripted.rebalance("on_lost", 0, 1)
    scripted.rebalance("on_assign")
    await turns()
    assert sorted(scripted.told, key=str) == [("lost", 0), ("lost", 1)]
    assert scripted.consumer.assigned[-1] == {}
    assert (scripted.feed.assigned, scripted.feed.is_live, scripted.feed.lag()) == (0, False, {})


def test_feed_warns_that_it_reads_only_a_part(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        await joined(scripted, 2)
        assert "reading 1 of 4 partitions of market-events" in caplog.text
        caplog.clear()
        scripted.rebalance("on_assign")
        assert "reading" not in caplog.text, "one without any says so by not being ready"
        scripted.rebalance("on_assign", 0, 1, 2, 3)
        await turns()
        assert "reading" not in caplog.text

    with_feed(main, monkeypatch, broadcast=False)


@on_feed(broadcast=False)
async def test_feed_drops_a_lookup_that_a_new_assignment_has_overtaken(scripted: ScriptedFeed) -> None:
    scripted.calls.gate.clear()
    await joined(scripted, 0, 1)
    scripted.rebalance("on_assign", 2)
    scripted.calls.gate.set()
    await turns()
    assert scripted.consumer.asked_moments == [{2: SINCE_MS}]
    assert scripted.consumer.assigned == [{2: 10}]
    assert list(scripted.feed.lag()) == [2]


def answer_despite_the_cancel(scripted: ScriptedFeed) -> None:
    """Python 3.11's wait_for returns the result of a call that is done, even to a task that is cancelled meanwhile."""

    async def run_despite_the_cancel(call: Callable[[], Any], _timeout_seconds: float) -> Any:
        try:
            await scripted.calls.gate.wait()
        except asyncio.CancelledError:
            pass
        return call()

    scripted.calls.gate.clear()
    scripted.calls.run = run_despite_the_cancel  # type: ignore[assignment,method-assign]


@on_feed(broadcast=False)
async def test_feed_drops_a_lookup_that_is_answered_in_the_turn_of_the_new_assignment(scripted: ScriptedFeed) -> None:
    answer_despite_the_cancel(scripted)
    await joined(scripted, 0, 1)
    scripted.rebalance("on_assign", 2)
    scripted.calls.gate.set()
    await turns()
    assert scripted.consumer.assigned == [{2: 10}]
    assert list(scripted.feed.lag()) == [2]


@on_feed(broadcast=False)
async def test_feed_reads_on_while_its_group_waits_for_members_that_it_has_lost(scripted: ScriptedFeed) -> None:
    await joined(scripted, 0)
    scripted.arrive(FakeMessage(10), FakeMessage(11))
    scripted.rebalance("on_lost", 0)
    assert scripted.arrive(FakeMessage(12))[0] == [record(0, 12, b"value", True)]
    assert (scripted.feed.is_live, scripted.told) == (True, [])


@on_feed(broadcast=False)
async def test_feed_looks_on_for_where_to_begin_while_its_group_shares_out_anew(scripted: ScriptedFeed) -> None:
    scripted.calls.gate.clear()
    await joined(scripted, 0, 1)
    scripted.rebalance("on_revoke", 0, 1)
    scripted.calls.gate.set()
    await turns()
    assert scripted.consumer.assigned == [{0: 10, 1: 10}]
    scripted.rebalance("on_assign", 1)
    await turns()
    assert (scripted.told, scripted.consumer.assigned[1:]) == ([("lost", 0)], [{1: 10}])


@on_feed()
async def test_feed_drops_a_lookup_in_a_topic_that_was_made_anew_meanwhile(scripted: ScriptedFeed) -> None:
    answer_despite_the_cancel(scripted)
    scripted.topic(0, start=10, end=12)
    scripted.feed.set_topic_partitions(1)
    await turns()
    scripted.feed.restart()
    scripted.calls.gate.set()
    await turns()
    assert scripted.consumer.assigned == [{0: 10}], "once, by the lookup in the topic there is now"


@on_feed(broadcast=False)
async def test_feed_has_nothing_to_give_back_before_it_was_assigned_anything(scripted: ScriptedFeed) -> None:
    scripted.feed.set_topic_partitions(4)
    scripted.rebalance("on_revoke")
    scripted.topic(0, start=10, end=12)
    scripted.rebalance("on_assign", 0)
    await turns()
    assert scripted.consumer.assigned[-1] == {0: 10}


@on_feed()
async def test_feed_reads_what_it_is_told_to_and_no_other_partition(scripted: ScriptedFeed) -> None:
    for number in range(3):
        scripted.topic(number, start=10, end=10)
    scripted.feed.read_only(frozenset({0, 2}), 3)
    await turns()
    scripted.arrive()
    assert (scripted.consumer.assigned, scripted.feed.is_partial) == ([{0: 10, 2: 10}], True)
    assert (scripted.feed.is_live, scripted.feed.has_been_live()) == (True, True)
    scripted.feed.read_only(frozenset({2}), 3)
    await turns()
    assert scripted.told == [("live", [0, 2]), ("lost", 0)]
    assert scripted.consumer.assigned[-1] == {2: 10}


@on_feed()
async def test_feed_begins_anew_with_a_partition_that_it_reads_and_with_no_other(scripted: ScriptedFeed) -> None:
    await warmed_up(scripted, start=10, end=10)
    scripted.arrive(FakeMessage(10))
    scripted.feed.read_anew(7)
    await turns()
    assert (scripted.told, scripted.feed.positions()) == ([("live", [0])], {0: 11})
    scripted.feed.read_anew(0)
    await turns()
    assert scripted.told == [("live", [0]), ("lost", 0), ("live", [0])]
    assert scripted.feed.positions() == {0: 10}
