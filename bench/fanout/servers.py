"""The servers and the load of the fan-out bench: processes of their own that are told what to do, one line at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.fanout import build
from bench.peers.ticks import template
from bench.support import machine
from bench.support.processes import ROOT, BenchError, Child

GRACE_SECONDS = 60.0
SUBSCRIBE = '{"id":1,"method":"public/subscribe","params":{"channels":["events.KCN/EUR"]}}'


class Load:
    """Clients that count: the load generator (load.c)."""

    def __init__(self, name: str, port: int, clients: int, counter: Path, options: Sequence[str]) -> None:
        cores = machine.split_cores()
        program = build.compiled(ROOT / "bench" / "fanout" / "load.c")
        command = [str(program), str(port), str(clients), str(counter), *options]
        self.clients = clients
        self._name = name
        self.child = Child(f"the load of {name}", command, cores[1] if cores else None)
        # It shares its core with Kafka and the producer, and gives way to them at once: else it would be measured how they
        # wait (sched(7)).
        os.sched_setscheduler(self.child.pid, os.SCHED_IDLE, os.sched_param(0))

    def __enter__(self) -> Self:
        self.child.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.child.__exit__(*error)

    def reset(self, mode: int) -> None:
        """Count anew; see load.c for the modes."""
        self.child.say(f"reset {mode}")
        self.child.read(GRACE_SECONDS)

    def tell(self) -> dict[str, Any]:
        """What was counted since."""
        self.child.say("tell")
        told: dict[str, Any] = self.child.read(GRACE_SECONDS)
        return told

    def await_events(self, events: int) -> dict[str, Any]:
        """Until every client has read so many, and not one more. Raises BenchError."""
        deadline = time.monotonic() + GRACE_SECONDS
        while (told := self.tell())["events"] < events * self.clients:
            if told["closed"] or time.monotonic() > deadline:
                raise BenchError(
                    f"{self._name}: {told['events']} of {events * self.clients} deliveries, {told['closed']} closed"
                )
            time.sleep(0.02)  # between questions: each takes a bit of the clients' time
        if told["least"] != events or told["most"] != events:
            raise BenchError(f"{self._name}: clients got from {told['least']} to {told['most']} of {events} events")
        return told


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to serve: how its process is called, and how its clients connect."""

    name: str
    command: Sequence[str]
    options: tuple[str, ...] = ()
    # It spins while idle: stopped when it is not its turn.
    spins: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What a server did in one turn."""

    events: int
    deliveries: int
    seconds: float
    cpu_seconds: float
    load_cpu_seconds: float
    told: dict[str, Any]

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a delivery."""
        return self.cpu_seconds / self.deliveries * 1e6

    @property
    def load_share(self) -> float:
        """How much of its core the load took."""
        return self.load_cpu_seconds / self.seconds


class Server:
    """A server with its clients."""

    def __init__(self, kind: Kind, child: Child, port: int, counter: Path) -> None:
        self.kind = kind
        self.child = child
        self.port = port
        self.pid = child.pid
        self.counter = counter
        self.load: Load | None = None

    @contextmanager
    def clients(self, number: int, *more: str) -> Iterator[Load]:
        """Connect clients; it is their last that `run` waits for."""
        with Load(self.kind.name, self.port, number, self.counter, (*self.kind.options, *more)) as load:
            self.load = load
            yield load

    def run(self, events: int, seconds: float, rate: float = 0.0, mode: int = 0) -> Run:
        """Ticks of so many events, see bench/peers/ticks.py, until the last client has read the last. Raises BenchError."""
        assert self.load is not None
        if self.kind.spins:
            self.child.resume()
        before = self.load.tell()["cpu_seconds"]
        self.load.reset(mode)
        cpu = machine.cpu_seconds(self.pid)
        began = time.monotonic()
        self.child.say(f"run {events} {seconds:g} {rate:g}")
        made = self.child.read(seconds + GRACE_SECONDS)
        if made["clients"] != self.load.clients:
            raise BenchError(f"{self.kind.name} had {made['clients']} of {self.load.clients} clients")
        told = self.load.await_events(made["events"])
        cpu = machine.cpu_seconds(self.pid) - cpu
        took = time.monotonic() - began
        if self.kind.spins:
            self.child.pause()
        deliveries = made["events"] * self.load.clients
        return Run(made["events"], deliveries, took, cpu, told["cpu_seconds"] - before, told)

    def exercise(self, seconds: float, rate: float) -> None:
        """Single events for a while, whoever reads them. Raises BenchError."""
        if self.kind.spins:
            self.child.resume()
        self.child.say(f"run 1 {seconds:g} {rate:g}")
        self.child.read(seconds + GRACE_SECONDS)


@contextmanager
def server(kind: Kind, *arguments: str) -> Iterator[Server]:
    """Start one, on the servers' core."""
    cores = machine.split_cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        counter = Path(folder) / "counter"
        counter.write_bytes(bytes(8))
        command = [*kind.command, str(counter), template().decode(), *arguments]
        with Child(kind.name, command, cores[0] if cores else None) as child:
            yield Server(kind, child, child.first["port"], counter)
