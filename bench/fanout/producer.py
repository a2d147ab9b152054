"""Part: publishes events, each stamped right before the producer is given it. `BOOTSTRAP TOPIC TEMPLATE`

Told `run EVENTS SECONDS RATE` it publishes RATE events a second, each when it is due, and tells how many.
"""

from __future__ import annotations

import sys
import time

from bench.peers.ticks import stamped
from bench.support import bus
from bench.support.processes import tell
from bench.support.records import snapshot

SYMBOL = "KCN/EUR"


def main() -> None:
    """A snapshot first, which also warms the producer."""
    bootstrap, topic, template = sys.argv[1:]
    producer = bus.producer(bootstrap)
    producer.produce(topic, snapshot(SYMBOL), SYMBOL)
    if producer.flush(30):
        sys.exit("producer: Kafka acknowledged nothing")
    tell("ready")
    for line in sys.stdin:
        _run, _events, seconds, rate = line.split()
        count = int(float(seconds) * float(rate))
        began = time.monotonic()
        for number in range(count):
            due = began + number / float(rate)
            producer.poll(0)
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)  # pacing: not before it is due
            # The header is how centrifuge's consumer knows the channel; the others do not look at it.
            producer.produce(topic, stamped(template.encode()), SYMBOL, headers={"centrifugo-channels": "events"})
        unsent = producer.flush(30)
        tell({"events": count, "unsent": unsent, "seconds": time.monotonic() - began})


if __name__ == "__main__":
    main()
