"""A cluster inside this process, the exchange as a process of its own on it, and a reader of what it publishes."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tools.tied import tied

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20.0


class Cluster:
    """librdkafka's in-process cluster; topics of its own for each user, so that one cluster serves all tests."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 2})
        [broker] = self.producer.list_topics(timeout=DEADLINE_SECONDS).brokers.values()
        self.host, self.port = broker.host, broker.port
        self.bootstrap = f"{broker.host}:{broker.port}"

    def topics(self) -> Topics:
        return Topics(self)


class Topics:
    def __init__(self, cluster: Cluster) -> None:
        name = uuid.uuid4().hex
        self.cluster = cluster
        self.market = f"market-{name}"
        self.orders = f"orders-{name}"
        self._consumer: Consumer | None = None
        self.events: list[dict[str, Any]] = []
        self.keys: list[bytes | None] = []

    def send(self, *values: dict[str, Any] | bytes) -> None:
        """Write order records, and return once the cluster has them."""
        for value in values:
            key = value.get("symbol", "") if isinstance(value, dict) else ""
            body = json.dumps(value).encode() if isinstance(value, dict) else value
            self.cluster.producer.produce(self.orders, body, key)
        assert self.cluster.producer.flush(DEADLINE_SECONDS) == 0

    def wait_for(self, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """All market events from the topic's beginning, as soon as they meet the condition."""
        if self._consumer is None:
            partitions = self.cluster.producer.list_topics(self.market, timeout=DEADLINE_SECONDS).topics[self.market]
            self._consumer = Consumer(
                {
                    "bootstrap.servers": self.cluster.bootstrap,
                    "group.id": "test",
                    "fetch.wait.max.ms": 5,
                    "log_level": 2,
                    "auto.offset.reset": "earliest",
                }
            )
            self._consumer.assign([TopicPartition(self.market, number, 0) for number in partitions.partitions])
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition(self.events):
            assert time.monotonic() < deadline, f"only these came: {self.events[-20:]}"
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                value = message.value()
                assert value is not None
                self.events.append(json.loads(value))
                key = message.key()
                self.keys.append(key.encode() if isinstance(key, str) else key)
        return self.events

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()


class ExchangeProcess:
    """`python -m exchange`; its lines of output can be waited for."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            tied([sys.executable, "-m", "exchange", *arguments]),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.output: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,)) for pipe in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def wait_for_line(self, part: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not any(part in line for line in self.output):
            try:
                self.output.append(self._lines.get(timeout=max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                raise AssertionError(f"no line with {part!r} in {self.output}") from None

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> int:
        """The exit code; `output` is complete afterwards."""
        code = self.process.wait(DEADLINE_SECONDS)
        for reader in self._readers:
            reader.join(DEADLINE_SECONDS)
        while not self._lines.empty():
            self.output.append(self._lines.get())
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self, pipe: Any) -> None:
        for line in pipe:
            self._lines.put(line.decode())


@contextmanager
def running(topics: Topics, *arguments: str, brokers: str = "") -> Iterator[ExchangeProcess]:
    process = ExchangeProcess(
        "--brokers",
        brokers or topics.cluster.bootstrap,
        "--topic",
        topics.market,
        "--order-topic",
        topics.orders,
        "--seed",
        "1",
        *arguments,
    )
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def topics(cluster: Cluster) -> Iterator[Topics]:
    topics = cluster.topics()
    yield topics
    topics.close()
