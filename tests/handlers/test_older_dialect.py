"""What is turned away before it is served, in the second older dialect's own form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.effects import OlderAnswer
from core.errors import RpcCode, RpcError
from core.limits import Limiter, Policy
from core.session import Session
from handlers.older_dialect import refuse
from tests.core.door import taker
from tests.core.sessions import new_session
from tests.handlers.bench import LIMIT, asked, placed, serve

WAIT = RpcError(RpcCode.TOO_MANY_REQUESTS, "wait", {"retry_after": 2})
# Of each of the dialect's own messages, the answer that it waits for.
ANSWERS: list[tuple[dict[str, object], dict[str, object]]] = [
    ({"type": "auth", "token": "a.b.c"}, {"type": "auth_result", "user_id": None}),
    ({"type": "place_order", **LIMIT}, {"type": "order_result", "order_id": None}),
    ({"type": "place_order", "order_id": "o"}, {"type": "order_result", "order_id": None}),
    ({"type": "place_order", "id": [1]}, {"type": "order_result", "order_id": None}),
    ({"type": "cancel_order", "order_id": "o/1"}, {"type": "cancel_result", "order_id": "o/1"}),
    ({"type": "cancel_order", "order_id": 7}, {"type": "cancel_result", "order_id": None}),
    ({"type": "cancel_order", "client_order_id": "mine"}, {"type": "cancel_result", "order_id": None}),
    ({"action": "place_order", **LIMIT}, {"type": "order_result", "order_id": None}),
]


@pytest.fixture
def session() -> Session:
    return new_session()


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize(("message", "expected"), ANSWERS, ids=str)
def test_message_of_the_second_older_dialect_is_refused_in_its_own_form(
    session: Session, message: dict[str, object], expected: dict[str, object], as_bytes: bool
) -> None:
    text = json.dumps(message)
    reply = refuse(session, text.encode() if as_bytes else text, WAIT)
    assert reply.is_refusal
    assert json.loads(reply.text) == {**expected, "success": False, "error": "wait"}


@pytest.mark.parametrize(
    "message",
    [
        '{"id":7,"method":"public/ping"}',
        '{"id":7,"method":"private/place_order","type":"place_order"}',
        '{"id":7,"type":"subscribe","channel":"trades.KCN/EUR"}',
        '{"id":7,"type":"orders","orders":[]}',
        '{"action":"subscribe","channel":"trades.KCN/EUR"}',
        '{"type":"order_result"}',
        '{"type":["place_order"]}',
        '{"type":{}}',
        '["place_order"]',
        '{"type":"place_order"',
        '{"type":"place_order","type":"place_order"}',
        "\ud800",
        "",
    ],
)
def test_message_that_the_second_older_dialect_has_no_answer_for_is_refused_in_the_present_form(
    session: Session, message: str
) -> None:
    reply = refuse(session, message, WAIT)
    assert reply == session.refuse(message, WAIT)
    assert json.loads(reply.text)["error"] == {"code": 10003, "message": "wait", "data": {"retry_after": 2}}


def test_each_message_is_refused_in_the_form_that_the_session_answers_it_in(session: Session) -> None:
    """The session's own table is what counts."""
    for message, _ in ANSWERS:
        if "id" in message:
            continue  # one that the session cannot read
        text = json.dumps(message)
        [effect] = session.receive(text)
        answer = getattr(effect, "answer", None)
        if answer is None:
            served = json.loads(effect.text)  # type: ignore[union-attr]
        else:
            assert isinstance(answer, OlderAnswer)
            served = json.loads(answer.failure(WAIT).text)
        assert {**served, "error": "wait"} == json.loads(refuse(session, text, WAIT).text)


# Over `/ws`.


def refused(kind: str, error: str, **about: object) -> dict[str, Any]:
    return {"type": kind, "success": False, **about, "error": error}


@pytest.mark.gen_test
async def test_requests_over_the_limit_are_refused_in_the_dialect_they_came_in() -> None:
    async with serve(messages=Policy("requests", 0.01, 2)) as bench, bench.client("alice-token") as connection:
        order_id = await placed(connection)
        assert (await asked(connection, "public/ping"))["result"] == "pong"
        await connection.say({"type": "cancel_order", "order_id": order_id})
        wait = "too many requests; wait"
        assert await connection.message() == refused("cancel_result", wait, order_id=order_id)
        assert (await asked(connection, "public/ping"))["error"]["code"] == 10003
        assert bench.cancels == []
        counted = bench.context.metrics.registry.get_sample_value
        assert counted("gateway_rate_limited_total", {"route": "messages"}) == 2


@pytest.mark.gen_test
async def test_requests_over_the_limit_of_their_address_are_refused_in_the_dialect_they_came_in() -> None:
    limiter = Limiter(Policy("requests", 0.5, 1), clock=lambda: 0.0)
    async with serve(address_requests=limiter, address_requests_per_second=0.5) as bench:
        async with bench.client() as connection:
            assert (await asked(connection, "public/ping"))["result"] == "pong"
            await connection.say({"type": "auth", "token": "alice-token"})
            assert await connection.message() == refused("auth_result", "too many requests; wait", user_id=None)


@pytest.mark.gen_test
async def test_orders_and_cancels_over_their_limits_are_refused_in_the_dialect_they_came_in() -> None:
    async with serve(orders=taker("orders", 0.5, 1), cancels=taker("cancels", 0.5, 1)) as bench:
        async with bench.client("alice-token") as connection:
            order_id = await placed(connection)
            await connection.say({"type": "place_order", **LIMIT})
            assert await connection.message() == refused("order_result", "too many orders; wait", order_id=None)
            assert "result" in await asked(connection, "private/cancel_order", order_id=order_id)
            await connection.say({"type": "cancel_order", "order_id": order_id})
            assert await connection.message() == refused("cancel_result", "too many cancels; wait", order_id=order_id)
