"""Taking connections: a few a turn, as many as fit, and none of them left without an answer.

Tornado's own loop takes up to 128 at a time, and out of descriptors it raises at each turn, at full speed, for as long as
somebody waits. Here a connection that does not fit is answered 503 with Retry-After: from descriptors that are kept
for this, a few at a time, while nothing else is taken.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterable

from tornado.httpserver import HTTPServer

from core.log_throttle import QuietLog
from handlers.http_connection import ServerStream
from handlers.raw_problems import PIECE_BYTES, raw_problem, say_last
from handlers.tls import TlsStream, say_over_tls

log = logging.getLogger("gateway.http")

# Whoever is connected already gets a turn after so many.
ACCEPTS_A_TURN = 16
# Descriptors kept for refusals.
SPARE = 8
# How much a kernel holds that has not been sent. By itself it would take megabytes in front of an outbox's bound, and of
# pings; so it takes what keeps the line busy. Connections have it from the socket they were accepted on.
UNSENT_BYTES = 65_536
MAX_REFUSING = 64
REFUSE_SECONDS = 1.0
# Those whose request had no handler, or who are still sending when they have their answer: how many are heard to their end at
# once, how long each has, and how long it may say nothing.
MAX_TELLING = 256
TELL_SECONDS = 30.0
QUIET_SECONDS = 5.0
PAUSE_SECONDS = 0.1
RETRY_AFTER_SECONDS = 5

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2): errors of the connection that was waiting, not of ours; the next one may be well.
PASSING = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
    }
)


class Listener:
    """Accepts for an HTTP server on sockets that it is given and that are taken from it."""

    def __init__(
        self,
        server: HTTPServer,
        *,
        most: int,
        clients: Callable[[], int],
        on_refused: Callable[[str], None] = lambda _slug: None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`most` connections at once, the server's and the `clients`, which have left it by their upgrade.

        `tls` gives what a new connection is encrypted by; None: nothing is.
        """
        self._server = server
        self._most = most
        self._clients = clients
        self._on_refused = on_refused
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}
        self._refusing: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._spare: list[int] = []
        self._resuming: asyncio.TimerHandle | None = None
        self._closed = False
        self._quiet_log = QuietLog(log)
        self._fill()

    def accept_on(self, sockets: Iterable[socket.socket]) -> None:
        """Accept on these too. Harmless when repeated, and once it is closed."""
        if self._closed:
            return
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._sockets[one.fileno()] = one
            if self._resuming is None:
                self._loop.add_reader(one, self._accept, one)

    def stop_accepting_on(self, sockets: Iterable[socket.socket]) -> None:
        """Accept no more on these. They stay open, and what waits there waits for somebody else."""
        for one in sockets:
            if self._sockets.pop(one.fileno(), None) is not None:
                self._loop.remove_reader(one)

    def close(self) -> None:
        """Accept nothing any more, and close the sockets. Harmless when repeated."""
        self._closed = True
        sockets = list(self._sockets.values())
        self.stop_accepting_on(sockets)
        for one in sockets:
            one.close()
        if self._resuming is not None:
            self._resuming.cancel()
        for task in (*self._refusing, *self._telling):
            task.cancel()
        while self._spare:
            os.close(self._spare.pop())

    def open_connections(self) -> int:
        """Everything that was accepted and is not over."""
        return len(self._server._connections) + len(self._telling) + self._clients()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in PASSING:
                    continue
                self._on_error(listening, error)
                return
            if self.open_connections() < self._most:
                self._serve(connection, address)
            else:
                self._refuse(connection, f"{self._most} connections are open, and no more fit")

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        try:
            stream = self._stream(connection)
            if stream is None:
                return
            stream.on_left = self._tell
            self._server.handle_stream(stream, address)
        except Exception:  # of one connection; the others are not to wait for ever
            log.exception("a connection could not be served")
            connection.close()

    def _stream(self, connection: socket.socket) -> ServerStream | None:
        """None: the peer has left meanwhile."""
        if self._tls is None:
            return ServerStream(connection, max_buffer_size=self._server.max_buffer_size)
        try:
            return TlsStream(self._tls(), connection, self._server.max_buffer_size)
        except OSError:
            connection.close()
            return None

    def _tell(self, connection: socket.socket, problem: tuple[str, str] | None) -> None:
        """A request that no handler has is answered with this problem, and its connection ends."""
        answer = b"" if problem is None else raw_problem(*problem)
        if problem is not None:
            self._on_refused(problem[0])
        if isinstance(connection, ssl.SSLSocket):
            connection, answer = say_over_tls(connection, answer), b""
        if len(self._telling) >= MAX_TELLING:
            _say_at_once(connection, answer)
            return
        task = self._loop.create_task(_say(connection, answer, TELL_SECONDS))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    # Out of room.

    def _on_error(self, listening: socket.socket, error: OSError) -> None:
        if error.errno not in EXHAUSTED or not self._spare:
            self._quiet_log.warning("accept", "no connection can be taken: %s", error.strerror)
            self._pause()
            return
        os.close(self._spare.pop())
        try:
            connection, _ = listening.accept()
        except OSError:  # it left, or something else was quicker
            self._fill()
            self._pause()
            return
        self._refuse(connection, error.strerror or "out of descriptors")

    def _refuse(self, connection: socket.socket, why: str) -> None:
        self._quiet_log.warning("full", "connections are refused: %s", why)
        self._on_refused("unavailable")
        connection.setblocking(False)
        full = raw_problem("unavailable", "no more connections can be held", {"Retry-After": str(RETRY_AFTER_SECONDS)})
        if self._tls is None:
            saying = _say(connection, full, REFUSE_SECONDS, is_unread=True)
        else:
            saying = self._say_encrypted(connection, full)
        task = self._loop.create_task(saying)
        self._refusing.add(task)
        task.add_done_callback(self._refused)
        if not self._spare or len(self._refusing) >= MAX_REFUSING:
            self._pause()

    async def _say_encrypted(self, connection: socket.socket, answer: bytes) -> None:
        if (stream := self._stream(connection)) is None:
            return
        try:
            async with asyncio.timeout(REFUSE_SECONDS):
                await stream.read_bytes(65_536, partial=True)  # behind the handshake
        except (OSError, TimeoutError):
            stream.close()
            return
        await _say(say_over_tls(stream.hand_over(), answer), b"", REFUSE_SECONDS)

    def _refused(self, task: asyncio.Task[None]) -> None:
        self._refusing.discard(task)
        self._fill()

    def _fill(self) -> None:
        try:
            while len(self._spare) < SPARE and not self._closed:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass  # tried again with the next refusal that ends, or pause

    def _pause(self) -> None:
        if self._resuming is not None:
            return
        for one in self._sockets.values():
            self._loop.remove_reader(one)
        self._resuming = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._fill()
        if len(self._refusing) >= MAX_REFUSING:
            self._pause()
            return
        for one in self._sockets.values():
            self._loop.add_reader(one, self._accept, one)


async def _say(connection: socket.socket, answer: bytes, seconds: float, *, is_unread: bool = False) -> None:
    # Not before the request `is_unread`: who has not asked yet may not expect an answer.
    with connection:
        try:
            async with asyncio.timeout(seconds):
                if is_unread:
                    await asyncio.get_running_loop().sock_recv(connection, 65_536)
                await say_last(connection, answer, QUIET_SECONDS)
        except (OSError, TimeoutError):
            pass


def _say_at_once(connection: socket.socket, answer: bytes) -> None:
    """As much as can be done for one more: what it has sent and will send may yet take the answer with it."""
    with connection:
        try:
            connection.send(answer)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(PIECE_BYTES)
        except OSError:
            pass
