"""Orders in, with a token: one at a time over REST and WebSocket beside a bare Tornado handler and a bare producer, and 64
in flight beside the handler, and in batches of twenty.

What twenty orders in one message save depends on what else there is to do: beside 64 clients with one order each (`batches to
WebSocket`), beside twenty messages that a client sends at once (`batches to bursts`), and beside one that waits for each answer (`batch
by batch to one by one`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.orders.load import BATCH
from bench.support import machine
from bench.support.bus import Bus
from bench.support.figures import Row, quantile
from bench.support.gateway import environment, gateway, tokens
from bench.support.processes import BenchError, part

IN_FLIGHT = 64
GRACE_SECONDS = 30.0
# What else the machine does changes within seconds: the two servers take turns that are shorter.
SLICES = 5
# More than this share of its core, and the load, not the server, sets the pace.
BUSY_LOAD = 0.8
PACED = "bare producer, paced"
# Milliseconds.
ONE_TARGETS = {"gateway above both p50": 0.5, "gateway above both p99": 2.0}
TARGETS = {
    "ratio CPU, batches to WebSocket": 0.5,
    "ratio CPU": 1.5,
    "ratio CPU, batch by batch to one by one": 0.5,
    "ratio CPU, WebSocket to REST": 0.6,
    "gateway p99": 80.0,
}


@dataclass(slots=True)
class Loaded:
    """What a server did under load; adds up over slices."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    main_thread_cpu_seconds: float = 0.0
    load_cpu_seconds: float = 0.0
    orders: int = 0

    def add(self, other: Loaded) -> None:
        """Add another slice."""
        self.seconds += other.seconds
        self.latencies_ms += other.latencies_ms
        self.cpu_seconds += other.cpu_seconds
        self.main_thread_cpu_seconds += other.main_thread_cpu_seconds
        self.load_cpu_seconds += other.load_cpu_seconds
        self.orders += other.orders

    @property
    def requests(self) -> int:
        """How many orders were answered."""
        return self.orders

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU an order."""
        return self.cpu_seconds / self.requests * 1e6


class Server:
    """A server under test, and where its load runs."""

    def __init__(self, pid: int, port: int, load_cores: set[int] | None, token: str = "") -> None:
        self._pid = pid
        self._port = port
        self._load_cores = load_cores
        self._token = token
        self.requests = 0

    def load(self, connections: int, seconds: float, kind: str = "rest") -> Loaded:
        """Orders for `seconds` over `connections`, one in flight on each. Raises BenchError if any is refused."""
        arguments = (self._port, connections, seconds, secrets.token_hex(4), kind, self._token)
        with part("orders.load", *arguments, cores=self._load_cores) as load:
            cpu, main_thread = machine.cpu_seconds(self._pid), machine.main_thread_cpu_seconds(self._pid)
            load.go()
            told = load.read(seconds + GRACE_SECONDS)
            cpu = machine.cpu_seconds(self._pid) - cpu
            main_thread = machine.main_thread_cpu_seconds(self._pid) - main_thread
        if told["refused"]:
            raise BenchError(f"orders were refused: {told['refused']}")
        loaded = Loaded(told["seconds"], told["latencies_ms"], cpu, main_thread, told["cpu_seconds"], told["orders"])
        self.requests += loaded.requests
        return loaded


@contextmanager
def servers(bus: Bus) -> Iterator[tuple[Server, Server, set[int] | None]]:
    """The gateway and the bare handler, both on one core; the cores of the load, with Kafka on them."""
    asked, [token] = tokens("bench")
    variables = {**environment(bus, "orders"), **asked}
    cores = machine.split_cores()
    server_cores, load_cores = cores if cores is not None else (None, None)
    with gateway(variables) as served, part("orders.bare_server", cores=server_cores) as bare:
        served.wait_ready()
        if server_cores is not None:
            machine.pin(served.pid, server_cores)
        ours = Server(served.pid, served.port, load_cores, token)
        with machine.beside_the_load(bus.pid):
            yield ours, Server(bare.pid, bare.first, load_cores), load_cores
        if (written := bus.records(variables["KAFKA_ORDER_TOPIC"])) != ours.requests:
            raise BenchError(f"{ours.requests} orders were accepted, and {written} are on the topic")


def bench(bus: Bus, rounds: int, seconds: float) -> list[Row]:
    """Medians over `rounds`; each has `seconds` of everything, 64 in flight in slices by turns."""
    singles: dict[str, list[float]] = {}
    figures: dict[str, list[float]] = {}
    with servers(bus) as (ours, bare, load_cores):
        floor_topic = bus.create_topic(f"orders-bare-{secrets.token_hex(4)}")
        # The JVM and both servers have then run every path.
        ours.load(IN_FLIGHT, min(3.0, seconds))
        ours.load(IN_FLIGHT, min(2.0, seconds), "ws")
        ours.load(IN_FLIGHT // BATCH, min(1.0, seconds), "batch")
        bare.load(IN_FLIGHT, min(1.0, seconds))
        # A broker that serves one record at a time goes other ways than one that serves many, and takes some thousand to warm to them.
        for _ in range(2):
            _one_at_a_time(ours, bare, bus, floor_topic, load_cores, seconds)
        for number in range(rounds):
            one = _one_at_a_time(ours, bare, bus, floor_topic, load_cores, seconds)
            _compare_one(one, singles)
            ways = {
                "gateway": (ours, "rest", IN_FLIGHT),
                "bare Tornado": (bare, "rest", IN_FLIGHT),
                "gateway, WebSocket": (ours, "ws", IN_FLIGHT),
                "gateway, bursts": (ours, "burst", IN_FLIGHT // BATCH),
                "gateway, batches": (ours, "batch", IN_FLIGHT // BATCH),
                "gateway, one by one": (ours, "ws", 1),
                "gateway, batch by batch": (ours, "batch", 1),
            }
            runs = {name: Loaded() for name in ways}
            for piece in range(SLICES):
                for name in list(ways)[:: -1 if (number + piece) % 2 else 1]:
                    server, kind, connections = ways[name]
                    runs[name].add(server.load(connections, seconds / SLICES, kind))
            _compare(runs, figures)
    rows = [Row("order, one", name, "ms", tuple(values), ONE_TARGETS.get(name)) for name, values in singles.items()]
    for name, values in figures.items():
        figure, _, unit = name.partition("|")
        rows.append(Row(f"order, {IN_FLIGHT}", figure, unit, tuple(values), TARGETS.get(figure)))
    return rows


def _one_at_a_time(
    ours: Server, bare: Server, bus: Bus, topic: str, load_cores: set[int] | None, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds that each took: over REST and WebSocket, the handler, and a producer to this topic."""
    one = {
        "gateway": ours.load(1, seconds).latencies_ms,
        "gateway, WebSocket": ours.load(1, seconds, "ws").latencies_ms,
        "bare Tornado": bare.load(1, seconds).latencies_ms,
    }
    # A record after the other, and with the time between two that the handler takes with a client.
    for name, pause in (("bare producer", 0.0), (PACED, quantile(one["bare Tornado"], 0.5) / 1000)):
        with part("orders.bare_producer", bus.bootstrap, topic, seconds, pause, cores=load_cores) as producer:
            producer.go()
            one[name] = producer.read(seconds + GRACE_SECONDS)["latencies_ms"]
    return one


def _compare_one(latencies_ms: dict[str, list[float]], singles: dict[str, list[float]]) -> None:
    """ "Both" are the handler, and the producer at the handler's pace."""
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        at = {who: quantile(values, share) for who, values in latencies_ms.items()}
        at["gateway above both"] = at["gateway"] - at["bare Tornado"] - at[PACED]
        for who, value in at.items():
            singles.setdefault(f"{who} {name}", []).append(value)


def _compare(runs: dict[str, Loaded], figures: dict[str, list[float]]) -> None:
    def add(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    for name, run in runs.items():
        load_share = run.load_cpu_seconds / run.seconds
        if load_share > BUSY_LOAD:
            raise BenchError(f"the load is the bottleneck: {load_share:.0%} of its core")
        add(f"{name} CPU|us/request", run.cpu_us)
        if name == "gateway":
            add("of it Python's main thread|us/request", run.main_thread_cpu_seconds / run.requests * 1e6)
        add(f"{name} rate|/s", run.requests / run.seconds)
        add(f"{name} p50|ms", quantile(run.latencies_ms, 0.50))
        add(f"{name} p99|ms", quantile(run.latencies_ms, 0.99))
        add(f"{name}: load busy|%", load_share * 100)
    add("ratio CPU|", runs["gateway"].cpu_us / runs["bare Tornado"].cpu_us)
    add("ratio CPU, batches to WebSocket|", runs["gateway, batches"].cpu_us / runs["gateway, WebSocket"].cpu_us)
    add("ratio CPU, batches to bursts|", runs["gateway, batches"].cpu_us / runs["gateway, bursts"].cpu_us)
    add(
        "ratio CPU, batch by batch to one by one|",
        runs["gateway, batch by batch"].cpu_us / runs["gateway, one by one"].cpu_us,
    )
    add("ratio CPU, WebSocket to REST|", runs["gateway, WebSocket"].cpu_us / runs["gateway"].cpu_us)
