"""`/health`, `/ready`, `/metrics`: for operators and the machines that watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

from handlers.base import BaseHandler, Context


class HealthHandler(BaseHandler):
    """Alive: always 200, and how it is. As `/ready`: 503 unless traffic may come."""

    def initialize(self, context: Context, report: Callable[[], dict[str, Any]], is_ready: Callable[[], bool] | None = None) -> None:  # type: ignore[override]  # fmt: skip
        """`report` makes the body; `is_ready`, where given, decides between 200 and 503."""
        super().initialize(context)
        self._report = report
        self._is_ready = is_ready

    def get(self) -> None:
        """Answer from what is known already; nothing is asked of Kafka here."""
        self.answer(200 if self._is_ready is None or self._is_ready() else 503, self._report())

    head = get


class MetricsHandler(BaseHandler):
    """The Prometheus text."""

    def initialize(self, context: Context, refresh: Callable[[], None]) -> None:  # type: ignore[override]
        """`refresh` brings the gauges up to date that nobody keeps while nobody looks."""
        super().initialize(context)
        self._refresh = refresh

    async def get(self) -> None:
        """Written in an executor: a scrape takes milliseconds."""
        self._refresh()
        text = await IOLoop.current().run_in_executor(None, self.context.metrics.text)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(text)

    head = get


def routes(
    context: Context,
    report: Callable[[], dict[str, Any]],
    is_ready: Callable[[], bool],
) -> list[tuple[Any, ...]]:
    """The route table of this room, but for `/metrics`."""
    return [
        (r"/health", HealthHandler, {"context": context, "report": report}),
        (r"/ready", HealthHandler, {"context": context, "report": report, "is_ready": is_ready}),
    ]


def metrics_routes(context: Context, refresh: Callable[[], None]) -> list[tuple[Any, ...]]:
    """`/metrics`, which may have an address of its own."""
    return [(r"/metrics", MetricsHandler, {"context": context, "refresh": refresh})]
