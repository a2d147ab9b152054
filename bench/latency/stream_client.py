"""Part: one WebSocket client on the default stream, on a plain blocking socket. `PORT RUN COUNT SECONDS`

Nothing but the socket and the frames (RFC 6455), so that what is measured is the gateway.
"""

from __future__ import annotations

import socket
import sys
import time

from bench.support.processes import await_go, tell
from bench.support.records import latencies_ms, marker

REQUEST = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, PING = 0x1, 0x9


def main() -> None:
    """Read until COUNT events of the run have come, or for SECONDS."""
    port, run, count, seconds = sys.argv[1:]
    connection = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(REQUEST.format(port=port).encode())
    waiting = bytearray()
    while b"\r\n\r\n" not in waiting:
        data = connection.recv(65536)
        if not data:
            break
        waiting += data
    head, _, rest = waiting.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        sys.exit(f"stream client: refused: {bytes(head[:100])!r}")
    waiting = bytearray(rest)
    connection.settimeout(0.5)
    of_run = marker(run)
    received: list[tuple[int, bytes]] = []
    await_go()
    deadline = time.monotonic() + float(seconds)
    while len(received) < int(count) and time.monotonic() < deadline:
        try:
            data = connection.recv(1 << 20)
        except TimeoutError:
            continue
        now = time.monotonic_ns()
        if not data:
            sys.exit("stream client: the gateway closed the connection")
        waiting += data
        while (frame := take_frame(waiting)) is not None:
            opcode, payload = frame
            if opcode == PING:
                # A mask of zeros leaves the payload as it is.
                connection.sendall(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
            elif opcode == TEXT and of_run in payload:
                received.append((now, payload))
    tell(latencies_ms(received))
    connection.close()


def take_frame(waiting: bytearray) -> tuple[int, bytes] | None:
    """The first whole frame of a server, taken off `waiting`: its opcode and payload; None if there is none yet."""
    if len(waiting) < 2:
        return None
    size, start = waiting[1] & 0x7F, 2
    if size >= 126:
        start = 4 if size == 126 else 10
        if len(waiting) < start:
            return None
        size = int.from_bytes(waiting[2:start], "big")
    if len(waiting) < start + size:
        return None
    frame = waiting[0] & 0x0F, bytes(waiting[start : start + size])
    del waiting[: start + size]
    return frame


if __name__ == "__main__":
    main()
