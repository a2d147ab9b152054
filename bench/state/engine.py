"""Part: the engine: events on all symbols at a steady pace. `BOOTSTRAP MARKET_TOPIC ORDER_TOPIC EVENTS_A_SECOND SYMBOLS`

Every order that comes is accepted, and the two of a pair fill each other; all else are changes of books: two levels each, whose
distance from the best price is exponentially distributed, with a mean of 100 levels. Each event has the run, its number among the
public ones and the moment of publishing in it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import deque

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from bench.state.market import LEVELS, snapshot, symbols
from bench.support import bus
from bench.support.processes import tell

MEAN_LEVEL = 100
PIECE = 10


class Engine:
    """Writes events; reads orders."""

    def __init__(self, bootstrap: str, topic: str, order_topic: str, rate: float, count: int) -> None:
        self._topic = topic
        self._gap_seconds = 1 / rate
        self._producer: Producer = bus.producer(bootstrap)
        self._chance = random.Random(7)
        self._symbols = symbols(count)
        self._sequence = dict.fromkeys(self._symbols, 0)
        self._next = 0
        # Events of orders that are due, and by symbol the order that waits for the other one of its pair.
        self._due: deque[tuple[str, str]] = deque()
        self._waiting: dict[str, tuple[str, str]] = {}
        self.size = 0
        for symbol in self._symbols:
            self._producer.produce(topic, snapshot(symbol), symbol)
            self._producer.poll(0)
        if self._producer.flush(60):
            sys.exit("engine: Kafka acknowledged nothing")
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "broker.address.family": "v4",
                "group.id": "bench",
                "fetch.wait.max.ms": 20,
            }
        )
        numbers = self._consumer.list_topics(order_topic, timeout=10).topics[order_topic].partitions
        self._consumer.assign([TopicPartition(order_topic, number, OFFSET_END) for number in numbers])

    def run(self, name: str, count: int) -> dict[str, float]:
        """So many public events, and those of orders that are due between them; what is told of them."""
        self.size, latest, number, events = 0, 0.0, 0, 0
        began = due = time.monotonic()
        while number < count:
            due += self._gap_seconds
            if number % PIECE == 0:
                self._read_orders()
            self._producer.poll(0)
            now = time.monotonic()
            if due > now:
                time.sleep(due - now)  # pacing: not before it is due
            latest = max(latest, time.monotonic() - due)
            symbol, text = self._due.popleft() if self._due else self._delta()
            stamp = f'"run":"{name}","number":{number},"sent_ns":{time.monotonic_ns()}}}'
            self._producer.produce(self._topic, text + stamp, symbol)
            self.size += len(text) + len(stamp) + len(symbol)
            number += "order_accepted" not in text
            events += 1
        unsent = self._producer.flush(30)
        seconds = time.monotonic() - began
        return {"unsent": unsent, "seconds": seconds, "latest": latest, "events": events, "bytes": self.size}

    def _delta(self) -> tuple[str, str]:
        symbol = self._symbols[self._next % len(self._symbols)]
        self._next += 1
        sequence = self._sequence[symbol] = self._sequence[symbol] + 1
        changes = []
        for side, sign in (("bid", -1), ("ask", 1)):
            level = 1 + min(LEVELS - 1, int(self._chance.expovariate(1 / MEAN_LEVEL)))
            price, quantity = f"{1000 + sign * level / 100:.2f}", f"{self._chance.randrange(1, 50)}.125"
            changes.append(f'{{"action":"update","side":"{side}","price":"{price}","quantity":"{quantity}"}}')
        head = f'{{"type":"orderbook_delta","symbol":"{symbol}","sequence":{sequence},"deltas":'
        return symbol, f"{head}[{','.join(changes)}],"

    def _read_orders(self) -> None:
        for message in self._consumer.consume(100, timeout=0):
            value = message.value()
            if message.error() is not None or value is None:
                continue
            order = json.loads(value)
            if order.get("type") == "place_order":
                self._accept(order)

    def _accept(self, order: dict[str, str]) -> None:
        symbol, order_id, side = order["symbol"], order["order_id"], order["side"]
        now_ms = time.time_ns() // 1_000_000
        self._due.append(
            (
                symbol,
                f'{{"type":"order_accepted","order_id":"{order_id}","symbol":"{symbol}","side":"{side}",'
                f'"order_type":"limit","price":"{order["price"]}","quantity":"{order["quantity"]}","timestamp":{now_ms},',
            )
        )
        other = self._waiting.pop(symbol, None)
        if other is None or other[1] == side:
            self._waiting[symbol] = (order_id, side)
            return
        buy, sell = (order_id, other[0]) if side == "bid" else (other[0], order_id)
        self._due.append(
            (
                symbol,
                f'{{"type":"fill","symbol":"{symbol}","buy_order_id":"{buy}","sell_order_id":"{sell}",'
                f'"price":"{order["price"]}","quantity":"{order["quantity"]}","timestamp":{now_ms},"taker_side":"{side}",',
            )
        )


def main() -> None:
    """Books first; then, for each line `RUN COUNT`, so many public events."""
    bootstrap, topic, order_topic, rate, count = sys.argv[1:]
    engine = Engine(bootstrap, topic, order_topic, float(rate), int(count))
    tell("ready")
    for line in sys.stdin:
        name, events = line.split()
        tell(engine.run(name, int(events)))


if __name__ == "__main__":
    main()
