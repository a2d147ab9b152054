"""`/health`, `/ready`, `/metrics`: for operators and the machines that watch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from handlers.bodies import BaseHandler
from handlers.problems import Context


class HealthHandler(BaseHandler):
    """Alive: always 200, and how it is. As `/ready`: 503 unless traffic may come."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, report: Callable[[], Awaitable[dict[str, Any]]], is_ready: Callable[[], bool] | None = None) -> None:  # type: ignore[override]  # fmt: skip
        """`report` makes the body; `is_ready`, where given, decides between 200 and 503."""
        super().initialize(context)
        self._report = report
        self._is_ready = is_ready

    async def get(self) -> None:
        """Answer from what is known already; nothing is asked of Kafka here."""
        report = await self._report()
        self.answer(200 if self._is_ready is None or self._is_ready() else 503, report)

    head = get


class MetricsHandler(BaseHandler):
    """The Prometheus text."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, text: Callable[[], Awaitable[bytes]]) -> None:  # type: ignore[override]
        """`text` makes it."""
        super().initialize(context)
        self._text = text

    async def get(self) -> None:
        """Written where it holds nobody up: a scrape takes milliseconds."""
        text = await self._text()
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(text)

    head = get


def routes(
    context: Context,
    report: Callable[[], Awaitable[dict[str, Any]]],
    is_ready: Callable[[], bool],
) -> list[tuple[Any, ...]]:
    """The route table of this room, but for `/metrics`."""
    return [
        (r"/health", HealthHandler, {"context": context, "report": report}),
        (r"/ready", HealthHandler, {"context": context, "report": report, "is_ready": is_ready}),
    ]


def metrics_routes(context: Context, text: Callable[[], Awaitable[bytes]]) -> list[tuple[Any, ...]]:
    """`/metrics`, which may have an address of its own."""
    return [(r"/metrics", MetricsHandler, {"context": context, "text": text})]
