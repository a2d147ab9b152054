"""Part: orders over keep-alive connections, one in flight on each. `PORT CONNECTIONS SECONDS RUN KIND TOKEN`

KIND is `rest`, `ws`, `burst` (twenty messages at once on a connection, and the next twenty when all are answered) or `batch` (twenty
orders a message); TOKEN is empty for an anonymous caller.

One epoll loop over plain sockets with prepared requests, in which only the number is new: some 20 microseconds a
request, so that the server is what is measured. Its own CPU time is told, to see that this holds.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import Counter

from bench.support.processes import await_go, tell
from bench.support.websocket import TEXT, client_frame, connect

BODY = (
    '{"symbol":"KCN/EUR","side":"bid","order_type":"limit","price":"99.50","quantity":"0.125",'
    '"client_order_id":"%s-%%010d"}'
)
HEAD = (
    "POST /api/order HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
    "%sContent-Length: %d\r\n\r\n"
)
CALL = '{"id":1,"method":"private/place_order","params":%s}'
BATCH = 20
BATCH_ORDER = '{"method":"place","params":%s}'
BATCH_CALL = '{"id":1,"method":"private/batch","params":{"requests":[%s]}}'
ANSWER_SECONDS = 10.0


class Load:
    """The connections and what came back on them."""

    def __init__(self, port: int, connections: int, run: str, kind: str, token: str) -> None:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        body = BODY % run
        self._is_rest = kind == "rest"
        self.orders_a_message = 1
        self._frames = 1
        if self._is_rest:
            self._request = (HEAD % (authorization, len(body % 0)) + body).encode()
        else:
            call = CALL % body
            if kind == "batch":
                self.orders_a_message = BATCH
                call = BATCH_CALL % ",".join([BATCH_ORDER % body] * BATCH)
            # The numbers of all orders are of one length, and so are the calls; a client's frame leaves them readable.
            length = len(call % ((0,) * self.orders_a_message))
            self._request = client_frame(TEXT, b"0" * length)[:-length] + call.encode()
            if kind == "burst":
                self._request *= BATCH
                self.orders_a_message = self._frames = BATCH
        self._sockets: dict[int, socket.socket] = {}
        self._sent_ns: dict[int, int] = {}
        self._partial: dict[int, bytes] = {}
        self._poll = select.epoll()
        self._number = 0
        self.latencies_ms: list[float] = []
        self.refused: Counter[str] = Counter()
        for _ in range(connections):
            if self._is_rest:
                connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                connection, _ = connect(port, "/ws?stream=none", token)
            self._sockets[connection.fileno()] = connection
            self._poll.register(connection.fileno(), select.EPOLLIN)

    def run(self, seconds: float) -> float:
        """Send for so long, wait for the last answers; return the seconds until then."""
        started = time.monotonic()
        stop = started + seconds
        for number in self._sockets:
            self._send(number)
        while self._sent_ns:
            ready = self._poll.poll(ANSWER_SECONDS)
            if not ready:
                sys.exit(f"order load: {len(self._sent_ns)} orders without an answer")
            more = time.monotonic() < stop
            for number, _ in ready:
                if self._take(number) and more:
                    self._send(number)
        return time.monotonic() - started

    def _send(self, number: int) -> None:
        numbers = range(self._number, self._number + self.orders_a_message)
        self._number += self.orders_a_message
        self._sent_ns[number] = time.monotonic_ns()
        self._sockets[number].sendall(self._request % tuple(numbers))

    def _take(self, number: int) -> bool:
        data = self._sockets[number].recv(65536)
        now = time.monotonic_ns()
        if not data:
            sys.exit("order load: the server closed a connection")
        data = self._partial.pop(number, b"") + data
        if not self._is_rest:
            return self._take_frame(number, data, now)
        head, found, body = data.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            self._partial[number] = data
            return False
        self.latencies_ms.append((now - self._sent_ns.pop(number)) / 1e6)
        if not head.startswith(b"HTTP/1.1 202"):
            self.refused[f"{head[9:12].decode()} {body[:200]!r}"] += 1
        return True

    def _take_frame(self, number: int, data: bytes, now: int) -> bool:
        # Answers are shorter than 65,536 bytes; a ping of the server's is not awaited in a run so short.
        end = 0
        for _ in range(self._frames):
            start = end + (4 if data[end + 1 : end + 2] == b"\x7e" else 2)
            if len(data) >= start:
                end = start + (data[start - 1] if start == end + 2 else int.from_bytes(data[start - 2 : start], "big"))
            if len(data) < max(start, end):
                self._partial[number] = data
                return False
        self.latencies_ms.append((now - self._sent_ns.pop(number)) / 1e6)
        if b'"error"' in data:
            self.refused[repr(data[:200])] += 1
        return True


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


def main() -> None:
    """Connect, and after `go` send; then tell what came back."""
    port, connections, seconds, run, kind, token = sys.argv[1:]
    load = Load(int(port), int(connections), run, kind, token)
    await_go()
    before = time.process_time()
    elapsed = load.run(float(seconds))
    tell(
        {
            "seconds": elapsed,
            "cpu_seconds": time.process_time() - before,
            "latencies_ms": load.latencies_ms,
            "orders": len(load.latencies_ms) * load.orders_a_message,
            "refused": dict(load.refused.most_common(3)),
        }
    )


if __name__ == "__main__":
    main()
