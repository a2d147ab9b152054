"""Thalex's methods: what is understood, what is refused by its name there, and how orders are told."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from core.messages.attributes import Attribute, Kind
from core.messages.commands import AmendOrder, CancelOrder
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.order import Order, Outcome, Status
from core.protocol.effects import (
    Amend,
    Authenticate,
    Cancel,
    ListOrders,
    Place,
    Reply,
    RpcAnswer,
    SetCancelOnDisconnect,
)
from core.protocol.thalex import LoginAnswer, OrderAnswer, OrdersAnswer, order_status
from tests.core.protocol.test_session_private import STRANGER
from tests.core.sessions import (
    NO_AMENDS,
    ORDER_RULES,
    SESSION_ID,
    USER,
    PerformedSession,
    ask,
    error_of,
    only_reply,
    session_of,
    stamped,
)

LIMIT = {"instrument_name": "KCN/EUR", "amount": 2, "price": 1.5}
ORDER = Order(
    "o-1", "alice", f"{SESSION_ID}:100", "KCN/EUR", Side.BID, OrderType.LIMIT, TimeInForce.GTC, "1.50", "2.0", None,
    1_700_000_000_500, 1_700_000_001_000, Outcome.ACCEPTED,
)  # fmt: skip


@pytest.fixture
def session() -> PerformedSession:
    return session_of(USER)


def placed(session: PerformedSession, method: str, **params: object) -> Place:
    [effect] = ask(session, method, {**LIMIT, **params})
    assert isinstance(effect, Place)
    return effect


def refused_fields(session: PerformedSession, method: str, params: dict[str, object]) -> list[str]:
    error = only_reply(ask(session, method, params))["error"]
    assert error["code"] == -32602
    return [one["field"] for one in error["data"]["errors"]]


def told(text: str) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return status


# Orders.


@pytest.mark.parametrize(
    ("method", "params", "side"),
    [
        ("private/insert", {"direction": "buy"}, Side.BID),
        ("private/insert", {"direction": "sell"}, Side.ASK),
        ("private/buy", {}, Side.BID),
        ("private/sell", {}, Side.ASK),
    ],
)
def test_order_is_a_limit_order_of_this_exchange(
    session: PerformedSession, method: str, params: dict[str, object], side: Side
) -> None:
    order = placed(session, method, **params).order
    assert (order.symbol, order.side, order.order_type) == ("KCN/EUR", side, OrderType.LIMIT)
    assert (order.price, order.quantity, order.time_in_force) == (Decimal("1.5"), Decimal(2), TimeInForce.GTC)
    assert order.client_order_id is None


@pytest.mark.parametrize(
    ("params", "time_in_force"),
    [
        ({}, TimeInForce.GTC),
        ({"time_in_force": "good_till_cancelled"}, TimeInForce.GTC),
        ({"time_in_force": "immediate_or_cancel"}, TimeInForce.IOC),
        ({"order_type": "market", "price": None}, TimeInForce.IOC),
    ],
)
def test_order_is_in_force_as_long_as_there(
    session: PerformedSession, params: dict[str, object], time_in_force: TimeInForce
) -> None:
    assert placed(session, "private/buy", **params).order.time_in_force is time_in_force


@pytest.mark.parametrize("number", [0, 100, 2**64 - 1])
def test_number_of_an_order_is_a_name_of_this_session_alone(session: PerformedSession, number: int) -> None:
    assert placed(session, "private/buy", client_order_id=number).order.client_order_id == f"{SESSION_ID}:{number}"
    [effect] = ask(session, "private/cancel", {"client_order_id": number})
    assert isinstance(effect, Cancel)
    assert effect.cancel.client_order_id == f"{SESSION_ID}:{number}"


@pytest.mark.parametrize("number", [-1, 2**64, 1.5, "100", True])
@pytest.mark.parametrize("method", ["private/buy", "private/cancel"])
def test_number_that_is_none_is_refused(session: PerformedSession, method: str, number: object) -> None:
    params = {"client_order_id": number, **(LIMIT if method == "private/buy" else {})}
    assert refused_fields(session, method, params) == ["client_order_id"]


@pytest.mark.parametrize(
    "harmless",
    [
        {"post_only": False, "reject_post_only": False, "reduce_only": False},
        {"collar": "ignore"},
        {"collar": "clamp"},
        {"stp_level": "disabled"},
        {"label": "mine"},
    ],
)
def test_what_changes_nothing_is_taken(session: PerformedSession, harmless: dict[str, object]) -> None:
    assert placed(session, "private/buy", **harmless).order == placed(session, "private/buy").order


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({"post_only": True}, ["post_only"]),
        ({"post_only": 0}, ["post_only"]),
        ({"reject_post_only": True, "reduce_only": True}, ["reject_post_only", "reduce_only"]),
        ({"stp_level": "account", "stp_action": "cancel_aggressive_no_fill"}, ["stp_level", "stp_action"]),
        ({"legs": []}, ["legs"]),
        ({"collar": "x"}, ["collar"]),
        ({"label": 5}, ["label"]),
        ({"label": "x" * 129}, ["label"]),
        ({"direction": "sell"}, ["direction"]),
        ({"surplus": 1, "quantity": 1}, ["surplus", "quantity"]),
        ({"amount": None, "price": None, "instrument_name": "x"}, ["instrument_name", "price", "amount"]),
        ({"amount": 0.05, "price": 1.501}, ["price", "amount", "amount"]),
        ({"time_in_force": "GTC"}, ["time_in_force"]),
        ({"order_type": "stop"}, ["order_type"]),
        ({"order_type": "market", "price": None, "time_in_force": "good_till_cancelled"}, ["time_in_force"]),
    ],
)
def test_order_that_breaks_a_rule_is_refused_by_the_names_of_its_members(
    session: PerformedSession, params: dict[str, object], fields: list[str]
) -> None:
    assert refused_fields(session, "private/buy", {**LIMIT, **params}) == fields


ATTRIBUTES = (
    Attribute("post_only", Kind.BOOLEAN),
    Attribute("group", Kind.INTEGER),
    Attribute("label", Kind.STRING),
)


@pytest.fixture
def declaring() -> PerformedSession:
    return session_of("alice", replace(ORDER_RULES, attributes=ATTRIBUTES))


def test_declared_attributes_can_be_given_but_for_names_of_their_own(declaring: PerformedSession) -> None:
    order = placed(declaring, "private/buy", group=5, label="mine").order
    assert order.attributes == '{"group":5}'
    assert refused_fields(declaring, "private/buy", {**LIMIT, "group": "x"}) == ["group"]


def test_order_that_is_post_only_is_one_that_is_refused_where_it_would_trade(declaring: PerformedSession) -> None:
    order = placed(declaring, "private/buy", post_only=True, reject_post_only=True).order
    assert order.attributes == '{"post_only":true}'
    assert placed(declaring, "private/buy", post_only=False).order.attributes == '{"post_only":false}'
    assert placed(declaring, "private/buy", reject_post_only=True).order.attributes == ""
    assert placed(declaring, "private/buy").order.attributes == ""


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({"post_only": True}, ["reject_post_only"]),
        ({"post_only": True, "reject_post_only": False}, ["reject_post_only"]),
        ({"post_only": 1, "reject_post_only": True}, ["post_only"]),
        ({"post_only": True, "reject_post_only": 1}, ["reject_post_only"]),
        ({"reduce_only": True}, ["reduce_only"]),
    ],
)
def test_order_that_would_be_moved_elsewhere_is_refused(
    declaring: PerformedSession, params: dict[str, object], fields: list[str]
) -> None:
    assert refused_fields(declaring, "private/buy", {**LIMIT, **params}) == fields


@pytest.mark.parametrize("direction", [None, "bid", 1])
def test_insert_needs_a_direction(session: PerformedSession, direction: object) -> None:
    assert refused_fields(session, "private/insert", {**LIMIT, "direction": direction}) == ["direction"]


def test_answer_does_not_grow_with_members_that_a_client_made_up(session: PerformedSession) -> None:
    made_up = {f"m{number}": 1 for number in range(500)}
    assert len(refused_fields(session, "private/buy", {**LIMIT, **made_up})) == 17


@pytest.mark.parametrize("params", [{}, {"order_id": "a", "client_order_id": 1}, {"order_id": []}, {"surplus": 1}])
def test_cancel_is_of_one_order(session: PerformedSession, params: dict[str, object]) -> None:
    assert refused_fields(session, "private/cancel", params)


def test_amend_is_of_price_and_total_in_their_words() -> None:
    session = session_of(USER)
    for params, named in (({"order_id": "o-1"}, ("o-1", None)), ({"client_order_id": 7}, (None, f"{SESSION_ID}:7"))):
        [effect] = ask(session, "private/amend", {**params, "amount": 3, "price": 1.5, "collar": "clamp"})
        assert effect == Amend(
            OrderAnswer(stamped(1), session, "amend"),
            AmendOrder(CancelOrder(*named), Decimal("1.5"), Decimal(3)),
            awaits_engine=True,
        )


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({"order_id": "o-1", "amount": 0, "price": -1}, ["price", "amount"]),
        ({"order_id": "o-1", "quantity": 1, "collar": "none"}, ["quantity", "collar"]),
        ({"client_order_id": "mine", "amount": 1}, ["client_order_id"]),
        ({"amount": 1}, ["order_id"]),
    ],
)
def test_amend_that_breaks_a_rule_is_refused_by_the_names_of_its_members(
    params: dict[str, object], fields: list[str]
) -> None:
    assert refused_fields(session_of(USER), "private/amend", params) == fields


def test_answer_to_an_amend_is_the_orders_status_or_why_the_engine_refused_it() -> None:
    session = session_of(USER)
    object.__setattr__(session.rules, "find_order", lambda _order_id: ORDER)
    answer = OrderAnswer(1, session, "amend")
    assert only_reply([answer.success({"order_id": "o-1"})])["result"]["change_reason"] == "amend"
    refused = only_reply([answer.success({"order_id": "o-1", "amend_rejected": "too late"})])["error"]
    assert (refused["code"], refused["message"]) == (10001, "too late")


def test_amend_is_refused_and_says_what_to_do_where_orders_cannot_be_amended() -> None:
    code, message = error_of(
        ask(session_of(USER, NO_AMENDS), "private/amend", {"order_id": "o-1", "amount": 1, "price": 2})
    )
    assert (code, message) == (10001, "orders cannot be amended here: cancel it and place another one")


def test_open_orders_are_the_users_and_of_one_instrument_where_it_is_given(session: PerformedSession) -> None:
    for params, symbol in (({}, None), ({"instrument_name": "KCN/EUR"}, "KCN/EUR")):
        assert ask(session, "private/open_orders", params) == [ListOrders(OrdersAnswer(stamped(1), session), symbol)]
    assert refused_fields(session, "private/open_orders", {"instrument_name": 5}) == ["instrument_name"]


# Who.


def test_login_is_answered_with_the_user_for_an_account() -> None:
    effect = Authenticate(LoginAnswer(1), "a.b.c")
    assert ask(session_of(STRANGER), "public/login", {"token": "a.b.c"}) == [effect]
    reply = effect.answer.success({"access_token": "a.b.c", "token_type": "bearer", "user_id": 'ali"ce'})
    assert reply is not None
    assert json.loads(reply.text) == {"id": 1, "result": {"account_number": 'ali"ce'}}


def test_login_names_the_account_that_the_token_has_to_be_of() -> None:
    [effect] = ask(session_of(STRANGER), "public/login", {"token": "a.b.c", "account": "alice"})
    assert effect == Authenticate(LoginAnswer(1), "a.b.c", "alice")
    for params in ({}, {"token": 1}, {"token": "a.b.c", "account": 5}):
        assert error_of(ask(session_of(STRANGER), "public/login", params))[0] == -32602


# Cancel on disconnect.


@pytest.mark.parametrize(("seconds", "enabled", "silence"), [(10, True, 10.0), (0.5, True, 0.5), (0, False, None)])
def test_cancel_on_disconnect_takes_the_seconds_of_a_heartbeat(
    session: PerformedSession, seconds: float, enabled: bool, silence: float | None
) -> None:
    effects = ask(session, "private/set_cancel_on_disconnect", {"timeout_secs": seconds})
    result = {"enabled": enabled, "message_rate": 0}
    assert effects == [SetCancelOnDisconnect(RpcAnswer(1), enabled, result, silence)]


@pytest.mark.parametrize("seconds", [-1, "10", True, [], 86_401, 1e300])
def test_heartbeat_is_a_number_of_seconds(session: PerformedSession, seconds: object) -> None:
    code, message = error_of(ask(session, "private/set_cancel_on_disconnect", {"timeout_secs": seconds}))
    assert (code, message.startswith("timeout_secs: ")) == (-32602, True)


def test_cancel_on_disconnect_is_set_in_one_way(session: PerformedSession) -> None:
    both = {"enabled": True, "timeout_secs": 10}
    assert error_of(ask(session, "private/set_cancel_on_disconnect", both))[0] == -32602


# Market data.


@pytest.mark.parametrize(("method", "rule"), [("public/ticker", "ticker"), ("public/book", "top_of_book")])
def test_quotes_are_told_with_every_digit_and_those_of_unknown_instruments_are_refused(
    session: PerformedSession, method: str, rule: str
) -> None:
    quotes = {"KCN/EUR": '{"x":1.00000000000000000001}'}
    session.rules = replace(session.rules, **{rule: quotes.get})
    [reply] = ask(session, method, {"instrument_name": "KCN/EUR"})
    assert reply == Reply(b'{"id":1,"result":{"x":1.00000000000000000001}}')
    for params in ({"instrument_name": "A/B"}, {"instrument_name": 5}, {}):
        assert refused_fields(session, method, params) == ["instrument_name"]


# What becomes of an order.


def test_order_status_has_every_digit_and_the_clients_number() -> None:
    assert told(order_status(ORDER, "insert", label='a "label"')) == {
        "order_id": "o-1",
        "order_type": "limit",
        "time_in_force": "good_till_cancelled",
        "instrument_name": "KCN/EUR",
        "direction": "buy",
        "price": Decimal("1.50"),
        "amount": Decimal("2.0"),
        "filled_amount": 0,
        "remaining_amount": Decimal("2.0"),
        "label": 'a "label"',
        "client_order_id": 100,
        "status": "open",
        "fills": [],
        "change_reason": "insert",
        "insert_reason": "client_request",
        "create_time": Decimal("1700000000.5"),
        "persistent": True,
    }


def changed(**members: object) -> Order:
    order = Order(**{name: getattr(ORDER, name) for name in ORDER.__struct_fields__})
    for name, value in members.items():
        setattr(order, name, value)
    return order


IOC = {"time_in_force": TimeInForce.IOC}


@pytest.mark.parametrize(
    ("members", "status", "remaining", "delete_reason"),
    [
        ({"status": Status.PENDING}, "open", "2.0", None),
        ({"status": Status.PARTIALLY_FILLED, "filled": "0.50"}, "partially_filled", "1.50", None),
        ({"status": Status.FILLED, "filled": "2.0"}, "filled", "0", "filled"),
        ({"status": Status.CANCELLED}, "cancelled", "0", "client_cancel"),
        ({"status": Status.CANCELLED, "filled": "1"}, "cancelled_partially_filled", "0", "client_cancel"),
        ({"status": Status.CANCELLED, **IOC}, "cancelled", "0", "immediate_cancel"),
        ({"status": Status.REJECTED}, "cancelled", "0", None),
    ],
)
def test_order_status_is_one_that_is_known_there(
    members: dict[str, object], status: str, remaining: str, delete_reason: str | None
) -> None:
    order = changed(**members)
    shown = told(order_status(order, "existing"))
    assert (shown["status"], str(shown["remaining_amount"])) == (status, remaining)
    assert shown.get("delete_reason") == delete_reason
    assert ("close_time" in shown) is order.is_closed


def test_order_of_another_dialect_has_no_number() -> None:
    for name in (None, "mine-1", "100", f"{SESSION_ID}:x"):
        assert "client_order_id" not in told(order_status(changed(client_order_id=name), "existing"))


def test_market_order_has_no_price() -> None:
    shown = told(order_status(changed(order_type=OrderType.MARKET, price=None, time_in_force=None), "existing"))
    assert "price" not in shown
    assert shown["time_in_force"] == "immediate_or_cancel"


def test_order_that_goes_with_its_connection_is_not_persistent(session: PerformedSession) -> None:
    session.rules = replace(session.rules, find_order={"o-1": ORDER}.get)
    for cancels in (False, True):
        session.cancels_on_disconnect = cancels
        reply = OrderAnswer(1, session, "insert").success({"order_id": "o-1"})
        assert json.loads(reply.text)["result"]["persistent"] is not cancels


def test_answer_to_the_cancel_of_an_order_that_was_forgotten_meanwhile_is_that_there_is_none(
    session: PerformedSession,
) -> None:
    reply = OrderAnswer(1, session, "cancel").success({"order_id": "o-1"})
    assert json.loads(reply.text)["error"]["code"] == 10002


def test_order_that_the_engine_rejected_at_once_is_refused_in_its_words(session: PerformedSession) -> None:
    for reason, message in (("no liquidity", "no liquidity"), (None, "the order was rejected")):
        order = changed(status=Status.REJECTED, reason=reason)
        session.rules = replace(session.rules, find_order={"o-1": order}.get)
        reply = OrderAnswer(1, session, "insert").success({"order_id": "o-1"})
        assert json.loads(reply.text) == {"id": 1, "error": {"code": 10001, "message": message}}


def test_orders_and_cancels_wait_for_the_engine(session: PerformedSession) -> None:
    assert placed(session, "private/buy").awaits_engine
    [effect] = ask(session, "private/cancel", {"order_id": "o-1"})
    assert isinstance(effect, Cancel)
    assert effect.awaits_engine
