"""The state topic, before anything is read of it: is it there, is it what it has to be, and if it is not there, making it.

It is the gateway's own (docs/contract.md#state-topic). Whoever may not make it is told how; one that is there and is not
fit is left as it is, for it may be somebody else's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection

# Not among the names that the module exports to type checkers.
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]

from core.kafka.clients import Calls, Property, common_properties, describe
from core.kafka.state_interfaces import Topics

log = logging.getLogger("gateway.kafka")

ASK_SECONDS: Final = 5.0
MADE_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 30.0

MAX_RECORD_BYTES: Final = 8 * 1024 * 1024

# Beside cleanup.policy: what makes it stay small. Segments are closed soon, for only those are compacted, and are when a
# fifth of them is out of date; a forgotten key's own record goes after an hour, much longer than a reading takes.
SETTINGS: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.2",
    "segment.ms": "600000",
    "segment.bytes": "67108864",
    "delete.retention.ms": "3600000",
    # A book of many levels is one record.
    "max.message.bytes": str(MAX_RECORD_BYTES),
}
_NOT_ALLOWED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


def is_not_allowed(error: KafkaError) -> bool:
    """Whether it is for want of a right, which no other attempt gives."""
    return error.code() in _NOT_ALLOWED


class Unfit(Exception):
    """It cannot be used; the text says why, and what to do, in one line."""


class StateTopic:
    """The topic, looked at until it can be used. problem: a sentence while it cannot, else None.

    `count` are its partitions, 0 before that. `is_new`: made by this process, so that there is nothing on it as long as none is written.
    """

    def __init__(self, brokers: str, extra: Mapping[str, Property], topic: str, topics: Topics, calls: Calls) -> None:
        self.problem: str | None = None
        self.count = 0
        self.is_new = False
        self._brokers = brokers
        self._extra = extra
        self._topic = topic
        self._topics = topics
        self._calls = calls
        self._looking: asyncio.Lock = asyncio.Lock()

    async def look(self) -> bool:
        """Whether it can be used. What is wrong with it is told once. Raises KafkaException and TimeoutError."""
        async with self._looking:
            count = self._topics.partitions()
            if self.count or not count or self._topics.epochs() is None:
                return bool(self.count)
            look = partial(ready_topic, self._brokers, self._extra, self._topic, self._topics.names[0], count)
            try:
                self.is_new = await self._calls.run(look, LOOK_SECONDS)
                if self.is_new:
                    log.info("topic %s was made, with %d partitions", self._topic, count)
            except Unfit as unfit:
                if self.problem is None:
                    log.warning("%s", unfit)
                self.problem = str(unfit)
                return False
            self.count, self.problem = count, None
            return True


class Purpose(NamedTuple):
    """What a topic of the gateway's own is for, in what is told where it cannot be used; and what it is made with beside `SETTINGS`."""

    setting: str
    without: str
    settings: Mapping[str, str] = {}


STATE: Final = Purpose("kafka.state_topic", "no state outlives the warm-up")


def ready_topic(
    brokers: str,
    extra: Mapping[str, Property],
    topic: str,
    market_topic: str,
    partitions: int,
    purpose: Purpose = STATE,
) -> bool:
    """Have the topic there, with so many partitions; whether it was made just now. Replicas are as of the market topic.

    Blocking. Raises Unfit, and KafkaException where the cluster does not answer.
    """
    admin = AdminClient(common_properties(brokers, {"socket.timeout.ms": int(ASK_SECONDS * 1000), **extra}))
    found = _partitions_of(admin, topic, purpose)
    if found is None:
        _make(admin, brokers, topic, market_topic, partitions, purpose)
        return True
    if len(found) != partitions:
        wanted = f"{market_topic} has {partitions}" if purpose is STATE else f"has to have {partitions}"
        raise Unfit(
            f"topic {topic} has {len(found)} partitions and {wanted}: "
            f"it is not used, and left as it is; name another with {purpose.setting}"
        )
    policy = _settings_of(admin, topic).get("cleanup.policy", "compact")
    if policy != "compact":
        raise Unfit(
            f"topic {topic}: cleanup.policy is {policy}, and has to be compact: it is not used, and left as it is"
        )
    return False


def _make(admin: AdminClient, brokers: str, topic: str, market_topic: str, partitions: int, purpose: Purpose) -> None:
    replicas = min((len(one.replicas) for one in _partitions_of(admin, market_topic, purpose) or ()), default=1)
    settings = {**SETTINGS, **purpose.settings}
    in_sync = _settings_of(admin, market_topic).get("min.insync.replicas")
    if in_sync is not None:
        settings["min.insync.replicas"] = in_sync
    new = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, config=settings)
    (future,) = admin.create_topics([new], operation_timeout=ASK_SECONDS, request_timeout=ASK_SECONDS).values()
    try:
        future.result(ASK_SECONDS * 2)
    except KafkaException as error:
        code = error.args[0].code()
        if code != KafkaError.TOPIC_ALREADY_EXISTS:
            if error.args[0].retriable() or code in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                raise
            told = " ".join(f"--config {name}={value}" for name, value in settings.items())
            raise Unfit(
                f"topic {topic} is not there and could not be made ({describe(error.args[0])}): {purpose.without}. "
                f"Make it with: kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} "
                f"--partitions {partitions} --replication-factor {replicas} {told}"
            ) from error
    until = time.monotonic() + MADE_SECONDS
    while time.monotonic() < until:
        found = _partitions_of(admin, topic, purpose)
        if found and all(one.leader is not None and one.leader.id >= 0 for one in found):
            return
        time.sleep(0.05)


def _partitions_of(admin: AdminClient, topic: str, purpose: Purpose) -> list[Any] | None:
    """None where it does not exist. To be asked in this way makes no topic where they are made on first use."""
    (future,) = admin.describe_topics(TopicCollection([topic]), request_timeout=ASK_SECONDS).values()
    try:
        description = future.result(ASK_SECONDS * 2)
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            return None
        if is_not_allowed(error.args[0]):
            raise Unfit(
                f"topic {topic} may not be described ({describe(error.args[0])}): {purpose.without}. "
                f"Grant with: kafka-acls.sh --add --allow-principal User:... --topic {topic} "
                "--operation Describe --operation Read --operation Write --operation Create"
            ) from error
        raise
    return list(description.partitions)


def _settings_of(admin: AdminClient, topic: str) -> dict[str, str]:
    """Nothing where they may not be asked for."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    (future,) = admin.describe_configs([resource], request_timeout=ASK_SECONDS).values()
    try:
        found = future.result(ASK_SECONDS * 2)
    except KafkaException as error:
        if is_not_allowed(error.args[0]):
            return {}
        raise
    return {name: entry.value for name, entry in found.items() if entry.value is not None}
