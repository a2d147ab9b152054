"""`python -m tools.kafka`: a real Apache Kafka on loopback until Ctrl-C (`make kafka`)."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tools.kafka import cluster, jars
from tools.kafka.jars import KafkaUnavailable

MARKET_TOPIC = "market-events"
ORDER_TOPIC = "order-commands"
PARTITIONS = 4
# The gateway reads its open orders back from this topic, so it must neither be compacted nor short.
ORDER_TOPIC_CONFIG = {"cleanup.policy": "delete", "retention.ms": str(7 * 24 * 3600 * 1000)}


def main(arguments: list[str] | None = None) -> int:
    """Runs the cluster; returns the exit code: 0 after Ctrl-C or SIGTERM, 1 when there can be no Kafka."""
    options = _parse(arguments)
    # SIGINT, too: a shell without job control starts what is in the background with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if options.fetch:
            cluster.prepare(jars.ensure(say=_say).parent, _say)
            return 0
        return _serve(options.brokers, options.port, options.data)
    except KafkaUnavailable as error:
        print(f"kafka: {error.reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _serve(brokers: int, port: int, data: Path | None) -> int:
    started = time.monotonic()
    with cluster.KafkaCluster(brokers, port, data=data, say=_say) as kafka:
        try:
            kafka.create_topic(MARKET_TOPIC, PARTITIONS, exist_ok=True)
            kafka.create_topic(ORDER_TOPIC, PARTITIONS, ORDER_TOPIC_CONFIG, exist_ok=True)
            nodes = "one broker" if brokers == 1 else f"{brokers} brokers"
            replicas = "" if brokers == 1 else f", {kafka.replication} replicas"
            _say(f"Apache Kafka {jars.version()}, {nodes}, up after {time.monotonic() - started:.1f} s")
            _say(f"  bootstrap  {kafka.bootstrap}")
            _say(f"  topics     {MARKET_TOPIC}, {ORDER_TOPIC} ({PARTITIONS} partitions{replicas})")
            _say(f"  data       {kafka.folder} ({'kept' if data else 'removed at the end'})")
            _say("start the gateway against it, and an exchange to trade on:")
            _say(f"  KAFKA_BROKERS={kafka.bootstrap} .venv/bin/python gateway.py")
            _say(f"  .venv/bin/python -m exchange --brokers {kafka.bootstrap}")
            _say("Ctrl-C ends it.")
            while (ended := kafka.ended_node()) is None:
                time.sleep(0.5)
            raise KafkaUnavailable(ended)
        except KeyboardInterrupt:
            # A second Ctrl-C must not leave half of it behind; what follows takes a moment only.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            _say("\nending Kafka ...")
            return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m tools.kafka", description=__doc__)
    parser.add_argument("--brokers", type=_number(1, 9), default=1, metavar="N", help="nodes (default 1)")
    parser.add_argument("--port", type=_number(1, 65000), default=9092, help="the first node's port (default 9092)")
    parser.add_argument("--data", type=Path, default=None, metavar="DIR", help="keep the data there")
    parser.add_argument("--fetch", action="store_true", help="only fetch and prepare the jars")
    return parser.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"kafka: {message}\n")


def _number(least: int, most: int) -> type[int]:
    class Number(int):
        def __new__(cls, text: str) -> Number:
            if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
                raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}, not {text!r}")
            return super().__new__(cls, text)

    return Number


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
