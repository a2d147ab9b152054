"""State that outlives the warm-up: taking it back, what writing it costs, and how large it is."""

from __future__ import annotations

from bench.state import restoring, writing
from bench.support.bus import Bus
from bench.support.figures import Absent, Row


def bench(bus: Bus, rounds: int, quick: bool) -> list[Row | Absent]:
    """Medians; `quick`: fewer orders and symbols, and short windows."""
    orders, symbols = (20_000, 20) if quick else (1_000_000, 500)
    rows: list[Row | Absent] = [*restoring.bench(bus, min(rounds, 3), orders, symbols)]
    rows += writing.bench(bus, rounds, 5.0 if quick else 15.0, symbols)
    return rows
