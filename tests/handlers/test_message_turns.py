"""Whose messages are served when, by a clock and a loop in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from handlers.message_turns import (
    FREE_SECONDS,
    FREE_SHARE,
    LONG_BYTES,
    MOST_SECONDS,
    TURN_SECONDS,
    MessageShare,
    MessageTurns,
)
from tests.core.fakes import run, turns
from tests.handlers.websocket_server import call, serve
from tests.handlers.wire import until

ENOUGH = round(FREE_SECONDS / MOST_SECONDS) + 1


class Loop:
    """Time, and what is to be called when there is nothing else to do."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[Callable[[], None]] = []
        self.turns = MessageTurns(self.due.append)

    def share(self) -> MessageShare:
        return MessageShare(self.turns, lambda: self.now)

    def serve(self, share: MessageShare, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            began = share.begin()
            self.now += seconds
            share.end(began)

    def give_turn(self) -> None:
        [go_on] = self.due
        self.due.clear()
        go_on()


def test_who_sends_little_waits_for_nobody() -> None:
    async def main() -> None:
        loop = Loop()
        busy, quiet = loop.share(), loop.share()
        loop.serve(busy, MOST_SECONDS, ENOUGH)
        assert busy.turn(100) is not None
        for _ in range(1000):
            assert quiet.turn(100) is None
            loop.serve(quiet, 0.0001)
            loop.now += 0.0001 / FREE_SHARE

    run(main())


def test_who_has_had_its_share_waits_for_its_turn_until_it_is_paid_for() -> None:
    async def main() -> None:
        loop = Loop()
        share = loop.share()
        loop.serve(share, MOST_SECONDS, ENOUGH)
        assert share.turn(100) is not None
        loop.now += ENOUGH * MOST_SECONDS / FREE_SHARE
        assert share.turn(100) is None

    run(main())


def test_long_message_waits_whoever_sends_it() -> None:
    async def main() -> None:
        share = Loop().share()
        assert share.turn(LONG_BYTES - 1) is None
        assert share.turn(LONG_BYTES) is not None

    run(main())


def test_time_in_which_the_process_did_not_run_is_no_clients_doing() -> None:
    async def main() -> None:
        loop = Loop()
        share = loop.share()
        loop.serve(share, 5.0)
        assert share.turn(100) is None

    run(main())


def test_turn_lasts_its_time_and_the_next_is_waited_for() -> None:
    async def main() -> None:
        loop = Loop()
        share = loop.share()
        share.turn(LONG_BYTES)
        loop.give_turn()
        share.begin_turn()
        assert share.turn(LONG_BYTES) is None
        loop.now += TURN_SECONDS
        assert share.turn(LONG_BYTES) is not None

    run(main())


def test_turns_are_given_one_at_a_time_in_the_order_of_asking() -> None:
    async def main() -> None:
        loop = Loop()
        first, second, third = (loop.turns.next() for _ in range(3))
        second.cancel()
        for given in ([True, True, False], [True, True, False], [True, True, True]):
            loop.give_turn()
            assert [future.done() for future in (first, second, third)] == given
        assert not loop.due
        last = loop.turns.next()
        loop.give_turn()
        assert last.done()

    run(main())


def test_turns_without_a_schedule_are_those_of_the_loop() -> None:
    async def main() -> None:
        given = MessageTurns()
        futures = [given.next() for _ in range(3)]
        await turns()
        assert all(future.done() for future in futures)

    run(main())


@pytest.mark.gen_test
async def test_long_messages_of_others_are_served_one_at_a_time_and_a_short_one_at_once() -> None:
    due: list[Callable[[], None]] = []
    long_call = call("public/subscribe", 1, channels=["x" * LONG_BYTES])
    async with serve() as server:
        object.__setattr__(server.context, "message_turns", MessageTurns(due.append))
        async with server.client() as first, server.client() as second, server.client() as quiet:
            await first.say(long_call)
            await second.say(long_call)
            await until(lambda: len(server.context.message_turns._waiting) == 2)
            await quiet.say(call("public/ping", 2))
            assert (await quiet.message())["result"] == "pong"
            for connection in (first, second):
                due.pop()()
                assert (await connection.message())["error"]["code"] == -32602


@pytest.mark.gen_test
async def test_turn_of_who_has_left_goes_to_the_next() -> None:
    due: list[Callable[[], None]] = []
    long_call = call("public/subscribe", 1, channels=["x" * LONG_BYTES])
    async with serve() as server:
        object.__setattr__(server.context, "message_turns", MessageTurns(due.append))
        async with server.client() as leaving, server.client() as staying:
            for number, connection in enumerate((leaving, staying)):
                await connection.say(long_call)
                await until(lambda number=number: len(server.context.message_turns._waiting) == number + 1)
            leaving.writer.close()
            due.pop()()
            await until(lambda: len(server.driven.hub.subscribers) == 1)
            due.pop()()
            assert (await staying.message())["error"]["code"] == -32602


@pytest.mark.gen_test
async def test_connection_that_is_closed_while_it_waits_for_its_turn_is_not_served() -> None:
    due: list[Callable[[], None]] = []
    async with serve() as server:
        object.__setattr__(server.context, "message_turns", MessageTurns(due.append))
        async with server.client() as connection:
            await connection.say(call("private/place_order", 1, pad="x" * LONG_BYTES))
            await until(lambda: len(due) == 1)
            [subscriber] = server.driven.hub.subscribers
            subscriber.end(1001, "reconnect")  # type: ignore[arg-type]
            assert await connection.closed() == (1001, "reconnect")
            due.pop()()
            await asyncio.sleep(0)
            await server.alone()
        assert not server.trade.log.produced
