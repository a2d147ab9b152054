"""WebSocket frames as a server writes them (RFC 6455 section 5.2): unmasked, unfragmented text."""

from __future__ import annotations

from struct import Struct

_MEDIUM = Struct("!BBH").pack
_LARGE = Struct("!BBQ").pack


def text_frame(payload: bytes) -> bytes:
    """One whole text frame around `payload`, which has to be UTF-8."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return _MEDIUM(0x81, 126, size) + payload
    return _LARGE(0x81, 127, size) + payload
