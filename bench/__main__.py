"""`python -m bench`: all benches, one table (`make bench`)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from bench import fanout, floods, many_views, startup, state
from bench.latency import idle, record_to_client
from bench.orders import compared, profile
from bench.support import machine
from bench.support.bus import Bus, bus
from bench.support.figures import Absent, Row, table
from bench.support.processes import BenchError, interruptible
from tools.kafka.jars import KafkaUnavailable, version

NAMES = ("latency", "orders", "idle", "start", "state", "views", "floods", "fanout")


def main() -> int:
    """Returns the exit code: 0, or 1 if there are no figures. A missed target is told, but no failure: it may be noise."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="The gateway beside its peers, on a real Kafka."
    )
    parser.add_argument("names", nargs="*", metavar="BENCH", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="one short round each, in a few minutes: it works, no figures"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="rounds of which the median is taken (default 5)"
    )
    parser.add_argument("--profile", action="store_true", help="instead: where the time goes with 64 orders in flight")
    parser.add_argument(
        "--parts",
        default=",".join(fanout.PARTS),
        metavar="PARTS",
        help=f"of fanout, with commas between: {', '.join(fanout.PARTS)} (default: all)",
    )
    parser.add_argument("--brokers", metavar="HOST:PORT", help="a Kafka that runs already, instead of one started here")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    parts = options.parts.split(",")
    if unknown := set(parts) - set(fanout.PARTS):
        parser.error(f"no such part of fanout: {', '.join(sorted(unknown))}")
    interruptible()
    try:
        with bus(options.brokers) as kafka:
            if options.profile:
                print(profile.profile(kafka, 5.0, 40))
                return 0
            _run(
                kafka,
                options.names or list(NAMES),
                1 if options.quick else options.rounds,
                options.quick,
                options.brokers,
                parts,
            )
    except (BenchError, KafkaUnavailable) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


def _run(kafka: Bus, names: list[str], rounds: int, quick: bool, brokers: str | None, parts: list[str]) -> None:
    benches: dict[str, Callable[[], Sequence[Row | Absent]]] = {
        "latency": lambda: record_to_client.bench(kafka, rounds, 4.0 if quick else 20.0),
        "orders": lambda: compared.bench(kafka, rounds, 2.0 if quick else 5.0),
        "idle": lambda: idle.bench(kafka, min(rounds, 3), 4.0 if quick else 20.0, 3 if quick else 10),
        "start": lambda: startup.bench(rounds),
        "state": lambda: state.bench(kafka, rounds, quick),
        "views": lambda: many_views.bench(kafka, min(rounds, 3), 3.0 if quick else 15.0),
        "floods": lambda: floods.bench(kafka, min(rounds, 3), 3.0 if quick else 10.0),
        "fanout": lambda: fanout.bench(kafka, rounds, quick, parts),
    }
    started = time.monotonic()
    rows: list[Row | Absent] = []
    others: list[str] = []
    for name in names:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        neighbours = machine.Neighbours(kafka.pid)
        rows += benches[name]()
        others.append(f"{name} {neighbours.share():.0f} %")
    for line in machine.describe():
        print(line)
    print(f"Kafka {'at ' + brokers if brokers else version() + ', one broker, replication 1'}")
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {time.monotonic() - started:.0f} s, {rounds} rounds"
        f"{' (--quick: no figures to keep)' if quick else ''}"
    )
    print(f"of the cores, other processes took meanwhile: {', '.join(others)}\n")
    print(table(rows))


if __name__ == "__main__":
    sys.exit(main())
