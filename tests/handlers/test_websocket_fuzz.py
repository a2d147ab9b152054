"""Frames, generated and mutated, against the reader alone and against `/ws` on real sockets.

`make fuzz` tries a million (`FUZZ_FRAMES`); the suite some thousands.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

import handlers.websocket_protocol
from core.access.limits import ConnectionLimits
from core.delivery.frames import FLUSH_TAIL
from core.errors import CODES
from handlers.websocket import StreamHandler
from handlers.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameError, FrameReader
from handlers.websocket_protocol import GatewayProtocol
from tests.handlers.websocket_server import StreamServer, serve
from tests.handlers.wire import FINAL, client_frame, connected, header

FRAMES = int(os.environ.get("FUZZ_FRAMES", "4000"))
SEED = int(os.environ.get("FUZZ_SEED", "6455"))
MOST = 1000
RSV1 = 0x40
FRAMES_A_CONNECTION = 20
SIDE_BY_SIDE = 20
# What a connection that ends is closed with: the client's own code, or one of these.
CLOSE_CODES = {row.code for row in CODES if 1000 <= row.code < 5000} & {1002, 1007, 1008, 1009}
REQUEST_CODES = {row.code for row in CODES if not 1000 <= row.code < 5000}
OURS = (StreamHandler, GatewayProtocol, FrameReader)
TEXTS = [
    b'{"id":1,"method":"public/ping"}',
    '{"id":"größe ☃ 𝄞","method":"public/ping"}'.encode(),
    b'{"id":2,"method":"public/subscribe","params":{"channels":["events"]}}',
    b'{"id":3,"method":"public/unsubscribe","params":{"channels":["events","x"]}}',
    b'{"id":4,"method":"private/place_order","params":{"symbol":"KCN/EUR"}}',
    b'{"id":5,"method":"nobody/knows"}',
    b"[]",
    b"{",
    b"",
    b"x" * 125,
    b'{"id":"' + b"y" * 300 + b'","method":"public/ping"}',
    b" " * MOST,
    b"\xf4\x8f\xbf\xbf",
]
BROKEN_TEXTS = [b" " * (MOST + 1), b"\xed\xa0\x80", b"\xf4\x90", b"\xe2\x98", b"\xff"]


def some(rng: random.Random) -> bytes:
    chance = rng.random()
    if chance < 0.98:
        return rng.choice(TEXTS)
    return rng.choice(BROKEN_TEXTS) if chance < 0.99 else rng.randbytes(rng.randrange(200))


def message(rng: random.Random, deflates: bool) -> list[bytes]:
    """A message in one to five frames, with control frames between some of them."""
    payload, opcode, flag = some(rng), TEXT if rng.random() < 0.8 else BINARY, 0
    if deflates and rng.random() < 0.5:
        deflate, flag = zlib.compressobj(wbits=-zlib.MAX_WBITS), RSV1
        end = rng.choice((zlib.Z_SYNC_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FINISH))
        payload = (deflate.compress(payload) + deflate.flush(end)).removesuffix(FLUSH_TAIL)
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.choice((0, 0, 0, 1, 4))))
    pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames = []
    for at, piece in enumerate(pieces):
        frames.append(client_frame(piece, (FINAL if at == len(cuts) else 0) | (CONTINUATION if at else opcode | flag)))
        if rng.random() < 0.1:
            frames.append(client_frame(some(rng)[:125], FINAL | rng.choice((PING, PONG))))
    return frames


def frames_of(rng: random.Random, deflates: bool) -> list[bytes]:
    """What one client sends: mostly sense, and something that is not."""
    frames: list[bytes] = []
    while len(frames) < FRAMES_A_CONNECTION:
        frames += message(rng, deflates)
        chance = rng.random()
        if chance < 0.01:
            frames.append(client_frame(rng.choice((b"", b"\x03\xe8", b"\x03", rng.randbytes(4))), FINAL | CLOSE))
        elif chance < 0.02:
            frames.append(client_frame(rng.randbytes(rng.randrange(130)), rng.randrange(256)))
        elif chance < 0.025:
            frames.append(header(rng.randrange(256), rng.randrange(1 << rng.choice((8, 17, 64)))))
    for _ in range(rng.choice((0, 0, 1, 3))):
        at = rng.randrange(len(frames))
        mutated = bytearray(frames[at])
        where = rng.randrange(len(mutated))
        match rng.randrange(4):
            case 0:
                mutated[where] ^= 1 << rng.randrange(8)
            case 1:
                del mutated[where]
            case 2:
                mutated[where:where] = rng.randbytes(1)
            case 3:
                frames.insert(rng.randrange(len(frames)), bytes(mutated))
        frames[at] = bytes(mutated)
    return frames


Told = list[tuple[int, bytes] | FrameError]


def model(data: bytes, deflates: bool) -> Told:
    """What whole frames say, read as RFC 6455 and 7692 tell it: frame by frame, with all bytes at hand."""
    told: Told = []
    at, begun, payload, past = 0, None, b"", b""
    close = lambda code: [*told, FrameError(code, "")]  # noqa: E731
    while len(data) - at >= 2:
        first, second = data[at : at + 2]
        opcode, size, is_control = first & 0x0F, second & 0x7F, bool(first & 0x08)
        allowed = RSV1 if deflates and opcode in (TEXT, BINARY) else 0
        if (
            first & 0x70 & ~allowed
            or not second & 0x80
            or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
        ):
            return close(1002)
        if is_control and (not first & FINAL or size > 125):
            return close(1002)
        if not is_control and (opcode == CONTINUATION) != (begun is not None):
            return close(1002)
        at += 2
        if size > 125:
            width = 2 if size == 126 else 8
            if len(data) - at < width:
                return told
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
            if size >= 1 << 63 or size < (126 if width == 2 else 65_536):
                return close(1002)
        if not is_control and size + len(payload) > MOST:
            return close(1009)
        if len(data) - at < 4:
            return told
        mask, at = data[at : at + 4], at + 4
        body, at = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data[at : at + size])), at + size
        is_here = at <= len(data)
        if is_control:
            if not is_here:
                return told
            if opcode == CLOSE and body:
                code = int.from_bytes(body[:2], "big")
                fits = len(body) > 1 and code in (*range(1000, 1004), *range(1007, 1015), *range(3000, 5000))
                if not fits or not is_utf8(body[2:], True):
                    return close(1002)
            told.append((opcode, body))
            continue
        begun = first if begun is None else begun
        payload += body
        is_whole = is_here and bool(first & FINAL)
        text = payload
        if begun & RSV1:
            try:
                stream = zlib.decompressobj(-zlib.MAX_WBITS, past)
                text = stream.decompress(payload, MOST + 1)
                behind = stream.unused_data
                if is_whole and not stream.eof and len(text) <= MOST:
                    text += stream.decompress(FLUSH_TAIL, MOST + 1 - len(text))
                    behind = b"" if stream.unused_data == b"" else b"more"
                    if len(text) <= MOST and not stream.eof:
                        text += stream.decompress(b"\x03\x00", MOST + 1 - len(text))
                        behind = b"" if stream.eof and not stream.unused_data else b"more"
            except zlib.error:
                return [*told, FrameError(1007, "not deflated data")]
            if len(text) > MOST:
                return close(1009)
            if behind not in (b"", b"\x00"):
                return close(1007)
        if begun & 0x0F == TEXT and not is_utf8(text, is_whole):
            return close(1007)
        if not is_here:
            return told
        if is_whole:
            told.append((begun & 0x0F, text))
            past = (past + text)[-32_768:] if begun & RSV1 else past
            begun, payload = None, b""
    return told


def is_utf8(text: bytes, is_whole: bool) -> bool:
    """Whether it is, or may become it."""
    if is_whole:
        return text.decode(errors="replace").encode() == text
    # Some character that ends it makes it whole.
    return any(is_utf8(text + end, True) for end in (b"", *ENDS))


ENDS = [second + rest for second in (b"\x80", b"\x90", b"\xa0") for rest in (b"", b"\x80", b"\x80\x80")]


def read(pieces: list[bytes], deflates: bool) -> Told:
    reader, told = FrameReader(MOST, deflates), Told()
    try:
        for piece in pieces:
            reader.feed(piece)
            while (message := reader.next()) is not None:
                told.append(message)
    except FrameError as error:
        told.append(error)
    return told


def plain(told: Told) -> list[object]:
    return [int(one.code) if isinstance(one, FrameError) else one for one in told]


def cut_at_random(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def test_frames_are_read_alike_however_they_are_cut() -> None:
    rng = random.Random(SEED)
    kinds: Counter[object] = Counter()
    frames = 0
    while frames < FRAMES:
        deflates = rng.random() < 0.5
        sent = frames_of(rng, deflates)
        frames += len(sent)
        data = b"".join(sent)
        expected = plain(model(data, deflates))
        for pieces in ([data], [bytes((byte,)) for byte in data], cut_at_random(rng, data)):
            found = plain(read(pieces, deflates))
            # One that is compressed, broken and too large is either, as zlib comes upon it.
            if deflates and found != expected and {found[-1], expected[-1]} == {1007, 1009}:
                found[-1] = expected[-1]
            assert found == expected, data.hex()
        kinds.update(one if isinstance(one, int) else one[0] for one in expected)
    assert {TEXT, BINARY, PING, PONG, CLOSE, 1002, 1007, 1009} <= set(kinds)


async def talk(server: StreamServer, pieces: list[bytes], deflates: bool, kinds: Counter[str]) -> None:
    """A client that sends them and hangs up; all that comes is documented."""
    async with connected(server.port) as connection:
        offer = {"Sec_WebSocket_Extensions": "permessage-deflate"} if deflates else {}
        await connection.upgrade("/ws?stream=none", **offer)

        async def send() -> None:
            for piece in pieces:
                connection.writer.write(piece)
                await asyncio.sleep(0)
            await connection.writer.drain()
            connection.writer.write_eof()

        sending = asyncio.create_task(send())
        while True:
            try:
                opcode, payload = await connection.frame()
            except asyncio.IncompleteReadError as end:
                assert end.partial == b""
                kinds["end"] += 1
                break
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big") or 1000
                assert code in CLOSE_CODES or any(payload[:2] in piece for piece in unmasked(pieces)), payload
                assert await connection.reader.read() == b"", "nothing comes behind it"
                kinds[f"close {code if code in CLOSE_CODES else 'echoed'}"] += 1
                break
            if opcode == TEXT:
                answer = json.loads(payload)
                assert "id" in answer
                assert "result" in answer or answer["error"]["code"] in REQUEST_CODES
            else:
                assert opcode == PONG
            kinds["answer" if opcode == TEXT else "pong"] += 1
        try:
            await sending
        except OSError:
            pass  # it had been closed by then


def unmasked(pieces: list[bytes]) -> list[bytes]:
    """Payloads of the Close frames that the reader finds."""
    return [
        one[1] for one in read([b"".join(pieces)], True) + read([b"".join(pieces)], False) if isinstance(one, tuple)
    ]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.gen_test(timeout=3600)
async def test_frames_get_nothing_but_documented_answers_and_codes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine is no defect, and who floods is another matter.
    monkeypatch.setattr(handlers.websocket_protocol, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(handlers.websocket_protocol, "QUIET_SECONDS", 30.0)
    monkeypatch.setattr(ConnectionLimits, "take", lambda self, size: handlers.websocket.Verdict.ALLOWED)
    rng = random.Random(SEED + 1)
    kinds: Counter[str] = Counter()
    frames, began, early = 0, time.process_time(), 0
    async with serve(max_message_bytes=MOST, compression=True, max_connections_per_address=0) as server:
        while frames < FRAMES:
            talks = []
            for _ in range(SIDE_BY_SIDE):
                deflates = rng.random() < 0.5
                sent = frames_of(rng, deflates)
                frames += len(sent)
                talks.append(talk(server, cut_at_random(rng, b"".join(sent)), deflates, kinds))
            await asyncio.gather(*talks)
            server.driven.counts.deliveries.clear()
            if not early and frames > FRAMES // 5:
                gc.collect()
                early = resident_bytes()
        await server.alone()
    gc.collect()
    grown = resident_bytes() - early
    print(f"{frames} frames, {time.process_time() - began:.0f} s of CPU, {grown / 1e6:.1f} MB more: {dict(kinds)}")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [one for one in gc.get_objects() if type(one) in OURS] == []
    assert grown < 4_000_000
    assert {"answer", "pong", "close echoed", "close 1002", "close 1007", "close 1009"} <= set(kinds)
