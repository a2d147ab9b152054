"""Partitions that have been read to their end, and of which something is missing that stands further back."""

from __future__ import annotations

import asyncio

import pytest

from core.kafka.warmup_start import GivenStart
from tests.core.fakes import turns
from tests.core.kafka.fakes import FakeMessage, end_of
from tests.core.kafka.feeds import ScriptedFeed, joined, record, warmed_up, with_feed
from tests.core.kafka.test_feed_trouble import READ, statistics


class Completions:
    """Partitions that lack something, and what is done about it."""

    def __init__(self, *lacking: int) -> None:
        self.lacking = set(lacking)
        self.asked: list[int] = []
        self.begun: list[tuple[int, int]] = []
        self.cancelled: list[int] = []
        self.done = asyncio.Event()
        self.raises: Exception | None = None

    def lacks(self, partition: int) -> bool:
        self.asked.append(partition)
        return partition in self.lacking

    async def complete(self, partition: int, end: int) -> None:
        self.begun.append((partition, end))
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled.append(partition)
            raise
        if self.raises is not None:
            raise self.raises


def test_feed_serves_what_lacks_something_only_when_that_has_been_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Completions(1)

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted, partitions=2)
        _, done, _ = scripted.arrive(*(FakeMessage(offset, of=number) for offset in (10, 11) for number in (0, 1)))
        assert (done, completions.asked) == ([0, 1], [0, 1])
        await turns()
        assert completions.begun == [(1, 12)]
        assert scripted.consumer.assigned[-1] == {0: 12}, "what comes of it waits on the topic"
        assert not scripted.feed.is_live
        # What was on its way all the same, a record or an end, is of no use: it comes again.
        assert scripted.arrive(FakeMessage(12, of=1), end_of(1, 13), FakeMessage(12)) == (
            [record(0, 12, b"value", True)],
            [],
            False,
        )
        completions.done.set()
        await turns()
        assert scripted.consumer.assigned[-1] == {0: 13, 1: 12}
        assert scripted.arrive(FakeMessage(12, of=1)) == ([record(1, 12, b"value", False)], [1], False)
        assert scripted.feed.is_live
        assert scripted.arrive(FakeMessage(13, of=1)) == ([record(1, 13, b"value", True)], [], False)
        assert completions.asked == [0, 1], "once each"

    with_feed(main, monkeypatch, completion=completions)


def test_feed_serves_without_what_could_not_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Completions(0)
    completions.raises = error = RuntimeError("a fault of ours")
    completions.done.set()

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        await turns()
        assert scripted.faults == [("consumer", error, "of market-events")]
        scripted.faults.clear()
        assert scripted.arrive()[1] == [0]
        assert scripted.feed.is_live

    with_feed(main, monkeypatch, completion=completions)


def test_feed_serves_what_it_cannot_be_told_the_lack_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Completions):
        def lacks(self, partition: int) -> bool:
            raise RuntimeError("a fault of ours")

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        assert [where for where, _, _ in scripted.faults] == ["consumer"]
        scripted.faults.clear()
        assert scripted.feed.is_live

    with_feed(main, monkeypatch, completion=Failing())


def test_feed_looks_for_nothing_on_a_partition_that_begins_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Completions(0)

    async def starts(_numbers: list[int]) -> dict[int, GivenStart]:
        return {0: GivenStart(11, None)}

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        scripted.arrive(FakeMessage(11))
        assert (scripted.feed.is_live, completions.asked) == (True, [])

    with_feed(main, monkeypatch, completion=completions, starts=starts)


def test_feed_looks_no_further_on_a_partition_that_it_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Completions(0)

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        await turns()
        scripted.feed.restart()
        await turns()
        assert completions.cancelled == [0]
        assert scripted.told == [("lost", 0)]
        assert (scripted.consumer.assigned[-1], scripted.feed.is_live) == ({0: 10}, False)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        await turns()
        assert completions.begun == [(0, 12), (0, 12)], "another partition, which lacks something too"

    with_feed(main, monkeypatch, completion=completions)


def test_feed_serves_nothing_lost_by_a_search_that_ends_despite_its_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Completions):
        async def complete(self, partition: int, end: int) -> None:
            try:
                await super().complete(partition, end)
            except asyncio.CancelledError:
                pass  # as a wait whose answer came in the same turn

    async def main(scripted: ScriptedFeed) -> None:
        await joined(scripted, 0)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        await turns()
        scripted.rebalance("on_assign", 2)
        await turns()
        assert scripted.told == [("lost", 0)]
        assert scripted.consumer.assigned[-1] == {2: 10}
        assert scripted.arrive()[1] == []

    with_feed(main, monkeypatch, broadcast=False, completion=Deaf(0))


def test_feed_goes_on_looking_through_a_rebalance_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Completions(0)

    async def main(scripted: ScriptedFeed) -> None:
        await joined(scripted, 0)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        await turns()
        scripted.rebalance("on_revoke", 0)
        scripted.rebalance("on_assign", 0)
        await turns()
        assert scripted.consumer.assigned[-1] == {}, "nothing of it is read meanwhile"
        completions.done.set()
        await turns()
        assert scripted.consumer.assigned[-1] == {0: 12}
        scripted.arrive()
        assert (scripted.feed.is_live, completions.begun, completions.cancelled) == (True, [(0, 12)], [])

    with_feed(main, monkeypatch, broadcast=False, completion=completions)


def test_feed_takes_no_partition_for_unread_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Completions(0)

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        tell = scripted.consumer.properties["stats_cb"]
        tell(READ)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        await turns()
        scripted.now += 60
        tell(statistics((0, "stopped", 1)))
        completions.done.set()
        await turns()
        tell(statistics((0, "stopped", 1)))
        assert scripted.unread == [], "it gets its time to be read again"
        scripted.now += 6
        tell(statistics((0, "stopped", 1)))
        assert scripted.unread == [{0}]

    with_feed(main, monkeypatch, completion=completions)


def test_feed_ends_the_search_at_its_close(monkeypatch: pytest.MonkeyPatch) -> None:
    completions = Completions(0)

    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        await turns()
        await scripted.feed.close(1.0)
        await turns()
        assert completions.cancelled == [0]

    with_feed(main, monkeypatch, completion=completions)
