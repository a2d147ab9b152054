"""What it costs to keep state while 2,000 events/s and 200 orders/s come, beside instances that keep none; and what is kept.

CPU: three instances on one core at the same time, over the same minute or more (each book is written whole once in it): the one that
writes, one that does not, and one without a state topic; each is given a third of the orders. A market topic of one partition
has one writer. Times: fresh instances, by turns with and without, each alone on its core, with all the orders and a client of
the default stream.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from bench.state.restoring import WITHOUT, await_written
from bench.state.rows import rows_of
from bench.state.size import sizes
from bench.support import machine
from bench.support.bus import PARTITIONS, Bus
from bench.support.figures import Absent, Row, quantile
from bench.support.gateway import Gateway, environment, gateway, get, metrics, tokens
from bench.support.processes import BenchError, Child, part

EVENTS_A_SECOND = 2_000
ORDERS_A_SECOND = 200
GRACE_SECONDS = 120.0
# Until every way has been gone once; also the first writing.
WARM_SECONDS = 6.0
MOST_MORE_PERCENT = {"writer": 5.0, "reader": 0.5}


class Flow:
    """The engine on topics of its own, and the gateways on them."""

    def __init__(self, bus: Bus, partitions: int, symbols: int, load_cores: set[int] | None) -> None:
        asked, [self.token] = tokens("bench")
        # On a busy machine the client may not get to read for some seconds.
        buffer = {"GATEWAY_WEBSOCKET_MAX_BUFFER_BYTES": str(64 * 1024 * 1024)}
        self.variables = {**environment(bus, "state", partitions), **asked, **buffer}
        self.symbols = symbols
        self.partitions = partitions
        self.load_cores = load_cores
        self.engine: Child = part(
            "state.engine",
            bus.bootstrap,
            self.variables["KAFKA_TOPIC"],
            self.variables["KAFKA_ORDER_TOPIC"],
            EVENTS_A_SECOND,
            symbols,
            cores=load_cores,
        )

    @contextmanager
    def gateway(self, cores: set[int] | None, *, with_state: bool) -> Iterator[Gateway]:
        """One that is ready."""
        variables = {n: value for n, value in self.variables.items() if with_state or n != "GATEWAY_KAFKA_STATE_TOPIC"}
        with gateway(variables, "conf/gateway.yaml" if with_state else WITHOUT, cores=cores) as served:
            served.wait_ready()
            yield served

    def traders(self, served: Gateway, rate: float, seconds: float) -> Child:
        """Orders for one of the gateways."""
        arguments = (served.port, rate, seconds, secrets.token_hex(4), self.symbols, self.token)
        return part("state.traders", *arguments, cores=self.load_cores)

    def run(self, name: str, seconds: float) -> None:
        """Have the engine write so long."""
        self.engine.say(f"{name} {int(seconds * EVENTS_A_SECOND)}")

    def written(self, seconds: float) -> tuple[float, float]:
        """When it has: how many bytes, and how many events a second those were."""
        told = self.engine.read(seconds + GRACE_SECONDS)
        if told["unsent"]:
            raise BenchError(f"Kafka did not acknowledge {told['unsent']} events")
        return told["bytes"], told["events"] / told["seconds"]


def bench(bus: Bus, rounds: int, seconds: float, symbols: int) -> list[Row | Absent]:
    """CPU over one window of `rounds * seconds`; medians over `rounds` turns of `seconds`."""
    cores = machine.split_cores()
    server_cores, load_cores = cores if cores is not None else (None, None)
    rows: list[Row | Absent] = []
    with machine.beside_the_load(bus.pid):
        flow = Flow(bus, 1, symbols, load_cores)
        with flow.engine:
            figures = _beside(flow, server_cores, rounds * seconds)
        rows += rows_of("state, written", figures, {f"{kind} more": most for kind, most in MOST_MORE_PERCENT.items()})
        flow = Flow(bus, PARTITIONS, symbols, load_cores)
        with flow.engine:
            figures = _by_turns(flow, server_cores, rounds, seconds)
        below = {f"{what} p99, with to without": 1.05 for what in ("answer", "event")}
        rows += rows_of("state, by turns", figures, below)
        rows += sizes(bus, flow.variables["GATEWAY_KAFKA_STATE_TOPIC"])
    return rows


def _beside(flow: Flow, cores: set[int] | None, seconds: float) -> dict[str, list[float]]:
    with ExitStack() as stack:
        first = stack.enter_context(flow.gateway(cores, with_state=True))
        await_written(first, GRACE_SECONDS, flow.partitions)
        others = [stack.enter_context(flow.gateway(cores, with_state=with_state)) for with_state in (True, False)]
        _window(flow, [first, *others], WARM_SECONDS)
        # Kafka may have chosen the other one when it came.
        names = ["writer" if _writes(one) else "reader" for one in (first, others[0])]
        if sorted(names) != ["reader", "writer"]:
            raise BenchError(f"of two instances one should write: {names}")
        served = dict(zip([*names, "without"], [first, *others], strict=True))
        cpu = {name: machine.cpu_seconds(one.pid) for name, one in served.items()}
        before = _told_of_state(served["writer"])
        elapsed, size, rate = _window(flow, list(served.values()), seconds)
        share = {name: (machine.cpu_seconds(one.pid) - cpu[name]) / elapsed * 100 for name, one in served.items()}
        after = _told_of_state(served["writer"])
        if not _writes(served["writer"]):
            raise BenchError("the writer was replaced meanwhile")
    written, times, records = (after[name] - before[name] for name in after)
    return {
        "events|/s": [rate],
        "without|% of a core": [share["without"]],
        **{f"{name} more|% of a core": [share[name] - share["without"]] for name in MOST_MORE_PERCENT},
        "from one writing to the next|s": [elapsed / max(times, 1)],
        "records|/s": [records / elapsed],
        "state|kB/s": [written / elapsed / 1e3],
        "state to market, bytes|": [written / size],
    }


def _told_of_state(writer: Gateway) -> dict[str, float]:
    names = ("gateway_state_bytes_total", "gateway_state_write_seconds_count", "gateway_state_records_total")
    return dict(zip(names, metrics(writer.port, *names), strict=True))


def _window(flow: Flow, served: list[Gateway], seconds: float) -> tuple[float, float, float]:
    """Events and orders for so long: the seconds it took, and of the events bytes and how many a second."""
    with ExitStack() as stack:
        traders = [stack.enter_context(flow.traders(one, ORDERS_A_SECOND / len(served), seconds)) for one in served]
        began = time.monotonic()
        flow.run("window", seconds)
        for one in traders:
            one.go()
        size, rate = flow.written(seconds)
        for one in traders:
            _latencies(one, seconds)
        return time.monotonic() - began, size, rate


def _writes(served: Gateway) -> bool:
    return bool(json.loads(get(served.port, "/health")[1])["state"]["writer_of"])


def _latencies(traders: Child, seconds: float) -> list[float]:
    told = traders.read(seconds + GRACE_SECONDS)
    if told["refused"]:
        raise BenchError(f"orders were refused: {told['refused']}")
    latencies: list[float] = told["latencies_ms"]
    return latencies


def _by_turns(flow: Flow, cores: set[int] | None, rounds: int, seconds: float) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    # The first round only warms what is not ours.
    for number in range(rounds + 1):
        done: dict[str, dict[str, float]] = {}
        for name in ("with", "without")[:: -1 if number % 2 else 1]:
            done[name] = _turn(flow, cores, seconds, with_state=name == "with")
        if number == 0:
            continue
        for figure in done["with"]:
            unit = {"CPU": "% of a core", "events": "/s"}.get(figure, "ms")
            for name in ("with", "without"):
                figures.setdefault(f"{figure}, {name}|{unit}", []).append(done[name][figure])
        figures.setdefault("CPU more|% of a core", []).append(done["with"]["CPU"] - done["without"]["CPU"])
    for what in ("answer p50", "answer p99", "event p50", "event p99"):
        with_state, without = (median(figures[f"{what}, {name}|ms"]) for name in ("with", "without"))
        figures[f"{what}, with to without|"] = [with_state / without]
    return figures


def _turn(flow: Flow, cores: set[int] | None, seconds: float, *, with_state: bool) -> dict[str, float]:
    with flow.gateway(cores, with_state=with_state) as served:
        if with_state:
            await_written(served, GRACE_SECONDS, flow.partitions)
        _window(flow, [served], WARM_SECONDS)
        run, count = secrets.token_hex(4), int(seconds * EVENTS_A_SECOND)
        with (
            flow.traders(served, ORDERS_A_SECOND, seconds) as traders,
            part(
                "latency.stream_client", served.port, run, count, seconds + GRACE_SECONDS, cores=flow.load_cores
            ) as client,
        ):
            client.go()
            began, cpu = time.monotonic(), machine.cpu_seconds(served.pid)
            flow.run(run, seconds)
            traders.go()
            _size, rate = flow.written(seconds)
            answers = _latencies(traders, seconds)
            cpu = (machine.cpu_seconds(served.pid) - cpu) / (time.monotonic() - began) * 100
            told = client.read(seconds + GRACE_SECONDS)
        if [number for number, _ in told] != list(range(count)):
            raise BenchError(f"{len(told)} of {count} events came to the client")
        ways = [way_ms for _, way_ms in told]
    return {
        "events": rate,
        "CPU": cpu,
        "answer p50": quantile(answers, 0.50),
        "answer p99": quantile(answers, 0.99),
        "event p50": quantile(ways, 0.50),
        "event p99": quantile(ways, 0.99),
    }
