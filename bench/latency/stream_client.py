"""Part: one WebSocket client on the default stream, on a plain blocking socket. `PORT RUN COUNT SECONDS`"""

from __future__ import annotations

import sys
import time

from bench.support.processes import await_go, tell
from bench.support.records import latencies_ms, marker
from bench.support.websocket import PING, PONG, TEXT, client_frame, connect, take_frame


def main() -> None:
    """Read until COUNT events of the run have come, or for SECONDS."""
    port, run, count, seconds = sys.argv[1:]
    connection, waiting = connect(int(port), "/ws")
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
                connection.sendall(client_frame(PONG, payload))
            elif opcode == TEXT and of_run in payload:
                received.append((now, payload))
    tell(latencies_ms(received))
    connection.close()


if __name__ == "__main__":
    main()
