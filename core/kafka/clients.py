"""What every Kafka client of the gateway has in common: properties, log, errors, and one question asked off the loop.

Blocking calls of confluent-kafka never run on the loop: `Calls.run` gives them to a small pool, with a timeout.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from core.log_throttle import FirstWordFilter

log = logging.getLogger("gateway.kafka")

# librdkafka says "FAIL" at each attempt to reconnect, thirty times a second.
_client_log = logging.getLogger("gateway.librdkafka")
if not _client_log.filters:
    _client_log.addFilter(FirstWordFilter())

Property = str | int | float | bool
T = TypeVar("T")

EMBEDDED = "embedded"


class Calls:
    """Runs blocking client calls on a pool of threads that never holds up the end of the process."""

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="kafka-call")

    async def run(self, call: Callable[[], T], timeout_seconds: float) -> T:
        """Return what `call` returns.

        The call should give up by itself within `timeout_seconds`; one second later its answer is no longer waited
        for. Raises whatever the call raises, and `TimeoutError`.
        """
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(self._pool, call), timeout_seconds + 1.0)

    def leave(self, call: Callable[[], object]) -> None:
        """Have it done, whatever becomes of it."""
        try:
            self._pool.submit(call)
        except RuntimeError:
            pass  # closed: the process is at its end

    def close(self) -> None:
        """Take no more calls; those under way are left to end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)


# For producers. Idempotence allows five requests a partition; with the five that librdkafka (2.16) has by default a broker's thread
# turns in circles, for a whole core, while as many are under way and more records wait: as long as a broker stands still.
REQUESTS_UNDER_WAY: Final = {"max.in.flight.requests.per.connection": 4}


def common_properties(brokers: str, extra: Mapping[str, Property]) -> dict[str, Any]:
    """Properties of every client. `extra` is the operator's and wins."""
    properties: dict[str, Any] = {
        "bootstrap.servers": brokers,
        "client.id": "mexchange-gateway",
        "log_level": 3,
        "logger": _client_log,
        # One pace from the first attempt on: while no broker is there, librdkafka (2.10 and later) makes all of its brokers anew
        # after each round of attempts, and each begins with the least pause. With 100 ms those are 20 a second and client.
        "reconnect.backoff.ms": 500,
        "reconnect.backoff.max.ms": 500,
        "socket.keepalive.enable": True,
        # With librdkafka's 60 s a broker that stands still holds up for a minute what it led: where the partitions are now is asked
        # of any broker, of that one too, and of no other until it has answered.
        "socket.timeout.ms": 10_000,
        "topic.metadata.refresh.interval.ms": 10_000,
        **extra,
    }
    hosts = [host.strip().rpartition(":")[0] for host in brokers.split(",")]
    if "localhost" in hosts and all(host == "localhost" or host.startswith("127.") for host in hosts):
        # "localhost" is ::1, too, where a broker on 127.0.0.1 refuses and costs a reconnect backoff. Not for literal
        # addresses: where loopback is the only interface, v4 alone resolves nothing, not even 127.0.0.1.
        properties.setdefault("broker.address.family", "v4")
    return properties


def problem_of_consumer(properties: Mapping[str, Property]) -> str | None:
    """What librdkafka has against an operator's properties of consumers, in its words; None: nothing. Connects to nobody."""
    try:
        Consumer({"group.id": "check", **_silent(properties)}).close()
    except KafkaException as error:
        return str(error.args[0].str())
    return None


def problem_of_producer(properties: Mapping[str, Property]) -> str | None:
    """The same of producers."""
    try:
        Producer(_silent(properties))
    except KafkaException as error:
        return str(error.args[0].str())
    return None


# By setting.
PROPERTY_CHECKS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "kafka.consumer": problem_of_consumer,
    "kafka.producer": problem_of_producer,
}


def _silent(properties: Mapping[str, Property]) -> dict[str, Any]:
    return {"logger": _client_log, **properties, "log_level": 0}


def patient(kind: Callable[[dict[str, Any]], T], properties: dict[str, Any]) -> T:
    """A client whose threads, when they are woken, wait for their turn instead of taking the core from who has it.

    On Linux (sched(7), SCHED_BATCH); elsewhere, and where that is forbidden, it is as any other. A producer's thread is woken
    by each record that it is given, and on the loop's core it ran at once, for that one record (bench/RESULTS.md, "Orders").
    """
    is_changed = False
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            is_changed = True
    except (AttributeError, OSError):
        pass
    try:
        return kind(properties)  # its threads are begun as the one that begins them
    finally:
        if is_changed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def describe(error: KafkaError) -> str:
    """An error's name and text for a log line, without anything that was configured."""
    return f"{error.name()}: {error.str()}"
