"""The exchange's topics: order commands in, market events and accounts out. The only user of confluent_kafka here.

Market events are keyed by symbol, written with acks=all by an idempotent producer, and waited for as long as it takes
(`message.timeout.ms` 0): a delta that is given up is a hole in every reader's book. Where one is lost all the same (a
fatal error of the producer, a record the cluster refuses), `take_lost_symbols` names the books to snapshot again.

Order commands are read by assign() from explicit offsets, without a consumer group. Partitions that are added to the
order topic while this runs are not read.

Accounts are keyed by user, on a compacted topic, which is made where it is missing and may be.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

# Not among the names that the module exports to type checkers.
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from exchange.events import Event, encode

log = logging.getLogger("exchange")

_REQUEST_TIMEOUT_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.25
_MAX_BATCH: Final = 500
# Of a command's headers in the log: how many, and how much of each.
_MAX_HEADERS: Final = 8
_MAX_HEADER: Final = 120
# Names of librdkafka's in-process clusters begin so. Such a cluster does not wake a waiting fetch when a record
# arrives, so the wait itself must be short; a real one does, and short waits would only cost both sides.
_IN_PROCESS_CLUSTER: Final = "mockCluster"


@dataclass(frozen=True, slots=True)
class BusOptions:
    """`properties` are librdkafka's, for both clients (SASL, TLS), and win over what is set here."""

    brokers: str
    topic: str = "market-events"
    order_topic: str = "order-commands"
    account_topic: str = ""
    from_beginning: bool = False
    # A line in the log for each command that is read, with what its record's headers say of where it came from.
    logs_commands: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)


class Throttle:
    """Lets one line a minute and key through, and tells how many it held back since."""

    def __init__(self, clock: Callable[[], float], period_seconds: float = 60.0) -> None:
        self._clock = clock
        self._period_seconds = period_seconds
        self._last: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def warn(self, key: str, detail: str = "") -> None:
        now = self._clock()
        if key in self._last and now - self._last[key] < self._period_seconds:
            self._held_back[key] = self._held_back.get(key, 0) + 1
            return
        self._last[key] = now
        held_back = self._held_back.pop(key, 0)
        log.warning("%s%s%s", key, f": {detail}" if detail else "", f" ({held_back} more like it)" if held_back else "")


class Bus:
    """Not thread-safe but for `stop`, which ends every wait in here within a fraction of a second."""

    def __init__(
        self, options: BusOptions, stop: threading.Event, producer_class: Callable[..., Producer] = Producer
    ) -> None:
        self._options = options
        self._stop = stop
        self._producer_class = producer_class
        self._throttle = Throttle(time.monotonic)
        self._producer: Producer | None = None
        self._consumer: Consumer | None = None
        self._lost: set[str] = set()
        self._lost_accounts: set[str] = set()

    @property
    def unacknowledged(self) -> int:
        """Events that Kafka has not yet confirmed."""
        return len(self._producer) if self._producer is not None else 0

    def connect(self) -> bool:
        """Wait for Kafka and both topics, then begin to read orders. False if stopped meanwhile."""
        self._producer = self._new_producer()
        if self._await_topic(self._options.topic) is None:
            return False
        described = self._await_topic(self._options.order_topic)
        if described is None:
            return False
        partitions, cluster = described
        is_in_process = cluster.startswith(_IN_PROCESS_CLUSTER)
        if self._options.account_topic:
            if not is_in_process:
                self._make_account_topic(len(partitions))
            if self._await_topic(self._options.account_topic) is None:
                return False
        self._consumer = self._new_consumer(5 if is_in_process else 100)
        start = self._starting_offsets(partitions)
        if start is None:
            return False
        self._consumer.assign(start)
        log.info("reading %s from %s", self._options.order_topic, _offsets_text(start))
        return True

    def publish(self, events: Iterable[Event]) -> None:
        """Hand events to the producer, waiting where its queue is full (less than what is left is given up on stop)."""
        for event in events:
            # Without a symbol (a rejected command that had none) the order id still keeps one order's events together.
            symbol = event.get("symbol")
            self._produce(
                self._options.topic, str(symbol or event["order_id"]), encode(event), partial(self._on_lost, symbol)
            )

    def publish_accounts(self, records: Iterable[tuple[str, bytes]]) -> None:
        """As `publish`; of each user, all that the user has."""
        for user_id, value in records:
            self._produce(self._options.account_topic, user_id, value, partial(self._on_lost_account, user_id))

    def read_accounts(self) -> list[bytes | None]:
        """Blocking: the values of all records that are on the account topic; none if stopped meanwhile."""
        described = self._await_topic(self._options.account_topic)
        if described is None:
            return []
        consumer = Consumer(
            {
                **self._common(),
                "group.id": "exchange",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                **self._options.properties,
            },
            logger=log,
        )
        left = set(described[0])
        consumer.assign([TopicPartition(self._options.account_topic, number, OFFSET_BEGINNING) for number in left])
        values = []
        while left and not self._stop.is_set():
            for message in consumer.consume(_MAX_BATCH, _RETRY_SECONDS):
                error = message.error()
                if error is None:
                    values.append(message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition() or 0)
                else:
                    self._throttle.warn(f"cannot read {self._options.account_topic}", error.str())
        consumer.close()
        return values

    def receive(self, timeout_seconds: float) -> list[bytes | None]:
        """The values of the order records that have arrived, waiting for the first one at most so long."""
        assert self._consumer is not None
        self._serve(0)
        first = self._consumer.poll(timeout_seconds)
        if first is None:
            return []
        messages = [first]
        if first.error() is None:
            messages += self._consumer.consume(_MAX_BATCH - 1, 0)
        values = []
        for message in messages:
            error = message.error()
            if error is None:
                values.append(message.value())
                if self._options.logs_commands:
                    log.info(
                        "command %s/%s (%s): %s",
                        message.partition(), message.offset(), _headers_text(message.headers()), message.value(),
                    )  # fmt: skip
            else:
                self._throttle.warn(f"cannot read {self._options.order_topic}", error.str())
        return values

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything published is confirmed; False at the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while self.unacknowledged and time.monotonic() < deadline:
            self._serve(0.05)
        return not self.unacknowledged

    def take_lost_symbols(self) -> list[str]:
        """The symbols of events that were lost since the last call."""
        lost = sorted(self._lost)
        self._lost.clear()
        return lost

    def take_lost_accounts(self) -> list[str]:
        """The users of account records that were lost since the last call."""
        lost = sorted(self._lost_accounts)
        self._lost_accounts.clear()
        return lost

    def close(self, timeout_seconds: float) -> None:
        if self._consumer is not None:
            self._consumer.close()
        if not self.flush(timeout_seconds):
            log.warning("stopped with %d events unconfirmed", self.unacknowledged)

    def _produce(self, topic: str, key: str, value: bytes, on_lost: Callable[[KafkaError], None]) -> None:
        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                on_lost(error)

        while True:
            assert self._producer is not None
            try:
                self._producer.produce(topic, value, key, on_delivery=on_delivery)
                return
            except BufferError:
                if self._stop.is_set():
                    return
                self._serve(0.05)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                on_lost(reason)
                if not reason.fatal():
                    return
                self._replace_producer(reason)

    def _serve(self, timeout_seconds: float) -> None:
        assert self._producer is not None
        try:
            self._producer.poll(timeout_seconds)
        except KafkaException as error:
            # librdkafka's fatal errors of an idempotent producer: it will never send again.
            self._replace_producer(error.args[0])

    def _replace_producer(self, error: KafkaError) -> None:
        log.error("producer failed for good, starting another: %s", error.str())
        assert self._producer is not None
        failed, self._producer = self._producer, self._new_producer()
        failed.purge()
        try:
            failed.poll(0)
        except KafkaException:
            log.debug("the failed producer said so again")

    def _on_lost(self, symbol: str | None, error: KafkaError) -> None:
        self._throttle.warn(f"event lost on the way to {self._options.topic}", error.str())
        if symbol is not None:
            self._lost.add(symbol)

    def _on_lost_account(self, user_id: str, error: KafkaError) -> None:
        self._throttle.warn(f"account lost on the way to {self._options.account_topic}", error.str())
        self._lost_accounts.add(user_id)

    def _make_account_topic(self, partitions: int) -> None:
        """With the cluster's own replication. One that is there already is left as it is."""
        admin = AdminClient({**self._common(), **self._options.properties}, logger=log)
        new = NewTopic(
            self._options.account_topic, partitions, replication_factor=-1, config={"cleanup.policy": "compact"}
        )
        (future,) = admin.create_topics([new], request_timeout=_REQUEST_TIMEOUT_SECONDS).values()
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                self._throttle.warn(f"cannot make {self._options.account_topic}", error.args[0].str())

    def _on_error(self, error: KafkaError) -> None:
        self._throttle.warn("Kafka", error.str())

    def _await_topic(self, topic: str) -> tuple[list[int], str] | None:
        """The topic's partitions and the cluster's name, once there are any; None if stopped."""
        assert self._producer is not None
        said = ""
        while not self._stop.is_set():
            self._serve(0)
            try:
                metadata = self._producer.list_topics(topic, timeout=_REQUEST_TIMEOUT_SECONDS)
            except KafkaException as error:
                waiting = f"waiting for Kafka at {self._options.brokers}"
                detail = error.args[0].str()
            else:
                partitions = sorted(metadata.topics[topic].partitions)
                if partitions:
                    return partitions, metadata.cluster_id or ""
                waiting = f"waiting for the topic {topic} to be created"
                refusal = metadata.topics[topic].error
                detail = refusal.str() if refusal is not None else "it has no partitions"
            if waiting != said:
                log.info("%s (%s)", waiting, detail)
                said = waiting
            self._stop.wait(_RETRY_SECONDS)
        return None

    def _starting_offsets(self, partitions: list[int]) -> list[TopicPartition] | None:
        """Explicit offsets as of now: what is written from here on is read, however late the first fetch is."""
        assert self._consumer is not None
        start: list[TopicPartition] = []
        for partition in partitions:
            position = TopicPartition(self._options.order_topic, partition, OFFSET_BEGINNING)
            while not self._options.from_beginning:
                if self._stop.is_set():
                    return None
                try:
                    _, end = self._consumer.get_watermark_offsets(position, timeout=_REQUEST_TIMEOUT_SECONDS)
                except KafkaException as error:
                    self._throttle.warn(f"cannot find the end of {self._options.order_topic}", error.args[0].str())
                    self._stop.wait(_RETRY_SECONDS)
                    continue
                position.offset = end
                break
            start.append(position)
        return start

    def _new_producer(self) -> Producer:
        return self._producer_class(
            {
                **self._common(),
                "acks": "all",
                "enable.idempotence": True,
                # The in-process cluster gives one batch a fetch, so records must travel in company.
                "linger.ms": 5,
                "message.timeout.ms": 0,
                **self._options.properties,
            },
            logger=log,
        )

    def _new_consumer(self, fetch_wait_ms: int) -> Consumer:
        return Consumer(
            {
                **self._common(),
                # Required by the library; nothing is ever joined or committed.
                "group.id": "exchange",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # If offsets vanish under the reader: repeated orders are dropped, so too much is better than a gap.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": fetch_wait_ms,
                "fetch.error.backoff.ms": 10,
                "fetch.queue.backoff.ms": 10,
                **self._options.properties,
            },
            logger=log,
        )

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._options.brokers,
            "client.id": "exchange",
            # What librdkafka logs while Kafka is away comes through error_cb too, and there it is throttled.
            "log_level": 2,
            "error_cb": self._on_error,
            "reconnect.backoff.max.ms": 500,
        }


def _offsets_text(positions: list[TopicPartition]) -> str:
    return ", ".join(
        f"{position.partition}: {'beginning' if position.offset == OFFSET_BEGINNING else position.offset}"
        for position in positions
    )


def _headers_text(headers: object) -> str:
    """Names and values as they are worth a line, whoever wrote them."""
    if not isinstance(headers, list) or not headers:
        return "no headers"
    told = (f"{name} {value.decode('utf-8', 'replace') if value else value}" for name, value in headers[:_MAX_HEADERS])
    return ascii(", ".join(text[:_MAX_HEADER] for text in told))[1:-1]
