"""The bench's market events: as an engine writes them, with the moment of publishing inside (unknown to the gateway).

All processes of one machine share the clock: CLOCK_MONOTONIC, in nanoseconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

SYMBOLS = ("KCN/EUR", "BTC/EUR", "ETH/EUR")
# Where what is told of several together is compared.
FILLS_A_TICK = 10


def snapshot(symbol: str) -> bytes:
    """A book of ten levels a side, which the events that follow never cross."""
    return json.dumps(
        {
            "type": "orderbook_snapshot",
            "symbol": symbol,
            "sequence": 0,
            "bids": [{"price": f"{100 - level}.00", "quantity": "5.000"} for level in range(1, 11)],
            "asks": [{"price": f"{100 + level}.00", "quantity": "5.000"} for level in range(1, 11)],
        }
    ).encode()


def event(run: str, number: int) -> tuple[str, bytes]:
    """Event `number` of a run, a delta and a fill in turns, some 200 bytes, stamped now; and its symbol."""
    symbol = SYMBOLS[number // 2 % len(SYMBOLS)]
    stamp = f'"run":"{run}","number":{number},"sent_ns":{time.monotonic_ns()}}}'
    if number % 2:
        text = (
            f'{{"type":"fill","symbol":"{symbol}","buy_order_id":"6f0c2a52-3b0e-4d1c-9b53-{number:012d}",'
            f'"sell_order_id":"d1c7b7a4-8a3a-4b57-8f0e-{number:012d}","price":"100.00","quantity":"0.125",'
            f'"timestamp":{time.time_ns() // 1_000_000},"taker_side":"bid",'
        )
    else:
        text = (
            f'{{"type":"orderbook_delta","symbol":"{symbol}","sequence":{number + 1},"deltas":['
            f'{{"action":"update","side":"bid","price":"99.00","quantity":"{number % 7 + 1}.000"}},'
            f'{{"action":"update","side":"ask","price":"101.00","quantity":"{number % 5 + 1}.000"}}],'
        )
    return symbol, (text + stamp).encode()


def marker(run: str) -> bytes:
    """Bytes that only the events of this run have."""
    return f'"run":"{run}"'.encode()


def latencies_ms(received: Sequence[tuple[int, bytes]]) -> list[tuple[int, float]]:
    """Of (moment of receipt in nanoseconds, event): the number of each, and its way in milliseconds, by number."""
    ways = []
    for moment_ns, payload in received:
        fields = json.loads(payload)
        ways.append((fields["number"], (moment_ns - fields["sent_ns"]) / 1e6))
    return sorted(ways)
