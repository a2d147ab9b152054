from __future__ import annotations

import random

import pytest

from core.market.partitions import Left, Partitions


@pytest.fixture
def partitions() -> Partitions:
    """Partition 0 is served, 1 is being read, 2 is not known."""
    partitions = Partitions()
    partitions.begin(0, 5)
    partitions.serve([0], "first")
    partitions.begin(1, 70)
    return partitions


def test_partition_that_is_begun_has_everything_from_there_on(partitions: Partitions) -> None:
    assert [partitions.begun_at(number) for number in (0, 1, 2)] == [5, 70, 0]
    assert [partitions.folded_to(number) for number in (0, 1, 2)] == [4, 69, -1]


def test_partitions_are_served_when_each_of_them_is(partitions: Partitions) -> None:
    served = [partitions.are_served(numbers) for numbers in ([0], [0, 1], [1], [2], [])]
    assert served == [True, False, False, False, False]
    assert partitions.serve([1, 2], "first") == {}
    assert partitions.are_served([0, 1, 2])


def test_partitions_are_read_when_they_are_served_and_something_comes(partitions: Partitions) -> None:
    partitions.serve([1], "first")
    assert partitions.set_unread([1, 2]) == ({1}, set()), "what is not served cannot go out of date"
    assert [partitions.are_read(numbers) for numbers in ([0], [0, 1], [2])] == [True, False, False]
    assert partitions.are_served([0, 1])
    assert partitions.set_unread([1]) == (set(), set())
    assert partitions.set_unread([0]) == ({0}, {1})
    partitions.serve([0], "first")
    assert partitions.unread == set()


def test_partition_that_was_lost_returns_with_where_it_was_left_once(partitions: Partitions) -> None:
    partitions.folded[0] = 30
    partitions.set_unread([0])
    partitions.lose(0)
    assert not partitions.are_served([0])
    assert (partitions.begun_at(0), partitions.folded_to(0), partitions.unread) == (0, -1, set())
    partitions.begin(0, 20)
    assert partitions.serve([0, 1], "second") == {0: Left(30, "first")}
    assert partitions.serve([0], "second") == {}
    partitions.lose(1)
    partitions.begin(1, 90)
    partitions.lose(1)
    assert partitions.serve([1], "second") == {1: Left(69, "second")}, "where it was when it was served"
    partitions.lose(0)
    assert partitions.serve([0], "third") == {0: Left(19, "second")}


def test_partition_has_been_served_even_when_it_is_lost(partitions: Partitions) -> None:
    partitions.lose(0)
    assert [partitions.has_been_served(number) for number in (0, 1, 2)] == [True, False, False]


@pytest.mark.parametrize("seed", range(10))
def test_partition_that_is_unread_is_served_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    partitions = Partitions()
    for _ in range(200):
        number = chance.randrange(4)
        match chance.randrange(4):
            case 0:
                partitions.begin(number, chance.randrange(100))
            case 1:
                partitions.serve([number])
            case 2:
                partitions.set_unread(chance.sample(range(4), 2))
            case _:
                partitions.lose(number)
        assert partitions.unread <= partitions.served
        assert all(partitions.has_been_served(one) for one in partitions.served)
