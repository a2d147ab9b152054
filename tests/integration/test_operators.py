"""The operators' address on a real Kafka: what is done at one instance holds at every other (docs/contract.md#operators)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.core.tokens import SECRET
from tests.integration.clients import WebSocket
from tests.integration.controlled import Controlled
from tests.integration.events import fresh_symbol, snapshot
from tests.integration.operating import ADMIN, TOKEN, operators_of
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, check_problem, limit, own_commands
from tests.support.gateway import REPOSITORY, Answer, GatewayProcess
from tests.test_openapi_admin import COMPONENTS, faults
from tools.admin import TOKEN_VARIABLE, UNREACHABLE

DISCONNECTED = (1008, "disconnected by an operator")


def checked(schema: str, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer that is what docs/openapi-admin.json says."""
    assert schema in COMPONENTS["schemas"]
    assert faults({"$ref": f"#/components/schemas/{schema}"}, answer) == []
    return answer


def closed(client: WebSocket) -> tuple[int | None, str]:
    found = client.receive_close()
    return found.code, found.reason


def order(gateway: Gateway, trader: Trader, symbol: str) -> Answer:
    return trader.post(gateway, "/api/order", limit(symbol))


def test_block_at_one_instance_holds_at_the_others_and_over_restarts(controlled: Controlled) -> None:
    alice, bob, symbol = Trader(), Trader(), fresh_symbol()
    with controlled.gateway(**ADMIN) as one, controlled.gateway(**ADMIN) as two:
        order_id = alice.place(two, limit(symbol))["order_id"]
        body = {"user_id": alice.user_id, "reason": "margin call", "cancel_open": True}
        answer = checked("blocked", operators_of(one).ask("block", body))
        assert answer == {"user_id": alice.user_id, "status": "blocked", "order_ids": [order_id]}
        for gateway in (one, two):
            gateway.wait_until(lambda gateway=gateway: order(gateway, alice, symbol).status == 403, "alice blocked")
            assert order(gateway, bob, symbol).status == 202
        [cancel] = own_commands(controlled.market, symbol, "cancel_order")
        assert cancel["order_id"] == order_id
        assert TOKEN not in one.log
        assert one.log.count("gateway.audit: block done ") == 1, one.log
    with controlled.gateway(**ADMIN) as again, controlled.gateway() as other:
        for gateway in (again, other):
            assert "margin call" in check_problem(order(gateway, alice, symbol), 403)["error"]
        state = checked("state", operators_of(again).ask("state"))
        assert [(one["user_id"], one["reason"]) for one in state["blocks"]] == [(alice.user_id, "margin call")]
        operators_of(again).ask("unblock", {"user_id": alice.user_id})
        assert order(again, alice, symbol).status == 202
        other.wait_until(lambda: order(other, alice, symbol).status == 202, "alice unblocked")


def test_block_reaches_three_instances_in_less_than_a_second(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with ExitStack() as stack:
        gateways = [stack.enter_context(controlled.gateway(**ADMIN)) for _ in range(3)]
        operators = operators_of(gateways[0])
        took = []
        for _ in range(5):
            began = time.monotonic()
            operators.ask("block", {"user_id": alice.user_id})
            for gateway in gateways:
                gateway.wait_until(lambda gateway=gateway: order(gateway, alice, symbol).status == 403, "alice blocked")
            took.append(time.monotonic() - began)
            operators.ask("unblock", {"user_id": alice.user_id})
            for gateway in gateways:
                gateway.wait_until(lambda gateway=gateway: order(gateway, alice, symbol).status == 202, "unblocked")
        print(f"a block was everywhere after {', '.join(f'{1000 * seconds:.0f}' for seconds in took)} ms")
        # Not the slowest: the machine may be busy with other things.
        assert min(took) < 1


def test_user_is_disconnected_at_every_instance_and_may_come_back(controlled: Controlled) -> None:
    alice, bob = Trader(), Trader()
    with controlled.gateway(**ADMIN) as one, controlled.gateway(**ADMIN) as two:
        with alice.connect(one) as here, alice.connect(two) as there, bob.connect(two) as other:
            other.subscribe("status")
            other.news()
            page = checked("clients", operators_of(two).ask(f"clients?user_id={bob.user_id}"))
            [listed] = page["clients"]
            assert (listed["address"], listed["channels"], page["open"]) == ("127.0.0.1", ["status"], 2)
            checked("disconnecting", operators_of(one).ask("disconnect", {"user_id": alice.user_id}))
            assert closed(here) == closed(there) == DISCONNECTED
            with alice.connect(one) as again:
                # By its name, at the instance that does not have it.
                operators_of(one).ask("disconnect", {"client": listed["client"]})
                assert closed(other) == DISCONNECTED
                again.expect_silence()
    assert controlled.kept()[f"disconnect_user/{alice.user_id}"] is None


def test_workers_are_listed_and_disconnected_together(controlled: Controlled) -> None:
    alice = Trader()
    with controlled.gateway(**ADMIN, workers=2) as gateway, ExitStack() as stack:
        operators, clients = operators_of(gateway), list[WebSocket]()

        def listed() -> list[str]:
            names, after = [], ""
            while after is not None:
                page = checked("clients", operators.ask(f"clients?limit=7{after and f'&after={after}'}"))
                names += [one["client"] for one in page["clients"]]
                after = page["next"]
            return names

        def is_on_both() -> bool:
            clients.append(stack.enter_context(alice.connect(gateway)))
            return len(clients) >= 20 and len({name.partition("-")[0] for name in listed()}) == 2

        # Who of them accepts is the kernel's to say.
        gateway.wait_until(is_on_both, "clients on both workers")
        names = listed()
        assert len(names) == len(set(names)) == len(clients)
        operators.ask("disconnect", {"user_id": alice.user_id})
        assert {closed(client) for client in clients} == {DISCONNECTED}


def test_nothing_is_set_where_there_is_no_control_topic(controlled: Controlled) -> None:
    with controlled.gateway("", **ADMIN) as gateway:
        operators = operators_of(gateway)
        assert "control topic" in checked("state", operators.ask("state"))["problem"]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with_url = GatewayProcess.__new__(GatewayProcess)
        with_url.url = operators.url
        told = check_problem(with_url.post("/admin/halt", {"symbol": None}, headers), 503)
        assert told["type"] == "urn:mexchange:problem:unavailable"


def test_terminal_halts_and_resumes(controlled: Controlled) -> None:
    alice, symbol = Trader(), fresh_symbol()

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tools.admin", "--url", url, *arguments]
        environ = {**os.environ, TOKEN_VARIABLE: TOKEN}
        return subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False)

    with controlled.gateway(**ADMIN) as gateway:
        url = operators_of(gateway).url
        done = call("--yes", "halt", symbol, "--reason", "odd prices")
        assert (done.stdout, "is it spelt right?" in done.stderr) == ("halted\n", True)
        check_problem(order(gateway, alice, symbol), 403)
        assert f"halted: {symbol} since" in call("state").stdout
        controlled.market.publish(symbol, snapshot(symbol))
        gateway.wait_until(lambda: gateway.get(f"/api/book?symbol={symbol}").status == 200, "its book is known")
        done = call("--yes", "resume", symbol)
        assert (done.returncode, done.stderr) == (0, "")
        assert order(gateway, alice, symbol).status == 202
    assert call("state").returncode == UNREACHABLE


@pytest.mark.parametrize(
    ("admin", "said"),
    [
        ({"bind": "127.0.0.1:0"}, "admin.token: expected a secret of at least 32 bytes"),
        ({"bind": "127.0.0.1:0", "token": "short"}, "admin.token: expected a secret of at least 32 bytes"),
        ({"bind": "0.0.0.0:0", "token": TOKEN}, "admin.bind: expected an address of the loopback"),
    ],
)
def test_start_is_refused_where_operators_would_not_be_safe(admin: dict[str, str], said: str) -> None:
    gateway = GatewayProcess({"admin": admin, "auth": {"secret": SECRET}}, {"KAFKA_BROKERS": "embedded"})
    gateway.start()
    try:
        assert gateway.process.wait(30) == 2
    finally:
        gateway.kill()
    assert said in gateway.log
    assert TOKEN not in gateway.log
