from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest
from tornado.web import Application, RequestHandler

import handlers.acceptor
import handlers.raw_problems
from handlers.acceptor import PAUSE_SECONDS, SPARE, Listener
from handlers.http_connection import Server, ServerStream
from handlers.raw_problems import PIECE_BYTES, say_last

pytestmark = pytest.mark.gen_test

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Hello(RequestHandler):
    def get(self) -> None:
        self.finish("hello")


class Faulty(socket.socket):
    """A listening socket whose `accept` can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[int] = []
        self.always = 0
        self.tries: list[float] = []
        self.setblocking(False)
        self.bind(("127.0.0.1", 0))
        self.listen(128)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.tries.append(time.monotonic())
        if number := self.always or (self.errors.pop(0) if self.errors else 0):
            raise OSError(number, os.strerror(number))
        return super().accept()


@contextmanager
def listener_on(
    *sockets: socket.socket, most: int = 100, clients: Callable[[], int] = lambda: 0
) -> Iterator[tuple[Listener, list[bool]]]:
    server = Server(Application([("/", Hello)], log_function=lambda _handler: None))
    refused: list[bool] = []
    listener = Listener(server, most=most, clients=clients, on_refused=lambda _slug: refused.append(True))
    listener.accept_on(sockets)
    try:
        yield listener, refused
    finally:
        listener.close()
        for one in sockets:
            one.close()


async def connect(listening: socket.socket) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, listening.getsockname())
    return client


async def ask(client: socket.socket) -> bytes:
    """The answer, as far as its end (a refusal) or its last byte."""
    loop = asyncio.get_running_loop()
    answer = b""
    with contextlib.suppress(ConnectionError):
        await loop.sock_sendall(client, REQUEST)
        while not answer.endswith(b"hello") and (data := await loop.sock_recv(client, 65_536)):
            answer += data
    return answer


def check_refused(answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in head
    told = json.loads(body)
    assert (told["type"], told["status"]) == ("urn:mexchange:problem:unavailable", 503)
    assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def clients_of(listening: socket.socket, count: int) -> AsyncIterator[list[socket.socket]]:
    clients = [await connect(listening) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is refused has all the time it needs to ask and to read why."""
    monkeypatch.setattr(handlers.acceptor, "REFUSE_SECONDS", 60.0)


async def test_listener_serves_what_it_accepts() -> None:
    one = Faulty()
    with listener_on(one) as (listener, _):
        async with clients_of(one, 40) as clients:
            for client in clients:
                assert (await ask(client)).endswith(b"hello")
            assert listener.open_connections() == 40
        await until(lambda: listener.open_connections() == 0)


@pytest.mark.parametrize(
    ("request_bytes", "is_served_first"),
    [(b"", True), (REQUEST[:20], True), (REQUEST, True), (b"no request\r\n\r\n", False)],
    ids=["silent", "half a request", "unread answer", "while it is refused"],
)
async def test_connection_that_was_reset_goes_without_the_collector(
    request_bytes: bytes, is_served_first: bool
) -> None:
    def streams() -> list[object]:
        return [found for found in gc.get_objects() if type(found) is ServerStream]

    one = Faulty()
    gc.collect()
    gc.disable()
    try:
        others = len(streams())
        with listener_on(one) as (listener, _):
            client = await connect(one)
            await asyncio.get_running_loop().sock_sendall(client, request_bytes)
            if is_served_first:
                await until(lambda: listener.open_connections() == 1)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(streams()) == others + 1
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            await until(lambda: bool(one.tries))
            await until(lambda: listener.open_connections() == 0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(streams()) == others
    finally:
        gc.enable()


async def test_listener_leaves_what_it_is_told_to_and_takes_it_again() -> None:
    one, other = Faulty(), Faulty()
    with listener_on(one, other) as (listener, _):
        listener.stop_accepting_on([one])
        async with clients_of(one, 1) as [waiting], clients_of(other, 1) as [served]:
            assert (await ask(served)).endswith(b"hello")
            assert one.tries == []
            listener.accept_on([one])
            listener.accept_on([one])
            assert (await ask(waiting)).endswith(b"hello")


@pytest.mark.usefixtures("patient")
async def test_listener_refuses_beyond_its_room_and_serves_when_there_is_some() -> None:
    one = Faulty()
    with listener_on(one, most=2) as (listener, refused):
        async with clients_of(one, 2) as clients:
            for client in clients:
                assert (await ask(client)).endswith(b"hello")
            async with clients_of(one, 3) as more:
                for client in more:
                    check_refused(await ask(client))
            assert len(refused) == 3
        await until(lambda: listener.open_connections() == 0)
        async with clients_of(one, 1) as [client]:
            assert (await ask(client)).endswith(b"hello")


@pytest.mark.usefixtures("patient")
async def test_listener_counts_clients_that_left_the_server_by_their_upgrade() -> None:
    one = Faulty()
    with listener_on(one, most=2, clients=lambda: 2):
        async with clients_of(one, 1) as [client]:
            check_refused(await ask(client))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.usefixtures("patient")
async def test_listener_out_of_descriptors_refuses_from_those_it_has_kept(number: int) -> None:
    one = Faulty()
    with listener_on(one) as (_, refused):
        # Each of these is tried once, and again with a descriptor that was kept.
        for turn in range(3 * SPARE):
            one.errors = [number]
            async with clients_of(one, 1) as [client]:
                check_refused(await ask(client))
                assert len(refused) == turn + 1
        async with clients_of(one, 1) as [client]:
            assert (await ask(client)).endswith(b"hello")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EINVAL])
async def test_listener_that_can_take_nobody_does_not_spin(number: int) -> None:
    one = Faulty()
    with listener_on(one) as (_, refused):
        one.always = number
        async with clients_of(one, 1) as [client]:
            answering = asyncio.create_task(ask(client))
            await until(lambda: len(one.tries) >= 8)
            # Two tries a turn at most, and a pause between the turns.
            assert one.tries[7] - one.tries[0] >= 3 * PAUSE_SECONDS * 0.9
            one.always = 0
            assert (await answering).endswith(b"hello")
        assert not refused


async def test_listener_passes_over_a_connection_that_went_away_while_it_waited() -> None:
    one = Faulty()
    with listener_on(one) as (_, refused):
        async with clients_of(one, 1) as [client]:
            one.errors = [errno.ECONNABORTED, errno.EPROTO]
            assert (await ask(client)).endswith(b"hello")
        assert not refused


async def test_refused_client_that_says_nothing_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.acceptor, "REFUSE_SECONDS", 0.01)
    one = Faulty()
    with listener_on(one, most=0):
        async with clients_of(one, 1) as [silent]:
            assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""


async def test_closed_listener_takes_nothing_any_more() -> None:
    one = Faulty()
    with listener_on(one) as (listener, _):
        listener.close()
        listener.close()
        assert one.fileno() == -1
        other = Faulty()
        listener.accept_on([other])
        async with clients_of(other, 1):
            await asyncio.sleep(0)
            assert other.tries == []
        other.close()


# Who has its answer, and is still sending.


async def test_hearing_somebody_out_lets_others_have_their_turns() -> None:
    ours, peers = socket.socketpair()
    with ours, peers:
        for one in (ours, peers):
            one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                peers.send(bytes(PIECE_BYTES))
        peers.shutdown(socket.SHUT_WR)
        turns = [0]
        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(say_last(ours, b"", 60))
            group.create_task(count_turns(hearing, turns))
        assert turns[0] > 2


async def count_turns(other: asyncio.Task[None], turns: list[int]) -> None:
    while not other.done():
        turns[0] += 1
        await asyncio.sleep(0)


async def test_who_sends_without_end_is_heard_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.raw_problems, "MOST_DROPPED_BYTES", 2 * PIECE_BYTES)
    ours, peers = socket.socketpair()
    with ours, peers:
        for one in (ours, peers):
            one.setblocking(False)
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peers, bytes(100 * PIECE_BYTES)))
        async with asyncio.timeout(15):
            await say_last(ours, b"", 60)
        ours.close()
        with pytest.raises(OSError):
            await sending


async def test_who_says_nothing_is_not_waited_for_long() -> None:
    ours, peers = socket.socketpair()
    with ours, peers:
        ours.setblocking(False)
        with pytest.raises(TimeoutError):
            await say_last(ours, b"that was all", 0.01)
        assert peers.recv(100) == b"that was all"


async def test_one_more_than_can_be_heard_out_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.acceptor, "MAX_TELLING", 0)
    one = Faulty()
    with listener_on(one):
        async with clients_of(one, 1) as [client]:
            await asyncio.get_running_loop().sock_sendall(client, b"what is this\r\n\r\n")
            answer = b""
            while data := await asyncio.get_running_loop().sock_recv(client, 65_536):
                answer += data
            assert answer.startswith(b"HTTP/1.1 400 ") and b"urn:mexchange:problem:bad-request" in answer
