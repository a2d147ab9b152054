"""What the order directory costs: memory an order, and CPU time a record. `python -m bench.order_directory`.

A million open orders have to fit in 1 GB. Each shape is measured in a process of its own, whose resident memory before
the orders is told apart. Costs are medians over batches, in CPU microseconds; events are parsed beforehand, as the
gateway has done by then for the market. The same of orders that are taken back from what is kept of them, and what it costs
to describe them all, and to note that one changed.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from time import perf_counter, thread_time_ns
from uuid import UUID

from bench.support import machine
from core.messages.commands import PlaceOrder
from core.messages.events import Event, read_event
from core.messages.model import OrderType, Side, TimeInForce
from core.messages.order_ids import order_id_for
from core.orders.directory import OrderDirectory
from core.orders.order import Order
from core.orders.state import OrderState

ORDERS = 1_000_000
BATCH = 10_000
MOST_MEGABYTES = 1_000
NAMESPACE = UUID("0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11")
SYMBOLS = [f"S{number}/EUR" for number in range(100)]
# How many users the orders have: market makers with a thousand each, or as many users as orders.
SHAPES = {"1,000 users": 1_000, "as many users as orders": ORDERS}
TAKEN_BACK = "taken back, 1,000 users"
STATE_PARTITIONS = 12
CHANGES = 100_000
NOW_MS = 1_790_000_000_000
CHILD_SECONDS = 600

Fold = Callable[[int], object]


def order_name(number: int) -> str:
    """A client_order_id as programs make them: the text of a UUID."""
    return str(UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))


def command(number: int, users: int) -> tuple[str, bytes]:
    """The id and the record of one order."""
    user_id = f"user-{number % users:08d}-of-the-bench"
    placed = PlaceOrder(
        SYMBOLS[number % len(SYMBOLS)],
        Side.BID if number % 2 else Side.ASK,
        OrderType.LIMIT,
        Decimal(10_000 + number % 5_000) / 100,
        Decimal(1 + number % 997) / 1000,
        TimeInForce.GTC,
        order_name(number),
    )
    order_id = order_id_for(NAMESPACE, user_id, placed.client_order_id)
    return order_id, placed.encode(order_id, user_id, NOW_MS + number)


def event(kind: str, order_id: str, symbol: str, **fields: object) -> Event:
    """One event as the feed hands it over."""
    members = {"type": kind, "order_id": order_id, "symbol": symbol, "timestamp": NOW_MS, **fields}
    return read_event(json.dumps(members).encode())


def timed(fold: Fold, count: int) -> float:
    """CPU microseconds for each of `count` calls."""
    started = thread_time_ns()
    for number in range(count):
        fold(number)
    return (thread_time_ns() - started) / 1000 / count


class Measured:
    """One shape, in this process."""

    def __init__(self, users: int) -> None:
        self.users = users
        self.changes = 0
        self.directory = OrderDirectory(
            keep_terminal_seconds=86_400, on_change=self._on_change, on_private=lambda _user, _payload: None
        )
        self._event_offset = 0

    def _on_change(self, _order: Order) -> None:
        self.changes += 1

    def run(self) -> dict[str, float]:
        """The figures."""
        figures: dict[str, float] = {}
        gc.collect()
        before = machine.resident_bytes(os.getpid())
        placing: list[float] = []
        accepting: list[float] = []
        for first in range(0, ORDERS, BATCH):
            batch = [command(number, self.users) for number in range(first, first + BATCH)]
            placing.append(self._fold_commands(first, [record for _, record in batch]))
            accepting.append(self._accept([order_id for order_id, _ in batch]))
        del batch
        gc.collect()
        figures["resident MB"] = (machine.resident_bytes(os.getpid()) - before) / 1e6
        figures["bytes an order"] = figures["resident MB"] * 1e6 / ORDERS
        figures["peak of the process, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        figures["fold_command, us"] = statistics.median(placing)
        figures["fold_event accepted, us"] = statistics.median(accepting)
        started = perf_counter()
        gc.collect()
        figures["full garbage collection, ms"] = (perf_counter() - started) * 1000
        some = [command(number, self.users)[0] for number in range(BATCH)]
        figures["fold_event fill (two orders), us"] = self._fill(some)
        figures["fold_event early and taken, us"] = self._come_early(some)
        user_id = "user-00000007-of-the-bench"
        listing = [timed(lambda _: self.directory.open_orders(user_id), 20) for _ in range(5)]
        figures["open_orders of one user, us"] = statistics.median(listing)
        assert len(self.directory) == ORDERS + BATCH
        return figures

    def _fold_commands(self, first: int, records: list[bytes]) -> float:
        fold = self.directory.fold_command
        return timed(lambda i: fold(0, first + i, NOW_MS, records[i], True), len(records))

    def _fold_events(self, events: list[Event]) -> float:
        fold, first = self.directory.fold_event, self._event_offset
        self._event_offset += len(events)
        return timed(lambda i: fold(events[i], 0, first + i, NOW_MS, True), len(events))

    def _accept(self, order_ids: list[str]) -> float:
        fields = {"side": "bid", "order_type": "limit", "price": "100.00", "quantity": "1.000"}
        return self._fold_events([event("order_accepted", order_id, "S0/EUR", **fields) for order_id in order_ids])

    def _fill(self, order_ids: list[str]) -> float:
        fills = []
        for buy, sell in zip(order_ids[::2], order_ids[1::2], strict=True):
            sides = {"buy_order_id": buy, "sell_order_id": sell}
            fills.append(event("fill", buy, "S0/EUR", price="100.00", quantity="0.0005", **sides))
        return self._fold_events(fills)

    def _come_early(self, order_ids: list[str]) -> float:
        """Events of orders that are not known yet, and then known: what both together cost beyond a command."""
        late = [command(ORDERS + number, self.users) for number in range(len(order_ids))]
        fields = {"side": "bid", "order_type": "limit", "price": "100.00", "quantity": "1.000"}
        early = self._fold_events([event("order_accepted", order_id, "S0/EUR", **fields) for order_id, _ in late])
        assert len(self.directory.early_events) == len(late)
        return early + self._fold_commands(ORDERS, [record for _, record in late])


class TakenBack:
    """Accepted orders described by one directory, batch by batch, and taken back by another one."""

    def __init__(self) -> None:
        self.directory, self.state = kept()

    def run(self) -> dict[str, float]:
        """The figures."""
        figures: dict[str, float] = {}
        gc.collect()
        before = machine.resident_bytes(os.getpid())
        batches = [self._take_back(first) for first in range(0, ORDERS, BATCH)]
        assert len(self.directory) == ORDERS
        gc.collect()
        figures["resident MB"] = (machine.resident_bytes(os.getpid()) - before) / 1e6
        figures["take_back, us"] = statistics.median(batches)
        figures["take_back of all, seconds"] = sum(batches) * BATCH / 1e6
        pieces = [self._cut(partition) for partition in range(STATE_PARTITIONS)]
        figures["cut of all, us an order"] = sum(sum(piece) for piece in pieces) / ORDERS
        figures["longest piece of a cut, us"] = max(max(piece[1:]) for piece in pieces)
        figures["beginning of a cut, us"] = max(piece[0] for piece in pieces)
        ids = [command(number, 1_000)[0] for number in range(CHANGES)]
        note = self.directory.before_change
        figures["note a change, us"] = timed(lambda number: note(ids[number], SYMBOLS[0]), CHANGES)
        return figures

    def _take_back(self, first: int) -> float:
        directory, state = kept()
        fields = {"side": "bid", "order_type": "limit", "price": "100.00", "quantity": "1.000"}
        for offset, number in enumerate(range(first, first + BATCH)):
            order_id, record = command(number, 1_000)
            directory.fold_command(0, offset, NOW_MS, record, True)
            directory.fold_event(event("order_accepted", order_id, "S0/EUR", **fields), 0, offset, NOW_MS, True)
        records = [
            (partition, record.key, record.value)
            for partition in range(STATE_PARTITIONS)
            for piece in state.cut(partition, None, is_whole=False)
            for record in piece
        ]
        assert len(records) == BATCH
        take_back = self.state.take_back
        return timed(lambda number: take_back(*records[number]), BATCH)

    def _cut(self, partition: int) -> list[float]:
        """CPU microseconds of its beginning, and of each piece."""
        started = thread_time_ns()
        pieces = self.state.cut(partition, None, is_whole=False)
        costs = [thread_time_ns() - started]
        while True:
            started = thread_time_ns()
            if next(pieces, None) is None:
                return [cost / 1000 for cost in costs]
            costs.append(thread_time_ns() - started)


def kept() -> tuple[OrderDirectory, OrderState]:
    """A directory, and what is kept of it."""
    directory = OrderDirectory(
        keep_terminal_seconds=86_400, on_change=lambda _order: None, on_private=lambda _user, _payload: None
    )
    return directory, OrderState(directory, lambda: STATE_PARTITIONS)


def main() -> None:
    if len(sys.argv) == 2:
        what = sys.argv[1]
        print(json.dumps(TakenBack().run() if what == TAKEN_BACK else Measured(SHAPES[what]).run()))
        return
    for line in machine.describe():
        print(line)
    print(f"{ORDERS:,} open orders with a client_order_id of 36 characters, {len(SYMBOLS)} symbols")
    for shape in (*SHAPES, TAKEN_BACK):
        done = subprocess.run(
            [sys.executable, "-m", "bench.order_directory", shape],
            capture_output=True,
            check=True,
            timeout=CHILD_SECONDS,
        )
        figures = json.loads(done.stdout)
        print(shape)
        for name, value in figures.items():
            print(f"  {name:34} {value:10,.1f}")
        verdict = "met" if figures["resident MB"] < MOST_MEGABYTES else "MISSED"
        print(f"  {'below ' + format(MOST_MEGABYTES, ',') + ' MB':34} {verdict:>10}")


if __name__ == "__main__":
    main()
