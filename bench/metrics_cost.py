"""What counting costs: `python -m bench.metrics_cost [--rounds N]`

The same market, hub and sockets under two pumps, in turns: one as it is, and one from whose source (`core/pump.py`,
`core/delivery/fanout.py`) all that counts or times has been cut out. So nothing has to be kept in step by hand, and what is
measured includes the additions in the innermost loop. CPU time of the one thread; a tick is from the drain to the last send.
"""

from __future__ import annotations

import argparse
import ast
import gc
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any
from unittest.mock import patch

import core.delivery.fanout
import core.pump
from bench.support.machine import describe
from bench.support.records import event, snapshot
from bench.support.transport import Transport
from core.channels.hub import Hub
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.market.market import Market
from core.messages.feed_record import Record
from core.telemetry.metrics import Metrics

SYMBOLS = ("KCN/EUR", "BTC/EUR", "ETH/EUR")
TICKS_A_ROUND = 20
# Names that only counting has: attributes whose calls and assignments go, and local sums.
COUNTING = {"_observer", "_metrics", "_began"}
SUMS = {"writes", "size", "messages", "oldest_ms", "began"}


class _Cut(ast.NodeTransformer):
    """Leaves out the statements that count."""

    def __init__(self) -> None:
        self.lines = 0

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.AugAssign) and self._is_told_by_work(node):
            return ast.Expr(node.value)
        if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign | ast.If) and self._counts(node):
            self.lines += (node.end_lineno or node.lineno) - node.lineno + 1
            return ast.Pass() if not isinstance(node, ast.If) or not node.orelse else self._otherwise(node)
        return self.generic_visit(node)

    def _otherwise(self, node: ast.If) -> ast.AST:
        """The last branch of `if: <counts> elif: <does not>`, under the same condition."""
        node.body = [ast.Pass()]
        return self.generic_visit(node)

    def _counts(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Expr):
            call = node.value
            return isinstance(call, ast.Call) and any(
                isinstance(part, ast.Attribute) and part.attr in COUNTING for part in ast.walk(call.func)
            )
        if isinstance(node, ast.If):
            return all(self._counts(inner) for inner in node.body)
        if isinstance(node, ast.Assign | ast.AugAssign) and not self._is_told_by_work(node):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return all(self._is_sum(target) for target in targets)
        return False

    @staticmethod
    def _is_told_by_work(node: ast.Assign | ast.AugAssign) -> bool:
        """Whether the value is that of a method of its own: the sum goes, the call stays."""
        call = node.value
        return (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id == "self"
        )

    @staticmethod
    def _is_sum(target: ast.AST) -> bool:
        if isinstance(target, ast.Name):
            return target.id in SUMS
        return isinstance(target, ast.Attribute) and target.attr == "_began"


def without_counting(module: ModuleType) -> tuple[ModuleType, int]:
    """A copy of the module that does the same and counts nothing, and how many lines it has less."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    cut = _Cut()
    cut.visit(tree)
    bare = ModuleType(module.__name__)
    exec(compile(ast.fix_missing_locations(tree), f"<bare {module.__name__}>", "exec"), bare.__dict__)
    return bare, cut.lines


class _Side:
    """A pump with a hub of its own; the connections are everybody's."""

    needs_beats = False

    def __init__(self, connections: list[socket.socket], pump: ModuleType, fanout: ModuleType, counts: bool) -> None:
        metrics = Metrics()
        self.metrics = metrics

        def on_event(event: Any, *_: int) -> None:
            if counts:
                metrics.count_event(event.type)

        self.market = Market(lambda *_: None, on_event, lambda *_: None)
        with patch("core.channels.hub.Fanout", fanout.Fanout):
            self.hub = Hub(self.market, lambda: "epoch", time.monotonic, metrics)
        self.records: list[Record] = []
        self.done: list[int] = []
        for connection in connections:
            outbox = Outbox(Transport(connection.send), 1 << 20)
            self.hub.add(Subscriber(outbox, lambda *_: None), stream=True)
        self.pump = pump.Pump(
            self, self, self.market, self.hub, metrics, poll_interval_ms=1, idle_interval_ms=10, again=lambda: None
        )

    def poll(self) -> None:
        """Nothing is awaited."""

    def drain(self) -> tuple[list[Record], list[int], bool]:
        records, self.records = self.records, []
        done, self.done = self.done, []
        return records, done, False

    def serve(self, partitions: list[int]) -> None:
        """A partition has been warmed up."""
        self.hub.partition_changes.serve(partitions)

    def tick(self, records: list[Record]) -> int:
        """Nanoseconds of CPU for these records, from the drain to the last send."""
        self.records = records
        began = time.thread_time_ns()
        self.pump.beat()
        return time.thread_time_ns() - began


def connections(count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """So many loopback connections, by their ends."""
    near, far = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(count):
            far.append(socket.create_connection(server.getsockname()))
            near.append(server.accept()[0])
    for one in (*near, *far):
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def measure(clients: int, events: int, rounds: int) -> tuple[float, float, float]:
    """Microseconds a delivery without counting, what counting adds to a tick as a share of it, and in microseconds."""
    near, far = connections(clients)
    bare_fanout, fewer = without_counting(core.delivery.fanout)
    bare_pump, fewer_too = without_counting(core.pump)
    assert fewer > 10 and fewer_too > 5, "the sources have changed: nothing would be measured"
    sides = [_Side(near, bare_pump, bare_fanout, False), _Side(near, core.pump, core.delivery.fanout, True)]
    buffer = bytearray(1 << 20)
    offset = 0
    differences: list[int] = []
    bare_costs: list[int] = []

    def read_all() -> None:
        for one in far:
            try:
                one.recv_into(buffer)
            except BlockingIOError:
                pass

    for side in sides:
        side.done = [0]
        side.tick([Record(0, number, 1, snapshot(symbol), False) for number, symbol in enumerate(SYMBOLS)])
    read_all()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds + 1):
            for tick in range(TICKS_A_ROUND):
                spent = [0, 0]
                now_ms = int(time.time() * 1000)
                records = [Record(0, 10 + offset + n, now_ms, event("m", offset + n)[1], True) for n in range(events)]
                offset += events
                for which in (0, 1) if (number + tick) % 2 else (1, 0):
                    spent[which] = sides[which].tick(list(records))
                if number:  # the first round warms up
                    differences.append(spent[1] - spent[0])
                    bare_costs.append(spent[0])
                if tick % max(1, 20 // events) == 0:
                    read_all()
            read_all()
    finally:
        gc.enable()
    counted = sides[1].metrics.registry.get_sample_value
    ticks = (rounds + 1) * TICKS_A_ROUND
    assert counted("gateway_notifications_total") == ticks * events * clients + len(SYMBOLS) * clients, (
        "not all was sent"
    )
    assert counted("gateway_fanout_seconds_count") == ticks + 1
    assert counted("gateway_record_to_socket_seconds_count") == ticks
    assert sides[0].metrics.registry.get_sample_value("gateway_notifications_total") == 0
    for one in (*near, *far):
        one.close()
    bare, more = median(bare_costs), median(differences)
    return bare / clients / events / 1000, more / bare, more / 1000


def scrape() -> float:
    """Milliseconds of CPU for the text of a gateway that has seen something of everything."""
    metrics = Metrics()
    for kind in ("fill", "orderbook_delta", "orderbook_snapshot"):
        metrics.count_event(kind)
    for number in range(16):
        metrics.refusals.labels(f"reason {number}").inc()
        metrics.orders.labels("place", f"outcome {number}").inc()
    metrics.set_lag("market", dict.fromkeys(range(32), 0))
    return median([_timed(metrics.text) for _ in range(20)])


def _timed(work: Callable[[], object]) -> float:
    began = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - began) / 1e6


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.metrics_cost", description="What counting costs.")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="of 20 ticks each (default 40)")
    rounds = parser.parse_args().rounds
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for line in describe():
        print(line)
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, medians of {rounds * TICKS_A_ROUND} ticks, paired\n")
    print("| clients | events a tick | us a delivery, nothing counted | counting adds | us a tick |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for clients, events in ((1000, 1), (1000, 10), (100, 1), (10, 1)):
        bare, share, cost = measure(clients, events, rounds)
        print(f"| {clients:,} | {events} | {bare:.2f} | {share:.2%} | {cost:.1f} |", flush=True)
    print(f"\na scrape: {scrape():.1f} ms in an executor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
