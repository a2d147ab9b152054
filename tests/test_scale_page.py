"""docs/scale.md: its tables are what the model prints, and the model's figures are those that were measured."""

from __future__ import annotations

import re
from random import Random

import pytest

from bench import scale
from tests.support.gateway import REPOSITORY

PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
MEASURED = {name: figure for name, figure in vars(scale).items() if isinstance(figure, scale.Measured)}


@pytest.mark.parametrize("name", MEASURED)
def test_figure_of_the_model_is_the_one_that_was_measured(name: str) -> None:
    figure = MEASURED[name]
    assert figure.words in (REPOSITORY / figure.file).read_text(encoding="utf-8")
    assert figure.value in [
        float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", figure.words)
    ]


def test_page_shows_the_fleets_of_the_model() -> None:
    assert f"\n\n{scale.plans(scale.STEPS)}\n\n" in PAGE


def test_page_shows_the_storms_of_the_simulation() -> None:
    assert f"\n\n{scale.storms(scale.STEPS)}\n\n" in PAGE


def test_page_names_the_figures_of_the_model() -> None:
    for value in (scale.SOAK_US, scale.FANOUT_US):
        assert f"| {value:.1f} us |" in PAGE
    assert scale.BUSY == 0.6 and "60 % busy" in PAGE
    assert scale.WORKERS == 8 and "eight workers" in PAGE


def test_fleet_grows_with_what_is_asked_of_it() -> None:
    def processes(load: scale.Load) -> int:
        fleet = scale.plan(load)
        assert fleet is not None
        return fleet.processes

    assert processes(scale.Load(5_000, book_rate=1.0)) == 1
    assert processes(scale.Load(5_001, book_rate=1.0)) == 2
    assert processes(scale.Load(100_000)) > processes(scale.Load(100_000, book_rate=1.0))
    assert processes(scale.Load(100_000, events=10_000)) > processes(scale.Load(100_000))


def test_no_fleet_is_enough_when_a_process_cannot_fold_the_market() -> None:
    most = scale.BUSY * 1e6 / scale.EVENT_US.value
    assert scale.plan(scale.Load(1, events=most * 0.99, orders_per_client=0)) is not None
    assert scale.plan(scale.Load(1, events=most * 1.01, orders_per_client=0)) is None
    assert scale.plan(scale.Load(1, events=most * 1.01, orders_per_client=0, slices=2)) is not None


def test_storm_is_over_in_the_first_wait_when_nobody_is_refused() -> None:
    told = scale.storm(1_000, 4, 1_000, Random(2))
    assert told.refused == 0
    assert told.half == pytest.approx(0.5, abs=0.05)
    assert 0.9 < told.all < 1
    # 1,000 connections of 0.6 ms in one second, on four machines.
    assert told.cores == pytest.approx(0.15, rel=0.2)


@pytest.mark.parametrize("rate", [50, 200])
def test_storm_lasts_as_long_as_the_limit_makes_it(rate: int) -> None:
    told = scale.storm(2_000, 1, rate, Random(3))
    assert told.refused > 0
    # A second's worth at once, then so many a second; waits of up to ten seconds leave some of that unused.
    least = (2_000 - rate) / rate
    assert least <= told.all < 1.5 * least + 12
    assert told.half < told.most <= told.all
