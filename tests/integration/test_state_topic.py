"""The state topic of a real Kafka, as the gateway makes it and as it refuses it."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from core.kafka.state_topic import SETTINGS, Unfit, ready_topic
from tests.support.kafka import real_bus
from tools.kafka.running import RunningKafka, quiet_client


def test_topic_is_made_compact_and_as_replicated_as_the_market(real_kafka: RunningKafka) -> None:
    topic = f"gateway-state-{uuid.uuid4().hex[:12]}"
    with real_bus(real_kafka) as bus:
        assert ready_topic(real_kafka.bootstrap, {}, topic, bus.topic, 4)
        try:
            assert bus.partitions(topic) == [0, 1, 2, 3]
            found = _settings(real_kafka, topic)
            assert {name: found[name] for name in SETTINGS} == dict(SETTINGS)
            assert found["min.insync.replicas"] == _settings(real_kafka, bus.topic)["min.insync.replicas"]
            assert not ready_topic(real_kafka.bootstrap, {}, topic, bus.topic, 4)
            with pytest.raises(Unfit, match=r"has 4 partitions and .* has 3: it is not used, and left as it is"):
                ready_topic(real_kafka.bootstrap, {}, topic, bus.topic, 3)
        finally:
            real_kafka.delete_topic(topic)


def test_topic_that_is_not_compacted_is_refused(real_kafka: RunningKafka) -> None:
    with real_bus(real_kafka) as bus:
        with pytest.raises(Unfit, match=r"cleanup\.policy is delete, and has to be compact"):
            ready_topic(real_kafka.bootstrap, {}, bus.order_topic, bus.topic, 4)


def _settings(kafka: RunningKafka, topic: str) -> dict[str, str]:
    admin = AdminClient(quiet_client(kafka.bootstrap))
    (future,) = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result(30.0).items()}
