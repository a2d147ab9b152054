from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.delivery.liveness import Progress

PING_BYTES = 2
ROOM = 100


class Line:
    """A connection whose peer has a kernel with room for `ROOM` bytes, and a process that reads from it."""

    def __init__(self) -> None:
        self.said = self.acknowledged = self.read = self.received = 0
        self.pings: list[int] = []
        self.is_dropped = False
        self._before: Progress | None = None

    def say(self, size: int) -> None:
        self.said += size
        self.settle()

    def settle(self) -> None:
        self.acknowledged = max(self.acknowledged, min(self.said, self.read + ROOM))

    def reads(self, most: int) -> None:
        """The process reads what has come, up to so many bytes, and answers the pings that it comes to."""
        self.read = min(self.read + most, self.acknowledged)
        while self.pings and self.pings[0] <= self.read:
            self.pings.pop(0)
            self.received += 2
        self.settle()

    def look(self) -> None:
        """The next ping is due."""
        if self._before is not None and not self.progress().shows_life_since(self._before):
            self.is_dropped = True
            return
        self.say(PING_BYTES)
        self.pings.append(self.said)
        self._before = self.progress()

    def progress(self) -> Progress:
        return Progress(self.received, self.acknowledged, self.said - self.acknowledged)


# What is said in each part of the time between two pings, in bytes.
SAID = st.lists(st.lists(st.integers(0, 3 * ROOM), max_size=4), max_size=12)


@example([[], [197]], ROOM + PING_BYTES).via("a ping that the peer's kernel takes in two parts")
@given(SAID, st.integers(ROOM + PING_BYTES, 4 * ROOM))
def test_peer_that_reads_its_kernels_buffer_between_two_pings_stays_whatever_is_said(
    said: list[list[int]], pace: int
) -> None:
    line = Line()
    for sizes in [*said, [], []]:
        for size in sizes:
            line.say(size)
        line.reads(pace)
        line.look()
        assert not line.is_dropped


@given(st.integers(1, 20), st.integers(1, 20))
def test_peer_that_reads_a_little_between_two_pings_stays_while_more_waits_for_it(pace: int, count: int) -> None:
    line = Line()
    line.say(ROOM + 20 * count)
    for _ in range(count):
        line.reads(pace)
        line.look()
        assert not line.is_dropped


@given(SAID, SAID)
def test_peer_that_hangs_is_dropped_soon_whatever_is_said(before: list[list[int]], after: list[list[int]]) -> None:
    line = Line()
    for sizes in before:
        for size in sizes:
            line.say(size)
        line.reads(2 * ROOM)
        line.look()
    # One look for what it did before it hung, one for what its kernel had room for, and one that sees nothing move.
    for sizes in [*after, [], [], []][:3]:
        for size in sizes:
            line.say(size)
        line.look()
    assert line.is_dropped


@pytest.mark.parametrize(
    ("before", "now", "lives"),
    [
        (Progress(0, 0, 0), Progress(0, 0, 0), False),
        (Progress(0, 0, 0), Progress(1, 0, 0), True),
        (Progress(5, 10, 0), Progress(5, 12, 0), False),
        (Progress(5, 10, 3), Progress(5, 12, 0), True),
        (Progress(5, 10, 0), Progress(5, 12, 3), True),
        (Progress(5, 10, 3), Progress(5, 10, 9), False),
    ],
    ids=["nothing", "it said something", "its kernel alone", "it made room", "no more room", "no room"],
)
def test_peer_lives_by_what_it_said_and_by_the_room_it_made(before: Progress, now: Progress, lives: bool) -> None:
    assert now.shows_life_since(before) is lives
