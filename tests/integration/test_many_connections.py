"""Thousands of connections on one process (15,000 in CI): they come at 600 a second, each is served, and when they are gone nothing is left."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.clients import WebSocket, exact
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, limit, settings
from tests.integration.waiting import wait_until
from tests.support.examples import load
from tests.support.kafka import embedded_bus
from tests.support.many_clients import ManyClients

CONNECTIONS = load(15_000)
CONNECTS_A_SECOND = 600
EVENTS_A_SECOND = 100
# The target is 20 (and is printed); the rest is the kernel's habit of counting pages.
MOST_BYTES_EACH = 24 * 1024
# Of the test as a whole, for a machine that has other work too; on two quiet cores it takes less than a minute.
STEP_SECONDS = 240.0


def resident_bytes(gateway: Gateway) -> int:
    """RSS of the gateway's process."""
    pages = Path(f"/proc/{gateway.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def open_files(gateway: Gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


class Flow:
    """Numbered fills at a steady rate in a thread of their own, until it is told to stop."""

    def __init__(self, market: Market, symbol: str) -> None:
        self._market = market
        self._symbol = symbol
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.written = 0

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(0.02):
            due = int((time.monotonic() - started) * EVENTS_A_SECOND)
            self._market.publish(self._symbol, *(fill(self._symbol, n=n) for n in range(self.written, due)))
            self.written = max(self.written, due)

    @contextmanager
    def running(self) -> Iterator[Flow]:
        self._thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> int:
        """How many were written in all."""
        self._stop.set()
        self._thread.join()
        return self.written


class Checked:
    """A client that reads `events.SYMBOL` in a thread of its own, and keeps the numbers of what came."""

    def __init__(self, gateway: Gateway, symbol: str) -> None:
        self._client = WebSocket(gateway.address, "/ws?stream=none")
        self._client.subscribe(f"events.{symbol}")
        self.numbers: list[int] = []
        self.slowest = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before = time.monotonic()
        while True:
            event = exact(self._client.receive())["notification"]["event"]
            now = time.monotonic()
            self.slowest, before = max(self.slowest, now - before), now
            if event.get("n") == -1:
                return
            if "n" in event:
                self.numbers.append(event["n"])

    def finish(self) -> None:
        """It has read up to the event whose number is -1."""
        self._thread.join(STEP_SECONDS)
        assert not self._thread.is_alive(), f"the last of it never came; {len(self.numbers)} did"
        self._client.socket.close()


class Trading:
    """Somebody who places orders over REST, one after the other, in a thread of its own."""

    def __init__(self, gateway: Gateway, symbol: str) -> None:
        self._gateway = gateway
        self._symbol = symbol
        self._trader = Trader()
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self.refused: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            started = time.monotonic()
            answer = self._gateway.post("/api/order", limit(self._symbol), self._trader.headers)
            self.seconds.append(time.monotonic() - started)
            if answer.status != 202:
                self.refused.append(answer.body)

    def finish(self) -> None:
        self._stop.set()
        self._thread.join(STEP_SECONDS)


def test_many_connections_are_held_fed_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != hard < CONNECTIONS + 2048:
        pytest.skip(f"{CONNECTIONS} connections need more open files than the hard limit of {hard} allows")
    quiet_one, busy_one, traded = fresh_symbol("Q"), fresh_symbol("B"), fresh_symbol("O")
    with embedded_bus() as bus:
        market = Market.create(bus)
        market.publish(quiet_one, snapshot(quiet_one))
        market.publish(busy_one, snapshot(busy_one))
        flow = Flow(market, busy_one)
        with (
            Gateway.on(market, settings(websocket={"max_connections": CONNECTIONS + 10})) as gateway,
            ManyClients.of(gateway.port) as many,
        ):
            checked = Checked(gateway, busy_one)
            trading = Trading(gateway, traded)
            wait_until(lambda: len(trading.seconds) > 3, "the first orders")
            files, resident, clients = open_files(gateway), resident_bytes(gateway), gateway.clients()
            with flow.running():
                told = many.ask(
                    "connect",
                    STEP_SECONDS,
                    count=CONNECTIONS,
                    rate=CONNECTS_A_SECOND,
                    most_at_once=100,
                    channels=[f"events.{quiet_one}"],
                )
                assert (told["open"], told["refused"], told["ended"]) == (CONNECTIONS, {}, {})
                connected_seconds = told["seconds"]
                each = (resident_bytes(gateway) - resident) / CONNECTIONS
                assert gateway.clients() == clients + CONNECTIONS
                market.publish(quiet_one, fill(quiet_one))
                told = many.ask("await_frames", STEP_SECONDS, frames=3)
                # The answer, the snapshot, the fill: nobody got one twice.
                assert (told["open"], told["frames"]) == (CONNECTIONS, 3 * CONNECTIONS)
                fed_seconds = told["seconds"]
                assert many.ask("leave", STEP_SECONDS)["open"] == 0
                started = time.monotonic()
                gateway.wait_until(lambda: gateway.clients() == clients, "all of them gone", STEP_SECONDS)
                gone_seconds = time.monotonic() - started
                written = flow.stop()
                market.publish(busy_one, fill(busy_one, n=-1))
                checked.finish()
                trading.finish()
            wait_until(lambda: open_files(gateway) <= files, "as many open files as before")
            assert checked.numbers == list(range(written))
            assert not trading.refused
            assert len(trading.seconds) > 10
    with capsys.disabled():
        print(
            f"\n{CONNECTIONS} connections: {CONNECTIONS / connected_seconds:.0f}/s, {each / 1024:.1f} KiB each (target 20), "
            f"an event to all of them {fed_seconds:.2f} s, gone within {gone_seconds:.1f} s; meanwhile {written} records "
            f"at {EVENTS_A_SECOND}/s, longest pause {checked.slowest * 1000:.0f} ms; {len(trading.seconds)} orders, slowest "
            f"{max(trading.seconds) * 1000:.0f} ms"
        )
    assert each < MOST_BYTES_EACH
