"""However a connection ends, it goes without the garbage collector, which does not look at what has lived long."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType

import pytest

from core.delivery.frames import Bundle
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.errors import CloseCode
from core.protocol.session import Session
from handlers.http_connection import ServerStream
from handlers.websocket import StreamHandler
from handlers.websocket_protocol import GatewayProtocol
from tests.core.fakes import fill, snapshot
from tests.handlers.websocket_server import LIMIT, StreamServer, call, serve
from tests.handlers.wire import CLOSE, FINAL, PING, TEXT, Connection, client_frame, connected, until

RSV1 = 0x40

OF_A_CONNECTION = (StreamHandler, GatewayProtocol, ServerStream, Subscriber, Outbox, Session)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(others: dict[int, object]) -> dict[int, object]:
    """What there is of connections besides, by id."""
    return {id(one): one for one in gc.get_objects() if type(one) in OF_A_CONNECTION and id(one) not in others}


async def nobody_looks(others: dict[int, object]) -> None:
    """Who counts branches looks at the stacks of all threads, in one of its own: meanwhile it keeps calls that are over, and some
    keep themselves from then on. Where nobody does, in `make unit` and `make test`, nothing is collected.
    """

    def is_looked_at() -> bool:
        gc.collect()
        return any(isinstance(by, FrameType) for one in alive(others).values() for by in gc.get_referrers(one))

    if "SLIPCOVER_ENABLED" in os.environ:
        await until(lambda: not is_looked_at())


def held(left: dict[int, object]) -> str:
    """What refers to them, a line each, whole: a failure is rare, and this is all that there will be of it."""
    return "\n".join(
        f"{type(one).__name__} of {type(by).__name__} {str(by)[:300]}"
        for one in left.values()
        for by in gc.get_referrers(one)
        if by is not left
    )


async def with_a_close(server: StreamServer, client: Connection) -> None:
    await client.send(client_frame(b"\x03\xe8", FINAL | CLOSE))
    assert await client.frame() == (CLOSE, b"\x03\xe8")


async def without_a_word(server: StreamServer, client: Connection) -> None:
    client.writer.close()


async def by_a_reset(server: StreamServer, client: Connection) -> None:
    one = client.writer.get_extra_info("socket")
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def by_a_reset_that_the_fan_out_comes_upon(server: StreamServer, client: Connection) -> None:
    await by_a_reset(server, client)
    await asyncio.sleep(0)  # now the socket is closed, and the gateway has not been told
    assert len(server.driven.hub.subscribers) == 1
    server.driven.say((0, 2, fill("KCN/EUR")))


async def by_a_reset_with_much_unsent(server: StreamServer, client: Connection) -> None:
    for subscriber in tuple(server.driven.hub.subscribers):
        for _ in range(2):
            server.driven.hub.fanout.send(Bundle([b"x" * 500_000]), (subscriber,))
    await by_a_reset(server, client)


async def by_the_gateway(server: StreamServer, client: Connection) -> None:
    for subscriber in tuple(server.driven.hub.subscribers):
        subscriber.end(CloseCode.GOING_AWAY, "reconnect")
    assert (await client.closed())[0] == CloseCode.GOING_AWAY
    await client.send(client_frame(b"\x03\xe9", FINAL | CLOSE))


async def for_breaking_the_protocol(server: StreamServer, client: Connection) -> None:
    await client.send(client_frame(b"fragmented", PING))
    assert (await client.closed())[0] == CloseCode.PROTOCOL_ERROR
    client.writer.close()


async def for_a_message_too_large(server: StreamServer, client: Connection) -> None:
    await client.send(client_frame(b"x" * 20_000, FINAL | TEXT))
    assert (await client.closed())[0] == CloseCode.TOO_BIG
    client.writer.close()


async def with_much_unsent(server: StreamServer, client: Connection) -> None:
    for subscriber in tuple(server.driven.hub.subscribers):
        for _ in range(40):
            server.driven.hub.fanout.send(Bundle([b"x" * 500_000]), (subscriber,))
    del subscriber  # this frame may be kept by whoever has looked at the stack, and is no one that matters
    client.writer.close()


Ending = Callable[[StreamServer, Connection], Awaitable[None]]
ENDINGS: list[Ending] = [
    with_a_close,
    without_a_word,
    by_a_reset,
    by_a_reset_that_the_fan_out_comes_upon,
    by_a_reset_with_much_unsent,
    by_the_gateway,
    for_breaking_the_protocol,
    for_a_message_too_large,
    with_much_unsent,
]


@pytest.mark.gen_test
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
async def test_connection_goes_without_the_collector(ending: Ending) -> None:
    others = alive({})
    async with serve() as server:
        server.driven.say((0, 0, snapshot("KCN/EUR", 1)))
        async with server.client("alice-token", "/ws") as client:
            channels = ["book.KCN/EUR.none.10.raw", "trades.KCN/EUR", "events", "ticker.KCN/EUR.100ms"]
            await client.say(call("public/subscribe", channels=channels, since={"events": 0}))
            await client.say(call("private/subscribe", channels=["account.orders"]))
            await client.say(call("private/set_cancel_on_disconnect", enabled=True))
            await client.say(call("private/place_order", 7, **LIMIT))
            while (await client.message()).get("id") != 7:
                pass
            server.driven.say((0, 1, fill("KCN/EUR")))
            assert {type(one) for one in alive(others).values()} == set(OF_A_CONNECTION)
            while True:
                # What is on its way to the client is none of this test's business.
                try:
                    await asyncio.wait_for(client.reader.read(1 << 16), 0.05)
                except TimeoutError:
                    break
            await ending(server, client)
            client.writer.close()
        await server.alone()
        for _ in range(100):
            await asyncio.sleep(0)
        await nobody_looks(others)
        left = alive(others)
        assert not left, held(left)


@pytest.mark.gen_test
async def test_connection_that_is_reset_behind_what_does_not_inflate_goes_without_the_collector() -> None:
    others = alive({})
    async with serve(compression=True) as server:
        async with connected(server.port) as client:
            headers = {"Authorization": "Bearer alice-token", "Sec_WebSocket_Extensions": "permessage-deflate"}
            await client.upgrade("/ws?stream=none", **headers)
            # The gateway's Close frame meets the reset while it handles the error of the message.
            client.writer.write(client_frame(b"not deflated", FINAL | RSV1 | TEXT))
            await by_a_reset(server, client)
            await server.alone()
        for _ in range(100):
            await asyncio.sleep(0)
        await nobody_looks(others)
        left = alive(others)
        assert not left, held(left)
