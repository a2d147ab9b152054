"""A member that is null is as if it were not there: of every request that docs/asyncapi.json and docs/openapi.json have."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from core.messages.order_rules import OrderRules
from tests.core.sessions import new_session
from tests.handlers.orders_server import ALICE, serve
from tests.support import asyncapi
from tests.support.gateway import REPOSITORY
from tests.support.request_members import objects, with_member_null

OPENAPI: dict[str, Any] = json.loads((REPOSITORY / "docs" / "openapi.json").read_text())


def resolve_openapi(reference: str) -> Any:
    found: Any = {"#": OPENAPI}
    for part in reference.split("/"):
        found = found[part]
    return found


MESSAGES = [
    pytest.param(name, payload, path, member, id=f"{name}-{example}-{'.'.join(map(str, (*path, member)))}")
    for name, example, payload in asyncapi.examples(list(asyncapi.REPLIES))
    for path, found in objects(payload, asyncapi.MESSAGES[name]["payload"], asyncapi.resolve)
    for member in sorted(found)
]
BODIES = [
    pytest.param(route, example["value"], path, member, id=f"{route}-{name}-{'.'.join(map(str, (*path, member)))}")
    for route, methods in OPENAPI["paths"].items()
    if "requestBody" in methods.get("post", ())
    for content in [methods["post"]["requestBody"]["content"]["application/json"]]
    for name, example in content["examples"].items()
    for path, found in objects(example["value"], content["schema"], resolve_openapi)
    for member in sorted(found)
]


def test_members_of_all_requests_are_looked_at() -> None:
    """Those that were refused when they were null, and one of each depth."""
    looked_at = {(param.values[0], *param.values[2], param.values[3]) for param in MESSAGES}
    assert {
        ("placeOrder", "params", "max_slippage_price"),
        ("typeOrders", "orders", 1, "symbol"),
        ("typePlaceOrder", "quote_amount"),
        ("cancelAll", "params"),
        ("subscribe", "params", "since"),
        ("ping", "id"),
    } <= looked_at
    assert {name for name, *_ in looked_at} == asyncapi.REPLIES.keys()
    assert ("/api/order", "quote_amount") in {(param.values[0], param.values[3]) for param in BODIES}


@pytest.mark.parametrize(("name", "payload", "path", "member"), MESSAGES)
def test_message_is_read_as_without_a_member_that_is_null(name: str, payload: Any, path: Any, member: str) -> None:
    null, without = with_member_null(payload, path, member)
    told = []
    for message in (null, without):
        session = new_session()
        session.user_id = "alice"
        told.append(repr(session.receive(json.dumps(message, default=float))))
    assert told[0] == told[1]
    is_required = bool(asyncapi.faults(name, without))
    assert bool(asyncapi.faults(name, null)) is is_required, "the document says the same"


@pytest.mark.parametrize("account", [True, False])
@pytest.mark.parametrize(("route", "body", "path", "member"), BODIES)
@pytest.mark.gen_test
async def test_body_is_read_as_without_a_member_that_is_null(
    route: str, body: Any, path: Any, member: str, account: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.handlers.orders_server.RULES", OrderRules(default_symbol="KCN/EUR", accounts=account))
    told = []
    for sent in with_member_null(body, path, member):
        async with serve() as server:
            order_id = await server.place(ALICE, symbol="KCN/EUR", client_order_id="mine-1")
            if "order_id" in sent and sent["order_id"] is not None:
                sent["order_id"] = order_id
            answer = await server.ask("POST", route, sent)
            commands = re.sub(
                rb'"(order_id|timestamp)":[^,]*', b"", b"".join(one.command for one in server.trade.log.produced)
            )
            answered = {name: value for name, value in answer.json().items() if not name.endswith(("_id", "_ids"))}
            told.append((answer.status, answered, commands))
    assert told[0] == told[1]
