"""What one client that asks for all it may costs everybody else: 1,000 depths, or 500 groupings, of one large book.

The same gateway and the same load with and without it, in turns: a ping, an order over REST, somebody else's book at 100 ms.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack

from bench.support.bus import Bus
from bench.support.figures import Row, quantile
from bench.support.gateway import environment, gateway
from bench.support.processes import BenchError, part

DELTAS_A_SECOND = 200
GRACE_SECONDS = 30.0
TARGET_MS = 20.0
# Somebody else's book: its interval, and what may come on top.
TARGET_GAP_MS = 130.0


def bench(bus: Bus, rounds: int, seconds: float) -> list[Row]:
    """Medians over `rounds` of `seconds` each. Raises BenchError if an event or a trade is lost, or an order refused."""
    figures: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(rounds):
        for kind in ("nobody", "depths", "groupings"):
            for (name, unit), value in _round(bus, kind, seconds).items():
                figures.setdefault((kind, name, unit), []).append(value)
    titles = {"nobody": "views, none", "depths": "views, 1,000 depths", "groupings": "views, 500 groupings"}
    targets = {
        "ping p99": TARGET_MS,
        "order answered p99": TARGET_MS,
        "another's book at 100 ms, gap p99": TARGET_GAP_MS,
    }
    return [
        Row(titles[kind], name, unit, tuple(values), targets.get(name))
        for (kind, name, unit), values in figures.items()
    ]


def _round(bus: Bus, kind: str, seconds: float) -> dict[tuple[str, str], float]:
    variables = environment(bus, "views")
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
            viewer = None if kind == "nobody" else more.enter_context(part("many_views.viewer", served.port, kind))
            for child in (bystander, orders, market):
                child.go()
            published = market.read(seconds + GRACE_SECONDS)
            ordered = orders.read(seconds + GRACE_SECONDS)
            heard = bystander.read(seconds + GRACE_SECONDS)
            if viewer is not None:
                viewer.go()
                viewed = viewer.read(GRACE_SECONDS)
                figures["joined all in", "s"] = viewer.first["seconds"]
                figures["notifications of its views", "/s"] = viewed["notifications"] / viewed["seconds"]
        if ordered["refused"]:
            raise BenchError(f"orders were refused: {ordered['refused']}")
        if (heard["trades"], heard["events"]) != (published["fills"], published["deltas"] + published["fills"]):
            raise BenchError(
                f"{published} were published, and {heard['trades']} trades and {heard['events']} events heard"
            )
        for name, values in (
            ("ping", heard["pings_ms"]),
            ("order answered", ordered["latencies_ms"]),
            ("another's book at 100 ms, gap", heard["gaps_ms"]),
        ):
            for share in (50, 99):
                figures[f"{name} p{share}", "ms"] = quantile(values, share / 100)
        return figures
