"""What a line of the audit costs: `python -m bench.audit_cost`

CPU microseconds of an accepted order's line, made and written to nowhere (`/dev/null`: a write and a poll, but no disk), by how many
are told in one turn of the loop; beside it what is left with `log.orders: none`, and the same by Python's own logging. By turns.
"""

from __future__ import annotations

import logging
import os
import statistics
from collections.abc import Callable
from functools import partial
from time import process_time_ns

from bench.support import machine
from core.messages.order_rules import OrderRules, check_place
from core.telemetry.audit import Asker, Audit, names_of
from process.logs import set_up_logging

ROUNDS = 15
LINES = 4_000
LINES_A_TURN = (1, 5, 20)

ASKER = Asker("6f0c4a4e00000017", "alice", 17)
ORDER = check_place(
    {
        "symbol": "KCN/EUR",
        "side": "bid",
        "order_type": "limit",
        "price": "99.50",
        "quantity": "2.0",
        "client_order_id": "run-0000000001",
    },
    OrderRules(),
)
OUTCOME = {"order_id": "0b9b9d8e-8f0c-5a4e-9b9b-9d8e8f0c4a4e", "client_order_id": "run-0000000001"}


def _told(form: str, a_turn: int) -> None:
    flushes: list[Callable[[], None]] = []
    audit = Audit(
        set_up_logging("info", form=form),
        lambda _seconds, flush: flushes.append(flush),
        orders="all",
        lines_per_second=0,
    )
    for _ in range(LINES // a_turn):
        for _ in range(a_turn):
            audit.told("place", ASKER, OUTCOME, names_of(ORDER))
        flushes.pop()()


def _not_told() -> None:
    audit = Audit()
    for _ in range(LINES):
        audit.told("place", ASKER, OUTCOME, names_of(ORDER))


def _logged() -> None:
    set_up_logging("info")
    log = logging.getLogger("gateway.bench")
    for _ in range(LINES):
        log.info(
            "place accepted user_id=%s order_id=%s client_order_id=%s symbol=%s request_id=%s client=%d",
            ASKER.user_id, OUTCOME["order_id"], ORDER.client_order_id, ORDER.symbol, ASKER.request_id, ASKER.client,
        )  # fmt: skip


def main() -> None:
    """Measure and print."""
    for line in machine.describe():
        print(line, flush=True)
    ways: dict[str, Callable[[], None]] = {"not told (log.orders: none)": _not_told, "Python's logging": _logged}
    for form in ("text", "json"):
        for a_turn in LINES_A_TURN:
            ways[f"{form}, {a_turn} a turn"] = partial(_told, form, a_turn)
    told = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where the log goes
    figures: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for _ in range(ROUNDS):
            for name, run in ways.items():
                began = process_time_ns()
                run()
                figures[name].append((process_time_ns() - began) / LINES / 1000)
    finally:
        os.dup2(told, 2)
    for name, values in figures.items():
        print(f"{name:<28} {statistics.median(values):5.1f} us a line ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
