"""A gateway with instruments, for each module, and symbols of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.channels.world import LISTED, MAX_SUBSCRIPTIONS, MAX_VIEWS, TICK
from tests.integration.market import Market
from tests.integration.processes import Gateway


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    settings = {
        "auth": {"mode": "optional"},
        "websocket": {"compression": True, "max_subscriptions": MAX_SUBSCRIPTIONS, "max_views": MAX_VIEWS},
        "orders": {"default_symbol": LISTED[0]},
        "instruments": [
            {"symbol": symbol, "tick": str(TICK), "lot": "0.001", "min_quantity": "0.001"} for symbol in LISTED
        ],
    }
    with Gateway.on(market, settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def _symbols(market: Market) -> Iterator[str]:
    return iter(LISTED[1:])


@pytest.fixture
def symbol(_symbols: Iterator[str]) -> str:
    """One that no other test has touched."""
    return next(_symbols)
