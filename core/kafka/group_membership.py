"""Which partitions of a topic are this instance's, as its group shares them out. Nothing is read here.

Who reads is another client, so that what was shared out before is read on while the group shares anew, and while it waits for
members that it has lost: after an outage of all brokers that is as long as a session, for librdkafka then joins as a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.kafka.clients import Property, common_properties, patient

# The least that Kafka allows by default (group.min.session.timeout.ms): what an instance had that died is nobody's for no longer.
SESSION_MS: Final = 6000


class GroupMembership:
    """One member of a group, once it has joined; it has to be polled, and what it tells it tells out of `poll`."""

    def __init__(
        self,
        brokers: str,
        topic: str,
        group_id: str,
        extra: Mapping[str, Property],
        *,
        on_assigned: Callable[[frozenset[int]], None],
        on_revoked: Callable[[frozenset[int]], None],
        on_error: Callable[[KafkaError], None],
    ) -> None:
        self._topic = topic
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._on_error = on_error
        self._properties = {
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": SESSION_MS // 3,
            "auto.offset.reset": "latest",
            **common_properties(brokers, extra),
            "group.id": group_id,
            "enable.auto.commit": False,
            "error_cb": on_error,
        }
        self._consumer: Consumer | None = None

    def join(self) -> None:
        """Take part, from now on."""
        self._consumer = patient(Consumer, self._properties)
        self._consumer.subscribe(
            [self._topic], on_assign=self._have_assigned, on_revoke=self._have_revoked, on_lost=self._have_revoked
        )

    def poll(self) -> None:
        """Hear what there is, without waiting."""
        if self._consumer is None:
            return
        try:
            message = self._consumer.poll(0)
        except KafkaException as error:
            self._on_error(error.args[0])
            return
        trouble = None if message is None else message.error()
        if trouble is not None:
            self._on_error(trouble)

    def leave(self) -> Callable[[], object]:
        """Take no more part. What is given back tells the group, which takes a round trip: it belongs on another thread."""
        consumer, self._consumer = self._consumer, None
        return _nothing if consumer is None else consumer.close

    def _have_assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign([])
        self._on_assigned(frozenset(one.partition for one in partitions))

    def _have_revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.unassign()
        self._on_revoked(frozenset(one.partition for one in partitions))


def _nothing() -> Any:
    """There is nobody to tell."""
