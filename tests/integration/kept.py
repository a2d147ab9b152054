"""The state topic of a market, as a test sees it: what was written, when all is, and whether it is right."""

from __future__ import annotations

import contextlib
import io
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from core.kafka.state_reader import CURSOR_KEY, read_cursor
from core.messages.kept_state import Cursor
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import settings
from tests.integration.waiting import DEADLINE_SECONDS, wait_until
from tools import state
from tools.kafka.running import RunningKafka, quiet_client

# Of a gateway that knows nothing but what is kept: its warm-up begins with this minute.
ONLY_KEPT: Mapping[str, Any] = {"warmup_seconds": 0, "warmup_min_records": 0}


class KeptTopic:
    """What gateways keep of a market. `records` and `cursors` are what was read so far, by partition."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.topic = f"{market.topic}-state"
        self.records: dict[int, dict[str, bytes | None]] = defaultdict(dict)
        self.cursors: dict[int, list[Cursor]] = defaultdict(list)
        self._consumer: Consumer | None = None

    @classmethod
    @contextmanager
    def of(cls, market: Market, kafka: RunningKafka) -> Iterator[KeptTopic]:
        """That of a market; it is deleted in the end."""
        kept = cls(market)
        try:
            yield kept
        finally:
            if kept._consumer is not None:
                kept._consumer.close()
            with contextlib.suppress(KafkaException):  # nobody made it
                kafka.delete_topic(kept.topic)

    def settings(self, kafka: Mapping[str, Any] | None = None, **more: object) -> dict[str, Any]:
        """Of a gateway that keeps state, soon."""
        ours = {"consume": "broadcast", "state_topic": self.topic, "state_interval_seconds": 0.2}
        return settings(**{"kafka": {**ours, **(kafka or {})}, **more})

    @contextmanager
    def gateway(
        self, kafka: Mapping[str, Any] | None = None, *, wait: bool = True, **more: object
    ) -> Iterator[Gateway]:
        """A gateway with these settings on the market."""
        with Gateway.on(self.market, self.settings(kafka, **more), wait=wait) as gateway:
            yield gateway

    def read(self) -> None:
        """Read on, as far as there is something at hand."""
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    **quiet_client(self.market.bootstrap),
                    "group.id": "reader",
                    "enable.auto.commit": False,
                    "fetch.wait.max.ms": 100,
                    "auto.offset.reset": "error",
                    "isolation.level": "read_committed",
                }
            )
            self._consumer.assign([TopicPartition(self.topic, number, 0) for number in range(self.market.partitions)])
        while messages := self._consumer.consume(1000, 0.05):
            for message in messages:
                number = message.partition()
                if message.error() is not None or number is None:
                    continue
                key, value = (message.key() or b"").decode(), message.value()
                self.records[number][key] = value
                if key == CURSOR_KEY and value is not None:
                    self.cursors[number].append(read_cursor(value))

    def wait_written(self, partitions: Iterable[int] | None = None) -> None:
        """Wait until all that is on both topics now is in what is kept of these partitions (None: of all)."""
        numbers = range(self.market.partitions) if partitions is None else list(partitions)
        events, orders = self._ends(self.market.topic), self._ends(self.market.order_topic)

        def is_written() -> bool:
            self.read()
            cursors = [self.cursors[number][-1] for number in numbers if self.cursors[number]]
            return len(cursors) == len(numbers) and all(
                cursor.market >= events[number]
                and all(cursor.events[partition] >= end for partition, end in events.items())
                and all(cursor.orders[partition] >= end for partition, end in orders.items())
                for number, cursor in zip(numbers, cursors, strict=True)
            )

        self._wait(is_written, "everything is on the state topic")

    def _wait(self, condition: Any, what: str) -> None:
        try:
            wait_until(condition, what)
        except AssertionError as error:
            last = {number: cursors[-1:] for number, cursors in self.cursors.items()}
            raise AssertionError(f"{error}: {last}, {self._ends(self.market.topic)}") from None

    def _ends(self, topic: str) -> dict[int, int]:
        self.read()
        assert self._consumer is not None
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                return {
                    number: self._consumer.get_watermark_offsets(TopicPartition(topic, number), DEADLINE_SECONDS)[1]
                    for number in range(self.market.partitions)
                }
            except KafkaException:
                # A leader that has just been chosen does not know it yet.
                if time.monotonic() > deadline:
                    raise

    def write(self, partition: int, key: str, value: bytes | None) -> None:
        """One record, or that there is none, as nobody but a gateway should write it."""
        producer = Producer(quiet_client(self.market.bootstrap))
        producer.produce(self.topic, value, key, partition)
        assert producer.flush(DEADLINE_SECONDS) == 0

    def check(self) -> tuple[int, str]:
        """Exit code and output of `python -m tools.state`."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = state.main(["--brokers", self.market.bootstrap, "--topic", self.topic])
        return code, output.getvalue()

    def expect_equal(self) -> None:
        """What is kept is what both topics say, of every partition."""
        code, output = self.check()
        assert code == 0 and output.count("  equal\n") == self.market.partitions, output


def wait_writers(gateways: Iterable[Gateway], partitions: int) -> list[list[int]]:
    """Wait until the gateways write every partition once, and each some; which of them each writes."""
    several = list(gateways)

    def shares() -> list[list[int]] | None:
        found = [list(gateway.health()["state"]["writer_of"]) for gateway in several]
        is_whole = sorted(number for share in found for number in share) == list(range(partitions))
        return found if is_whole and all(found) else None

    try:
        return list(wait_until(shares, "each partition is written by one of them, and each has some"))
    except AssertionError as error:
        told = [(gateway.health()["state"], gateway.log) for gateway in several]
        raise AssertionError("\n".join(f"{state}\n{log}" for state, log in told)) from error


def now_ms() -> int:
    return int(time.time() * 1000)
