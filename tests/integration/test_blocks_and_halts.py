"""Blocks, halts and announcements on a real Kafka: every instance refuses, tells and forgets alike (docs/contract.md#status)."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.integration.clients import WebSocket
from tests.integration.controlled import Controlled
from tests.integration.events import fresh_symbol
from tests.integration.processes import Gateway, stopped
from tests.integration.trading import Trader, check_problem, error_of, limit, own_commands
from tests.support.asyncapi import faults

ONLINE = {"state": "online", "symbols": {}}
AMENDS = {"orders": {"amend": True}}


def record(**members: object) -> bytes:
    return json.dumps({"since_ms": int(time.time() * 1000), "reason": None, **members}).encode()


def announcement(state: str, **members: object) -> bytes:
    nothing = dict.fromkeys(("symbols", "message", "from_ms", "until_ms"))
    return json.dumps({"state": state, **nothing, **members}).encode()


class Listener:
    """A connection on the channel `status`."""

    def __init__(self, client: WebSocket) -> None:
        self.client = client
        assert client.result("public/subscribe", {"channels": ["status"]}) == ["status"]
        self.began_with = self.next()

    def next(self, kind: str = "status") -> Any:
        message = self.client.news()
        assert faults(kind, message) == []
        return message["notification"]


def status(gateway: Gateway) -> Any:
    answer = gateway.request("GET", "/api/status")
    assert answer.status == 200
    return answer.json()


def wait_status(gateway: Gateway, told: object) -> None:
    gateway.wait_until(lambda: status(gateway) == told, f"status {told}")


def refusal(answer: Any, name: str) -> dict[str, Any]:
    told = check_problem(answer, 403)
    assert told["type"] == f"urn:mexchange:problem:{name}"
    return told


def test_every_instance_tells_a_halt_and_refuses_what_it_closes(controlled: Controlled) -> None:
    alice, symbol, other = Trader(), fresh_symbol(), fresh_symbol()
    with controlled.gateway(**AMENDS) as one, controlled.gateway(**AMENDS) as two, ExitStack() as stack:
        order_id = alice.place(one, limit(symbol, client_order_id="mine"))["order_id"]
        listeners = [Listener(stack.enter_context(alice.connect(gateway))) for gateway in (one, two)]
        assert [listener.began_with for listener in listeners] == [ONLINE, ONLINE]
        controlled.write(f"halt/{symbol}", record(reason="odd prices"))
        halted = {"state": "online", "symbols": {symbol: "halted"}, "reasons": {symbol: "odd prices"}}
        for gateway, listener in zip((one, two), listeners, strict=True):
            assert listener.next() == halted
            assert status(gateway) == halted
            told = refusal(alice.post(gateway, "/api/order", limit(symbol)), "halted")
            assert (told["symbol"], told["state"]) == (symbol, "halted")
            assert told["detail"].endswith("odd prices")
            only = alice.post(gateway, "/api/order", limit(symbol, validate_only=True))
            refusal(only, "halted")
            refusal(alice.post(gateway, "/api/order/amend", {"order_id": order_id, "price": "1.20"}), "halted")
            error = error_of(listener.client.call("private/place_order", limit(symbol))[0], 10001)
            assert error["data"] == {"problem": "halted", "symbol": symbol, "state": "halted"}
            assert alice.place(gateway, limit(symbol, client_order_id="mine"))["duplicate"] is True
            requests = [{"method": "place", "params": limit(name)} for name in (symbol, other)]
            results = alice.post(gateway, "/api/order/batch", {"requests": requests}).json()["results"]
            assert [result["status"] for result in results] == [403, 202]
        assert alice.cancel(two, order_id=order_id).status == 202
        controlled.write(f"halt/{symbol}", None)
        assert [listener.next() for listener in listeners] == [ONLINE, ONLINE]
        alice.place(two, limit(symbol))
        assert one.metric("gateway_orders_total", kind="place", outcome="halted") == 4
        assert len(own_commands(controlled.market, symbol)) == 2


def test_block_is_of_its_user_alone_and_outlives_all_instances(controlled: Controlled) -> None:
    alice, bob, symbol = Trader(), Trader(), fresh_symbol()
    with controlled.gateway() as one:
        order_id = alice.place(one, limit(symbol))["order_id"]
        controlled.write(f"block/{alice.user_id}", record(reason="too many cancels"))
        controlled.write("halt/*", record())
        controlled.write("announcement/*", announcement("online", message="we look into it"))
        wait_status(one, {"state": "halted", "symbols": {}, "message": "we look into it"})
        refusal(bob.post(one, "/api/order", limit(symbol)), "halted")
        controlled.write("halt/*", None)
        wait_status(one, {**ONLINE, "message": "we look into it"})
    with controlled.gateway() as again:
        assert status(again) == {**ONLINE, "message": "we look into it"}
        assert again.metric("gateway_blocked_users") == 1
        told = refusal(alice.post(again, "/api/order", limit(symbol)), "blocked")
        assert told["detail"] == "orders of this user are refused: too many cancels"
        bob.place(again, limit(symbol))
        assert alice.cancel_all(again) == [order_id]
        assert alice.post(again, "/api/order/cancel_all_after", {"timeout_seconds": 10}).status == 202
        controlled.write(f"block/{alice.user_id}", None)
        again.wait_until(lambda: not again.metric("gateway_blocked_users"), "nobody is blocked")
        alice.place(again, limit(symbol))


def test_announced_state_holds_between_its_moments(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway() as one, alice.connect(one) as client:
        listener = Listener(client)
        from_ms = int(time.time() * 1000) + 1500
        times = {"from_ms": from_ms, "until_ms": from_ms + 1500}
        controlled.write("announcement/*", announcement("maintenance", message="an upgrade", **times))
        told = {"message": "an upgrade", **times}
        assert listener.next() == {**ONLINE, **told, "announced": {"state": "maintenance"}}
        assert listener.next() == {"state": "maintenance", "symbols": {}, **told}
        assert time.time() * 1000 >= from_ms
        assert listener.next() == ONLINE
        assert time.time() * 1000 >= from_ms + 1500
        alice.place(one, limit(symbol))


def test_connection_is_told_of_its_end_before_a_drain_closes_it(controlled: Controlled) -> None:
    with controlled.gateway(drain_seconds=0.5) as one, ExitStack() as stack:
        listeners = [Listener(stack.enter_context(WebSocket(one.address, "/ws?stream=none"))) for _ in range(2)]
        quiet = stack.enter_context(WebSocket(one.address, "/ws?stream=none"))
        one.send_signal(signal.SIGTERM)
        closing = sorted(listener.next("closing")["closing_in_ms"] for listener in listeners)
        assert 0 < closing[0] < closing[1] < 500
        for client in (*(listener.client for listener in listeners), quiet):
            assert client.receive_close().code == 1001


def test_bad_record_costs_nobody_else_a_halt(controlled: Controlled) -> None:
    with controlled.gateway() as one:
        for key in ("block/x", "halt/KCN", "halt/A/B", "announcement/y", "announcement/*"):
            controlled.write(key, b'{"since_ms":"1"}')
        controlled.write("halt/KCN/EUR", record())
        wait_status(one, {"state": "online", "symbols": {"KCN/EUR": "halted"}})
        skipped = "gateway_poisoned_control_total"
        assert (one.metric(skipped, reason="bad_field"), one.metric(skipped, reason="bad_key")) == (3, 2)
        assert (one.metric("gateway_blocked_users"), one.metric("gateway_halts")) == (0, 1)


def test_instance_that_stood_still_hears_of_what_was_said_meanwhile(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway() as one, controlled.gateway() as two:
        with stopped(one):
            controlled.write(f"block/{alice.user_id}", record())
            two.wait_until(lambda: two.metric("gateway_blocked_users"), "one instance has heard of it")
        one.wait_until(lambda: one.metric("gateway_blocked_users"), "the other has heard of it")
        refusal(alice.post(one, "/api/order", limit(symbol)), "blocked")


@pytest.mark.parametrize("is_there", [False, True], ids=["none", "not fit"])
def test_without_a_control_topic_nothing_is_halted_and_orders_are_taken(controlled: Controlled, is_there: bool) -> None:
    alice, symbol = Trader(), fresh_symbol()
    if is_there:
        controlled.kafka.create_topic(controlled.topic, 3, {"cleanup.policy": "compact"})
        controlled.write(f"halt/{symbol}", record())
    with controlled.gateway(topic=None if is_there else "") as one, alice.connect(one) as client:
        assert Listener(client).began_with == status(one) == ONLINE
        alice.place(one, limit(symbol))


def test_topic_made_anew_is_read_anew_by_all(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway() as one, controlled.gateway() as two, ExitStack() as stack:
        controlled.write("halt/*", record())
        for gateway in (one, two):
            wait_status(gateway, {"state": "halted", "symbols": {}})
        listeners = [Listener(stack.enter_context(alice.connect(gateway))) for gateway in (one, two)]
        controlled.kafka.delete_topic(controlled.topic)
        assert [listener.next() for listener in listeners] == [ONLINE, ONLINE]
        one.wait_log("0 blocks and 1 halts are forgotten")
        alice.place(one, limit(symbol))
        one.wait_until(lambda: controlled.exists() and "problems" not in one.health(), "a new topic")
        controlled.write(f"halt/{symbol}", record())
        halted = {"state": "online", "symbols": {symbol: "halted"}}
        assert [listener.next() for listener in listeners] == [halted, halted]
        refusal(alice.post(two, "/api/order", limit(symbol)), "halted")
