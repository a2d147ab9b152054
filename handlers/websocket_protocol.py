"""Tornado's WebSocket protocol where it drops a connection without a word, and where it is not RFC 6455 to the letter.

Frames are read by a reader of our own, a buffer and not a few bytes at a time. Whatever cannot be read gets a
Close frame that arrives, because what the client is still sending is read before the socket is closed (closing with
unread data resets the connection, which destroys the Close frame on its way). And whatever closes the connection, the
handler leaves the hub first, so that nothing lands behind the Close frame.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable
from typing import Any

from tornado.gen import with_timeout
from tornado.httputil import HTTPHeaders
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from core.delivery.liveness import Progress
from core.errors import CloseCode
from handlers.http_connection import ServerStream
from handlers.message_turns import MessageShare, MessageTurns
from handlers.tls import end_writing
from handlers.websocket_frames import CLOSE, PING, PONG, TEXT, FrameError, FrameReader
from handlers.websocket_transport import progress_of

LINGER_SECONDS = 5.0
QUIET_SECONDS = 0.5
# Why a client is closed that showed no sign of life.
PING_TIMEOUT = "ping timeout"
# Between two looks at what comes of who floods: meanwhile its kernel holds it back.
FLOOD_PAUSE_SECONDS = 0.05
# What is read at once, and after how much others get their turn: so many bytes, where a frame counts as some.
READ_BYTES = 16_384
TURN_BYTES = 65_536
FRAME_BYTES = 1024
# RFC 7692 sections 7.1.1.1 and 7.1.1.2: a server may ask for both, offered or not.
DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
WINDOW_BITS = {str(bits) for bits in range(8, 16)}
NO_VALUE = {""}
# By parameter of an offer: the values that it may have (RFC 7692 section 7.1).
PARAMETERS = {
    "server_no_context_takeover": NO_VALUE,
    "client_no_context_takeover": NO_VALUE,
    "server_max_window_bits": WINDOW_BITS,
    "client_max_window_bits": WINDOW_BITS | NO_VALUE,
}


def agreed_deflate(offers: str) -> tuple[str, bool] | None:
    """What a client's `Sec-WebSocket-Extensions` comes to: our answer, and whether it may be sent compressed messages.

    None without an offer of permessage-deflate that can be met: what nobody knows has to be declined (RFC 7692 section 7).
    One that demands a smaller window of the server is met by sending nothing compressed: our frames are everybody's.
    """
    for offer in offers.split(","):
        name, *parameters = [part.strip() for part in offer.split(";")]
        asked: dict[str, str] = {}
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            asked[key.strip()] = "twice" if key.strip() in asked else value.strip().strip('"')
        if name == "permessage-deflate" and all(value in PARAMETERS.get(key, ()) for key, value in asked.items()):
            bits = asked.get("server_max_window_bits")
            return (DEFLATE, True) if bits is None else (f"{DEFLATE}; server_max_window_bits={bits}", bits == "15")
    return None


class GatewayProtocol(WebSocketProtocol13):
    """One connection's frames. Slots, because with more than 30 attributes its dictionary takes a kilobyte more."""

    __slots__ = ("_before", "_lingering", "_may_deflate", "_pause_seconds", "_reader", "_share", "deflates")

    def __init__(
        self,
        handler: WebSocketHandler,
        mask_outgoing: bool,
        params: _WebSocketParams,
        *,
        may_deflate: bool,
        turns: MessageTurns,
    ) -> None:
        """`turns` are of all connections. `may_deflate` lets clients negotiate permessage-deflate; `deflates` is then whether this one may be sent it."""
        super().__init__(handler, mask_outgoing, params)
        self._may_deflate = may_deflate
        self._lingering: asyncio.Task[None] | None = None
        self._reader = FrameReader(params.max_message_size)
        self._share = MessageShare(turns)
        self._pause_seconds = 0.0
        # Where the connection was at the last ping.
        self._before: Progress | None = None
        self.deflates = False

    async def _accept_connection(self, handler: WebSocketHandler) -> None:
        offers = ",".join(handler.request.headers.get_list("Sec-WebSocket-Extensions"))
        if self._may_deflate and (agreed := agreed_deflate(offers)) is not None:
            answer, self.deflates = agreed
            handler.set_header("Sec-WebSocket-Extensions", answer)
            self._reader = FrameReader(self.params.max_message_size, deflates=True)
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
                self.close(CloseCode.PING_TIMEOUT, PING_TIMEOUT)
                return
            self.write_ping(b"")
            # With the ping: the peer's kernel may have no room for its end.
            self._before = progress_of(self.stream, self._wire_bytes_in)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Begin or answer the closing handshake. Every close comes through here, Tornado's own as well."""
        if reason is not None and not self.is_closing():
            self.handler.cause = reason  # type: ignore[attr-defined]
        self.handler.leave()  # type: ignore[attr-defined]
        super().close(code, reason)

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Any:
        # A ping, a pong or a close: what the kernel did not take of it has to go before what the hub sends.
        written = super()._write_frame(fin, opcode, data, flags)
        self.handler.wrote_frame()  # type: ignore[attr-defined]
        return written

    async def _receive_frame_loop(self) -> None:
        reader, share, clock = self._reader, self._share, self._share.clock
        read = 0
        try:
            while not self.client_terminated:
                message = reader.next()
                if message is None:
                    share.end_turn()
                    data = await self._read()
                    self._wire_bytes_in += len(data)
                    reader.feed(data)
                    read += len(data)
                else:
                    size = len(message[1])
                    began = clock()
                    turn = share.turn(size, began)
                    if turn is not None:
                        await turn
                        if self.client_terminated:
                            break
                        share.begin_turn()
                        read = 0
                        began = clock()
                    handled = self._take(*message)
                    share.end(began, size)
                    if handled is not None:
                        await handled
                    read += FRAME_BYTES
                if read >= TURN_BYTES and share.turn_left <= 0:
                    read = 0
                    await asyncio.sleep(0)
        except FrameError as error:
            self.close(error.code, error.reason)
            self._abort()
        except StreamClosedError:
            self._abort()
        finally:
            self.handler.on_ws_connection_close(self.close_code, self.close_reason)

    def _read(self) -> Awaitable[bytes]:
        stream = self.stream
        if isinstance(stream, ServerStream):
            return stream.read_some(READ_BYTES)
        return stream.read_bytes(READ_BYTES, partial=True)

    def _take(self, opcode: int, payload: bytes) -> Any:
        """Do what a message or a control frame asks for; what is given back has to be waited for."""
        if opcode == TEXT:
            return self._run_callback(self.handler.on_text, payload)  # type: ignore[attr-defined]
        if opcode == PING:
            self._send_pong(payload)
        elif opcode == CLOSE:
            if payload:
                self.close_code = int.from_bytes(payload[:2], "big")
                self.close_reason = payload[2:].decode()
            self.close(self.close_code)
            # What the client has asked for and our own Close may be on their way, and it may be sending still.
            self._abort()
        elif opcode != PONG:
            return self._run_callback(self.handler.on_message, payload)
        return None

    def hear_no_more(self) -> None:
        """Behind our Close to who floods: what still comes is thrown away, a little at a time, until it ends or for some seconds."""
        self._pause_seconds = FLOOD_PAUSE_SECONDS
        self._abort()

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
        reading: Any = None
        try:
            self.stream.write(b"").add_done_callback(self._end_writing)
            while (now := loop.time()) < deadline:
                if reading is None or reading.done():
                    if reading is not None and self._pause_seconds:
                        await asyncio.sleep(self._pause_seconds)
                    reading = self.stream.read_bytes(65_536, partial=True)
                try:
                    await with_timeout(min(deadline, now + QUIET_SECONDS), reading, quiet_exceptions=StreamClosedError)
                except TimeoutError:
                    if not self.stream.writing():
                        break
        except StreamClosedError:
            pass
        # Its exception's traceback has this frame, which would have it: a cycle.
        reading = None
        super()._abort()

    def _end_writing(self, written: Future[None]) -> None:
        """The server ends first (RFC 6455 section 7.1.1), and the client sees it behind the Close frame."""
        if written.exception() is None and not self.stream.closed():
            try:
                end_writing(self.stream.socket)
            except OSError:
                pass  # it was reset
