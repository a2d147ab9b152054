"""Part: open orders onto the order topic, and a book of each symbol onto the market topic.
`BOOTSTRAP MARKET_TOPIC ORDER_TOPIC ORDERS SYMBOLS`
"""

from __future__ import annotations

import sys
import time

from bench.state.market import command, snapshot, symbols
from bench.support import bus
from bench.support.processes import await_go, tell


def main() -> None:
    """After `go`; tells how many were not acknowledged."""
    bootstrap, market_topic, order_topic, orders, count = sys.argv[1:]
    producer = bus.producer(bootstrap, linger_ms=20)
    names = symbols(int(count))
    await_go()
    now_ms = time.time_ns() // 1_000_000
    for symbol in names:
        producer.produce(market_topic, snapshot(symbol), symbol)
        producer.poll(0)
    for number in range(int(orders)):
        symbol = names[number % len(names)]
        value = command(number, symbol, now_ms)
        while True:
            try:
                producer.produce(order_topic, value, symbol)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    tell({"unsent": producer.flush(120)})


if __name__ == "__main__":
    main()
