"""Part: publishes events at random moments. `BOOTSTRAP TOPIC RUN COUNT LEAST_GAP_SECONDS MEAN_EXTRA_SECONDS`

The gaps are the least one and an exponentially distributed rest, so arrivals keep step with no timer of who receives.
"""

from __future__ import annotations

import random
import sys
import time

from bench.support import bus
from bench.support.processes import await_go, tell
from bench.support.records import SYMBOLS, event, snapshot


def main() -> None:
    """Snapshots first, which also warm the producer; then, after `go`, the events."""
    bootstrap, topic, run, count, least, extra = sys.argv[1:]
    producer = bus.producer(bootstrap)
    for symbol in SYMBOLS:
        producer.produce(topic, snapshot(symbol), symbol)
    if producer.flush(30):
        sys.exit("publisher: Kafka acknowledged nothing")
    chance = random.Random(run)
    await_go()
    due = time.monotonic()
    latest = 0.0
    for number in range(int(count)):
        due += float(least) + chance.expovariate(1 / float(extra))
        producer.poll(0)
        now = time.monotonic()
        if due > now:
            time.sleep(due - now)  # pacing: not before it is due
        latest = max(latest, time.monotonic() - due)
        symbol, value = event(run, number)
        producer.produce(topic, value, symbol)
        producer.poll(0)
    tell({"unsent": producer.flush(10), "latest_ms": latest * 1000})


if __name__ == "__main__":
    main()
