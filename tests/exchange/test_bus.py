"""What the bus does when its producer fails, with producers that do so on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from exchange.bus import Bus, BusOptions
from tests.exchange.conftest import Cluster, Topics

FATAL = KafkaError(KafkaError._FATAL, "out of order", fatal=True)
EVENT = {"type": "fill", "symbol": "A/B"}


class FailingProducer:
    """Keeps what it is given; `fails_in` names the method that ends it, as librdkafka's fatal errors do."""

    def __init__(self, real: Producer) -> None:
        self._real = real
        self.fails_in = ""
        self.kept: list[tuple[bytes, Callable[[KafkaError | None, None], None]]] = []
        self.purged = False

    def produce(self, _topic: str, value: bytes, _key: str, on_delivery: Any) -> None:
        if self.fails_in == "produce":
            raise KafkaException(FATAL)
        self.kept.append((value, on_delivery))

    def poll(self, _timeout_seconds: float) -> int:
        if self.purged:
            for _, on_delivery in self.kept:
                on_delivery(KafkaError(KafkaError._PURGE_QUEUE), None)
            self.kept.clear()
        elif self.fails_in == "poll":
            raise KafkaException(FATAL)
        return 0

    def purge(self) -> None:
        self.purged = True

    def list_topics(self, topic: str, timeout: float) -> Any:
        return self._real.list_topics(topic, timeout=timeout)

    def __len__(self) -> int:
        return len(self.kept)


class Fixture:
    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self.producers: list[FailingProducer] = []
        self._real = cluster.producer
        options = BusOptions(cluster.bootstrap, topics.market, topics.orders)
        self.bus = Bus(options, threading.Event(), producer_class=self._new)
        assert self.bus.connect()

    def _new(self, *_: Any, **__: Any) -> Any:
        self.producers.append(FailingProducer(self._real))
        return self.producers[-1]


@pytest.fixture
def failing(cluster: Cluster, topics: Topics) -> Iterator[Fixture]:
    fixture = Fixture(cluster, topics)
    yield fixture
    fixture.bus.close(0)


def test_bus_starts_another_producer_and_names_the_lost_books_when_polling_fails_for_good(failing: Fixture) -> None:
    failing.bus.publish([EVENT])
    failing.producers[0].fails_in = "poll"
    failing.bus.receive(0)
    assert len(failing.producers) == 2
    assert failing.bus.take_lost_symbols() == ["A/B"]
    assert failing.bus.take_lost_symbols() == []
    assert failing.bus.unacknowledged == 0


def test_bus_gives_an_event_to_another_producer_when_producing_fails_for_good(failing: Fixture) -> None:
    failing.producers[0].fails_in = "produce"
    failing.bus.publish([EVENT])
    assert [len(producer) for producer in failing.producers] == [0, 1]


def test_bus_flush_tells_when_events_are_unconfirmed(failing: Fixture) -> None:
    assert failing.bus.flush(0.05)
    failing.bus.publish([EVENT])
    assert failing.bus.unacknowledged == 1
    assert not failing.bus.flush(0.05)
