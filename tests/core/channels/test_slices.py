from __future__ import annotations

from collections.abc import Callable

import pytest

from core.channels.slices import Slices


class Work:
    """So many steps, each of which takes some time."""

    def __init__(self, world: World, name: str, steps: int) -> None:
        self.world = world
        self.name = name
        self.steps = steps

    def __call__(self) -> bool:
        if not self.steps:
            return False
        self.steps -= 1
        self.world.did(self.name)
        return True


class World:
    """Slices of 10 ms, of works whose steps take 1 ms; a loop that gives turns when it is told to."""

    def __init__(self, *steps: int) -> None:
        self.now_ms = 0
        self.done: list[str] = []
        self.ends = 0
        self.turns: list[Callable[[], None]] = []
        self.others_wait = False
        self.fails = False
        self.works = [Work(self, name, count) for name, count in zip("ab", steps, strict=False)]
        self.slices = Slices(tuple(self.works), self.end, lambda: self.now_ms / 1000)
        self.slices.slice_seconds = 0.010
        self.slices.schedule_slice = self.turns.append
        self.slices.others_wait = lambda: self.others_wait

    def did(self, name: str) -> None:
        if self.fails:
            raise ValueError(name)
        self.now_ms += 1
        self.done.append(name)

    def end(self) -> None:
        self.ends += 1

    def turn(self) -> None:
        self.turns.pop()()


def test_slices_give_way_when_time_is_up_and_go_on_later() -> None:
    world = World(25)
    world.slices.go_on()
    assert (len(world.done), world.ends, len(world.turns)) == (10, 1, 1)
    world.turn()
    world.turn()
    assert (len(world.done), world.ends, world.turns) == (25, 3, [])


def test_slices_do_one_step_of_each_work_after_the_other() -> None:
    world = World(2, 4)
    world.slices.go_on()
    assert "".join(world.done) == "ababbb"


def test_slices_wait_for_the_turn_that_was_asked_for() -> None:
    world = World(11)
    world.slices.go_on()
    world.slices.go_on()
    assert (len(world.done), len(world.turns)) == (10, 1)


@pytest.mark.parametrize(("waited_ms", "steps"), [(0, 1), (5, 5), (50, 10)])
def test_slices_end_early_for_others_who_wait_but_take_as_long_as_they_were_waited_for(
    waited_ms: int, steps: int
) -> None:
    world = World(100)
    world.slices.go_on()
    world.others_wait = True
    world.done.clear()
    world.now_ms += waited_ms
    world.turn()
    assert len(world.done) == steps


def test_slices_do_not_count_the_rest_between_them_as_waiting() -> None:
    world = World(100)
    world.slices.rest_seconds = 0.005
    world.slices.go_on()
    world.others_wait = True
    world.done.clear()
    world.now_ms += 5 + 3
    world.turn()
    assert len(world.done) == 3


def test_slices_are_ended_and_can_be_gone_on_with_when_a_step_fails() -> None:
    world = World(3)
    world.fails = True
    with pytest.raises(ValueError, match="a"):
        world.slices.go_on()
    assert world.ends == 1
    world.fails = False
    world.slices.go_on()
    assert world.done == ["a", "a"]


def test_slices_end_with_the_work_without_a_loop() -> None:
    world = World(25)
    world.slices.slice_seconds = float("inf")
    world.slices.go_on()
    assert (len(world.done), world.ends, world.turns) == (25, 1, [])
