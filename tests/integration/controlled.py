"""Gateways on a control topic of a test's own, which the test writes to and reads as well."""

from __future__ import annotations

import json
import uuid
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]

from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import settings
from tests.integration.waiting import DEADLINE_SECONDS
from tools.kafka.running import RunningKafka, quiet_client

# Ten times as often as by itself a gateway learns what has become of its topics.
REFRESHED = {"topic.metadata.refresh.interval.ms": 1000}


class Controlled:
    """A market whose gateways share a control topic of the test's own."""

    def __init__(self, kafka: RunningKafka, market: Market) -> None:
        self.kafka = kafka
        self.market = market
        self.topic = f"control-{uuid.uuid4().hex[:12]}"

    def gateway(self, topic: str | None = None, *, wait: bool = True, **more: Any) -> Any:
        kafka = {
            "consume": "broadcast", "control_topic": self.topic if topic is None else topic, "state_topic": "",
            "consumer": REFRESHED, "producer": REFRESHED,
        }  # fmt: skip
        return Gateway.on(self.market, settings(kafka=kafka, **more), wait=wait)

    def write(self, key: str, value: bytes | None) -> None:
        producer = Producer({**quiet_client(self.market.bootstrap), "acks": "all"})
        producer.produce(self.topic, value, key)
        assert producer.flush(DEADLINE_SECONDS) == 0

    def kept(self) -> dict[str, Any]:
        """By key what the topic says last."""
        reader = Consumer({**quiet_client(self.market.bootstrap), "group.id": "reader", "enable.auto.commit": False})
        partition = TopicPartition(self.topic, 0, 0)
        end = reader.get_watermark_offsets(partition, DEADLINE_SECONDS)[1]
        reader.assign([partition])
        said: dict[str, Any] = {}
        while reader.position([partition])[0].offset < end:
            for message in reader.consume(100, 0.05):
                value = message.value()
                said[(message.key() or b"").decode()] = None if value is None else json.loads(value)
        reader.close()
        return said

    def exists(self) -> bool:
        admin = AdminClient(quiet_client(self.market.bootstrap))
        return self.topic in admin.list_topics(timeout=DEADLINE_SECONDS).topics
