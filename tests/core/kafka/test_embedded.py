from __future__ import annotations

from confluent_kafka.admin import AdminClient

from core.kafka.embedded import EmbeddedCluster


def test_embedded_cluster_listens_on_loopback_and_has_its_topics() -> None:
    cluster = EmbeddedCluster(["market-events", "order-commands"])
    host, _, port = cluster.bootstrap.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    topics = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 2}).list_topics(timeout=30).topics
    assert {name: len(topic.partitions) for name, topic in topics.items()} == {"market-events": 4, "order-commands": 4}
