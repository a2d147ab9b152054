"""No room for one more (docs/contract.md#frames): it is told so, and everybody else goes on."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

import pytest

from handlers.acceptor import REFUSE_SECONDS
from tests.integration.clients import Closed, Refused, WebSocket
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import check_problem
from tests.integration.waiting import wait_until
from tests.support.gateway import Answer
from tests.support.kafka import Bus, embedded_bus

FILES = 384
# The rest is the process's own, and for requests.
ROOM = 112
CONNECTIONS = 128
SLEEPS = 100


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


def sleeps(gateway: Gateway) -> int:
    """How often its main thread has let go of the processor by itself, having nothing to do."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


def check_at_ease(gateway: Gateway) -> None:
    """It goes to sleep again and again: who turns in circles never does, however long one waits."""
    before = sleeps(gateway)
    gateway.wait_until(lambda: sleeps(gateway) >= before + SLEEPS, "it sleeps")


def refused_upgrade(gateway: Gateway) -> Answer:
    with pytest.raises(Refused) as refused:
        WebSocket(gateway.address)
    return refused.value.answer


def refusal(ask: Callable[[], Answer]) -> Answer:
    """The 503 that comes, asked for again where we were so slow that the gateway had let go of us."""

    def answer() -> Answer | None:
        began = time.monotonic()
        try:
            return ask()
        except (OSError, HTTPException, Closed):
            if time.monotonic() - began < REFUSE_SECONDS:
                raise
            return None

    found: Answer = wait_until(answer, "an answer")
    check_problem(found, 503)
    return found


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
    gateway.wait_log("no more connections")
    assert gateway.log.count("no more connections") == 1, "told once a minute"
    gateway.wait_until(lambda: gateway.clients() == 0, "room again")
    with WebSocket(gateway.address, "/ws?stream=none") as again:
        again.expect_silence()


def test_who_comes_when_silent_connections_take_all_files_is_told_to_come_again(gateway: Gateway) -> None:
    with WebSocket(gateway.address, "/ws?stream=none") as client, ExitStack() as stack:
        for _ in range(FILES + 50):
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        gateway.wait_until(lambda: len(open_files(gateway)) >= CONNECTIONS, "it is full")
        written = gateway.log.count("\n")
        check_at_ease(gateway)
        answer = refusal(lambda: gateway.get("/health"))
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Connection"] == "close"
        refusal(lambda: gateway.post("/api/order", b"x" * 50_000))
        refusal(lambda: refused_upgrade(gateway))
        client.expect_silence()
        assert "Too many open files" not in gateway.log
    gateway.wait_status("/health", 200)
    refused_in_all = gateway.metric("gateway_refusals_total", reason="unavailable")
    assert gateway.log.count("\n") - written < refused_in_all, "a line for each that is refused"
