"""Whose messages are served when, by a clock and a loop in the test's hands."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from core.errors import CloseCode
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
from tests.handlers.websocket_server import LIMIT, StreamServer, call, serve
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

    def serve(self, share: MessageShare, seconds: float, times: int = 1, size: int = 100) -> None:
        for _ in range(times):
            began = share.clock()
            self.now += seconds
            share.end(began, size)

    def give_turn(self) -> None:
        [go_on] = self.due
        self.due.clear()
        go_on()


def test_who_sends_little_waits_for_nobody() -> None:
    async def main() -> None:
        loop = Loop()
        busy, quiet = loop.share(), loop.share()
        loop.serve(busy, MOST_SECONDS, ENOUGH)
        assert busy.turn(100, loop.now) is not None
        for _ in range(1000):
            assert quiet.turn(100, loop.now) is None
            loop.serve(quiet, 0.0001)
            loop.now += 0.0001 / FREE_SHARE

    run(main())


def test_who_has_had_its_share_waits_for_its_turn_until_it_is_paid_for() -> None:
    async def main() -> None:
        loop = Loop()
        share = loop.share()
        loop.serve(share, MOST_SECONDS, ENOUGH)
        assert share.turn(100, loop.now) is not None
        loop.now += ENOUGH * MOST_SECONDS / FREE_SHARE
        assert share.turn(100, loop.now) is None

    run(main())


def test_long_message_waits_whoever_sends_it() -> None:
    async def main() -> None:
        loop = Loop()
        share = loop.share()
        assert share.turn(LONG_BYTES - 1, loop.now) is None
        assert share.turn(LONG_BYTES, loop.now) is not None

    run(main())


def test_time_in_which_the_process_did_not_run_is_no_clients_doing() -> None:
    async def main() -> None:
        loop = Loop()
        share = loop.share()
        loop.serve(share, 5.0)
        assert share.turn(100, loop.now) is None

    run(main())


def test_turn_lasts_its_time_and_the_next_is_waited_for() -> None:
    async def main() -> None:
        loop = Loop()
        share = loop.share()
        turn = share.turn(LONG_BYTES, loop.now)
        assert turn is not None
        await turn
        share.begin_turn()
        for _ in range(round(TURN_SECONDS / MOST_SECONDS)):
            assert share.turn(LONG_BYTES, loop.now) is None
            loop.serve(share, 5.0)  # of which the process ran a part
        assert share.turn(LONG_BYTES, loop.now) is not None
        share.begin_turn()
        loop.serve(share, TURN_SECONDS * 1.01, size=LONG_BYTES)
        assert share.turn(LONG_BYTES, loop.now) is not None, "a long message is taken to have cost what it took"
        share.begin_turn()
        share.end_turn()
        assert share.turn(LONG_BYTES, loop.now) is not None, "what is left of a turn is not kept"

    run(main())


def test_turns_are_given_one_at_a_time_in_the_order_of_asking() -> None:
    async def main() -> None:
        loop = Loop()
        first, second, third, fourth = futures = [loop.turns.next() for _ in range(4)]
        third.cancel()
        await turns()
        for given in ([first, third], [first, second, third], [first, second, third], futures):
            assert [future.done() for future in futures] == [future in given for future in futures]
            if fourth not in given:
                loop.give_turn()
        assert not loop.due

    run(main())


def test_who_is_alone_waits_for_a_turn_of_the_loop_and_not_for_its_rest() -> None:
    async def main() -> None:
        loop = Loop()
        for _ in range(3):
            await loop.turns.next()
        assert not loop.due

    run(main())


def test_turns_without_a_schedule_are_those_of_the_loop() -> None:
    async def main() -> None:
        given = MessageTurns()
        futures = [given.next() for _ in range(3)]
        await turns()
        assert all(future.done() for future in futures)

    run(main())


class Queue:
    """The turns of a server, which a test gives."""

    def __init__(self, server: StreamServer) -> None:
        self.due: list[Callable[[], None]] = []
        self.turns = MessageTurns(self.due.append)
        object.__setattr__(server.context, "message_turns", self.turns)
        # Others are there already: from here on nobody is alone.
        self.turns.next()
        self.turns.next()

    async def has(self, waiting: int) -> None:
        """Until so many wait, those others apart."""
        await until(lambda: len(self.turns._waiting) == 1 + waiting and bool(self.due))

    def give(self) -> None:
        """The next turn."""
        [go_on] = self.due
        self.due.clear()
        go_on()


LONG_CALL = call("public/subscribe", 1, channels=["x" * LONG_BYTES])


@pytest.mark.gen_test
async def test_long_messages_are_served_one_at_a_time_and_a_short_one_at_once() -> None:
    async with serve() as server:
        queue = Queue(server)
        async with server.client() as first, server.client() as second, server.client() as quiet:
            await first.say(LONG_CALL)
            await queue.has(1)
            await second.say(LONG_CALL)
            await queue.has(2)
            await quiet.say(call("public/ping", 2))
            assert (await quiet.message())["result"] == "pong"
            queue.give()
            for connection in (first, second):
                queue.give()
                assert (await connection.message())["error"]["code"] == -32602


@pytest.mark.gen_test
async def test_turn_of_who_has_left_goes_to_the_next() -> None:
    async with serve() as server:
        queue = Queue(server)
        async with server.client() as leaving, server.client() as staying:
            await leaving.say(LONG_CALL)
            await queue.has(1)
            await staying.say(LONG_CALL)
            await queue.has(2)
            leaving.writer.close()
            queue.give()
            queue.give()
            await until(lambda: len(server.driven.hub.subscribers) == 1)
            queue.give()
            assert (await staying.message())["error"]["code"] == -32602


@pytest.mark.gen_test
async def test_connection_that_is_closed_while_it_waits_for_its_turn_is_not_served() -> None:
    async with serve() as server:
        queue = Queue(server)
        async with server.client("alice-token") as connection:
            order = json.dumps(call("private/place_order", 1, **LIMIT)).encode()
            await connection.say(order + b" " * LONG_BYTES)
            await queue.has(1)
            [subscriber] = server.driven.hub.subscribers
            subscriber.end(CloseCode.GOING_AWAY, "reconnect")
            assert await connection.closed() == (1001, "reconnect")
            queue.give()
            queue.give()
        await server.alone()
        assert not server.trade.log.produced
