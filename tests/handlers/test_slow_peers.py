"""Who reads slowly, and who does not answer: real sockets, on a clock that jumps (docs/contract.md#slow-consumers)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.core.fakes import fill, read_frames, run, snapshot
from tests.handlers.websocket_server import StreamServer, call, serve
from tests.handlers.wire import CLOSE, FINAL, PING, PONG, TEXT, UPGRADE, client_frame, request
from tests.support.certificates import Pair, TlsEnd, one_pair, server_context

SYMBOL = "KCN/EUR"
BOOK = f"book.{SYMBOL}.none.all.raw"
LEVELS = 75
EVENT_SECONDS = 0.25
READ_SECONDS = 0.1
PING_SECONDS = 20.0
# Several pings, and longer than anybody is waited for.
LONG_SECONDS = 75.0


class Peer:
    """A client of which the test says when it reads, and how much."""

    def __init__(self, one: socket.socket | TlsEnd, answers_pings: bool = True) -> None:
        self.socket = one
        self.answers_pings = answers_pings
        self.is_over = False
        self.pings = 0
        self.closed: tuple[int, str] | None = None
        self.texts: list[bytes] = []
        self.pongs: list[bytes] = []
        self._unread = b""

    async def send(self, data: bytes) -> None:
        if isinstance(self.socket, TlsEnd):
            await self.socket.sendall(data)
        else:
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read(self, most: int) -> None:
        """What has come, up to so many bytes."""
        while most > 0 and not self.is_over:
            try:
                data = self.socket.recv(most)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            self.is_over = not data
            most -= len(data)
            frames, self._unread = read_frames(self._unread + data)
            for opcode, payload in frames:
                if opcode == TEXT:
                    self.texts.append(payload)
                elif opcode == PONG:
                    self.pongs.append(payload)
                elif opcode == CLOSE:
                    self.closed = int.from_bytes(payload[:2], "big"), payload[2:].decode()
                elif opcode == PING:
                    self.pings += 1
                    if self.answers_pings:
                        await self.send(client_frame(payload, FINAL | PONG))


@asynccontextmanager
async def peer(
    server: StreamServer, path: str = "/ws?stream=none", answers_pings: bool = True, tls: Pair | None = None
) -> AsyncIterator[Peer]:
    loop = asyncio.get_running_loop()
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        one.setblocking(False)
        await loop.sock_connect(one, ("127.0.0.1", server.port))
        end: socket.socket | TlsEnd = one
        if tls is not None:
            end = TlsEnd(one, tls.trusting())
            await end.handshake()
        made = Peer(end, answers_pings)
        await made.send(request("GET", path, {"Host": "x", **{key.replace("_", "-"): UPGRADE[key] for key in UPGRADE}}))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            try:
                head += end.recv(65_536)
            except BlockingIOError:
                await asyncio.sleep(0)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield made


def book(number: int) -> bytes:
    """A delta that gives every level another quantity, of many digits: much to send, and little to calculate."""
    changes = [
        {"action": "update", "side": "bid", "price": f"1.{step:03d}", "quantity": f"{number}.{step:040d}1"}
        for step in range(LEVELS)
    ]
    return json.dumps({"type": "orderbook_delta", "symbol": SYMBOL, "sequence": number, "deltas": changes}).encode()


async def speak(server: StreamServer, records: asyncio.Queue[bytes], seconds: float) -> None:
    """The engine says what it is given to say, or else that the book has changed; the hub beats meanwhile."""
    loop = asyncio.get_running_loop()
    server.driven.now = began = loop.time()
    server.driven.say((0, 0, snapshot(SYMBOL, 1)))
    number = 1
    while loop.time() < began + seconds:
        number += 1
        server.driven.now = loop.time()
        server.driven.say((0, number, book(number) if records.empty() else records.get_nowait()))
        await asyncio.sleep(EVENT_SECONDS)


async def read_steadily(one: Peer, bytes_a_second: int) -> None:
    while not one.is_over:
        await one.read(int(bytes_a_second * READ_SECONDS))
        await asyncio.sleep(READ_SECONDS)


def closes(server: StreamServer) -> Counter[str]:
    """How often what was the cause of a close."""
    [family] = [one for one in server.context.metrics.registry.collect() if one.name == "gateway_closes"]
    return Counter({one.labels["cause"]: int(one.value) for one in family.samples if one.name.endswith("_total")})


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Pair | None:
    """The same with TLS and without."""
    return one_pair() if request.param == "tls" else None


@pytest.mark.parametrize("bytes_a_second", [5_000, 15_000])
def test_slow_but_steady_reader_is_conflated_and_stays(bytes_a_second: int, tls: Pair | None) -> None:
    async def main() -> None:
        context = server_context(tls)
        async with serve(max_buffer_bytes=200_000, tls=context) as server, peer(server, tls=tls) as slow:
            await slow.send(client_frame(json.dumps(call("public/subscribe", channels=[BOOK])).encode()))
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read_steadily(slow, bytes_a_second))
                await speak(server, asyncio.Queue(), LONG_SECONDS)
                reading.cancel()
            assert server.driven.hub.subscribers, "it has been closed"
            seen = json.loads(slow.texts[-1])["seq"]
            assert set(server.driven.counts.conflations) == {"book"}
            if bytes_a_second > 5_000:
                assert slow.pings >= 2
                told = [json.loads(text) for text in slow.texts]
                conflated = [one for one in told if one.get("notification", {}).get("conflated")]
                assert conflated
                # Old is what a bound, a socket's buffers and a chunk hold, and not what a kernel likes to hold.
                behind_seconds = (LONG_SECONDS / EVENT_SECONDS - seen) * EVENT_SECONDS
                assert behind_seconds * bytes_a_second < 600_000

    run(main())


def test_reader_of_everything_that_is_too_slow_is_still_closed_with_4008(tls: Pair | None) -> None:
    async def main() -> None:
        context = server_context(tls)
        async with serve(max_buffer_bytes=200_000, tls=context) as server, peer(server, tls=tls) as slow:
            channels = [f"events.{SYMBOL}"]
            await slow.send(client_frame(json.dumps(call("public/subscribe", channels=channels)).encode()))
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read_steadily(slow, 20_000))
                await speak(server, asyncio.Queue(), LONG_SECONDS)
                await asyncio.wait([reading], timeout=LONG_SECONDS)
            assert server.driven.counts.closes == ["overflow"]
            assert closes(server) == {"slow consumer": 1}

    run(main())


def test_peer_that_answers_no_ping_is_told_to_come_back() -> None:
    async def main() -> None:
        async with serve() as server, peer(server, answers_pings=False) as silent, peer(server) as well:
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(read_steadily(one, 100_000)) for one in (silent, well)]
                await asyncio.sleep(2 * PING_SECONDS + 1)
                assert silent.closed == (4009, "ping timeout")
                assert well.closed is None
                assert well.pings == 2
                for task in reading:
                    task.cancel()
        await server.alone()
        assert closes(server) == {"ping timeout": 1, "client": 1}

    run(main())


def test_peer_that_answers_no_ping_and_asks_for_things_is_alive() -> None:
    async def main() -> None:
        async with serve() as server, peer(server, answers_pings=False) as busy:
            for _ in range(20):
                await asyncio.sleep(PING_SECONDS / 4)
                await busy.send(client_frame(json.dumps(call("public/ping")).encode()))
                await busy.read(10_000)
            assert busy.pings >= 4
            assert busy.closed is None
            assert not busy.is_over

    run(main())


@pytest.mark.parametrize("is_much", [False, True])
def test_peer_that_hangs_is_dropped_however_much_its_kernel_takes(is_much: bool, tls: Pair | None) -> None:
    async def main() -> None:
        context = server_context(tls)
        async with serve(max_buffer_bytes=1 << 20, tls=context) as server, peer(server, tls=tls) as hung:
            await hung.send(client_frame(json.dumps(call("public/subscribe", channels=[f"events.{SYMBOL}"])).encode()))
            await asyncio.sleep(1)
            await hung.read(10_000)
            seconds = 4 * PING_SECONDS
            small = asyncio.Queue[bytes]()
            for number in range(0 if is_much else int(seconds / EVENT_SECONDS) + 1):
                small.put_nowait(fill(SYMBOL, n=number))
            await speak(server, small, seconds)
            assert not server.driven.hub.subscribers

    run(main())
