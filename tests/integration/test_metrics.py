"""`/metrics`: on the main address or on one of its own, and what it tells of a running gateway."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import fill, fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.waiting import DEADLINE_SECONDS
from tests.support.gateway import REPOSITORY
from tests.support.kafka import Bus
from tests.support.ports import free_port

OPTIONAL = {"auth": {"mode": "optional"}}


@pytest.fixture(scope="module")
def apart() -> Iterator[tuple[Gateway, int]]:
    """A gateway without a bus, and the port of its metrics."""
    with Gateway.on(None, {**OPTIONAL, "metrics": {"bind": "127.0.0.1:0"}}, no_bus(), wait=False) as gateway:
        found = gateway.wait_log(r"metrics: bound to 127\.0\.0\.1:(\d+)")
        yield gateway, int(found[1])


def no_bus() -> dict[str, str]:
    return {"KAFKA_BROKERS": f"127.0.0.1:{free_port()}"}


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_metrics_are_at_their_own_address(apart: tuple[Gateway, int]) -> None:
    status, text = ask(apart[1], "/metrics")
    assert status == 200
    assert b"\ngateway_clients 0.0\n" in text


def test_metrics_with_an_address_of_their_own_are_not_at_the_main_one(apart: tuple[Gateway, int]) -> None:
    assert apart[0].get("/metrics").status == 404


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/ready", 503)])
def test_address_of_the_metrics_tells_how_the_gateway_is_too(
    apart: tuple[Gateway, int], path: str, status: int
) -> None:
    gateway, port = apart
    assert ask(port, path)[0] == gateway.get(path).status == status


@pytest.mark.parametrize("path", ["/", "/ws", "/api/instruments", "/openapi.json"])
def test_address_of_the_metrics_serves_nothing_else(apart: tuple[Gateway, int], path: str) -> None:
    assert ask(apart[1], path)[0] == 404


def test_gateway_without_a_bus_says_so_in_its_metrics(apart: tuple[Gateway, int]) -> None:
    _, text = ask(apart[1], "/metrics")
    assert b'\ngateway_problem{kind="bus"} 1.0\n' in text
    assert b'\ngateway_problem{kind="redis"} 0.0\n' in text


def test_taken_metrics_port_is_one_line_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {**OPEN, "BIND_ADDR": "127.0.0.1:0", "GATEWAY_METRICS_BIND": f"127.0.0.1:{port}", **no_bus()}
        done = subprocess.run(
            [sys.executable, "gateway.py"],
            cwd=REPOSITORY, env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True,
            timeout=DEADLINE_SECONDS, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert re.fullmatch(rf"gateway: .*:{port}: .*in use.*GATEWAY_METRICS_BIND.*", line), line


OPEN = {"GATEWAY_AUTH_MODE": "optional", "GATEWAY_ORDERS_ID_SECRET": "7e6f3c52-7d0a-4c8e-9d52-0b6f2c0f4a11"}


@pytest.mark.parametrize("bus", ["embedded"], indirect=True, scope="module")
def test_metrics_tell_of_what_went_from_the_bus_to_a_client(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    settings: dict[str, Any] = {**OPTIONAL, "kafka": {"consume": "broadcast"}}
    with (
        Gateway.on(market, settings) as gateway,
        WebSocket(gateway.address) as stream,
        WebSocket(gateway.address) as one,
    ):
        one.send({"id": 1, "method": "public/subscribe", "params": {"channels": [f"trades.{symbol}", "events"]}})
        one.receive()
        market.publish(symbol, record := fill(symbol))
        assert stream.receive() == record
        told = gateway.metric
        assert told("gateway_subscriptions", kind="trades") == told("gateway_subscriptions", kind="events") == 1
        assert told("gateway_subscriptions", kind="stream") == 1
        assert told("gateway_records_total") == told("gateway_tick_seconds_count") == 1
        assert told("gateway_record_bytes_total") == len(record)
        assert told("gateway_record_to_socket_seconds_count") == 1
        assert 0 <= told("gateway_record_to_socket_seconds_sum") < DEADLINE_SECONDS
        assert told("gateway_notifications_total") >= 3
        assert told("gateway_outbox_bytes") == 0
        assert told("gateway_consumer_lag", topic=market.topic, partition="0") == 0
        assert told("gateway_problem", kind="bus") == 0
        gateway.wait_until(lambda: told("gateway_loop_lag_seconds_count") > 0, "the loop's lag looked at")
