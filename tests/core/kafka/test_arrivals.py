from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from core.kafka.arrivals import Arrivals
from tests.core.kafka.fakes import FakeMessage

DEADLINE_SECONDS = 20.0


class FakeClient:
    """Hands over, to the thread that waits for it, what a test says, or calls it."""

    def __init__(self) -> None:
        self.wakes = 0
        self.has_woken = asyncio.Event()
        self.threads: set[int] = set()
        self.asked: set[tuple[int, bool]] = set()
        self._come = threading.Condition()
        self._next: list[Any] = []
        self._waits = 0

    def put(self, *what: object) -> None:
        with self._come:
            self._next.extend(what)
            self._come.notify_all()

    def consume(self, count: int, seconds: float) -> list[Any]:
        self.threads.add(threading.get_ident())
        self.asked.add((count, 0 < seconds < 1))
        with self._come:
            self._waits += 1
            self._come.notify_all()
            if not self._come.wait_for(lambda: self._next, seconds):
                return []
            what = self._next.pop(0)
        if isinstance(what, Exception):
            raise what
        if callable(what):
            what()
            return []
        return [what]

    def wake(self) -> None:
        self.wakes += 1
        self.has_woken.set()

    async def woken(self) -> None:
        await self.has_woken.wait()
        self.has_woken.clear()

    async def waits(self, more: int = 1) -> None:
        """Until it was waited for so many times more."""
        wanted = self._waits + more

        def wait() -> None:
            with self._come:
                assert self._come.wait_for(lambda: self._waits >= wanted, DEADLINE_SECONDS)

        await asyncio.to_thread(wait)


Test = Callable[[FakeClient, Arrivals], Coroutine[Any, Any, None]]


def on_arrivals(test: Test) -> Callable[[], None]:
    def tested() -> None:
        async def main() -> None:
            client = FakeClient()
            arrivals = Arrivals(client.consume, client.wake)
            try:
                await test(client, arrivals)
            finally:
                arrivals.close()
                await asyncio.to_thread(arrivals.join, DEADLINE_SECONDS)
            assert threading.get_ident() not in client.threads
            assert client.asked <= {(1, True)}

        asyncio.run(asyncio.wait_for(main(), DEADLINE_SECONDS))

    tested.__name__ = test.__name__
    return tested


@on_arrivals
async def test_arrivals_wake_the_loop_once_for_what_has_come(client: FakeClient, arrivals: Arrivals) -> None:
    for number in range(3):
        assert not arrivals.is_waiting
        arrivals.await_next()
        assert arrivals.is_waiting
        message = FakeMessage(number)
        client.put(message)
        await client.woken()
        assert not arrivals.is_waiting
        assert arrivals.take() == [message]
        assert arrivals.take() == []
    assert client.wakes == 3


@on_arrivals
async def test_arrivals_leave_to_the_loop_what_comes_behind_the_first(client: FakeClient, arrivals: Arrivals) -> None:
    first, second = FakeMessage(1), FakeMessage(2)
    arrivals.await_next()
    client.put(first, second)
    await client.woken()
    assert arrivals.take() == [first]
    assert client._next == [second]


@on_arrivals
async def test_arrivals_wait_on_when_nothing_comes(client: FakeClient, arrivals: Arrivals) -> None:
    arrivals.await_next()
    await client.waits(3)
    assert (arrivals.is_waiting, client.wakes) == (True, 0)


def keep_the_loop_until(is_so: Callable[[], bool]) -> None:
    """The thread has come so far, and the loop not to what that brings about."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@on_arrivals
async def test_arrivals_forget_what_was_asked_for_before_when_the_client_is_the_loops_already(
    client: FakeClient, arrivals: Arrivals
) -> None:
    given: list[str] = []
    arrivals.await_next()
    await client.waits()
    arrivals.give_back(lambda: given.append("revoked"))
    client.put(FakeMessage(1))
    keep_the_loop_until(lambda: not arrivals.is_waiting)
    arrivals.give_back(lambda: given.append("assigned"))
    await client.woken()
    assert given == ["assigned"]


@on_arrivals
async def test_arrivals_give_back_only_what_is_not_lent_once_more(client: FakeClient, arrivals: Arrivals) -> None:
    given: list[bool] = []
    arrivals.await_next()
    await client.waits()
    client.put(FakeMessage(1))
    keep_the_loop_until(lambda: not arrivals.is_waiting)
    waited = client._waits
    arrivals.await_next()
    keep_the_loop_until(lambda: client._waits > waited)
    arrivals.give_back(lambda: given.append(arrivals.is_waiting))
    while not given:
        await client.woken()
    assert given == [False]


@on_arrivals
async def test_arrivals_give_the_client_back_behind_the_wait_without_what_came(
    client: FakeClient, arrivals: Arrivals
) -> None:
    given: list[bool] = []
    arrivals.give_back(lambda: given.append(arrivals.is_waiting))
    assert given == [False], "at once where it is the loop's"
    arrivals.await_next()
    await client.waits()
    arrivals.give_back(lambda: given.append(True))
    arrivals.give_back(lambda: given.append(arrivals.is_waiting))
    assert given == [False]
    client.put(FakeMessage(1))
    await client.woken()
    assert given == [False, False], "the last that was asked for, alone"
    assert arrivals.take() == []


@on_arrivals
async def test_arrivals_throw_away_what_was_not_taken_when_the_client_is_given_back(
    client: FakeClient, arrivals: Arrivals
) -> None:
    arrivals.await_next()
    client.put(FakeMessage(1))
    await client.woken()
    arrivals.give_back(lambda: None)
    assert arrivals.take() == []


@on_arrivals
async def test_arrivals_leave_it_to_the_loop_when_the_client_fails(client: FakeClient, arrivals: Arrivals) -> None:
    for failure in (KafkaException(KafkaError(KafkaError._STATE)), RuntimeError("Consumer closed")):
        arrivals.await_next()
        client.put(failure)
        await client.woken()
        assert (arrivals.is_waiting, arrivals.take()) == (False, [])


@on_arrivals
async def test_arrivals_have_what_the_client_tells_called_on_the_loop(client: FakeClient, arrivals: Arrivals) -> None:
    threads: list[int] = []
    called = asyncio.Event()

    def on_loop() -> None:
        threads.append(threading.get_ident())
        called.set()

    arrivals.await_next()
    client.put(lambda: arrivals.call_on_loop(on_loop))
    await called.wait()
    assert arrivals.is_waiting
    arrivals.call_on_loop(on_loop)
    assert threads == [threading.get_ident()] * 2


@on_arrivals
async def test_arrivals_that_are_closed_wake_nobody(client: FakeClient, arrivals: Arrivals) -> None:
    arrivals.await_next()
    await client.waits()
    arrivals.close()
    client.put(FakeMessage(1))
    await asyncio.to_thread(arrivals.join, DEADLINE_SECONDS)
    arrivals.await_next()
    await asyncio.sleep(0)
    assert client.wakes == 0


def test_arrivals_end_with_their_loop() -> None:
    async def main() -> tuple[FakeClient, Arrivals]:
        client = FakeClient()
        arrivals = Arrivals(client.consume, client.wake)
        arrivals.await_next()
        await client.waits()
        return client, arrivals

    client, arrivals = asyncio.run(main())
    client.put(lambda: arrivals.call_on_loop(lambda: None), FakeMessage(1))
    arrivals.join(DEADLINE_SECONDS)
    assert client.wakes == 0
