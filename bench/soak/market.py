"""Part: an engine's market for as long as it is let. `BOOTSTRAP TOPIC RATE`

Each event of a symbol has its number `n`, each fill is of quantity `n` + 1, and the deltas follow a book whose last state is
told at the end: whoever reads can tell a hole. First, before it is ready, comes as much as fills what the gateway
bounds: its history, and the buckets of its statistics; what grows later is something else.
"""

from __future__ import annotations

import json
import random
import sys
import time

from bench.support import bus
from bench.support.processes import await_go, is_told, tell

SYMBOLS = ("SOAK-A/EUR", "SOAK-B/EUR", "SOAK-C/EUR", "SOAK-D/EUR")
ORDERS = "SOAK-ORDERS/EUR"
HISTORY_RECORDS = 2000
PREFILL = 3200
LEVELS = 20
SNAPSHOT_EVERY = 1500
HOUR_MS = 3_600_000


class Symbol:
    """One symbol's book, and its next event."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self._chance = chance
        self.number = 0
        self.sides = {
            side: {f"{100 + step * level}.00": f"{level}.5" for level in range(1, LEVELS + 1)}
            for side, step in (("bid", -1), ("ask", 1))
        }

    def next_event(self, timestamp_ms: int) -> bytes:
        """A fill or a delta, and now and then a snapshot."""
        number = self.number
        self.number += 1
        if number % SNAPSHOT_EVERY == 0:
            event: dict[str, object] = {
                "type": "orderbook_snapshot",
                "sequence": number,
                **{
                    f"{side}s": [{"price": price, "quantity": quantity} for price, quantity in levels.items()]
                    for side, levels in self.sides.items()
                },
            }
        elif number % 2:
            event = {
                "type": "fill",
                "buy_order_id": f"6f0c2a52-3b0e-4d1c-9b53-{number:012d}",
                "sell_order_id": f"d1c7b7a4-8a3a-4b57-8f0e-{number:012d}",
                "price": "100.00",
                "quantity": str(number + 1),
                "timestamp": timestamp_ms,
                "taker_side": "bid" if number % 4 == 1 else "ask",
            }
        else:
            event = {"type": "orderbook_delta", "sequence": number, "deltas": [self._change(), self._change()]}
        return json.dumps({**event, "symbol": self.name, "n": number}, separators=(",", ":")).encode()

    def _change(self) -> dict[str, str]:
        side = self._chance.choice(("bid", "ask"))
        levels = self.sides[side]
        price = f"{100 + (-1 if side == 'bid' else 1) * self._chance.randint(1, LEVELS)}.00"
        quantity = f"{self._chance.randint(1, 9999)}.{self._chance.randint(1, 9)}"
        if price not in levels:
            action = "add"
        elif len(levels) > LEVELS // 2 and self._chance.random() < 0.3:
            action = "remove"
        else:
            action = "update"
        if action == "remove":
            quantity = levels.pop(price)
        else:
            levels[price] = quantity
        return {"action": action, "side": side, "price": price, "quantity": quantity}


def main() -> None:
    """Fill up, then publish until a line comes; then tell how many there were, and the books."""
    bootstrap, topic, rate = sys.argv[1:]
    producer = bus.producer(bootstrap, linger_ms=5)
    chance = random.Random(5)
    symbols = [Symbol(name, chance) for name in (*SYMBOLS, ORDERS)]
    first_ms = time.time_ns() // 1_000_000 - HOUR_MS
    for number in range(2 * PREFILL):
        for symbol in symbols:
            producer.produce(topic, symbol.next_event(first_ms + number * HOUR_MS // (2 * PREFILL)), symbol.name)
        producer.poll(0)
    empty = {"type": "orderbook_snapshot", "symbol": ORDERS, "sequence": 2 * PREFILL, "bids": [], "asks": []}
    producer.produce(topic, json.dumps(empty).encode(), ORDERS)
    if producer.flush(60):
        sys.exit("soak events: Kafka acknowledged too little")
    await_go()
    started = time.monotonic()
    written, latest = 0, 0.0
    while not is_told():
        due = started + written / float(rate)
        producer.poll(max(0.0, due - time.monotonic()))
        if (late := time.monotonic() - due) < 0:
            time.sleep(-late)  # pacing: a poll that served a report ends early
        latest = max(latest, late)
        symbol = symbols[chance.randrange(len(SYMBOLS))]
        producer.produce(topic, symbol.next_event(time.time_ns() // 1_000_000), symbol.name)
        written += 1
    tell(
        {
            "unsent": producer.flush(30),
            "written": written,
            "latest_seconds": latest,
            "numbers": {symbol.name: symbol.number for symbol in symbols[: len(SYMBOLS)]},
            "books": {symbol.name: symbol.sides for symbol in symbols[: len(SYMBOLS)]},
        }
    )


if __name__ == "__main__":
    main()
