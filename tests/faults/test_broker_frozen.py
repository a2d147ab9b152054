"""A broker that stands still (SIGSTOP): its connections stay open and nothing answers. What orders are told, and what of
them is on the topic once it goes on (docs/contract.md#written-or-not).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from core.errors import BusUnavailable, OutcomeUnknown
from core.kafka.clients import Calls
from core.kafka.order_log import OrderLog
from tests.integration.clients import WebSocket, frame_of
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import NAMESPACE, Trader, error_of, limit, order_id_of, settings
from tests.integration.waiting import wait_until
from tests.support.gateway import Answer
from tools.kafka.cluster import KafkaCluster

ACK_TIMEOUT_SECONDS = 2.0
# What a busy machine may add to a deadline of the gateway's.
SLACK_SECONDS = 5.0
SETTINGS = {
    "auth": {"mode": "optional"},
    "orders": {"ack_timeout_seconds": ACK_TIMEOUT_SECONDS},
    "limits": {"orders_per_second": 0},
}


@contextmanager
def frozen(cluster: KafkaCluster) -> Iterator[None]:
    """The broker stands still inside."""
    cluster.freeze(0)
    try:
        yield
    finally:
        cluster.thaw(0)


def order(symbol: str, **more: object) -> dict[str, object]:
    return {"symbol": symbol, "side": "bid", "order_type": "limit", "price": "1", "quantity": "1", **more}


def accepted_again(gateway: Gateway, symbol: str) -> str:
    """The id of the first order that is accepted: a broker that goes on has much to do before, and may be late."""

    def placed() -> Any:
        answer = gateway.post("/api/order", order(symbol))
        return answer.json()["order_id"] if answer.status == 202 else None

    return str(gateway.wait_until(placed, "an order is accepted"))


def timed_order(gateway: Gateway, symbol: str, **more: object) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = gateway.post("/api/order", order(symbol, **more))
    return answer, time.monotonic() - began


def on_topic(market: Market, symbol: str) -> Counter[str]:
    """How often each order id is on the order topic."""
    return Counter(command["order_id"] for command in market.commands_of(symbol))


def is_connected(gateway: Gateway) -> bool:
    return bool(gateway.health()["kafka"]["connected"])


def test_order_under_way_is_unknown_and_the_next_ones_are_certainly_not_sent(
    cluster: KafkaCluster, market: Market
) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, SETTINGS) as gateway:
        assert timed_order(gateway, symbol)[0].status == 202
        with frozen(cluster):
            with ThreadPoolExecutor(5) as pool:
                under_way = list(pool.map(lambda _: timed_order(gateway, symbol), range(5)))
            gateway.wait_until(lambda: not is_connected(gateway), "the bus known to be unreachable")
            assert gateway.get("/ready").status == 503
            assert gateway.health()["status"] == "degraded"
            refused = [timed_order(gateway, symbol, client_order_id=f"r{number}") for number in range(5)]
        gateway.wait_ready()
        counted = [
            gateway.metric("gateway_orders_total", kind="place", outcome=one) for one in ("unknown", "not_written")
        ]
        assert counted == [5, 5]
        again = accepted_again(gateway, symbol)
        unknown = set()
        for answer, took in under_way:
            assert answer.status == 504, answer.body
            assert took < ACK_TIMEOUT_SECONDS + SLACK_SECONDS
            told = answer.json()
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert told["error"]
            unknown.add(told["order_id"])
        assert len(unknown) == 5
        for answer, took in refused:
            assert answer.status == 503, answer.body
            assert took < SLACK_SECONDS, "a refusal waits for nothing"
            assert int(answer.headers["Retry-After"]) > 0
        # The fate of the ones under way is open until the broker has answered for them: wait for a later order.
        counts = on_topic(market, symbol)
        assert {command["client_order_id"] for command in market.commands_of(symbol)} == {None}
        assert counts[again] == 1
        assert max(counts.values()) == 1


def test_cancel_under_way_is_unknown_too(cluster: KafkaCluster, market: Market) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, SETTINGS) as gateway:
        order_id = timed_order(gateway, symbol)[0].json()["order_id"]
        cancel = {"order_id": order_id, "symbol": symbol}
        with frozen(cluster):
            answer = gateway.post("/api/order/cancel", cancel)
            gateway.wait_until(lambda: not is_connected(gateway), "the bus known to be unreachable")
            later = gateway.post("/api/order/cancel", cancel)
        assert (answer.status, answer.json()["order_id"]) == (504, order_id)
        assert later.status == 503
        gateway.wait_ready()
        gateway.wait_until(lambda: gateway.post("/api/order/cancel", cancel).status == 202, "it is cancelled")


def test_stream_goes_on_where_it_stood_when_the_broker_does(cluster: KafkaCluster, market: Market) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, SETTINGS) as gateway, WebSocket(gateway.address) as client:
        client.subscribe(f"events.{symbol}")
        before = market.publish(symbol, snapshot(symbol), *(fill(symbol) for _ in range(50)))
        with frozen(cluster):
            gateway.wait_until(lambda: not is_connected(gateway), "the bus known to be unreachable")
            client.call("public/ping")
        after = market.publish(symbol, *(fill(symbol) for _ in range(50)))
        expected = [offset for _, offset in before + after]
        seen: list[int] = []
        while not seen or seen[-1] < expected[-1]:
            message = client.news()
            if "channel_name" in message:
                seen.append(message["seq"])
    # The ping's answer came after what was read before; read from the second, for the first may be the snapshot.
    assert seen == expected[-len(seen) :]


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_orders_of_a_gateway_that_ends_under_a_frozen_broker_are_unknown(
    cluster: KafkaCluster, market: Market, signals: list[signal.Signals]
) -> None:
    symbol = fresh_symbol()
    body = json.dumps(order(symbol)).encode()
    with Gateway.on(market, SETTINGS) as gateway, ExitStack() as stack:
        connections = [
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)))
            for _ in range(4)
        ]
        accepted = timed_order(gateway, symbol)[0].json()["order_id"]
        with frozen(cluster):
            for connection in connections:
                connection.request("POST", "/api/order", body, {"Content-Type": "application/json"})
            # Answered after the orders were read, for they came before.
            for _ in range(3):
                gateway.health()
            for number in signals:
                gateway.send_signal(number)
            responses = [connection.getresponse() for connection in connections]
            told = [json.loads(response.read()) for response in responses]
            assert gateway.wait(ACK_TIMEOUT_SECONDS + 5 + SLACK_SECONDS) == 0
        # Whether they are on the topic nobody knows: what must not be is that one is told "certainly not sent".
        assert [response.status for response in responses] == [504] * 4
        cluster.wait_ready()
        assert set(on_topic(market, symbol)) <= {accepted} | {one["order_id"] for one in told}
        assert "Traceback" not in gateway.log


def test_purged_orders_are_unknown_whether_or_not_they_are_on_the_topic_later(
    cluster: KafkaCluster, market: Market
) -> None:
    symbol = fresh_symbol()
    ids = [f"order-{number}" for number in range(20)]

    async def produce_freeze_and_purge() -> list[BaseException | None]:
        calls = Calls()
        reachable = [True]
        log = OrderLog(
            market.bootstrap,
            market.order_topic,
            {},
            ack_timeout_seconds=30,
            calls=calls,
            is_reachable=lambda: reachable[0],
            on_trouble=lambda _reason: None,
            on_ack_seconds=lambda _seconds: None,
        )
        first = log.produce("first", symbol, b'{"order_id":"first"}')
        while not first.done():
            log.poll()
            await asyncio.sleep(0)
        first.result()
        cluster.freeze(0)
        futures = [log.produce(one, symbol, json.dumps({"order_id": one}).encode()) for one in ids]
        for _ in range(1000):  # some of them reach the socket of the frozen broker
            log.poll()
            await asyncio.sleep(0)
        await log.close(0)
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        with pytest.raises(BusUnavailable):
            log.produce("closed", symbol, b'{"order_id":"closed"}')
        calls.close()
        return [outcome if isinstance(outcome, BaseException) else None for outcome in outcomes]

    try:
        outcomes = asyncio.run(produce_freeze_and_purge())
    finally:
        cluster.thaw(0)
    cluster.wait_ready()
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * len(ids)
    assert [getattr(outcome, "order_id", None) for outcome in outcomes] == ids
    counts = on_topic(market, symbol)
    assert counts["first"] == 1
    assert counts["closed"] == 0


class Placing(threading.Thread):
    """Places one order after the other until told to stop; remembers what it was told about each."""

    def __init__(self, gateway: Gateway, symbol: str, stop: threading.Event) -> None:
        super().__init__()
        self._gateway = gateway
        self._symbol = symbol
        self._stop_asked = stop
        self.sent = 0
        self.told: list[tuple[int, str]] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=60)) as connection:
            try:
                while not self._stop_asked.is_set():
                    self._place(connection)
            except Exception as error:
                self.failure = error

    def _place(self, connection: http.client.HTTPConnection) -> None:
        self.sent += 1
        body = json.dumps(order(self._symbol))
        connection.request("POST", "/api/order", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        told: dict[str, Any] = json.loads(response.read())
        self.told.append((response.status, told.get("order_id", "")))
        if response.status == 503:
            self._stop_asked.wait(0.02)  # as a client does that is told Retry-After, only sooner


def test_hundreds_of_orders_are_told_the_truth_while_the_broker_freezes_and_thaws(
    cluster: KafkaCluster, market: Market
) -> None:
    symbol = fresh_symbol()
    stop = threading.Event()
    with Gateway.on(market, SETTINGS) as gateway:
        traders = [Placing(gateway, symbol, stop) for _ in range(8)]

        def count(status: int) -> int:
            return sum(told == status for trader in traders for told, _ in list(trader.told))

        for trader in traders:
            trader.start()
        try:
            # Thawed at once; as soon as one was told "unknown"; and when it is known that the bus is away. Twice.
            for round_number, wait_for in enumerate((0, 504, 503, 0, 504, 503)):
                accepted = count(202)
                wait_until(lambda accepted=accepted: count(202) > accepted + 60, "orders accepted")  # type: ignore[misc]
                before = count(wait_for)
                with frozen(cluster):
                    if wait_for:
                        wait_until(
                            lambda wait_for=wait_for, before=before: count(wait_for) > before,  # type: ignore[misc]
                            f"round {round_number}: a {wait_for}",
                        )
            accepted = count(202)
            wait_until(lambda: count(202) > accepted + 20, "orders accepted again")
        finally:
            stop.set()
            for trader in traders:
                trader.join()
        assert [trader.failure for trader in traders] == [None] * len(traders)
        assert sum(trader.sent for trader in traders) == sum(len(trader.told) for trader in traders)
    by_status: dict[int, set[str]] = {}
    for trader in traders:
        for status, order_id in trader.told:
            by_status.setdefault(status, set()).add(order_id)
    counts = on_topic(market, symbol)
    assert set(by_status) == {202, 503, 504}
    assert len(by_status[202]) > 300
    assert {order_id for order_id in by_status[202] if counts[order_id] != 1} == set()
    assert by_status[503] == {""}
    # Nothing else: none of those that were told 503, under whatever id.
    assert set(counts) <= by_status[202] | by_status[504]


def test_answer_of_an_order_whose_client_left_goes_nowhere_quietly(cluster: KafkaCluster, market: Market) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, SETTINGS) as gateway:
        with frozen(cluster):
            body = json.dumps(order(symbol)).encode()
            with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)) as connection:
                connection.request("POST", "/api/order", body, {"Content-Type": "application/json"})
                gateway.health()
            gateway.wait_until(
                lambda: gateway.metric("gateway_orders_total", kind="place", outcome="unknown") == 1,
                "its outcome counted",
            )
        gateway.wait_ready()
        accepted_again(gateway, symbol)
        assert gateway.terminate() == 0
        for sign in ("Traceback", "never retrieved", " ERROR   gateway:", " ERROR   asyncio"):
            assert sign not in gateway.log, gateway.log


def test_unknown_outcome_over_websocket_is_10005_with_the_id_to_ask_about_and_is_settled_later(
    cluster: KafkaCluster, market: Market
) -> None:
    trader = Trader()
    given = settings(orders={"id_secret": str(NAMESPACE), "ack_timeout_seconds": 1})
    with Gateway.on(market, given) as gateway, trader.connect(gateway) as client:

        def is_taken() -> bool:
            return trader.post(gateway, "/api/order", limit(fresh_symbol())).status == 202

        def placed_in_the_dark() -> dict[str, Any] | None:
            """An order whose outcome nobody knows; None if the bus was known to be away before the order had come."""
            gateway.wait_until(is_taken, "the bus there")
            name = uuid.uuid4().hex
            body = limit(fresh_symbol(), client_order_id=name)
            bodies = {"first": body, "second": body, "third": body, "other": body | {"price": "5"}}
            sent = [{"id": one, "method": "private/place_order", "params": bodies[one]} for one in bodies]
            cluster.freeze(0)
            try:
                client.socket.sendall(b"".join(frame_of(json.dumps(message).encode()) for message in sent))
                answers = {answer["id"]: answer for answer in (json.loads(client.receive()) for _ in sent)}
                if any(answer["error"]["code"] == 10004 for answer in answers.values()):
                    return None
                error_of(answers.pop("other"), 10001)
                order_id = order_id_of(trader.user_id, name)
                errors = [error_of(answer, 10005) for answer in answers.values()]
                assert [error["data"] for error in errors] == [{"order_id": order_id}] * 3
                # It may be there, so it is shown, and can be asked about.
                order = trader.order(gateway, order_id)
                assert order is not None and order["status"] == "pending"
            finally:
                cluster.thaw(0)
            return body

        body = gateway.wait_until(placed_in_the_dark, "four orders before the freeze is noticed")
        order_id = order_id_of(trader.user_id, body["client_order_id"])

        def repeated() -> dict[str, Any] | None:
            answer, _ = client.call("private/place_order", body)
            return answer.get("result")

        result = gateway.wait_until(repeated, "the repeat accepted")
        assert (result["order_id"], result["client_order_id"]) == (order_id, body["client_order_id"])
        assert client.result("private/place_order", body)["duplicate"] is True
        assert {command["order_id"] for command in market.commands_of(body["symbol"])} == {order_id}
