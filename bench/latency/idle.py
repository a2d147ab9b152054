"""Quiet: what the gateway costs while nothing happens, and how late the first record after quiet is."""

from __future__ import annotations

import time
from statistics import median

from bench.latency.record_to_client import measure
from bench.support import machine
from bench.support.bus import Bus
from bench.support.figures import Row
from bench.support.gateway import environment, gateway

SETTLE_SECONDS = 3.0
QUIET_SECONDS = 2.0
# On top, at random, so that no timer keeps step with the records.
MEAN_EXTRA_SECONDS = 0.1


def bench(bus: Bus, rounds: int, seconds: float, records: int) -> list[Row]:
    """Medians over `rounds`, each `seconds` of nothing and then `records` single ones after quiet."""
    shares: list[float] = []
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        variables = environment(bus, "idle")
        with gateway(variables) as served:
            served.wait_ready()
            time.sleep(SETTLE_SECONDS)  # what the start left to do is over, and the beat is the idle one
            before, started = machine.cpu_seconds(served.pid), time.monotonic()
            time.sleep(seconds)  # the quiet that is measured
            shares.append((machine.cpu_seconds(served.pid) - before) / (time.monotonic() - started) * 100)
            ways = measure(bus, variables["KAFKA_TOPIC"], served, records, QUIET_SECONDS, MEAN_EXTRA_SECONDS)
        for name, values in (
            ("gateway", ways.client),
            ("poll loop", ways.peer),
            ("gateway after poll loop", ways.beyond()),
        ):
            figures.setdefault(f"{name}, median of {records}", []).append(median(values))
            figures.setdefault(f"{name}, longest of {records}", []).append(max(values))
    rows = [Row("idle", "gateway", "% of a core", tuple(shares), 7.0)]
    for name, ms in figures.items():
        rows.append(Row("first record", name, "ms", tuple(ms), 15.0 if name.startswith("gateway, longest") else None))
    return rows
