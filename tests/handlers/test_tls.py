"""What is served is served encrypted: HTTP, WebSocket, refusals, and what a socket does not take at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tornado.web import RequestHandler

from core.config.settings import Settings
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from tests.core.admission import Tokens, admission
from tests.core.fakes import fill, run, snapshot
from tests.handlers.test_slow_peers import SYMBOL, book, peer
from tests.handlers.websocket_server import asked, call, serve
from tests.handlers.wire import CLOSE, FINAL, PING, Connection, client_frame, connected, serving
from tests.support.certificates import one_pair, server_context

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
SAID = "said " * 20_000


class Hello(RequestHandler):
    def get(self) -> None:
        self.finish(self.request.protocol)

    def post(self) -> None:
        self.finish(SAID)


@asynccontextmanager
async def server(most: int = 100) -> AsyncIterator[int]:
    context = Context(Settings(), Metrics(), Status(), admission(Tokens()))
    async with serving(context, [("/", Hello)], tls=server_context(one_pair()), most=most) as port:
        yield port


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Connection]:
    async with connected(port, one_pair().trusting()) as connection:
        yield connection


async def to_the_end(connection: Connection) -> bytes:
    """Everything, up to an end that the server has said: one that was only cut off raises SSLError."""
    return await connection.reader.read()


@pytest.mark.gen_test
async def test_request_over_tls_is_answered_and_known_as_https() -> None:
    async with server() as port, client(port) as connection:
        for _ in range(2):
            answer = await connection.ask("GET", "/")
            assert (answer.status, answer.body) == (200, b"https")
        assert (await connection.ask("POST", "/", b"{}")).body.decode() == SAID


@pytest.mark.gen_test
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_is_spoken_from_1_2_on(version: ssl.TLSVersion) -> None:
    trusting = one_pair().trusting()
    trusting.minimum_version = trusting.maximum_version = version
    async with server() as port, connected(port, trusting) as connection:
        assert (await connection.ask("GET", "/")).status == 200


@pytest.mark.gen_test
async def test_tls_1_1_is_refused() -> None:
    old = one_pair().trusting()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    async with server() as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(port, old):
                pass


@pytest.mark.gen_test
async def test_http_without_tls_is_told_so_and_others_are_served() -> None:
    async with server() as port, client(port) as well:
        async with connected(port) as bare:
            await bare.send(GET)
            answer = await bare.response()
            assert (answer.status, answer.json()["detail"]) == (
                400,
                "this address speaks TLS: ask for https:// or wss://",
            )
            assert await to_the_end(bare) == b""
        assert (await well.ask("GET", "/")).status == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01\x00\x05hello", b"\x00" * 100], ids=["nothing", "half", "zeros"])
async def test_what_is_no_handshake_ends_without_a_word(says: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with server() as port, connected(port) as odd:
        await odd.send(says)
        odd.writer.write_eof()
        with contextlib.suppress(ConnectionError):
            assert not (await odd.reader.read()).startswith(b"HTTP")
    assert not caplog.records


@pytest.mark.gen_test
async def test_peer_that_resets_in_its_handshake_is_nobodys_trouble(caplog: pytest.LogCaptureFixture) -> None:
    async with server() as port, client(port) as well:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        assert (await well.ask("GET", "/")).status == 200
    assert not caplog.records


@pytest.mark.gen_test
async def test_request_that_cannot_be_read_is_answered_encrypted() -> None:
    async with server() as port, client(port) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nno header\r\n\r\n")
        answer = await connection.response()
        assert (answer.status, answer.json()["type"]) == (400, "urn:mexchange:problem:bad-request")
        assert await to_the_end(connection) == b""


@pytest.mark.gen_test
async def test_end_behind_an_answer_is_said() -> None:
    async with server() as port, client(port) as connection:
        assert (await connection.ask("GET", "/", Connection="close")).status == 200
        assert await to_the_end(connection) == b""


@pytest.mark.gen_test
async def test_connection_that_does_not_fit_is_told_so_encrypted() -> None:
    async with server(most=1) as port, client(port) as first:
        assert (await first.ask("GET", "/")).status == 200
        async with client(port) as second:
            answer = await second.ask("GET", "/")
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert await to_the_end(second) == b""


@pytest.mark.gen_test
async def test_websocket_over_tls_is_signed_in_and_closed_with_a_code() -> None:
    async with serve(tls=server_context(one_pair())) as served:
        async with connected(served.port, one_pair().trusting()) as connection:
            await connection.upgrade("/ws?stream=none", Authorization="Bearer alice-token")
            assert "result" in await asked(connection, "public/ping")
            await connection.send(client_frame(b"\x03\xe8", FINAL | CLOSE))
            assert (await connection.closed())[0] == 1000
            assert await to_the_end(connection) == b""
        await served.alone()


def test_stream_over_tls_is_whole_whatever_the_socket_takes_at_once() -> None:
    """Large frames and small ones, from the fan-out and, in between, pongs, to who begins to read late."""

    async def main() -> None:
        pair = one_pair()
        async with serve(tls=server_context(pair), max_buffer_bytes=1 << 26) as served, peer(served, tls=pair) as late:
            await late.send(client_frame(json.dumps(call("public/subscribe", channels=[f"events.{SYMBOL}"])).encode()))
            served.driven.say((0, 0, snapshot(SYMBOL, 1)))
            for number in range(1, 201):
                await late.send(client_frame(b"%d" % number, FINAL | PING))
                await asyncio.sleep(0)
                served.driven.say((0, number, book(number + 1) if number % 3 else fill(SYMBOL, n=number)))
            assert served.driven.hub.waiting_bytes() > 0
            while not late.texts or json.loads(late.texts[-1]).get("seq") != 200:
                assert not late.is_over
                await late.read(30_000)
                await asyncio.sleep(0)
            told = [json.loads(text) for text in late.texts]
            said = [one["seq"] for one in told if "seq" in one]
            assert said == list(range(said[0], 201))
            # Of pings that come while one waits for its pong, the last alone needs one (RFC 6455 section 5.5.3).
            pongs = [int(payload) for payload in late.pongs]
            assert len(pongs) > 1
            assert pongs == sorted(pongs)

    run(main())
