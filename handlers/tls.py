"""TLS below the handlers: Tornado's, with the manners of a `ServerStream`.

OpenSSL sends records. One of which the kernel took a part is OpenSSL's, which wants the same bytes again to go on: so whatever was
not taken is given back as a whole, and nothing else goes to the socket before it (handlers/websocket_transport.py).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable

from tornado.iostream import SSLIOStream

from handlers.http_connection import ServerStream

SPEAKS_TLS = ("bad-request", "this address speaks TLS: ask for https:// or wss://")


class TlsStream(ServerStream, SSLIOStream):
    """A server's end of a connection that is encrypted from its first byte on."""

    def __init__(self, context: ssl.SSLContext, connection: socket.socket, max_buffer_size: int | None = None) -> None:
        """Takes the connection over. Raises OSError if its peer is gone already."""
        connection.getpeername()  # of one that was reset `wrap_socket` would leave behind an open socket
        wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        super().__init__(wrapped, ssl_options=context, max_buffer_size=max_buffer_size)

    # Whether a handshake reads or writes OpenSSL says anew each time.
    _handle_events = SSLIOStream._handle_events

    def read_some(self, most: int) -> Awaitable[bytes]:
        """What comes out of OpenSSL is Tornado's to read."""
        return self.read_bytes(most, partial=True)

    def close_fd(self) -> None:
        """See Tornado; the peer is told that nothing was cut off (RFC 8446 section 6.1)."""
        if not self.is_handed_over:
            _say_close(self.socket)
        super().close_fd()

    def _has_come(self) -> bool:
        # Encrypted bytes cannot be looked at without taking them, and nobody else wants them any more.
        try:
            return bool(self.socket.recv(1))
        except OSError:
            return False

    def _do_ssl_handshake(self) -> None:
        """See Tornado, which writes a line about everybody who tries a port. HTTP without TLS gets an answer."""
        self._handshake_reading = self._handshake_writing = False
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self._handshake_reading = True
        except ssl.SSLWantWriteError:
            self._handshake_writing = True
        except (OSError, AttributeError) as error:  # without an attribute: it was reset before it was wrapped
            if isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST" and self.on_left is not None:
                on_left, self.on_left = self.on_left, None
                on_left(_bare(self.hand_over()), SPEAKS_TLS)
            else:
                self.close(error)
        else:
            self._ssl_accepting = False
            self._finish_ssl_connect()


def end_writing(connection: socket.socket) -> None:
    """Let the peer see an end behind what was sent, of either kind of socket; reading goes on. Raises OSError."""
    if isinstance(connection, ssl.SSLSocket):
        _say_close(connection)
    connection.shutdown(socket.SHUT_WR)


def say_over_tls(connection: socket.socket, answer: bytes) -> socket.socket:
    """Say it, as much as the kernel takes at once; gives the bare socket, on which what is still read means nothing."""
    assert isinstance(connection, ssl.SSLSocket)
    try:
        if answer:
            connection.send(answer)
        _say_close(connection)
    except OSError:
        pass
    return _bare(connection)


def _say_close(connection: ssl.SSLSocket) -> None:
    try:
        connection.unwrap()
    except (OSError, ValueError):
        pass  # its peer has not said so yet, or is gone


def _bare(connection: socket.socket) -> socket.socket:
    bare = socket.socket(fileno=connection.detach())
    bare.setblocking(False)
    return bare
