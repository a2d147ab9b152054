"""Candles to a thousand clients, beside a C loop that sends them each fill, or one message a tick.

On the channel ten fills a tick are one notification, and there are four a second at most; here there is one after each tick,
so that it is a tick that is compared: CPU of a client and tick, each server on the same core, the load on the other, by turns.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from bench.fanout.compared_servers import c_loop
from bench.fanout.servers import Kind, Run, Server, server
from bench.support.figures import Row
from bench.support.records import FILLS_A_TICK

SUBSCRIBE = '{"id":1,"method":"public/subscribe","params":{"channels":["candles.KCN/EUR.1m"]}}'
OURS = "ours, candles channel"
TURNS = 4
WARM_SECONDS = 0.3
TARGET = 1.3


def bench(rounds: int, seconds: float, clients: int) -> list[Row]:
    """Medians over `rounds`. Raises BenchError."""
    options = ("--path", "/ws?stream=none", "--send", SUBSCRIBE, "--expect", "2")
    ours = Kind(OURS, (sys.executable, "-m", "bench.fanout.ours"), options)
    runs: dict[str, list[list[Run]]] = {}
    with ExitStack() as stack:
        peer, mine = (
            stack.enter_context(server(kind, *arguments))
            for kind, arguments in ((c_loop(), ()), (ours, ("--candles",)))
        )
        for one in (peer, mine):
            stack.enter_context(one.clients(clients))
            one.run(1, WARM_SECONDS)
        sizes: list[tuple[str, Server, int]] = [
            (OURS, mine, 1),
            ("C loop, a message a tick", peer, 1),
            (f"C loop, {FILLS_A_TICK} messages a tick", peer, FILLS_A_TICK),
        ]
        for number in range(rounds):
            for turn in range(TURNS):
                for name, one, size in sizes if turn % 2 else reversed(sizes):
                    run = one.run(size, seconds / TURNS)
                    runs.setdefault(name, [[] for _ in range(rounds)])[number].append(run)
    ticks = {name: size for name, _, size in sizes}
    us = {name: tuple(_cpu_us(turns, ticks[name]) for turns in runs[name]) for name in ticks}
    title = f"candles, {FILLS_A_TICK} fills a tick"
    rows = [Row(title, name, "us/client and tick", us[name]) for name in ticks]
    for name in list(ticks)[1:]:
        ratios = tuple(ours_us / theirs for ours_us, theirs in zip(us[OURS], us[name], strict=True))
        rows.append(Row(title, f"{OURS} / {name}", "", ratios, TARGET))
    return rows


def _cpu_us(turns: list[Run], size: int) -> float:
    """CPU microseconds of a client and a tick, in all turns of a round together."""
    return sum(run.cpu_seconds for run in turns) / sum(run.deliveries for run in turns) * size * 1e6
