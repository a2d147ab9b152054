from __future__ import annotations

import logging

import pytest

from core.kafka.feed import Feed
from core.kafka.monitor import BusMonitor
from core.kafka.topic_lifecycle import TopicLifecycle
from tests.core.fakes import run, turns

EVENTS, ORDERS = "market-events", "order-commands"


class FakeMonitor(BusMonitor):
    """What the bus was last known to be, as a test says."""

    def __init__(self) -> None:
        self.connected = True
        self.partitions = {EVENTS: 4, ORDERS: 2}
        self.topic_ids = {EVENTS: "e1", ORDERS: "o1"}
        self.warnings: list[str] = []
        self.asked: list[tuple[str, float]] = []

    async def retention_warnings(self, topic: str, at_least_seconds: float) -> list[str]:
        self.asked.append((topic, at_least_seconds))
        return self.warnings

    async def compaction_warnings(self, topic: str) -> list[str]:
        return self.warnings


class FakeFeed(Feed):
    """A topic that is read to its end when a test says so."""

    def __init__(self, topic: str, is_read: bool = True) -> None:
        self.topic = topic
        self.is_read = is_read
        self.topic_partitions = 0
        self.restarts = 0

    def set_topic_partitions(self, count: int) -> bool:
        before, self.topic_partitions = self.topic_partitions, count
        return before not in (0, count)

    def has_been_live(self) -> bool:
        return self.is_read

    def restart(self) -> None:
        self.restarts += 1


class WatchedTopics:
    def __init__(self, *, is_shared: bool = False) -> None:
        self.monitor = FakeMonitor()
        self.feed = FakeFeed(EVENTS)
        self.order_feed = FakeFeed(ORDERS)
        self.event_feed = FakeFeed(EVENTS) if is_shared else None
        self.gone: list[str] = []
        self.topic_lifecycle = TopicLifecycle(
            self.monitor,
            self.feed,
            self.order_feed,
            self.event_feed,
            boot_id="boot",
            keep_seconds=3600,
            on_order_topic_gone=lambda: self.gone.append(ORDERS),
            on_event_topic_gone=lambda: self.gone.append(EVENTS),
        )

    def look(self) -> None:
        async def look() -> None:
            self.topic_lifecycle.look()
            await turns()

        run(look())

    def partitions(self) -> tuple[int, int]:
        return self.order_feed.topic_partitions, self.feed.topic_partitions


def test_topics_are_read_once_the_bus_answers() -> None:
    watched = WatchedTopics()
    watched.monitor.connected = False
    watched.look()
    assert watched.partitions() == (0, 0)
    watched.monitor.connected = True
    watched.look()
    assert watched.partitions() == (2, 4)
    assert watched.topic_lifecycle.problem is None


def test_market_waits_until_the_order_topic_has_been_read() -> None:
    watched = WatchedTopics(is_shared=True)
    watched.order_feed.is_read = False
    watched.look()
    assert watched.partitions() == (2, 0)
    watched.order_feed.is_read = True
    watched.look()
    assert watched.partitions() == (2, 4)
    assert watched.event_feed is not None
    assert watched.event_feed.topic_partitions == 4


@pytest.mark.parametrize(("missing", "read"), [(ORDERS, (0, 4)), (EVENTS, (2, 0))])
def test_topic_is_read_though_the_other_is_not_there(missing: str, read: tuple[int, int]) -> None:
    watched = WatchedTopics()
    del watched.monitor.partitions[missing]
    watched.look()
    assert watched.partitions() == read


@pytest.mark.parametrize(("topic", "restarts"), [(EVENTS, (0, 1, 1)), (ORDERS, (1, 0, 0))])
def test_topic_that_was_made_again_is_forgotten_and_warmed_up_anew(
    topic: str, restarts: tuple[int, int, int], caplog: pytest.LogCaptureFixture
) -> None:
    watched = WatchedTopics(is_shared=True)
    unserved = FakeFeed(EVENTS)
    watched.topic_lifecycle.feeds.append(unserved)
    watched.look()
    watched.look()
    assert watched.gone == []
    watched.monitor.topic_ids[topic] = "another"
    watched.look()
    watched.look()
    assert watched.gone == [topic]
    assert watched.event_feed is not None
    assert (watched.order_feed.restarts, watched.event_feed.restarts, watched.feed.restarts) == restarts
    assert unserved.restarts == watched.feed.restarts
    assert f"topic {topic} was deleted and made again: warming up anew" in caplog.text


def test_another_number_of_partitions_is_a_problem_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    watched = WatchedTopics()
    watched.look()
    watched.monitor.partitions[EVENTS] = 6
    watched.look()
    watched.look()
    assert watched.topic_lifecycle.problem == "the number of partitions of the market topic has changed: restart"
    assert caplog.text.count("the number of partitions of market-events changed to 6") == 1


def test_epoch_is_of_the_topic_and_its_partitions_or_of_this_start_where_topics_have_no_ids() -> None:
    watched = WatchedTopics()
    watched.look()
    assert watched.topic_lifecycle.epoch() == "e1.4"
    watched.monitor.topic_ids.clear()
    assert watched.topic_lifecycle.epoch() == "boot.4"


def test_retention_of_the_order_topic_is_asked_for_once_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    watched = WatchedTopics()
    watched.monitor.warnings = ["topic order-commands: retention.ms is 1"]
    orders = watched.monitor.partitions.pop(ORDERS)
    watched.look()
    assert watched.monitor.asked == []
    watched.monitor.partitions[ORDERS] = orders
    watched.look()
    watched.look()
    assert watched.monitor.asked == [(ORDERS, 3600)]
    assert [
        record.message for record in caplog.records if record.levelno == logging.WARNING
    ] == watched.monitor.warnings


def test_close_ends_the_asking_and_is_harmless_when_nothing_was_asked() -> None:
    watched = WatchedTopics()
    watched.topic_lifecycle.close()

    async def close_at_once() -> None:
        watched.topic_lifecycle.look()
        watched.topic_lifecycle.close()
        await turns()

    run(close_at_once())
    assert watched.monitor.asked == []
