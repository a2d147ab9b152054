from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.channels.backlog import LENIENCY_SECONDS, MOST_LENIENCY_SECONDS, Backlog


@dataclass(eq=False)
class Channel:
    """What the backlog looks at of one."""

    name: str
    weight: float = 1.0
    waits: bool = False


@dataclass
class World:
    """A backlog, and a clock that goes on by as much as it takes to serve one channel."""

    seconds_each: float = 0.01
    now: float = 0.0
    backlog: Backlog = field(default_factory=lambda: Backlog(lambda channel: cast(Any, channel).weight))

    def add(self, *channels: Channel) -> None:
        for channel in channels:
            self.backlog.add(cast(Any, channel), self.now)

    def serve(self) -> str:
        self.now += self.seconds_each
        return cast(Any, self.backlog.pop()).name

    def serve_all(self) -> list[str]:
        served = []
        while self.backlog:
            served.append(self.serve())
        return served


def test_backlog_serves_what_has_waited_longest_first() -> None:
    world = World()
    for name in "abc":
        world.add(Channel(name))
        world.now += 1
    assert world.serve_all() == ["a", "b", "c"]


def test_backlog_serves_what_more_want_first() -> None:
    world = World()
    world.add(Channel("one", 1), Channel("many", 5000), Channel("a thousandth", 0.001), Channel("few", 3))
    assert world.serve_all() == ["many", "few", "one", "a thousandth"]


def test_backlog_serves_two_of_one_moment_and_weight_as_they_came() -> None:
    world = World()
    world.add(Channel("b"), Channel("a"))
    assert world.serve_all() == ["b", "a"]


def test_backlog_has_a_channel_once() -> None:
    world, channel = World(), Channel("a")
    world.add(channel, channel)
    assert channel.waits
    assert world.serve_all() == ["a"]
    assert not channel.waits


@pytest.mark.parametrize("weight", [0, 1e-9])
def test_backlog_puts_nothing_off_by_more_than_its_most(weight: float) -> None:
    world = World()
    world.add(Channel("least", weight))
    world.now += MOST_LENIENCY_SECONDS
    world.add(Channel("much", 1e9))
    assert world.serve_all() == ["least", "much"]


def test_backlog_serves_one_who_asks_for_one_channel_between_the_thousand_of_another() -> None:
    world = World(seconds_each=0.0001)
    greedy = [Channel(f"greedy {number}", 0.001) for number in range(1000)]
    world.add(*greedy)
    served_behind = []
    for _ in range(20):
        for _ in range(100):
            name = world.serve()
            world.add(*(channel for channel in greedy if channel.name == name))
        world.add(modest := Channel("modest"))
        count = 1
        while world.serve() != "modest":
            count += 1
        served_behind.append(count)
        assert not modest.waits
        world.add(*greedy)
    assert max(served_behind[:5]) == 1
    assert sum(count == 1 for count in served_behind) > 15


@given(st.lists(st.tuples(st.floats(0, 10_000), st.integers(0, 40)), min_size=2, max_size=30), st.integers(0, 1000))
def test_backlog_lets_nobody_starve(channels: list[tuple[float, int]], most: int) -> None:
    """Each is due again right after it was served; so there is always more to do than time."""
    world = World(seconds_each=0.01)
    waiting = [Channel(str(number), weight) for number, (weight, _) in enumerate(channels)]
    world.add(*waiting)
    served_at = dict.fromkeys((channel.name for channel in waiting), 0.0)
    longest = MOST_LENIENCY_SECONDS + LENIENCY_SECONDS + 2 * len(waiting) * world.seconds_each
    for _ in range(most):
        name = world.serve()
        served_at[name] = world.now
        world.add(waiting[int(name)])
        assert world.now - min(served_at.values()) <= longest
