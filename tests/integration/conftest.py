"""Two gateways on one market, and a trader: what tests of orders begin with, unless a module has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.controlled import Controlled
from tests.integration.kept import KeptTopic
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, settings
from tests.support.kafka import ORDER_TOPIC_CONFIG, Bus, real_bus
from tools.kafka.running import RunningKafka


@pytest.fixture(scope="module")
def market(bus: Bus) -> Market:
    return Market.create(bus)


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, settings()) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def other(market: Market) -> Iterator[Gateway]:
    """Another instance on the same topics."""
    with Gateway.on(market, settings()) as gateway:
        yield gateway


@pytest.fixture
def trader() -> Trader:
    return Trader()


@pytest.fixture
def kept(real_kafka: RunningKafka) -> Iterator[KeptTopic]:
    """Fresh topics that keep records however old they say they are."""
    with real_bus(real_kafka) as bus:
        market = Market(
            bus.bootstrap,
            bus.new_topic("market-events", config={"retention.ms": "-1"}),
            bus.new_topic("order-commands", config={**ORDER_TOPIC_CONFIG, "retention.ms": "-1"}),
            embedded=False,
        )
        with KeptTopic.of(market, real_kafka) as kept:
            yield kept
        market.close()


@pytest.fixture
def controlled(real_kafka: RunningKafka) -> Iterator[Controlled]:
    """A control topic of the test's own."""
    with real_bus(real_kafka) as bus:
        market = Market.create(bus)
        controlled = Controlled(real_kafka, market)
        yield controlled
        market.close()
        if controlled.exists():
            real_kafka.delete_topic(controlled.topic)
