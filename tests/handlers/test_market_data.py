"""`/api/time`, `/api/book` and their like over real sockets, from a market that a test tells what there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from core.config.settings import Settings
from core.orders.pieces import nobody_else
from core.telemetry.metrics import Metrics
from handlers.market_data import MarketData, routes
from handlers.problems import Context, Status
from tests.core.admission import admission
from tests.core.driven_hub import DrivenHub
from tests.handlers.wire import Response, connected, serving

NOW = 1_700_000_000.5
PAGE = "https://page.example"


class MarketServer:
    """What is known of the market, and who asks."""

    def __init__(self, driven: DrivenHub, **more: Any) -> None:
        self.driven = driven
        settings = Settings()
        limits = {name: more.pop(name) for name in [*more] if hasattr(settings.limits, name)}
        self.context = Context(
            replace(
                settings,
                http=replace(settings.http, allowed_origins=frozenset({PAGE})),
                limits=replace(settings.limits, **limits),
            ),
            Metrics(),
            Status(),
            admission(**more),
            lambda: NOW,
        )
        self.data = MarketData(driven.market, lambda: driven.epoch, nobody_else)
        self.port = 0

    async def get(self, target: str, method: str = "GET", **headers: str) -> Response:
        async with connected(self.port) as connection:
            return await connection.ask(method, target, **headers)


@asynccontextmanager
async def serve(driven: DrivenHub | None = None, **more: Any) -> AsyncIterator[MarketServer]:
    server = MarketServer(driven or DrivenHub(), **more)
    async with serving(server.context, routes(server.context, server.data)) as port:
        server.port = port
        yield server


@pytest.mark.gen_test
async def test_time_is_our_clocks_and_comes_from_no_cache() -> None:
    async with serve() as server:
        answer = await server.get("/api/time")
        head = await server.get("/api/time", "HEAD")
    assert (answer.status, answer.json()) == (200, {"time_ms": 1_700_000_000_500})
    assert answer.headers["cache-control"] == "no-store"
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(answer.body)), b"")
