"""A large audience does not hold up an order: between two slices of the fan-out everybody has a turn."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from tornado.ioloop import IOLoop

import handlers.orders
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from handlers.websocket import routes
from tests.core.admission import Tokens
from tests.core.fakes import fill, snapshot
from tests.handlers.websocket_server import LIMIT, RULES, StreamServer
from tests.handlers.wire import connected, serving, until

CLIENTS = 2000


class SocketEnd:
    """The gateway's end of a pair of sockets, as an outbox needs it; nobody reads the other one meanwhile."""

    def __init__(self, end: socket.socket) -> None:
        self.send = end.send

    def sender(self) -> Callable[[bytes], int]:
        return self.send

    def is_empty(self) -> bool:
        return True

    def spill(self, data: bytes | memoryview) -> None:
        raise AssertionError("more than a socket holds")

    def moved(self) -> int:
        return 0


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * CLIENTS + 100:
        pytest.skip(f"{CLIENTS} pairs of sockets need more open files than {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CLIENTS + 100), hard))
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(CLIENTS)]
        for one in made:
            for end in one:
                stack.enter_context(end)
                end.setblocking(False)
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def has_something(end: socket.socket) -> bool:
    try:
        return bool(end.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.mark.gen_test
async def test_order_is_answered_before_the_last_of_many_clients_has_its_frame(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    server = StreamServer(Tokens(**{"alice-token": "alice"}))
    hub = server.driven.hub
    # Each look at the clock ends a slice: how many turns there are is then a matter of counting, and of no machine's speed.
    hub.fanout.slice_seconds = 0.0
    hub.fanout.schedule_slice = lambda go_on: IOLoop.current().add_callback(go_on)
    table = [
        *routes(server.context, hub, server.rules, server.order_services, server.status),
        *handlers.orders.routes(
            server.context, server.trade.entry, server.trade.lookup, RULES, lambda: {"instruments": []}
        ),
    ]
    async with serving(server.context, table) as port, connected(port) as trader:
        order = {"Authorization": "Bearer alice-token", "Content_Type": "application/json"}
        body = b'{"symbol":"KCN/EUR",' + str(LIMIT).replace("'", '"').encode()[1:]
        assert (await trader.ask("POST", "/api/order", body, **order)).status == 202
        server.driven.say((0, 0, snapshot()))
        for ours, _ in pairs:
            hub.add(Subscriber(Outbox(SocketEnd(ours), 1 << 20), lambda _code, _reason: None), stream=True)
        for _, theirs in pairs:
            assert theirs.recv(1 << 16)
        server.driven.say((0, 1, fill()))
        assert any(has_something(theirs) for _, theirs in pairs)
        answer = await trader.ask("POST", "/api/order", body, **order)
        assert answer.status == 202
        got = sum(has_something(theirs) for _, theirs in pairs)
        assert 0 < got < CLIENTS, "the answer came while they were still being served"
        await until(lambda: not hub.fanout.is_busy)
        assert all(has_something(theirs) for _, theirs in pairs)
