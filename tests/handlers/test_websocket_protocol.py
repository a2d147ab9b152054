from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

import handlers.websocket
import handlers.websocket_protocol
from core.channels.hub import Hub
from core.config.settings import Settings
from core.errors import CloseCode
from core.market.market import Market
from core.messages.order_rules import OrderRules
from core.protocol.client_state import SessionRules
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from tests.core.admission import admission
from tests.core.fakes import fill, snapshot
from tests.core.trading import Trade
from tests.handlers.websocket_server import order_services_of, status_of
from tests.handlers.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FINAL,
    PING,
    PONG,
    TEXT,
    Connection,
    client_frame,
    connected,
    header,
    masked,
    serving,
    until,
)

PING_PUBLIC = b'{"id":1,"method":"public/ping"}'
PONG_PUBLIC = {"id": 1, "result": "pong"}


class ProtocolServer:
    """`/ws` over a market that a test moves by hand."""

    def __init__(self, max_buffer_bytes: int) -> None:
        defaults = Settings()
        websocket = replace(defaults.websocket, max_buffer_bytes=max_buffer_bytes, ping_interval_seconds=20.0)
        self.context = Context(replace(defaults, websocket=websocket), Metrics(), Status(), admission())
        self.market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        self.hub = Hub(self.market, lambda: "epoch", lambda: 0.0, self.context.metrics)
        self.hub.partition_changes.serve([0])
        self.instruments_raise: Exception | None = None
        self.port = 0
        self._offset = 0

    def instruments(self) -> dict[str, object]:
        if self.instruments_raise is not None:
            raise self.instruments_raise
        return {"instruments": []}

    def say(self, *values: bytes) -> None:
        news = []
        for value in values:
            self._offset += 1
            item = self.market.fold(0, self._offset, value)
            assert item is not None
            news.append(item)
        self.hub.publish(news)

    def closes(self, cause: str) -> float | None:
        return self.context.metrics.registry.get_sample_value("gateway_closes_total", {"cause": cause})

    @property
    def messages(self) -> float | None:
        return self.context.metrics.registry.get_sample_value("gateway_client_messages_total")


@asynccontextmanager
async def serve(
    path: str = "/ws?stream=none", max_buffer_bytes: int = 1 << 20
) -> AsyncIterator[tuple[Connection, ProtocolServer]]:
    server = ProtocolServer(max_buffer_bytes)
    rules = SessionRules(
        max_subscriptions=100,
        max_views=100,
        instruments=server.instruments,
        is_listed=lambda _symbol: True,
        has_tick=lambda _symbol: True,
        open_views=server.hub.open_views,
        orders=OrderRules(),
    )
    trade = Trade(server.hub.fanout.send)
    routes = handlers.websocket.routes(
        server.context, server.hub, rules, order_services_of(trade, server.context), status_of(server.hub, {})
    )
    async with serving(server.context, routes) as server.port, connected(server.port) as connection:
        await connection.upgrade(path)
        yield connection, server


def check_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What a peer does wrong is nothing to be logged as ours, nor does a task die of it unseen."""
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def ended(connection: Connection) -> None:
    """Nothing comes any more: the server has closed, and reset nothing."""
    assert await connection.reader.read() == b""


async def hung_up(connection: Connection) -> None:
    """The client sends nothing any more, upon which the server closes as well."""
    connection.writer.write_eof()
    await ended(connection)


# Too large.


@pytest.mark.gen_test
async def test_message_that_is_too_large_is_closed_with_1009_while_it_is_still_being_sent(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.websocket_protocol, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(handlers.websocket_protocol, "QUIET_SECONDS", 30.0)
    async with serve() as (connection, server):
        await connection.send(header(FINAL | TEXT, 1_000_000))
        piece = masked(b"x" * 10_000)
        for _ in range(50):
            await connection.send(piece)
        assert (await connection.closed())[0] == 1009
        assert server.hub.subscribers == set()
        for _ in range(50):
            await connection.send(piece)
            await asyncio.sleep(0)
        await hung_up(connection)
        await until(lambda: server.closes("message too big") == 1)
    check_quiet(caplog)


@pytest.mark.gen_test
async def test_message_whose_pieces_are_too_large_together_is_closed_with_1009() -> None:
    async with serve() as (connection, _):
        await connection.send(client_frame(b"x" * 10_000, TEXT))
        await connection.send(client_frame(b"x" * 10_000, FINAL | CONTINUATION))
        assert (await connection.closed())[0] == 1009
        await hung_up(connection)


@pytest.mark.gen_test
async def test_message_of_the_largest_size_is_answered() -> None:
    async with serve() as (connection, server):
        size = server.context.settings.websocket.max_message_bytes
        await connection.send(client_frame(PING_PUBLIC.ljust(size)))
        assert await connection.message() == PONG_PUBLIC


@pytest.mark.gen_test
async def test_peer_that_goes_on_sending_after_its_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.websocket_protocol, "LINGER_SECONDS", 0.1)
    async with serve() as (connection, _):
        await connection.send(header(FINAL | TEXT, 1 << 40))

        async def go_on_sending() -> None:
            piece = masked(b"x" * 100_000)
            while True:
                await connection.send(piece)

        with pytest.raises(ConnectionError):
            await go_on_sending()


@pytest.mark.gen_test
async def test_peer_that_goes_quiet_after_its_close_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.websocket_protocol, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(handlers.websocket_protocol, "QUIET_SECONDS", 0.05)
    async with serve() as (connection, _):
        await connection.send(header(FINAL | TEXT, 1 << 40))
        assert (await connection.closed())[0] == 1009
        await ended(connection)


# Frames that break RFC 6455.


@pytest.mark.parametrize(
    "frame",
    [
        client_frame(PING_PUBLIC, FINAL | 0x40 | TEXT),
        client_frame(PING_PUBLIC, FINAL | 0x20 | TEXT),
        client_frame(PING_PUBLIC, FINAL | 0x10 | TEXT),
        client_frame(b"x" * 126, FINAL | PING),
        client_frame(b"", PING),
        client_frame(b"x", FINAL | CONTINUATION),
        client_frame(b"x", TEXT) + client_frame(b"y", FINAL | TEXT),
        client_frame(b"x", TEXT) + client_frame(b"y", FINAL | 0x40 | CONTINUATION),
        client_frame(b"x", FINAL | 0x3),
        client_frame(b"x", FINAL | 0xB),
        b"\x81\x02{}",
        b"\x89\x00",
    ],
    ids=[
        "rsv1",
        "rsv2",
        "rsv3",
        "long ping",
        "ping in pieces",
        "continues nothing",
        "text within text",
        "rsv1 later",
        "unknown data",
        "unknown control",
        "unmasked text",
        "unmasked ping",
    ],
)
@pytest.mark.gen_test
async def test_frame_that_breaks_the_protocol_is_closed_with_1002(
    frame: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.websocket_protocol, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(handlers.websocket_protocol, "QUIET_SECONDS", 30.0)
    async with serve() as (connection, server):
        await connection.send(frame + masked(b"x" * 100_000))
        assert await connection.closed() == (1002, "protocol error")
        assert server.hub.subscribers == set()
        await hung_up(connection)
        await until(lambda: server.closes("protocol error") == 1)
    check_quiet(caplog)


@pytest.mark.gen_test
async def test_peer_that_vanishes_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(path="/ws") as (connection, server):
        connection.writer.transport.abort()  # a reset, in the middle of a frame's header
        server.say(snapshot())
        await until(lambda: not server.hub.subscribers)
        assert server.closes("client") == 1
    check_quiet(caplog)


@pytest.mark.gen_test
async def test_connection_that_is_given_up_while_it_is_being_read_ends_at_once() -> None:
    # As Tornado does when the peer has left a Close unanswered for five seconds.
    async with serve() as (connection, server):
        [subscriber] = server.hub.subscribers
        handler = subscriber.end.__self__  # type: ignore[attr-defined]
        handler.ws_connection._abort()
        await ended(connection)
        await until(lambda: not server.hub.subscribers)


@pytest.mark.gen_test
async def test_client_that_sends_thousands_of_frames_at_once_does_not_hold_up_another() -> None:
    pings = 2000
    async with serve() as (connection, server), connected(server.port) as other:
        await other.upgrade("/ws?stream=none")
        connection.writer.write(client_frame(b"", FINAL | PING) * pings)
        other.writer.write(client_frame(b"?", FINAL | PING))
        assert await other.frame() == (PONG, b"?")
        told = asyncio.create_task(connection.reader.readexactly(2 * pings))
        await asyncio.sleep(0)
        assert not told.done()
        assert await told == b"\x8a\x00" * pings


# The upgrade.


@pytest.mark.parametrize(
    ("key", "version"),
    [
        ("", "1.1"),
        ("dGhlIHNhbXBsZSBub25jZQ", "1.1"),
        ("c2hvcnQ=", "1.1"),
        ("dGhlIHNhbXBsZSBub25jZSBpcyBsb25n", "1.1"),
        ("dGhlIHNhbXBsZSBub25j\t\tQ==", "1.1"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "1.0"),
    ],
    ids=["no key", "no padding", "short key", "long key", "not base64", "HTTP/1.0"],
)
@pytest.mark.gen_test
async def test_upgrade_that_breaks_the_protocol_is_refused(key: str, version: str) -> None:
    async with serve() as (_, server), connected(server.port) as other:
        await other.send(
            f"GET /ws HTTP/{version}\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = await other.response()
        assert (answer.status, answer.json()["type"]) == (400, "urn:mexchange:problem:bad-request")


# Text.


@pytest.mark.parametrize(
    "frames",
    [
        client_frame(b"\xff"),
        client_frame(b'{"id":"\xc3","method":"public/ping"}'),
        client_frame(b"\xed\xa0\x80"),
        client_frame(b"\xe2", TEXT) + client_frame(b"?", FINAL | PING) + client_frame(b"\x98", FINAL | CONTINUATION),
    ],
    ids=["never in UTF-8", "cut", "a surrogate", "cut in pieces"],
)
@pytest.mark.gen_test
async def test_text_that_is_not_utf8_is_closed_with_1007(frames: bytes) -> None:
    async with serve() as (connection, server):
        await connection.send(frames + client_frame(PING_PUBLIC))
        told = await connection.frame()
        if told == (PONG, b"?"):
            told = await connection.frame()
        assert told == (CLOSE, (1007).to_bytes(2, "big") + b"not UTF-8")
        await hung_up(connection)
        await until(lambda: server.closes("not UTF-8") == 1)


@pytest.mark.gen_test
async def test_text_is_read_whole_when_it_comes_in_pieces() -> None:
    message = '{"id":"größe ☃","method":"public/ping"}'.encode()
    async with serve() as (connection, _):
        for cut in range(len(message) + 1):
            await connection.send(client_frame(message[:cut], TEXT))
            await connection.send(client_frame(b"?", FINAL | PING))
            await connection.send(client_frame(message[cut:], FINAL | CONTINUATION))
            assert await connection.frame() == (PONG, b"?")
            assert await connection.message() == {"id": "größe ☃", "result": "pong"}


@pytest.mark.gen_test
async def test_text_is_read_whole_when_it_comes_byte_by_byte() -> None:
    async with serve() as (connection, _):
        for byte in client_frame(PING_PUBLIC):
            await connection.send(bytes([byte]))
        assert await connection.message() == PONG_PUBLIC


@pytest.mark.gen_test
async def test_binary_frame_is_answered_as_not_json() -> None:
    async with serve() as (connection, _):
        await connection.send(client_frame(PING_PUBLIC, FINAL | BINARY) + client_frame(PING_PUBLIC))
        assert (await connection.message())["error"]["code"] == -32700
        assert await connection.message() == PONG_PUBLIC


@pytest.mark.gen_test
async def test_fault_of_ours_costs_no_connection_and_is_logged_whole(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (connection, server):
        server.instruments_raise = ZeroDivisionError("a secret detail")
        await connection.send(client_frame(b'{"id":7,"method":"public/instruments"}') + client_frame(PING_PUBLIC))
        told = (await connection.message())["error"]
        assert told["code"] == -32603
        assert "secret" not in told["message"]
        assert await connection.message() == PONG_PUBLIC
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


@pytest.mark.gen_test
async def test_fault_of_ours_that_ends_a_connection_is_not_told_as_the_clients(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as (connection, server):

        def fail(*_subscribe: object) -> None:
            raise ZeroDivisionError("a secret detail")

        monkeypatch.setattr(server.hub, "subscribe", fail)
        await connection.send(
            client_frame(b'{"id":2,"method":"public/subscribe","params":{"channels":["events"]}}')
            + client_frame(PING_PUBLIC)
        )
        assert await connection.message() == {"id": 2, "result": ["events"]}
        assert await connection.closed() == (1011, "internal error")
        await hung_up(connection)
        await until(lambda: server.closes("internal error") == 1)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None


# The end of a connection.


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
@pytest.mark.gen_test
async def test_close_code_that_may_not_be_sent_is_closed_with_1002(code: int) -> None:
    async with serve() as (connection, server):
        await connection.send(client_frame(code.to_bytes(2, "big"), FINAL | CLOSE))
        assert await connection.closed() == (1002, "protocol error")
        await hung_up(connection)
        await until(lambda: server.closes("protocol error") == 1)


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe8\xff"], ids=["half a code", "not UTF-8"])
@pytest.mark.gen_test
async def test_close_payload_that_is_broken_is_closed_with_1002(payload: bytes) -> None:
    async with serve() as (connection, _):
        await connection.send(client_frame(payload, FINAL | CLOSE))
        assert await connection.closed() == (1002, "protocol error")
        await hung_up(connection)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999])
@pytest.mark.gen_test
async def test_close_code_that_may_be_sent_is_answered_with_itself(code: int) -> None:
    async with serve() as (connection, _):
        await connection.send(client_frame(code.to_bytes(2, "big") + "größe".encode(), FINAL | CLOSE))
        assert await connection.frame() == (CLOSE, code.to_bytes(2, "big"))
        await ended(connection)


@pytest.mark.gen_test
async def test_close_of_the_client_is_answered_and_takes_it_out_of_the_hub() -> None:
    async with serve(path="/ws") as (connection, server):
        assert len(server.hub.subscribers) == 1
        await connection.send(client_frame((1000).to_bytes(2, "big") + b"bye", FINAL | CLOSE))
        assert (await connection.closed())[0] == 1000
        assert server.hub.subscribers == set()
        await ended(connection)
        await until(lambda: not server.hub.subscribers)
        assert server.closes("client") == 1


@pytest.mark.gen_test
async def test_nothing_lands_behind_the_close_frame() -> None:
    async with serve(path="/ws") as (connection, server):
        [subscriber] = server.hub.subscribers
        server.say(fill())
        subscriber.end(CloseCode.GOING_AWAY, "reconnect")
        assert server.hub.subscribers == set()
        server.say(fill())
        server.hub.tell(subscriber, b"{}")
        # A client that has not read the Close yet goes on asking.
        await connection.send(client_frame(PING_PUBLIC))
        await connection.send(client_frame(b'{"id":2,"method":"public/subscribe","params":{"channels":["events"]}}'))
        assert await connection.frame() == (TEXT, fill())
        assert await connection.closed() == (1001, "reconnect")
        server.say(fill())
        await connection.send(client_frame((1001).to_bytes(2, "big"), FINAL | CLOSE))
        await ended(connection)
        assert server.closes("reconnect") == 1


@pytest.mark.gen_test
async def test_slow_consumer_gets_whole_frames_and_then_4008() -> None:
    async with serve(path="/ws", max_buffer_bytes=200_000) as (connection, server):
        record = fill(note="x" * 90_000)
        said = 0
        while server.hub.subscribers:
            server.say(record)
            said += 1
        got = 0
        while True:
            opcode, payload = await connection.frame()
            if opcode == CLOSE:
                break
            assert (opcode, payload) == (TEXT, record)
            got += 1
        assert (int.from_bytes(payload[:2], "big"), payload[2:]) == (4008, b"slow consumer")
        # What waited in the outbox is dropped: two records of the bound, and the one that overflowed it.
        assert got == said - 3
        assert server.closes("slow consumer") is None, "the handshake is not over"
        await connection.send(client_frame((4008).to_bytes(2, "big"), FINAL | CLOSE))
        await ended(connection)
        assert server.closes("slow consumer") == 1


@pytest.mark.gen_test
async def test_reader_that_pauses_gets_everything_whole_and_in_order_with_a_pong_between() -> None:
    async with serve(path="/ws", max_buffer_bytes=1 << 28) as (connection, server):
        records = [fill(number=number, note="x" * 50_000) for number in range(400)]
        for record in records[:200]:
            server.say(record)
        await connection.send(client_frame(b"still there?", FINAL | PING) + client_frame(PING_PUBLIC))
        await until(lambda: server.messages == 1)
        for record in records[200:]:
            server.say(record)
        frames = [await connection.frame() for _ in range(len(records) + 2)]
        assert 0 < frames.index((PONG, b"still there?")) < len(frames) - 1
        told = [payload for opcode, payload in frames if opcode == TEXT]
        assert json.loads(told.pop(200)) == PONG_PUBLIC
        assert told == records
