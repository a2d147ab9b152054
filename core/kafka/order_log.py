"""Order commands on their way to Kafka: produced once, answered after the acknowledgement, truthful about the rest.

The invariant (docs/contract.md#written-or-not): `BusUnavailable` only where the record is certainly not on the topic,
`OutcomeUnknown` for everything else that is not an acknowledgement. Purges and time-outs are unknown: records purged
"unsent" from a frozen broker's queue have been seen on the topic after it thawed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from core.errors import BusUnavailable, OutcomeUnknown
from core.kafka.clients import REQUESTS_UNDER_WAY, Calls, Property, common_properties, describe, patient
from core.log_throttle import QuietLog
from core.messages.feed_record import Headers, Written

log = logging.getLogger("gateway.kafka")

T = TypeVar("T")

CERTAINLY_NOT_WRITTEN = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_RECORD}
)

# librdkafka gives up on a record this long before its waiting client is answered anyway.
GIVE_UP_EARLIER_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class _Pending:
    order_id: str
    future: asyncio.Future[Written]
    produced_at: float
    deadline: float


class OrderLog:
    """The producer of the order topic. `poll` has to be called often while `outstanding` is not zero.

    A command goes at once if no other is under way; those that come meanwhile go together when something is reported, or
    with the next beat.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        extra: Mapping[str, Property],
        *,
        ack_timeout_seconds: float,
        calls: Calls,
        is_reachable: Callable[[], bool],
        on_trouble: Callable[[str], None],
        on_ack_seconds: Callable[[float], None],
        embedded: bool = False,
        linger_ms: int = 0,
        partition: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`linger_ms`: so long a record waits in the client for others to go with it. `partition`: where all go; None: by their keys."""
        self._topic = topic
        self._where: dict[str, Any] = {} if partition is None else {"partition": partition}
        self._ack_timeout_seconds = ack_timeout_seconds
        self._calls = calls
        self._is_reachable = is_reachable
        self._on_trouble = on_trouble
        self._on_ack_seconds = on_ack_seconds
        self._clock = clock
        self._properties = {
            "acks": "all",
            "enable.idempotence": True,
            # What is to be joined is held here. The mock cluster hands out one batch a fetch: more for that.
            "linger.ms": max(5, linger_ms) if embedded else linger_ms,
            **REQUESTS_UNDER_WAY,
            "message.timeout.ms": max(1, int((ack_timeout_seconds - GIVE_UP_EARLIER_SECONDS) * 1000)),
            **common_properties(brokers, extra),
            "statistics.interval.ms": 200,
        }
        self._quiet_log = QuietLog(log)
        self._fatal = False
        self._closed = False
        self.warm = False
        self.wake: Callable[[], None] = lambda: None
        # Called when an answer is waited for: whoever waits for the client's reports calls `settle` on the loop.
        self.expect: Callable[[], None] = lambda: None
        # Whether somebody does so now; else the beats have to, and are told by `wake`.
        self.is_awaited: Callable[[], bool] = lambda: False
        self._waiting: deque[_Pending] = deque()
        # What the client reported, from whichever thread, to be looked at on the loop's.
        self._reports: deque[Callable[[], None]] = deque()
        # Commands that wait for company while others are under way, for one beat at most.
        self._held: deque[tuple[_Pending, bytes, bytes | None, Headers | None]] = deque()
        # Those that the client has yet to report on.
        self.under_way = 0
        # By partition the last records that nobody else wrote in between: from where, and the offset behind them.
        self._runs: dict[int, tuple[int, int]] = {}
        self._generation = 0
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        # A replaced producer still calls back while it ends, from another thread: it is not listened to any more.
        self._generation += 1
        mine = self._generation
        return patient(
            Producer,
            {
                **self._properties,
                "error_cb": lambda error: self._report(mine, self._on_error, error),
                "stats_cb": lambda text: self._report(mine, self._on_statistics, text),
            },
        )

    def _report(self, generation: int, look: Callable[[T], None], what: T) -> None:
        if generation == self._generation:
            self._reports.append(partial(look, what))

    @property
    def outstanding(self) -> int:
        """Commands whose answer is still waited for (a few already answered ones may be among them)."""
        return len(self._waiting)

    @property
    def needs_beats(self) -> bool:
        """Whether `poll` has to be called soon and often."""
        return bool(self._waiting) and not self.is_awaited()

    def produce(
        self, order_id: str, symbol: str, command: bytes | None, headers: Headers | None = None
    ) -> asyncio.Future[Written]:
        """Publish one command (None: a tombstone), keyed by symbol; the future ends when its fate is known or its deadline passed.

        Raises `BusUnavailable` at once where nothing was produced. The future may raise `BusUnavailable` or
        `OutcomeUnknown`.
        """
        if self._closed:
            raise BusUnavailable("the gateway is shutting down")
        if not self._is_reachable():
            raise BusUnavailable("Kafka cannot be reached")
        now = self._clock()
        pending = _Pending(order_id, asyncio.get_running_loop().create_future(), now, now + self._ack_timeout_seconds)
        if self.under_way:
            self._held.append((pending, symbol.encode(), command, headers))
            self._waiting.append(pending)
        else:
            self._send(pending, symbol.encode(), command, headers)
            self._waiting.append(pending)
            self._ask_attention()
        return pending.future

    def _ask_attention(self) -> None:
        self.expect()
        if not self.is_awaited():
            self.wake()

    def _send(self, pending: _Pending, key: bytes, command: bytes | None, headers: Headers | None) -> None:
        try:
            self._producer.produce(
                self._topic,
                command,
                key,
                on_delivery=partial(self._hear, self._generation, pending),
                headers=headers,
                **self._where,
            )
        except BufferError as error:
            raise BusUnavailable("the producer's queue is full") from error
        except KafkaException as error:
            if error.args[0].fatal():
                self._fatal = True
            raise BusUnavailable(describe(error.args[0])) from error
        self.under_way += 1

    def poll(self) -> None:
        """Serve delivery reports and deadlines; never blocks."""
        self.serve(0)
        self.settle()
        now = self._clock()
        waiting = self._waiting
        while waiting and (waiting[0].deadline <= now or waiting[0].future.done()):
            pending = waiting.popleft()
            if not pending.future.done():
                self._fail(pending, OutcomeUnknown(pending.order_id, "no acknowledgement in time"))
        if self._fatal:
            self._replace_producer()

    def serve(self, timeout_seconds: float) -> bool:
        """Take the client's reports, and wait for them so long; whether there are any to settle. From any thread."""
        try:
            self._producer.poll(timeout_seconds)
        except KafkaException as error:  # after a fatal error poll() raises, once
            self._report(self._generation, self._on_fatal, error.args[0])
        return bool(self._reports)

    def settle(self) -> None:
        """Look at the reports; what waited for company goes now. On the loop's thread."""
        reports = self._reports
        while reports:
            reports.popleft()()
        held = self._held
        if not held:
            return
        while held:
            pending, key, command, headers = held.popleft()
            try:
                if not self._is_reachable():
                    raise BusUnavailable("Kafka cannot be reached")
                self._send(pending, key, command, headers)
            except BusUnavailable as error:
                if not pending.future.done():
                    self._fail(pending, error)
        self._ask_attention()

    async def close(self, timeout_seconds: float) -> None:
        """Wait for what is outstanding, then purge; what the purge takes is of unknown outcome."""
        self._closed = True
        deadline = self._clock() + timeout_seconds
        while self._waiting and self._clock() < deadline:
            self.poll()
            await asyncio.sleep(0.002)
        if len(self._producer):  # commands, or what the client has yet to tell
            if self._waiting:
                log.warning("closing with %d commands unacknowledged", len(self._waiting))
            self._producer.purge()
            self.serve(0)
            self.settle()
        self._abandon("the gateway is shutting down")

    def _abandon(self, reason: str) -> None:
        while self._waiting:
            pending = self._waiting.popleft()
            if not pending.future.done():
                self._fail(pending, OutcomeUnknown(pending.order_id, reason))

    def _replace_producer(self) -> None:
        """A fatal error ends a producer for good. What it had under way may or may not be on the topic."""
        log.error("the producer failed for good; starting another")
        old, self._fatal, self.warm = self._producer, False, False
        self._abandon("the producer failed for good")
        self.under_way = 0
        self._producer = self._new_producer()
        old.purge()
        asyncio.get_running_loop().create_task(self._retire(old))

    async def _retire(self, producer: Producer) -> None:
        try:
            await self._calls.run(lambda: producer.flush(1.0), 1.0)
        except TimeoutError:
            log.warning("the failed producer did not end in time")
        except KafkaException as error:
            log.warning("the failed producer ended with %s", describe(error.args[0]))

    # The client's callbacks come out of its poll(), on whichever thread calls it, and only put down what is to be looked at.

    def _hear(self, generation: int, pending: _Pending, error: KafkaError | None, message: Message) -> None:
        self._reports.append(partial(self._on_delivery, generation, pending, error, message))

    def _on_delivery(self, generation: int, pending: _Pending, error: KafkaError | None, message: Message) -> None:
        if generation == self._generation:
            self.under_way -= 1
        written = self._note_written(message) if error is None else None
        if pending.future.done():
            return
        if error is None:
            assert written is not None
            self._on_ack_seconds(self._clock() - pending.produced_at)
            pending.future.set_result(written)
        elif error.code() in CERTAINLY_NOT_WRITTEN:
            self._fail(pending, BusUnavailable(describe(error)))
        else:
            self._fail(pending, OutcomeUnknown(pending.order_id, describe(error)))

    def _note_written(self, message: Message) -> Written:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        if offset is None or offset < 0:
            return Written(partition, -1)  # a repeat of what the broker had already; it does not say where
        since, end = self._runs.get(partition, (offset, offset))
        if offset != end:
            since = offset
        self._runs[partition] = since, offset + 1
        return Written(partition, since)

    @staticmethod
    def _fail(pending: _Pending, error: BusUnavailable | OutcomeUnknown) -> None:
        pending.future.set_exception(error)
        pending.future.exception()  # seen: a client that left before its answer must not leave a warning in the log

    def _on_fatal(self, error: KafkaError) -> None:
        log.error("producer: %s", describe(error))
        self._fatal = True

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._on_trouble("all brokers are down")
        elif not error.fatal():
            # One broker of several: the others take over, and whoever says that the bus is away refuses their orders.
            self._quiet_log.warning(error.name(), "producer: %s", describe(error))

    def _on_statistics(self, text: str) -> None:
        # The first record waits for a producer id; only the statistics tell when it has come.
        if not self.warm:
            self.warm = json.loads(text).get("eos", {}).get("idemp_state") == "Assigned"
