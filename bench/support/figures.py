"""Quantiles, and the rows of the one table that the benches print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile: the least of `values` that `share` (0 to 1) of them do not exceed.

    Raises ValueError if there are no values.
    """
    if not values:
        raise ValueError("a quantile of nothing")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the median over rounds of one figure, and what it should be."""

    bench: str
    figure: str
    unit: str
    rounds: tuple[float, ...]
    below: float | None = None  # the target, in `unit`

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return median(self.rounds)

    @property
    def misses(self) -> bool:
        """Whether there is a target and the median is not below it."""
        return self.below is not None and self.value > self.below


@dataclass(frozen=True, slots=True)
class Absent:
    """A line of the table for what could not be measured here, and why."""

    bench: str
    figure: str
    reason: str


def table(rows: Sequence[Row | Absent]) -> str:
    """The rows as a Markdown table, which is also readable in a terminal."""
    lines = [("bench", "figure", "median", "rounds: least to most", "target")]
    for row in rows:
        if isinstance(row, Absent):
            lines.append((row.bench, row.figure, "missing", row.reason, ""))
            continue
        least, most = min(row.rounds), max(row.rounds)
        spread = f"{_text(least)} to {_text(most)} ({len(row.rounds)})"
        target = "" if row.below is None else f"< {row.below:g}: {'MISSED' if row.misses else 'met'}"
        lines.append((row.bench, row.figure, f"{_text(row.value)} {row.unit}".rstrip(), spread, target))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    cells = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _text(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
