"""A connection's socket as its outbox writes to it."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable

from tornado.iostream import IOStream, StreamClosedError

from core.delivery.outbox import Send


class SocketTransport:
    """An IOStream as an outbox needs it: straight to the socket while the stream's own buffer is empty."""

    __slots__ = ("_on_drained", "_socket", "_stream")

    def __init__(self, stream: IOStream, on_drained: Callable[[], None]) -> None:
        self._stream = stream
        self._on_drained = on_drained
        # The socket and not the descriptor's number: after a close it raises, and reaches nobody else.
        self._socket = stream.socket

    def is_empty(self) -> bool:
        """Nothing waits in the stream's buffer; there is none after the close, where `send` then raises."""
        return not self._stream._write_buffer

    def send(self, data: bytes) -> int:
        """To the kernel, as much as it takes."""
        return self._socket.send(data)

    def sender(self) -> Send:
        """The socket's own `send`."""
        return self._socket.send

    def spill(self, data: bytes | memoryview) -> None:
        """Leave to the stream what the kernel did not take."""
        try:
            self._stream.write(data).add_done_callback(self._written)
        except StreamClosedError:
            pass  # the handler hears of it by itself

    def written(self) -> int:
        """Bytes that have left the stream's buffer since the connection began."""
        return self._stream._total_write_done_index

    def _written(self, future: Future[None]) -> None:
        if future.exception() is None:
            self._on_drained()
