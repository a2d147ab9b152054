"""Part: deltas on a large book, and fills. `BOOTSTRAP TOPIC SECONDS DELTAS_A_SECOND`

A delta in ten is of the best level, so that a level enters and another one leaves every window; one fill to ten deltas.
"""

from __future__ import annotations

import json
import sys
import time
from random import Random

from bench.support import bus
from bench.support.processes import await_go, tell

SYMBOL = "KCN/EUR"
LEVELS = 1_000
MIDDLE = 100_000


def snapshot() -> bytes:
    """A book of `LEVELS` a side."""
    sides = {
        name: [
            {"price": f"{(MIDDLE + sign * (level + 1)) / 100:.2f}", "quantity": f"{level % 97 + 1}.5"}
            for level in range(LEVELS)
        ]
        for name, sign in (("bids", -1), ("asks", 1))
    }
    return json.dumps({"type": "orderbook_snapshot", "symbol": SYMBOL, "sequence": 0, **sides}).encode()


def delta(chance: Random, number: int, is_best_there: dict[str, bool]) -> bytes:
    """The best level of a side comes or goes, or a level near it gets another quantity."""
    side = chance.choice(("bid", "ask"))
    sign = 1 if side == "ask" else -1
    level, action = 1 + min(int(chance.expovariate(1 / 15)) + 1, LEVELS - 1), "update"
    if number % 10 == 0:
        level, action = 1, "remove" if is_best_there[side] else "add"
        is_best_there[side] = not is_best_there[side]
    quantity = "0" if action == "remove" else f"{chance.randrange(1, 10**6) / 1000:.3f}"
    change = {"action": action, "side": side, "price": f"{(MIDDLE + sign * level) / 100:.2f}", "quantity": quantity}
    return json.dumps(
        {"type": "orderbook_delta", "symbol": SYMBOL, "sequence": number + 1, "deltas": [change]}
    ).encode()


def fill(number: int) -> bytes:
    """At the middle."""
    return json.dumps(
        {
            "type": "fill", "symbol": SYMBOL, "buy_order_id": f"b{number}", "sell_order_id": f"s{number}",
            "price": f"{MIDDLE / 100:.2f}", "quantity": "0.125", "timestamp": time.time_ns() // 1_000_000,
        }
    ).encode()  # fmt: skip


def main() -> None:
    """The snapshot first; then, after `go`, the others at their rate. Tells how many deltas and fills there were."""
    bootstrap, topic, seconds, rate = sys.argv[1:]
    producer = bus.producer(bootstrap)
    producer.produce(topic, snapshot(), SYMBOL)
    if producer.flush(30):
        sys.exit("market: Kafka acknowledged nothing")
    chance, is_best_there = Random(1), {"bid": True, "ask": True}
    await_go()
    began = time.monotonic()
    count = int(float(seconds) * float(rate))
    fills = 0
    for number in range(count):
        due = began + number / float(rate)
        now = time.monotonic()
        if due > now:
            time.sleep(due - now)  # pacing: not before it is due
        producer.produce(topic, delta(chance, number, is_best_there), SYMBOL)
        if number % 10 == 0:
            producer.produce(topic, fill(number), SYMBOL)
            fills += 1
        producer.poll(0)
    if producer.flush(10):
        sys.exit("market: Kafka did not acknowledge all")
    tell({"deltas": count, "fills": fills})


if __name__ == "__main__":
    main()
