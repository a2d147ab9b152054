"""The garbage collector looks at what is new, and at nothing else."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from process.gc_tuning import THAW_SECONDS, GcTuning


class Loop:
    """What is to be done later, when the test says so."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, what: Callable[[], None]) -> None:
        self.later.append((seconds, what))


class Node:
    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    before = gc.get_threshold()
    tuning = GcTuning(loop.call_later)
    tuning.start()
    yield loop
    tuning.stop()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
    gc.freeze()  # what was collected of all tests: each of those to come would have it looked through (tests/conftest.py)


def is_frozen(one: object) -> bool:
    return all(one is not other for other in gc.get_objects())


def test_what_survives_a_full_collection_is_not_looked_at_again(loop: Loop) -> None:
    one = [object()]
    assert not is_frozen(one)
    gc.collect()
    assert is_frozen(one)


def test_young_garbage_in_cycles_is_found(loop: Loop) -> None:
    gone = weakref.ref(Node())
    gc.collect()
    assert gone() is None


def test_garbage_that_was_frozen_is_found_at_the_thaw(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests' own process has more objects than a quiet gateway.
    monkeypatch.setattr("process.gc_tuning.MOST_THAWED", 1 << 30)
    one = Node()
    gc.collect()
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is not None
    [(seconds, thaw)] = loop.later
    assert seconds == THAW_SECONDS
    thaw()
    assert gone() is None
    assert len(loop.later) == 2, "and so on"
