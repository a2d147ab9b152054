from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from core.access.penalties import Penalties


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def penalties(clock: Callable[[], float], max_keys: int = 100, seconds: float = 30.0) -> Penalties:
    return Penalties(seconds, clock, max_keys)


def test_penalty_is_told_until_it_is_over() -> None:
    clock = Clock()
    given_ = penalties(clock)
    assert given_.left("alice") == 0
    given_.give("alice")
    assert (given_.left("alice"), given_.left("bob")) == (30, 0)
    clock.now += 29.5
    assert given_.left("alice") == 0.5
    clock.now += 0.5
    assert given_.left("alice") == 0


def test_penalty_begins_anew_when_it_is_given_again() -> None:
    clock = Clock()
    given_ = penalties(clock)
    given_.give("alice")
    clock.now += 20
    given_.give("alice")
    assert (given_.left("alice"), len(given_)) == (30, 1)


def test_nothing_is_given_where_it_has_no_length() -> None:
    given_ = penalties(Clock(), seconds=0)
    given_.give("alice")
    assert (given_.left("alice"), len(given_)) == (0, 0)


def test_oldest_is_forgotten_beyond_the_bound_and_what_is_over_before() -> None:
    clock = Clock()
    given_ = penalties(clock, max_keys=3)
    for key in range(3):
        given_.give(key)
        clock.now += 1
    given_.give(0)  # the oldest is 1 now
    given_.give(3)
    assert [given_.left(key) > 0 for key in range(4)] == [True, False, True, True]
    clock.now += 30
    given_.give("after all of them")
    assert len(given_) == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 20)), max_size=40), st.integers(1, 5))
def test_penalties_are_as_remembered_by_somebody_who_forgets_nothing_but_beyond_the_bound(
    steps: list[tuple[int, float]], max_keys: int
) -> None:
    clock = Clock()
    kept = penalties(clock, max_keys)
    last: dict[int, float] = {}
    for key, seconds in steps:
        kept.give(key)
        last[key] = clock.now
        assert len(kept) <= max_keys
        newest = sorted(last, key=lambda one: last[one])
        for one in last:
            left = max(0.0, last[one] + 30 - clock.now)
            assert kept.left(one) in ((left,) if one == key else (0.0, left)), newest
        clock.now += seconds
    if max_keys == 5:
        assert all(kept.left(one) == max(0.0, since + 30 - clock.now) for one, since in last.items())
