"""Part: traders, one over REST and one over WebSocket, each a user. `PORT RATE TOKEN TOKEN`

They place and cancel by turns, and now and then trade with each other, so that every order is closed a moment later: the
gateway forgets it after `orders.keep_terminal_seconds`.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from statistics import median
from typing import Any

from bench.soak.faults import Problems
from bench.soak.market import ORDERS
from bench.support.processes import is_told, tell
from bench.support.websocket import Stream

LAST_SECONDS = 60.0


class Traders:
    """Two users and what became of their orders."""

    def __init__(self, port: int, tokens: tuple[str, str]) -> None:
        self._rest = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {tokens[0]}"}
        self._stream = Stream(port, tokens[1])
        self.problems = Problems()
        self.seconds: list[float] = []
        self.placed: set[str] = set()
        self.closed: set[str] = set()

    def _post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        self._rest.request("POST", path, json.dumps(body), self._headers)
        answer = self._rest.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        if answer.status != 202:
            self.problems.add(f"{path}: {answer.status} {told}")
        return told

    def _call(self, method: str, params: dict[str, object]) -> dict[str, Any]:
        answer, texts = self._stream.call(method, params)
        self.take(texts)
        if "result" not in answer:
            self.problems.add(f"{method}: {answer}")
        result: dict[str, Any] = answer.get("result", {})
        return result

    def take(self, texts: list[bytes]) -> None:
        """Events of the WebSocket user's orders."""
        for text in texts:
            event = json.loads(text)
            if event.get("type") in ("order_cancelled", "order_filled"):
                self.closed.add(event["order_id"])

    def step(self, number: int) -> None:
        """One command."""
        started = time.monotonic()
        kind = number % 6
        order: dict[str, object] = {"symbol": ORDERS, "order_type": "limit", "quantity": "1"}
        if kind == 0:
            self._rest_id = self._post("/api/order", {**order, "side": "bid", "price": "1.10"}).get("order_id")
        elif kind == 1:
            self._stream_id = self._call("private/place_order", {**order, "side": "bid", "price": "1.20"})["order_id"]
            self.placed.add(self._stream_id)
        elif kind == 2:
            self._post("/api/order/cancel", {"order_id": self._rest_id})
        elif kind == 3:
            self._call("private/cancel_order", {"order_id": self._stream_id})
        elif kind == 4:
            self._post("/api/order", {**order, "side": "ask", "price": "5.00"})
        else:
            self.placed.add(
                self._call("private/place_order", {**order, "side": "bid", "price": "5.00"}).get("order_id", "")
            )
        self.seconds.append(time.monotonic() - started)

    def finish(self) -> None:
        """Wait for the last events."""
        deadline = time.monotonic() + LAST_SECONDS
        while self.placed - self.closed and time.monotonic() < deadline:
            self.take(self._stream.texts(0.2))
        if left := self.placed - self.closed:
            self.problems.add(f"of {len(left)} orders the end was not told, such as {min(left)}")
        self._stream.close()
        self._rest.close()


def main() -> None:
    """Trade until a line comes; then tell what happened."""
    port, rate, *tokens = sys.argv[1:]
    traders = Traders(int(port), (tokens[0], tokens[1]))
    tell("ready")
    number, due = 0, time.monotonic()
    while not is_told(max(0.0, due - time.monotonic())):
        traders.step(number)
        number += 1
        # Who is late does not make up for it.
        due = max(due + 1 / float(rate), time.monotonic() - 1.0)
    while number % 6:
        traders.step(number)
        number += 1
    traders.finish()
    tell(
        {
            "problems": traders.problems,
            "commands": len(traders.seconds),
            "median_seconds": median(traders.seconds),
            "slowest_seconds": max(traders.seconds),
        }
    )


if __name__ == "__main__":
    main()
