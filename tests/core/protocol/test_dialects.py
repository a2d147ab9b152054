"""The second older dialect: what is turned away before it is served has its own form."""

from __future__ import annotations

import json

import pytest

from core.errors import RpcCode, RpcError
from core.protocol.effects import OlderAnswer
from core.protocol.session import Session
from tests.core.sessions import LIMIT, new_session

WAIT = RpcError(RpcCode.TOO_MANY_REQUESTS, "wait", {"retry_after": 2})
# Of each of the dialect's own messages, the answer that it waits for.
ANSWERS: list[tuple[dict[str, object], dict[str, object]]] = [
    ({"type": "auth", "token": "a.b.c"}, {"type": "auth_result", "user_id": None}),
    ({"type": "place_order", **LIMIT}, {"type": "order_result", "order_id": None}),
    ({"type": "place_order", "order_id": "o"}, {"type": "order_result", "order_id": None}),
    ({"type": "place_order", "id": [1]}, {"type": "order_result", "order_id": None}),
    ({"type": "cancel_order", "order_id": "o/1"}, {"type": "cancel_result", "order_id": "o/1"}),
    ({"type": "cancel_order", "order_id": 7}, {"type": "cancel_result", "order_id": "7"}),
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
    reply = session.refuse(text.encode() if as_bytes else text, WAIT)
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
    told = json.loads(session.refuse(message, WAIT).text)
    assert told["id"] == (7 if '"id":7' in message else None)
    assert told["error"] == {"code": 10003, "message": "wait", "data": {"retry_after": 2}}


def test_each_message_is_refused_in_the_form_that_the_session_answers_it_in(session: Session) -> None:
    """The session's own table is what counts."""
    for message, _ in ANSWERS:
        text = json.dumps(message)
        [effect] = session.receive(text)
        answer = getattr(effect, "answer", None)
        if answer is None:
            served = json.loads(effect.text)  # type: ignore[union-attr]
        else:
            assert isinstance(answer, OlderAnswer)
            served = json.loads(answer.failure(WAIT).text)
        assert {**served, "error": "wait"} == json.loads(session.refuse(text, WAIT).text)
