"""Record to client: one WebSocket client on the default stream, beside a bare poll() loop on the same records."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from bench.support.bus import Bus
from bench.support.figures import Row, quantile
from bench.support.gateway import Gateway, environment, gateway
from bench.support.processes import BenchError, part

EVENTS_A_SECOND = 200
GRACE_SECONDS = 5.0
WARM_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Ways:
    """Milliseconds from before the producer's call until the event was in the receiver's hands, event by event."""

    client: list[float]
    peer: list[float]

    def beyond(self) -> list[float]:
        """How much later than the bare loop each event came: what the gateway adds, without Kafka's moods."""
        return [client - peer for client, peer in zip(self.client, self.peer, strict=True)]


def measure(
    bus: Bus, topic: str, served: Gateway, count: int, least_gap_seconds: float, mean_extra_seconds: float
) -> Ways:
    """Publish `count` events and see how long each takes to both. Raises BenchError if one is lost or comes twice."""
    run = secrets.token_hex(4)
    seconds = count * (least_gap_seconds + mean_extra_seconds) * 1.5 + GRACE_SECONDS
    gaps = (least_gap_seconds, mean_extra_seconds)
    with (
        part("latency.publisher", bus.bootstrap, topic, run, count, *gaps) as publisher,
        part("latency.poll_loop", bus.bootstrap, topic, run, count, seconds) as peer,
        part("latency.stream_client", served.port, run, count, seconds) as client,
    ):
        for child in (peer, client, publisher):
            child.go()
        published = publisher.read(seconds + GRACE_SECONDS)
        if published["unsent"]:
            raise BenchError(f"Kafka did not acknowledge {published['unsent']} of {count} events")
        ways = []
        for child in (client, peer):
            told = child.read(seconds + GRACE_SECONDS)
            if [number for number, _ in told] != list(range(count)):
                distinct = len({number for number, _ in told})
                raise BenchError(f"{child.name}: {distinct} of {count} events, {len(told)} in all")
            ways.append([way_ms for _, way_ms in told])
    return Ways(*ways)


def bench(bus: Bus, rounds: int, seconds: float) -> list[Row]:
    """Medians over `rounds` of `seconds` each. The gateway is a fresh process in each round."""
    figures: dict[str, list[float]] = {}
    # The first round only warms the JVM, whose first seconds are slower for everybody.
    for number in range(rounds + 1):
        count = int((seconds if number else min(seconds, WARM_SECONDS)) * EVENTS_A_SECOND)
        variables = environment(bus, "latency")
        with gateway(variables) as served:
            served.wait_ready()
            ways = measure(bus, variables["KAFKA_TOPIC"], served, count, 0.0, 1 / EVENTS_A_SECOND)
        if number == 0:
            continue
        for name, share in (("p50", 0.50), ("p99", 0.99)):
            client, peer = quantile(ways.client, share), quantile(ways.peer, share)
            figures.setdefault(f"gateway {name}", []).append(client)
            figures.setdefault(f"poll loop {name}", []).append(peer)
            figures.setdefault(f"ratio {name}", []).append(client / peer)
            figures.setdefault(f"gateway after poll loop {name}", []).append(quantile(ways.beyond(), share))
    targets = {"gateway p50": 3.0, "gateway p99": 15.0, "ratio p50": 2.0, "ratio p99": 2.0}
    return [
        Row("latency", name, "" if name.startswith("ratio") else "ms", tuple(values), targets.get(name))
        for name, values in figures.items()
    ]
