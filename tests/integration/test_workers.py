"""Several workers behind one address (docs/contract.md#scaling-out), on a real Kafka."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import select
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients import Refused, WebSocket
from tests.integration.events import fill, fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.test_settings_process import run
from tests.integration.trading import fresh_user, limit, order_event, pass_of, settings
from tests.integration.waiting import DEADLINE_SECONDS, wait_until
from tests.support.gateway import Answer
from tests.support.kafka import real_bus
from tests.support.ports import free_port
from tools.kafka.running import RunningKafka

WORKERS = 2
UNTHROTTLED = {"orders_per_second": 0, "cancels_per_second": 0, "requests_per_second": 0, "connects_per_second": 0}


def several(**more: object) -> dict[str, Any]:
    return settings(**{"workers": WORKERS, "limits": UNTHROTTLED, **more})


@pytest.fixture(scope="module")
def market(real_kafka: RunningKafka) -> Iterator[Market]:
    with real_bus(real_kafka) as bus:
        made = Market.create(bus)
        yield made
        made.close()


def all_ready(gateway: Gateway) -> dict[str, Any] | None:
    """What /health says if all workers are; a single answer goes without one that is held up for a moment."""
    told = gateway.health()
    is_so = told["status"] == "ok" and [one["status"] for one in told["workers"]] == ["ok"] * WORKERS
    return told if is_so else None


def wait_all_ready(gateway: Gateway) -> dict[str, Any]:
    return dict(gateway.wait_until(lambda: all_ready(gateway), "all workers ready"))


def wait_metric(gateway: Gateway, value: float, name: str, **labels: str) -> None:
    """Wait until a metric has this value: what a worker counts is left out where it is held up for a moment."""
    gateway.wait_until(lambda: gateway.metric(name, **labels) == value, f"{name} {labels} is {value:g}")


@contextlib.contextmanager
def workers_on(market: Market, **more: object) -> Iterator[Gateway]:
    with Gateway.on(market, several(**more)) as gateway:
        wait_all_ready(gateway)
        # Each accepts on its own sockets once the parent has heard of it.
        gateway.wait_until(lambda: len({worker for worker, _ in clients_on(gateway, 8)}) == WORKERS, "both accept")
        yield gateway


def connected(gateway: Gateway, path: str = "/ws") -> tuple[int, WebSocket]:
    """A client, and the number of its worker, which is in the log."""
    request = uuid.uuid4().hex
    client = WebSocket(gateway.address, path, {"X-Request-Id": request})
    found = gateway.wait_log(rf"worker (\d+) gateway\.ws: client .*request {request}")
    return int(found[1]), client


def clients_on(gateway: Gateway, count: int) -> list[tuple[int, WebSocket]]:
    found = [connected(gateway, "/ws?stream=none") for _ in range(count)]
    for _, client in found:
        client.socket.close()
    return found


@contextlib.contextmanager
def one_on_each(gateway: Gateway, path: str = "/ws") -> Iterator[list[WebSocket]]:
    """A client on every worker, by the worker's number."""
    with contextlib.ExitStack() as stack:
        found: dict[int, WebSocket] = {}

        def is_there() -> bool:
            worker, client = connected(gateway, path)
            stack.enter_context(client)
            found.setdefault(worker, client)
            return len(found) == WORKERS

        wait_until(is_there, "a client on each worker")
        yield [found[number] for number in range(WORKERS)]


def pids(gateway: Gateway) -> list[int]:
    return [one["pid"] for one in wait_all_ready(gateway)["workers"]]


def test_workers_all_serve_the_stream_and_know_each_others_orders(market: Market) -> None:
    symbol, user = fresh_symbol(), fresh_user()
    token = pass_of(user)
    with workers_on(market) as gateway, one_on_each(gateway, "/ws?stream=none") as clients:
        for client in clients:
            client.subscribe(f"events.{symbol}")
            assert client.result("public/auth", {"token": token})["user_id"] == user
        market.publish(symbol, fill(symbol, n="all"))
        for client in clients:
            assert b'"all"' in client.receive()
        # Placed on the one, it is told of, recognised and cancelled on the other.
        order = limit(symbol, client_order_id="mine")
        placed = clients[0].result("private/place_order", order)
        order_id = placed["order_id"]
        wait_until(
            lambda: "result" in clients[1].call("private/cancel_order", {"client_order_id": "mine"})[0], "known there"
        )
        market.publish(symbol, order_event("accepted", order_id, symbol, user_id=user))
        for client in clients:
            client.receive_until(lambda message: b'"order_accepted"' in message and order_id.encode() in message)
        assert clients[1].call("private/place_order", order)[0]["result"]["duplicate"] is True
        commands = [command["type"] for command in market.commands_of(symbol)]
        assert commands[:2] == ["place_order", "cancel_order"]
        assert commands.count("place_order") == 1


def test_connections_are_spread_over_the_workers(market: Market) -> None:
    with workers_on(market) as gateway, contextlib.ExitStack() as stack:
        before = len(re.findall(r"gateway\.ws: client \d+ connected", gateway.log))
        for _ in range(400):
            stack.enter_context(WebSocket(gateway.address, "/ws?stream=none"))

        def lines() -> list[str]:
            return re.findall(r"worker (\d) gateway\.ws: client \d+ connected", gateway.log)[before:]

        gateway.wait_until(lambda: len(lines()) == 400, "all of them logged")
        spread = Counter(lines())
        assert len(spread) == WORKERS
        assert max(spread.values()) <= 240, spread
        gateway.wait_until(lambda: gateway.clients() == 400, "the sum of the workers' clients")
        wait_metric(gateway, 400, "gateway_clients")


def test_killed_worker_comes_back_and_only_its_own_clients_notice(market: Market) -> None:
    symbol = fresh_symbol()
    with workers_on(market) as gateway, one_on_each(gateway, "/ws?stream=none") as clients:
        for client in clients:
            client.subscribe(f"events.{symbol}")
        counted = gateway.metric("gateway_connections_total")
        before = pids(gateway)
        os.kill(before[0], signal.SIGKILL)
        assert clients[0].receive_close().code is None
        # Who comes back is served at once, by the other one: nobody waits for the successor.
        returned = [connected(gateway, "/ws?stream=none") for _ in range(16)]
        with contextlib.ExitStack() as stack:
            for _, client in returned:
                stack.enter_context(client).expect_silence()
            gateway.wait_until(
                lambda: gateway.metric("gateway_connections_total") >= counted + 16, "those who came back counted"
            )
            records = [fill(symbol, n=str(number)) for number in range(50)]
            market.publish(symbol, *records)
            got = [clients[1].receive() for _ in records]
            assert len(set(got)) == 50
            assert all(f'"n":"{number}"'.encode() in message for number, message in enumerate(got))
            gateway.wait_log(rf"worker 0 \(process {before[0]}\) was ended by SIGKILL; starting it again in 0\.5 s")
            after = pids(gateway)
            assert after[1] == before[1]
            assert after[0] not in (before[0], None)
            wait_metric(gateway, 1, "gateway_worker_restarts_total", worker="0")
            assert gateway.metric("gateway_worker_restarts_total", worker="1") == 0
            # Sums do not go back with a death.
            assert gateway.metric("gateway_connections_total") >= counted + 16
            clients[1].expect_silence()
        gateway.wait_until(lambda: {worker for worker, _ in clients_on(gateway, 8)} == {0, 1}, "both accept again")


def test_sigterm_drains_all_workers(market: Market) -> None:
    symbol = fresh_symbol()
    # They drain for as long as this takes; a second signal ends that.
    with workers_on(market, drain_seconds=3600) as gateway, one_on_each(gateway) as clients:
        processes = pids(gateway)
        gateway.send_signal(signal.SIGTERM)
        gateway.wait_until(lambda: gateway.log.count("draining: ") == WORKERS, "all of them drain")
        for _ in range(6):  # whichever worker it is
            assert gateway.get("/ready").status == 503
        market.publish(symbol, fill(symbol, n="during"))
        for client in clients:
            client.receive_until(lambda message: b'"during"' in message)
        gateway.send_signal(signal.SIGTERM)
        for client in clients:
            closed = client.receive_close()
            assert (closed.code, closed.reason) == (1001, "reconnect")
        assert gateway.wait() == 0
        assert gateway.log.count("gateway: drained") == WORKERS
        assert not any(Path(f"/proc/{pid}").exists() for pid in processes)
        for sign in ("Traceback", " ERROR ", "never retrieved"):
            assert sign not in gateway.log, gateway.log


def test_signal_to_the_parent_and_all_workers_at_once_is_one_signal(market: Market) -> None:
    # As a terminal's Ctrl-C or a supervisor's SIGTERM to a whole group arrives.
    with workers_on(market, drain_seconds=2) as gateway, one_on_each(gateway, "/ws?stream=none") as clients:
        began = time.monotonic()
        for pid in (*pids(gateway), gateway.process.pid):
            os.kill(pid, signal.SIGTERM)
        for client in clients:
            assert client.receive_close().code == 1001
        assert gateway.wait(2 + 5 + 5) == 0
        assert time.monotonic() - began > 1.8, "it was taken for two, and hurried"


def test_second_signal_hurries_all_workers(market: Market) -> None:
    with workers_on(market, drain_seconds=60) as gateway, one_on_each(gateway, "/ws?stream=none") as clients:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait_until(lambda: gateway.log.count("draining: ") == WORKERS, "all of them drain")
        gateway.send_signal(signal.SIGTERM)
        for client in clients:
            assert client.receive_close().code == 1001
        assert gateway.wait(30) == 0


def test_one_worker_that_is_told_to_end_drains_and_is_followed_by_another(market: Market) -> None:
    with workers_on(market) as gateway, one_on_each(gateway, "/ws?stream=none") as clients:
        before = pids(gateway)
        os.kill(before[1], signal.SIGTERM)
        assert clients[1].receive_close().code == 1001
        gateway.wait_log(rf"worker 1 \(process {before[1]}\) ended with code 0; starting it again")
        assert pids(gateway)[0] == before[0]
        clients[0].expect_silence()


def test_workers_drain_when_their_parent_dies(market: Market) -> None:
    with workers_on(market) as gateway, one_on_each(gateway, "/ws?stream=none") as clients:
        processes = pids(gateway)
        gateway.process.kill()
        for client in clients:
            assert client.receive_close().code == 1001
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the workers gone")
        wait_until(lambda: gateway.log.count("gateway: drained") == WORKERS, "both said that they have drained")


def test_worker_that_does_not_answer_is_told_and_holds_up_nobody(market: Market) -> None:
    with workers_on(market) as gateway, one_on_each(gateway, "/ws?stream=none"):
        processes = pids(gateway)
        counted = gateway.metric("gateway_connections_total")
        os.kill(processes[0], signal.SIGSTOP)
        try:

            def answer() -> dict[str, Any] | None:
                # A connection may get to the frozen one: it is given up, and another tried.
                with contextlib.suppress(OSError):
                    told = ask(gateway, "/health")
                    # It is not frozen yet when the signal is sent.
                    return told if [one["status"] for one in told["workers"]] == ["missing", "ok"] else None
                return None

            told = wait_until(answer, "an answer of the other one")
            assert told["status"] == "degraded"
            # The other one knows the process of the frozen one if it has ever been asked before.
            assert told["workers"][0]["pid"] in (processes[0], None)
            assert told["workers"][1]["pid"] == processes[1]
            assert told["problems"] == ["worker 0 does not answer"]
        finally:
            os.kill(processes[0], signal.SIGCONT)
        wait_all_ready(gateway)
        assert gateway.metric("gateway_connections_total") >= counted


def ask(gateway: Gateway, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=1)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return dict(json.loads(connection.getresponse().read()))


def test_health_speaks_for_all_workers(market: Market) -> None:
    with workers_on(market) as gateway, one_on_each(gateway):
        told = wait_all_ready(gateway)
        assert told["clients"] >= WORKERS
        assert len({one["pid"] for one in told["workers"]} - {gateway.process.pid}) == WORKERS
        assert all(0 < float(one["uptime_seconds"]) <= float(told["uptime_seconds"]) for one in told["workers"])
        assert told["kafka"]["consume"] == "broadcast"
        assert told["kafka"]["partitions"] == market.partitions

        def says_the_same() -> bool:
            ready = gateway.get("/ready")
            return (ready.status, set(ready.json())) == (200, set(told))

        gateway.wait_until(says_the_same, "as much from /ready")
        wait_metric(gateway, 1, "gateway_ready")
        wait_metric(gateway, 0, "gateway_consumer_lag", partition="0")
        for number in range(WORKERS):
            wait_metric(gateway, 1, "gateway_worker_up", worker=str(number))


def test_request_ids_of_two_workers_differ(market: Market) -> None:
    with workers_on(market) as gateway:

        def made() -> dict[str, str]:
            """Of each worker, what its ids begin with."""
            WebSocket(gateway.address, "/ws?stream=none").socket.close()
            told = re.findall(r"worker (\d+) gateway\.ws: client .* \(request ([0-9a-f]{8})[0-9a-f]{8}\)", gateway.log)
            return dict(told)

        gateway.wait_until(lambda: len(made()) == WORKERS, "ids of both")
        assert len(set(made().values())) == WORKERS


def test_metrics_address_is_served_by_all_workers_for_all(market: Market) -> None:
    port = free_port()
    with workers_on(market, metrics={"bind": f"127.0.0.1:{port}"}) as gateway, one_on_each(gateway):
        assert gateway.get("/metrics").status == 404

        def clients() -> float:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
            with contextlib.closing(connection):
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
            return float(re.findall(r"^gateway_clients (.*)", text, re.M)[0])

        for _ in range(10):
            gateway.wait_until(lambda: clients() >= WORKERS, "the sum of the workers' clients")


# What keeps a start from happening.


def test_workers_that_cannot_start_end_it_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "given.yaml"
    # Refused only together with what the gateway sets itself, so that nobody sees it before a worker does.
    producer = "{max.in.flight.requests.per.connection: 7}"
    file.write_text(f"workers: 2\nkafka: {{producer: {producer}}}\nauth: {{mode: optional}}\n", encoding="utf-8")
    done = run("--config", str(file), BIND_ADDR="127.0.0.1:0", GATEWAY_ORDERS_ID_SECRET=str(uuid.uuid4()))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    assert "max.in.flight" in lines[0]


def test_address_of_another_gateway_is_not_shared_with_it() -> None:
    environ = {"KAFKA_BROKERS": f"127.0.0.1:{free_port()}", "GATEWAY_AUTH_MODE": "optional"}
    with Gateway.on(None, {"workers": 2}, environ, wait=False) as gateway:
        done = run(
            BIND_ADDR=f"127.0.0.1:{gateway.port}", GATEWAY_WORKERS="2", GATEWAY_ORDERS_ID_SECRET=str(uuid.uuid4()),
            **environ,
        )  # fmt: skip
        assert done.returncode == 1
        assert re.fullmatch(rf"gateway: .*:{gateway.port}: .*in use.*BIND_ADDR.*\n", done.stderr)


# Out of room; of one process as of many.

ALONE = {"KAFKA_BROKERS": f"127.0.0.1:{free_port()}", "GATEWAY_AUTH_MODE": "optional"}


def descriptors(gateway: Gateway) -> list[int]:
    return sorted(int(path.name) for path in Path(f"/proc/{gateway.process.pid}/fd").iterdir())


def cpu_seconds(gateway: Gateway) -> float:
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def descriptors_limited(gateway: Gateway, limit: int) -> Iterator[None]:
    pid = gateway.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def check_refused(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:mexchange:problem:unavailable"


def kept_open(gateway: Gateway, path: str) -> tuple[http.client.HTTPConnection, Answer]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE_SECONDS)
    connection.request("GET", path)
    response = connection.getresponse()
    return connection, Answer(response.status, response.msg, response.read())


def test_gateway_out_of_descriptors_refuses_politely() -> None:
    with Gateway.on(None, {}, ALONE, wait=False) as gateway, contextlib.ExitStack() as stack:
        client = stack.enter_context(WebSocket(gateway.address, "/ws?stream=none"))
        with descriptors_limited(gateway, descriptors(gateway)[-1] + 1):

            def refused() -> Answer | None:
                connection, answer = kept_open(gateway, "/health")
                stack.callback(connection.close)
                return None if answer.status == 200 else answer

            # Now and then a Kafka client lets go of one.
            for _ in range(20):
                check_refused(wait_until(refused, "no descriptor left"))
            client.expect_silence()
        gateway.wait_status("/health", 200)
        gateway.wait_log("connections are refused")
        assert gateway.log.count("connections are refused") == 1
        assert gateway.metric("gateway_refusals_total", reason="unavailable") >= 20


def test_gateway_that_can_take_nobody_waits_without_spinning_and_serves_later() -> None:
    with Gateway.on(None, {}, ALONE, wait=False) as gateway, contextlib.ExitStack() as stack:
        client = stack.enter_context(WebSocket(gateway.address, "/ws?stream=none"))
        with descriptors_limited(gateway, 1):
            waiting = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port)))
            waiting.timeout = DEADLINE_SECONDS
            waiting.request("GET", "/health")
            gateway.wait_log("no connection can be taken")
            spent = cpu_seconds(gateway)
            assert select.select([waiting.sock], [], [], 1.0)[0] == []
            took = cpu_seconds(gateway) - spent
            client.expect_silence()
        assert waiting.getresponse().status == 200
        assert took < 0.5, "it spins"
        assert gateway.log.count("no connection can be taken") == 1


def test_gateway_full_of_clients_refuses_more_and_still_answers_for_itself() -> None:
    settings = {"websocket": {"max_connections": 3}}
    with Gateway.on(None, settings, ALONE, wait=False) as gateway, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(WebSocket(gateway.address, "/ws?stream=none"))
        with pytest.raises(Refused) as refused:
            WebSocket(gateway.address)
        check_refused(refused.value.answer)
        assert gateway.health()["clients"] == 3
