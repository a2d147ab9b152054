"""Tornado's WebSocket protocol where it drops a connection without a word, and where it is not RFC 6455 to the letter.

Frames are read here: Tornado takes unmasked ones, inflates control frames that claim to be compressed, forgets by a ping in
its midst that a message is compressed, and echoes whatever is given as a close code. Whatever cannot be read gets a
Close frame that arrives, because what the client is still sending is read before the socket is closed (closing with
unread data resets the connection, which destroys the Close frame on its way). And whatever closes the connection, the
handler leaves the hub first, so that nothing lands behind the Close frame.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable
from typing import Any

from tornado.gen import with_timeout
from tornado.httputil import HTTPHeaders
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.util import _websocket_mask
from tornado.websocket import (
    WebSocketHandler,
    WebSocketProtocol13,
    _DecompressTooLargeError,
    _WebSocketParams,
)

from core.delivery.frames import FLUSH_TAIL
from core.delivery.progress import Progress
from core.errors import CloseCode
from handlers.websocket_transport import progress_of

# RFC 6455 section 5.2.
FINAL, RSV1, RSV_MASK, OPCODE_MASK, MASKED, CONTROL = 0x80, 0x40, 0x70, 0x0F, 0x80, 0x08
CONTINUATION_OPCODE, TEXT_OPCODE, BINARY_OPCODE, CLOSE_OPCODE, PONG_OPCODE = 0x0, 0x1, 0x2, 0x8, 0xA
MOST_CONTROL_BYTES = 125
# How far back a compressed message may point (RFC 7692 section 7.1.2).
WINDOW_BYTES = 1 << zlib.MAX_WBITS
LINGER_SECONDS = 5.0
QUIET_SECONDS = 0.5
# RFC 7692 sections 7.1.1.1 and 7.1.1.2: a server may ask for both, offered or not.
DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
MET_PARAMETERS = {"server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits"}


class Inflater:
    """Reads a client's compressed messages, each of `max_bytes` at most; the interface is Tornado's.

    It remembers what came before all the same: there are clients that do not see that they were asked to forget
    (Tornado's own). But as text and not as a decompressor, which would hold 40 KB for as long as the connection lives.
    A message may end its stream (RFC 7692 section 7.2.3.5).
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._past = b""

    def decompress(self, data: bytes) -> bytes:
        """One message. Raises `_DecompressTooLargeError` and `zlib.error`."""
        inflate = zlib.decompressobj(-zlib.MAX_WBITS, self._past)
        message = inflate.decompress(data + FLUSH_TAIL, self._max_bytes)
        if inflate.unconsumed_tail:
            raise _DecompressTooLargeError()
        self._past = (self._past + message)[-WINDOW_BYTES:]
        return message


def offers_deflate(offers: str) -> bool:
    """Whether a client's `Sec-WebSocket-Extensions` has an offer of permessage-deflate that can be met.

    One that demands a smaller window of the server cannot: the frames are everybody's (RFC 7692 section 7.1.2.1). One
    with a parameter that nobody knows has to be declined (section 7.1).
    """
    for offer in offers.split(","):
        name, *parameters = [part.strip() for part in offer.split(";")]
        names = {parameter.partition("=")[0].strip() for parameter in parameters}
        if name == "permessage-deflate" and names <= MET_PARAMETERS:
            return True
    return False


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


class GatewayProtocol(WebSocketProtocol13):
    """One connection's frames. Slots, because with more than 30 attributes its dictionary takes a kilobyte more."""

    __slots__ = ("_before", "_first", "_lingering", "_may_deflate", "_pieces", "deflates")

    def __init__(
        self, handler: WebSocketHandler, mask_outgoing: bool, params: _WebSocketParams, *, may_deflate: bool
    ) -> None:
        """`may_deflate` lets clients negotiate permessage-deflate; `deflates` then says whether this one did."""
        super().__init__(handler, mask_outgoing, params)
        self._may_deflate = may_deflate
        self._lingering: asyncio.Task[None] | None = None
        # What has come of a message in pieces, and the first byte of the first.
        self._pieces: bytearray | None = None
        self._first = 0
        # Where the connection was at the last ping.
        self._before: Progress | None = None
        self.deflates = False

    async def _accept_connection(self, handler: WebSocketHandler) -> None:
        offers = ",".join(handler.request.headers.get_list("Sec-WebSocket-Extensions"))
        if self._may_deflate and offers_deflate(offers):
            self.deflates = True
            handler.set_header("Sec-WebSocket-Extensions", DEFLATE)
            self._decompressor = Inflater(self.params.max_message_size)  # type: ignore[assignment]
        await super()._accept_connection(handler)

    def _parse_extensions_header(self, headers: HTTPHeaders) -> list[tuple[str, dict[str, str]]]:
        # Tornado drops parameters without a value, so it can see neither form of no_context_takeover.
        return []

    def ping_every(self, seconds: float) -> None:
        """From now on."""
        if seconds == self.ping_interval:
            return
        self.params.ping_interval = seconds
        if self._ping_coroutine is not None:
            self._ping_coroutine.cancel()
            self._ping_coroutine = None
        self._before = None
        self.start_pinging()

    async def periodic_ping(self) -> None:
        """Ping, and end the connection when nothing shows that the peer lives until the next is due."""
        while True:
            await asyncio.sleep(self.ping_interval)
            if self.is_closing():
                return
            now = progress_of(self.stream, self._wire_bytes_in)
            if self._before is not None and not now.shows_life_since(self._before):
                self.close(CloseCode.PING_TIMEOUT, "ping timeout")
                return
            self.write_ping(b"")
            # With the ping: the peer's kernel may have no room for its end.
            self._before = progress_of(self.stream, self._wire_bytes_in)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Begin or answer the closing handshake. Every close comes through here, Tornado's own as well."""
        if not self.is_closing():
            self.handler.cause = reason  # type: ignore[attr-defined]
        self.handler.leave()  # type: ignore[attr-defined]
        super().close(code, reason)

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Any:
        # A ping, a pong or a close: what the kernel did not take of it has to go before what the hub sends.
        written = super()._write_frame(fin, opcode, data, flags)
        self.handler.wrote_frame()  # type: ignore[attr-defined]
        return written

    async def _receive_frame(self) -> None:
        first, size = await self._read_bytes(2)
        opcode = first & OPCODE_MASK
        continues = opcode == CONTINUATION_OPCODE
        # RFC 7692 section 6: the first frame of a message says whether it is compressed, and only it.
        reserved = RSV_MASK & ~RSV1 if self.deflates and opcode in (TEXT_OPCODE, BINARY_OPCODE) else RSV_MASK
        if first & reserved or not size & MASKED:
            self._abort()
            return
        size &= ~MASKED
        if opcode & CONTROL:
            if not first & FINAL or size > MOST_CONTROL_BYTES:
                self._abort()
                return
        else:
            if opcode > BINARY_OPCODE or continues != (self._pieces is not None):
                self._abort()
                return
            if size > MOST_CONTROL_BYTES:
                size = int.from_bytes(await self._read_bytes(2 if size == 126 else 8), "big")
            if size + len(self._pieces or b"") > self.params.max_message_size:
                self.close(CloseCode.TOO_BIG, "message too big")
                self._abort()
                return
        mask = await self._read_bytes(4)
        data = _websocket_mask(mask, await self._read_bytes(size))
        if opcode & CONTROL:
            if opcode > PONG_OPCODE or (opcode == CLOSE_OPCODE and not may_be_sent(data)):
                self._abort()
                return
            self._frame_compressed = False
            handled = super()._handle_message(opcode, data)
        elif continues or not first & FINAL:
            if self._pieces is None:
                self._pieces, self._first = bytearray(), first
            self._pieces += data
            if not first & FINAL:
                return
            data, self._pieces = bytes(self._pieces), None
            handled = self._take_message(self._first, data)
        else:
            handled = self._take_message(first, data)
        if handled is not None:
            await handled

    def _take_message(self, first: int, data: bytes) -> Any:
        """A whole message of this first byte."""
        if self.client_terminated:
            return None
        is_text = first & OPCODE_MASK == TEXT_OPCODE
        try:
            if first & RSV1:
                assert self._decompressor is not None
                data = self._decompressor.decompress(data)
            if is_text:
                data.decode()
        except _DecompressTooLargeError:
            self.close(CloseCode.TOO_BIG, "message too big")
        except zlib.error:
            self.close(CloseCode.BAD_DATA, "not deflated data")
        except UnicodeDecodeError:
            self.close(CloseCode.BAD_DATA, "not UTF-8")
        else:
            self._message_bytes_in += len(data)
            return self._run_callback(self.handler.on_text if is_text else self.handler.on_message, data)  # type: ignore[attr-defined]
        self._abort()
        return None

    def _abort(self) -> None:
        if self.stream.closed() or self.stream.reading():
            super()._abort()
            return
        if self._lingering is not None:
            return  # the frame loop takes its leave; the socket is closed when the peer has had its say
        if not self.server_terminated:
            self.close(CloseCode.PROTOCOL_ERROR, "protocol error")
        self.client_terminated = True  # ends the loop that reads frames
        self._lingering = asyncio.get_running_loop().create_task(self._linger())

    async def _linger(self) -> None:
        loop = IOLoop.current()  # whose time is what `with_timeout` goes by; asyncio's is another
        deadline = loop.time() + LINGER_SECONDS
        reading: Awaitable[bytes] | None = None
        try:
            while (now := loop.time()) < deadline:
                reading = self.stream.read_bytes(65_536, partial=True)
                await with_timeout(min(deadline, now + QUIET_SECONDS), reading, quiet_exceptions=StreamClosedError)
        except (StreamClosedError, TimeoutError):
            pass
        # Its exception's traceback has this frame, which would have it: a cycle.
        reading = None
        super()._abort()
