"""What tests/integration/test_channels.py takes from the modules beside this one, under one name."""

from __future__ import annotations

from tests.integration.clients import ClientBook, WebSocket, exact, is_heartbeat, news, notification
from tests.integration.events import delta, dump, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway

__all__ = [
    "ClientBook",
    "Gateway",
    "Market",
    "WebSocket",
    "delta",
    "dump",
    "exact",
    "fill",
    "fresh_symbol",
    "is_heartbeat",
    "news",
    "notification",
    "snapshot",
]
