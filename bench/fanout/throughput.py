"""CPU per delivery with 1, 10 and 100 events a tick, each server on the same core, the load on the other, by turns.

LoopTurns are short and a round has several of each server, as what else goes on in the machine comes and goes in seconds; and
who begins is another one each time, as a server that had the turn before as well is better off.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench.fanout.kinds import C_LOOP, CENTRIFUGE, EVENTS, NAIVE, STREAM, WEBSOCKETS, c_loop, ours
from bench.fanout.servers import Kind, Run, Server, server
from bench.support.figures import Absent, Row
from bench.support.processes import BenchError

SIZES = (1, 10, 100)
TURNS = 4
WARM_SECONDS = 0.3
# Of the C loop's, and of the naive loop's.
TO_C = {1: 1.45, 10: 1.35}
TO_NAIVE = 0.25
RIVALS = (WEBSOCKETS, CENTRIFUGE)


def bench(peers: list[Kind], rounds: int, seconds: float, clients: int) -> list[Row | Absent]:
    """Medians over `rounds`, in each of which everybody has `seconds` of every size, in turns.

    A peer that fails is left out, and named; raises BenchError if that happens to one of ours or to the C loop.
    """
    runs: dict[tuple[str, int], list[list[Run]]] = {}
    absent: list[Absent] = []
    with ExitStack() as stack:
        servers: list[Server] = []
        for kind in (c_loop(), ours(STREAM), ours(EVENTS), *peers):
            try:
                started = stack.enter_context(server(kind))
                stack.enter_context(started.clients(clients))
                started.run(1, WARM_SECONDS)
                servers.append(started)
            except BenchError as error:
                _give_up(absent, kind.name, error)
        for number in range(rounds):
            for size in SIZES:
                for turn in range(TURNS):
                    first = (number * TURNS + turn) % len(servers)
                    for one in servers[first:] + servers[:first]:
                        try:
                            run = one.run(size, seconds / TURNS)
                        except BenchError as error:
                            _give_up(absent, one.kind.name, error)
                            servers.remove(one)
                            continue
                        runs.setdefault((one.kind.name, size), [[] for _ in range(rounds)])[number].append(run)
    names = [one.kind.name for one in servers]
    rows: list[Row | Absent] = []
    for size in SIZES:
        title = f"fan-out, {size} a tick"
        us = {name: tuple(map(_cpu_us, runs[name, size])) for name in names}
        rows += [Row(title, name, "us/delivery", us[name]) for name in names]
        rows += _ratios(title, size, us)
    shares = [
        max(run.load_share for (name, _), turns in runs.items() if name in names for run in turns[number])
        for number in range(rounds)
    ]
    rows.append(Row("fan-out", "the load, at its busiest", "% of its core", tuple(share * 100 for share in shares)))
    return rows + absent


def _cpu_us(turns: list[Run]) -> float:
    """CPU microseconds a delivery in all turns of a round together."""
    return sum(run.cpu_seconds for run in turns) / sum(run.deliveries for run in turns) * 1e6


def _give_up(absent: list[Absent], name: str, error: BenchError) -> None:
    if name in (C_LOOP, STREAM, EVENTS):
        raise error
    absent.append(Absent("fan-out", name, f"it failed: {error}"))


def _ratios(title: str, size: int, us: dict[str, tuple[float, ...]]) -> list[Row]:
    rows = []
    for mine in (STREAM, EVENTS):
        for other in us:
            if other in (STREAM, EVENTS):
                continue
            ratios = tuple(ours_us / theirs for ours_us, theirs in zip(us[mine], us[other], strict=True))
            target = _target(other, size)
            # The events channel's text is longer by its envelope: the peers' bytes are those of the default stream.
            if mine == STREAM or other in (C_LOOP, NAIVE):
                rows.append(Row(title, f"{mine} / {other}", "", ratios, target))
    return rows


def _target(other: str, size: int) -> float | None:
    if other == C_LOOP:
        return TO_C.get(size)
    if size == 1:
        return TO_NAIVE if other == NAIVE else 1.0 if other in RIVALS else None
    return 1.0 if size == 10 else None
