"""The sockets a gateway listens on: bound once, before anything else, and then handed to whoever serves them."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, replace

from tornado.netutil import bind_sockets

from core.config.settings import Bind, Settings
from core.errors import GatewayError
from process.certificate import Certificate

BACKLOG = 1024

Sockets = tuple[socket.socket, ...]


class CannotListen(GatewayError):
    """An address that cannot be bound, and the variable that sets another."""

    def __init__(self, bind: Bind, reason: str, variable: str) -> None:
        self.bind = bind
        self.reason = reason
        self.variable = variable
        super().__init__(f"cannot listen on {bind}: {reason}; choose another address with {variable}")


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound and listening. `slots` has one set of sockets a worker; `metrics` and `admin` are shared by all (empty: not set).

    `certificate` is what TLS is spoken with on those of the slots; None: they speak none.
    """

    slots: tuple[Sockets, ...]
    metrics: Sockets = ()
    admin: Sockets = ()
    certificate: Certificate | None = None

    @property
    def bound(self) -> Bind:
        """The first address, with the port of the system's choice where 0 was asked for."""
        return Bind(*self.slots[0][0].getsockname()[:2])

    @property
    def reachable(self) -> Bind:
        """Where it can be reached from this machine."""
        bound = self.bound
        return Bind("127.0.0.1", bound.port) if bound.host in ("0.0.0.0", "::") else bound

    def close(self) -> None:
        """Let go of all of them."""
        for sockets in (*self.slots, self.metrics, self.admin):
            for one in sockets:
                one.close()


def listen(settings: Settings, workers: int = 1, certificate: Certificate | None = None) -> Listeners:
    """Bind `bind` for so many workers, `metrics.bind` and `admin.bind` once. Raises CannotListen."""
    first = _bind(settings.bind, "BIND_ADDR")
    try:
        slots = _slots(first, workers)
    except OSError as error:
        Listeners((first,)).close()
        raise CannotListen(settings.bind, error.strerror or str(error), "BIND_ADDR") from error
    listeners = Listeners(slots, certificate=certificate)
    try:
        if settings.metrics.bind is not None:
            listeners = replace(listeners, metrics=_bind(settings.metrics.bind, "GATEWAY_METRICS_BIND"))
        if settings.admin.bind is not None:
            listeners = replace(listeners, admin=_bind(settings.admin.bind, "GATEWAY_ADMIN_BIND"))
    except CannotListen:
        listeners.close()
        raise
    return listeners


def _bind(bind: Bind, variable: str) -> Sockets:
    try:
        return tuple(bind_sockets(bind.port, bind.host, backlog=BACKLOG))
    except OSError as error:
        raise CannotListen(bind, error.strerror or str(error), variable) from error


def _slots(first: Sockets, workers: int) -> tuple[Sockets, ...]:
    """The same addresses once for each worker, connections spread over them by the kernel, by a hash of both ends.

    One socket shared by all is spread by who wakes first. Measured on 2 cores, 1,000 connections over 2 workers, three
    runs each: shared between 500 : 500 and 371 : 629, even where nobody had anything else to do; a socket each
    between 501 : 499 and 468 : 532.
    """
    if workers == 1:
        return (first,)
    if not sys.platform.startswith("linux"):
        # Elsewhere the option is there and does not spread: one socket for all, by as many handles.
        return (first, *(tuple(one.dup() for one in first) for _ in range(workers - 1)))
    for one in first:
        # Only now: bound with the option, the address of another gateway with workers would have been shared in silence.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return (first, *(tuple(_beside(one) for one in first) for _ in range(workers - 1)))


def _beside(first: socket.socket) -> socket.socket:
    one = socket.socket(first.family, first.type, first.proto)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setblocking(False)
        one.bind(first.getsockname())
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one
