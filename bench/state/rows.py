"""Figures by name as rows of the table."""

from __future__ import annotations

from collections.abc import Mapping

from bench.support.figures import Row


def rows_of(bench: str, figures: Mapping[str, list[float]], below: Mapping[str, float]) -> list[Row]:
    """One row a figure; `figures` are named `figure|unit`, the targets by the figure alone."""
    rows = []
    for name, values in figures.items():
        figure, _, unit = name.partition("|")
        rows.append(Row(bench, figure, unit, tuple(values), below.get(figure)))
    return rows
