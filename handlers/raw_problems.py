"""Problems for who has no handler: a connection that does not fit, a head that cannot be read, a body that does not come."""

from __future__ import annotations

import asyncio
import http
import json
import os
import socket
from collections.abc import Mapping

from core.errors import PROBLEMS

PIECE_BYTES = 65_536
# As much as of a body that is too large.
MOST_DROPPED_BYTES = 64 * 1024 * 1024


def raw_problem(slug: str, error: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The whole answer, behind which the connection ends."""
    problem, request_id = PROBLEMS[slug], os.urandom(8).hex()
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
        f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        f"X-Request-Id: {request_id}",
        "Cache-Control: no-store",
        "Connection: close",
        "",
        body,
    ]
    return "\r\n".join(lines).encode()


async def say_last(connection: socket.socket, answer: bytes, quiet_seconds: float) -> None:
    """Send it, and read what the peer still sends until it ends: a close with something unread takes the answer with it.

    Not more than `MOST_DROPPED_BYTES`. Raises TimeoutError if the peer says nothing for so long, and OSError.
    """
    loop = asyncio.get_running_loop()
    if answer:
        await loop.sock_sendall(connection, answer)
    connection.shutdown(socket.SHUT_WR)
    for _ in range(MOST_DROPPED_BYTES // PIECE_BYTES):
        async with asyncio.timeout(quiet_seconds):
            if not await loop.sock_recv(connection, PIECE_BYTES):
                return
        # Of what has come `sock_recv` gives without a turn for anybody else.
        await asyncio.sleep(0)
