"""A fresh instance: with what was kept of a million open orders and 500 books, beside one that reads both topics for them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.state.rows import rows_of
from bench.support import machine
from bench.support.bus import PARTITIONS, Bus
from bench.support.figures import Row
from bench.support.gateway import Gateway, environment, gateway, get, metrics
from bench.support.processes import BenchError, part

READY_SECONDS = 600.0
SETTLE_SECONDS = 3.0
WITHOUT = "bench/state/without.yaml"


@dataclass(frozen=True, slots=True)
class Started:
    """What a start took: seconds on the clock, CPU seconds of the process, its resident bytes, all once it was ready."""

    seconds: float
    cpu_seconds: float
    resident: int


def bench(bus: Bus, rounds: int, orders: int, symbols: int) -> list[Row]:
    """Medians over `rounds` in which both start once, on one core, one after the other."""
    variables = filled(bus, orders, symbols)
    figures: dict[str, list[float]] = {}
    with machine.beside_the_load(bus.pid):
        for number in range(rounds):
            done: dict[str, Started] = {}
            for name in ("restored", "without state")[:: -1 if number % 2 else 1]:
                done[name] = _start(variables, orders, with_state=name == "restored")
                figures.setdefault(f"{name}, ready|s", []).append(done[name].seconds)
                figures.setdefault(f"{name}, CPU until ready|s", []).append(done[name].cpu_seconds)
                figures.setdefault(f"{name}, resident|MB", []).append(done[name].resident / 1e6)
            ratio = done["restored"].cpu_seconds / done["without state"].cpu_seconds
            figures.setdefault("ratio CPU|", []).append(ratio)
    below = {"restored, ready": 30.0, "restored, CPU until ready": 30.0, "restored, resident": 1_000.0}
    return rows_of("state, start", figures, below)


def filled(bus: Bus, orders: int, symbols: int) -> dict[str, str]:
    """The variables for a gateway on topics that have these orders and books, and what is kept of them."""
    variables = environment(bus, "state")
    topics = (variables["KAFKA_TOPIC"], variables["KAFKA_ORDER_TOPIC"])
    with part("state.fill", bus.bootstrap, *topics, orders, symbols) as fill:
        fill.go()
        if unsent := fill.read(READY_SECONDS)["unsent"]:
            raise BenchError(f"Kafka did not acknowledge {unsent} records")
    with gateway(variables) as writer:
        writer.wait_ready(READY_SECONDS)
        await_written(writer, READY_SECONDS)
    return variables


def await_written(writer: Gateway, timeout_seconds: float, partitions: int = PARTITIONS) -> None:
    """Until it has written so many partitions, all there are, of what is kept. Raises BenchError."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        state = json.loads(get(writer.port, "/health")[1])["state"]
        if len(state["writer_of"]) == partitions and state["age_seconds"] is not None:
            (commits,) = metrics(writer.port, "gateway_state_write_seconds_count")
            if commits >= partitions:
                return
        if time.monotonic() > deadline:
            raise BenchError(f"the state was not written: {state}; the log ends: {writer.log_end()}")
        time.sleep(0.1)  # between questions


def _start(variables: Mapping[str, str], orders: int, *, with_state: bool) -> Started:
    variables = {name: value for name, value in variables.items() if with_state or name != "GATEWAY_KAFKA_STATE_TOPIC"}
    config = "conf/gateway.yaml" if with_state else WITHOUT
    cores = machine.split_cores()
    began = time.monotonic()
    with gateway(variables, config, cores=cores[0] if cores is not None else None) as served:
        served.wait_ready(READY_SECONDS)
        seconds, cpu = time.monotonic() - began, machine.cpu_seconds(served.pid)
        time.sleep(SETTLE_SECONDS)  # what it only needed to start is given back
        resident = machine.resident_bytes(served.pid)
        (known,) = metrics(served.port, "gateway_known_orders")
        if known != orders:
            raise BenchError(f"{known:.0f} of {orders} orders are known; the log ends: {served.log_end()}")
        state = json.loads(get(served.port, "/health")[1]).get("state")
        if (state is not None and state["restored"]) is not with_state:
            raise BenchError(f"restored: {state}; the log ends: {served.log_end()}")
    return Started(seconds, cpu, resident)
