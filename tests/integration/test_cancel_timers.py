"""cancel_all_after on a real Kafka: who fires it when instances die, stand still or start (docs/contract.md#cancel-all-after)."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from core.control.cancel_timers import SLACK_MS
from tests.integration.controlled import Controlled
from tests.integration.events import fresh_symbol
from tests.integration.processes import Gateway, stopped
from tests.integration.trading import Trader, check_problem, limit, own_commands
from tests.integration.waiting import wait_until

PATH = "/api/order/cancel_all_after"
# Long enough that nothing fires while a test looks.
FAR = 3600


def armed(gateway: Gateway, trader: Trader, seconds: int) -> int:
    """Arm a timer; when it is to fire, in milliseconds."""
    answer = trader.post(gateway, PATH, {"timeout_seconds": seconds})
    assert answer.status == 202, (answer.status, answer.body)
    moment = answer.json()["trigger_time_ms"]
    assert isinstance(moment, int)
    return moment


def cancels(controlled: Controlled, symbol: str) -> list[dict[str, Any]]:
    return own_commands(controlled.market, symbol, "cancel_order")


def wait_cancelled(gateway: Gateway, controlled: Controlled, symbol: str, order_id: str) -> int:
    """When its first cancel was made, in milliseconds."""
    found = gateway.wait_until(lambda: cancels(controlled, symbol), "the order cancelled")
    assert found[0]["order_id"] == order_id
    return int(found[0]["timestamp"])


def test_timer_is_fired_by_who_took_it_and_told_to_all(controlled: Controlled) -> None:
    alice, bob, symbol = Trader(), Trader(), fresh_symbol()
    with controlled.gateway() as one, controlled.gateway() as two:
        order_id = alice.place(two, limit(symbol))["order_id"]
        bob.place(two, limit(symbol))
        with alice.connect(one) as client:
            moment = client.result("private/cancel_all_after", {"timeout_seconds": 1})["trigger_time_ms"]
        assert wait_cancelled(one, controlled, symbol, order_id) >= moment
        for gateway in (one, two):
            gateway.wait_until(lambda gateway=gateway: not gateway.metric("gateway_armed_timers"), "the timer fired")
        one.wait_log(f"cancel_all_after of user {alice.user_id}: 1 orders cancelled")
        assert one.metric("gateway_timers_total", outcome="fired") == 1
        assert {command["order_id"] for command in cancels(controlled, symbol)} == {order_id}
    assert controlled.kept()[f"fired/{alice.user_id}"]["trigger_ms"] == moment


def test_timer_of_an_instance_that_was_killed_is_fired_by_another(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway() as one, controlled.gateway() as two:
        order_id = alice.place(one, limit(symbol))["order_id"]
        moment = armed(one, alice, 2)
        one.send_signal(signal.SIGKILL)
        assert wait_cancelled(two, controlled, symbol, order_id) >= moment
        two.wait_log(f"cancel_all_after of user {alice.user_id}: 1 orders cancelled")


def test_timer_that_is_armed_again_or_disarmed_anywhere_is_not_fired(controlled: Controlled) -> None:
    alice, bob, carol, symbol = Trader(), Trader(), Trader(), fresh_symbol()
    with controlled.gateway() as one, controlled.gateway() as two:
        order_id = carol.place(one, limit(symbol))["order_id"]
        for trader in (alice, bob):
            trader.place(one, limit(symbol))
            armed(one, trader, 4)
        armed(two, alice, FAR)
        assert bob.post(two, PATH, {"timeout_seconds": 0}).json() == {"trigger_time_ms": None}
        armed(one, carol, 4)  # later than those two would have been
        wait_cancelled(one, controlled, symbol, order_id)
        two.wait_until(lambda: two.metric("gateway_armed_timers") == 1, "hers alone is left")
        assert {command["order_id"] for command in cancels(controlled, symbol)} == {order_id}


@pytest.mark.parametrize("is_over", [False, True])
def test_timer_outlives_all_instances(controlled: Controlled, is_over: bool) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway() as one:
        order_id = alice.place(one, limit(symbol))["order_id"]
        moment = armed(one, alice, FAR)
    if is_over:
        user = str(alice.user_id)
        timer = controlled.kept()[f"timer/{user}"]
        assert timer["trigger_ms"] == moment
        controlled.write(
            f"timer/{user}", json.dumps({**timer, "trigger_ms": moment - 3_700_000, "timeout_ms": 0}).encode()
        )
    with controlled.gateway() as again:
        if is_over:
            wait_cancelled(again, controlled, symbol, order_id)
            again.wait_until(lambda: not again.metric("gateway_armed_timers"), "the timer fired")
        else:
            assert again.metric("gateway_armed_timers") == 1
            assert not cancels(controlled, symbol)
    with controlled.gateway() as third:
        assert third.metric("gateway_armed_timers") == (0 if is_over else 1)


@pytest.mark.parametrize("is_over", [False, True])
def test_fleet_that_is_killed_as_a_whole_fires_once_it_is_back_and_never_early(
    controlled: Controlled, is_over: bool
) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway() as one, controlled.gateway() as two:
        order_id = alice.place(one, limit(symbol))["order_id"]
        armed(one, alice, 4)
        moment = armed(one, alice, 4)  # whose record has a slack
        two.wait_until(lambda: two.metric("gateway_armed_timers"), "it is armed")
        for gateway in (one, two):
            gateway.send_signal(signal.SIGKILL)
    if is_over:
        wait_until(lambda: time.time() * 1000 > moment + SLACK_MS, "its time has come")
    began = time.time() * 1000
    with controlled.gateway() as again:
        ready = time.time() * 1000
        fired = wait_cancelled(again, controlled, symbol, order_id)
        assert fired >= moment
        # By the brokers' clock, for which it has asked.
        assert any(key.startswith("alive/") for key in controlled.kept())
    print(f"started {began - moment:.0f} ms after the moment, ready {ready - moment:.0f}, fired {fired - moment}")


def test_instance_that_stood_still_over_the_moment_fires_nothing_that_another_has(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway() as one, controlled.gateway() as two:
        order_id = alice.place(two, limit(symbol))["order_id"]
        armed(one, alice, 1)
        with stopped(one):
            wait_cancelled(two, controlled, symbol, order_id)
            two.wait_until(lambda: not two.metric("gateway_armed_timers"), "the timer fired")
            later = alice.place(two, limit(symbol))["order_id"]
        one.wait_until(lambda: not one.metric("gateway_armed_timers"), "it has heard of that")
        assert one.metric("gateway_timers_total", outcome="fired") == 0
        assert later not in {command["order_id"] for command in cancels(controlled, symbol)}


def test_bad_record_costs_nobody_else_a_timer(controlled: Controlled) -> None:
    alice = Trader()
    with controlled.gateway() as one:
        armed(one, alice, FAR)
        for key, value in (("", b"{}"), ("later/x", b"{}"), ("timer/x", b"{"), ("timer/y", b"[]"), ("fired/z", b"{}")):
            controlled.write(key, value)
    with controlled.gateway() as again:
        assert again.metric("gateway_armed_timers") == 1
        skipped = "gateway_poisoned_control_total"
        for reason in ("bad_key", "unknown_kind", "not_json", "not_an_object", "bad_field"):
            assert again.metric(skipped, reason=reason) == 1, reason


def test_without_a_control_topic_it_is_refused_and_says_so(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with controlled.gateway(topic="") as gateway:
        refused = check_problem(alice.post(gateway, PATH, {"timeout_seconds": 5}), 503)
        assert refused["type"] == "urn:mexchange:problem:unavailable"
        assert "no control topic" in refused["detail"]
        alice.place(gateway, limit(symbol))


def test_topic_that_cannot_be_used_keeps_nobody_from_trading(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    controlled.kafka.create_topic(controlled.topic, 3, {"cleanup.policy": "compact"})
    with controlled.gateway() as gateway:
        refused = check_problem(alice.post(gateway, PATH, {"timeout_seconds": 5}), 503)
        assert f"topic {controlled.topic} has 3 partitions and has to have 1" in refused["detail"]
        assert gateway.health()["problems"] == [refused["detail"].removeprefix("not sent: ")]
        alice.place(gateway, limit(symbol))


def test_topic_made_anew_is_read_anew(controlled: Controlled) -> None:
    alice, bob = Trader(), Trader()
    with controlled.gateway() as one:
        armed(one, alice, FAR)
        controlled.kafka.delete_topic(controlled.topic)
        one.wait_until(lambda: not one.metric("gateway_armed_timers"), "it is forgotten")

        def arms() -> bool:
            return bool(bob.post(one, PATH, {"timeout_seconds": FAR}).status == 202)

        one.wait_until(arms, "a timer set on the new topic")
        one.wait_until(lambda: one.metric("gateway_armed_timers") == 1, "it is read")
    assert [name for name, said in controlled.kept().items() if said is not None] == [f"timer/{bob.user_id}"]
