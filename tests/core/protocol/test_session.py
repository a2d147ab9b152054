from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.channels.client_position import read_since
from core.channels.names import ChannelName, parse_channel
from core.errors import InvalidFields, RpcCode, RpcError
from core.messages.commands import PlaceOrder
from core.messages.model import OrderType, Side, TimeInForce
from core.protocol.effects import (
    Authenticate,
    Cancel,
    CancelAll,
    Effect,
    ListOrders,
    OlderAnswer,
    OldestAnswer,
    Place,
    PlaceNobodys,
    Reply,
    RpcAnswer,
    SetCancelOnDisconnect,
    Subscribe,
    SubscribeAccount,
    Unsubscribe,
    answer,
    refusal,
)
from core.protocol.session import Session
from core.protocol.thalex import THALEX_METHODS, LoginAnswer, OrderAnswer, OrdersAnswer
from tests.core.messages.test_events import JSON_LIKE, JSON_VALUES
from tests.core.sessions import (
    ANYBODY,
    DOCUMENTED,
    EXPIRED,
    EXPIRED_ANYBODY,
    INSTRUMENTS,
    LIMIT,
    MAX_SUBSCRIPTIONS,
    ORDER_ID,
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
)


@pytest.fixture
def session() -> PerformedSession:
    return new_session()


# Methods.


def test_ping_is_answered_with_pong(session: PerformedSession) -> None:
    assert session.receive('{"id":7,"method":"public/ping"}') == [Reply(b'{"id":7,"result":"pong"}')]


@pytest.mark.parametrize("params", ["", ',"params":null', ',"params":{}', ',"params":{"unknown":1}'])
def test_ping_takes_any_params(session: PerformedSession, params: str) -> None:
    effects = session.receive('{"id":7,"method":"public/ping"' + params + "}")
    assert effects == [Reply(b'{"id":7,"result":"pong"}')]


def test_instruments_are_answered_as_over_rest(session: PerformedSession) -> None:
    effects = ask(session, "public/instruments")
    assert only_reply(effects) == {"id": 1, "result": INSTRUMENTS}
    [reply] = effects
    assert isinstance(reply, Reply)
    assert b"KCN/EUR" in reply.text, "a slash needs no escape"


def test_subscribe_answers_first_and_then_adds_the_channels_in_order(session: PerformedSession) -> None:
    effects = ask(session, "public/subscribe", {"channels": ["events.B/B", "events", "events.A/A", "events"]})
    names = ["events.B/B", "events", "events.A/A"]
    assert only_reply(effects) == {"id": 1, "result": names}
    channels = tuple(
        ChannelName(name, "events", symbol) for name, symbol in zip(names, ("B/B", None, "A/A"), strict=True)
    )
    assert effects[1:] == [Subscribe(channels, {})]
    assert isinstance(effects[0], Reply)
    assert session.subscribed == set(names)


def test_subscribe_answers_only_the_channels_of_this_request(session: PerformedSession) -> None:
    ask(session, "public/subscribe", {"channels": ["events"]})
    effects = ask(session, "public/subscribe", {"channels": ["events.A/A"]})
    assert only_reply(effects)["result"] == ["events.A/A"]
    assert session.subscribed == {"events", "events.A/A"}


def test_subscribe_again_asks_for_a_new_snapshot(session: PerformedSession) -> None:
    ask(session, "public/subscribe", {"channels": ["events"]})
    effects = ask(session, "public/subscribe", {"channels": ["events"]})
    assert effects[1] == Subscribe((ChannelName("events", "events", None),), {})


@pytest.mark.parametrize("method", ["unsubscribe", "public/unsubscribe"])
def test_unsubscribe_answers_the_dropped_channels_after_nothing_more_is_sent(
    session: PerformedSession, method: str
) -> None:
    ask(session, "public/subscribe", {"channels": ["events", "events.A/A"]})
    effects = ask(session, method, {"channels": ["events.B/B", "events.A/A", "events.A/A", "nonsense"]})
    assert effects[0] == Unsubscribe(("events.A/A",))
    assert only_reply(effects) == {"id": 1, "result": ["events.A/A"]}
    assert session.subscribed == {"events"}
    assert only_reply(ask(session, method, {"channels": ["events.A/A"]}))["result"] == []


SINCE = [
    {"events.A/A": 5},
    {"events.A/A": {"epoch": "e", "seq": 5}},
    {"events.A/A": {"seq": 0}},
    {"events.A/A": {"epoch": None, "seq": 5}},
    {"events": {"0": 5, "12": 9}},
    {"events": {}},
    {"events": {"epoch": "e", "seq": {"0": 5}}},
    {"trades.A/A": 1, "elsewhere": {"seq": 1}},
    {},
]


@pytest.mark.parametrize("since", SINCE, ids=json.dumps)
def test_subscribe_hands_on_where_to_resume(session: PerformedSession, since: dict[str, object]) -> None:
    effects = ask(session, "public/subscribe", {"channels": ["events"], "since": since})
    read = {name: read_since(position, spans_partitions=name == "events") for name, position in since.items()}
    assert effects[1] == Subscribe((ChannelName("events", "events", None),), read)


def test_subscribe_takes_null_for_nothing_to_resume(session: PerformedSession) -> None:
    effects = ask(session, "public/subscribe", {"channels": ["events"], "since": None})
    assert effects[1] == Subscribe((ChannelName("events", "events", None),), {})


# The id, as it came.

IDS = ["0", "-1", "1.50", "-0.0", "1e5", "1E400", "1.0e-7", "9007199254740993", "7" * 60, f"0.1{'0' * 40}5"]
TEXT_IDS = ['"a"', '""', '"größe ☃ \U0001f600"', r'"\u00fc\"\\\/\u0000"', '"' + "x" * 5000 + '"', '"1"', "null"]


@pytest.mark.parametrize("request_id", IDS)
@pytest.mark.parametrize("method", ["public/ping", "public/none"])
def test_id_that_is_a_number_comes_back_digit_by_digit(session: PerformedSession, request_id: str, method: str) -> None:
    effects = session.receive(f'{{"id":{request_id},"method":"{method}"}}')
    came_back = only_reply(effects)["id"]
    assert Decimal(came_back).as_tuple() == Decimal(request_id).as_tuple()
    assert isinstance(came_back, int) is request_id.lstrip("-").isdecimal()


@pytest.mark.parametrize("request_id", TEXT_IDS, ids=[text[:10] for text in TEXT_IDS])
def test_id_that_is_a_string_or_null_comes_back(session: PerformedSession, request_id: str) -> None:
    assert only_reply(session.receive(f'{{"id":{request_id},"method":"public/ping"}}'))["id"] == json.loads(request_id)


def test_id_that_is_missing_is_answered_with_null(session: PerformedSession) -> None:
    assert session.receive('{"method":"public/ping"}') == [Reply(b'{"id":null,"result":"pong"}')]


@pytest.mark.parametrize("request_id", [True, False, [], [1], {}, {"id": 1}], ids=str)
def test_id_that_is_neither_is_no_request_and_answered_with_null(session: PerformedSession, request_id: object) -> None:
    effects = ask(session, "public/ping", request_id=request_id)
    assert error_of(effects)[0] == RpcCode.NOT_A_REQUEST
    assert only_reply(effects)["id"] is None


# The error table.

NOT_JSON = ["", " ", "{", "nul", '{"id":1,}', '{"id":NaN}', '{"id":1,"id":1}', "[01]", "\ufeff{}", '{"id":1}{}', "'a'"]
NOT_JSON += ["[" * 9000, "1" + "0" * 5000, "1e" + "9" * 30, '"\\ud800"', '"\x00"', "\ud800", "{'id': 1}"]
NOT_REQUESTS = ["null", "1", '"public/ping"', "[]", '[{"id":1,"method":"public/ping"}]', "true", "1.5"]


@pytest.mark.parametrize("text", NOT_JSON, ids=[ascii(text[:12]) for text in NOT_JSON])
def test_text_that_is_not_json_is_answered_so_with_null_for_its_id(session: PerformedSession, text: str) -> None:
    effects = session.receive(text)
    code, message = error_of(effects)
    assert (code, only_reply(effects)["id"]) == (-32700, None)
    assert message.startswith("not JSON: ")


@pytest.mark.parametrize("data", [b"\xff", b'{"id":"\xc3"}', b"\xed\xa0\x80", b"\xef\xbb\xbf{}", "{}".encode("utf-16")])
def test_bytes_that_are_not_utf8_json_are_answered_so(session: PerformedSession, data: bytes) -> None:
    assert error_of(session.receive(data))[0] == -32700


def test_bytes_of_a_text_frame_are_read_like_its_text(session: PerformedSession) -> None:
    message = '{"id":"größe ☃","method":"public/ping"}'
    assert session.receive(message.encode()) == session.receive(message)


def test_binary_frame_is_answered_as_not_json() -> None:
    assert error_of(Session.receive_binary())[0] == -32700


@pytest.mark.parametrize("text", NOT_REQUESTS)
def test_json_that_is_no_object_is_no_request(session: PerformedSession, text: str) -> None:
    effects = session.receive(text)
    assert error_of(effects)[0] == -32600
    assert only_reply(effects)["id"] is None


@pytest.mark.parametrize("method", [None, 1, True, [], {}, ["public/ping"]], ids=str)
def test_request_without_a_method_is_no_request_but_keeps_its_id(session: PerformedSession, method: object) -> None:
    effects = ask(session, method, request_id="mine")
    assert error_of(effects)[0] == -32600
    assert only_reply(effects)["id"] == "mine"


def test_request_with_no_member_but_its_id_is_no_request(session: PerformedSession) -> None:
    assert error_of(session.receive('{"id":5}'))[0] == -32600


@pytest.mark.parametrize("method", ["", "ping", "public/PING", "public/ping ", "private/", "__init__", "x" * 9000])
def test_method_that_does_not_exist_is_named_in_short(session: PerformedSession, method: str) -> None:
    effects = ask(session, method, request_id="mine")
    code, message = error_of(effects)
    assert (code, only_reply(effects)["id"]) == (-32601, "mine")
    assert repr(method[:80]) in message
    assert len(message) < 150


@pytest.mark.parametrize("params", [[], ["events"], 1, "x", True, False], ids=str)
@pytest.mark.parametrize("method", ["public/subscribe", "public/ping"])
def test_params_that_are_no_object_are_bad(session: PerformedSession, method: str, params: object) -> None:
    assert error_of(ask(session, method, params)) == (-32602, "params: expected an object")


BAD_CHANNELS: list[object] = [None, [], {}, "events", 1, [1], ["events", None], [["events"]], [{}], True]


@pytest.mark.parametrize("channels", BAD_CHANNELS, ids=json.dumps)
@pytest.mark.parametrize("method", ["public/subscribe", "unsubscribe", "public/unsubscribe"])
def test_channels_have_to_be_a_list_of_names(session: PerformedSession, method: str, channels: object) -> None:
    code, message = error_of(ask(session, method, {"channels": channels}))
    assert (code, message) == (-32602, "channels: expected a list of at least one channel name")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("events.A", "expected events"), ("nonsense", "no such channel"), ("events.UNLISTED/A", "not listed"), ("", "")],
)
def test_subscribe_is_refused_whole_when_one_channel_is_bad(
    session: PerformedSession, name: str, expected: str
) -> None:
    code, message = error_of(ask(session, "public/subscribe", {"channels": ["events", name]}))
    assert code == -32602
    assert expected in message
    assert session.subscribed == set()


BAD_SINCE: list[object] = [
    [], 5, "5", True, {"events.A/A": "5"}, {"events.A/A": 1.5}, {"events.A/A": True},
    {"events.A/A": {}}, {"events.A/A": {"epoch": "e"}}, {"events.A/A": {"seq": "5"}}, {"events.A/A": {"seq": True}},
    {"events.A/A": {"epoch": 1, "seq": 5}}, {"events.A/A": {"0": 5}},
    {"events.A/A": {"seq": {"0": 5}}}, {"events.A/A": []}, {"events": 5}, {"events": {"seq": 5}},
    {"events": {"one": 5}}, {"events": {"-1": 5}}, {"events": {"0": "5"}}, {"events": {"0": True}},
    {"events": {"epoch": 1, "seq": {"0": 5}}}, {"events": {"0": {"seq": 5}}}, {"events": {"epoch": "e"}},
]  # fmt: skip


@pytest.mark.parametrize("since", BAD_SINCE, ids=json.dumps)
def test_subscribe_is_refused_when_it_cannot_be_read_where_to_resume(session: PerformedSession, since: object) -> None:
    code, message = error_of(ask(session, "public/subscribe", {"channels": ["events"], "since": since}))
    assert code == -32602
    assert message.startswith("since: ")
    assert session.subscribed == set()


def test_subscribe_is_refused_when_there_would_be_too_many_subscriptions(session: PerformedSession) -> None:
    ask(session, "public/subscribe", {"channels": ["events", "events.A/A"]})
    effects = ask(session, "public/subscribe", {"channels": ["events.B/B", "events.C/C"]})
    assert error_of(effects)[0] == 10003
    assert only_reply(effects)["error"]["data"] == {"retry_after": 1}
    assert session.subscribed == {"events", "events.A/A"}
    assert len(ask(session, "public/subscribe", {"channels": ["events.A/A", "events.B/B"]})) == 2
    ask(session, "unsubscribe", {"channels": ["events"]})
    assert len(ask(session, "public/subscribe", {"channels": ["events.C/C"]})) == 2


def test_answers_have_data_only_where_there_is_some() -> None:
    assert answer("a", {"x": 1}) == Reply(b'{"id":"a","result":{"x":1}}')
    plain = refusal(None, RpcError(RpcCode.BAD_PARAMS, "no"))
    assert plain == Reply(b'{"id":null,"error":{"code":-32602,"message":"no"}}', is_refusal=True)
    told = refusal(2, RpcError(RpcCode.OUTCOME_UNKNOWN, "who knows", {"order_id": "o/1"}))
    assert told.text == b'{"id":2,"error":{"code":10005,"message":"who knows","data":{"order_id":"o/1"}}}'


def test_subscribe_hands_on_channels_of_every_kind_in_the_shape_of_the_present_dialect(
    session: PerformedSession,
) -> None:
    names = ["book.A/A.10.20.100ms", "ticker.B/B.raw", "trades.A/A"]
    effects = ask(session, "public/subscribe", {"channels": names})
    assert effects[1] == Subscribe(tuple(map(parse_channel, names)), {})


def test_subscribe_is_refused_when_a_grouping_has_no_tick(session: PerformedSession) -> None:
    code, message = error_of(ask(session, "public/subscribe", {"channels": ["book.NOTICK/A.1.20.raw"]}))
    assert code == -32602
    assert "no tick is configured" in message
    assert len(ask(session, "public/subscribe", {"channels": ["book.NOTICK/A.none.20.raw"]})) == 2


def test_subscribe_is_refused_when_there_would_be_too_many_distinct_views() -> None:
    session = new_session(views={"events.A/A", "events.B/B"}, max_views=3)
    effects = ask(session, "public/subscribe", {"channels": ["events", "events.C/C"]})
    assert error_of(effects)[0] == 10003
    assert only_reply(effects)["error"]["data"] == {"retry_after": 5}
    assert session.subscribed == set()
    assert len(ask(session, "public/subscribe", {"channels": ["events.A/A", "events.B/B", "events.C/C"]})) == 2


# The older dialects.


@pytest.mark.parametrize("member", ["action", "type"], ids=["first", "second"])
@pytest.mark.parametrize("name", ["events.A/A", "trades.A/A", "book.A/A.none.5.100ms"])
def test_older_subscribe_has_no_answer_and_trades_as_objects(session: PerformedSession, member: str, name: str) -> None:
    effects = session.receive(json.dumps({member: "subscribe", "channel": name}))
    assert effects == [Subscribe((parse_channel(name, trades_as_objects=True),), {})]
    assert session.subscribed == {name}


@pytest.mark.parametrize("member", ["action", "type"])
def test_older_unsubscribe_has_no_answer(session: PerformedSession, member: str) -> None:
    session.receive('{"action":"subscribe","channel":"events.A/A"}')
    assert session.receive(json.dumps({member: "unsubscribe", "channel": "events.A/A"})) == [
        Unsubscribe(("events.A/A",))
    ]
    assert session.receive(json.dumps({member: "unsubscribe", "channel": "events.A/A"})) == [Unsubscribe(())]
    assert session.subscribed == set()


def test_dialects_share_their_subscriptions(session: PerformedSession) -> None:
    session.receive('{"action":"subscribe","channel":"events.A/A"}')
    session.receive('{"type":"subscribe","channel":"events.B/B"}')
    assert only_reply(ask(session, "unsubscribe", {"channels": ["events.A/A"]}))["result"] == ["events.A/A"]
    ask(session, "public/subscribe", {"channels": ["events.C/C"]})
    assert session.receive('{"type":"unsubscribe","channel":"events.C/C"}') == [Unsubscribe(("events.C/C",))]
    assert session.subscribed == {"events.B/B"}


def test_dialect_with_a_method_is_the_present_one_whatever_else_it_has(session: PerformedSession) -> None:
    text = '{"id":1,"method":"public/ping","type":"subscribe","action":"subscribe","channel":"events"}'
    assert session.receive(text) == [Reply(b'{"id":1,"result":"pong"}')]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"action": "subscribe"}, -32602),
        ({"action": "subscribe", "channel": 5}, -32602),
        ({"action": "subscribe", "channel": ["events"]}, -32602),
        ({"type": "subscribe", "channel": "nonsense"}, -32602),
        ({"type": "subscribe", "channel": "events.UNLISTED/A"}, -32602),
        ({"type": "unsubscribe"}, -32602),
        ({"type": "dance"}, -32601),
        ({"action": ""}, -32601),
        ({"action": 5}, -32600),
        ({"type": None}, -32600),
        ({"type": "orders"}, -32602),
        ({"type": "orders", "orders": {}}, -32602),
        ({"type": "orders", "orders": "x"}, -32602),
    ],
)
def test_older_message_that_cannot_be_done_is_answered_all_the_same(
    session: PerformedSession, request_: dict[str, object], code: int
) -> None:
    assert error_of(session.receive(json.dumps({"id": 7, **request_})))[0] == code
    assert only_reply(session.receive(json.dumps({"id": 7, **request_})))["id"] == 7
    assert session.subscribed == set()


def test_older_subscribe_is_bounded_like_the_present_one(session: PerformedSession) -> None:
    for number in range(MAX_SUBSCRIPTIONS):
        session.receive(json.dumps({"action": "subscribe", "channel": f"events.A/{number}"}))
    assert error_of(session.receive('{"action":"subscribe","channel":"events"}'))[0] == 10003


def test_older_orders_are_placed_without_an_answer_and_bad_ones_counted(session: PerformedSession) -> None:
    good = {"side": "bid", "order_type": "limit", "price": 1.10, "quantity": 2.5}
    market = {"side": "ask", "order_type": "market", "price": None, "quantity": 0.3}
    bad: list[object] = [{**good, "price": -1}, {**good, "price": 1.001}, {}, 5, None, {**good, "extra": 1}]
    [effect] = session.receive(json.dumps({"type": "orders", "orders": [good, *bad, market]}))
    assert isinstance(effect, PlaceNobodys)
    first, *refused, second = effect.orders
    assert [type(one) for one in refused] == [InvalidFields] * len(bad)
    assert isinstance(first, PlaceOrder)
    assert isinstance(second, PlaceOrder)
    assert (first.symbol, first.side, first.price, first.quantity) == (
        "KCN/EUR",
        Side.BID,
        Decimal("1.1"),
        Decimal("2.5"),
    )
    assert (second.order_type, second.price, second.time_in_force) == (OrderType.MARKET, None, TimeInForce.IOC)
    assert session.receive('{"type":"orders","orders":[]}') == [PlaceNobodys(OldestAnswer(None), ())]


def test_older_orders_are_refused_where_orders_need_a_token() -> None:
    session = new_session(allows_anonymous=False)
    effects = session.receive('{"id":3,"type":"orders","orders":[]}')
    assert error_of(effects)[0] == 10000


# The property: whatever comes is answered, once, in JSON, with a code that is documented.

METHODS = st.sampled_from(
    ["public/subscribe", "unsubscribe", "public/unsubscribe", "public/ping", "public/x", "public/auth"]
    + [method for method, _ in PRIVATE]
    + list(THALEX_METHODS)
)
THALEX_PARAMS = st.fixed_dictionaries(
    {},
    optional={
        name: st.just(value) | JSON_VALUES
        for name, value in {
            "direction": "buy", "instrument_name": "KCN/EUR", "amount": 2, "price": 1.5, "client_order_id": 100,
            "order_id": ORDER_ID, "time_in_force": "immediate_or_cancel", "order_type": "market", "label": "mine",
            "post_only": False, "collar": "clamp", "stp_level": "disabled", "timeout_secs": 10, "account": "alice",
            "token": "a.b.c",
        }.items()
    },
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "events",
        "events.A/A",
        "trades.B/B",
        "book.C/C.none.5.raw",
        "book.NOTICK/A.1.5.raw",
        "events.UNLISTED/A",
        "account.orders",
        "account.x",
    ]
) | st.text(max_size=9)
SEQS = st.integers(-1, 5) | JSON_VALUES
POSITIONS = SEQS | st.dictionaries(st.sampled_from(["epoch", "seq", "0"]), SEQS | st.text(max_size=3), max_size=3)
PARAMS = st.fixed_dictionaries(
    {"channels": st.lists(NAMES | JSON_VALUES, max_size=4) | JSON_VALUES},
    optional={"since": st.dictionaries(NAMES, POSITIONS, max_size=3) | JSON_VALUES},
)
BODIES = st.fixed_dictionaries(
    {},
    optional={name: st.just(value) | JSON_VALUES for name, value in LIMIT.items()}
    | {"order_id": st.just(ORDER_ID) | JSON_VALUES, "symbol": st.just("KCN/EUR") | JSON_VALUES}
    | {"token": st.text(max_size=5) | JSON_VALUES, "enabled": st.booleans() | JSON_VALUES, "x": JSON_VALUES},
)
REQUESTS = st.fixed_dictionaries(
    {"method": METHODS | JSON_VALUES},
    optional={
        "id": JSON_VALUES | st.floats() | st.integers(),
        "params": PARAMS | BODIES | THALEX_PARAMS | JSON_VALUES,
        "jsonrpc": JSON_VALUES,
    },
)
OLDER = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["subscribe", "unsubscribe"]) | JSON_VALUES,
        "type": st.sampled_from(["subscribe", "unsubscribe", "orders", "auth", "place_order", "cancel_order"])
        | JSON_VALUES,
        "channel": NAMES | JSON_VALUES,
        "orders": st.lists(st.fixed_dictionaries({"side": st.sampled_from(["bid", 1]), "quantity": JSON_VALUES}))
        | JSON_VALUES,
        "id": JSON_VALUES,
    },
) | st.builds(
    lambda kind, body: {"type": kind, **body}, st.sampled_from(["place_order", "cancel_order", "auth"]), BODIES
)
ANSWERED_LATER = Authenticate | SubscribeAccount | Place | Cancel | CancelAll | ListOrders | SetCancelOnDisconnect


def check_answered(effects: list[Effect]) -> None:
    if len(effects) == 1 and isinstance(effects[0], Subscribe | Unsubscribe | PlaceNobodys):
        if isinstance(effects[0], Subscribe):
            [channel] = effects[0].channels
            assert channel == parse_channel(channel.text, trades_as_objects=True), (
                "only the older dialects go without an answer"
            )
        return
    if len(effects) == 1 and isinstance(effects[0], ANSWERED_LATER):
        assert isinstance(effects[0].answer, RpcAnswer | OlderAnswer | OrderAnswer | OrdersAnswer | LoginAnswer)
        return
    if isinstance(effects[0], Reply) and effects[0].text.startswith(b'{"type":'):
        told = older_reply(effects)
        assert told["type"] in ("auth_result", "order_result", "cancel_result")
        assert not told["success"]
        assert isinstance(told["error"], str)
        assert told["error"]
        return
    message = only_reply(effects)
    assert message["id"] is None or isinstance(message["id"], str | int | Decimal)
    if "error" in message:
        assert len(effects) == 1
        assert message["error"]["code"] in DOCUMENTED - {-32603}
        assert isinstance(message["error"]["message"], str)
        assert message["error"]["message"]


@settings(deadline=None)  # a busy machine is no defect
@given(st.text() | JSON_LIKE | st.binary())
def test_session_answers_any_text_once(text: str | bytes) -> None:
    check_answered(new_session().receive(text))


@settings(deadline=None)  # a busy machine is no defect
@given(
    st.sampled_from([ANYBODY, STRANGER, USER, EXPIRED, EXPIRED_ANYBODY]),
    st.lists(REQUESTS | OLDER | JSON_VALUES, max_size=6),
)
def test_session_answers_any_json_once_and_knows_what_is_subscribed(who: str, requests: list[object]) -> None:
    session = session_of(who)
    subscribed: set[str] = set()
    for request in requests:
        effects = session.receive(json.dumps(request))
        check_answered(effects)
        for effect in effects:
            if isinstance(effect, Subscribe):
                assert effect.channels
                subscribed |= {channel.text for channel in effect.channels}
            elif isinstance(effect, Unsubscribe):
                assert subscribed.issuperset(effect.names)
                subscribed -= set(effect.names)
            elif isinstance(effect, SubscribeAccount):
                assert who == USER
                subscribed.add("account.orders")
            elif isinstance(effect, Place | Cancel | SetCancelOnDisconnect):
                assert who in (USER, ANYBODY)
            elif isinstance(effect, CancelAll | ListOrders):
                assert who == USER
            elif isinstance(effect, PlaceNobodys):
                assert who in (ANYBODY, EXPIRED_ANYBODY)
        assert session.subscribed == subscribed
        assert len(subscribed) <= MAX_SUBSCRIPTIONS
