"""Is the bus there? One small metadata request every two seconds, off the loop, answers for everybody.

librdkafka reconnects silently and tells of trouble only when every connection is gone; a frozen broker it notices after
`socket.timeout.ms`. So the gateway asks: whoever cannot answer within `TIMEOUT_SECONDS` is unreachable, and orders
are then refused before anything is produced: the certain 503 of docs/contract.md#written-or-not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from confluent_kafka import KafkaException, TopicCollection

# Not among the names that the module exports to type checkers.
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from core.kafka.clients import Calls, Property, common_properties

log = logging.getLogger("gateway.kafka")

INTERVAL_SECONDS = 2.0
RETRY_SECONDS = 0.3
TIMEOUT_SECONDS = 2.0
DESCRIBE_SECONDS = 1.0
# Ids are asked for in one round of so many, and in the next one when something else has changed or a client met an error:
# confluent-kafka 2.16.1 never frees the id that it makes for each topic it describes, some 120 bytes, which in every round was
# 10 MB a day.
ROUNDS_BETWEEN_IDS = 5
# A cluster that does not know the question lets it time out, and so does one that was busy for a second.
ATTEMPTS_AT_IDS = 5


class BusMonitor:
    """Knows whether the bus answers, how many partitions each topic has, and each topic's id."""

    def __init__(
        self,
        brokers: str,
        extra: Mapping[str, Property],
        topics: Sequence[str],
        calls: Calls,
        *,
        embedded: bool = False,
    ) -> None:
        self._has_ids = not embedded
        self._has_asked = False
        self.connected = False
        self.reason = "not yet asked"
        self.partitions: dict[str, int] = {}
        self.topic_ids: dict[str, str] = {}
        self.on_change: list[Callable[[], None]] = []
        self._topics = dict.fromkeys(topics)
        self._calls = calls
        # A client asks the broker that it last used as long as its connection stands, which a frozen one's does for
        # `socket.timeout.ms`. With librdkafka's 60 s one frozen broker of three makes the bus unreachable for a minute;
        # with this for 0.3 s (measured): it is given up with the question, and the next one goes to another.
        self._admin = AdminClient(
            common_properties(brokers, {"socket.timeout.ms": int(TIMEOUT_SECONDS * 1000), **extra})
        )
        self._wake = asyncio.Event()
        self._missing: set[str] = set()
        self._rounds_since_ids = 0
        self._unanswered = 0
        self._suspicions = 0

    @property
    def awaits_ids(self) -> bool:
        """Whether there is a topic whose id is not known, and may yet be answered."""
        return self._has_ids and not self.partitions.keys() <= self.topic_ids.keys()

    def watch(self, topic: str) -> None:
        """From the next round on this topic is asked for as well. Harmless when repeated."""
        self._topics[topic] = None

    async def run(self) -> None:
        """Ask for ever; ends when cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(RETRY_SECONDS)
            if self.connected and not self._wake.is_set():
                try:
                    await asyncio.wait_for(self._wake.wait(), INTERVAL_SECONDS - RETRY_SECONDS)
                except TimeoutError:
                    pass
            self._wake.clear()

    def suspect(self, reason: str) -> None:
        """A client lost all its connections: believe it at once, and ask at once."""
        self._suspicions += 1
        if self.connected:
            self._settle(False, reason)
        self._wake.set()

    def doubt(self) -> None:
        """A client met an error, perhaps because a topic is another one now: the next round asks for the ids."""
        self._rounds_since_ids = ROUNDS_BETWEEN_IDS

    async def ask(self, *, with_ids: bool = False) -> bool:
        """One round: topics, then ids if it is their turn, or in any case. Whether all of it was answered.

        Failure is an answer, not an exception. An answer from before a client lost its connections does not say that
        they are there again: of a round with a suspicion in it what it learnt is kept, and the next one decides.

        Topics are asked for by name: that is small however many there are, and makes them on clusters that make
        topics on first use.
        """
        self._admin.poll(0)  # hands over what its client logged
        known, suspicions = self.partitions.copy(), self._suspicions
        for topic in tuple(self._topics):
            try:
                metadata = await self._calls.run(
                    partial(self._admin.list_topics, topic, timeout=TIMEOUT_SECONDS), TIMEOUT_SECONDS
                )
            except KafkaException as error:
                self._settle(False, error.args[0].str())
                return False
            except TimeoutError:
                self._settle(False, f"no answer within {TIMEOUT_SECONDS:g} s")
                return False
            found = metadata.topics.get(topic)
            self._learn(topic, 0 if found is None or found.error is not None else len(found.partitions))
        is_answered = True
        self._rounds_since_ids += 1
        if with_ids or self.partitions != known or self._rounds_since_ids >= ROUNDS_BETWEEN_IDS:
            self._rounds_since_ids = 0
            is_answered = await self._learn_ids()
        if self._suspicions != suspicions:
            return False
        self._settle(True, "")
        return is_answered

    def _learn(self, topic: str, partitions: int) -> None:
        if partitions == 0:
            if topic not in self._missing:
                self._missing.add(topic)
                log.warning("topic %s does not exist (yet); waiting for it", topic)
            self.partitions.pop(topic, None)
            return
        self._missing.discard(topic)
        self.partitions[topic] = partitions

    async def _learn_ids(self) -> bool:
        """Topic ids tell a recreated topic from the old one (Kafka 2.8 and later). False: they may yet be answered."""
        topics = [topic for topic in self._topics if topic in self.partitions]
        if not topics or not self._has_ids:
            return True
        try:
            futures = self._admin.describe_topics(TopicCollection(topics), request_timeout=DESCRIBE_SECONDS)
            described = {
                topic: await asyncio.wait_for(asyncio.wrap_future(future), DESCRIBE_SECONDS + 1)
                for topic, future in futures.items()
            }
        except (KafkaException, TimeoutError):
            self._unanswered += 1
            self._has_ids = bool(self.topic_ids) or self._unanswered < ATTEMPTS_AT_IDS
            self.doubt()
            return not self._has_ids
        for topic, description in described.items():
            self.topic_ids[topic] = str(description.topic_id)
        return True

    async def retention_warnings(self, topic: str, at_least_seconds: float) -> list[str]:
        """What is wrong with a topic that has to keep every record for so long; nothing if it cannot be asked."""
        found = await self._settings_of(topic)
        if not {"cleanup.policy", "retention.ms"} <= found.keys():
            return []
        policy, retention_ms = found["cleanup.policy"], int(found["retention.ms"])
        warnings = []
        if policy != "delete":
            warnings.append(
                f"topic {topic}: cleanup.policy is {policy}, and has to be delete: orders would be forgotten"
            )
        if 0 <= retention_ms < at_least_seconds * 1000:
            warnings.append(
                f"topic {topic}: retention.ms is {retention_ms}, less than the warm-up of {at_least_seconds:g} s"
            )
        return warnings

    async def compaction_warnings(self, topic: str) -> list[str]:
        """What is wrong with a topic that has to keep the last record of each key; nothing if it cannot be asked."""
        policy = (await self._settings_of(topic)).get("cleanup.policy", "compact")
        if policy == "compact":
            return []
        return [f"topic {topic}: cleanup.policy is {policy}, and has to be compact: what it says would be forgotten"]

    async def _settings_of(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            (future,) = self._admin.describe_configs([resource], request_timeout=DESCRIBE_SECONDS).values()
            found = await asyncio.wait_for(asyncio.wrap_future(future), DESCRIBE_SECONDS + 1)
        except (KafkaException, TimeoutError):
            return {}
        return {name: entry.value for name, entry in found.items() if entry.value is not None}

    def _settle(self, connected: bool, reason: str) -> None:
        if connected != self.connected or not self._has_asked:
            self._has_asked = True
            if connected:
                log.info("bus is reachable")
            else:
                log.warning("bus is not reachable: %s", reason)
        self.connected, self.reason = connected, reason
        if not connected:
            self.doubt()
        for callback in self.on_change:
            try:
                callback()
            except KafkaException as error:
                log.error("what follows from a change of the bus failed: %s", error)  # asked again in two seconds
