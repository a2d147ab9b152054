"""`python -m bench.soak [--minutes 15] [--clients 1000]`"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

import bench.soak
from bench.soak import faults
from bench.soak.market import HISTORY_RECORDS
from bench.soak.usage import HEAD, SETTLED_SECONDS, Sample, Usage
from bench.support import machine
from bench.support.bus import Bus, bus
from bench.support.gateway import Gateway, environment, gateway, tokens
from bench.support.processes import ROOT, BenchError, Child, end, interruptible, part, python
from tools.kafka.jars import KafkaUnavailable

EVENTS_A_SECOND = 200
ORDERS_A_SECOND = 20
RECONNECT_SECONDS = 20
SAMPLE_SECONDS = 10.0
MOST_GROWTH = 0.02
KEEP_ORDERS_SECONDS = 30
LEFT_SECONDS = 30.0
ANSWER_SECONDS = 150.0


@contextmanager
def exchange(kafka: Bus, topic: str, order_topic: str) -> Iterator[None]:
    """The engine of the simulated exchange, without its traders."""
    topics = ("--brokers", kafka.bootstrap, "--topic", topic, "--order-topic", order_topic)
    process = subprocess.Popen(
        python("-m", "exchange", "--no-traders", "--snapshot-seconds", "0", *topics),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], 60)[0] or b"ready" not in process.stdout.readline():
            raise BenchError("the simulated exchange did not begin")
        yield
    finally:
        end(process)


def soak(kafka: Bus, minutes: float, clients: int) -> list[str]:
    """Run it, printing a table; the faults that were found."""
    asked, users = tokens("rest", "stream")
    variables = {
        **environment(kafka, "soak"),
        **asked,
        "GATEWAY_LIMITS_CANCELS_PER_SECOND": "0",
        "GATEWAY_HISTORY_RECORDS": str(HISTORY_RECORDS),
        "GATEWAY_ORDERS_KEEP_TERMINAL_SECONDS": str(KEEP_ORDERS_SECONDS),
    }
    topic = variables["KAFKA_TOPIC"]
    with ExitStack() as stack:
        enter = stack.enter_context
        events = enter(part("soak.market", kafka.bootstrap, topic, EVENTS_A_SECOND))
        enter(exchange(kafka, topic, variables["KAFKA_ORDER_TOPIC"]))
        served = enter(gateway(variables))
        served.wait_ready()
        usage = Usage(served.pid)
        nobody = usage.sample()
        print(HEAD)
        print(nobody.line(), flush=True)
        crowd = enter(part("soak.churn", served.port, clients, faults.REPLACED_A_SECOND))
        checked = enter(part("soak.resuming_client", served.port, RECONNECT_SECONDS))
        traders = enter(part("soak.traders", served.port, ORDERS_A_SECOND, *users))
        events.go()
        _watch(usage, served, minutes * 60, [crowd, checked, traders, events])
        traders.go()
        traded = traders.read(ANSWER_SECONDS)
        events.go()
        published = events.read(ANSWER_SECONDS)
        checked.say(json.dumps({"numbers": published["numbers"], "books": published["books"]}))
        seen = checked.read(ANSWER_SECONDS)
        growth = usage.growth()
        crowd.go()
        crowded = crowd.read(ANSWER_SECONDS)
        left = _await_nobody(usage, nobody)
        print(left.line(), flush=True)
        found = [
            *seen["problems"],
            *traded["problems"],
            *faults.of_offsets(kafka, topic, seen["offsets"]),
            *faults.of_clients(crowded, clients, minutes),
        ]
        if published["unsent"]:
            found.append(f"Kafka did not acknowledge {published['unsent']} events")
        if left.files > nobody.files:
            found.append(f"{left.files - nobody.files} descriptors are left over: {usage.kinds_of_files()}")
        if minutes * 60 > SETTLED_SECONDS and growth >= MOST_GROWTH:
            found.append(f"RSS grew by {growth:.1%} after the first {SETTLED_SECONDS:.0f} s")
        print(
            f"\n{published['written']} events and {traded['commands']} order commands (median "
            f"{traded['median_seconds'] * 1000:.0f} ms, slowest {traded['slowest_seconds'] * 1000:.0f} ms); {crowd.first['open']} clients, {crowded['changes']} of them "
            f"replaced, {crowded['frames']} notifications read; ended: {crowded['ended']}; the slow one caught up "
            f"{crowded['caught_up']} times\n"
            f"checked: {seen['events']} events, {seen['changes']} changes of books, {seen['reconnects']} times away\n"
            f"RSS after {SETTLED_SECONDS:.0f} s: {growth:+.2%}; descriptors left: {left.files - nobody.files}; "
            f"threads left: {left.threads - nobody.threads}; loop: {median(s.loop_share for s in usage.samples):.0%} of a core"
        )
    return found


def _watch(usage: Usage, served: Gateway, seconds: float, children: list[Child]) -> None:
    started = time.monotonic()
    due = started + SAMPLE_SECONDS
    while due <= started + seconds:
        time.sleep(max(0.0, due - time.monotonic()))  # pacing: the next sample
        due += SAMPLE_SECONDS
        if not served.is_running:
            raise BenchError(f"the gateway ended; its log ends: {served.log_end()}")
        for child in children:
            if not child.is_running:
                raise BenchError(f"{child.name} ended before its time")
        print(usage.sample().line(), flush=True)


def _await_nobody(usage: Usage, nobody: Sample) -> Sample:
    deadline = time.monotonic() + LEFT_SECONDS
    while usage.files() > nobody.files and time.monotonic() < deadline:
        time.sleep(0.2)  # between looks: nothing tells when another process has closed a file
    return usage.sample()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=bench.soak.__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="how long (default 15)")
    parser.add_argument("--clients", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--brokers", metavar="HOST:PORT", help="a Kafka that runs already, instead of one started here")
    options = parser.parse_args()
    interruptible()
    for line in machine.describe():
        print(line)
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {options.minutes:g} minutes, {options.clients} clients\n")
    try:
        with bus(options.brokers) as kafka:
            found = soak(kafka, options.minutes, options.clients)
    except (BenchError, KafkaUnavailable) as error:
        found = [str(error)]
    except KeyboardInterrupt:
        return 1
    for fault in found:
        print(f"soak: {fault}")
    print("soak: FAILED" if found else "soak: passed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
