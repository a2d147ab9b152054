"""A real broker that a module may freeze and kill, and that each test finds in order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.market import Market
from tests.support.kafka import kafka_or_skip, real_bus
from tools.kafka.cluster import KafkaCluster


@pytest.fixture(scope="module")
def _cluster() -> Iterator[KafkaCluster]:
    with kafka_or_skip() as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: KafkaCluster) -> Iterator[KafkaCluster]:
    """One broker that serves; whatever was done to it is made good."""
    yield _cluster
    _cluster.thaw(0)
    if _cluster.pid(0) is None:
        _cluster.start_broker(0)
    _cluster.wait_ready()


@pytest.fixture
def market(cluster: KafkaCluster) -> Iterator[Market]:
    """Fresh topics on it."""
    with real_bus(cluster) as bus:
        yield Market.create(bus)
        cluster.thaw(0)
        if cluster.pid(0) is None:
            cluster.start_broker(0)
        cluster.wait_ready()
