from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StillBehind
from core.messages.feed_record import Written
from core.orders.catch_up import END_SECONDS, RETRY_SECONDS, CatchUp
from tests.core.attempts import start
from tests.core.fakes import run, turns
from tests.core.trading import FakeTopic


class Waiting:
    """Who waits for a topic of one partition, whose questions a test answers."""

    def __init__(self) -> None:
        self.topic = FakeTopic()
        self.topic.answers = False
        self.is_reachable = True
        self.wakes = 0
        self.catch_up = CatchUp(self.topic, is_reachable=lambda: self.is_reachable)
        self.catch_up.wake = self._wake

    def _wake(self) -> None:
        self.wakes += 1

    async def ask(self) -> asyncio.Task[None]:
        task = start(self.catch_up.to_end())
        await turns()
        return task

    async def answer(self, end: int | None) -> None:
        self.topic.asked.pop(0)(None if end is None else {0: end})
        await turns()

    async def read_to(self, position: int) -> None:
        self.topic.position = position
        self.catch_up.look()
        await turns()


def test_catch_up_waits_for_the_end_that_the_topic_had() -> None:
    async def main() -> None:
        waiting = Waiting()
        asked = await waiting.ask()
        await waiting.read_to(5)
        await waiting.answer(7)
        assert (asked.done(), waiting.catch_up.is_awaited, waiting.wakes) == (False, True, 1)
        await waiting.read_to(6)
        assert not asked.done()
        await waiting.read_to(7)
        assert (asked.done(), waiting.catch_up.is_awaited) == (True, False)

    run(main())


def test_catch_up_needs_no_reading_where_the_topic_was_read_to_its_end() -> None:
    async def main() -> None:
        waiting = Waiting()
        waiting.topic.position = 7
        asked = await waiting.ask()
        await waiting.answer(7)
        assert (asked.done(), waiting.wakes) == (True, 0)

    run(main())


def test_catch_up_shares_a_question_only_with_those_who_came_before_it() -> None:
    async def main() -> None:
        waiting = Waiting()
        waiting.topic.position = 7
        first = await waiting.ask()
        late = [await waiting.ask(), await waiting.ask()]
        assert len(waiting.topic.asked) == 1, "one question at a time"
        await waiting.answer(7)
        assert first.done() and not any(task.done() for task in late)
        assert len(waiting.topic.asked) == 1, "one for both"
        await waiting.answer(8)
        assert not any(task.done() for task in late)
        await waiting.read_to(8)
        assert all(task.done() for task in late)
        assert not waiting.topic.asked

    run(main())


def test_catch_up_gives_up_after_a_second_and_says_so() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = Waiting()
        began = loop.time()
        unanswered, behind = await waiting.ask(), await waiting.ask()
        await waiting.answer(7)
        await waiting.answer(7)
        with pytest.raises(StillBehind):
            await unanswered
        with pytest.raises(StillBehind):
            await behind
        assert loop.time() - began == pytest.approx(END_SECONDS)
        waiting.catch_up.look()
        assert not waiting.catch_up.is_awaited, "nobody is left"

    run(main())


def test_catch_up_asks_again_when_the_question_failed() -> None:
    async def main() -> None:
        waiting = Waiting()
        asked = await waiting.ask()
        await waiting.answer(None)
        assert not waiting.topic.asked
        await asyncio.sleep(RETRY_SECONDS)
        await turns()
        await waiting.answer(0)
        assert asked.done()

    run(main())


def test_catch_up_says_at_once_that_the_cluster_cannot_be_reached() -> None:
    async def main() -> None:
        waiting = Waiting()
        waiting.is_reachable = False
        with pytest.raises(StillBehind):
            await waiting.catch_up.to_end()
        assert not waiting.topic.asked

    run(main())


def test_catch_up_does_not_take_a_partition_that_is_read_anew_for_read() -> None:
    async def main() -> None:
        waiting = Waiting()
        asked = await waiting.ask()
        waiting.topic.asked.pop()({0: 0, 1: 0})  # the second has no position
        await turns()
        assert not asked.done()
        asked.cancel()

    run(main())


@pytest.mark.parametrize(("since", "waits"), [(3, False), (4, False), (5, True)])
def test_catch_up_waits_for_a_record_only_where_others_may_have_written_before_it(since: int, waits: bool) -> None:
    async def main() -> None:
        waiting = Waiting()
        waiting.topic.position = 4
        asked = start(waiting.catch_up.to_record(Written(0, since), 1))
        await turns()
        assert (not asked.done(), waiting.catch_up.is_awaited, waiting.wakes) == (waits, waits, waits)
        await waiting.read_to(since)
        assert asked.done() and asked.exception() is None
        assert not waiting.topic.asked

    run(main())


def test_catch_up_waits_for_a_record_no_longer_than_it_may() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(StillBehind):
            await Waiting().catch_up.to_record(Written(0, 1), 0.5)
        assert loop.time() - began == pytest.approx(0.5)

    run(main())


STEPS = st.lists(st.sampled_from(["write", "read", "ask", "answer", "fail"]), max_size=40)


@given(STEPS)
def test_catch_up_lets_nobody_go_before_what_was_written_is_read_and_everybody_after(steps: list[str]) -> None:
    async def main() -> None:
        waiting = Waiting()
        written = 0
        asked: list[tuple[int, asyncio.Task[None]]] = []
        for step in [*steps, *["read"] * len(steps), *["answer"] * len(steps)]:
            if step == "write":
                written += 1
            elif step == "read":
                await waiting.read_to(min(written, waiting.topic.position + 1))
            elif step == "ask":
                asked.append((written, await waiting.ask()))
            elif waiting.topic.asked:
                await waiting.answer(None if step == "fail" else written)
            for end, task in asked:
                assert not task.done() or waiting.topic.position >= end
            if step == "fail":
                await asyncio.sleep(RETRY_SECONDS)
                await turns()
        assert all(task.done() for _, task in asked)

    run(main())
