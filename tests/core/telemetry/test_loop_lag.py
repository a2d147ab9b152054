from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from core.telemetry.loop_lag import MAX_NOTED, PERIOD_SECONDS, LoopLag
from tests.core.fakes import VirtualLoop


@pytest.fixture
def loop() -> VirtualLoop:
    return VirtualLoop()


def observed(loop: VirtualLoop, *, seconds: float, hold_up: Callable[[], None] = lambda: None) -> list[float]:
    """What is noted within that time, if something holds up the loop just before its first look."""

    async def main() -> list[float]:
        noted: list[float] = []
        lag = LoopLag(loop, noted.append)
        loop.call_later(PERIOD_SECONDS / 2, hold_up)
        await asyncio.sleep(seconds)
        lag.stop()
        await asyncio.sleep(5 * PERIOD_SECONDS)
        return noted

    with loop_of(loop) as runner:
        return runner.run(main())


def loop_of(loop: VirtualLoop) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=lambda: loop)


def takes(loop: VirtualLoop, seconds: float) -> Callable[[], None]:
    def hold_up() -> None:
        loop.now += seconds

    return hold_up


def test_loop_lag_notes_nothing_but_zero_while_the_loop_is_on_time(loop: VirtualLoop) -> None:
    noted = observed(loop, seconds=10.5 * PERIOD_SECONDS)
    assert noted == pytest.approx([0.0] * 10, abs=1e-9)


def test_loop_lag_notes_how_late_a_held_up_loop_is(loop: VirtualLoop) -> None:
    noted = observed(loop, seconds=0.9 * PERIOD_SECONDS, hold_up=takes(loop, PERIOD_SECONDS))
    assert noted == pytest.approx([PERIOD_SECONDS / 2])


def test_loop_lag_notes_what_the_looks_would_have_seen_that_a_long_stop_left_out(loop: VirtualLoop) -> None:
    noted = observed(loop, seconds=PERIOD_SECONDS, hold_up=takes(loop, 4 * PERIOD_SECONDS))
    assert noted == pytest.approx([number * PERIOD_SECONDS for number in (3.5, 2.5, 1.5, 0.5)])


def test_loop_lag_notes_no_more_than_so_many_after_a_very_long_stop(loop: VirtualLoop) -> None:
    noted = observed(loop, seconds=PERIOD_SECONDS, hold_up=takes(loop, 1_000_000.0))
    assert len(noted) == MAX_NOTED


def test_loop_lag_ends_when_it_is_stopped(loop: VirtualLoop) -> None:
    assert observed(loop, seconds=PERIOD_SECONDS / 2) == []
