"""What one order book event costs: parse, book, and the views of three channels. `python -m bench.views`.

Prints the median microseconds of each step over many events. A lone figure says little on a busy machine; the target
is that the whole stays under 40 microseconds on the class of machine the gateway is measured on.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
from collections.abc import Callable
from decimal import Decimal
from time import perf_counter_ns

from core.market.book_views import BookViews, step_of
from core.market.ladder import Ladder, number_text
from core.messages.events import BookDelta, read_event
from core.messages.model import Side

LEVELS = 1_000
EVENTS = 20_000
TICK = Decimal("0.01")
MIDDLE = 100_000


def delta_records(rng: random.Random) -> list[bytes]:
    """Deltas of 1 to 3 changes, most of them near the best price, half of them quantities, half levels come and go."""
    books = {side: {MIDDLE + sign * (i + 1): 1 for i in range(LEVELS)} for side, sign in (("bid", -1), ("ask", 1))}
    records = []
    for sequence in range(EVENTS):
        deltas = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            side = rng.choice(("bid", "ask"))
            offset = 1 + min(int(rng.expovariate(1 / 15)), LEVELS - 1)
            ticks = MIDDLE + (offset if side == "ask" else -offset)
            there = books[side].pop(ticks, None)
            action = "add" if there is None else rng.choice(("update", "remove"))
            if action != "remove":
                books[side][ticks] = 1
            quantity = "0" if action == "remove" else f"{rng.randrange(1, 10**6) / 1000:.3f}"
            deltas.append({"action": action, "side": side, "price": f"{ticks / 100:.2f}", "quantity": quantity})
        event = {"type": "orderbook_delta", "symbol": "KCN/EUR", "sequence": sequence, "deltas": deltas}
        records.append(json.dumps(event, separators=(",", ":")).encode())
    return records


def full_ladders() -> tuple[Ladder, Ladder]:
    levels = [(i + 1, Decimal(i % 97 + 1) / 8) for i in range(LEVELS)]
    bids = Ladder(Side.BID, ((Decimal(MIDDLE - i) * TICK, quantity) for i, quantity in levels))
    asks = Ladder(Side.ASK, ((Decimal(MIDDLE + i) * TICK, quantity) for i, quantity in levels))
    return bids, asks


def put_all(bids: Ladder, asks: Ladder, event: BookDelta) -> None:
    for _, side, price, quantity in event.deltas:
        (bids if side is Side.BID else asks).put(price, quantity)


def measure(records: list[bytes], shapes: list[tuple[int | None, int | None]]) -> None:
    """`shapes`: (grouping, depth) of each view."""
    bids, asks = full_ladders()
    views = BookViews(bids, asks)
    opened = [views.open(step_of(TICK, grouping) if grouping else None, depth) for grouping, depth in shapes]
    for view in opened:
        view.take()
    steps: dict[str, list[int]] = {name: [] for name in ("parse", "book", "take", "text", "whole")}
    for record in records:
        t0 = perf_counter_ns()
        event = read_event(record)
        t1 = perf_counter_ns()
        assert isinstance(event, BookDelta)
        put_all(bids, asks, event)
        t2 = perf_counter_ns()
        taken = [view.take() for view in opened]
        t3 = perf_counter_ns()
        totals = number_text(bids.total), number_text(asks.total)
        for view, is_news in zip(opened, taken, strict=True):
            if is_news:
                ",".join((*view.taken_texts(), *totals))
        t4 = perf_counter_ns()
        for name, cost in zip(steps, (t1 - t0, t2 - t1, t3 - t2, t4 - t3, t4 - t0), strict=True):
            steps[name].append(cost)
    shown = "  ".join(f"{name} {statistics.median(costs) / 1000:5.2f}" for name, costs in steps.items())
    p99 = statistics.quantiles(steps["whole"], n=100)[98] / 1000
    print(f"{describe(shapes):44} {shown}  p99 {p99:.1f}")


def describe(shapes: list[tuple[int | None, int | None]]) -> str:
    return " ".join(f"{grouping or 'none'}.{depth or 'all'}" for grouping, depth in shapes) or "no view"


def median_cost(work: Callable[[], object], rounds: int = 200) -> float:
    costs = []
    for _ in range(rounds):
        start = perf_counter_ns()
        work()
        costs.append(perf_counter_ns() - start)
    return statistics.median(costs) / 1000


def main() -> None:
    gc.disable()
    records = delta_records(random.Random(1))
    print(f"median microseconds an event; {LEVELS} levels a side, {EVENTS} deltas of 1 to 3 changes")
    measure(records, [])
    for shapes in ([(None, 10)], [(None, 50)], [(None, None)], [(10, 50)]):
        measure(records, list(shapes))
    measure(records, [(None, 10), (None, 50), (None, None)])
    measure(records, [(None, 10), (None, None), (10, 50)])
    bids, asks = full_ladders()
    views = BookViews(bids, asks)
    view = views.open(None, None)
    print(f"whole book: first take {median_cost(lambda: BookViews(bids, asks).open(None, None).take()):.0f}", end="; ")
    view.take()
    print(f"snapshot {median_cost(view.snapshot):.0f}", end="; ")
    print(f"its text {median_cost(view.snapshot_texts):.0f}", end="; ")
    print(f"steps built anew {median_cost(lambda: BookViews(bids, asks).open(step_of(TICK, 10), None).take()):.0f}")


if __name__ == "__main__":
    main()
