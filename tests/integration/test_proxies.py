"""nginx and HAProxy before two gateways, with the files of deploy/ (docs/deployment.md)."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import CloseCode
from tests.integration.clients import Closed, WebSocket, exact, without_proxy
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, limit, settings
from tests.integration.waiting import DEADLINE_SECONDS, wait_until
from tests.support.proxies import PROXIES, Proxy, proxy_or_skip

TRADERS = 2


def behind_a_proxy(**more: object) -> dict[str, object]:
    return settings(http={"trusted_proxies": ["127.0.0.1/32"]}, **more)


@pytest.fixture(scope="module")
def talkative(market: Market) -> Iterator[Gateway]:
    """A gateway that pings more often than the proxies' time-out needs, and gives a starved client the time to answer."""
    with Gateway.on(market, behind_a_proxy(websocket={"ping_interval_seconds": 2})) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def silent(market: Market) -> Iterator[Gateway]:
    """A gateway that never pings while a test lasts."""
    with Gateway.on(market, behind_a_proxy()) as gateway:
        yield gateway


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, talkative: Gateway, silent: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    addresses = [f"127.0.0.1:{gateway.port}" for gateway in (talkative, silent)]
    with proxy_or_skip(request.param, addresses, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


def get(proxy: Proxy, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPSConnection(*without_proxy(proxy.url), timeout=30, context=proxy.trusting)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer


@pytest.mark.parametrize("prefix", ["", "/exchange"])
def test_proxy_passes_the_stream_and_whom_it_is_for(
    proxy: Proxy, talkative: Gateway, silent: Gateway, market: Market, prefix: str
) -> None:
    symbol, request_id = fresh_symbol("P"), f"{proxy.name}-{len(prefix)}"
    # Who claims to be somebody else is believed by nobody.
    headers = {"X-Request-Id": request_id, "X-Forwarded-For": "192.0.2.1"}
    path = f"{prefix}/ws?stream=none"
    with WebSocket(proxy.url, path, headers, tls=proxy.trusting, source="127.0.0.2") as client:
        client.subscribe(f"events.{symbol}")
        market.publish(symbol, snapshot(symbol), fill(symbol))
        client.receive_until(lambda message: exact(message)["notification"]["event"]["type"] == "fill")
        told = f"connected from 127.0.0.2 (request {request_id})"
        wait_until(lambda: told in talkative.log + silent.log, told)
    assert get(proxy, f"{prefix}/api/instruments").status == 200
    assert get(proxy, f"{prefix}/metrics").status == 404


def test_idle_socket_outlives_the_proxys_timeout_by_pings_and_not_without(
    proxy: Proxy, talkative: Gateway, silent: Gateway
) -> None:
    # Only a client that did not answer in time, on a machine that stood still, is tried again.
    assert any(_outlives_the_silent_one(proxy, talkative, silent) for _ in range(5))


def _outlives_the_silent_one(proxy: Proxy, talkative: Gateway, silent: Gateway) -> bool:
    """Whether a client of the talkative gateway is still there when the proxy has ended one of the silent; it may have been dropped
    by the gateway, which it had not answered, and by nobody else.
    """
    wait_until(lambda: talkative.clients() == silent.clients() == 0, "nobody is left of another try")
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:

        def connect() -> tuple[WebSocket, Future[Closed]]:
            # It answers pings from its first moment on: whoever does not answer one before the next is dropped.
            socket = stack.enter_context(WebSocket(proxy.url, "/ws?stream=none", tls=proxy.trusting))
            return socket, pool.submit(socket.receive_close)

        first = connect()
        is_pinged = talkative.clients() == 1
        # Whoever has fewest gets the next.
        second = connect()
        if (talkative.clients(), silent.clients()) != (1, 1):
            return False  # one of them was gone before the other came
        (pinged, end), (unpinged, other_end) = (first, second) if is_pinged else (second, first)
        assert (other_end.result().code, unpinged.pings) == (None, 0)
        if end.done() or talkative.clients() == 0:
            assert end.result().code == CloseCode.PING_TIMEOUT
            return False
        assert pinged.pings
        stack.close()  # which ends the waiting for its close
        return True


class Ordering(threading.Thread):
    """One order after the other through the proxy, each until it is accepted: what is not known or not taken is repeated."""

    def __init__(self, proxy: Proxy, number: int) -> None:
        super().__init__()
        self._proxy = proxy
        self._trader = Trader()
        self._names = (f"{number}-{count}" for count in itertools.count())
        self.accepted: list[str] = []
        self.others: Counter[tuple[int, str]] = Counter()
        self.failure: Exception | None = None
        self.is_enough = False

    def run(self) -> None:
        connection = http.client.HTTPSConnection(
            *without_proxy(self._proxy.url), timeout=DEADLINE_SECONDS, context=self._proxy.trusting
        )
        try:
            while not self.is_enough:
                self._place(connection, {**limit("KCN/EUR"), "client_order_id": next(self._names)})
        except Exception as error:  # an order without an answer
            self.failure = error
        finally:
            connection.close()

    def _place(self, connection: http.client.HTTPSConnection, order: dict[str, object]) -> None:
        headers = {**self._trader.headers, "Content-Type": "application/json"}
        while True:
            connection.request("POST", "/api/order", json.dumps(order), headers)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status == 202:
                self.accepted.append(told["order_id"])
                return
            self.others[answer.status, told["type"]] += 1


def test_instance_that_drains_takes_no_order_with_it(
    proxy: Proxy, silent: Gateway, market: Market, tmp_path: Path
) -> None:
    with Gateway.on(market, behind_a_proxy(drain_seconds=0.5)) as leaving, contextlib.ExitStack() as stack:
        addresses = [f"127.0.0.1:{gateway.port}" for gateway in (leaving, silent)]
        before_both = stack.enter_context(proxy_or_skip(proxy.name, addresses, tmp_path))
        both = [stack.enter_context(WebSocket(before_both.url, "/ws", tls=proxy.trusting)) for _ in range(2)]
        traders = [Ordering(before_both, number) for number in range(TRADERS)]
        for trader in traders:
            trader.start()
        try:
            wait_until(lambda: _is_served(traders, 3) and _orders(leaving) > TRADERS, "both are ordered from")
            leaving.send_signal(signal.SIGTERM)
            assert leaving.wait() == 0
            before = [len(trader.accepted) for trader in traders]
            wait_until(lambda: _is_served(traders, 5, before), "all are served by the one that is left")
        finally:
            for trader in traders:
                trader.is_enough = True
            for trader in traders:
                trader.join()
        assert [trader.failure for trader in traders] == [None] * TRADERS
        told = sum((trader.others for trader in traders), Counter())
        # Certainly not written, or not known: nothing else.
        assert {kind for _, kind in told} <= {
            "urn:mexchange:problem:unavailable",
            "urn:mexchange:problem:bus-unavailable",
            "urn:mexchange:problem:outcome-unknown",
        }
        placed = [order_id for trader in traders for order_id in trader.accepted]
        assert len(placed) == len(set(placed))
        codes = [code for client in both if (code := _code_of(client)) is not None]
        assert codes == [1001]


def _is_served(traders: list[Ordering], more: int, before: list[int] | None = None) -> bool:
    for trader, count in zip(traders, before or [0] * len(traders), strict=True):
        assert trader.failure is None, trader.failure
        if len(trader.accepted) < count + more:
            return False
    return True


def _orders(gateway: Gateway) -> float:
    return gateway.metric("gateway_orders_total", kind="place", outcome="accepted")


def _code_of(client: WebSocket) -> int | None:
    """The code that it was closed with; None if it still lives."""
    with contextlib.suppress(OSError):  # it is closed: why, is still to be read
        client.send({"id": 7, "method": "public/ping"})
    try:
        client.receive_until(lambda message: exact(message).get("id") == 7)
    except Closed as closed:
        return closed.code
    return None
