"""Kafka to client: the whole gateway at 2,000 events/s, and its latency at 100, beside its own bare fan-out and a C loop."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import machine
from bench.bus import Bus
from bench.fanout.children import GRACE_SECONDS, Child, Kind, Load, Run, Server, server
from bench.fanout.kinds import C_LOOP, CENTRIFUGO, EVENTS, EVENTS_OPTIONS, c_loop, ours
from bench.figures import Row
from bench.latency import environment
from bench.peers.ticks import template
from bench.processes import READY_SECONDS, BenchError, gateway

FLOW, BEAT = 2000, 100
WHOLE, NAIVE_KAFKA = "gateway, Kafka to client", "naive Tornado, Kafka to client"
TO_BARE = 1.5
LATENCY_TIMES, LATENCY_MORE_MS = 1.5, 3.0
NAIVE_SECONDS = 3.0


class Fed:
    """A server that has its events from a topic, with a producer for it."""

    def __init__(self, producer: Child, load: Load, pid: int) -> None:
        self._producer = producer
        self.load = load
        self._pid = pid

    def run(self, seconds: float, rate: float, mode: int) -> Run:
        """So many events a second, until the last client has read the last. Raises BenchError."""
        before = self.load.tell()["cpu_seconds"]
        self.load.reset(mode)
        cpu, began = machine.cpu_seconds(self._pid), time.monotonic()
        events = self.publish(seconds, rate)
        told = self.load.await_events(events)
        cpu = machine.cpu_seconds(self._pid) - cpu
        deliveries = events * self.load.clients
        return Run(events, deliveries, time.monotonic() - began, cpu, told["cpu_seconds"] - before, told)

    def watch(self, seconds: float, rate: float) -> Run:
        """The same for one that cannot keep up: what it delivers meanwhile. Raises BenchError."""
        before = self.load.tell()["cpu_seconds"]
        self.load.reset(1)
        cpu, began = machine.cpu_seconds(self._pid), time.monotonic()
        events = self.publish(seconds, rate)
        told = self.load.tell()
        cpu, took = machine.cpu_seconds(self._pid) - cpu, time.monotonic() - began
        if not told["events"]:
            raise BenchError("the naive loop delivered nothing")
        return Run(events, told["events"], took, cpu, told["cpu_seconds"] - before, told)

    def publish(self, seconds: float, rate: float) -> int:
        """Returns how many events were written. Raises BenchError."""
        self._producer.say(f"run 1 {seconds:g} {rate:g}")
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
        child.read(READY_SECONDS)
        yield child


@contextmanager
def whole_gateway(bus: Bus, clients: int) -> Iterator[Fed]:
    """`gateway.py` as it is run, on the servers' core, with its clients on the events channel."""
    suffix = secrets.token_hex(4)
    topic, order_topic = bus.create_topic(f"fanout-{suffix}"), bus.create_topic(f"fanout-orders-{suffix}")
    variables = {**environment(bus, topic, order_topic), "GATEWAY_LIMITS_CONNECTS_PER_SECOND": "0"}
    cores = machine.split_cores()
    with ExitStack() as stack:
        published = stack.enter_context(producer(bus, topic))
        served = stack.enter_context(gateway(variables))
        served.wait_ready()
        if cores is not None:
            machine.pin(served.pid, cores[0])
        # A server of this bench counts deliveries in a file of its own; the gateway needs none.
        counter = stack.enter_context(_counter())
        load = stack.enter_context(Load(WHOLE, served.port, clients, counter, EVENTS_OPTIONS))
        yield Fed(published, load, served.pid)


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
        yield Fed(published, load, served.pid)


def bench(bus: Bus, peers: list[Kind], rounds: int, seconds: float, clients: int) -> list[Row]:
    """Medians over `rounds`: the gateway and what it is compared with, one after the other, on the same core."""
    figures: dict[str, list[float]] = {}
    latencies: dict[str, list[float]] = {}
    centrifugo = next((kind for kind in peers if kind.name == CENTRIFUGO), None)
    naive = Kind(NAIVE_KAFKA, (sys.executable, "-m", "bench.peers.tornado_kafka"))
    cores = machine.split_cores()
    if cores is not None and bus.pid is not None:
        machine.pin(bus.pid, cores[1])
    try:
        with ExitStack() as stack:
            whole = stack.enter_context(whole_gateway(bus, clients))
            bare, floor = (_started(stack, kind, clients) for kind in (ours(EVENTS), c_loop()))
            rival = stack.enter_context(from_topic(bus, centrifugo, clients)) if centrifugo is not None else None
            whole.run(min(2.0, seconds), BEAT, 1)
            for _ in range(rounds):
                _flow(figures, whole, bare, rival, seconds)
                with from_topic(bus, naive, clients) as slow:
                    run = slow.watch(min(seconds, NAIVE_SECONDS), FLOW)
                _add(figures, f"{NAIVE_KAFKA}, falling behind|us/delivery", run.cpu_us)
                _add(figures, f"{NAIVE_KAFKA}, of 2,000 events/s|/s", run.deliveries / clients / run.seconds)
                _latency(latencies, whole, floor, rival, 2 * seconds)
    finally:
        if bus.pid is not None:
            machine.pin(bus.pid, machine.all_cores())
    targets = {"gateway / bare at 2,000 events/s": TO_BARE, "gateway / bare with as many events a tick": TO_BARE}
    targets[f"gateway / {CENTRIFUGO}"] = 1.0
    rows = [_row("fan-out, 2,000/s", name, values, targets) for name, values in figures.items()]
    targets = {"gateway p99 / (1.5 C loop p99 + 3 ms)": 1.0, f"gateway p99 / {CENTRIFUGO} p99": 1.0}
    return rows + [_row("fan-out, 100/s", name, values, targets) for name, values in latencies.items()]


def _started(stack: ExitStack, kind: Kind, clients: int) -> Server:
    started = stack.enter_context(server(kind))
    stack.enter_context(started.clients(clients))
    started.run(1, 0.3)
    return started


def _flow(figures: dict[str, list[float]], whole: Fed, bare: Server, rival: Fed | None, seconds: float) -> None:
    run = whole.run(seconds, FLOW, 1)
    batch = max(1, round(run.deliveries / run.told["reads"]))
    alike = bare.run(0, seconds, FLOW)
    joined = bare.run(batch, seconds / 2)
    _add(figures, f"{WHOLE}|us/delivery", run.cpu_us)
    _add(figures, f"{WHOLE}, time taken / time of the events|", run.seconds / seconds)
    _add(figures, f"{WHOLE}, events a tick|", run.deliveries / run.told["reads"])
    _add(figures, f"{EVENTS}, bare at 2,000 events/s|us/delivery", alike.cpu_us)
    _add(figures, "gateway / bare at 2,000 events/s|", run.cpu_us / alike.cpu_us)
    _add(figures, f"{EVENTS}, bare with as many events a tick|us/delivery", joined.cpu_us)
    _add(figures, "gateway / bare with as many events a tick|", run.cpu_us / joined.cpu_us)
    if rival is not None:
        other = rival.watch(seconds, FLOW)
        _add(figures, f"{CENTRIFUGO}, Kafka to client|us/delivery", other.cpu_us)
        _add(figures, f"gateway / {CENTRIFUGO}|", run.cpu_us / other.cpu_us)


def _latency(figures: dict[str, list[float]], whole: Fed, floor: Server, rival: Fed | None, seconds: float) -> None:
    told = {"gateway": whole.run(seconds, BEAT, 2).told, C_LOOP: floor.run(1, seconds, BEAT, 2).told}
    if rival is not None:
        told[CENTRIFUGO] = rival.run(seconds, BEAT, 2).told
    for name, figure in told.items():
        for share in ("p50", "p99"):
            _add(figures, f"{name} {share}, last client|ms", figure["last_ms"][share])
        for share in ("p50", "p99"):
            _add(figures, f"{name} {share}, each client|ms", figure["each_ms"][share])
    last = {name: figure["last_ms"]["p99"] for name, figure in told.items()}
    bound = LATENCY_TIMES * last[C_LOOP] + LATENCY_MORE_MS
    _add(figures, "gateway p99 / (1.5 C loop p99 + 3 ms)|", last["gateway"] / bound)
    if CENTRIFUGO in last:
        _add(figures, f"gateway p99 / {CENTRIFUGO} p99|", last["gateway"] / last[CENTRIFUGO])


def _add(figures: dict[str, list[float]], name: str, value: float) -> None:
    figures.setdefault(name, []).append(value)


def _row(bench: str, name: str, values: list[float], targets: dict[str, float]) -> Row:
    figure, _, unit = name.partition("|")
    return Row(bench, figure, unit, tuple(values), targets.get(figure))
