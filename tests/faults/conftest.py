"""Fresh topics: on a broker of the module's own where a test asks for `cluster`, to freeze it and to kill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.market import Market
from tests.support.kafka import real_bus
from tools.kafka.cluster import KafkaCluster


@pytest.fixture
def cluster(broker: KafkaCluster) -> Iterator[KafkaCluster]:
    """One broker that serves; whatever was done to it is made good."""
    yield broker
    broker.restore()


@pytest.fixture
def market(request: pytest.FixtureRequest) -> Iterator[Market]:
    """Fresh topics, which a test finds again after whatever it did to their broker."""
    is_harmed = "cluster" in request.fixturenames
    with real_bus(request.getfixturevalue("cluster" if is_harmed else "real_kafka")) as bus:
        yield Market.create(bus)
        if is_harmed:
            request.getfixturevalue("cluster").restore()
