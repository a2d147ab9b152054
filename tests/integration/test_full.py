"""No room for one more (contract, section 3): it is told so, and everybody else goes on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.support import Gateway, Market, Refused, WebSocket, wait_until
from tests.integration.trading import check_problem
from tests.support.kafka import Bus, embedded_bus

FILES = 256
# The rest is the process's own, and for requests.
ROOM = 112
CONNECTIONS = 128
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    with embedded_bus() as bus:
        yield bus


@pytest.fixture
def gateway(bus: Bus) -> Iterator[Gateway]:
    with Gateway.on(Market.create(bus), {"auth": {"mode": "optional"}}, files=FILES) as gateway:
        yield gateway


def open_files(gateway: Gateway) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{gateway.process.pid}/fd")]


def cpu_seconds(gateway: Gateway) -> float:
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def check_at_ease(gateway: Gateway) -> None:
    """For a while it neither turns in circles nor writes its log full."""
    before, lines, started = cpu_seconds(gateway), gateway.log.count("\n"), time.monotonic()
    wait_until(lambda: time.monotonic() - started > 1.5, "some time gone by")
    assert cpu_seconds(gateway) - before < 0.75 * (time.monotonic() - started)
    assert gateway.log.count("\n") - lines < 10, gateway.log


def test_connections_are_as_many_as_files_leave_room_for(gateway: Gateway) -> None:
    gateway.wait_log(f"websocket.max_connections: 20000 clients .* {FILES} file descriptors, {ROOM} do")
    with ExitStack() as stack:
        many = [stack.enter_context(WebSocket(gateway.address, "/ws?stream=none")) for _ in range(ROOM)]
        for _ in range(5):
            with pytest.raises(Refused) as refused:
                WebSocket(gateway.address)
            told = check_problem(refused.value.answer, 503)
            assert told["error"] == "no more connections can be held"
            assert int(refused.value.answer.headers["Retry-After"]) > 0
        assert gateway.clients() == ROOM
        assert gateway.get("/ready").status == 200
        for one in many:
            one.expect_silence()
    assert gateway.log.count("no more connections") == 1, "told once a minute"
    gateway.wait_until(lambda: gateway.clients() == 0, "room again")
    with WebSocket(gateway.address, "/ws?stream=none") as again:
        again.expect_silence()


def test_who_comes_when_silent_connections_take_all_files_is_told_to_come_again(gateway: Gateway) -> None:
    with WebSocket(gateway.address, "/ws?stream=none") as client, ExitStack() as stack:
        for _ in range(FILES + 50):
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        gateway.wait_until(lambda: len(open_files(gateway)) >= CONNECTIONS, "it is full")
        check_at_ease(gateway)
        answer = gateway.get("/health")
        check_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Connection"] == "close"
        check_problem(gateway.post("/api/order", b"x" * 50_000), 503)
        with pytest.raises(Refused) as refused:
            WebSocket(gateway.address)
        check_problem(refused.value.answer, 503)
        client.expect_silence()
        assert "Too many open files" not in gateway.log
    gateway.wait_status("/health", 200)
