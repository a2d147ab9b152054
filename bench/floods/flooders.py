"""Part: clients that flood. `PORT SECONDS KIND TOKEN...`

One for each token. KIND `short`: subscriptions to a channel that there is not; `long`: to hundreds that there are, other ones
each time, and to one that there is not.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import Counter

from bench.many_views.market import SYMBOL
from bench.support.processes import await_go, tell
from bench.support.websocket import TEXT, client_frame, upgrade

LONGEST = 16_000
# So many before they repeat: what the gateway remembers of names is not to help it.
DIFFERENT = {"short": 10, "long": 100}


def subscription(kind: str, number: int) -> bytes:
    """A frame."""
    channels = ["no such channel"]
    if kind == "long":
        channels = [f"book.{SYMBOL}.{number + 1}.{one + 1}.raw" for one in range(LONGEST // 27)] + channels
    request = {"id": number, "method": "public/subscribe", "params": {"channels": channels}}
    return client_frame(TEXT, json.dumps(request, separators=(",", ":")).encode())


class Flooder:
    """One client: it comes, sends, is closed or turned away, and comes again."""

    def __init__(self, port: int, token: str, flood: bytes, counts: Counter[str]) -> None:
        self._port = port
        self._token = token
        self._flood = flood
        self._counts = counts
        self._at = 0
        self._head: bytes | None = b""
        self.socket = self._come()

    def _come(self) -> socket.socket:
        self._head, self._at = b"", 0
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        connection.sendall(upgrade(self._port, "/ws?stream=none", self._token))
        connection.setblocking(False)
        return connection

    def come_again(self) -> None:
        """On another connection."""
        self.socket.close()
        self.socket = self._come()

    def is_over(self, events: int) -> bool:
        """Read and send what can be; whether the connection has ended."""
        try:
            if events & ~select.EPOLLOUT:
                data = self.socket.recv(65_536)
                if not data:
                    self._counts["closed for it"] += 1
                    return True
                if self._head is not None:
                    self._head += data
                    if b"\r\n\r\n" not in self._head:
                        return False
                    if not self._head.startswith(b"HTTP/1.1 101"):
                        self._counts["turned away"] += 1
                        return True
                    self._head = None
            if self._head is None and events & select.EPOLLOUT:
                self._at = (self._at + self.socket.send(self._flood[self._at :])) % len(self._flood)
        except BlockingIOError:
            pass
        except ConnectionError:
            self._counts["closed for it"] += 1
            return True
        return False


def main() -> None:
    """After `go`, for SECONDS. Tells how often they were closed and how often turned away at the door."""
    port, seconds, kind, *tokens = sys.argv[1:]
    flood = b"".join(subscription(kind, number) for number in range(DIFFERENT[kind]))
    counts = Counter[str]({"closed for it": 0, "turned away": 0})
    await_go()
    poll = select.epoll()
    flooders: dict[int, Flooder] = {}

    def watch(flooder: Flooder) -> None:
        flooders[flooder.socket.fileno()] = flooder
        poll.register(flooder.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    for token in tokens:
        watch(Flooder(int(port), token, flood, counts))
    ends = time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        for number, events in poll.poll(0.1):
            flooder = flooders[number]
            if flooder.is_over(events):
                del flooders[number]
                flooder.come_again()
                watch(flooder)
    tell(counts)


if __name__ == "__main__":
    main()
