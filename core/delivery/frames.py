"""WebSocket frames as a server writes them: unmasked, unfragmented text (RFC 6455 section 5.2), perhaps deflated.

Deflated frames keep no context from one message to the next (RFC 7692 section 7.1.1.1, `server_no_context_takeover`): so
one compressed frame serves every client that agreed to it, and nothing is ever compressed for one client alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from struct import Struct
from typing import Final, cast

_MEDIUM = Struct("!BBH").pack
_LARGE = Struct("!BBQ").pack

FIN_TEXT: Final = 0x81
# With RSV1, which marks a message as compressed (RFC 7692 section 6).
FIN_TEXT_DEFLATED: Final = 0xC1

# A single small event shrinks to four fifths at best, which is not worth anybody's time.
DEFLATE_FROM_BYTES: Final = 256
DEFLATE_LEVEL: Final = 3
# What a flush ends with and a message leaves out (RFC 7692 section 7.2.1).
FLUSH_TAIL: Final = b"\x00\x00\xff\xff"


def text_frame(payload: bytes, first: int = FIN_TEXT) -> bytes:
    """One whole text frame around `payload`, which has to be UTF-8."""
    return frame_head(len(payload), first) + payload


def frame_head(size: int, first: int = FIN_TEXT) -> bytes:
    """What stands before so many bytes of text, for who puts a frame together a piece at a time."""
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return _MEDIUM(first, 126, size)
    return _LARGE(first, 127, size)


def deflated_frame(payload: bytes) -> bytes:
    """The same, compressed where that pays; for clients that negotiated permessage-deflate."""
    if len(payload) < DEFLATE_FROM_BYTES:
        return text_frame(payload)
    deflate = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return text_frame(packed.removesuffix(FLUSH_TAIL), FIN_TEXT_DEFLATED)


class Bundle:
    """Messages for many: the bytes of their frames, made once for each kind of client and only if there is one.

    What is `private` to one client is never compressed.
    """

    __slots__ = ("_deflated", "_plain", "_private", "_texts")

    def __init__(self, texts: Sequence[bytes], private: bool = False) -> None:
        self._texts = texts
        self._private = private
        self._plain: bytes | None = None
        self._deflated: bytes | None = None

    @classmethod
    def of_frame(cls, frame: bytes | memoryview) -> Bundle:
        """One message for one client, in its frame already, which nobody changes any more."""
        bundle = cls((b"",), private=True)
        bundle._plain = cast("bytes", frame)  # it is only read
        return bundle

    def __len__(self) -> int:
        """How many messages."""
        return len(self._texts)

    @property
    def plain(self) -> bytes:
        """Frames for clients without compression."""
        if self._plain is None:
            self._plain = b"".join([text_frame(text) for text in self._texts])
        return self._plain

    @property
    def deflated(self) -> bytes:
        """Frames for clients with it."""
        if self._private:
            return self.plain
        if self._deflated is None:
            self._deflated = b"".join([deflated_frame(text) for text in self._texts])
        return self._deflated
