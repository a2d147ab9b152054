"""A connection's socket as its outbox writes to it."""

from __future__ import annotations

import socket
import ssl
from asyncio import Future
from collections.abc import Callable
from struct import Struct

from tornado.iostream import IOStream, StreamClosedError

from core.delivery.liveness import Progress
from core.delivery.outbox import Send
from handlers.tls import TlsStream

# Linux alone tells how far a peer's kernel is (tcp(7), `struct tcp_info`): there bytes_acked, bytes_received and notsent_bytes.
TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
TCP_INFO_BYTES = Struct("=120x Q Q 8x I")


def progress_of(stream: IOStream, read_bytes: int) -> Progress:
    """How far an open connection has come, of which so many bytes were read as frames."""
    unsent = len(stream._write_buffer)
    if TCP_INFO is None:
        return Progress(read_bytes, stream._total_write_done_index, unsent)
    info = stream.socket.getsockopt(socket.IPPROTO_TCP, TCP_INFO, TCP_INFO_BYTES.size)
    acknowledged, received, in_kernel = TCP_INFO_BYTES.unpack(info)
    return Progress(received, acknowledged, unsent + in_kernel)


def transport_of(stream: IOStream, on_drained: Callable[[], None]) -> SocketTransport:
    """What an outbox writes to of such a stream."""
    return (TlsTransport if isinstance(stream, TlsStream) else SocketTransport)(stream, on_drained)


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

    def moved(self) -> int:
        """Bytes that have left the stream's buffer, and those that the peer's kernel has acknowledged, since the beginning."""
        left = self._stream._total_write_done_index
        return left if self._stream.closed() else left + progress_of(self._stream, 0).acknowledged

    def _written(self, future: Future[None]) -> None:
        if future.exception() is None:
            self._on_drained()


class TlsTransport(SocketTransport):
    """The same under TLS. What is not taken may have begun to leave: it comes again as a whole, through the stream."""

    __slots__ = ()

    def send(self, data: bytes) -> int:
        """All of it, or nothing."""
        try:
            return self._socket.send(data)
        except ssl.SSLWantWriteError:
            return 0

    def sender(self) -> Send:
        """`send`: OpenSSL's own raises what the fan-out takes for the connection's end."""
        return self.send
