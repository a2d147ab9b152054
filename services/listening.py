"""The sockets a gateway listens on, bound before anything else."""

from __future__ import annotations

import socket

from tornado.netutil import bind_sockets

from core.errors import GatewayError
from core.settings import Bind

BACKLOG = 1024


class CannotListen(GatewayError):
    """An address that cannot be bound, and the variable that sets another."""

    def __init__(self, bind: Bind, reason: str, variable: str) -> None:
        self.bind = bind
        self.reason = reason
        self.variable = variable
        super().__init__(f"cannot listen on {bind}: {reason}; choose another address with {variable}")


def listen(bind: Bind | None, variable: str) -> list[socket.socket]:
    """Sockets that listen there, more than one where a name has several addresses. Raises CannotListen."""
    if bind is None:
        return []
    try:
        return bind_sockets(bind.port, bind.host, backlog=BACKLOG)
    except OSError as error:
        raise CannotListen(bind, error.strerror or str(error), variable) from error
