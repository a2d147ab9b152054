from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from process.beats import Beats

FOR_EVER_MS = 3_600_000.0
DEADLINE_SECONDS = 20.0


class FakePump:
    """Counts its beats."""

    def __init__(self, period_ms: float = FOR_EVER_MS) -> None:
        self.period_ms = period_ms
        self.is_idle = False
        self.beaten = 0
        self.fails: list[Exception] = []
        self.has_beaten = asyncio.Event()

    def beat(self) -> None:
        self.beaten += 1
        self.has_beaten.set()
        if self.fails:
            raise self.fails.pop()

    def hurry(self) -> None:
        self.is_idle = False
        self.period_ms = 1.0


def on_loop(test: Callable[[Beats, list[Exception]], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def tested() -> None:
        async def main() -> None:
            faults: list[Exception] = []
            beats = Beats(faults.append)
            try:
                await test(beats, faults)
            finally:
                beats.stop()

        asyncio.run(asyncio.wait_for(main(), DEADLINE_SECONDS))

    tested.__name__ = test.__name__
    return tested


@on_loop
async def test_beats_go_on_though_one_fails(beats: Beats, faults: list[Exception]) -> None:
    pump = FakePump(1.0)
    pump.fails.append(fault := RuntimeError("once"))
    beats.start(pump)
    while pump.beaten < 3:
        pump.has_beaten.clear()
        await pump.has_beaten.wait()
    assert faults == [fault]


@on_loop
async def test_beats_come_out_of_turn_when_something_has_come(beats: Beats, faults: list[Exception]) -> None:
    pump = FakePump()
    beats.start(pump)
    beats.now()
    assert pump.beaten == 1
    beats.again()
    await pump.has_beaten.wait()
    await asyncio.sleep(0)
    assert pump.beaten == 2


@on_loop
async def test_beats_go_on_by_what_has_come(beats: Beats, faults: list[Exception]) -> None:
    pump = FakePump()
    beats.start(pump)
    beats.now()
    await asyncio.sleep(0)
    assert pump.beaten == 1
    pump.period_ms = 1.0  # what has come now is followed by more
    beats.now()
    while pump.beaten < 4:
        pump.has_beaten.clear()
        await pump.has_beaten.wait()


@on_loop
async def test_beats_leave_an_idle_period_when_something_is_awaited(beats: Beats, faults: list[Exception]) -> None:
    pump = FakePump()
    beats.start(pump)
    beats.hurry()
    assert pump.period_ms == FOR_EVER_MS, "it is not idle"
    pump.is_idle = True
    beats.hurry()
    await pump.has_beaten.wait()


@on_loop
async def test_beats_that_are_stopped_come_no_more(beats: Beats, faults: list[Exception]) -> None:
    beats.now()
    pump = FakePump()
    beats.start(pump)
    pump.is_idle = True
    beats.stop()
    beats.now()
    beats.again()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (pump.beaten, pump.is_idle) == (0, True)
