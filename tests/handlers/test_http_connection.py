"""What HTTP/1.1 demands below the handlers (RFC 9112): targets, chunks, heads that are too long, bodies that do not come."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPInputError
from tornado.iostream import StreamClosedError

import handlers.http_connection
from core.config.settings import Settings
from core.telemetry.metrics import Metrics
from handlers.bodies import BaseHandler
from handlers.http_connection import (
    MAX_HEAD_BYTES,
    HeadDeadlines,
    RequestConnection,
    ServerStream,
    chunk_size,
    origin_form,
)
from handlers.problems import Context, Status
from tests.core.admission import admission
from tests.handlers.wire import Connection, Response, connected, serving, until

pytestmark = pytest.mark.gen_test


class Echo(BaseHandler):
    """Tells what it was asked."""

    def get(self) -> None:
        self.answer(200, {"path": self.request.path, "query": self.request.query, "host": self.request.headers["Host"]})

    def post(self) -> None:
        self.answer(200, {"body": self.json_body().decode()})


@asynccontextmanager
async def client() -> AsyncIterator[tuple[Connection, Context]]:
    context = Context(Settings(), Metrics(), Status(), admission())
    async with serving(context, [("/echo", Echo, {"context": context})]) as port, connected(port) as connection:
        yield connection, context


async def asked(data: bytes) -> Response:
    async with client() as (connection, _):
        await connection.send(data)
        return await connection.response()


def refused(answer: Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return answer.status, answer.json()["type"].removeprefix("urn:mexchange:problem:")


# Targets.


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("http://gateway.test/echo", {"path": "/echo", "query": "", "host": "gateway.test"}),
        ("HTTP://gateway.test:8080/echo?a=b?c", {"path": "/echo", "query": "a=b?c", "host": "gateway.test:8080"}),
        ("https://[::1]:8080/echo?", {"path": "/echo", "query": "", "host": "[::1]:8080"}),
        ("/echo?u=http://gateway.test/", {"path": "/echo", "query": "u=http://gateway.test/", "host": "other"}),
    ],
)
async def test_absolute_target_is_read_as_its_path_at_its_host(target: str, told: dict[str, str]) -> None:
    answer = await asked(f"GET {target} HTTP/1.1\r\nHost: other\r\n\r\n".encode())
    assert (answer.status, answer.json()) == (200, told)


@pytest.mark.parametrize("target", ["http://gateway.test", "http://gateway.test?echo", "http://gateway.test/x//echo"])
async def test_absolute_target_of_another_path_is_not_found(target: str) -> None:
    assert refused(await asked(f"GET {target} HTTP/1.1\r\nHost: other\r\n\r\n".encode())) == (404, "not-found")


@pytest.mark.parametrize("target", ["http:///echo", "http://user@gateway.test/echo", "ftp://gateway.test/echo", "echo"])
async def test_target_that_is_no_path_and_no_http_address_is_refused(target: str) -> None:
    assert refused(await asked(f"GET {target} HTTP/1.1\r\nHost: other\r\n\r\n".encode())) == (400, "bad-request")


@given(st.text("ab/?:@[]#.%", max_size=8))
def test_origin_form_gives_the_same_path_and_query_as_the_target_had(rest: str) -> None:
    found = origin_form(f"http://host/{rest}")
    assert found == ("host", f"/{rest}")
    found = origin_form(f"http://host?{rest}")
    assert found == ("host", f"/?{rest}")


# Chunks.

POST = b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n",
        b'3;name=value\r\n[1,\r\n02;a;b="c;d"\r\n2]\r\n0;last\r\n\r\n',
        b"3 \t; name = value\r\n[1,\r\n2\t\r\n2]\r\n000\r\n\r\n",
        b"3\r\n[1,\r\n2\r\n2]\r\n0\r\nX-Checksum: abc\r\nX-Other: d\r\n\r\n",
    ],
    ids=["plain", "extensions", "white space", "trailers"],
)
async def test_chunk_extensions_and_trailers_are_passed_over(body: bytes) -> None:
    async with client() as (connection, _):
        for _ in range(2):
            await connection.send(POST + body)
            answer = await connection.response()
            assert (answer.status, answer.json()) == (200, {"body": "[1,2]"}), "and the connection goes on"


async def test_chunked_body_is_read_whatever_the_pieces_it_comes_in() -> None:
    data = POST + b"3;x\r\n[1,\r\n2\r\n2]\r\n0\r\nT: t\r\n\r\n"
    async with client() as (connection, _):
        for cut in range(1, len(data)):
            connection.writer.write(data[:cut])
            for _ in range(10):
                await asyncio.sleep(0)
            await connection.send(data[cut:])
            assert (await connection.response()).json() == {"body": "[1,2]"}


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n", b"\r\n", b"-1\r\n", b"0x1\r\n[\r\n", b"1_0\r\n", b"+1\r\n[\r\n", b";a\r\n", b" 1\r\n[\r\n",
        b"1\r\n[]\r\n0\r\n\r\n", b"2\r\n[]\r\n0\r\nno header\r\n\r\n",
        b"2;" + b"a" * 20_000 + b"\r\n[]\r\n0\r\n\r\n",
        (b"1;" + b"a" * 1_000 + b"\r\n \r\n") * 20 + b"2\r\n[]\r\n0\r\n\r\n",
        b"2\r\n[]\r\n0\r\n" + b"T: %s\r\n" % (b"t" * 1_000) * 20 + b"\r\n",
        b"2;a\nb\r\n[]\r\n0\r\n\r\n", b"2;a\rb\r\n[]\r\n0\r\n\r\n", b"2\r\n[]\r\n0;\n\r\n\r\n",
        b"2\r\n[]\r\n0\r\nT: t\nU: u\r\n\r\n",
    ],
    ids=[
        "no number", "nothing", "negative", "prefix", "underscore", "sign", "extension alone", "space before",
        "longer than it says", "trailer that is none", "extension too long", "too many extensions", "too many trailers",
        "LF in an extension", "CR in an extension", "LF in the last extension", "LF in a trailer",
    ],
)  # fmt: skip
async def test_chunks_that_are_not_well_formed_are_refused(body: bytes) -> None:
    assert (await asked(POST + body)).status == 400


@given(st.integers(0, 1 << 60), st.text('0123456789abcdefABCDEF;= \t"_x-', max_size=6))
def test_size_of_a_chunk_is_its_digits_whatever_follows_the_semicolon(size: int, more: str) -> None:
    for digits in (f"{size:x}", f"{size:X}", f"00{size:x}"):
        assert chunk_size(f"{digits};{more}".encode()) == size
        assert chunk_size(f"{digits} \t;{more}".encode()) == size
    with pytest.raises(HTTPInputError):
        chunk_size(f"{more.replace(';', '')}g".encode())


# Heads.


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (414, "target-too-long")),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n", (431, "headers-too-large")),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"X-Many: a\r\n" * 9_000 + b"\r\n", (431, "headers-too-large")),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"X-Endless: a\r\n" * 200_000, (431, "headers-too-large")),
    ],
    ids=["target", "one header", "many headers", "without an end"],
)
async def test_head_that_is_too_long_is_told_so_and_nothing_is_reset(head: bytes, told: tuple[int, str]) -> None:
    async with client() as (connection, _):
        sending = asyncio.create_task(connection.send(head))
        assert refused(await connection.response()) == told
        assert await connection.reader.read() == b""
        await sending


def head_of(size: int, *, is_target: bool) -> bytes:
    """A request whose head has so many bytes, most of them in its target or in one header."""
    begin, end = (b"GET /", b" HTTP/1.1\r\nHost: x\r\n\r\n")
    if not is_target:
        begin, end = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Long: ", b"\r\n\r\n"
    return begin + b"a" * (size - len(begin) - len(end)) + end


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("is_target", [True, False])
async def test_length_of_a_head_is_told_right_whatever_comes_before_it_and_in_which_pieces(
    before: int, is_target: bool
) -> None:
    # Its line of 24 bytes is all of a target's head that is not the target: a line that fits is never the target's fault.
    context = Context(Settings(), Metrics(), Status(), admission())
    async with serving(context, [("/echo", Echo, {"context": context})]) as port:
        for over in (-1, 0, 1, 30, 5_000):
            head = head_of(MAX_HEAD_BYTES + over, is_target=is_target)
            told = 404 if over <= 0 else 414 if is_target and over >= 30 else 431
            first = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n" * before
            for cut in (1, 6, 100, MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES, len(head) - 2, len(head)):
                async with connected(port) as connection:
                    connection.writer.write(first + head[:cut])
                    for _ in range(10):
                        await asyncio.sleep(0)
                    await connection.send(head[cut:])
                    statuses = [(await connection.response()).status for _ in range(before + 1)]
                    assert statuses == [200] * before + [told]
                    if told != 404:
                        assert await connection.reader.read() == b""


async def test_head_that_stalls_is_told_so_and_who_has_begun_none_is_left_in_peace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers.http_connection, "IDLE_SECONDS", 0.05)
    for begun in (b"G", b"\r\nGET /echo HTTP/1.1\r\nHost", b"GET /echo HTTP/1.1\rHost: x\r\r"):
        assert refused(await asked(begun)) == (408, "request-timeout")
    for nothing in (b"", b"\r\n"):
        async with client() as (connection, _):
            await connection.send(nothing)
            assert await connection.reader.read() == b""


async def test_head_deadline_passes_for_who_is_still_awaited_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Awaited:
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    monkeypatch.setattr(handlers.http_connection, "IDLE_SECONDS", 0.01)
    deadlines = HeadDeadlines()
    came, late, later, never = [Awaited() for _ in range(4)]
    for one in (came, late, later):
        deadlines.begin(cast(RequestConnection, one))
    monkeypatch.setattr(handlers.http_connection, "IDLE_SECONDS", 3600)
    deadlines.begin(cast(RequestConnection, never))
    monkeypatch.setattr(handlers.http_connection, "IDLE_SECONDS", 0.01)  # from which the next look follows, too
    deadlines.end(cast(RequestConnection, came))
    await until(lambda: later.is_closed)
    assert [one.is_closed for one in (came, late, later, never)] == [False, True, True, False]


# How a connection is listened to, and answers.


class Slow(Echo):
    """Answers when it is let."""

    may_answer: asyncio.Event

    def initialize(self, context: Context, may_answer: asyncio.Event) -> None:  # type: ignore[override]
        super().initialize(context)
        self.may_answer = may_answer

    async def get(self) -> None:  # type: ignore[override]
        await self.may_answer.wait()
        super().get()


async def test_connection_that_sends_more_than_is_read_does_not_keep_the_loop_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = 0
    handle = ServerStream._handle_events

    def counted(stream: ServerStream, fd: object, events: int) -> None:
        nonlocal told
        told += 1
        handle(stream, fd, events)

    monkeypatch.setattr(ServerStream, "_handle_events", counted)
    context = Context(Settings(), Metrics(), Status(), admission())
    may_answer = asyncio.Event()
    get = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    async with (
        serving(context, [("/slow", Slow, {"context": context, "may_answer": may_answer})]) as port,
        connected(port) as connection,
    ):
        for _ in range(4):
            await connection.send(get)
            for _ in range(50):
                await asyncio.sleep(0)
        # One with what is read beside the first, and one that finds that nobody reads it.
        assert told <= 3
        may_answer.set()
        assert [(await connection.response()).status for _ in range(4)] == [200] * 4


@asynccontextmanager
async def stream_and_peer() -> AsyncIterator[tuple[ServerStream, socket.socket]]:
    mine, peer = socket.socketpair()
    mine.setblocking(False)
    peer.setblocking(False)
    with peer:
        stream = ServerStream(mine)
        yield stream, peer
        stream.close()


async def test_some_is_read_as_it_comes_and_no_more_than_asked_for() -> None:
    async with stream_and_peer() as (stream, peer):
        reading = stream.read_some(3)
        await asyncio.sleep(0)
        assert not reading.done()
        peer.send(b"abcde")
        assert await reading == b"abc"
        assert await stream.read_some(3) == b"de"


async def test_some_is_read_of_what_came_while_nobody_waited() -> None:
    async with stream_and_peer() as (stream, peer):
        reading = stream.read_some(100)
        peer.send(b"head")
        assert await reading == b"head"
        peer.send(b"one")
        await until(lambda: stream._read_buffer_size > 0)  # it listens on between two reads
        peer.send(b"two")
        assert await stream.read_some(100) == b"one"
        assert await stream.read_some(100) == b"two"


@pytest.mark.parametrize("waits", [True, False])
async def test_some_ends_with_the_stream(waits: bool) -> None:
    async with stream_and_peer() as (stream, peer):
        reading = stream.read_some(3) if waits else None
        peer.close()
        with pytest.raises(StreamClosedError):
            await (stream.read_some(3) if reading is None else reading)
        with pytest.raises(StreamClosedError):
            await stream.read_some(3)


async def test_some_of_a_connection_that_was_reset_ends_with_its_error() -> None:
    async with stream_and_peer() as (stream, peer):
        await stream.write(b"unread")
        reading = stream.read_some(3)
        peer.close()  # with what it has not read: a reset
        with pytest.raises(StreamClosedError) as ended:
            await reading
        assert isinstance(ended.value.real_error, ConnectionResetError)


async def test_some_that_nobody_waits_for_any_more_harms_nothing() -> None:
    async with stream_and_peer() as (stream, peer):
        reading = stream.read_some(3)
        reading.cancel()
        peer.send(b"abc")
        await until(lambda: not stream.reading())
        assert not stream.closed()


async def test_answer_with_a_line_break_in_a_header_is_not_sent() -> None:
    class Splits(BaseHandler):
        def get(self) -> None:
            self._headers["X-Split"] = "a\r\nX-Made: up"
            self.answer(200, {})

    context = Context(Settings(), Metrics(), Status(), admission())
    async with serving(context, [("/splits", Splits, {"context": context})]) as port, connected(port) as connection:
        await connection.send(b"GET /splits HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await connection.reader.read() == b""


async def test_path_without_a_pattern_is_found_before_patterns_and_nothing_else_is_taken_for_one() -> None:
    class Named(Echo):
        def initialize(self, context: Context, name: str = "") -> None:  # type: ignore[override]
            super().initialize(context)
            self.name = name

        def get(self, *_args: str) -> None:
            self.answer(200, self.name)

    context = Context(Settings(), Metrics(), Status(), admission())
    table = [
        (path, Named, {"context": context, "name": path})
        for path in ("/a/(.*)", "/a/b-c_d", "/a.c", "/e/?", "/a/b-c_d/e")
    ]
    asked = {"/a/b-c_d": "/a/b-c_d", "/a/b": "/a/(.*)", "/abc": "/a.c", "/e": "/e/?", "/a/b-c_d/e?x": "/a/b-c_d/e"}
    async with serving(context, table) as port, connected(port) as connection:
        assert {path: (await connection.ask("GET", path)).json() for path in asked} == asked


# What is not HTTP, and who is still sending.

HOST = b" HTTP/1.1\r\nHost: x\r\n"
NOT_HTTP = {
    "words": b"hello there\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(100) + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /echo\r\n\r\n",
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /echo" + HOST + b"Host: y\r\n\r\n",
    "no header": b"GET /echo" + HOST + b"no colon\r\n\r\n",
    "a header's name": b"GET /echo" + HOST + b"a b: c\r\n\r\n",
    "a header's value": b"GET /echo" + HOST + b"a: b\0c\r\n\r\n",
    "two lengths": b"POST /echo" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "no length": b"POST /echo" + HOST + b"Content-Length: many\r\n\r\nab",
    "length and chunks": b"POST /echo" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
    "coding": b"POST /echo" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunk": POST + b"zz\r\n",
}


def write_then_read(port: int, data: bytes) -> bytes:
    """As a client does that looks at answers only once it has sent everything. Raises ConnectionError on a reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
        return answer


def response_of(data: bytes) -> Response:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    fields = [line.partition(": ") for line in lines]
    return Response(int(first.split()[1]), {name.lower(): value for name, _, value in fields}, body)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        *((data, (400, "bad-request")) for data in NOT_HTTP.values()),
        (b"GET /" + b"a" * 40_000 + HOST + b"\r\n", (414, "target-too-long")),
        (b"GET /echo" + HOST + b"X-Many: a\r\n" * 9_000 + b"\r\n", (431, "headers-too-large")),
        (b"POST /echo" + HOST + b"Content-Length: 99999999999\r\n\r\n", (413, "too-large")),
        (b"POST /nowhere" + HOST + b"Content-Length: 9999999999999999999999\r\n\r\n", (413, "too-large")),
        (b"PUT /echo" + HOST + b"Connection: close\r\n\r\n", (405, "method-not-allowed")),
        (b"GET /nowhere HTTP/1.0\r\nHost: x\r\n\r\n", (404, "not-found")),
    ],
    ids=[*NOT_HTTP, "target", "headers", "length", "length without end", "close", "HTTP/1.0"],
)
async def test_whoever_sends_all_before_it_reads_has_its_answer(data: bytes, told: tuple[int, str]) -> None:
    context = Context(Settings(), Metrics(), Status(), admission())
    async with serving(context, [("/echo", Echo, {"context": context})]) as port:
        for more in (b"", b"z" * 5_000_000):
            if more or told[1] != "too-large":  # else the rest of the body is waited for
                answer = response_of(await asyncio.to_thread(write_then_read, port, data + more))
                assert refused(answer) == told
                assert len(answer.body) == int(answer.headers["content-length"])


async def test_what_is_wrong_with_a_head_is_told_shortly_and_counted() -> None:
    async with client() as (connection, context):
        await connection.send(b"POST /echo" + HOST + b"Content-Length: " + b"9" * 3_000 + b"x\r\n\r\n")
        answer = await connection.response()
        assert "RFC 9112): Only integer Content-Length is allowed: 999" in answer.json()["error"]
        assert len(answer.body) < 1_000
        value = context.metrics.registry.get_sample_value
        await until(lambda: value("gateway_refusals_total", {"reason": "bad-request"}) == 1)


# Bodies.


@pytest.mark.parametrize(
    "data",
    [
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n[1,",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n[1,",
        POST + b"3\r\n[1",
        POST + b"3\r\n[1,\r\n0\r\n",
        POST,
    ],
    ids=["a part", "nothing", "another type", "a part of a chunk", "no end", "no chunk"],
)
async def test_body_that_stalls_is_told_so(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.http_connection, "BODY_SECONDS", 0.05)
    assert refused(await asked(data)) == (408, "request-timeout")


async def test_body_that_stalls_behind_its_answer_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.http_connection, "BODY_SECONDS", 0.05)
    async with client() as (connection, _):
        # So absurd a size is answered before anything of it comes.
        await connection.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert refused(await connection.response()) == (413, "too-large")
        assert await connection.reader.read() == b""


async def test_refusals_without_a_handler_are_counted() -> None:
    async with client() as (connection, context):
        await connection.send(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.response()
        value = context.metrics.registry.get_sample_value
        await until(lambda: value("gateway_refusals_total", {"reason": "target-too-long"}) == 1)


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("identity, br", 415), ("identity", 200), ("", 200)])
async def test_body_that_is_encoded_is_refused(coding: str, status: int) -> None:
    async with client() as (connection, _):
        headers = {"Content_Type": "application/json", "Content_Encoding": coding}
        answer = await connection.ask("POST", "/echo", json.dumps([1]).encode(), **headers)
        assert answer.status == status
        if status == 415:
            assert refused(answer) == (415, "not-json-type")
            assert answer.headers["accept-encoding"] == "identity"
