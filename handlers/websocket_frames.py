"""What a client's bytes say as WebSocket frames (RFC 6455) with permessage-deflate (RFC 7692): bytes in, messages out.

No input or output of its own. Whatever arrives is looked at once and at once: text that is not UTF-8 and a message that is too
large are told by the first byte that shows it, in the middle of a frame and compressed as well.
"""

from __future__ import annotations

import zlib
from codecs import utf_8_decode
from typing import Any

from tornado.util import _websocket_mask

from core.delivery.frames import FLUSH_TAIL
from core.errors import CloseCode

# RFC 6455 section 5.2.
FINAL, RSV1, RSV_MASK, OPCODE_MASK, MASKED, CONTROL = 0x80, 0x40, 0x70, 0x0F, 0x80, 0x08
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MOST_CONTROL_BYTES = 125
MASK_BYTES = 4
# How far back a compressed message may point (RFC 7692 section 7.1.2).
WINDOW_BYTES = 1 << zlib.MAX_WBITS
# Of what ends a stream: only where the block before is whole, it is read as that (RFC 1951 section 3.2.3).
LAST_BLOCK = b"\x03\x00"
ENDING = FLUSH_TAIL + LAST_BLOCK
# What may be left where a stream has ended, before and behind `ENDING`: nothing, or a byte of padding (RFC 7692 section 7.2.3.4).
BEHIND = (b"", b"\x00")
BEHIND_LAST = (b"", LAST_BLOCK, ENDING, b"\x00" + ENDING)


class FrameError(Exception):
    """What closes the connection, with this code and reason."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def broken() -> FrameError:
    """The client breaks RFC 6455."""
    return FrameError(CloseCode.PROTOCOL_ERROR, "protocol error")


def too_big() -> FrameError:
    """The client sends more in a message than is taken."""
    return FrameError(CloseCode.TOO_BIG, "message too big")


def not_deflated() -> FrameError:
    """A message that is said to be compressed cannot be read."""
    return FrameError(CloseCode.BAD_DATA, "not deflated data")


def not_utf8() -> FrameError:
    """A text is none."""
    return FrameError(CloseCode.BAD_DATA, "not UTF-8")


class Inflater:
    """Reads a client's compressed messages, each of `max_bytes` at most, piece by piece.

    It remembers what came before all the same: there are clients that do not see that they were asked to forget
    (Tornado's own). But as text and not as a decompressor, which would hold 40 KB for as long as the connection lives.
    A message may end its stream (RFC 7692 section 7.2.3.4), with nothing but a byte of padding behind it.
    """

    __slots__ = ("_max_bytes", "_past", "_room", "_stream")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._past = b""
        self._stream: Any = None
        self._room = 0

    def inflate(self, piece: bytes, is_last: bool) -> bytes:
        """What a piece of a message adds to it. Raises `FrameError`."""
        stream = self._stream
        if stream is None:
            stream = self._stream = zlib.decompressobj(-zlib.MAX_WBITS, self._past)
            self._room = self._max_bytes
        try:
            # One more than there may be, so that nothing is left unread where the message is as large as it may be.
            text: bytes = stream.decompress(piece, self._room + 1)
            if is_last and len(text) <= self._room:
                text += stream.decompress(ENDING, self._room + 1 - len(text))
        except zlib.error:
            raise not_deflated() from None
        self._room -= len(text)
        if self._room < 0:
            raise too_big()
        if stream.unused_data not in (BEHIND_LAST if is_last else BEHIND) or (is_last and not stream.eof):
            raise not_deflated()
        self._past = (self._past + text)[-WINDOW_BYTES:]
        if is_last:
            self._stream = None
        return text


def may_be_sent(close: bytes) -> bool:
    """Whether this may be the payload of a Close frame: nothing, or a code and text (RFC 6455 sections 5.5.1 and 7.4).

    1004 to 1006, 1015 and what nobody has registered are not for the wire; above 3000 are libraries' and applications' own.
    """
    code = int.from_bytes(close[:2], "big")
    try:
        close[2:].decode()
    except UnicodeDecodeError:
        return False
    return not close or (len(close) >= 2 and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999))


class FrameReader:
    """The frames of one client. Slots, because there are thousands."""

    __slots__ = (
        "_at", "_cut", "_data", "_first", "_inflater", "_is_compressed", "_is_inside", "_left", "_mask", "_max_bytes",
        "_message", "_opcode", "_size",
    )  # fmt: skip

    def __init__(self, max_message_bytes: int, deflates: bool = False) -> None:
        """`deflates` is whether permessage-deflate was agreed to; the bound counts as sent and as inflated."""
        self._max_bytes = max_message_bytes
        self._inflater = Inflater(max_message_bytes) if deflates else None
        # What was fed, and how far it is read.
        self._data = b""
        self._at = 0
        # Of the frame whose payload is being read: its first byte, and the payload that has yet to come.
        self._is_inside = False
        self._first = 0
        self._left = 0
        self._mask = b""
        # Of the message that is being read: what it is, its bytes as sent, its text so far, and a character that is cut.
        self._opcode = CONTINUATION
        self._is_compressed = False
        self._size = 0
        self._message: bytearray | None = None
        self._cut = b""

    def feed(self, data: bytes) -> None:
        """What has come; call `next` until there is nothing more."""
        self._data += data

    def next(self) -> tuple[int, bytes] | None:
        """The next message (TEXT, which is UTF-8, or BINARY) or control frame (PING, PONG, CLOSE) and its payload.

        None: more has to come first. Raises `FrameError`; there is no reading on behind it.
        """
        text = self._whole_text()
        if text is not None:
            return TEXT, text
        while self._is_inside or self._begin():
            at, left = self._at, self._left
            piece = self._data[at : at + left]
            left -= len(piece)
            first = self._first
            if first & CONTROL:
                if left:
                    break  # at most 125 bytes: they can wait
                piece = _websocket_mask(self._mask, piece)
                self._at = at + len(piece)
                self._is_inside = False
                opcode = first & OPCODE_MASK
                if opcode == CLOSE and not may_be_sent(piece):
                    raise broken()
                return opcode, piece
            if left and not piece:
                break
            mask = self._mask
            self._at = at + len(piece)
            if left:
                self._left = left
                turn = len(piece) % MASK_BYTES
                self._mask = mask[turn:] + mask[:turn]
            else:
                self._is_inside = False
            message = self._take(_websocket_mask(mask, piece), not left and first & FINAL != 0)
            if message is not None:
                return self._opcode, message
        # An idle connection keeps nothing.
        self._data = self._data[self._at :]
        self._at = 0
        return None

    def _whole_text(self) -> bytes | None:
        """As nearly all come: a short text in one frame, which is there, of characters that are a byte each. None for all else."""
        data, at = self._data, self._at
        if self._is_inside or self._message is not None or len(data) < at + 8 or data[at] != FINAL | TEXT:
            return None
        size = data[at + 1] - MASKED
        at += 2
        if size == 126:
            size = data[at] << 8 | data[at + 1]
            at += 2
            if size < 126:
                return None
        elif not 0 <= size < 126:
            return None
        begin = at + MASK_BYTES
        end = begin + size
        if end > len(data) or size > self._max_bytes:
            return None
        text = _websocket_mask(data[at:begin], data[begin:end])
        if not text.isascii():
            return None
        self._at = end
        return text

    def _begin(self) -> bool:
        """Read the header of a frame, if it has come whole."""
        data, at = self._data, self._at
        there = len(data) - at
        if there < 2:
            return False
        first, size = data[at], data[at + 1]
        opcode = first & OPCODE_MASK
        # RFC 7692 section 6: the first frame of a message says whether it is compressed, and only it.
        if first & RSV_MASK and (first & RSV_MASK != RSV1 or self._inflater is None or opcode not in (TEXT, BINARY)):
            raise broken()
        if not size & MASKED:
            raise broken()
        size &= ~MASKED
        at += 2
        if opcode & CONTROL:
            if opcode > PONG or not first & FINAL or size > MOST_CONTROL_BYTES:
                raise broken()
        else:
            if opcode > BINARY or (opcode == CONTINUATION) != (self._message is not None):
                raise broken()
            if size > MOST_CONTROL_BYTES:
                width = 2 if size == 126 else 8
                if there < 2 + width:
                    return False
                size = int.from_bytes(data[at : at + width], "big")
                # In the fewest bytes, and within 63 bits.
                if size < (126 if width == 2 else 1 << 16) or size >> 63:
                    raise broken()
                at += width
            if size + (self._size if opcode == CONTINUATION else 0) > self._max_bytes:
                raise too_big()
        if len(data) < at + MASK_BYTES:
            return False
        if not opcode & CONTROL:
            if opcode:
                self._opcode = opcode
                self._is_compressed = first & RSV1 != 0
                self._size = 0
            self._size += size
        self._mask = data[at : at + MASK_BYTES]
        self._at = at + MASK_BYTES
        self._first = first
        self._left = size
        self._is_inside = True
        return True

    def _take(self, piece: bytes, is_last: bool) -> bytes | None:
        """Add to the message; it is given back when it is whole."""
        if self._is_compressed:
            assert self._inflater is not None
            piece = self._inflater.inflate(piece, is_last)
        message = self._message
        if self._opcode == TEXT and (self._cut or not is_last or not piece.isascii()):
            text = self._cut + piece
            try:
                cut = self._cut = text[utf_8_decode(text, "strict", is_last)[1] :]
            except UnicodeDecodeError:
                raise not_utf8() from None
            # Python waits for the third byte of a surrogate, which the second shows.
            if cut and cut[0] == 0xED and len(cut) > 1 and cut[1] >= 0xA0:
                raise not_utf8()
        if is_last:
            self._message = None
            return piece if message is None else bytes(message + piece)
        if message is None:
            self._message = bytearray(piece)
        else:
            message += piece
        return None
