"""What a client sends and what an echo server answers, byte by byte, with the section of RFC 6455 that says so.

The cases are those of Autobahn's testsuite, by its numbers; `make autobahn` runs the suite itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from tests.handlers.wire import BINARY, CLOSE, CONTINUATION, FINAL, PING, PONG, TEXT, client_frame, header, masked

RSV = 0x10
SIZES = (0, 125, 126, 127, 128, 65_535, 65_536)
PROTOCOL_ERROR = b"\x88\x10\x03\xeaprotocol error"
NOT_UTF8 = b"\x88\x0b\x03\xefnot UTF-8"
BYE = client_frame(b"\x03\xe8", FINAL | CLOSE)
GOODBYE = b"\x88\x02\x03\xe8"
GREEK = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
# https://www.cl.cam.ac.uk/~mgk25/ucs/examples/UTF-8-test.txt, by Autobahn's subsections of 6.
UTF8: dict[str, tuple[bytes, ...]] = {
    "6.5 some": (b"hello$world", b"hello\xc2\xa2world", b"hello\xe2\x82\xacworld", b"hello\xf0\xa4\xad\xa2world", GREEK),
    "6.6 prefixes": tuple(GREEK[:end] for end in (2, 5, 7, 9, 11)),
    "6.7 first of a length": (b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"),
    "6.9 last of a length": (b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"),
    "6.11 boundaries": (b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"),
    "6.22 no characters": tuple(
        chr(plane << 16 | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)
    ),
    "6.23 specials": tuple(chr(code).encode() for code in range(0xFFF9, 0x10000)),
}  # fmt: skip
# What is well-formed, and the byte that shows that the text is not.
BROKEN_UTF8: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "6.3 the thirteenth byte": ((GREEK + b"\xed", b"\xa0"),),
    "6.4 beyond U+10FFFF": ((GREEK + b"\xf4", b"\x90"),),
    "6.8 five and six bytes": ((b"", b"\xf8"), (b"", b"\xfc")),
    "6.10 beyond U+10FFFF": ((b"", b"\xf7"), (b"", b"\xfb"), (b"", b"\xfd"), (b"\xf4", b"\x90"), (b"", b"\xf5")),
    "6.12 continuations": tuple((b"", bytes([byte])) for byte in range(0x80, 0xC0)),
    "6.13 lonely starts": tuple(
        (bytes([byte]), b" ") for byte in (*range(0xC2, 0xE0), *range(0xE0, 0xF0), *range(0xF0, 0xF5))
    ),
    "6.14 a byte is missing": ((b"\xdf", b" "), (b"\xe0\xa0", b" "), (b"\xef\xbf", b" "), (b"\xf0\x90\x80", b" ")),
    "6.15 and another begins": ((b"\xdf", b"\xe0"), (b"\xe0\xa0", b"\xf0"), (b"\xf0\x90\x80", b"\xdf")),
    "6.16 impossible bytes": ((b"", b"\xfe"), (b"", b"\xff")),
    "6.17 overlong": ((b"", b"\xc0"), (b"\xe0", b"\x80"), (b"\xf0", b"\x80"), (b"", b"\xf8"), (b"", b"\xfc")),
    "6.18 overlong, the largest": ((b"", b"\xc1"), (b"\xe0", b"\x9f"), (b"\xf0", b"\x8f")),
    "6.20 surrogates": tuple((b"\xed", bytes([byte])) for byte in range(0xA0, 0xC0)),
}


@dataclass(frozen=True)
class Case:
    """Bytes in, each in a segment of its own, and all bytes out before the connection ends."""

    name: str  # begins with the number of Autobahn's section
    section: str
    sent: tuple[bytes, ...]
    answer: bytes

    def __str__(self) -> str:
        return f"{self.name} ({self.section})"


def echo(payload: bytes, opcode: int = TEXT) -> bytes:
    """A server's frame (section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes([FINAL | opcode, size]) + payload
    if size < 1 << 16:
        return bytes([FINAL | opcode, 126]) + size.to_bytes(2, "big") + payload
    return bytes([FINAL | opcode, 127]) + size.to_bytes(8, "big") + payload


def chopped(data: bytes, size: int) -> tuple[bytes, ...]:
    """In pieces of this size."""
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def fragments(payload: bytes, size: int, opcode: int = TEXT) -> bytes:
    """A message in frames of this size."""
    pieces = chopped(payload, size)
    # Each process that collects tests makes these, and most are the same.
    frame = cache(client_frame)
    return b"".join(
        frame(piece, (FINAL if at == len(pieces) - 1 else 0) | (CONTINUATION if at else opcode))
        for at, piece in enumerate(pieces)
    )


def good(name: str, section: str, sent: bytes, answer: bytes, chop: int = 0) -> Case:
    """What leaves the connection open: the client closes it."""
    return Case(name, section, (*(chopped(sent, chop) if chop else (sent,)), BYE), answer + GOODBYE)


def bad(name: str, section: str, sent: bytes, before: bytes = b"", close: bytes = PROTOCOL_ERROR) -> Case:
    """What the server closes for, after it answered what came before; nothing is sent behind it."""
    return Case(name, section, (sent,), before + close)


def framing() -> Iterator[Case]:
    """Section 1, and 9 and 10 of the suite."""
    for opcode, byte in ((TEXT, b"*"), (BINARY, b"\xfe")):
        for size in SIZES:
            payload = byte * size
            yield good(
                f"1 size {size} of {opcode}", "5.2", client_frame(payload, FINAL | opcode), echo(payload, opcode)
            )
        yield good("1 chopped", "5.2", client_frame(byte * 65_536, FINAL | opcode), echo(byte * 65_536, opcode), 997)
        for size in (1 << 18, 1 << 20, 1 << 22):
            payload = byte * size
            yield good(
                f"9.1 size {size} of {opcode}", "5.2", client_frame(payload, FINAL | opcode), echo(payload, opcode)
            )
        for size in (64, 256, 1024, 4096, 16_384, 65_536):
            payload = byte * (1 << 20)
            yield good(
                f"9.3 fragments of {size}, {opcode}", "5.4", fragments(payload, size, opcode), echo(payload, opcode)
            )
        for size in (64, 1024, 65_536):
            payload = byte * (1 << 20)
            sent = client_frame(payload, FINAL | opcode)
            yield good(f"9.5 chopped by {size}, {opcode}", "5.2", sent, echo(payload, opcode), max(size, 1024))
        for size in (0, 16, 64, 256, 1024):
            sent, answer = client_frame(byte * size, FINAL | opcode), echo(byte * size, opcode)
            yield good(f"9.7 a hundred of {size}, {opcode}", "5.2", sent * 100, answer * 100)
    yield good("10.1 fragments of 1300", "5.4", fragments(b"*" * 65_536, 1300), echo(b"*" * 65_536))
    for width, size in ((2, 125), (8, 126), (8, 65_535)):
        head = bytes([FINAL | TEXT, 0xFE if width == 2 else 0xFF]) + size.to_bytes(width, "big")
        yield bad(f"1 a size of {size} in {width} bytes", "5.2", head)
    yield bad("1 a size of 64 bits", "5.2", bytes([FINAL | TEXT, 0xFF]) + (1 << 63).to_bytes(8, "big"))
    yield bad("1 too large", "7.4.1", header(FINAL | TEXT, (1 << 24) + 1), close=b"\x88\x11\x03\xf1message too big")
    for first in (TEXT, BINARY, PING, PONG, CLOSE):
        yield bad(f"1 unmasked {first}", "5.1", bytes([FINAL | first, 0]))


def pings() -> Iterator[Case]:
    """Section 2."""
    for payload in (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125):
        frame = client_frame(payload, FINAL | PING)
        yield good(f"2 ping of {len(payload)}", "5.5.2", frame, echo(payload, PONG))
        yield good(f"2 ping of {len(payload)}, chopped", "5.5.2", frame, echo(payload, PONG), 1)
        yield good(f"2 pong of {len(payload)}", "5.5.3", client_frame(payload, FINAL | PONG), b"")
    yield bad("2.5 long ping", "5.5", header(FINAL | PING, 126))
    yield bad("2.5 long pong", "5.5", header(FINAL | PONG, 126))
    sent = client_frame(b"unasked", FINAL | PONG) + client_frame(b"asked", FINAL | PING)
    yield good("2.9 pong, then ping", "5.5.3", sent, echo(b"asked", PONG))
    numbers = [b"ping %d" % number for number in range(10)]
    sent = b"".join(client_frame(number, FINAL | PING) for number in numbers)
    for chop in (0, 1):
        yield good(f"2.10 ten pings by {chop}", "5.5.2", sent, b"".join(echo(number, PONG) for number in numbers), chop)


def headers() -> Iterator[Case]:
    """Sections 3 and 4: reserved bits, and opcodes that nobody has defined."""
    before = client_frame(b"Hello, world!")
    for bits in range(1, 8):
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
            frame = client_frame(b"", FINAL | bits * RSV | opcode)
            yield bad(f"3 reserved {bits} of {opcode}", "5.2", before + frame, echo(b"Hello, world!"))
        frame = client_frame(b"Hello, ", TEXT) + client_frame(b"world!", FINAL | bits * RSV | CONTINUATION)
        yield bad(f"3 reserved {bits} of a continuation", "5.2", frame)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        for payload in (b"", b"unknown opcode"):
            sent = before + client_frame(payload, FINAL | opcode)
            yield bad(f"4 opcode {opcode} of {len(payload)}", "5.2", sent, echo(b"Hello, world!"))


def fragmentation() -> Iterator[Case]:
    """Section 5."""
    for opcode in (PING, PONG, CLOSE):
        yield bad(f"5.1 fragmented {opcode}", "5.5", client_frame(b"fragment1", opcode))
    one, two = client_frame(b"fragment1", TEXT), client_frame(b"fragment2", FINAL | CONTINUATION)
    whole, ping, pong = echo(b"fragment1fragment2"), client_frame(b"pongme!", FINAL | PING), echo(b"pongme!", PONG)
    for chop in (0, 1):
        yield good(f"5.3 two fragments by {chop}", "5.4", one + two, whole, chop)
        yield good(f"5.6 ping within by {chop}", "5.4", one + ping + two, pong + whole, chop)
    for name, first in (("continues nothing", CONTINUATION), ("continues nothing, and ends", FINAL | CONTINUATION)):
        yield bad(f"5.9 {name}", "5.4", client_frame(b"non-continuation", first))
        yield bad(f"5.12 {name}, after a message", "5.4", one + two + client_frame(b"x", first), whole)
    for opcode in (TEXT, BINARY):
        for final in (0, FINAL):
            yield bad(f"5.18 {opcode} within, {final}", "5.4", one + client_frame(b"fragment2", final | opcode))
    pieces = [client_frame(b"fragment%d" % number, CONTINUATION) for number in range(2, 5)]
    sent = one + pieces[0] + ping + pieces[1] + pieces[2] + ping + client_frame(b"fragment5", FINAL | CONTINUATION)
    answer = pong + pong + echo(b"fragment1fragment2fragment3fragment4fragment5")
    for chop in (0, 1):
        yield good(f"5.19 five fragments, two pings by {chop}", "5.4", sent, answer, chop)
    for sent in (b"", b"middle", b"\x00" * 3):
        frames = client_frame(b"", TEXT) + client_frame(sent, CONTINUATION) + client_frame(b"", FINAL | CONTINUATION)
        yield good(f"6.1 empty fragments around {len(sent)}", "5.4", frames, echo(sent))


def utf8() -> Iterator[Case]:
    """Section 6; text that is broken is so at the last byte that is sent, so that nothing can be waited for."""
    for name, texts in UTF8.items():
        for text in texts:
            for size in range(1, len(text) + 1):
                yield good(f"{name}: {text.hex()} by {size}", "8.1", fragments(text, size), echo(text))
            yield good(f"{name}: {text.hex()} chopped", "8.1", client_frame(text), echo(text), 1)
            if not text.isascii():
                # Not before its last frame is it seen to be cut.
                cut = text[: next(at for at, byte in enumerate(text) if byte >= 0x80) + 1]
                yield bad(f"{name}: {cut.hex()} cut", "8.1", client_frame(cut), close=NOT_UTF8)
                sent = client_frame(cut, TEXT) + client_frame(b"", FINAL | CONTINUATION)
                yield bad(f"{name}: {cut.hex()} cut by an empty frame", "8.1", sent, close=NOT_UTF8)
    for name, pairs in BROKEN_UTF8.items():
        for start, byte in pairs:
            text = start + byte
            yield bad(f"{name}: {text.hex()}", "8.1", client_frame(text), close=NOT_UTF8)
            yield bad(f"{name}: {text.hex()} in an open frame", "8.1", client_frame(text, TEXT), close=NOT_UTF8)
            sent = client_frame(start, TEXT) + client_frame(byte, CONTINUATION)
            yield bad(f"{name}: {text.hex()} in two", "8.1", sent, close=NOT_UTF8)
            # In the midst of a frame whose end never comes.
            sent = header(FINAL | TEXT, 1000) + masked(text)
            yield bad(f"{name}: {text.hex()} in a frame that has not come whole", "8.1", sent, close=NOT_UTF8)
    yield good("6 binary", "5.6", client_frame(b"\xff\xfe", FINAL | BINARY), echo(b"\xff\xfe", BINARY))


def closes(codes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """A payload for each."""
    return ((code, code.to_bytes(2, "big")) for code in codes)


def closing() -> Iterator[Case]:
    """Section 7."""
    text, ping = client_frame(b"Hello World!"), client_frame(b"?", FINAL | PING)
    yield Case("7.1.1 close after a message", "7.1.2", (text + BYE,), echo(b"Hello World!") + GOODBYE)
    for name, after in (("close", BYE), ("text", text), ("ping", ping), ("nonsense", b"\xff" * 20)):
        yield Case(f"7.1.2 {name} after the close", "5.5.1", (BYE + after,), GOODBYE)
    yield Case("7.1.5 close within a message", "5.4", (client_frame(b"fragment1", TEXT) + BYE,), GOODBYE)
    yield Case(
        "7.1.6 close after much", "7.1.2", (client_frame(b"*" * (1 << 18)) + BYE,), echo(b"*" * (1 << 18)) + GOODBYE
    )
    yield Case("7.3.1 empty close", "5.5.1", (client_frame(b"", FINAL | CLOSE),), b"\x88\x00")
    yield bad("7.3.2 half a code", "5.5.1", client_frame(b"\x03", FINAL | CLOSE))
    for size in (0, 5, 123):
        sent = client_frame(b"\x03\xe8" + b"*" * size, FINAL | CLOSE)
        yield Case(f"7.3.4 reason of {size}", "5.5.1", (sent,), GOODBYE)
    yield bad("7.3.6 reason of 124", "5.5", header(FINAL | CLOSE, 126))
    yield bad("7.5.1 reason not UTF-8", "5.5.1", client_frame(b"\x03\xe8" + GREEK + b"\xed\xa0\x80", FINAL | CLOSE))
    for code, payload in closes((1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999)):
        yield Case(f"7.7 code {code}", "7.4", (client_frame(payload, FINAL | CLOSE),), echo(payload, CLOSE))
    for code, payload in closes((0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)):
        yield bad(f"7.9 code {code}", "7.4", client_frame(payload, FINAL | CLOSE))
        yield bad(f"7.9 code {code} with a reason", "7.4", client_frame(payload + b"bye", FINAL | CLOSE))


CASES = [*framing(), *pings(), *headers(), *fragmentation(), *utf8(), *closing()]
