"""From one process to a million connections: a model on paper of what was measured, and a storm of reconnects, simulated.

`python -m bench.scale` prints the tables of docs/scale.md, where every assumption stands with its source. Nothing is measured here.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from math import ceil
from random import Random


@dataclass(frozen=True)
class Measured:
    """A figure, the words that have it, and the file in which they are: a test compares them."""

    value: float
    words: str
    file: str = "bench/RESULTS.md"


CORE_PERCENT = Measured(37, "the loop 37 % of a core at 27,700 notifications/s")
CORE_NOTIFICATIONS = Measured(27_700, CORE_PERCENT.words)
DELIVERY_US = Measured(0.466, "| gateway, with 17.2 events a send | 0.466 us/delivery |")
EVENTS_A_SEND = Measured(17.2, DELIVERY_US.words)
EVENT_US = Measured(39.6, "| event_cost | three views, one symbol, to the frames | 39.6 ")
ORDER_US = Measured(128, "| order, 64  | gateway, WebSocket CPU       | 128 us/request ")
READ_BACK_US = Measured(16.7, "| read back | 16.7 |")
ORDER_EVENT_US = Measured(2.1, "folding a command 10.4 to 10.8 us, an order event 2.1;")
KNOWN_MB = Measured(
    1_203,
    "| resident | on the clock, core shared |\n| --- | --- | --- | --- |\n| restored | 20.8 s; target 30: met | 1,203 MB;",
)
CONNECTION_KIB = Measured(18.4, "| ours, one subscription | 17.7 | 18.4 |")
MOST_CONNECTIONS = Measured(5_000, "| memory, KiB a connection | 1,000 | 5,000 |")
BOOK_BYTES = Measured(1_308, "| book, top 10 | 100 ms | 1,308 |")
TICKER_BYTES = Measured(521, "| ticker | 100 ms | 521 |")
TRADES_BYTES = Measured(506, "| trades | 100 ms | 506 |")
EVENT_BYTES = Measured(265, "| event stream | 1 ms | 265 |")
CONNECT_MS = Measured(0.6, "# New connections, in all workers: each costs 0.6 ms.", "conf/gateway.yaml")
CONNECTS_PER_SECOND = Measured(1000, "#connects_per_second: 1000", "conf/gateway.yaml")
REFUSAL_US = Measured(190, "| order, 64  | bare Tornado CPU             | 190 us/request ")
FIRST_WAIT_SECONDS = Measured(2.0, "min(LONGEST_WAIT_SECONDS, 2.0**failures)", "clients/python/mexchange/connection.py")
LONGEST_WAIT_SECONDS = Measured(10.0, "LONGEST_WAIT_SECONDS = 10.0", "clients/python/mexchange/connection.py")

# By the soak, in which is all that a process does; by the fan-out to 1,000 clients of one channel, which is the least.
SOAK_US = CORE_PERCENT.value / 100 * 1e6 / CORE_NOTIFICATIONS.value
FANOUT_US = DELIVERY_US.value * EVENTS_A_SEND.value


@dataclass(frozen=True)
class Load:
    """What is asked of a fleet. Rates are per second; `slices` is into how many instances `shared` splits the market."""

    clients: int
    book_rate: float = 10.0
    events: float = 2_000.0
    orders_per_client: float = 0.002
    slices: int = 1

    @property
    def orders(self) -> float:
        return self.clients * self.orders_per_client

    @property
    def notifications(self) -> float:
        """Of one client: its book, a ticker and trades once a second."""
        return self.book_rate + 2.0

    @property
    def client_bytes(self) -> float:
        """To one client, a second."""
        return self.book_rate * BOOK_BYTES.value + TICKER_BYTES.value + TRADES_BYTES.value


@dataclass(frozen=True)
class Plan:
    """How a fleet is made up."""

    processes: int
    least_processes: int
    machines: int
    own_percent: float
    machine_gb: float
    kafka_mb: float
    machine_gbit: float


# A core is planned to be so busy; a machine has so many workers, a core each; and one machine more than needed may die.
BUSY = 0.6
WORKERS = 8
ORDER_EVENTS = 2


def plan(load: Load) -> Plan | None:
    """The fleet for a load, or None: what each process does for itself is more than it has, and no number of them is enough."""
    own = (
        load.events * EVENT_US.value / load.slices
        + load.orders * (READ_BACK_US.value + ORDER_EVENTS * ORDER_EVENT_US.value)
    ) / 1e6
    if own >= BUSY:
        return None

    def processes(notification_us: float) -> int:
        work = (load.clients * load.notifications * notification_us + load.orders * ORDER_US.value) / 1e6
        needed = max(ceil(work / (BUSY - own)), ceil(load.clients / MOST_CONNECTIONS.value))
        return ceil(needed / load.slices) * load.slices

    count = processes(SOAK_US)
    machines = ceil(count / WORKERS) + 1 if count > 1 else 1
    # In `shared` a further consumer of each process reads all partitions of both topics, for the orders.
    reads = (load.events * (1 / load.slices + (load.slices > 1)) + load.orders) * EVENT_BYTES.value
    return Plan(
        processes=count,
        least_processes=processes(FANOUT_US),
        machines=machines,
        own_percent=100 * own,
        machine_gb=min(count, WORKERS) * KNOWN_MB.value / 1e3 + load.clients / machines * CONNECTION_KIB.value / 1e6,
        kafka_mb=count * reads / 1e6,
        machine_gbit=load.clients / machines * load.client_bytes * 8 / 1e9,
    )


STEPS = {
    "one process": Load(1_000),
    "workers": Load(10_000),
    "instances in `broadcast`": Load(100_000),
    "a million, books at 100 ms": Load(1_000_000),
    "a million, books at 1000 ms": Load(1_000_000, book_rate=1.0),
    "the same, ten times the market": Load(1_000_000, book_rate=1.0, events=20_000.0),
    "the same, `shared` by 4": Load(1_000_000, book_rate=1.0, events=20_000.0, slices=4),
}


def _span(least: int, most: int) -> str:
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def plans(steps: dict[str, Load]) -> str:
    lines = [
        "| step | clients | orders/s | each process for itself | processes | machines | GB a machine | from Kafka | to clients, a machine |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, load in steps.items():
        fleet = plan(load)
        if fleet is None:
            lines.append(f"| {name} | {load.clients:,} | {load.orders:,.0f} | more than it has | - | - | - | - | - |")
            continue
        lines.append(
            f"| {name} | {load.clients:,} | {load.orders:,.0f} | {fleet.own_percent:.0f} % of a core "
            f"| {_span(fleet.least_processes, fleet.processes)} | {fleet.machines:,} | {fleet.machine_gb:.1f} "
            f"| {fleet.kafka_mb:,.1f} MB/s | {fleet.machine_gbit:.1f} Gbit/s |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Storm:
    """What became of a storm: seconds until half, 99 of 100 and all are back; refusals for each who came back; cores of the
    machine that was busiest with it, in its busiest second.
    """

    half: float
    most: float
    all: float
    refused: float
    cores: float


def storm(clients: int, instances: int, connects_per_second: float, random: Random) -> Storm:
    """Clients whose connection ended at second 0, each of whom tries an instance at random until one takes it.

    An instance takes `connects_per_second`, and a second's worth at once. Whom it refuses it tells to wait (`Retry-After`), and a
    client adds a wait of its own at random, up to 1 s at first, then 2, 4, 8 and 10.
    """
    waiting = [(random.random(), 1) for _ in range(clients)]
    heapify(waiting)
    tokens, seen = [connects_per_second] * instances, [0.0] * instances
    back: list[float] = []
    refused = 0
    work: Counter[tuple[int, int]] = Counter()
    while waiting:
        now, failures = waiting[0]
        at = int(random.random() * instances)
        tokens[at] = min(connects_per_second, tokens[at] + (now - seen[at]) * connects_per_second)
        seen[at] = now
        if tokens[at] >= 1:
            tokens[at] -= 1
            back.append(now)
            heappop(waiting)
            work[at, int(now)] += int(CONNECT_MS.value * 1e3)
        else:
            refused += 1
            told = max(1, ceil((1 - tokens[at]) / connects_per_second))
            own = random.random() * min(LONGEST_WAIT_SECONDS.value, FIRST_WAIT_SECONDS.value**failures)
            heapreplace(waiting, (now + told + own, failures + 1))
            work[at, int(now)] += int(REFUSAL_US.value)
    return Storm(
        half=back[clients // 2],
        most=back[clients * 99 // 100],
        all=back[-1],
        refused=refused / clients,
        cores=max(work.values()) / 1e6,
    )


def storms(steps: dict[str, Load]) -> str:
    lines = [
        "| step | what happens | come back, to each machine | connects/s | half | 99 % | all | refused, each | cores for it |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    limit = CONNECTS_PER_SECOND.value
    for name, load in steps.items():
        fleet = plan(load)
        # A market that is split has the storms of one that is whole.
        if fleet is None or fleet.machines < 2 or load.slices > 1:
            continue
        share, others = load.clients // fleet.machines, fleet.machines - 1
        scenes = [("one machine dies", share // others, others, limit)]
        # Where all come back to all, each machine has its own to take, and one of them stands for all.
        scenes += [("all connections end", share, 1, rate) for rate in (limit, 4 * limit)]
        for what, each, instances, rate in scenes:
            told = storm(each * instances, instances, rate, Random(1))
            lines.append(
                f"| {name} | {what} | {each:,} | {rate:,.0f} | {told.half:.1f} s | {told.most:.1f} s "
                f"| {told.all:.1f} s | {told.refused:.1f} | {told.cores:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale", description="The tables of docs/scale.md; or your own load."
    )
    parser.add_argument("--clients", type=int, help="instead of the page's steps, this many")
    parser.add_argument("--book-rate", type=float, default=10.0, help="changes of its book to a client, a second")
    parser.add_argument("--events", type=float, default=2_000.0, help="market events a second")
    parser.add_argument("--orders-per-client", type=float, default=0.002, help="a second")
    parser.add_argument("--slices", type=int, default=1, help="instances that share the market (kafka.consume: shared)")
    own = parser.parse_args()
    steps = STEPS
    if own.clients is not None:
        steps = {"yours": Load(own.clients, own.book_rate, own.events, own.orders_per_client, own.slices)}
    print(plans(steps), storms(steps), sep="\n\n")


if __name__ == "__main__":
    main()
