"""Many sockets that are ready at once do not keep a timer waiting."""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import ExitStack

from process.event_loop import EVENTS_PER_TURN, loop_factory

PAIRS = 4 * EVENTS_PER_TURN


def test_all_that_are_ready_are_served_a_few_in_each_turn() -> None:
    turns: list[int] = []
    served: set[int] = set()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def on_ready(one: socket.socket) -> None:
            one.recv(10)
            served.add(one.fileno())

        def on_turn() -> None:
            turns.append(len(served))
            if len(served) < PAIRS:
                loop.call_soon(on_turn)
            else:
                done.set()

        with ExitStack() as stack:
            for _ in range(PAIRS):
                ours, theirs = map(stack.enter_context, socket.socketpair())
                theirs.send(b"x")
                loop.add_reader(ours, on_ready, ours)
            loop.call_soon(on_turn)
            await asyncio.wait_for(done.wait(), 30)

    factory = loop_factory()
    assert factory is not None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert turns[-1] == PAIRS
    assert max(after - before for before, after in itertools.pairwise(turns)) <= EVENTS_PER_TURN
