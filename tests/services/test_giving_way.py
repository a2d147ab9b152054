"""Giving way: a chain of callbacks comes to its end between two slices, and does not keep the loop for ever."""

from __future__ import annotations

import asyncio

from services.giving_way import give_way
from tests.core.fakes import VirtualLoop, run


def test_long_work_goes_on_when_a_chain_of_callbacks_has_come_to_its_end() -> None:
    calls: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def link(number: int) -> None:
            calls.append(f"link {number}")
            if number < 10:
                loop.call_soon(link, number + 1)

        def go_on() -> None:
            calls.append("slice")
            done.set_result(None)

        loop.call_soon(link, 0)
        give_way(loop, go_on, 1.0)
        await done

    run(main())
    assert calls == [*(f"link {number}" for number in range(11)), "slice"]


def test_long_work_goes_on_after_its_time_among_callbacks_that_never_end() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        done = loop.create_future()
        links = 0

        def link() -> None:
            nonlocal links
            links += 1
            loop.now += 0.25
            if not done.done():
                loop.call_soon(link)

        loop.call_soon(link)
        give_way(loop, lambda: done.set_result(links), 1.0)
        return int(await done)

    assert run(main()) == 4


def test_long_work_goes_on_in_the_next_turn_where_nothing_else_is_to_be_done() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        calls: list[str] = []

        def go_on() -> None:
            calls.append("slice")
            done.set_result(None)

        give_way(loop, go_on, 1.0)
        calls.append("this turn")
        await done
        return calls

    assert run(main()) == ["this turn", "slice"]
