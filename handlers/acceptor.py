"""Taking connections: a few a turn, as many as fit, and none of them left without an answer.

Tornado's own loop takes up to 128 at a time, and out of descriptors it raises at each turn, at full speed, for as long as
somebody waits. Here a connection that does not fit is answered 503 with Retry-After: from descriptors that are kept
for this, a few at a time, while nothing else is taken.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable
from types import TracebackType

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from core.errors import PROBLEMS
from core.log_throttle import QuietLog

log = logging.getLogger("gateway.http")

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

# Whoever is connected already gets a turn after so many.
ACCEPTS_A_TURN = 16
# Descriptors kept for refusals.
SPARE = 8
# How much a kernel holds that has not been sent. By itself it would take megabytes in front of an outbox's bound, and of
# pings; so it takes what keeps the line busy. Connections have it from the socket they were accepted on.
UNSENT_BYTES = 65_536
MAX_REFUSING = 64
REFUSE_SECONDS = 1.0
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


class ServerStream(IOStream):
    """An IOStream that goes as soon as nobody holds it, also when its peer did not say goodbye.

    Tornado keeps the error that closed a stream. The error's traceback, and that of the error in whose handling it came up,
    refer to the frames they came through and to those that called them: to the stream itself, so that only the garbage
    collector would find it, and, where it was the fan-out that came upon the error, to the lists of everybody who was being
    served.
    """

    def close(self, exc_info: bool | BaseException | ExcInfo | None = False) -> None:
        """See Tornado; of an error only what went wrong is kept, and not where."""
        # A copy has neither traceback nor context, and gets none when the error is raised further.
        super().close(copy.copy(exc_info) if isinstance(exc_info, BaseException) else exc_info)


class Listener:
    """Accepts for an HTTP server on sockets that it is given and that are taken from it."""

    def __init__(
        self,
        server: HTTPServer,
        *,
        most: int,
        clients: Callable[[], int],
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """`most` connections at once, the server's and the `clients`, which have left it by their upgrade."""
        self._server = server
        self._most = most
        self._clients = clients
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}
        self._refusing: set[asyncio.Task[None]] = set()
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
        for task in self._refusing:
            task.cancel()
        while self._spare:
            os.close(self._spare.pop())

    def open_connections(self) -> int:
        """Everything that was accepted and is not over."""
        return len(self._server._connections) + self._clients()

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
            self._server.handle_stream(ServerStream(connection, max_buffer_size=self._server.max_buffer_size), address)
        except Exception:  # of one connection; the others are not to wait for ever
            log.exception("a connection could not be served")
            connection.close()

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
        self._on_refused()
        connection.setblocking(False)
        task = self._loop.create_task(self._say_no(connection))
        self._refusing.add(task)
        task.add_done_callback(self._refused)
        if not self._spare or len(self._refusing) >= MAX_REFUSING:
            self._pause()

    async def _say_no(self, connection: socket.socket) -> None:
        # The request is read, and the end waited for: a close with something unread takes the answer with it.
        with connection:
            try:
                async with asyncio.timeout(REFUSE_SECONDS):
                    await self._loop.sock_recv(connection, 65_536)
                    await self._loop.sock_sendall(connection, _refusal())
                    connection.shutdown(socket.SHUT_WR)
                    while await self._loop.sock_recv(connection, 65_536):
                        pass
            except (OSError, TimeoutError):
                pass

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


def _refusal() -> bytes:
    problem, request_id = PROBLEMS["unavailable"], os.urandom(8).hex()
    error = "no more connections can be held"
    body = json.dumps(
        {
            "type": problem.type,
            "title": problem.title,
            "status": problem.status,
            "detail": error,
            "error": error,
            "request_id": request_id,
        }
    )
    lines = [
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        f"Retry-After: {RETRY_AFTER_SECONDS}",
        f"X-Request-Id: {request_id}",
        "Cache-Control: no-store",
        "Connection: close",
        "",
        body,
    ]
    return "\r\n".join(lines).encode()
