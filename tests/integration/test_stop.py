"""The ordered end of a gateway (docs/contract.md#shutdown)."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients import Refused, WebSocket, without_proxy
from tests.integration.events import fill, fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.waiting import wait_until
from tests.support.kafka import Bus
from tests.support.ports import free_port

ACK_TIMEOUT_SECONDS = 5.0
SETTINGS = {
    "auth": {"mode": "optional"},
    # For as long as a test takes; a second signal ends that.
    "drain_seconds": 3600,
    "orders": {"ack_timeout_seconds": ACK_TIMEOUT_SECONDS},
    "limits": {"orders_per_second": 0},
}


class Trader(threading.Thread):
    """Places one order after the other on a connection that is kept, until it is refused or the connection ends."""

    def __init__(self, gateway: Gateway, symbol: str) -> None:
        super().__init__()
        self._gateway = gateway
        self._symbol = symbol
        self.answers: Counter[int] = Counter()
        self.accepted: list[str] = []
        self.unanswered = 0

    def run(self) -> None:
        connection = http.client.HTTPConnection(*without_proxy(self._gateway.address), timeout=30)
        body = b'{"symbol":"%b","side":"bid","order_type":"limit","price":"1","quantity":"1"}' % self._symbol.encode()
        with contextlib.closing(connection):
            while self._place(connection, body):
                pass

    def _place(self, connection: http.client.HTTPConnection, body: bytes) -> bool:
        """One order; False when it was not accepted."""
        try:
            connection.request("POST", "/api/order", body, {"Content-Type": "application/json"})
        except OSError:
            return False  # nobody listens any more
        try:
            response = connection.getresponse()
            told = response.read()
        except http.client.RemoteDisconnected:
            return False  # closed between two requests, as a server may
        except (OSError, http.client.HTTPException):
            self.unanswered += 1
            return False
        self.answers[response.status] += 1
        if response.status == 202:
            self.accepted.append(_order_id(told))
        return response.status == 202


def _order_id(told: bytes) -> str:
    import json

    return str(json.loads(told)["order_id"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gateway_ends_in_order_on_a_signal(bus: Bus, number: signal.Signals) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway.on(market, SETTINGS))
        clients = [stack.enter_context(WebSocket(gateway.address)) for _ in range(3)]
        subscriber = stack.enter_context(WebSocket(gateway.address))
        subscriber.subscribe(f"events.{symbol}")
        traders = [Trader(gateway, symbol) for _ in range(4)]
        for trader in traders:
            trader.start()
        gateway.wait_until(lambda: all(trader.accepted for trader in traders), "orders under way")
        gateway.send_signal(number)
        gateway.wait_until(lambda: gateway.get("/ready").status == 503, "not ready any more")
        # The listener stays open, and open connections go on.
        assert gateway.get("/health").status == 200
        with pytest.raises(Refused) as refused:
            WebSocket(gateway.address)
        assert refused.value.answer.status == 503
        assert refused.value.answer.headers["Retry-After"]
        assert refused.value.answer.headers["Content-Type"] == "application/problem+json"
        market.publish(symbol, fill(symbol, n="during"))
        for client in (*clients, subscriber):
            client.receive_until(lambda message: b'"during"' in message)
        gateway.send_signal(number)
        for client in (*clients, subscriber):
            closed = client.receive_close()
            assert (closed.code, closed.reason) == (1001, "reconnect")
        assert gateway.wait(ACK_TIMEOUT_SECONDS + 5 + 5) == 0
        for trader in traders:
            trader.join()
        assert sum(trader.unanswered for trader in traders) == 0
        assert {status for trader in traders for status in trader.answers} <= {202, 503}
        accepted = [order_id for trader in traders for order_id in trader.accepted]
        on_topic = [command["order_id"] for command in market.commands_of(symbol)]
        assert sorted(on_topic) == sorted(accepted)
        check_log(gateway)


def check_log(gateway: Gateway) -> None:
    # A broker may take longer over the leaving of a group than the gateway waits for it.
    text = gateway.log.replace("the consumer did not close in time", "")
    for sign in ("Traceback", "Exception", "never retrieved", "Error", " ERROR ", "unacknowledged", "did not"):
        assert sign not in text, text
    assert "gateway: drained" in text


def test_client_reads_on_while_the_gateway_drains(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    with Gateway.on(market, SETTINGS) as gateway, WebSocket(gateway.address) as client:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait_until(lambda: gateway.get("/ready").status == 503, "draining")
        market.publish(symbol, record := fill(symbol))
        assert client.receive() == record
        client.result("public/ping")
        gateway.send_signal(signal.SIGTERM)
        assert client.receive_close().code == 1001
        assert gateway.wait() == 0
        check_log(gateway)


def test_second_signal_ends_the_waiting(bus: Bus) -> None:
    market = Market.create(bus)
    with Gateway.on(market, SETTINGS) as gateway, WebSocket(gateway.address) as client:
        gateway.send_signal(signal.SIGINT)
        gateway.wait_until(lambda: gateway.get("/ready").status == 503, "draining")
        gateway.send_signal(signal.SIGINT)
        assert client.receive_close().code == 1001
        assert gateway.wait(30) == 0
        check_log(gateway)


def test_client_that_reads_nothing_does_not_hold_up_the_end(bus: Bus) -> None:
    market = Market.create(bus)
    symbols = [fresh_symbol() for _ in range(market.partitions)]
    settings: dict[str, Any] = {**SETTINGS, "drain_seconds": 1, "websocket": {"max_buffer_bytes": 1 << 26}}
    with Gateway.on(market, settings) as gateway, WebSocket(gateway.address) as stuck:
        with WebSocket(gateway.address) as witness:
            # More than the kernel takes for a client that reads nothing, so that the Close waits behind it.
            for _ in range(10):
                records = [fill(symbol, note="x" * 10_000) for symbol in symbols for _ in range(25)]
                market.publish_to(*((number % market.partitions, record) for number, record in enumerate(records)))
                for _ in records:
                    witness.receive()
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(1 + ACK_TIMEOUT_SECONDS + 5) == 0
        assert stuck.receive_close().code in (1001, None)
        assert "Traceback" not in gateway.log


def test_gateway_without_kafka_ends_in_order(bus: Bus) -> None:

    market = Market.create(bus)
    settings = {**SETTINGS, "drain_seconds": 0}
    with Gateway.on(market, settings, brokers=f"127.0.0.1:{free_port()}", wait=False) as gateway:
        order = {"symbol": "A/B", "side": "bid", "order_type": "market", "quantity": "1"}
        assert gateway.post("/api/order", order).status == 503
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(ACK_TIMEOUT_SECONDS + 5) == 0
        assert "Traceback" not in gateway.log


def test_signal_while_the_code_is_loaded_ends_it_in_order() -> None:
    for _ in range(5):
        gateway = Gateway(SETTINGS, cold=True)
        gateway.start()
        try:
            _wait_until_caught(gateway.process.pid, signal.SIGTERM)
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait() == 0
            assert gateway.log == ""
        finally:
            gateway.kill()


def _wait_until_caught(pid: int, number: signal.Signals) -> None:
    """A program that has just begun is still Python itself, which a signal ends; its own first lines change that."""

    def is_caught() -> bool:
        caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert caught is not None
        return bool(int(caught.group(1), 16) >> (number - 1) & 1)

    wait_until(is_caught, f"{number.name} is caught")


def test_signal_during_the_start_ends_it_in_order(bus: Bus) -> None:
    market = Market.create(bus)
    with Gateway.on(market, {**SETTINGS, "drain_seconds": 0}, wait=False) as gateway:
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(ACK_TIMEOUT_SECONDS + 5) == 0
        assert "Traceback" not in gateway.log
