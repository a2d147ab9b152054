"""Kafka to client: the whole gateway at 2,000 events/s, and its latency at 100, beside its own bare fan-out and a C loop."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.fanout.compared_servers import C_LOOP, CENTRIFUGE, EVENTS, EVENTS_OPTIONS, c_loop, ours
from bench.fanout.servers import GRACE_SECONDS, Kind, Load, Run, Server, server
from bench.peers.ticks import template
from bench.support import machine
from bench.support.bus import Bus
from bench.support.figures import Absent, Row
from bench.support.gateway import environment, gateway, metrics
from bench.support.processes import BenchError, Child

FLOW, BEAT = 2000, 100
WHOLE, NAIVE_KAFKA = "gateway, Kafka to client", "naive Tornado, Kafka to client"
TO_BARE = 1.5
LATENCY_TIMES, LATENCY_MORE_MS = 1.5, 3.0
NAIVE_SECONDS = 3.0
# The peer that reads Kafka too. It does not always keep up with the flow: its queues are then full, or its clients closed.
RIVAL = CENTRIFUGE


class Fed:
    """A server that has its events from a topic, with a producer for it."""

    def __init__(self, producer: Child, load: Load, pid: int, port: int) -> None:
        self._producer = producer
        self.load = load
        self.pid = pid
        self.port = port

    def sent(self) -> tuple[float, float]:
        """How many notifications the gateway has sent so far, and by how many sends."""
        notifications, sends = metrics(self.port, "gateway_notifications_total", "gateway_deliveries_total")
        return notifications, sends

    def run(self, seconds: float, rate: float, mode: int) -> Run:
        """So many events a second, until the last client has read the last. Raises BenchError."""
        before = self.load.tell()["cpu_seconds"]
        self.load.reset(mode)
        cpu, began = machine.cpu_seconds(self.pid), time.monotonic()
        events = self.publish(seconds, rate)
        told = self.load.await_events(events)
        cpu = machine.cpu_seconds(self.pid) - cpu
        deliveries = events * self.load.clients
        return Run(events, deliveries, time.monotonic() - began, cpu, told["cpu_seconds"] - before, told)

    def watch(self, seconds: float, rate: float) -> Run:
        """The same for one that cannot keep up: what it delivers meanwhile. Raises BenchError."""
        before = self.load.tell()["cpu_seconds"]
        self.load.reset(1)
        cpu, began = machine.cpu_seconds(self.pid), time.monotonic()
        events = self.publish(seconds, rate)
        told = self.load.tell()
        cpu, took = machine.cpu_seconds(self.pid) - cpu, time.monotonic() - began
        if not told["events"]:
            raise BenchError("it delivered nothing")
        return Run(events, told["events"], took, cpu, told["cpu_seconds"] - before, told)

    def publish(self, seconds: float, rate: float) -> int:
        """Returns how many events were written. Raises BenchError."""
        self.begin(seconds, rate)
        return self.finish(seconds)

    def begin(self, seconds: float, rate: float) -> None:
        """Let them be written."""
        self._producer.say(f"run 1 {seconds:g} {rate:g}")

    def finish(self, seconds: float) -> int:
        """Wait for the last one; returns how many events were written. Raises BenchError."""
        told = self._producer.read(seconds + GRACE_SECONDS)
        if told["unsent"]:
            raise BenchError(f"Kafka did not acknowledge {told['unsent']} of {told['events']} events")
        return int(told["events"])


@contextmanager
def producer(bus: Bus, topic: str) -> Iterator[Child]:
    """One for this topic, beside the load."""
    cores = machine.split_cores()
    command = (sys.executable, "-m", "bench.fanout.producer", bus.bootstrap, topic, template().decode())
    with Child("the producer", command, cores[1] if cores else None) as child:
        yield child


@contextmanager
def whole_gateway(bus: Bus, clients: int) -> Iterator[Fed]:
    """`gateway.py` as it is run, on the servers' core, with its clients on the events channel."""
    variables = {
        **environment(bus, "fanout"),
        "GATEWAY_LIMITS_CONNECTS_PER_SECOND": "0",
        # The sink reads all that comes, and answers no ping.
        "GATEWAY_WEBSOCKET_PING_INTERVAL_SECONDS": "3600",
    }
    cores = machine.split_cores()
    with ExitStack() as stack:
        published = stack.enter_context(producer(bus, variables["KAFKA_TOPIC"]))
        served = stack.enter_context(gateway(variables))
        served.wait_ready()
        if cores is not None:
            machine.pin(served.pid, cores[0])
        # A server of this bench counts deliveries in a file of its own; the gateway needs none.
        counter = stack.enter_context(_counter())
        load = stack.enter_context(Load(WHOLE, served.port, clients, counter, EVENTS_OPTIONS))
        yield Fed(published, load, served.pid, served.port)


@contextmanager
def _counter() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder) / "counter"


@contextmanager
def from_topic(bus: Bus, kind: Kind, clients: int) -> Iterator[Fed]:
    """A peer that reads a topic of its own."""
    topic = bus.create_topic(f"fanout-{secrets.token_hex(4)}")
    with ExitStack() as stack:
        published = stack.enter_context(producer(bus, topic))
        served = stack.enter_context(server(kind, bus.bootstrap, topic))
        load = stack.enter_context(served.clients(clients))
        yield Fed(published, load, served.pid, served.port)


def bench(bus: Bus, peers: list[Kind], rounds: int, seconds: float, clients: int) -> list[Row | Absent]:
    """Medians over `rounds`: the gateway and what it is compared with, one after the other, on the same core."""
    absent: list[Row | Absent] = []
    figures: dict[str, list[float]] = {}
    latencies: dict[str, list[float]] = {}
    rival = next((kind for kind in peers if kind.name == RIVAL), None)
    naive = Kind(NAIVE_KAFKA, (sys.executable, "-m", "bench.peers.tornado_kafka"))
    with ExitStack() as stack:
        stack.enter_context(machine.beside_the_load(bus.pid))
        whole = stack.enter_context(whole_gateway(bus, clients))
        bare, floor = (_started(stack, kind, clients) for kind in (ours(EVENTS), c_loop()))
        # The broker's JVM has then compiled what it needs.
        whole.run(2 * seconds, BEAT, 1)
        for _ in range(rounds):
            us = _flow(figures, whole, bare, seconds)
            with from_topic(bus, naive, clients) as slow:
                run = slow.watch(min(seconds, NAIVE_SECONDS), FLOW)
            _add(figures, f"{NAIVE_KAFKA}, falling behind|us/delivery", run.cpu_us)
            _add(figures, f"{NAIVE_KAFKA}, of 2,000 events/s|/s", run.deliveries / clients / run.seconds)
            last_ms = _latency(latencies, whole, floor, 2 * seconds)
            if rival is None:
                continue
            try:
                _flow_of_rival(figures, bus, rival, clients, seconds, us)
                _latency_of_rival(latencies, bus, rival, clients, 2 * seconds, last_ms)
            except BenchError as error:
                absent.append(Absent("fan-out", f"{rival.name}, Kafka to client", f"it failed: {error}"))
                rival = None
    targets = {"gateway / bare at 2,000 events/s": TO_BARE, "gateway / bare with as many events a send": TO_BARE}
    targets |= {f"gateway / {RIVAL}": 1.0}
    rows = [_row("fan-out, 2,000/s", name, values, targets) for name, values in figures.items()]
    targets = {"gateway p99 / (1.5 C loop p99 + 3 ms)": 1.0, f"gateway p99 / {RIVAL} p99": 1.0}
    beat = [_row("fan-out, 100/s", name, values, targets) for name, values in latencies.items()]
    return [*rows, *beat, *absent]


def _started(stack: ExitStack, kind: Kind, clients: int) -> Server:
    started = stack.enter_context(server(kind))
    stack.enter_context(started.clients(clients))
    started.run(1, 0.3)
    return started


def _flow(figures: dict[str, list[float]], whole: Fed, bare: Server, seconds: float) -> float:
    before = whole.sent()
    run = whole.run(seconds, FLOW, 1)
    notifications, sends = (after - then for after, then in zip(whole.sent(), before, strict=True))
    batch = max(1, round(notifications / sends))
    alike = bare.run(0, seconds, FLOW)
    joined = bare.run(batch, seconds / 2)
    _add(figures, f"{WHOLE}|us/delivery", run.cpu_us)
    _add(figures, f"{WHOLE}, time taken / time of the events|", run.seconds / seconds)
    _add(figures, f"{WHOLE}, events a send|", notifications / sends)
    _add(figures, f"{EVENTS}, bare at 2,000 events/s|us/delivery", alike.cpu_us)
    _add(figures, "gateway / bare at 2,000 events/s|", run.cpu_us / alike.cpu_us)
    _add(figures, f"{EVENTS}, bare with as many events a send|us/delivery", joined.cpu_us)
    _add(figures, "gateway / bare with as many events a send|", run.cpu_us / joined.cpu_us)
    return run.cpu_us


def _flow_of_rival(
    figures: dict[str, list[float]], bus: Bus, kind: Kind, clients: int, seconds: float, us: float
) -> None:
    """In a process of its own, as what it has not delivered by the end is lost to the next figure."""
    with from_topic(bus, kind, clients) as rival:
        rival.run(min(1.0, seconds), BEAT, 1)
        run = rival.watch(seconds, FLOW)
    _add(figures, f"{kind.name}, Kafka to client|us/delivery", run.cpu_us)
    _add(figures, f"{kind.name}, of 2,000 events/s|/s", run.deliveries / clients / run.seconds)
    _add(figures, f"{kind.name}, clients it closed as too slow|", run.told["closed"])
    _add(figures, f"gateway / {kind.name}|", us / run.cpu_us)


def _latency(figures: dict[str, list[float]], whole: Fed, floor: Server, seconds: float) -> float:
    mine = _keep_latencies(figures, "gateway", whole.run(seconds, BEAT, 2))
    bound = LATENCY_TIMES * _keep_latencies(figures, C_LOOP, floor.run(1, seconds, BEAT, 2)) + LATENCY_MORE_MS
    _add(figures, "gateway p99 / (1.5 C loop p99 + 3 ms)|", mine / bound)
    return mine


def _latency_of_rival(
    figures: dict[str, list[float]], bus: Bus, kind: Kind, clients: int, seconds: float, mine: float
) -> None:
    with from_topic(bus, kind, clients) as rival:
        rival.run(min(1.0, seconds), BEAT, 1)
        theirs = _keep_latencies(figures, kind.name, rival.run(seconds, BEAT, 2))
    _add(figures, f"gateway p99 / {kind.name} p99|", mine / theirs)


def _keep_latencies(figures: dict[str, list[float]], name: str, run: Run) -> float:
    """The p99 of the last client, in milliseconds."""
    for reader in ("last", "each"):
        for share in ("p50", "p99"):
            _add(figures, f"{name} {share}, {reader} client|ms", run.told[f"{reader}_ms"][share])
    return float(run.told["last_ms"]["p99"])


def _add(figures: dict[str, list[float]], name: str, value: float) -> None:
    figures.setdefault(name, []).append(value)


def _row(bench: str, name: str, values: list[float], targets: dict[str, float]) -> Row:
    figure, _, unit = name.partition("|")
    return Row(bench, figure, unit, tuple(values), targets.get(figure))
