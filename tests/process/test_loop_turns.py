"""A chain of callbacks comes to its end between two slices, and does not keep the loop for ever."""

from __future__ import annotations

import asyncio
import selectors
import socket

import pytest

from process.loop_turns import LoopTurns
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
        LoopTurns(loop, 1.0).call_when_idle(go_on)
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
        LoopTurns(loop, 1.0).call_when_idle(lambda: done.set_result(links))
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

        LoopTurns(loop, 1.0).call_when_idle(go_on)
        calls.append("this turn")
        await done
        return calls

    assert run(main()) == ["this turn", "slice"]


def test_loop_is_wanted_by_callbacks_and_by_sockets_that_it_has_not_looked_at() -> None:
    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        turns = LoopTurns(loop, 1.0)
        here, there = socket.socketpair()
        with here, there:
            loop.add_reader(here, lambda: None)
            wanted = [turns.others_wait()]
            loop.call_soon(lambda: None)
            wanted.append(turns.others_wait())
            await asyncio.sleep(0)
            wanted.append(turns.others_wait())
            there.send(b"an order")
            wanted.append(turns.others_wait())
            loop.remove_reader(here)
            wanted.append(turns.others_wait())
        return wanted

    with asyncio.Runner() as runner:
        assert runner.run(main()) == [False, True, False, True, False]


@pytest.mark.parametrize("selector", [selectors.PollSelector, selectors.SelectSelector])
def test_loop_with_a_selector_that_has_no_descriptor_is_known_to_be_wanted_by_callbacks(
    selector: type[selectors.BaseSelector],
) -> None:
    async def main() -> list[bool]:
        turns = LoopTurns(asyncio.get_running_loop(), 1.0)
        wanted = [turns.others_wait()]
        asyncio.get_running_loop().call_soon(lambda: None)
        return [*wanted, turns.others_wait()]

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
        assert runner.run(main()) == [False, True]


def test_loop_of_another_make_is_never_known_to_be_wanted() -> None:
    class Other(asyncio.AbstractEventLoop):
        pass

    assert not LoopTurns(Other(), 1.0).others_wait()
