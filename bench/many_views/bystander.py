"""Part: somebody else. `PORT SECONDS`

A connection that pings all the time, and another one with a book at 100 ms, trades and events, on plain sockets.
"""

from __future__ import annotations

import json
import select
import sys
import time

from bench.many_views.market import SYMBOL
from bench.support.processes import await_go, tell
from bench.support.websocket import PING, PONG, TEXT, client_frame, connect, take_frame

BOOK = f"book.{SYMBOL}.none.10.100ms"
PING_SECONDS = 0.01
ALL_SECONDS = 5.0


def main() -> None:
    """After `go`, for SECONDS; then until nothing comes any more. Milliseconds, and how many fills and events came."""
    port, seconds = sys.argv[1:]
    pinging, pongs = connect(int(port), "/ws?stream=none")
    reading, waiting = connect(int(port), "/ws?stream=none")
    channels = [BOOK, f"trades.{SYMBOL}", f"events.{SYMBOL}"]
    request = {"id": 1, "method": "public/subscribe", "params": {"channels": channels}}
    reading.sendall(client_frame(TEXT, json.dumps(request).encode()))
    await_go()
    call = client_frame(TEXT, b'{"id":1,"method":"public/ping"}')
    pings_ms: list[float] = []
    gaps_ms: list[float] = []
    trades = events = 0
    book_at = sent_at = None
    ends = time.monotonic() + float(seconds)
    ping_at = time.monotonic()
    quiet_at = ends + ALL_SECONDS
    while (now := time.monotonic()) < quiet_at:
        if sent_at is None and now >= ping_at and now < ends:
            pinging.sendall(call)
            sent_at = time.monotonic()
        ready = select.select(
            [pinging, reading], [], [], max(0.0, min(ping_at, quiet_at) - now) if sent_at is None else 0.5
        )[0]
        now = time.monotonic()
        if pinging in ready:
            pongs += pinging.recv(65536)
            while (frame := take_frame(pongs)) is not None:
                if frame[0] == TEXT and sent_at is not None:
                    pings_ms.append((now - sent_at) * 1000)
                    sent_at, ping_at = None, now + PING_SECONDS
                elif frame[0] == PING:
                    pinging.sendall(client_frame(PONG, frame[1]))
        elif sent_at is None and now >= ends:
            ping_at = quiet_at
        if reading in ready:
            waiting += reading.recv(1 << 20)
            while (frame := take_frame(waiting)) is not None:
                if frame[0] == PING:
                    reading.sendall(client_frame(PONG, frame[1]))
                    continue
                message = json.loads(frame[1])
                name = message.get("channel_name", "")
                if name == BOOK:
                    if book_at is not None and now < ends:
                        gaps_ms.append((now - book_at) * 1000)
                    book_at = now
                elif name.startswith("trades"):
                    # Of a market that begins here, also those that the channel began with.
                    trades += len(message["notification"]["trades"])
                elif name.startswith("events"):
                    events += message["notification"]["event"]["type"] != "orderbook_snapshot"
                if now >= ends:
                    quiet_at = min(quiet_at, now + 1.0)
    tell({"pings_ms": pings_ms, "gaps_ms": gaps_ms, "trades": trades, "events": events})


if __name__ == "__main__":
    main()
