from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.fakes import turns
from tests.core.kafka.fakes import FakeMessage
from tests.core.kafka.feeds import ScriptedFeed, joined, record, warmed_up, with_feed


class FakeArrivals:
    """Whose the client is, as a test says."""

    made: list[FakeArrivals]

    def __init__(self, consume: Callable[[int, float], list[Any]], wake: Callable[[], None]) -> None:
        self.is_waiting = False
        self.closed = False
        self.calls: list[Callable[[], object]] = []
        self._found: list[Any] = []
        self._then: Callable[[], None] | None = None
        self.made.append(self)

    def await_next(self) -> None:
        assert not self.is_waiting
        self.is_waiting = True

    def find(self, *messages: FakeMessage) -> None:
        """The wait ends with these."""
        self._found, self.is_waiting = list(messages), False
        then, self._then = self._then, None
        if then is not None:
            self._found = []
            then()

    def take(self) -> list[Any]:
        assert not self.is_waiting
        found, self._found = self._found, []
        return found

    def give_back(self, then: Callable[[], None]) -> None:
        if self.is_waiting:
            self._then = then
        else:
            self._found = []
            then()

    def call_on_loop(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    def close(self) -> None:
        self.closed = True

    def join(self, timeout_seconds: float) -> None:
        assert self.closed


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeArrivals]:
    monkeypatch.setattr("core.kafka.feed.Arrivals", FakeArrivals)
    monkeypatch.setattr(FakeArrivals, "made", made := [], raising=False)
    return made


async def live(scripted: ScriptedFeed, made: list[FakeArrivals]) -> FakeArrivals:
    """A feed that is served, and has somebody wait."""
    scripted.feed.wake = lambda: None
    await warmed_up(scripted)
    scripted.arrive()
    assert not made, "nobody waits as long as something is on its way to being served"
    scripted.arrive(FakeMessage(10), FakeMessage(11))
    assert not made, "nor when something had come"
    assert scripted.arrive() == ([], [], False)
    [arrivals] = made
    assert arrivals.is_waiting
    return arrivals


def test_feed_takes_nothing_while_its_client_is_waited_for(
    made: list[FakeArrivals], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        arrivals = await live(scripted, made)
        assert scripted.arrive(FakeMessage(13)) == ([], [], False)
        arrivals.find(FakeMessage(12))
        records, _, _ = scripted.feed.drain()
        assert [one.offset for one in records] == [12, 13], "what was found first, and what is behind it"
        assert scripted.feed.drain() == ([], [], False)
        assert arrivals.is_waiting
        await scripted.feed.close(1.0)
        assert arrivals.closed

    with_feed(main, monkeypatch)


def test_feed_without_anybody_to_wake_has_nobody_wait(
    made: list[FakeArrivals], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        await warmed_up(scripted)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        scripted.arrive()
        assert scripted.feed.is_live and not made

    with_feed(main, monkeypatch)


def test_feed_has_nobody_wait_while_there_is_much_to_do(
    made: list[FakeArrivals], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        arrivals = await live(scripted, made)
        arrivals.find(FakeMessage(12))
        scripted.feed.is_busy = lambda: True
        scripted.arrive()
        assert scripted.arrive() == ([], [], False)
        assert not arrivals.is_waiting
        scripted.feed.is_busy = lambda: False
        scripted.arrive()
        assert arrivals.is_waiting

    with_feed(main, monkeypatch)


def test_feed_assigns_once_the_client_is_its_own_and_reads_again_what_was_found(
    made: list[FakeArrivals], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        arrivals = await live(scripted, made)
        scripted.topic(1, start=3, end=3)
        scripted.feed.set_topic_partitions(2)
        await turns()
        assert scripted.consumer.assigned[-1] == {0: 10}
        arrivals.find(FakeMessage(12))
        assert scripted.consumer.assigned[-1] == {0: 12, 1: 3}
        assert scripted.arrive(FakeMessage(12, data=b"a"))[0] == [record(0, 12, b"a", True)]

    with_feed(main, monkeypatch)


def test_feed_hears_of_its_group_while_its_client_is_waited_for(
    made: list[FakeArrivals], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        scripted.feed.wake = lambda: None
        await joined(scripted, 0)
        scripted.arrive(FakeMessage(10), FakeMessage(11))
        scripted.arrive()
        [arrivals] = made
        assert arrivals.is_waiting
        scripted.rebalance("on_assign", 0, 1)
        await turns()
        assert scripted.consumer.assigned == [{0: 10}], "not while the client is lent"
        arrivals.find()
        assert scripted.consumer.assigned == [{0: 10}, {0: 12, 1: 10}]

    with_feed(main, monkeypatch, broadcast=False)


def test_feed_does_not_ask_its_client_how_far_it_lags_while_that_is_waited_for(
    made: list[FakeArrivals], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        arrivals = await live(scripted, made)
        scripted.consumer.cached_highs[0] = 20
        assert scripted.feed.lag() == {0: 0}
        arrivals.find(FakeMessage(12))
        assert scripted.feed.lag() == {0: 8}
        scripted.feed.drain()
        scripted.feed.drain()
        assert arrivals.is_waiting
        assert scripted.feed.lag() == {0: 7}

    with_feed(main, monkeypatch)


def test_feed_deals_on_the_loop_with_what_its_client_tells(
    made: list[FakeArrivals], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        arrivals = await live(scripted, made)
        scripted.consumer.properties["error_cb"](FakeErrors())
        assert scripted.errors == []
        for call in arrivals.calls:
            call()
        assert scripted.errors == ["_TRANSPORT"]

    with_feed(main, monkeypatch)


class FakeErrors:
    """An error of the client's."""

    def name(self) -> str:
        return "_TRANSPORT"

    def code(self) -> int:
        return -195

    def str(self) -> str:
        return "broken"
