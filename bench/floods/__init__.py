"""What clients that flood cost everybody else: 50, each another user, that send subscriptions which are refused as fast as
they can, and come back at once when they are closed for it; with the penalty for that, and without.

The same gateway and the same load with and without them, in turns: a ping, an order over REST, a book at 100 ms.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack

from bench.support.bus import Bus
from bench.support.figures import Row, quantile
from bench.support.gateway import environment, gateway, tokens
from bench.support.machine import cpu_seconds
from bench.support.processes import BenchError, part

FLOODERS = 50
DELTAS_A_SECOND = 200
GRACE_SECONDS = 30.0
TARGET_MS = 20.0
# What is sent, and for how long who was closed for it stays out.
KINDS = {
    "nobody": None,
    "short ones": ("short", 30),
    "long ones": ("long", 30),
    "short ones, no penalty": ("short", 0),
    "long ones, no penalty": ("long", 0),
}


def bench(bus: Bus, rounds: int, seconds: float) -> list[Row]:
    """Medians over `rounds` of `seconds` each. Raises BenchError if an order is refused."""
    figures: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(rounds):
        for kind in KINDS:
            for (name, unit), value in _round(bus, kind, seconds).items():
                figures.setdefault((kind, name, unit), []).append(value)
    return [
        Row(
            f"floods, {kind}",
            name,
            unit,
            tuple(values),
            TARGET_MS if name.endswith("p99") and "no penalty" not in kind and "gap" not in name else None,
        )
        for (kind, name, unit), values in figures.items()
    ]


def _round(bus: Bus, kind: str, seconds: float) -> dict[tuple[str, str], float]:
    flood = KINDS[kind]
    asked, flooders = tokens(*(f"flooder-{number}" for number in range(FLOODERS)))
    variables = {
        **environment(bus, "floods"),
        **asked,
        "GATEWAY_AUTH_MODE": "optional",
        "GATEWAY_LIMITS_REQUESTS_PER_SECOND": "100",
        "GATEWAY_LIMITS_PENALTY_SECONDS": str(flood[1] if flood else 30),
    }
    with (
        gateway(variables, "bench/many_views/gateway.yaml") as served,
        part("many_views.market", bus.bootstrap, variables["KAFKA_TOPIC"], seconds, DELTAS_A_SECOND) as market,
    ):
        served.wait_ready()
        figures: dict[tuple[str, str], float] = {}
        with (
            part("many_views.bystander", served.port, seconds) as bystander,
            part("orders.load", served.port, 1, seconds, secrets.token_hex(4), "rest", "") as orders,
            ExitStack() as more,
        ):
            children = [bystander, orders, market]
            if flood is not None:
                flooding = more.enter_context(part("floods.flooders", served.port, seconds, flood[0], *flooders))
                children.insert(0, flooding)
            cpu = cpu_seconds(served.pid)
            for child in children:
                child.go()
            market.read(seconds + GRACE_SECONDS)
            ordered = orders.read(seconds + GRACE_SECONDS)
            heard = bystander.read(seconds + GRACE_SECONDS)
            figures["gateway CPU", "s"] = cpu_seconds(served.pid) - cpu
            if flood is not None:
                for name, count in flooding.read(GRACE_SECONDS).items():
                    figures[name, ""] = count
        if ordered["refused"]:
            raise BenchError(f"orders were refused: {ordered['refused']}")
        for name, values in (
            ("ping", heard["pings_ms"]),
            ("order answered", ordered["latencies_ms"]),
            ("another's book at 100 ms, gap", heard["gaps_ms"]),
        ):
            for share in (50, 99, 100):
                figures[f"{name} {'max' if share == 100 else f'p{share}'}", "ms"] = quantile(values, share / 100)
        return figures
