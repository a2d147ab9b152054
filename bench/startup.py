"""From the command to the page: the demo, with its embedded broker and simulated exchange."""

from __future__ import annotations

import time

from bench.support.figures import Row
from bench.support.gateway import gateway
from bench.support.processes import READY_SECONDS


def bench(rounds: int) -> list[Row]:
    """Medians over `rounds` starts."""
    page: list[float] = []
    ready: list[float] = []
    for _ in range(rounds):
        started = time.monotonic()
        with gateway({}, config="conf/demo.yaml") as served:
            served.wait_for("/", READY_SECONDS)
            page.append(time.monotonic() - started)
            served.wait_ready()
            ready.append(time.monotonic() - started)
    return [
        Row("start", "page answers", "s", tuple(page), 5.0),
        Row("start", "ready for orders", "s", tuple(ready)),
    ]
