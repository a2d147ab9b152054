from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from core.errors import NoSuchOrder, RpcCode, RpcError, TooManyRequests
from core.messages.attributes import Attribute, Kind
from core.messages.batch_rules import Batch as BatchRequest
from core.messages.commands import AmendOrder, CancelOrder
from core.messages.order_rules import OrderRules, check_place
from core.orders.ahead import AccountPosition
from core.protocol.effects import (
    Amend,
    Authenticate,
    Batch,
    Cancel,
    CancelAll,
    Place,
    Reply,
    RpcAnswer,
    SetCancelOnDisconnect,
    SubscribeAccount,
    Unsubscribe,
)
from core.protocol.session import METHODS, ORDER_METHODS
from tests.core.sessions import (
    ANYBODY,
    EXPIRED,
    EXPIRED_ANYBODY,
    LIMIT,
    NO_AMENDS,
    NOW_US,
    ORDER_ID,
    ORDER_RULES,
    PRIVATE,
    STRANGER,
    USER,
    PerformedSession,
    ask,
    error_of,
    new_session,
    older_reply,
    only_reply,
    session_of,
    stamped,
)


@pytest.fixture
def session() -> PerformedSession:
    return new_session()


# Who.


def test_auth_hands_on_the_token_and_is_answered_later(session: PerformedSession) -> None:
    effects = ask(session, "public/auth", {"token": "a.b.c", "grant_type": "whatever"}, request_id="mine")
    assert effects == [Authenticate(RpcAnswer("mine"), "a.b.c")]
    assert session.user_id is None, "who it is only the handler can tell"


def test_auth_may_come_again_at_any_time() -> None:
    for who in (USER, EXPIRED, EXPIRED_ANYBODY):
        assert ask(session_of(who), "public/auth", {"token": ""}) == [Authenticate(RpcAnswer(1), "")]


@pytest.mark.parametrize("params", [None, {}, {"token": None}, {"token": 5}, {"token": ["a"]}], ids=json.dumps)
def test_auth_without_a_token_is_refused(session: PerformedSession, params: object) -> None:
    assert error_of(ask(session, "public/auth", params)) == (-32602, "token: expected a string")


@pytest.mark.parametrize(("method", "params"), PRIVATE, ids=[method for method, _ in PRIVATE])
@pytest.mark.parametrize(("who", "message"), [(STRANGER, "send public/auth first"), (EXPIRED, "has expired")])
def test_private_methods_need_a_token_that_is_good_still(
    method: str, params: dict[str, Any], who: str, message: str
) -> None:
    code, told = error_of(ask(session_of(who), method, params))
    assert code == 10000
    assert message in told


@pytest.mark.parametrize(("method", "params"), PRIVATE, ids=[method for method, _ in PRIVATE])
def test_private_methods_are_done_for_a_user(method: str, params: dict[str, Any]) -> None:
    effects = ask(session_of(USER), method, params)
    assert not any(isinstance(effect, Reply) and effect.is_refusal for effect in effects)


@pytest.mark.parametrize(("method", "params"), PRIVATE, ids=[method for method, _ in PRIVATE])
def test_anybody_may_order_and_cancel_where_that_is_allowed_but_has_no_account(
    method: str, params: dict[str, Any]
) -> None:
    effects = ask(session_of(ANYBODY), method, params)
    if method in ("private/subscribe", "private/cancel_all"):
        assert error_of(effects)[0] == 10000
    else:
        assert not any(isinstance(effect, Reply) and effect.is_refusal for effect in effects)
    assert error_of(ask(session_of(EXPIRED_ANYBODY), method, params))[0] == 10000, "who was somebody stays so"


@pytest.mark.parametrize("who", [STRANGER, EXPIRED])
def test_public_methods_stay_without_a_good_token(who: str) -> None:
    session = session_of(who)
    assert len(ask(session, "public/subscribe", {"channels": ["events"]})) == 2
    assert only_reply(ask(session, "public/ping"))["result"] == "pong"
    assert only_reply(ask(session, "private/unsubscribe", {"channels": ["events"]}))["result"] == ["events"]


# account.orders.


def test_account_orders_are_subscribed_after_the_answer_and_dropped_by_any_unsubscribe() -> None:
    session = session_of(USER)
    for method in ("unsubscribe", "public/unsubscribe", "private/unsubscribe"):
        effects = ask(session, "private/subscribe", {"channels": ["account.orders", "account.orders"]})
        assert effects == [SubscribeAccount(RpcAnswer(1), ["account.orders"])]
        assert session.subscribed == {"account.orders"}
        assert ask(session, method, {"channels": ["account.orders"]})[0] == Unsubscribe(("account.orders",))
        assert session.subscribed == set()


@pytest.mark.parametrize("who", [ANYBODY, USER])
@pytest.mark.parametrize("name", ["account.orders", "account.", "account.balances"])
def test_account_channels_are_not_public(who: str, name: str) -> None:
    session = session_of(who)
    code, message = error_of(ask(session, "public/subscribe", {"channels": ["events", name]}))
    assert (code, "private/subscribe" in message) == (-32602, True)
    assert error_of(session.receive(json.dumps({"action": "subscribe", "channel": name})))[0] == -32602
    assert session.subscribed == set()


@pytest.mark.parametrize("name", ["account.balances", "account.", "events", "", "account.orders "])
def test_private_subscribe_knows_account_orders_alone(name: str) -> None:
    session = session_of(USER)
    code, message = error_of(ask(session, "private/subscribe", {"channels": ["account.orders", name]}))
    assert (code, "the account channels are account.orders and account.trades" in message) == (-32602, True)
    assert session.subscribed == set()


def test_account_balances_are_a_channel_where_there_is_an_account_topic() -> None:
    session = session_of(USER)
    session.rules = replace(session.rules, has_balances=True)
    names = ["account.orders", "account.balances"]
    assert ask(session, "private/subscribe", {"channels": names}) == [SubscribeAccount(RpcAnswer(1), names)]
    _, message = error_of(ask(session, "private/subscribe", {"channels": ["account."]}))
    assert "the account channels are account.orders and account.trades and account.balances" in message


def test_private_subscribe_reads_where_orders_are_to_be_resumed() -> None:
    session = session_of(USER)
    params = {"channels": ["account.orders"], "since": {"account.orders": {"0": 5}}}
    expected = {"account.orders": AccountPosition({0: 5})}
    assert ask(session, "private/subscribe", params) == [SubscribeAccount(RpcAnswer(1), ["account.orders"], expected)]
    assert error_of(ask(session, "private/subscribe", {**params, "since": {"account.orders": 5}}))[0] == -32602
    assert error_of(ask(session, "private/subscribe", {**params, "since": 5}))[0] == -32602


def test_private_subscribe_reads_where_trades_are_to_be_resumed() -> None:
    session = session_of(USER)
    since = {"account.trades": {"epoch": "e", "seq": {"0": 5, "2": -1}}, "events": {"0": 1}}
    [effect] = ask(session, "private/subscribe", {"channels": ["account.trades"], "since": since})
    expected = {"account.trades": AccountPosition({0: 5, 2: -1}, "e")}
    assert effect == SubscribeAccount(RpcAnswer(1), ["account.trades"], expected)
    assert session.subscribed == {"account.trades"}
    assert (
        error_of(ask(session, "private/subscribe", {"channels": ["account.trades"], "since": {"account.trades": 5}}))[0]
        == -32602
    )


def test_account_orders_count_as_a_subscription() -> None:
    session = session_of(USER)
    ask(session, "public/subscribe", {"channels": ["events", "events.A/A", "events.B/B"]})
    assert error_of(ask(session, "private/subscribe", {"channels": ["account.orders"]}))[0] == 10003
    ask(session, "unsubscribe", {"channels": ["events"]})
    [effect] = ask(session, "private/subscribe", {"channels": ["account.orders"]})
    assert isinstance(effect, SubscribeAccount)
    assert error_of(ask(session, "public/subscribe", {"channels": ["events"]}))[0] == 10003


# Orders.


def test_place_order_is_checked_as_over_rest_and_handed_on() -> None:
    [effect] = ask(session_of(USER), "private/place_order", LIMIT, request_id="mine")
    assert effect == Place(RpcAnswer(stamped("mine")), check_place(LIMIT, ORDER_RULES))


@pytest.mark.parametrize("message", [
    {"id": 1, "method": "private/place_order", "params": {**LIMIT, "group": 5}},
    {"type": "place_order", "id": 5, **LIMIT, "group": 5},
])  # fmt: skip
def test_declared_attributes_are_taken_in_every_form_of_an_order(message: dict[str, Any]) -> None:
    rules = replace(ORDER_RULES, attributes=(Attribute("group", Kind.INTEGER),))
    [effect] = session_of(USER, rules).receive(json.dumps(message))
    assert isinstance(effect, Place) and effect.order.attributes == '{"group":5}'
    [refused] = session_of(USER).receive(json.dumps(message))
    assert isinstance(refused, Reply) and b"unknown field" in refused.text


@pytest.mark.parametrize("method", ["private/place_order", "private/cancel_order", "private/cancel_all"])
def test_body_that_breaks_rules_is_told_field_by_field(method: str) -> None:
    body = {"symbol": "OTH/EUR", "unknown": 1, "order_id": "", "side": 5}
    effects = ask(session_of(USER), method, body)
    assert error_of(effects)[0] == -32602
    errors = only_reply(effects)["error"]["data"]["errors"]
    assert {"field": "symbol", "message": "is not traded here"} in errors
    assert {"field": "unknown", "message": "unknown field"} in errors
    assert len(errors) >= 3


@pytest.mark.parametrize(
    ("params", "cancel"),
    [
        ({"order_id": ORDER_ID}, CancelOrder(ORDER_ID, None, None)),
        ({"order_id": 17, "symbol": "KCN/EUR"}, CancelOrder("17", None, "KCN/EUR")),
        ({"client_order_id": "my-1"}, CancelOrder(None, "my-1", None)),
    ],
)
def test_cancel_order_is_handed_on(params: dict[str, object], cancel: CancelOrder) -> None:
    assert ask(session_of(USER), "private/cancel_order", params) == [Cancel(RpcAnswer(stamped(1)), cancel)]


@pytest.mark.parametrize("symbol", [None, "KCN/EUR"])
def test_cancel_all_is_handed_on(symbol: str | None) -> None:
    for params in ([{}, None] if symbol is None else []) + [{"symbol": symbol}]:
        assert ask(session_of(USER), "private/cancel_all", params) == [CancelAll(RpcAnswer(stamped(1)), symbol)]


@pytest.mark.parametrize("enabled", [True, False])
def test_cancel_on_disconnect_is_set_and_answered(enabled: bool) -> None:
    effects = ask(session_of(USER), "private/set_cancel_on_disconnect", {"enabled": enabled})
    assert effects == [SetCancelOnDisconnect(RpcAnswer(1), enabled, {"enabled": enabled})]


@pytest.mark.parametrize("params", [None, {}, {"enabled": None}, {"enabled": 1}, {"enabled": "true"}], ids=json.dumps)
def test_cancel_on_disconnect_is_either_on_or_off(params: object) -> None:
    code, message = error_of(ask(session_of(USER), "private/set_cancel_on_disconnect", params))
    assert (code, message) == (-32602, "enabled: expected true or false")


def test_answers_of_the_present_dialect_have_the_id_of_their_request() -> None:
    told = RpcAnswer(Decimal("1.50"))
    assert told.success({"order_id": "o"}).text == b'{"id":1.50,"result":{"order_id":"o"}}'
    refused = told.failure(RpcError(RpcCode.OUTCOME_UNKNOWN, "who knows", {"order_id": "o"}))
    assert refused == Reply(
        b'{"id":1.50,"error":{"code":10005,"message":"who knows","data":{"order_id":"o"}}}', is_refusal=True
    )


# The second older dialect's own messages.


def test_older_auth_is_answered_in_its_own_form() -> None:
    [effect] = new_session().receive('{"type":"auth","token":"a.b.c","id":1}')
    assert isinstance(effect, Authenticate)
    assert effect.token == "a.b.c"
    assert older_reply([effect.answer.success({"access_token": "a.b.c", "user_id": "alice"})]) == {
        "type": "auth_result", "success": True, "user_id": "alice", "error": None,
    }  # fmt: skip
    assert older_reply([effect.answer.failure(RpcError(RpcCode.NOT_AUTHORISED, "no good"))]) == {
        "type": "auth_result", "success": False, "user_id": None, "error": "no good",
    }  # fmt: skip


@pytest.mark.parametrize("token", [None, 5, {}, []], ids=json.dumps)
def test_older_auth_without_a_token_is_refused_in_its_own_form(token: object) -> None:
    assert older_reply(new_session().receive(json.dumps({"type": "auth", "token": token}))) == {
        "type": "auth_result", "success": False, "user_id": None, "error": "token: expected a string",
    }  # fmt: skip


@pytest.mark.parametrize("who", [USER, ANYBODY])
def test_older_place_order_is_the_same_order_and_answered_in_its_own_form(who: str) -> None:
    [effect] = session_of(who).receive(json.dumps({"type": "place_order", "id": 5, **LIMIT}))
    assert isinstance(effect, Place)
    assert effect.order == check_place(LIMIT, ORDER_RULES)
    assert older_reply([effect.answer.success({"order_id": "o/1", "client_order_id": "my-1"})]) == {
        "type": "order_result", "success": True, "order_id": "o/1", "error": None,
    }  # fmt: skip
    unknown = RpcError(RpcCode.OUTCOME_UNKNOWN, "who knows", {"order_id": "o/1"})
    assert older_reply([effect.answer.failure(unknown)]) == {
        "type": "order_result", "success": False, "order_id": "o/1", "error": "who knows",
    }  # fmt: skip


@pytest.mark.parametrize("who", [USER, ANYBODY])
def test_older_cancel_order_is_the_same_cancel_and_answered_in_its_own_form(who: str) -> None:
    [effect] = session_of(who).receive(json.dumps({"type": "cancel_order", "order_id": ORDER_ID}))
    assert isinstance(effect, Cancel)
    assert effect.cancel == CancelOrder(ORDER_ID, None, None)
    assert older_reply([effect.answer.success({"order_id": ORDER_ID})]) == {
        "type": "cancel_result", "success": True, "order_id": ORDER_ID, "error": None,
    }  # fmt: skip
    assert older_reply([effect.answer.failure(RpcError(RpcCode.CANCEL_FAILED, "there is no such order"))]) == {
        "type": "cancel_result", "success": False, "order_id": ORDER_ID, "error": "there is no such order",
    }  # fmt: skip
    [by_name] = session_of(who).receive('{"type":"cancel_order","client_order_id":"my-1"}')
    assert isinstance(by_name, Cancel)
    assert by_name.cancel == CancelOrder(None, "my-1", None)


@pytest.mark.parametrize(
    ("message", "kind", "order_id"),
    [
        ({"type": "place_order"}, "order_result", None),
        ({"type": "place_order", **LIMIT, "price": -1}, "order_result", None),
        ({"type": "place_order", **LIMIT, "order_id": ORDER_ID}, "order_result", None),
        ({"type": "cancel_order"}, "cancel_result", None),
        ({"type": "cancel_order", "order_id": ""}, "cancel_result", None),
        ({"type": "cancel_order", "order_id": {}}, "cancel_result", None),
        ({"type": "cancel_order", "order_id": ORDER_ID, "symbol": 5}, "cancel_result", ORDER_ID),
        ({"type": "cancel_order", "order_id": ORDER_ID.upper(), "symbol": 5}, "cancel_result", ORDER_ID),
        ({"type": "cancel_order", "order_id": -5, "symbol": 5}, "cancel_result", "-5"),
    ],
)
def test_older_order_that_breaks_a_rule_is_refused_in_its_own_form(
    message: dict[str, object], kind: str, order_id: object
) -> None:
    told = older_reply(session_of(USER).receive(json.dumps(message)))
    assert (told["type"], told["success"], told["order_id"]) == (kind, False, order_id)
    assert told["error"]


@pytest.mark.parametrize("who", [STRANGER, EXPIRED, EXPIRED_ANYBODY])
def test_older_orders_need_a_token_as_the_present_ones(who: str) -> None:
    for message in ({"type": "place_order", **LIMIT}, {"type": "cancel_order", "order_id": ORDER_ID}):
        told = older_reply(session_of(who).receive(json.dumps(message)))
        assert not told["success"]
        assert "public/auth" in told["error"]


# What is not to be served.


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize(
    ("text", "request_id"),
    [
        ('{"id":7,"method":"public/ping"}', 7),
        ('{"id":"mine"}', "mine"),
        ('{"type":"orders","id":1.5}', Decimal("1.5")),
        ('{"id":[1]}', None),
        ('{"method":"public/ping"}', None),
        ("[]", None),
        ("{", None),
        ("\ud800", None),
    ],
)
def test_message_that_is_not_served_is_refused_with_its_id(
    session: PerformedSession, text: str, request_id: object, as_bytes: bool
) -> None:
    message = text.encode("utf-8", "surrogatepass") if as_bytes else text
    told = only_reply([session.refuse(message, RpcError(RpcCode.TOO_MANY_REQUESTS, "wait", {"retry_after": 2}))])
    assert told == {"id": request_id, "error": {"code": 10003, "message": "wait", "data": {"retry_after": 2}}}


# When a request came, and when its answer was written.

REFUSED_ORDER = {"id": "mine", "method": "private/buy", "params": {"amount": "none"}}


def test_every_method_about_orders_is_answered_with_the_times() -> None:
    others = {"private/subscribe", "private/unsubscribe", "private/set_cancel_on_disconnect"}
    assert {name for name in METHODS if name.startswith("private/")} - others == ORDER_METHODS


@pytest.mark.parametrize("method", sorted(ORDER_METHODS))
def test_refusal_of_a_request_for_orders_tells_when_it_came_and_when_it_was_answered(method: str) -> None:
    [reply] = ask(session_of(STRANGER), method, {"order_id": ORDER_ID})
    assert isinstance(reply, Reply)
    told = json.loads(reply.text)
    assert list(told) == ["id", "error", "usIn", "usOut"]
    assert (told["usIn"], told["usOut"]) == (NOW_US, NOW_US)


def test_times_are_those_of_reading_and_of_answering() -> None:
    now = [100]
    session = session_of(USER)
    session.rules = replace(session.rules, now_us=lambda: now[0])
    [effect] = ask(session, "private/cancel_order", {"order_id": ORDER_ID})
    assert isinstance(effect, Cancel)
    now[0] = 250
    for reply in (effect.answer.success({}), effect.answer.failure(NoSuchOrder())):
        assert reply is not None
        told = json.loads(reply.text)
        assert (told["usIn"], told["usOut"]) == (100, 250)


def test_message_over_a_limit_is_answered_with_the_times_if_it_is_about_orders() -> None:
    session = session_of(USER)
    told = json.loads(session.refuse(json.dumps(REFUSED_ORDER), TooManyRequests("requests", 1)).text)
    assert (told["id"], told["error"]["code"], told["usIn"], told["usOut"]) == ("mine", 10003, NOW_US, NOW_US)
    told = json.loads(session.refuse(b'{"id":1,"method":"public/ping"}', TooManyRequests("requests", 1)).text)
    assert set(told) == {"id", "error"}


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1, "method": "public/ping"},
        {"id": 1, "method": "private/subscribe", "params": {"channels": ["none"]}},
        {"id": 1, "method": "private/set_cancel_on_disconnect", "params": {"enabled": True}},
        {"id": 1, "method": ["private/buy"]},
        {"id": True, "method": "private/buy"},
        {"type": "place_order"},
        {"type": "orders", "orders": 1},
    ],
    ids=lambda message: str(message.get("method", message.get("type"))),
)
def test_no_other_answer_has_the_times(message: dict[str, object]) -> None:
    for effect in session_of(USER).receive(json.dumps(message)):
        if isinstance(effect, Reply):
            assert "usIn" not in json.loads(effect.text)


def test_amend_order_is_handed_on() -> None:
    params = {"order_id": ORDER_ID, "price": "1.50", "quantity": 3}
    amend = AmendOrder(CancelOrder(ORDER_ID, None, None), Decimal("1.50"), Decimal(3))
    assert ask(session_of(USER), "private/amend_order", params) == [Amend(RpcAnswer(stamped(1)), amend)]


def test_amend_order_that_breaks_rules_is_told_field_by_field() -> None:
    effects = ask(session_of(USER), "private/amend_order", {"price": 0, "side": "bid"})
    errors = only_reply(effects)["error"]["data"]["errors"]
    assert [error["field"] for error in errors] == ["price", "order_id", "side"]


@pytest.mark.parametrize("orders", [NO_AMENDS, replace(ORDER_RULES, accounts=True)])
def test_amend_order_is_no_method_where_orders_cannot_be_amended(orders: OrderRules) -> None:
    code, message = error_of(ask(session_of(USER, orders), "private/amend_order", {"order_id": "x", "price": 1}))
    assert (code, message) == (-32601, orders.why_no_amends())


def test_batch_is_handed_on() -> None:
    params = {"requests": [{"method": "cancel", "params": {"order_id": ORDER_ID}}]}
    [effect] = ask(session_of(USER), "private/batch", params)
    assert effect == Batch(
        RpcAnswer(stamped(1)), BatchRequest([CancelOrder(ORDER_ID, None, None)], given=params["requests"])
    )
    assert error_of(ask(session_of(USER), "private/batch", {}))[0] == -32602
