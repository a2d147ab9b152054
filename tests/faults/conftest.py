"""A real broker that a test may freeze and kill, and that the next one finds in order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.market import Market
from tests.support.kafka import real_bus
from tools.kafka.cluster import KafkaCluster


@pytest.fixture
def cluster(real_kafka: KafkaCluster) -> Iterator[KafkaCluster]:
    """One broker that serves; whatever was done to it is made good."""
    yield real_kafka
    real_kafka.restore()


@pytest.fixture
def market(cluster: KafkaCluster) -> Iterator[Market]:
    """Fresh topics on it."""
    with real_bus(cluster) as bus:
        yield Market.create(bus)
        cluster.restore()
