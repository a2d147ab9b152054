"""The state topic of a real Kafka, with rooms of a test's own: who writes, what is seen of it, and what is not used."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer

from core.kafka.state_interfaces import Place
from core.kafka.state_keeper import GENERATIONS_KEPT, StateKeeper
from core.kafka.state_reader import Progress, Wanted
from core.kafka.state_topic import ready_topic
from core.messages.kept_state import VERSION
from tests.core.kept_rooms import FakeRoom, FakeTopics
from tools.kafka.running import RunningKafka, quiet_client

PARTITIONS = 2
DEADLINE_SECONDS = 30.0


@pytest.fixture
def topic() -> str:
    return f"gateway-state-{uuid.uuid4().hex[:12]}"


class Counts:
    """As `KeeperObserver`."""

    def __init__(self) -> None:
        self.written = 0
        self.unused: list[str] = []

    def state_written(self, records: int, size: int, seconds: float) -> None:
        self.written += records

    def state_restored(self, records: int, size: int, seconds: float) -> None:
        pass

    def state_unused(self, why: str) -> None:
        self.unused.append(why)


class Instance:
    """One process's keeper, with a room of each kind."""

    def __init__(self, kafka: RunningKafka, topic: str, topics: FakeTopics | None = None) -> None:
        self.topics = topics or FakeTopics(PARTITIONS)
        self.counts = Counts()
        self.keeper = StateKeeper(
            kafka.bootstrap,
            topic,
            {},
            {},
            self.topics,
            self.counts,
            interval_seconds=0.1,
            give_way=lambda: asyncio.sleep(0),
        )
        self.market, self.orders = FakeRoom("symbol"), FakeRoom("order")
        self.keeper.rooms = [self.market, self.orders]
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Restore all there is, and take part from then on."""
        numbers = sorted(self.topics.at)
        market = await self.keeper.restore("market", self.market, numbers)
        await self.keeper.restore("orders", self.orders, numbers)
        for number, cursor in market.items():
            self.topics.begun[number] = self.topics.at[number] = cursor.market
        self._running = asyncio.create_task(self.keeper.run())

    def read_on(self, records: int) -> None:
        self.topics.at = {number: at + records for number, at in self.topics.at.items()}

    @property
    def writer_of(self) -> list[int]:
        writer_of: list[int] = self.keeper.health()["writer_of"]
        return writer_of

    async def writes(self, *partitions: int) -> None:
        await until(lambda: self.writer_of == list(partitions))

    async def written(self) -> None:
        """Return when a moment from now on is on the topic."""
        now = asyncio.get_running_loop().time()
        await until(
            lambda: all(
                writer.committed_at is not None and writer.committed_at > now
                for writer in self.keeper._writers.values()
            )
        )

    def freeze(self) -> None:
        """Stop the keeping, and leave everything as it is; others think that it is dead."""
        assert self._running is not None
        self._running.cancel()

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
        await self.keeper.write_last()
        await self.keeper.close()


class CountedReader:
    """Notes for how many each reading of an instance is, and has it wait for a sign if it is to be looked at while it goes on."""

    def __init__(self, instance: Instance) -> None:
        self.wanted: list[int] = []
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self._reader = instance.keeper.restored._reader
        instance.keeper.restored._reader = self  # type: ignore[assignment]

    async def read(self, wanted: list[Wanted], progress: Progress) -> None:
        self.wanted.append(len(wanted))
        self.begun.set()
        await self.may_go_on.wait()
        await self._reader.read(wanted, progress)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.02)


class Stage:
    """Instances on one state topic of one Kafka; `close` ends them all."""

    def __init__(self, kafka: RunningKafka, topic: str) -> None:
        self.kafka = kafka
        self.topic = topic
        self._made: list[Instance] = []

    def instance(self, topics: FakeTopics | None = None) -> Instance:
        self._made.append(Instance(self.kafka, self.topic, topics))
        return self._made[-1]

    def produce(self, partition: int, key: bytes, value: bytes) -> None:
        """One record as nobody but a gateway should write it."""
        producer = Producer(quiet_client(self.kafka.bootstrap))
        producer.produce(self.topic, value, key, partition)
        assert producer.flush(DEADLINE_SECONDS) == 0

    async def close(self) -> None:
        for one in self._made:
            await one.close()


def scene(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> Callable[[RunningKafka, str], None]:
    """A test on a stage of its own."""

    def run(real_kafka: RunningKafka, topic: str) -> None:
        async def whole() -> None:
            stage = Stage(real_kafka, topic)
            try:
                await test(stage)
            finally:
                await stage.close()

        real_kafka.create_topic("market", PARTITIONS, exist_ok=True)
        try:
            asyncio.run(whole())
        finally:
            try:
                real_kafka.delete_topic(topic)
            except KafkaException:
                pass  # it was not made

    return run


@scene
async def test_what_one_instance_knew_another_takes_back(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    for number in range(300):
        first.orders.set(number % PARTITIONS, f"id-{number}", {"number": number})
    first.market.set(0, "KCN/EUR", {"price": "10.5"})
    first.read_on(100)
    await first.writes(0, 1)
    first.orders.set(1, "id-1", "changed")
    first.orders.remove(0, "id-2")
    first.read_on(10)
    await first.written()
    second = stage.instance()
    await second.start()
    assert second.orders.values == first.orders.values
    assert second.market.values == first.market.values
    assert second.market.cursors[0].market == 110
    assert second.keeper.health()["restored"]


@scene
async def test_rooms_that_want_it_at_once_share_one_reading(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.orders.set(0, "id-0", "an order")
    first.market.set(1, "KCN/EUR", {"price": "10.5"})
    first.read_on(1)
    await first.writes(0, 1)
    await first.written()
    second = stage.instance()
    reading = CountedReader(second)
    reading.may_go_on.set()
    await asyncio.gather(
        second.keeper.restore("market", second.market, [0, 1]), second.keeper.restore("orders", second.orders, [0, 1])
    )
    assert (second.market.values, second.orders.values) == (first.market.values, first.orders.values)
    assert reading.wanted == [2]


@scene
async def test_room_that_gives_up_leaves_the_shared_reading_to_the_other(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.orders.set(0, "id-0", "an order")
    first.market.set(1, "KCN/EUR", {"price": "10.5"})
    first.read_on(1)
    await first.writes(0, 1)
    await first.written()
    second = stage.instance()
    reading = CountedReader(second)
    market = asyncio.create_task(second.keeper.restore("market", second.market, [0, 1]))
    orders = asyncio.create_task(second.keeper.restore("orders", second.orders, [0, 1]))
    await reading.begun.wait()
    market.cancel()
    await asyncio.wait([market])
    reading.may_go_on.set()
    assert set(await orders) == {0, 1}
    assert second.orders.values == first.orders.values
    assert (second.market.values, second.market.cursors) == ({}, {})
    assert reading.wanted == [2]


@scene
async def test_last_writing_has_what_came_up_to_the_end(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    await first.writes(0, 1)
    first.orders.set(0, "last", 1)
    first.read_on(1)
    await first.close()
    second = stage.instance()
    await second.start()
    assert second.orders.values == {(0, "last"): 1}


@scene
async def test_successor_writes_what_changed_since_the_last_cursor(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.orders.set(0, "old", "old")
    first.orders.set(0, "gone", "gone")
    first.read_on(5)
    await first.writes(0, 1)
    await first.written()
    second = stage.instance()
    await second.start()
    first.freeze()
    # What both read, and the frozen one cannot write any more.
    second.read_on(5)
    second.orders.set(0, "new", "new")
    second.orders.remove(0, "gone")
    await first.close()
    await second.writes(0, 1)
    await second.written()
    assert second.counts.written < 20
    third = stage.instance()
    await third.start()
    assert third.orders.values == {(0, "old"): "old", (0, "new"): "new"}


@scene
async def test_frozen_writer_whose_place_was_taken_writes_nothing(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.orders.set(0, "kept", 1)
    first.read_on(5)
    await first.writes(0, 1)
    await first.written()
    first.freeze()
    frozen = first.keeper._writers[0]._producer
    assert frozen is not None
    frozen.begin_transaction()
    frozen.produce(stage.topic, b'"of the frozen one"', b"order/kept", 0)
    frozen.flush(DEADLINE_SECONDS)
    # What it has under way is ended by whoever takes over, as Kafka does for a transactional id that is used again.
    second = Producer({**quiet_client(stage.kafka.bootstrap), "transactional.id": f"{stage.topic}-0"})
    second.init_transactions(DEADLINE_SECONDS)
    with pytest.raises(KafkaException):
        frozen.commit_transaction(DEADLINE_SECONDS)
    third = stage.instance()
    await third.start()
    assert third.orders.values == {(0, "kept"): 1}


@scene
async def test_fenced_writer_begins_anew_from_what_the_topic_says(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.read_on(5)
    await first.writes(0, 1)
    Producer({**quiet_client(stage.kafka.bootstrap), "transactional.id": f"{stage.topic}-0"}).init_transactions(
        DEADLINE_SECONDS
    )
    first.orders.set(0, "later", 1)
    first.read_on(5)
    await first.writes(1)
    first.keeper._writers[0].retry_at = 0.0
    await first.writes(0, 1)
    await first.written()
    second = stage.instance()
    await second.start()
    assert second.orders.values == {(0, "later"): 1}


@pytest.mark.parametrize(
    ("why", "told"),
    [("epoch", "made again"), ("retention", "no longer have"), ("topics", "of the topics"), ("version", "version")],
)
def test_state_that_does_not_fit_is_left_and_told_once_a_partition(
    real_kafka: RunningKafka, topic: str, why: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    @scene
    async def unfit(stage: Stage) -> None:
        first = stage.instance()
        await first.start()
        first.orders.set(0, "id", 1)
        first.read_on(5)
        await first.writes(0, 1)
        await first.written()
        await first.close()
        topics = FakeTopics(PARTITIONS)
        if why == "epoch":
            topics.lives = ("market-2", "orders-1")
        elif why == "retention":
            topics.low = {0: 6, 1: 6}
        elif why == "topics":
            topics.names = ("another", "orders")
        else:
            for number in range(PARTITIONS):
                stage.produce(number, b"cursor", b'{"version": %d}' % (VERSION + 1))
        caplog.clear()
        second = stage.instance(topics)
        with caplog.at_level(logging.WARNING):
            await second.start()
        assert second.counts.unused == [why] * PARTITIONS
        assert second.orders.values == {} and second.orders.cursors == {}
        assert not second.keeper.health()["restored"]
        assert len([record for record in caplog.records if told in record.getMessage()]) == PARTITIONS

    unfit(real_kafka, topic)


@scene
async def test_record_that_cannot_be_read_costs_its_partition_alone(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.orders.set(0, "id", 1)
    first.orders.set(1, "id", 1)
    first.read_on(5)
    await first.writes(0, 1)
    await first.written()
    await first.close()
    stage.produce(0, b"order/broken", b"{")
    second = stage.instance()
    await second.start()
    assert second.counts.unused == ["poisoned"]
    assert second.orders.values == {(1, "id"): 1}
    assert list(second.orders.cursors) == [1]


@pytest.mark.parametrize("why", ["poisoned", "retention"])
def test_state_that_nobody_can_use_is_written_anew(real_kafka: RunningKafka, topic: str, why: str) -> None:
    @scene
    async def spoilt(stage: Stage) -> None:
        first = stage.instance()
        await first.start()
        first.orders.set(0, "old", 1)
        first.read_on(5)
        await first.writes(0, 1)
        await first.written()
        await first.close()
        if why == "poisoned":
            for number in range(PARTITIONS):
                stage.produce(number, b"order/broken", b"{")
        topics = FakeTopics(PARTITIONS)
        topics.begun = topics.at = {0: 6, 1: 6}
        if why == "retention":
            topics.low = topics.begun
        second = stage.instance(topics)
        await second.start()
        assert second.counts.unused == [why] * PARTITIONS
        second.orders.set(0, "new", 2)
        second.read_on(1)
        await second.writes(0, 1)
        await second.written()
        third = stage.instance(topics)
        await third.start()
        assert third.orders.values == {(0, "new"): 2}
        assert third.keeper.health()["restored"]

    spoilt(real_kafka, topic)


@scene
async def test_what_nobody_wrote_of_a_former_life_is_forgotten(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.orders.set(0, "of the first life", 1)
    first.read_on(5)
    await first.writes(0, 1)
    await first.written()
    await first.close()
    topics = FakeTopics(PARTITIONS)
    topics.lives = ("market-2", "orders-2")
    second = stage.instance(topics)
    await second.start()
    second.orders.set(0, "of the second", 2)
    second.read_on(1)
    await second.writes(0, 1)
    await second.written()
    third = stage.instance(topics)
    await third.start()
    assert third.orders.values == {(0, "of the second"): 2}


@scene
async def test_instance_that_knows_less_than_what_is_kept_does_not_write_over_it(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.orders.set(0, "old", 1)
    first.read_on(100)
    await first.writes(0, 1)
    await first.written()
    await first.close()
    second = stage.instance()
    second.topics.begun = second.topics.at = {0: 50, 1: 50}
    second._running = asyncio.create_task(second.keeper.run())
    await until(lambda: second.keeper._given_up == {0, 1})
    third = stage.instance()
    await third.start()
    assert third.orders.values == {(0, "old"): 1}


@pytest.mark.parametrize("why", ["poisoned", "retention"])
def test_state_that_is_of_no_use_is_written_anew_by_who_knows_less(
    real_kafka: RunningKafka, topic: str, why: str
) -> None:
    @scene
    async def useless(stage: Stage) -> None:
        first = stage.instance()
        await first.start()
        first.orders.set(0, "old", 1)
        first.read_on(5)
        await first.writes(0, 1)
        await first.written()
        await first.close()
        if why == "poisoned":
            stage.produce(0, b"order/old", b"{")
            stage.produce(1, b"order/old", b"{")
        second = stage.instance()
        second.topics.low = second.topics.begun = second.topics.at = {0: 100, 1: 100}
        if why == "poisoned":
            second.topics.low = {0: 0, 1: 0}
        await second.start()
        assert second.counts.unused == [why] * PARTITIONS
        second.orders.set(0, "new", 2)
        await second.writes(0, 1)
        await second.written()
        third = stage.instance(second.topics)
        await third.start()
        assert third.orders.values == {(0, "new"): 2}

    useless(real_kafka, topic)


class Partial(FakeTopics):
    """Of these partitions of the market nothing is read."""

    unread: frozenset[int] = frozenset()

    def place(self) -> Place | None:
        place = super().place()
        if place is None:
            return None
        market = {number: at for number, at in place.market.items() if number not in self.unread}
        return Place(market, place.events, place.orders)


@scene
async def test_partition_that_was_not_read_for_long_is_taken_over_anew(stage: Stage) -> None:
    topics = Partial(PARTITIONS)
    first = stage.instance(topics)
    await first.start()
    first.orders.set(1, "old", 1)
    first.read_on(5)
    await first.writes(0, 1)
    await first.written()
    topics.unread = frozenset({1})
    first.orders.set(1, "unread", 2)
    for _ in range(GENERATIONS_KEPT + 2):
        await first.keeper._write()
    first.read_on(5)
    topics.unread = frozenset()
    await first.keeper._write()
    for writer in first.keeper._writers.values():
        writer.retry_at = 0.0
    await first.writes(0, 1)
    await first.written()
    second = stage.instance()
    await second.start()
    assert second.orders.values == {(1, "old"): 1, (1, "unread"): 2}


@scene
async def test_partition_that_begins_anew_while_it_is_written_is_written_whole(stage: Stage) -> None:
    first = stage.instance()
    await first.start()
    first.market.set(0, "KCN/EUR", 1)
    first.market.set(1, "A/EUR", 1)
    first.read_on(5)
    await first.writes(0, 1)
    await first.written()
    # As where the market topic is deleted and made again: what was known of it is forgotten, and nobody asks for it.
    first.market.values.clear()
    first.topics.lives, first.topics.is_reachable = ("market-2", "orders-1"), False  # and so nothing is written
    first.topics.begun = first.topics.at = {0: 0, 1: 0}
    assert await first.keeper.restore("market", first.market, range(PARTITIONS)) == {}
    first.topics.is_reachable = True
    first.market.set(1, "B/EUR", 2)
    first.read_on(1)
    await first.writes(0, 1)
    await first.written()
    second = stage.instance(first.topics)
    await second.start()
    assert second.market.values == {(1, "B/EUR"): 2}


@scene
async def test_nothing_is_kept_of_partitions_that_the_market_was_given_since(stage: Stage) -> None:
    await stage.instance().start()
    second = stage.instance()
    await second.start()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await second.keeper.restore("market", second.market, [PARTITIONS]) == {}


@scene
async def test_another_version_s_state_is_not_written_over(stage: Stage) -> None:
    ready_topic(stage.kafka.bootstrap, {}, stage.topic, "market", PARTITIONS)
    stage.produce(0, b"cursor", b'{"version": %d}' % (VERSION + 1))
    first = stage.instance()
    await first.start()
    await first.writes(1)
    await until(lambda: first.keeper._given_up == {0})


@scene
async def test_two_instances_write_every_partition_once(stage: Stage) -> None:
    first, second = stage.instance(), stage.instance()
    await first.start()
    await second.start()
    await until(lambda: sorted(first.writer_of + second.writer_of) == [0, 1] and len(first.writer_of) == 1)
