"""File descriptors: enough of them for the connections that are wanted, and a server that never runs out of them.

A new descriptor gets the lowest number that is free (POSIX), so its number tells how many are in use without counting them.
Three marks below the limit, from the lowest:

- `room`: as many WebSocket connections as this are held; the next upgrades get 503 from their handler. What is above
  it is left for REST.
- `limit - own`: whoever connects then is served by an application that answers 503 to everything and hangs up. What
  is above it is the process's own: Kafka, files, services, and those that are being refused.
- half of that too, or the system has none left: nothing is accepted for a moment; who connects waits in the backlog. Tornado
  by itself would come back for the same connection at once, with a traceback in the log each time.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application

from core.quiet_log import QuietLog
from core.settings import Settings

log = logging.getLogger("gateway.connections")

# For everything that is no WebSocket connection, or half of a low limit.
RESERVE = 1024
# Of it for what is no client, or a quarter of a low limit.
OWN = 256
# Where the hard limit is infinite (and the kernel's is not told), or nobody says how many connections are wanted.
MOST = 1 << 20

# Each accept, with the handshake in the next turn, is more than half a millisecond: so many keep a turn of the loop at
# the length of a slice of the fan-out. Tornado takes up to 128.
ACCEPTS_PER_TURN = 8
PAUSE_SECONDS = 0.2
REFUSED_SECONDS = 5.0
# The process's, the system's, or the memory for one more: accept(2).
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def limit() -> int:
    """How many descriptors this process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft


def raise_limit(wanted: int) -> int:
    """Allow this process `wanted` descriptors, or as many as it may take; return how many it then has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            # An infinite hard limit may hide a finite one of the kernel's (macOS: kern.maxfilesperproc).
            log.warning("the limit of open files stays at %d: %s", soft, error)
    return limit()


def reserve(descriptors: int) -> int:
    """Of so many, those that are kept from WebSocket connections."""
    return min(RESERVE, descriptors // 2)


def own(descriptors: int) -> int:
    """Of so many, those that are kept from all clients."""
    return min(OWN, descriptors // 4)


def with_room(settings: Settings) -> Settings:
    """Take the descriptors that the settings ask for; the settings with as many connections as there then is room for.

    One line in the log if that is fewer.
    """
    wanted = settings.websocket.max_connections
    descriptors = raise_limit(wanted + RESERVE if wanted else MOST)
    room = descriptors - reserve(descriptors)
    if 0 < wanted <= room:
        return settings
    if wanted:
        log.warning(
            "room for %d connections, not websocket.max_connections (%d): the limit of open files is %d; see ulimit -n",
            room, wanted, descriptors,
        )  # fmt: skip
    return replace(settings, websocket=replace(settings.websocket, max_connections=room))


Take = Callable[[socket.socket, Any], None]


class _Door:
    """One listening socket, and who takes what is accepted there: `serve`, or when it is crowded `refuse`."""

    def __init__(self, listener: socket.socket, serve: Take, refuse: Take) -> None:
        self._listener = listener
        self._serve = serve
        self._refuse = refuse
        self._loop = IOLoop.current()
        self._quiet_log = QuietLog(log)
        self._pause: object | None = None
        self._open()

    def _open(self) -> None:
        self._pause = None
        self._loop.add_handler(self._listener, self._on_waiting, IOLoop.READ)

    def close(self) -> None:
        """Accept nothing more. The socket stays the caller's."""
        if self._pause is None:
            self._loop.remove_handler(self._listener)
        else:
            self._loop.remove_timeout(self._pause)

    def _on_waiting(self, _listener: object, _events: int) -> None:
        # Asked each time: an operator can change it while the process runs (prlimit).
        most = limit()
        kept = own(most)
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it was given up while it waited
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._wait(error.strerror or "")
                return
            number = connection.fileno()
            if number < most - kept:
                self._serve(connection, address)
                continue
            self._quiet_log.warning(
                "full", "full: %d of %d files are open, new connections are answered 503", number + 1, most
            )
            self._refuse(connection, address)
            if number >= most - kept // 2:
                self._wait("too many are being refused")
                return

    def _wait(self, why: str) -> None:
        self._quiet_log.warning("pause", "nothing is accepted for %g s: %s", PAUSE_SECONDS, why)
        self._loop.remove_handler(self._listener)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._open)


class Server(HTTPServer):
    """Tornado's, with doors of our own.

    `crowded` is the application of those for whom there is no room; its answers have to be errors, for the connection
    ends with the first.
    """

    def initialize(self, application: Application, crowded: Application, **more: Any) -> None:  # type: ignore[override]
        """`more` are HTTPServer's."""
        super().initialize(application, **more)
        self._crowded = HTTPServer(
            crowded, no_keep_alive=True, idle_connection_timeout=REFUSED_SECONDS, body_timeout=REFUSED_SECONDS
        )

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept what comes to these sockets, a few connections in each turn of the loop."""
        for listener in sockets:
            number = listener.fileno()
            self._sockets[number] = listener
            self._handlers[number] = _Door(listener, self._handle_connection, self._crowded._handle_connection).close

    async def close_all_connections(self) -> None:
        """Close them in whatever state they are."""
        await super().close_all_connections()
        await self._crowded.close_all_connections()
