"""Two gateways on one market, and a trader: what tests of orders begin with, unless a module has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, settings
from tests.support.kafka import Bus


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
