"""`/ws` over real sockets, with a market in the test's hands and no Kafka behind it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.iostream import IOStream
from tornado.tcpclient import TCPClient
from tornado.web import Application
from tornado.websocket import WebSocketClientConnection, websocket_connect

import core.delivery.frames
from core.config.settings import Settings
from core.delivery.frames import text_frame
from core.messages.order_rules import OrderRules
from core.protocol.client_state import SessionRules
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from handlers.websocket import routes
from handlers.websocket_protocol import agreed_deflate
from tests.core.admission import Tokens, admission
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import delta, fill, snapshot
from tests.core.trading import Trade
from tests.handlers.websocket_server import order_services_of, status_of

PING = b'{"id":"gr\xc3\xb6\xc3\x9fe","method":"public/ping"}'
PONG = {"id": "größe", "result": "pong"}
SIMPLE_KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


class Gateway:
    """What is behind the route."""

    def __init__(self) -> None:
        self.driven = DrivenHub()
        self.trade = Trade(self.driven.hub.fanout.send, acks=True)
        self.tokens = Tokens()
        defaults = Settings()
        self.settings = replace(defaults, websocket=replace(defaults.websocket, compression=True))
        self.metrics = Metrics()

    def application(self) -> Application:
        rules = SessionRules(
            max_subscriptions=100,
            max_views=1000,
            instruments=lambda: {"instruments": []},
            is_listed=lambda _symbol: True,
            has_tick=lambda _symbol: True,
            open_views=self.driven.hub.open_views,
            orders=OrderRules((), "KCN/EUR"),
            allows_anonymous=True,
        )
        context = Context(self.settings, self.metrics, Status(), admission(self.tokens))
        hub, order_services = self.driven.hub, order_services_of(self.trade, context)
        return Application(routes(context, hub, rules, order_services, status_of(hub, {})))


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def app(gateway: Gateway) -> Application:
    return gateway.application()


Connect = Callable[..., Any]


class Raw:
    """A client that has its way with every byte."""

    def __init__(self, stream: IOStream) -> None:
        self.stream = stream

    @classmethod
    async def connect(cls, port: int, extensions: str = "") -> Raw:
        stream = await TCPClient().connect("127.0.0.1", port)
        offer = f"Sec-WebSocket-Extensions: {extensions}\r\n".encode() if extensions else b""
        await stream.write(
            b"GET /ws?stream=none HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + SIMPLE_KEY + offer + b"\r\n"
        )  # fmt: skip
        raw = cls(stream)
        head = await stream.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        raw.head = head
        return raw

    head = b""

    async def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the next frame of the server."""
        first, size = await self.stream.read_bytes(2)
        if size == 126:
            size = int.from_bytes(await self.stream.read_bytes(2), "big")
        return first, await self.stream.read_bytes(size) if size else b""

    async def message(self) -> Any:
        first, payload = await self.frame()
        assert first == 0x81
        return json.loads(payload)


def masked(payload: bytes, first: int) -> bytes:
    """A client's frame of fewer than 65,536 bytes."""
    key = os.urandom(4)
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + size + key + bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))


# Frames in pieces.


@pytest.mark.gen_test
async def test_message_is_read_whatever_the_pieces_it_comes_in(http_server: Any, http_port: int) -> None:
    raw = await Raw.connect(http_port)
    raw.stream.set_nodelay(True)
    frame = masked(PING, 0x81)
    for split in range(1, len(frame)):
        await raw.stream.write(frame[:split])
        # The server has had the first piece by itself: it answers a ping before the rest is there.
        await raw.stream.write(frame[split:])
        assert await raw.message() == PONG
    for byte in frame:
        await raw.stream.write(bytes([byte]))
    assert await raw.message() == PONG
    raw.stream.close()


@pytest.mark.gen_test
async def test_message_is_read_from_fragments_between_which_control_frames_come(
    http_server: Any, http_port: int
) -> None:
    raw = await Raw.connect(http_port)
    for split in range(len(PING) + 1):
        first, ping, last = masked(PING[:split], 0x01), masked(b"?", 0x89), masked(PING[split:], 0x80)
        await raw.stream.write(first + ping + masked(b"", 0x00) + last)
        assert await raw.frame() == (0x8A, b"?")
        assert await raw.message() == PONG
    raw.stream.close()


@pytest.mark.gen_test
async def test_messages_that_come_at_once_are_answered_in_their_order(http_server: Any, http_port: int) -> None:
    raw = await Raw.connect(http_port)
    requests = [b'{"id":%d,"method":"public/ping"}' % number for number in range(200)]
    await raw.stream.write(b"".join(masked(request, 0x81) for request in requests))
    assert [(await raw.message())["id"] for _ in requests] == list(range(200))
    raw.stream.close()


# Dialects on one connection.


@pytest.mark.gen_test
async def test_connection_may_speak_every_dialect_and_hold_both_shapes_of_trades(
    http_server: Any, http_port: int, gateway: Gateway
) -> None:
    gateway.driven.say((0, 1, snapshot()))
    raw = await Raw.connect(http_port)
    for text in (
        '{"action":"subscribe","channel":"trades.KCN/EUR"}',
        '{"id":1,"method":"public/subscribe","params":{"channels":["book.KCN/EUR.none.5.raw"]}}',
        '{"type":"orders","orders":[{"side":"bid","order_type":"limit","price":1.5,"quantity":2}, {}]}',
        '{"id":2,"method":"public/ping"}',
    ):
        await raw.stream.write(masked(text.encode(), 0x81))
    trades, answer, book, pong, refused = [await raw.message() for _ in range(5)]
    assert (trades["channel_name"], answer["id"], book["notification"]["snapshot"], pong["id"]) == (
        "trades.KCN/EUR", 1, True, 2,
    )  # fmt: skip
    gateway.driven.say((0, 2, fill(price="1.60")))
    told = {m["channel_name"]: m["notification"]["trades"] for m in [await raw.message(), await raw.message()]}
    assert told["book.KCN/EUR.none.5.raw"] == [[1.6, 2, "buy", 1700000000.0, False]]
    assert told["trades.KCN/EUR"] == [
        {
            "price": 1.6,
            "quantity": 2,
            "side": "buy",
            "timestamp": 1700000000000,
            "buy_order_id": "b",
            "sell_order_id": "s",
        }
    ]
    assert [(record["price"], record["user_id"]) for record in gateway.trade.log.records] == [("1.5", None)]
    assert (refused["id"], refused["error"]["code"]) == (None, -32602)
    assert refused["error"]["data"]["errors"][0]["field"].startswith("orders[")
    raw.stream.close()


# permessage-deflate.


PLAIN_DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ("permessage-deflate", (PLAIN_DEFLATE, True)),
        ("permessage-deflate; client_max_window_bits", (PLAIN_DEFLATE, True)),
        ("permessage-deflate;client_max_window_bits=10", (PLAIN_DEFLATE, True)),
        ('permessage-deflate; client_max_window_bits="10"', (PLAIN_DEFLATE, True)),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", (PLAIN_DEFLATE, True)),
        ("permessage-deflate; server_max_window_bits=15", (PLAIN_DEFLATE + "; server_max_window_bits=15", True)),
        ("permessage-deflate; server_max_window_bits=10", (PLAIN_DEFLATE + "; server_max_window_bits=10", False)),
        (
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=8",
            (PLAIN_DEFLATE + "; server_max_window_bits=8", False),
        ),
        ("permessage-deflate; server_max_window_bits=7, permessage-deflate", (PLAIN_DEFLATE, True)),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=09", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("x-other, permessage-deflate", (PLAIN_DEFLATE, True)),
        ("x-other; permessage-deflate", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate; of_its_own", None),
        ("permessage-deflate; of_its_own, permessage-deflate", (PLAIN_DEFLATE, True)),
        ("", None),
        (",", None),
    ],
)
def test_offers_of_deflate_are_agreed_to_by_the_first_that_can_be_met(
    offers: str, agreed: tuple[str, bool] | None
) -> None:
    assert agreed_deflate(offers) == agreed


@pytest.mark.gen_test
async def test_deflate_is_agreed_to_without_context_takeover(http_server: Any, http_port: int) -> None:
    raw = await Raw.connect(http_port, "permessage-deflate; client_max_window_bits")
    assert f"\r\nsec-websocket-extensions: {PLAIN_DEFLATE}\r\n".encode() in raw.head.lower()
    raw.stream.close()
    for offer in ("", "permessage-deflate; of_its_own"):
        raw = await Raw.connect(http_port, offer)
        assert b"sec-websocket-extensions" not in raw.head.lower()
        raw.stream.close()


@pytest.mark.gen_test
async def test_client_that_demands_a_smaller_window_is_read_compressed_and_sent_nothing_compressed(
    http_server: Any, http_port: int, gateway: Gateway
) -> None:
    raw = await Raw.connect(http_port, "permessage-deflate; server_max_window_bits=9")
    await raw.stream.write(
        masked(deflated(b'{"id":1,"method":"public/subscribe","params":{"channels":["events"]}}'), 0xC1)
    )
    assert (await raw.message())["result"] == ["events"]
    gateway.driven.say((0, 0, fill(note="ß" * 1000)))
    first, _ = await raw.frame()
    assert first == 0x81
    raw.stream.close()


@pytest.mark.gen_test
async def test_deflate_is_not_agreed_to_when_it_is_off(http_server: Any, http_port: int, gateway: Gateway) -> None:
    object.__setattr__(gateway.settings.websocket, "compression", False)
    raw = await Raw.connect(http_port, "permessage-deflate")
    assert b"sec-websocket-extensions" not in raw.head.lower()
    raw.stream.close()


def deflated(payload: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


@pytest.mark.gen_test
async def test_deflated_messages_are_read_and_private_answers_come_plain(http_server: Any, http_port: int) -> None:
    raw = await Raw.connect(http_port, "permessage-deflate")
    for _ in range(3):
        await raw.stream.write(masked(deflated(PING), 0xC1))
        assert await raw.message() == PONG
        whole = deflated(PING)
        await raw.stream.write(masked(whole[:5], 0x41) + masked(b"?", 0x89) + masked(whole[5:], 0x80))
        assert await raw.frame() == (0x8A, b"?"), "which says nothing about the message that it comes between"
        assert await raw.message() == PONG
        await raw.stream.write(masked(PING, 0x81))
        assert await raw.message() == PONG
    raw.stream.close()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("first_byte", "payload", "code"),
    [
        (0xC1, b"\xff\xff\xff not deflated", 1007),
        (0xC1, deflated(b" " * 1_000_000), 1009),
        (0xC1, deflated(b"\xff"), 1007),
        (0xC2, b"\xff\xff\xff not deflated", 1007),
        (0xC9, deflated(b"?"), 1002),
        (0xCA, deflated(b"?"), 1002),
        (0xC8, deflated(b"\x03\xe8"), 1002),
    ],
    ids=["bad", "bomb", "not UTF-8", "bad binary", "ping", "pong", "close"],
)
async def test_deflated_message_that_cannot_be_read_ends_the_connection_with_its_code(
    http_server: Any, http_port: int, first_byte: int, payload: bytes, code: int
) -> None:
    raw = await Raw.connect(http_port, "permessage-deflate")
    await raw.stream.write(masked(payload, first_byte))
    first, told = await raw.frame()
    assert (first, int.from_bytes(told[:2], "big")) == (0x88, code)
    raw.stream.close()


@pytest.mark.gen_test
async def test_compressed_message_without_an_agreement_breaks_the_protocol(http_server: Any, http_port: int) -> None:
    raw = await Raw.connect(http_port)
    await raw.stream.write(masked(deflated(PING), 0xC1))
    first, told = await raw.frame()
    assert (first, int.from_bytes(told[:2], "big")) == (0x88, 1002)
    raw.stream.close()


async def tornado_client(port: int, path: str = "/ws?stream=none", deflates: bool = True) -> WebSocketClientConnection:
    options: dict[str, Any] | None = {} if deflates else None
    return await websocket_connect(
        HTTPRequest(f"ws://127.0.0.1:{port}{path}"), compression_options=options, ping_interval=None
    )


@pytest.mark.gen_test
async def test_tornados_client_reads_what_is_deflated_and_is_read(
    http_server: Any, http_port: int, gateway: Gateway
) -> None:
    client = await tornado_client(http_port)
    # It does not see that it was asked to give up its context, and goes on with it from message to message.
    for _ in range(3):
        await client.write_message(PING)
        text = await client.read_message()
        assert text is not None
        assert json.loads(text) == PONG
    await client.write_message('{"id":1,"method":"public/subscribe","params":{"channels":["events.KCN/EUR"]}}')
    assert await client.read_message() == '{"id":1,"result":["events.KCN/EUR"]}'
    records = [fill(note="ß" * 400 + str(number)) for number in range(5)]
    gateway.driven.say(*((0, number, value) for number, value in enumerate(records)))
    for value in records:
        text = await client.read_message()
        assert text is not None
        assert json.loads(text)["notification"]["event"] == json.loads(value)
    client.close()
    assert await client.read_message() is None  # its socket is closed only once the other side has answered


@pytest.mark.gen_test
async def test_frame_is_deflated_once_however_many_read_it_and_never_for_one(
    http_server: Any, http_port: int, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    compressobj = zlib.compressobj
    monkeypatch.setattr(core.delivery.frames.zlib, "compressobj", lambda *a: made.append(a) or compressobj(*a))
    gateway.driven.say((0, 1, snapshot()))
    raws = [await Raw.connect(http_port, "permessage-deflate") for _ in range(6)]
    raws += [await Raw.connect(http_port) for _ in range(2)]
    channels = json.dumps([f"book.KCN/EUR.none.{depth}.raw" for depth in range(2, 10)] + ["ticker.KCN/EUR.raw"])
    for raw in raws:
        request = f'{{"id":1,"method":"public/subscribe","params":{{"channels":{channels}}}}}'
        await raw.stream.write(masked(request.encode(), 0x81))
        for _ in range(10):
            first, _ = await raw.frame()
            assert first == 0x81, "answers and snapshots are one client's: they are not deflated"
    assert made == []
    deltas = [{"action": "update", "side": "bid", "price": f"1.{n:02}", "quantity": "1.000000"} for n in range(1, 40)]
    gateway.driven.say((0, 2, delta(deltas=deltas)))
    frames = [[await raw.frame() for _ in range(8)] for raw in raws]
    assert all(told == frames[0] for told in frames[:6])
    assert all(told == frames[6] for told in frames[6:])
    long = [payload for _, payload in frames[6] if len(payload) >= 256]
    assert len(made) == len(long) > 0, "once a notification, and small ones not at all"
    for (first, packed), (_, plain) in zip(frames[0], frames[6], strict=True):
        if first == 0xC1:
            assert zlib.decompressobj(wbits=-15).decompress(packed + b"\x00\x00\xff\xff") == plain
            assert len(packed) < len(plain)
        else:
            assert packed == plain
            assert len(plain) < 256
    for raw in raws:
        raw.stream.close()


def test_frame_of_text_is_not_confused_with_its_payload() -> None:
    assert text_frame(b"{}") == b"\x81\x02{}"
