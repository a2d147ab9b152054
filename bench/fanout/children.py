"""The servers and the load of the fan-out bench: processes of their own that are told what to do, one line at a time."""

from __future__ import annotations

import json
import os
import select
import subprocess
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
from bench.support.processes import READY_SECONDS, ROOT, BenchError, end, tied
from tools import standstill

GRACE_SECONDS = 60.0
SUBSCRIBE = '{"id":1,"method":"public/subscribe","params":{"channels":["events.KCN/EUR"]}}'


class Child:
    """A process that tells and is told JSON, one line at a time."""

    def __init__(self, name: str, command: Sequence[str], cores: set[int] | None) -> None:
        """Start it on `cores` only, if they are given, from its first instruction on."""
        self.name = name
        before = os.sched_getaffinity(0)
        try:
            # It is inherited; what counts its cores when it starts (Go) then counts right.
            if cores is not None:
                os.sched_setaffinity(0, cores)
            self._process = subprocess.Popen(
                tied(*command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, before)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.resume()
        end(self._process)

    def say(self, line: str) -> None:
        """Tell it one line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchError(f"{self.name} has ended") from error

    def read(self, timeout_seconds: float) -> Any:
        """The next line it tells, decoded. Raises BenchError if it ends, or tells nothing in time."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_seconds)[0]:
            raise BenchError(f"{self.name} told nothing within {timeout_seconds:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self.name} ended with code {self._process.wait(10)}")
        return json.loads(line)

    def pause(self) -> None:
        """Stop it until `resume`: for a server that spins while it has nothing to do."""
        standstill.stop(self._process)

    def resume(self) -> None:
        """Let it go on."""
        standstill.go_on(self._process)


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
        try:
            self.child.read(READY_SECONDS)
        except BaseException:
            self.child.__exit__()
            raise
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
            yield Server(kind, child, child.read(READY_SECONDS)["port"], counter)
