"""`python -m bench.soak [--minutes 15] [--clients 1000]`: a long day of the gateway in short, on a real Kafka.

A crowd on all kinds of channels that comes and goes, two slow readers, traders over REST and WebSocket with a simulated
exchange behind them, 200 events a second, and a client that checks that it misses nothing while it leaves and comes back.
Every ten seconds the gateway is weighed. It fails (exit code 1) if memory grows by 2 % after the first two minutes, a
descriptor is left when everybody has gone, or anybody missed anything. Threads are only told: pools start theirs late.

What the gateway remembers by its settings is full before that, or kept short: 2,000 records of history and the
statistics' buckets of each symbol are filled up before it starts, and closed orders are forgotten after 30 seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from jose import jwt

from bench.latency.record_to_client import environment
from bench.soak.market import HISTORY_RECORDS
from bench.support import machine
from bench.support.bus import Bus, bus
from bench.support.processes import ROOT, BenchError, Gateway, Part, end, gateway, python
from tools.kafka.jars import KafkaUnavailable

EVENTS_A_SECOND = 200
ORDERS_A_SECOND = 20
CHURN_A_SECOND = 5
RECONNECT_SECONDS = 20
SAMPLE_SECONDS = 10.0
# Until then caches fill, and the slow readers have been slow for the first time.
SETTLED_SECONDS = 120.0
MOST_GROWTH = 0.02
KEEP_ORDERS_SECONDS = 30
LEFT_SECONDS = 30.0
ANSWER_SECONDS = 150.0
PUBLIC = {"fill", "orderbook_snapshot", "orderbook_delta"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway at one moment; the share of a core that its main thread took since the last one."""

    seconds: float
    resident_bytes: int
    files: int
    threads: int
    loop_share: float

    def line(self) -> str:
        """As a row of the table."""
        return (
            f"| {self.seconds:6.0f} | {self.resident_bytes / 1048576:8.1f} | {self.files:5} | {self.threads:7} "
            f"| {self.loop_share * 100:6.1f} |"
        )


class Scales:
    """Weighs a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._started = self._last = time.monotonic()
        self._cpu = machine.main_thread_cpu_seconds(pid)
        self.samples: list[Sample] = []

    def weigh(self) -> Sample:
        """One sample, kept."""
        now, cpu = time.monotonic(), machine.main_thread_cpu_seconds(self._pid)
        share = (cpu - self._cpu) / max(0.001, now - self._last)
        self._last, self._cpu = now, cpu
        sample = Sample(now - self._started, self.resident_bytes(), self.files(), self.threads(), share)
        self.samples.append(sample)
        return sample

    def resident_bytes(self) -> int:
        """RSS."""
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def files(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def threads(self) -> int:
        """Threads."""
        return len(os.listdir(f"/proc/{self._pid}/task"))

    def growth(self) -> float:
        """Of RSS between the first samples after two minutes and the last ones, as a share; medians of three."""
        settled = [one for one in self.samples if one.seconds >= SETTLED_SECONDS] or self.samples[-1:]
        first = median(one.resident_bytes for one in settled[:3])
        return median(one.resident_bytes for one in settled[-3:]) / first - 1


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


def token(user: str, secret: str) -> str:
    """Good for a day."""
    made: str = jwt.encode({"sub": user, "exp": int(time.time()) + 86_400}, secret, "HS256")
    return made


def soak(kafka: Bus, minutes: float, clients: int) -> list[str]:
    """Run it, printing a table; the faults that were found."""
    suffix, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    topic, order_topic = kafka.create_topic(f"soak-{suffix}"), kafka.create_topic(f"soak-orders-{suffix}")
    variables = {
        **environment(kafka, topic, order_topic),
        "GATEWAY_AUTH_MODE": "required",
        "JWT_SECRET": secret,
        "GATEWAY_LIMITS_CANCELS_PER_SECOND": "0",
        "GATEWAY_HISTORY_RECORDS": str(HISTORY_RECORDS),
        "GATEWAY_ORDERS_KEEP_TERMINAL_SECONDS": str(KEEP_ORDERS_SECONDS),
    }
    with ExitStack() as stack:
        enter = stack.enter_context
        events = enter(Part("soak.market", kafka.bootstrap, topic, EVENTS_A_SECOND))
        enter(exchange(kafka, topic, order_topic))
        served = enter(gateway(variables))
        served.wait_ready()
        scales = Scales(served.pid)
        nobody = scales.weigh()
        print("|      s |  RSS MiB | files | threads | loop % |\n|-------:|---------:|------:|--------:|-------:|")
        print(nobody.line(), flush=True)
        crowd = enter(Part("soak.churn", served.port, clients, CHURN_A_SECOND))
        checked = enter(Part("soak.resuming_client", served.port, RECONNECT_SECONDS))
        traders = enter(
            Part("soak.traders", served.port, ORDERS_A_SECOND, token("rest", secret), token("stream", secret))
        )
        events.go()
        _watch(scales, served, minutes * 60, [crowd, checked, traders, events])
        traders.go()
        traded = traders.read(ANSWER_SECONDS)
        events.go()
        published = events.read(ANSWER_SECONDS)
        checked.say({"numbers": published["numbers"], "books": published["books"]})
        seen = checked.read(ANSWER_SECONDS)
        growth = scales.growth()
        crowd.go()
        crowded = crowd.read(ANSWER_SECONDS)
        left = _await_nobody(scales, nobody)
        print(left.line(), flush=True)
        faults = [
            *seen["problems"],
            *traded["problems"],
            *_topic_faults(kafka, topic, seen["offsets"]),
            *_crowd_faults(crowded, clients, minutes),
        ]
        if published["unsent"]:
            faults.append(f"Kafka did not acknowledge {published['unsent']} events")
        if left.files > nobody.files:
            faults.append(f"{left.files - nobody.files} descriptors are left over: {_new_files(served.pid)}")
        if minutes * 60 > SETTLED_SECONDS and growth >= MOST_GROWTH:
            faults.append(f"RSS grew by {growth:.1%} after the first {SETTLED_SECONDS:.0f} s")
        print(
            f"\n{published['written']} events and {traded['commands']} order commands (median "
            f"{traded['median_seconds'] * 1000:.0f} ms, slowest {traded['slowest_seconds'] * 1000:.0f} ms); {crowd.first['open']} clients, {crowded['changes']} of them "
            f"replaced, {crowded['frames']} notifications read; ended: {crowded['ended']}; the slow one caught up "
            f"{crowded['caught_up']} times\n"
            f"checked: {seen['events']} events, {seen['changes']} changes of books, {seen['reconnects']} times away\n"
            f"RSS after {SETTLED_SECONDS:.0f} s: {growth:+.2%}; descriptors left: {left.files - nobody.files}; "
            f"threads left: {left.threads - nobody.threads}; loop: {median(s.loop_share for s in scales.samples):.0%} of a core"
        )
    return faults


def _watch(scales: Scales, served: Gateway, seconds: float, parts: list[Part]) -> None:
    started = time.monotonic()
    due = started + SAMPLE_SECONDS
    while due <= started + seconds:
        time.sleep(max(0.0, due - time.monotonic()))  # pacing: the next sample
        due += SAMPLE_SECONDS
        if served.process.poll() is not None:
            raise BenchError(f"the gateway ended; its log ends: {served.log_end()}")
        for part in parts:
            if not part.is_running:
                raise BenchError(f"{part.name} ended before its time")
        print(scales.weigh().line(), flush=True)


def _await_nobody(scales: Scales, nobody: Sample) -> Sample:
    deadline = time.monotonic() + LEFT_SECONDS
    while scales.files() > nobody.files and time.monotonic() < deadline:
        time.sleep(0.2)  # between looks: nothing tells when another process has closed a file
    return scales.weigh()


def _new_files(pid: int) -> str:
    """What they are, for who looks for the leak."""
    kinds: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kind = os.readlink(entry).partition(":")[0]
        except OSError:
            continue
        kinds[kind] = kinds.get(kind, 0) + 1
    return str(kinds)


def _crowd_faults(crowded: dict[str, Any], clients: int, minutes: float) -> list[str]:
    expected = {"stuck closed 4008"}
    # Who still does not read when the closing handshake has had its time finds the connection reset.
    allowed = expected | {"stuck Connection reset by peer"}
    faults = [
        f"{count} times: {how}"
        for how, count in crowded["ended"].items()
        if not how.endswith(" left") and how not in allowed
    ]
    if crowded["refused"]:
        faults.append(f"connections were refused: {crowded['refused']}")
    if crowded["open"] < clients - CHURN_A_SECOND:
        faults.append(f"only {crowded['open']} of {clients} clients were there at the end")
    if minutes >= 5:
        faults += [f"never: {how}" for how in expected - crowded["ended"].keys()]
        if not crowded["caught_up"]:
            faults.append("the slow reader was never conflated")
    return faults


def _topic_faults(kafka: Bus, topic: str, offsets: dict[str, tuple[int, int, int, str]]) -> list[str]:
    """Whether what the checked client got is what the topic has, offset by offset."""
    faults = []
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "broker.address.family": "v4",
            "group.id": "soak",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    try:
        for partition, (first, last, count, told) in offsets.items():
            consumer.assign([TopicPartition(topic, int(partition), first)])
            digest, there, at = hashlib.sha256(), 0, first - 1
            deadline = time.monotonic() + ANSWER_SECONDS
            while at < last and time.monotonic() < deadline:
                for message in consumer.consume(1000, 0.5):
                    offset, value = message.offset(), message.value()
                    if message.error() is not None or offset is None or value is None:
                        raise BenchError(f"the topic cannot be read again: {message.error()}")
                    at = offset
                    if at <= last and json.loads(value)["type"] in PUBLIC:
                        there += 1
                        digest.update(b"%d," % at)
            if (there, digest.hexdigest()) != (count, told):
                faults.append(f"partition {partition}: of {there} events from {first} to {last} the client has {count}")
    finally:
        consumer.close()
    return faults if offsets else ["nothing came"]


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--minutes", type=float, default=15.0, help="how long (default 15)")
    parser.add_argument("--clients", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--brokers", metavar="HOST:PORT", help="a Kafka that runs already, instead of one started here")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    for line in machine.describe():
        print(line)
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {options.minutes:g} minutes, {options.clients} clients\n")
    try:
        with bus(options.brokers) as kafka:
            faults = soak(kafka, options.minutes, options.clients)
    except (BenchError, KafkaUnavailable) as error:
        faults = [str(error)]
    except KeyboardInterrupt:
        return 1
    for fault in faults:
        print(f"soak: {fault}")
    print("soak: FAILED" if faults else "soak: passed")
    return 1 if faults else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
