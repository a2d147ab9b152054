"""The log of this process, and the audit that writes into it."""

from __future__ import annotations

import asyncio

from core.config.settings import Log
from core.telemetry.audit import Audit
from process.logs import set_up_logging
from process.workers import Worker


def build_audit(settings: Log, worker: Worker) -> Audit:
    """To be called on the loop; from now on each line says which of several workers it is of."""
    write = set_up_logging(settings.level, worker.number if worker.count > 1 else None, settings.format)
    later = asyncio.get_running_loop().call_later
    return Audit(write, later, orders=settings.orders, lines_per_second=settings.orders_per_second)
