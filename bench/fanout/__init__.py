"""The fan-out bench: one event to a thousand clients, beside a C loop and other servers, and from Kafka to the client.

What is compared with what, and how it is paced, is told in bench/RESULTS.md and bench/peers/ticks.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bench.fanout import candles, compared_servers, kafka_to_client, memory, order_answers, throughput
from bench.support.bus import Bus
from bench.support.figures import Absent, Row
from bench.support.processes import BenchError

CLIENTS, QUICK_CLIENTS = 1000, 200
MEMORY_CLIENTS, QUICK_MEMORY_CLIENTS = (1000, 5000), (100, 500)
ORDER_CLIENTS, QUICK_ORDER_CLIENTS = 5000, 500
PARTS = ("throughput", "candles", "kafka", "answers", "memory")


def bench(bus: Bus, rounds: int, quick: bool, parts: Sequence[str] = PARTS) -> list[Row | Absent]:
    """Medians over `rounds`; `quick` has fewer clients and short turns, and its figures mean nothing.

    Without the load generator or the C loop there is nothing to measure: raises BenchError.
    """
    clients = QUICK_CLIENTS if quick else CLIENTS
    compared_servers.c_loop()
    peers, absent = compared_servers.peers()
    benches: dict[str, tuple[str, Callable[[], Sequence[Row | Absent]]]] = {
        "throughput": ("CPU per delivery", lambda: throughput.bench(peers, rounds, 0.3 if quick else 1.5, clients)),
        "candles": ("candles beside a C loop", lambda: candles.bench(rounds, 0.3 if quick else 1.5, clients)),
        "kafka": (
            "Kafka to client, and latency",
            lambda: kafka_to_client.bench(bus, peers, rounds, 1.0 if quick else 5.0, clients),
        ),
        "answers": (
            "orders while everybody is fed",
            lambda: order_answers.bench(
                bus, rounds, 1.0 if quick else 5.0, QUICK_ORDER_CLIENTS if quick else ORDER_CLIENTS
            ),
        ),
        "memory": (
            "memory of connections",
            lambda: memory.bench(peers, 1, QUICK_MEMORY_CLIENTS if quick else MEMORY_CLIENTS),
        ),
    }
    rows: list[Row | Absent] = []
    for part in parts:
        title, measure = benches[part]
        print(f"bench: fanout: {title} ...", file=sys.stderr, flush=True)
        try:
            rows += measure()
        except BenchError as error:
            # The other parts took minutes and have their figures.
            rows.append(Absent("fan-out", title, f"it failed: {error}"))
    return rows + absent
