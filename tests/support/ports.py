"""Ports of the loopback for what cannot choose its own."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that is nobody else's until the tests end: a connection to it is refused until somebody listens there.

    It stays bound, without listening, as long as this process lives. Beside that only a socket can listen that sets
    SO_REUSEADDR, as servers do, and that was told the number; the kernel gives it to nobody who asks for any.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = int(holder.getsockname()[1])
        holder.detach()  # stays open, and belongs to the process
    return port
