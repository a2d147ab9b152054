"""The protocol over a real socket (docs/contract.md#websocket): requests, errors, limits, the upgrade and its refusals."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.integration.clients import BINARY, CLOSE, PING, PONG, TEXT, Refused, WebSocket, without_proxy
from tests.integration.events import fill, fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.support.gateway import Answer

MAX_CONNECTIONS = 6


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    settings = {
        "auth": {"mode": "optional"},
        "http": {"allowed_origins": ["https://app.example.com"]},
        "websocket": {"max_connections": MAX_CONNECTIONS, "max_subscriptions": 5},
    }
    with Gateway.on(market, settings) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[WebSocket]:
    gateway.wait_until(lambda: gateway.clients() == 0, "the connections of the last test gone")
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        yield client


NOT_JSON, NOT_A_REQUEST, NO_SUCH_METHOD, BAD_PARAMS = -32700, -32600, -32601, -32602

REFUSED = [
    # -32700: what is not JSON has no id that could be read.
    (b"", NOT_JSON, b"null"),
    (b"{", NOT_JSON, b"null"),
    (b'{"id":1,"method":"public/ping"', NOT_JSON, b"null"),
    (b'{"id":1,"method":"public/ping"} x', NOT_JSON, b"null"),
    (b'{"id":1,"id":1,"method":"public/ping"}', NOT_JSON, b"null"),
    (b'{"id":NaN,"method":"public/ping"}', NOT_JSON, b"null"),
    (b'{"id":-Infinity,"method":"public/ping"}', NOT_JSON, b"null"),
    (b'{"id":01,"method":"public/ping"}', NOT_JSON, b"null"),
    (b'\xef\xbb\xbf{"id":1,"method":"public/ping"}', NOT_JSON, b"null"),
    (b'{"id":"\\ud800","method":"public/ping"}', NOT_JSON, b"null"),
    (b"[" * 16_000, NOT_JSON, b"null"),
    # -32600
    (b"[]", NOT_A_REQUEST, b"null"),
    (b'[{"id":1,"method":"public/ping"}]', NOT_A_REQUEST, b"null"),
    (b"7", NOT_A_REQUEST, b"null"),
    (b'"public/ping"', NOT_A_REQUEST, b"null"),
    (b"null", NOT_A_REQUEST, b"null"),
    (b'{"id":{},"method":"public/ping"}', NOT_A_REQUEST, b"null"),
    (b'{"id":[1],"method":"public/ping"}', NOT_A_REQUEST, b"null"),
    (b'{"id":true,"method":"public/ping"}', NOT_A_REQUEST, b"null"),
    (b"{}", NOT_A_REQUEST, b"null"),
    (b'{"id":1}', NOT_A_REQUEST, b"1"),
    (b'{"id":"a","method":null}', NOT_A_REQUEST, b'"a"'),
    (b'{"id":"a","method":["public/ping"]}', NOT_A_REQUEST, b'"a"'),
    # -32601
    (b'{"id":"a","method":"public/nothing"}', NO_SUCH_METHOD, b'"a"'),
    (b'{"id":2.50,"method":""}', NO_SUCH_METHOD, b"2.50"),
    (b'{"id":null,"method":"PUBLIC/PING"}', NO_SUCH_METHOD, b"null"),
    # -32602
    (b'{"id":3,"method":"public/ping","params":[]}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe"}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":"events"}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":"events"}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":[]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":[1]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":[["events"]]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":[""]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["events."]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["events.KCN"]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["events.K.N/EUR"]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["events.A/B/C"]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["no such channel"]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["events","x"]}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["events"],"since":5}}', BAD_PARAMS, b"3"),
    (b'{"id":3,"method":"public/subscribe","params":{"channels":["events"],"since":{"events":5}}}', BAD_PARAMS, b"3"),
    (
        b'{"id":3,"method":"public/subscribe","params":{"channels":["events.A/B"],"since":{"events.A/B":"x"}}}',
        BAD_PARAMS,
        b"3",
    ),
    (b'{"id":3,"method":"unsubscribe","params":{}}', BAD_PARAMS, b"3"),
]


@pytest.mark.parametrize(("message", "code", "request_id"), REFUSED)
def test_request_is_refused_with_its_code_and_id_and_the_connection_goes_on(
    client: WebSocket, message: bytes, code: int, request_id: bytes
) -> None:
    client.send(message)
    answer = client.receive()
    assert b'"id":%b,' % request_id in answer
    told = json.loads(answer)
    assert set(told) == {"id", "error"}
    assert told["error"]["code"] == code
    assert told["error"]["message"]
    client.expect_silence()


def digits(number: str) -> object:
    """A number with all that it says: 1.5 is not 1.50, but 1E+3 is 1e3."""
    return Decimal(number).as_tuple()


@pytest.mark.parametrize(
    "request_id",
    ["0", "-1", "1.50", "1e3", "12345678901234567890123", '"a/b"', '"\u6f22\U0001f642"', '""', '"\\u0000\\""', "null"],
)
def test_request_id_comes_back_as_it_was_sent(client: WebSocket, request_id: str) -> None:
    client.send(f'{{"id":{request_id},"method":"public/ping"}}')
    answer = client.receive()
    told = json.loads(answer, parse_float=digits, parse_int=digits)
    assert told == {"id": json.loads(request_id, parse_float=digits, parse_int=digits), "result": "pong"}


def test_request_without_id_is_answered_with_null(client: WebSocket) -> None:
    client.send('{"method":"public/ping"}')
    assert json.loads(client.receive()) == {"id": None, "result": "pong"}


def test_params_may_be_left_out_or_null(client: WebSocket) -> None:
    client.send('{"id":1,"method":"public/ping","params":null}')
    assert json.loads(client.receive())["result"] == "pong"


def test_binary_frame_is_not_json(client: WebSocket) -> None:
    client.send_frame(BINARY, b'{"id":1,"method":"public/ping"}')
    answer = json.loads(client.receive())
    assert (answer["id"], answer["error"]["code"]) == (None, NOT_JSON)
    client.expect_silence()


def test_requests_are_answered_in_order_when_sent_at_once(client: WebSocket) -> None:
    for number in range(100):
        client.send({"id": number, "method": "public/ping"})
    assert [json.loads(client.receive())["id"] for _ in range(100)] == list(range(100))


def test_message_in_fragments_is_one_message(client: WebSocket) -> None:
    client.send_frame(TEXT, b'{"id":1,"meth', final=False)
    client.send_frame(PING, b"between")
    client.send_frame(0x0, b"", final=False)
    client.send_frame(0x0, b'od":"public/ping"}')
    assert client.frame() == (PONG, b"between")
    assert json.loads(client.receive()) == {"id": 1, "result": "pong"}


def test_one_bad_channel_refuses_the_request_and_changes_nothing(
    client: WebSocket, gateway: Gateway, market: Market
) -> None:
    symbol = fresh_symbol()
    channels = [f"events.{symbol}", "events.nonsense"]
    answer, _ = client.call("public/subscribe", {"channels": channels})
    assert answer["error"]["code"] == BAD_PARAMS
    with WebSocket(gateway.address) as witness:
        market.publish(symbol, record := fill(symbol))
        witness.receive_until(lambda message: message == record)
    client.expect_silence()
    assert client.result("unsubscribe", {"channels": channels[:1]}) == []


def test_subscriptions_beyond_the_limit_are_too_many_requests(client: WebSocket) -> None:
    channels = [f"events.{fresh_symbol()}" for _ in range(6)]
    answer, _ = client.call("public/subscribe", {"channels": channels})
    assert answer["error"]["code"] == 10003
    assert answer["error"]["data"]["retry_after"] > 0
    client.subscribe(*channels[:5])
    client.subscribe(*channels[:5])
    answer, _ = client.call("public/subscribe", {"channels": channels[5:]})
    assert answer["error"]["code"] == 10003
    client.result("unsubscribe", {"channels": channels[:1]})
    client.subscribe(channels[5])


def padded(size: int) -> bytes:
    return b'{"id":1,"method":"public/ping"' + b" " * (size - 31) + b"}"


def test_message_of_the_largest_size_is_answered(client: WebSocket) -> None:
    client.send(padded(16_384))
    assert json.loads(client.receive()) == {"id": 1, "result": "pong"}


@pytest.mark.parametrize("size", [16_385, 65_536, 3_000_000])
def test_message_over_16_kib_closes_with_1009(client: WebSocket, gateway: Gateway, size: int) -> None:
    with contextlib.suppress(ConnectionError):
        client.send(padded(size))
    assert client.receive_close().code == 1009
    gateway.wait_until(lambda: gateway.clients() == 0, "the connection gone")


def test_fragments_over_16_kib_in_sum_close_with_1009(client: WebSocket) -> None:
    client.send_frame(TEXT, b" " * 10_000, final=False)
    client.send_frame(0x0, b" " * 10_000)
    assert client.receive_close().code == 1009


@pytest.mark.parametrize("frame", [b"\xc1\x80\0\0\0\0", b"\x83\x80\0\0\0\0", b"\x09\x80\0\0\0\0"])
def test_frame_that_breaks_the_protocol_closes_with_1002(client: WebSocket, frame: bytes) -> None:
    client.socket.sendall(frame)
    assert client.receive_close().code == 1002


@pytest.mark.parametrize("payload", [struct.pack("!H", 1000), struct.pack("!H", 4321) + b"bye", b""])
def test_close_is_answered_with_a_close(client: WebSocket, gateway: Gateway, payload: bytes) -> None:
    client.send_frame(CLOSE, payload)
    opcode, echoed = client.frame()
    assert (opcode, echoed[:2]) == (CLOSE, payload[:2])
    gateway.wait_until(lambda: gateway.clients() == 0, "the connection gone")


@pytest.mark.parametrize("payload", [b"", b"x" * 125])
def test_ping_is_answered_with_its_payload(client: WebSocket, payload: bytes) -> None:
    client.send_frame(PING, payload)
    assert client.frame() == (PONG, payload)


# The upgrade.


def refused(gateway: Gateway, headers: dict[str, str] | None = None) -> Answer:
    with pytest.raises(Refused) as caught, WebSocket(gateway.address, "/ws", headers):
        pass
    return caught.value.answer


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "null", "http://app.example.com", "https://app.example.com.evil.example"]
)
def test_foreign_origin_is_refused(client: WebSocket, gateway: Gateway, origin: str) -> None:
    answer = refused(gateway, {"Origin": origin})
    assert answer.status == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 403


def test_configured_and_own_origins_are_let_in(client: WebSocket, gateway: Gateway) -> None:
    host, port = without_proxy(gateway.address)
    for origin in ("https://app.example.com", "HTTPS://APP.EXAMPLE.COM", f"http://{host}:{port}"):
        with WebSocket(gateway.address, "/ws?stream=none", {"Origin": origin}) as other:
            other.expect_silence()


def test_connections_beyond_the_limit_are_refused_until_one_ends(client: WebSocket, gateway: Gateway) -> None:
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(WebSocket(gateway.address, "/ws?stream=none")) for _ in range(MAX_CONNECTIONS - 1)
        ]
        answer = refused(gateway)
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["status"] == 503
        assert gateway.clients() == MAX_CONNECTIONS
        assert gateway.get("/health").status == 200
        for one in (client, *others):
            one.expect_silence()
        others[0].send_frame(CLOSE, struct.pack("!H", 1000))
        gateway.wait_until(lambda: gateway.clients() < MAX_CONNECTIONS, "room for one more")
        with WebSocket(gateway.address, "/ws?stream=none") as next_one:
            next_one.expect_silence()


def test_connection_that_vanishes_makes_room(client: WebSocket, gateway: Gateway) -> None:
    client.socket.close()
    gateway.wait_until(lambda: gateway.clients() == 0, "the connection gone")


def test_plain_request_for_the_stream_is_told_to_upgrade(client: WebSocket, gateway: Gateway) -> None:
    answer = gateway.get("/ws")
    assert answer.status in (400, 426)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Upgrade" in answer.json()["error"]


def test_stream_takes_no_other_method(client: WebSocket, gateway: Gateway) -> None:
    answer = gateway.request("POST", "/ws", b"{}")
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


def test_version_that_is_not_spoken_is_refused_with_the_one_that_is(client: WebSocket, gateway: Gateway) -> None:
    answer = refused(gateway, {"Sec-WebSocket-Version": "8"})
    assert (answer.status, answer.headers["Sec-WebSocket-Version"]) == (426, "13")


def test_upgrade_carries_the_request_id(client: WebSocket, gateway: Gateway) -> None:
    answer = refused(gateway, {"Origin": "https://elsewhere.example", "X-Request-Id": "abc-1"})
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"] == "abc-1"
