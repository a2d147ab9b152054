"""Part: the client that asks for all that it may. `PORT KIND`

KIND `depths`: 1,000 views of one symbol, the best 1 to 1,000 levels; `groupings`: 500, in steps of 1 to 500 ticks.
"""

from __future__ import annotations

import json
import select
import sys
import time

from bench.many_views.market import SYMBOL
from bench.support.processes import tell
from bench.support.websocket import CLOSE, PING, PONG, TEXT, client_frame, connect, take_frame

NAMES = {
    "depths": [f"book.{SYMBOL}.none.{depth}.raw" for depth in range(1, 1001)],
    "groupings": [f"book.{SYMBOL}.{grouping}.all.raw" for grouping in range(1, 501)],
}


def main() -> None:
    """Tell when each view has been told once; then read until told a line, and tell how much."""
    port, kind = sys.argv[1:]
    connection, waiting = connect(int(port), "/ws?stream=none")
    names = NAMES[kind]
    asked_at = time.monotonic()
    for some in range(0, len(names), 250):
        request = {"id": some, "method": "public/subscribe", "params": {"channels": names[some : some + 250]}}
        connection.sendall(client_frame(TEXT, json.dumps(request).encode()))
    left = len(names) + len(names) // 250
    told = 0

    def read() -> int:
        texts = 0
        waiting.extend(connection.recv(1 << 20))
        while (frame := take_frame(waiting)) is not None:
            opcode, payload = frame
            if opcode == PING:
                connection.sendall(client_frame(PONG, payload))
            elif opcode == CLOSE:
                sys.exit(f"viewer: closed with {int.from_bytes(payload[:2], 'big')}")
            texts += 1
        return texts

    while left > 0:
        left -= read()
    tell({"seconds": time.monotonic() - asked_at})
    began = time.monotonic()
    while sys.stdin not in (ready := select.select([connection, sys.stdin], [], [])[0]):
        if ready:
            told += read()
    tell({"notifications": told, "seconds": time.monotonic() - began})


if __name__ == "__main__":
    main()
