"""Part: orders over REST at a steady pace. `PORT ORDERS_A_SECOND SECONDS RUN SYMBOLS TOKEN`

Of two orders one after the other on a symbol one buys and one sells. An answer's time is from when its order was due.
"""

from __future__ import annotations

import sys
import time
from collections import deque

from bench.orders.load import ANSWER_SECONDS, HEAD, Load
from bench.state.market import symbols
from bench.support.processes import await_go, tell

CONNECTIONS = 32
BODY = (
    '{"symbol":"%s","side":"%s","order_type":"limit","price":"1000.00","quantity":"0.125",'
    '"client_order_id":"%s-%%010d"}'
)


class Traders(Load):
    """An order when it is due, on a connection that has none in flight."""

    def __init__(self, port: int, rate: float, run: str, names: list[str], token: str) -> None:
        super().__init__(port, CONNECTIONS, run, "rest", token)
        self._gap_seconds = 1 / rate
        self._run = run
        self._names = names
        self._authorization = f"Authorization: Bearer {token}\r\n"

    def run(self, seconds: float) -> float:
        """Order for so long; the seconds until the last answer."""
        free = deque(self._sockets)
        began = time.monotonic()
        for number in range(int(seconds / self._gap_seconds)):
            due = began + number * self._gap_seconds
            while (wait := due - time.monotonic()) > 0 or not free:
                self._answers(max(wait, 0.0) if free else ANSWER_SECONDS, free)
            body = BODY % (self._names[number // 2 % len(self._names)], ("bid", "ask")[number % 2], self._run)
            self._request = (HEAD % (self._authorization, len(body % 0)) + body).encode()
            connection = free.popleft()
            self._send(connection)
            self._sent_ns[connection] = int(due * 1e9)
        while self._sent_ns:
            self._answers(ANSWER_SECONDS, free)
        return time.monotonic() - began

    def _answers(self, wait_seconds: float, free: deque[int]) -> None:
        ready = self._poll.poll(wait_seconds)
        if not ready and wait_seconds >= ANSWER_SECONDS:
            sys.exit(f"traders: {len(self._sent_ns)} orders without an answer")
        free.extend(number for number, _ in ready if self._take(number))


def main() -> None:
    """Connect, and after `go` order; then tell what came back."""
    port, rate, seconds, run, count, token = sys.argv[1:]
    traders = Traders(int(port), float(rate), run, symbols(int(count)), token)
    await_go()
    elapsed = traders.run(float(seconds))
    tell({"seconds": elapsed, "latencies_ms": traders.latencies_ms, "refused": dict(traders.refused.most_common(3))})


if __name__ == "__main__":
    main()
