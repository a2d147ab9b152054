"""The frame layer as an echo server on real sockets, held to a table of RFC 6455."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from tornado.netutil import bind_sockets

import handlers.websocket_protocol
from core.delivery.frames import FLUSH_TAIL
from handlers.acceptor import Listener
from handlers.http_connection import Server
from handlers.websocket_frames import BINARY, CLOSE, PING, PONG, TEXT, FrameError, FrameReader
from tests.handlers.frame_cases import CASES, Case, echo, fragments
from tests.handlers.wire import FINAL, Connection, client_frame, connected
from tools.autobahn.echo import MAX_MESSAGE_BYTES, application

RSV1 = 0x40
DEFLATE = "permessage-deflate"
GROUPS: dict[str, list[Case]] = {}
for one in CASES:
    GROUPS.setdefault(one.name.replace(".", " ").split()[0], []).append(one)
# What Autobahn's sections 12 and 13 offer.
OFFERS = [
    DEFLATE,
    f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover",
    f"{DEFLATE}; client_max_window_bits",
    f"{DEFLATE}; server_max_window_bits=9",
    f"{DEFLATE}; server_max_window_bits=15",
    f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=9",
    f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=15",
    f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=9, {DEFLATE}; server_no_context_takeover, {DEFLATE}",
]


@asynccontextmanager
async def serving_echo(max_message_bytes: int = MAX_MESSAGE_BYTES) -> AsyncIterator[int]:
    server = Server(application(max_message_bytes), max_body_size=0)
    [listening] = bind_sockets(0, "127.0.0.1")
    listener = Listener(server, most=1000, clients=lambda: 0)
    listener.accept_on([listening])
    try:
        yield listening.getsockname()[1]
    finally:
        listener.close()
        await server.close_all_connections()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes its leave when the client hangs up, however long that takes."""
    monkeypatch.setattr(handlers.websocket_protocol, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(handlers.websocket_protocol, "QUIET_SECONDS", 30.0)


async def answered(port: int, case: Case) -> bytes:
    """All that the server says to it until it ends; the client says nothing more."""
    async with connected(port) as connection:
        await connection.upgrade("/")

        async def send() -> None:
            for piece in case.sent:
                await connection.send(piece)

        sending = asyncio.create_task(send())
        said = await connection.reader.read()
        await sending
        return said


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.gen_test(timeout=60)
async def test_case_of_the_table_is_answered_as_rfc_6455_says(group: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving_echo() as port:
        for case in GROUPS[group]:
            said = await answered(port, case)
            assert said == case.answer, f"{case}: {said[:40]!r} for {case.answer[:40]!r}"
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def read(pieces: Iterator[bytes]) -> bytes:
    """What an echo server would answer by what the reader says."""
    reader = FrameReader(MAX_MESSAGE_BYTES)
    said = b""
    try:
        for piece in pieces:
            reader.feed(piece)
            while (told := reader.next()) is not None:
                opcode, payload = told
                if opcode == CLOSE:
                    return said + echo(payload[:2], CLOSE)
                if opcode != PONG:
                    said += echo(payload, PONG if opcode == PING else opcode)
    except FrameError as error:
        return said + echo(error.code.to_bytes(2, "big") + error.reason.encode(), CLOSE)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("group", GROUPS)
def test_case_of_the_table_is_read_alike_when_it_comes_byte_by_byte(group: str) -> None:
    for case in GROUPS[group]:
        sent = b"".join(case.sent)
        assert read(iter((sent,))) == case.answer, str(case)
        if len(sent) <= 10_000:
            assert read(bytes((byte,)) for byte in sent) == case.answer, str(case)


def test_broken_text_is_told_by_the_byte_that_shows_it() -> None:
    for case in GROUPS["6"]:
        sent = b"".join(case.sent)
        if case.answer[:1] == b"\x88" and "cut" not in case.name:
            reader = FrameReader(MAX_MESSAGE_BYTES)
            reader.feed(sent[:-1])
            assert reader.next() is None, f"{case}: too early"
            reader.feed(sent[-1:])
            with pytest.raises(FrameError, match="not UTF-8"):
                reader.next()


class Deflated:
    """What a client with an agreement sends and reads."""

    def __init__(self, connection: Connection, keeps_context: bool) -> None:
        self._connection = connection
        self._keeps_context = keeps_context
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)

    def frames(self, payload: bytes, size: int, opcode: int) -> bytes:
        """A message, compressed, in frames of this size."""
        if not self._keeps_context:
            self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = self._deflate.compress(payload) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        frames = fragments(packed.removesuffix(FLUSH_TAIL), size, opcode)
        return bytes([frames[0] | RSV1]) + frames[1:]

    async def message(self) -> tuple[int, bytes]:
        """Opcode and text of the next."""
        reader = self._connection.reader
        first, size = await reader.readexactly(2)
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        payload = await reader.readexactly(size)
        if first & RSV1:
            payload = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(payload + FLUSH_TAIL)
        return first & 0x0F, payload


@functools.cache
def prices(number: int, size: int) -> bytes:
    """So many bytes, that are another text for another number."""
    return b"".join(b'{"price":"%d.%02d"}' % (at % 97, number) for at in range(size))[:size]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("keeps_context", [True, False], ids=["context", "no context"])
@pytest.mark.gen_test
async def test_compressed_messages_are_echoed_whatever_was_offered(offer: str, keeps_context: bool) -> None:
    async with serving_echo() as port, connected(port) as connection:
        await connection.upgrade("/", Sec_WebSocket_Extensions=offer)
        client = Deflated(connection, keeps_context)
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072)):
            text = prices(number, size)
            for opcode in (TEXT, BINARY):
                for fragment in (1 << 20, 256):
                    await connection.send(client.frames(text, fragment, opcode))
                    assert await client.message() == (opcode, text)
        await connection.send(client_frame(b"", FINAL | CLOSE))
        assert await connection.reader.read() == b"\x88\x00"


def packed(payload: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (deflate.compress(payload) + deflate.flush(mode)).removesuffix(FLUSH_TAIL)


@pytest.mark.parametrize("by", [1 << 20, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (packed(b"x" * 1000), b"x" * 1000),
        (packed(b"x" * 1001), 1009),
        (packed(b"first", zlib.Z_FINISH), b"first"),
        (packed(b"first", zlib.Z_FINISH) + b"\x00", b"first"),
        (packed(b"first", zlib.Z_FINISH) + b"more", 1007),
        (packed(b"x" * 1000, zlib.Z_FINISH) + b"\x00", b"x" * 1000),
        (b"\x01", b""),
        (packed(b"\xe2\x98\x83"), "☃".encode()),
        (packed(b"\xe2\x98"), 1007),
        (packed(b"\xed\xa0\x80"), 1007),
        # Blocks that are said to be longer than they are: their text would be what a message ends with.
        (b"\x00\x08\x00\xf7\xffshort", 1007),
        (packed(bytes(range(32, 127)))[:-7], 1007),
        (b"\xff\xff\xff not deflated", 1007),
    ],
)
def test_compressed_message_is_read_whole_or_closed_for(payload: bytes, told: bytes | int, by: int) -> None:
    reader = FrameReader(1000, deflates=True)
    frame = client_frame(payload, FINAL | RSV1 | TEXT)
    try:
        for at in range(0, len(frame), by):
            reader.feed(frame[at : at + by])
            if (message := reader.next()) is not None:
                assert at + by >= len(frame)
                assert message == (TEXT, told)
                return
    except FrameError as error:
        assert error.code == told
        return
    raise AssertionError("it does not end")


def test_compressed_text_that_is_broken_is_told_before_its_frame_has_come() -> None:
    reader = FrameReader(100_000, deflates=True)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    begun = deflate.compress(b"\xff") + deflate.flush(zlib.Z_SYNC_FLUSH)
    reader.feed(client_frame(begun + b"." * 50_000, FINAL | RSV1 | TEXT)[: 8 + len(begun)])
    with pytest.raises(FrameError, match="not UTF-8"):
        reader.next()


def test_message_behind_one_that_ended_its_stream_may_point_into_it() -> None:
    reader = FrameReader(1000, deflates=True)
    past = bytes(range(32, 127))
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=past)
    pointing = (deflate.compress(past) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(FLUSH_TAIL)
    assert len(pointing) < 10
    reader.feed(client_frame(packed(past, zlib.Z_FINISH), FINAL | RSV1 | TEXT))
    reader.feed(client_frame(pointing, FINAL | RSV1 | TEXT))
    assert reader.next() == (TEXT, past)
    assert reader.next() == (TEXT, past)
    assert reader.next() is None
