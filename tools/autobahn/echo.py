"""A server that says what it is told, by the frame layer of `/ws`: its protocol reads, and what the fan-out writes is the answer."""

from __future__ import annotations

from tornado.web import Application
from tornado.websocket import WebSocketHandler, WebSocketProtocol, _WebSocketParams

from core.delivery.frames import deflated_frame, text_frame
from handlers.message_turns import MessageTurns
from handlers.websocket_protocol import GatewayProtocol

FINAL_BINARY = 0x82
# Autobahn's largest is 16 MiB.
MAX_MESSAGE_BYTES = 1 << 24


class EchoHandler(WebSocketHandler):
    """One client."""

    cause: str | None = None

    def initialize(self, max_message_bytes: int) -> None:
        """The bound is of what is read."""
        self._max_message_bytes = max_message_bytes

    def check_origin(self, origin: str) -> bool:
        """Anybody."""
        return True

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """The gateway's, with compression for whoever offers it."""
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        params = _WebSocketParams(max_message_size=self._max_message_bytes)
        return GatewayProtocol(self, False, params, may_deflate=True, turns=MessageTurns())

    def on_text(self, data: bytes) -> None:
        """Compressed where it was agreed to and pays."""
        assert isinstance(self.ws_connection, GatewayProtocol)
        self._write(deflated_frame(data) if self.ws_connection.deflates else text_frame(data))

    def on_message(self, message: str | bytes) -> None:
        """Binary."""
        assert isinstance(message, bytes)
        self._write(text_frame(message, FINAL_BINARY))

    def _write(self, frame: bytes) -> None:
        assert isinstance(self.ws_connection, GatewayProtocol)
        if not self.ws_connection.is_closing():
            self.ws_connection.stream.write(frame)

    def leave(self) -> None:
        """Nothing else is to be left."""

    def wrote_frame(self) -> None:
        """All that is written goes through the stream."""


def application(max_message_bytes: int = MAX_MESSAGE_BYTES) -> Application:
    """The server, at `/`."""
    served = {"max_message_bytes": max_message_bytes}
    return Application([("/", EchoHandler, served)], log_function=lambda _handler: None)
