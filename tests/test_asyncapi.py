"""docs/asyncapi.json: a right AsyncAPI 3.0.0 document, and one that says what the code does. What a live gateway sends is
held to it in tests/integration/test_asyncapi.py.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

import gateway
from core.channels.names import FORMS, INTERVALS_MS, parse_channel
from core.errors import CODES, RpcCode, RpcError
from core.market.candles import CANDLE_INTERVALS_MS
from core.market.quotes import ticker_text, top_of_book_text
from core.market.symbol_market import SymbolMarket
from core.messages.commands import PlaceOrder
from core.messages.model import Instrument, OrderType, Side, TimeInForce
from core.messages.order_rules import OrderRules
from core.orders.order import Order, Outcome
from core.protocol.client_state import SessionRules
from core.protocol.dialects import ANSWERED, UNANSWERED
from core.protocol.effects import (
    Amend,
    Authenticate,
    Batch,
    Cancel,
    CancelAll,
    CancelAllAfter,
    ListOrders,
    Place,
    PlaceNobodys,
    Reply,
    SetCancelOnDisconnect,
    SubscribeAccount,
    answer,
    refusal,
)
from core.protocol.session import METHODS, Session
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import delta, fill, snapshot
from tests.support.asyncapi import (
    CHANNEL,
    DOCUMENT,
    MESSAGES,
    OPERATIONS,
    REPLIES,
    SENT,
    code_of,
    examples,
    faults,
    kinds,
    message_names,
    read_json,
    resolve,
    schema_validator,
)
from tests.support.references import references

DEADLINE_SECONDS = 60.0
SYMBOL = "KCN/EUR"
QUIET = "QUIET/EUR"
MAX_SUBSCRIPTIONS = 30

# The structure. No package of a registry has the AsyncAPI project's own schema, so its fixed fields are here as far as the
# document uses them: (field: what it is), required ones first.

Field = str | type | tuple[str, str]
GRAMMAR: dict[str, tuple[dict[str, Field], dict[str, Field]]] = {
    "document": (
        {"asyncapi": str, "info": "info"},
        {
            "id": str,
            "defaultContentType": str,
            "servers": ("map", "server"),
            "channels": ("map", "channel"),
            "operations": ("map", "operation"),
            "components": "components",
        },
    ),
    "info": (
        {"title": str, "version": str},
        {"description": str, "license": "license", "tags": ("list", "tag")},
    ),
    "license": ({"name": str}, {"url": str}),
    "tag": ({"name": str}, {"description": str}),
    "server": ({"host": str, "protocol": str}, {"description": str, "variables": ("map", "variable")}),
    "variable": ({}, {"description": str, "default": str}),
    "channel": (
        {},
        {
            "address": str,
            "title": str,
            "summary": str,
            "description": str,
            "messages": ("map", "reference"),
            "bindings": dict,
        },
    ),
    "operation": (
        {"action": str, "channel": "reference"},
        {
            "title": str,
            "summary": str,
            "description": str,
            "tags": ("list", "tag"),
            "messages": ("list", "reference"),
            "reply": "reply",
        },
    ),
    "reply": ({}, {"channel": "reference", "messages": ("list", "reference")}),
    "components": (
        {},
        {"schemas": ("map", "schema"), "messages": ("map", "message"), "correlationIds": ("map", "correlation")},
    ),
    "correlation": ({"location": str}, {"description": str}),
    "message": (
        {},
        {
            "name": str,
            "title": str,
            "summary": str,
            "description": str,
            "tags": ("list", "tag"),
            "correlationId": "reference",
            "payload": "schema",
            "examples": ("list", "example"),
        },
    ),
    "example": ({"payload": dict}, {"name": str, "summary": str}),
    "reference": ({"$ref": str}, {}),
}
ANNOTATIONS = {"description", "examples"}
KEYWORDS = {
    "$ref", "type", "const", "enum", "required", "properties", "additionalProperties", "propertyNames", "dependencies",
    "patternProperties",
    "items", "additionalItems", "minItems", "maxItems", "minLength", "pattern", "minimum", "exclusiveMinimum", "maximum",
    "anyOf", "allOf", "not", "if", "then", "else",
}  # fmt: skip


def broken_fields(value: Any, kind: Field, path: str = "#") -> Iterator[str]:
    """Where `value` is not what the grammar has there."""
    if isinstance(kind, type):
        if not isinstance(value, kind):
            yield f"{path}: not {kind.__name__}"
    elif isinstance(kind, tuple):
        container, inner = kind
        if not isinstance(value, dict if container == "map" else list):
            yield f"{path}: not a {container}"
            return
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            if container == "map" and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                yield f"{path}: {name!r} is not a name"
            yield from broken_fields(item, inner, f"{path}/{name}")
    elif kind == "schema":
        yield from broken_schema(value, path)
    else:
        required, optional = GRAMMAR[kind]
        if not isinstance(value, dict):
            yield f"{path}: not an object"
            return
        yield from (f"{path}: no {name}" for name in required.keys() - value.keys())
        for name, item in value.items():
            field = {**required, **optional}.get(name)
            if field is not None:
                yield from broken_fields(item, field, f"{path}/{name}")
            elif not re.fullmatch(r"x-[\w.-]+", name) or kind in ("reference", "example"):
                yield f"{path}: there is no {name} in a {kind}"


def broken_schema(schema: Any, path: str) -> Iterator[str]:
    """Where a schema has keywords that mean nothing: a mistyped one constrains nothing."""
    if isinstance(schema, bool):
        return
    yield from (f"{path}: {name}" for name in schema.keys() - KEYWORDS - ANNOTATIONS)
    if "$ref" in schema and schema.keys() != {"$ref"}:
        yield f"{path}: what stands beside a $ref is ignored"
    for name, item in schema.items():
        if name in ("properties", "patternProperties"):
            for inner, value in item.items():
                yield from broken_schema(value, f"{path}/{name}/{inner}")
        elif name in ("anyOf", "allOf") or (name == "items" and isinstance(item, list)):
            for number, value in enumerate(item):
                yield from broken_schema(value, f"{path}/{name}/{number}")
        elif name in ("not", "if", "then", "else", "items", "additionalItems", "additionalProperties", "propertyNames"):
            yield from broken_schema(item, f"{path}/{name}")


def test_document_has_the_structure_of_asyncapi_3_0_0() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert not list(broken_fields(DOCUMENT, "document"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("info", "titel"), "x"),
        (("operations", "ping", "reply", "message"), []),
        (("components", "messages", "ping", "payload", "properties", "id", "typ"), "string"),
        (("servers", "local", "host"), 1),
    ],
)
def test_structure_shows_what_does_not_belong(path: tuple[str, ...], value: object) -> None:
    broken = copy.deepcopy(DOCUMENT)
    inner = broken
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    assert len(list(broken_fields(broken, "document"))) >= 1


def test_every_reference_resolves() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 50
    for reference in found:
        resolve(reference)


def test_every_component_is_used() -> None:
    used = set(references(DOCUMENT))
    components = [f"#/components/{kind}/{name}" for kind, named in DOCUMENT["components"].items() for name in named]
    assert [component for component in components if component not in used] == []


@pytest.mark.parametrize("name", [*DOCUMENT["components"]["schemas"], *MESSAGES])
def test_schema_is_one_of_draft_07(name: str) -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for schema in [schemas[name]] if name in schemas else []:
        Draft7Validator.check_schema(json.loads(json.dumps(schema, default=float)))
    for message in [MESSAGES[name]] if name in MESSAGES else []:
        Draft7Validator.check_schema(json.loads(json.dumps(message["payload"], default=float)))


@pytest.mark.parametrize(("message", "example", "payload"), examples())
def test_example_is_what_its_schema_says(message: str, example: str, payload: object) -> None:
    assert faults(message, payload) == []


def test_every_message_has_examples_with_names_of_their_own() -> None:
    for name, message in MESSAGES.items():
        given = [example["name"] for example in message["examples"]]
        assert given
        assert len(set(given)) == len(given), name
        assert message["name"] == name


def test_every_message_is_of_the_channel_and_of_an_operation() -> None:
    assert CHANNEL["messages"].keys() == MESSAGES.keys()
    named: set[str] = set()
    for operation in OPERATIONS.values():
        assert operation["action"] in ("send", "receive")
        assert operation["channel"] == {"$ref": "#/channels/ws"}
        named.update(message_names(operation["messages"]))
        if "reply" in operation:
            assert operation["reply"]["channel"] == {"$ref": "#/channels/ws"}
            named.update(message_names(operation["reply"]["messages"]))
    assert named == MESSAGES.keys()


# As the engine wrote them: they may have more members.
ENGINES = {
    "fill", "orderbookSnapshot", "orderbookDelta", "orderAccepted", "orderFilled", "orderCancelled", "orderRejected",
    "orderAmended", "orderAmendRejected",
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "example", "payload"),
    examples([name for name in SENT if name not in ENGINES]),
)
def test_notification_is_nothing_else_and_has_no_other_members(message: str, example: str, payload: Any) -> None:
    if payload.get("notification", {}).get("trades") == []:
        assert message in kinds(payload)
    else:
        assert kinds(payload) == [message]
    assert kinds({**payload, "surplus": 1}) == []
    if payload.get("notification"):
        assert kinds({**payload, "notification": {**payload["notification"], "surplus": 1}}) == []
    for name in payload:
        if name not in ("epoch", "recovered", "prev_seq"):
            assert message not in kinds({key: value for key, value in payload.items() if key != name}), name


# The document and the code say the same.


def test_version_is_the_gateways() -> None:
    assert DOCUMENT["info"]["version"] == gateway.VERSION


INSTRUMENTS = tuple(
    Instrument(symbol, Decimal("0.01"), Decimal("0.001"), Decimal("0.001")) for symbol in (SYMBOL, QUIET)
)


ORDER = Order(
    "x", "alice", "0123456789ab:100", SYMBOL, Side.BID, OrderType.LIMIT, TimeInForce.GTC, "10.05", "0.500", None,
    1_760_000_000_250, 1_760_000_000_250, Outcome.ACCEPTED,
)  # fmt: skip


def driven_market(symbol: str) -> SymbolMarket:
    driven = DrivenHub()
    driven.say((0, 1, snapshot(symbol)), (0, 2, fill(symbol)))
    market = driven.market.find(symbol)
    assert market is not None
    return market


def new_session(may_order: bool = True, user_id: str | None = None) -> Session:
    listed = {"symbol": SYMBOL, "tick": "0.01", "lot": "0.001", "min_quantity": "0.001"}
    session = Session(
        SessionRules(
            max_subscriptions=MAX_SUBSCRIPTIONS,
            max_views=1000,
            instruments=lambda: {"instruments": [listed]},
            is_listed=lambda symbol: symbol in (SYMBOL, QUIET),
            has_tick=lambda symbol: True,
            open_views=lambda: (),
            orders=OrderRules(INSTRUMENTS, amends=True),
            allows_anonymous=may_order,
            find_order={"x": ORDER}.get,
            ticker=lambda symbol: ticker_text(driven_market(symbol)),
            top_of_book=lambda symbol: top_of_book_text(driven_market(symbol), 5),
        )
    )
    session.user_id = user_id
    return session


def constants(member: str) -> set[str]:
    payloads = (MESSAGES[name]["payload"]["properties"] for name in REPLIES)
    return {properties[member]["const"] for properties in payloads if member in properties}


def test_methods_are_the_sessions() -> None:
    assert constants("method") == METHODS.keys()
    assert constants("type") | constants("action") == ANSWERED.keys() | UNANSWERED.keys()


def test_codes_are_the_public_table() -> None:
    rows = [{"code": c.code, "name": c.name, "meaning": c.meaning, "retry": c.retry} for c in CODES]
    rpc = [row for row in rows if row["code"] in set(RpcCode)]
    assert CHANNEL["x-error-codes"] == rpc
    assert CHANNEL["x-close-codes"] == [row for row in rows if row not in rpc]
    documented = DOCUMENT["components"]["schemas"]["error"]["properties"]["code"]["enum"]
    assert documented == [row["code"] for row in rpc]
    assert [example["payload"]["error"]["code"] for example in MESSAGES["error"]["examples"]] == documented
    assert [example["name"] for example in MESSAGES["error"]["examples"]] == [row["name"] for row in rpc]


@pytest.mark.parametrize("code", RpcCode)
def test_error_has_the_data_of_its_code_and_no_other(code: RpcCode) -> None:
    data: dict[int, dict[str, object]] = {
        -32602: {"errors": [{"field": "x", "message": "y"}]},
        10002: {"status": "filled"},
        10003: {"retry_after": 1},
        10005: {"order_id": "x"},
    }
    for other, value in {**data, 0: None, 1: {}}.items():
        text = refusal(1, RpcError(code, "a sentence", value)).text
        may_have_none = (RpcCode.BAD_PARAMS, RpcCode.CANCEL_FAILED, RpcCode.OUTCOME_UNKNOWN)
        is_right = value == data.get(code) or (other == 0 and code in may_have_none)
        assert (faults("error", read_json(text)) == []) is is_right, text


SYMBOLS = st.from_regex(r"\A[A-Za-z0-9_/.-]{1,8}\Z")
NUMBERS = st.one_of(
    st.sampled_from(["none", "all", "raw", "0", "01", "1", "10", "1000", "1001", "999", "1000000000", "1000000001"]),
    st.integers(-1, 2_000_000_000).map(str),
)
NAMES = st.builds(
    lambda kind, parts: ".".join([kind, *parts]),
    st.sampled_from([*FORMS, "account", "books"]),
    st.lists(
        st.one_of(SYMBOLS, st.just("A/B"), NUMBERS, st.sampled_from([*INTERVALS_MS, *CANDLE_INTERVALS_MS, "1ms"])),
        max_size=5,
    ),
)
BOOKS = st.builds("book.A/B.{}.{}.{}".format, NUMBERS, NUMBERS, st.sampled_from([*INTERVALS_MS, "1ms"]))
OTHERS = st.builds(
    "{}.A/B.{}".format, st.sampled_from([*FORMS]), st.sampled_from([*INTERVALS_MS, *CANDLE_INTERVALS_MS, "1ms", ""])
)
SCHEMA_OF = {kind: f"{kind}Channel" for kind in FORMS if kind != "events"}


@given(st.one_of(NAMES, BOOKS, OTHERS))
def test_channel_names_are_those_the_gateway_parses(name: str) -> None:
    try:
        kind = parse_channel(name).kind
    except ValueError:
        assert not schema_validator("channelName").is_valid(name)
    else:
        wanted = SCHEMA_OF.get(kind, "allEventsChannel" if name == "events" else "eventsChannel")
        for schema in (*SCHEMA_OF.values(), "eventsChannel", "allEventsChannel"):
            assert schema_validator(schema).is_valid(name) is (schema == wanted)


# Examples of requests, sent.

REQUESTS = examples(list(REPLIES))


# What the handler makes of an effect that it has to answer.
OUTCOMES: dict[type, Any] = {
    SubscribeAccount: ["account.orders"],
    Authenticate: {"access_token": "x", "token_type": "bearer", "user_id": "alice"},
    Place: {"order_id": "x", "client_order_id": None},
    Cancel: {"order_id": "x"},
    Amend: {"order_id": "x"},
    Batch: {
        "results": [{"result": {"order_id": "x"}}, {"error": {"code": 10002, "message": "there is no such order"}}]
    },
    CancelAll: {"order_ids": ["x"]},
    CancelAllAfter: {"trigger_time_ms": 1760000060250},
}


def succeeded(effect: Any) -> Reply | None:
    if isinstance(effect, ListOrders):
        before, behind = effect.answer.around()
        return Reply(before + effect.answer.write([ORDER]) + behind)
    result = effect.result if isinstance(effect, SetCancelOnDisconnect) else OUTCOMES[type(effect)]
    reply: Reply | None = effect.answer.success(result)
    return reply


@pytest.mark.parametrize(("message", "example", "payload"), REQUESTS)
def test_session_answers_an_example_as_documented(message: str, example: str, payload: dict[str, Any]) -> None:
    effects = new_session(user_id="alice").receive(json.dumps(payload, default=float))
    replies = [effect for effect in effects if isinstance(effect, Reply)]
    for effect in effects:
        if isinstance(
            effect,
            Authenticate
            | SubscribeAccount
            | Place
            | Cancel
            | Amend
            | Batch
            | CancelAll
            | CancelAllAfter
            | ListOrders
            | SetCancelOnDisconnect,
        ):
            replies.append(succeeded(effect))
            failed = effect.answer.failure(RpcError(RpcCode.OUTCOME_UNKNOWN, "a sentence", {"order_id": "x"}))
            [kind] = [name for name in REPLIES[message] if not faults(name, read_json(failed.text))]
            assert kind == (REPLIES[message][0] if "type" in payload else "error")
    success, *refused = REPLIES[message]
    if not refused:
        assert replies == [], "the oldest dialect's successes have no answer"
        assert effects
    else:
        [reply] = replies
        told = read_json(reply.text)
        assert not reply.is_refusal
        assert faults("error" if reply.is_refusal else success, told) == []
        assert told.get("id") == payload.get("id")
    for effect in effects:
        if isinstance(effect, PlaceNobodys):
            assert [type(order) for order in effect.orders] == [PlaceOrder, PlaceOrder]
            assert effect.answer.success({}) is None


PRIVATE = [
    "subscribePrivate", "placeOrder", "cancelOrder", "amendOrder", "batch", "cancelAll", "cancelAllAfter", "setCancelOnDisconnect",
    "insert", "buy", "sell", "cancel", "amend", "openOrders",
]  # fmt: skip


@pytest.mark.parametrize(("message", "example", "payload"), examples(PRIVATE))
def test_session_refuses_what_needs_a_token_as_documented(message: str, example: str, payload: dict[str, Any]) -> None:
    expired = new_session(user_id="alice")
    expired.is_expired = True
    for session in (new_session(may_order=False), expired):
        [reply] = session.receive(json.dumps(payload, default=float))
        assert isinstance(reply, Reply)
        assert code_of(read_json(reply.text)) == RpcCode.NOT_AUTHORISED


REFUSED = [
    (RpcCode.NOT_JSON, b"{"),
    (RpcCode.NOT_A_REQUEST, b"[]"),
    (RpcCode.NOT_A_REQUEST, b'{"id":true,"method":"public/ping"}'),
    (RpcCode.NO_SUCH_METHOD, b'{"id":1.50,"method":"public/pong"}'),
    (RpcCode.NO_SUCH_METHOD, b'{"type":"pong"}'),
    (RpcCode.BAD_PARAMS, b'{"id":"x","method":"public/subscribe","params":{"channels":[]}}'),
    (RpcCode.BAD_PARAMS, b'{"action":"subscribe","channel":"candles"}'),
    (
        RpcCode.TOO_MANY_REQUESTS,
        json.dumps(
            {
                "id": 1,
                "method": "public/subscribe",
                "params": {
                    "channels": [f"book.{SYMBOL}.none.{depth}.raw" for depth in range(1, MAX_SUBSCRIPTIONS + 2)]
                },
            }
        ).encode(),
    ),
]


@pytest.mark.parametrize(("code", "text"), REFUSED)
def test_session_refuses_as_documented(code: RpcCode, text: bytes) -> None:
    [reply] = new_session().receive(text)
    assert isinstance(reply, Reply)
    assert code_of(read_json(reply.text)) == code


def test_session_refuses_orders_that_need_a_token_and_binary_frames_as_documented() -> None:
    [reply] = new_session(may_order=False).receive(b'{"type":"orders","orders":[]}')
    assert isinstance(reply, Reply)
    assert code_of(read_json(reply.text)) == RpcCode.NOT_AUTHORISED
    [reply] = Session.receive_binary()
    assert isinstance(reply, Reply)
    assert code_of(read_json(reply.text)) == RpcCode.NOT_JSON


def test_answers_to_every_kind_of_id_are_documented() -> None:
    for request_id in (None, "", "é", 0, -1, 1 << 80, Decimal("1.50"), Decimal("1E+400")):
        assert faults("pong", read_json(answer(request_id, "pong").text)) == []


Received = dict[str, list[Any]]

# What needs partitions that come and go, and sockets that are full: without sockets.


def documented(messages: list[bytes]) -> Received:
    received: Received = {}
    for text in messages:
        message = read_json(text)
        for name in kinds(message):
            received.setdefault(name, []).append(message)
        assert kinds(message), (text, {name: faults(name, message)[:3] for name in SENT})
    return received


def test_hub_tells_of_partitions_that_come_and_go_as_documented() -> None:
    driven = DrivenHub()
    driven.say((0, 1, snapshot(SYMBOL)), (0, 2, fill(SYMBOL)))
    names = [f"book.{SYMBOL}.2.5.raw", f"ticker.{SYMBOL}.raw", f"lwt.{SYMBOL}.raw", f"trades.{SYMBOL}", "events"]
    names += [f"candles.{SYMBOL}.1m", "tickers.raw"]
    clients = [driven.connect(stream=True), driven.connect(*names), driven.connect(*names, objects=True)]
    for client in clients:
        documented(client.texts())
    driven.lose(0)
    lost = [documented(client.texts()) for client in clients]
    assert [got["streamStatus"][0]["status"] for got in lost] == ["stale"] * 3
    assert [len(got.get("stale", ())) for got in lost] == [0, 4, 4]
    driven.hub.partition_changes.begin(0, 0)
    driven.say((0, 1, snapshot(SYMBOL)), (0, 2, fill(SYMBOL)), (0, 3, fill(SYMBOL)), live=False)
    driven.hub.partition_changes.serve([0])
    back = [documented(client.texts()) for client in clients]
    assert [got["streamStatus"][-1]["status"] for got in back] == ["live"] * 3
    assert [got["trades"][0]["recovered"] for got in back[1:2]] == [True]
    assert [got["tradesOlder"][0]["recovered"] for got in back[2:]] == [True]


@pytest.mark.parametrize("objects", [False, True])
def test_hub_conflates_for_a_slow_reader_as_documented(objects: bool) -> None:
    driven = DrivenHub()
    driven.say((0, 1, snapshot(SYMBOL)), (0, 2, fill(SYMBOL)))
    names = {
        f"book.{SYMBOL}.none.all.raw": "bookSnapshot",
        f"ticker.{SYMBOL}.raw": "ticker",
        f"lwt.{SYMBOL}.raw": "lwt",
        f"candles.{SYMBOL}.1m": "candles",
        "tickers.raw": "tickers",
    }
    client = driven.connect(*names, max_bytes=4000, objects=objects)
    documented(client.texts())
    client.transport.room = 0
    for step in range(3, 60):
        change = delta(SYMBOL, step, price=f"1.{step:02d}")
        driven.now += 0.3
        driven.say((0, 2 * step, change), (0, 2 * step + 1, fill(SYMBOL, price=f"1.{step}")))
    client.transport.settle()
    received = documented(client.texts())
    for channel, kind in names.items():
        told = [m for m in received[kind] if m["channel_name"] == channel and m["notification"].get("conflated")]
        assert told, channel
