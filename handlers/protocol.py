"""Tornado's WebSocket protocol where it drops a connection without a word.

Three things differ: a message that is too large, or a frame that breaks RFC 6455, gets a Close frame that arrives, because
what the client is still sending is read before the socket is closed (closing with unread data resets the
connection, which destroys the Close frame on its way); text that is not UTF-8 is answered like any other message
that is not JSON; and whatever closes the connection, the handler leaves the hub first, so that nothing lands behind
the Close frame.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.gen import with_timeout
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

TEXT_OPCODE = 0x1
PROTOCOL_ERROR = 1002
LINGER_SECONDS = 5.0
QUIET_SECONDS = 0.5


class GatewayProtocol(WebSocketProtocol13):
    """One connection's frames."""

    _lingering: asyncio.Task[None] | None = None

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Begin or answer the closing handshake."""
        self.handler.leave()  # type: ignore[attr-defined]
        super().close(code, reason)

    def _handle_message(self, opcode: int, data: bytes) -> Any:
        if opcode == TEXT_OPCODE and not self._frame_compressed and not self.client_terminated:
            self._message_bytes_in += len(data)
            return self._run_callback(self.handler.on_text, data)  # type: ignore[attr-defined]
        return super()._handle_message(opcode, data)

    def _abort(self) -> None:
        if self.stream.closed() or self.stream.reading():
            super()._abort()
            return
        if self._lingering is not None:
            return  # the frame loop takes its leave; the socket is closed when the peer has had its say
        if not self.server_terminated:
            self.close(PROTOCOL_ERROR, "protocol error")
        self.client_terminated = True  # ends the loop that reads frames
        self._lingering = asyncio.get_running_loop().create_task(self._linger())

    async def _linger(self) -> None:
        loop = IOLoop.current()  # whose time is what `with_timeout` goes by; asyncio's is another
        deadline = loop.time() + LINGER_SECONDS
        try:
            while (now := loop.time()) < deadline:
                reading = self.stream.read_bytes(65_536, partial=True)
                await with_timeout(min(deadline, now + QUIET_SECONDS), reading, quiet_exceptions=StreamClosedError)
        except (StreamClosedError, TimeoutError):
            pass
        super()._abort()
