"""How long an order waits for its answer while as many clients as the core can feed are fed at full speed."""

from __future__ import annotations

import secrets

from bench.fanout.kafka_to_client import Fed, whole_gateway
from bench.fanout.servers import GRACE_SECONDS
from bench.support import machine
from bench.support.bus import Bus
from bench.support.figures import Row, quantile
from bench.support.processes import BenchError, part

TARGET_MS = 10.0
# More than the core can send to each of 5,000 one by one, and no more than their one core can read.
RATE = 200
# A broker that serves one record at a time, beside others, takes some thousand to warm to it.
WARM_ROUNDS = 2


def bench(bus: Bus, rounds: int, seconds: float, clients: int) -> list[Row]:
    """Medians over `rounds` of one order after the other over REST, in quiet and then while the events come.

    Raises BenchError if an order is refused, or a client misses anything.
    """
    title = f"fan-out, {clients:,} clients"
    figures: dict[str, list[float]] = {}

    def keep(name: str, latencies_ms: list[float]) -> None:
        for share in (50, 99):
            figures.setdefault(f"order answered, {name}, p{share}|ms", []).append(quantile(latencies_ms, share / 100))

    with machine.beside_the_load(bus.pid), whole_gateway(bus, clients) as whole:
        whole.run(1.0, 10, 1)
        for number in range(WARM_ROUNDS + rounds):
            if number == WARM_ROUNDS:
                figures.clear()
            keep("nobody fed", _orders(whole, seconds))
            whole.load.reset(1)
            cpu = machine.cpu_seconds(whole.pid)
            whole.begin(seconds + 1.0, RATE)
            keep("all fed", _orders(whole, seconds))
            told, cpu = whole.load.tell(), machine.cpu_seconds(whole.pid) - cpu
            whole.load.await_events(whole.finish(seconds + 1.0))
            figures.setdefault("deliveries meanwhile|/s", []).append(told["events"] / told["seconds"])
            figures.setdefault("gateway meanwhile|% of a core", []).append(cpu / told["seconds"] * 100)
    rows: list[Row] = []
    for name, values in figures.items():
        figure, _, unit = name.partition("|")
        target = TARGET_MS if figure == "order answered, all fed, p99" else None
        rows.append(Row(title, figure, unit, tuple(values), target))
    return rows


def _orders(whole: Fed, seconds: float) -> list[float]:
    cores = machine.split_cores()
    arguments = (whole.port, 1, seconds, secrets.token_hex(4), "rest", "")
    with part("orders.load", *arguments, cores=cores[1] if cores else None) as load:
        load.go()
        told = load.read(seconds + GRACE_SECONDS)
    if told["refused"]:
        raise BenchError(f"orders were refused: {told['refused']}")
    latencies_ms: list[float] = told["latencies_ms"]
    return latencies_ms
