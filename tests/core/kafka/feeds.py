"""A feed over a topic of which a test says what is on it, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from core.kafka.feed import Feed
from core.kafka.warmup_start import Warmup
from core.messages.feed_record import Record
from core.messages.times import Times
from tests.core.fakes import run, turns
from tests.core.kafka.fakes import FakeConsumer, FakeMessage, InlineCalls

NOW_MS = 1_700_000_000_000
WARMUP_SECONDS = 3600.0
# A whole minute, which instances that are started together have in common.
SINCE_MS = (NOW_MS - 3_600_000) // 60_000 * 60_000

T = TypeVar("T")


def record(partition: int, offset: int, value: bytes | None, live: bool) -> Record:
    """A record with the time that `FakeMessage` gives."""
    return Record(partition, offset, 1_600_000_000_000, value, live)


class ScriptedFeed:
    """A feed over a topic of which a test says what is on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.calls = InlineCalls()
        self.troubles: list[str] = []
        # What became of partitions, in order, but for those that are served because `arrive` says that it folded them in.
        self.told: list[tuple[str, object]] = []
        self._folds = False
        self.begun: list[tuple[int, int]] = []
        self.unread: list[set[int]] = []  # what was told, where it was something else than before
        self.looks = 0
        self.now = 5000.0
        self.rebalances = 0
        self.odd_times: list[tuple[str, str, int]] = []
        self.errors: list[str] = []
        self.faults: list[tuple[str, Exception, str]] = []
        monkeypatch.setattr("core.kafka.feed.Consumer", FakeConsumer)
        monkeypatch.setattr("core.kafka.group_membership.Consumer", FakeConsumer)
        self.feed = Feed(
            "127.0.0.1:9",
            "market-events",
            "gateway",
            changes.pop("extra", {}),
            broadcast=changes.pop("broadcast", True),
            warmup=Warmup(WARMUP_SECONDS, 100, changes.pop("warmup_min_records", 0)),
            calls=self.calls,  # type: ignore[arg-type]
            listener=changes.pop("listener", self),
            observer=self,
            tells_unread=True,
            times=Times(lambda: NOW_MS / 1000, lambda *odd: self.odd_times.append(odd)),
            monotonic=lambda: self.now,
            **changes,
        )
        self.consumer: FakeConsumer = self.feed._consumer  # type: ignore[assignment]
        # Whom the feed asks is another client; here it answers from the same topic.
        self.feed.offsets._client = self.consumer  # type: ignore[assignment]

    # As `PartitionListener`.

    def begin(self, partition: int, offset: int) -> None:
        self.begun.append((partition, offset))

    def serve(self, partitions: list[int]) -> None:
        if not self._folds:
            self.told.append(("live", partitions))

    def lose(self, partition: int) -> None:
        self.told.append(("lost", partition))

    def set_unread(self, partitions: set[int]) -> None:
        self.looks += 1
        if partitions != (self.unread[-1] if self.unread else set()):
            self.unread.append(set(partitions))

    # As `FeedObserver`.

    def rebalanced(self) -> None:
        self.rebalances += 1

    def failed(self, error: str) -> None:
        self.errors.append(error)

    def fault(self, where: str, error: Exception, place: str) -> None:
        self.faults.append((where, error, place))

    def suspect(self, trouble: str) -> None:
        self.troubles.append(trouble)

    def topic(self, partition: int, start: int, end: int, low: int = 0) -> None:
        """Partition `partition` holds offsets `low` to `end`; the warm-up begins at `start` by its time."""
        self.consumer.lows[partition] = low
        self.consumer.highs[partition] = end
        before = self.consumer.by_time
        self.consumer.by_time = lambda number, moment: start if number == partition else before(number, moment)

    def arrive(self, *messages: FakeMessage | Callable[[], None]) -> tuple[list[Record], list[int], bool]:
        """One look at the topic by whoever folds in what it has, and then has it served."""
        self.consumer.waiting.extend(messages)
        drained = self.feed.drain()
        if drained[1]:
            self._folds = True
            self.feed.serve(drained[1])
            self._folds = False
        return drained

    @property
    def member(self) -> FakeConsumer:
        """The client that is a member of the group."""
        membership = self.feed._membership
        assert membership is not None
        return membership._consumer  # type: ignore[return-value]

    def rebalance(self, callback: str, *partitions: int) -> None:
        self.member.waiting.append(lambda: self.member.tell(callback, *partitions))
        self.arrive()


def with_feed(
    main: Callable[[ScriptedFeed], Coroutine[Any, Any, T]], monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> T:
    """Run `main` on a scripted in virtual time; a fault that only the loop or the observer hears of fails it."""

    async def whole() -> T:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        scripted = ScriptedFeed(monkeypatch, **changes)
        result = await main(scripted)
        await turns()
        assert (faults, scripted.faults) == ([], [])
        return result

    return run(whole())


Test = Callable[[ScriptedFeed], Coroutine[Any, Any, None]]


def on_feed(**changes: Any) -> Callable[[Test], Callable[[pytest.MonkeyPatch], None]]:
    def decorate(test: Test) -> Callable[[pytest.MonkeyPatch], None]:
        def tested(monkeypatch: pytest.MonkeyPatch) -> None:
            with_feed(test, monkeypatch, **changes)

        return tested

    return decorate


async def warmed_up(scripted: ScriptedFeed, partitions: int = 1, start: int = 10, end: int = 12) -> None:
    for number in range(partitions):
        scripted.topic(number, start, end)
    scripted.feed.set_topic_partitions(partitions)
    await turns()


async def joined(scripted: ScriptedFeed, *partitions: int) -> None:
    for number in range(4):
        scripted.topic(number, start=10, end=12)
    scripted.feed.set_topic_partitions(4)
    scripted.rebalance("on_assign", *partitions)
    await turns()
