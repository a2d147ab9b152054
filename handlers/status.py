"""`/api/status`: what may be traded at the moment (docs/contract.md#status)."""

from __future__ import annotations

from typing import Any

from core.control.exchange_status import ExchangeStatus
from handlers.bodies import BaseHandler
from handlers.problems import Context


class StatusHandler(BaseHandler):
    """`GET /api/status`."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, status: ExchangeStatus) -> None:  # type: ignore[override]
        """`status` is what is answered."""
        super().initialize(context)
        self._status = status

    def get(self) -> None:
        """As the channel says it; for everybody."""
        self.take_request()
        self.answer(200, self._status.body)

    head = get


def routes(context: Context, status: ExchangeStatus) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    return [(r"/api/status", StatusHandler, {"context": context, "status": status})]
