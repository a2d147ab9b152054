"""Part: the clients of the soak, and their coming and going. `PORT CLIENTS REPLACED_A_SECOND`

Clients of all kinds of channels, some of whom leave all the time and are replaced; one that stops reading until it is
closed with 4008, over and over; and one that reads too slowly for its books and catches up now and then.
"""

from __future__ import annotations

import json
import random
import sys
import time

from bench.soak.market import SYMBOLS
from bench.support.crowd import Client, Crowd, State
from bench.support.gateway import metrics
from bench.support.processes import is_told, tell
from bench.support.websocket import TEXT, client_frame

# Of a hundred clients.
KINDS = {
    "events": 25,
    "trades": 22,
    "book": 25,
    "ticker": 25,
    "stream": 2,
    "all events": 1,
}
SLOW_BUFFER_BYTES = 4096
TRICKLE_BYTES = 256
LOOK_SECONDS = 3.0
# Long before this the gateway has closed it; then it reads on, and how it ended is seen.
MOST_STUCK_SECONDS = 240.0
PAUSE_WITHIN_SECONDS = 30.0


def channels(kind: str, symbol: str) -> list[str]:
    """What a client of a kind listens to; nothing: it stays on the stream."""
    return {
        "events": [f"events.{symbol}"],
        "trades": [f"trades.{symbol}"],
        "book": [f"book.{symbol}.none.20.100ms"],
        "ticker": [f"ticker.{symbol}.1000ms"],
        "all events": ["events"],
        "slow": [f"book.{one}.none.all.raw" for one in SYMBOLS],
        "stuck": ["events"],
    }.get(kind, [])


class Churn:
    """The clients and what is done to them."""

    def __init__(self, port: int, clients: int, churn: float) -> None:
        self._port = port
        self._churn = churn
        self._chance = random.Random(7)
        self.crowd = Crowd(port)
        self._kinds = [kind for kind, share in KINDS.items() for _ in range(share)]
        self._number = 0
        self._wanted = clients
        self.changes = 0
        self.caught_up = 0
        self._stuck: Client | None = None
        self._stuck_since = 0.0
        self._slow: Client | None = None
        self._is_catching_up = False
        self._slow_closes = self._conflations = 0.0

    def connect(self, kind: str, receive_buffer: int = 0) -> Client:
        symbol = SYMBOLS[self._number % len(SYMBOLS)]
        self._number += 1
        request = {"id": 1, "method": "public/subscribe", "params": {"channels": channels(kind, symbol)}}
        greeting = client_frame(TEXT, json.dumps(request).encode()) if kind != "stream" else b""
        path = "/ws" if kind == "stream" else "/ws?stream=none"
        return self.crowd.connect(greeting, kind, path, receive_buffer)

    def fill(self) -> None:
        """Let everybody in, not too many at once."""
        while self._number < self._wanted or self.crowd.connecting:
            while self._number < self._wanted and self.crowd.connecting < 50:
                self.connect(self._kinds[self._number % len(self._kinds)])
            self.crowd.turn(0.01)

    def run(self) -> None:
        """Until a line comes."""
        now = time.monotonic()
        next_change, next_look, next_trickle = now, now, now
        while not is_told():
            self.crowd.turn(0.02)
            now = time.monotonic()
            if now >= next_change:
                next_change += 1 / self._churn
                self._change()
            if now >= next_look:
                next_look = now + LOOK_SECONDS
                self._look()
            if now >= next_trickle and self._slow is not None and not self._is_catching_up:
                next_trickle = now + 0.1
                if not self._slow.is_reading:
                    self.crowd.read(self._slow, TRICKLE_BYTES)

    def _change(self) -> None:
        ordinary = [
            one for one in self.crowd.clients.values() if one.state is State.OPEN and one.label not in ("slow", "stuck")
        ]
        one = self._chance.choice(ordinary)
        self.crowd.leave(one, politely=self._chance.random() < 0.5)
        self.connect(one.label)
        self.changes += 1

    def _look(self) -> None:
        """After the two who are slow: what the gateway has done about them is in its metrics."""
        slow_closes, conflations = metrics(self._port, "gateway_slow_closes_total", "gateway_conflations_total")
        now = time.monotonic()
        for one in (self._stuck, self._slow):
            if one is not None:
                self.crowd.pong(one)
        if self._stuck is None or self._stuck.state is State.GONE:
            self._stuck = self.connect("stuck", SLOW_BUFFER_BYTES)
            self._stuck_since = now
        elif slow_closes > self._slow_closes or now - self._stuck_since > MOST_STUCK_SECONDS:
            self.crowd.go_on(self._stuck)
        elif self._stuck.frames and now - self._stuck_since < PAUSE_WITHIN_SECONDS:
            self.crowd.pause(self._stuck)
        if self._slow is None or self._slow.state is State.GONE:
            self._slow = self.connect("slow", SLOW_BUFFER_BYTES)
            self._slow.payloads = self._on_slow
            self._is_catching_up = False
        elif conflations > self._conflations:
            self._is_catching_up = True
            self.crowd.go_on(self._slow)
        elif self._slow.frames and not self._is_catching_up:
            self.crowd.pause(self._slow)
        self._slow_closes, self._conflations = slow_closes, conflations

    def _on_slow(self, text: bytes) -> None:
        if b'"conflated":true' in text:
            self.caught_up += 1
            self._is_catching_up = False


def main() -> None:
    """Connect, say so, go on until a line comes; leave, and tell what happened."""
    port, clients, rate = sys.argv[1:]
    churn = Churn(int(port), int(clients), float(rate))
    churn.fill()
    tell({"open": churn.crowd.open, "refused": churn.crowd.refused})
    churn.run()
    held = churn.crowd.open
    churn.crowd.leave_all()
    tell(
        {
            "open": held,
            "frames": churn.crowd.frames,
            "changes": churn.changes,
            "caught_up": churn.caught_up,
            "refused": churn.crowd.refused,
            "ended": churn.crowd.ended,
        }
    )
    sys.stdin.readline()


if __name__ == "__main__":
    main()
