"""Resident memory a connection, with 1,000 and with 5,000 of them, each in a fresh process that has sent some events."""

from __future__ import annotations

import time
from dataclasses import replace

from bench.fanout.kinds import EVENTS, ours
from bench.fanout.servers import Kind, Server, server
from bench.support import machine
from bench.support.figures import Absent, Row
from bench.support.processes import BenchError

EVENTS_A_SECOND = 10
SETTLE_SECONDS = 1.0
TARGET_KIB = 20.0


def bench(peers: list[Kind], rounds: int, sizes: tuple[int, int]) -> list[Row | Absent]:
    """Medians over `rounds`."""
    mine = ours(EVENTS)
    plain, deflating = "ours, one subscription", "ours, one subscription, shared deflate"
    kinds = [
        replace(mine, name=plain),
        replace(mine, name=deflating, options=(*mine.options, "--deflate")),
        *peers,
    ]
    figures: dict[tuple[str, int], list[float]] = {}
    absent: list[Row | Absent] = []
    for _ in range(rounds):
        for kind in kinds:
            try:
                measured = _measure(kind, sizes, ("--deflate",) if kind.name == deflating else ())
            except BenchError as error:
                absent.append(Absent("memory", kind.name, f"it failed: {error}"))
                continue
            for size, kib in measured.items():
                figures.setdefault((kind.name, size), []).append(kib)
    rows: list[Row | Absent] = [
        Row(
            "memory", f"{name}, {size:,} connections", "KiB each", tuple(values), TARGET_KIB if "ours" in name else None
        )
        for (name, size), values in figures.items()
    ]
    return rows + absent


def _measure(kind: Kind, sizes: tuple[int, int], arguments: tuple[str, ...]) -> dict[int, float]:
    first, second = sizes
    with server(kind, *arguments) as one:
        time.sleep(SETTLE_SECONDS)  # until its start is over
        empty = machine.resident_bytes(one.pid) / 1024
        with one.clients(first):
            figures = {first: (_settled_kib(one) - empty) / first}
            with one.clients(second - first):
                figures[second] = (_settled_kib(one) - empty) / second
    return figures


def _settled_kib(one: Server) -> float:
    one.exercise(1.0, EVENTS_A_SECOND)
    time.sleep(SETTLE_SECONDS)  # until what was in flight has been freed
    return machine.resident_bytes(one.pid) / 1024
