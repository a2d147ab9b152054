"""What `GET /api/book` costs, beside a bare Tornado handler that answers as many bytes. `python -m bench.book_over_rest`.

One process serves both, each on a port of its own: ours as the gateway does, the other with Tornado's own server and a handler that
writes bytes which it has. Another process asks them by turns, over keep-alive connections, a request under way on each. Told is
the CPU time of the serving process for a request: once of a book that does not change, and once of one that an event changes
before each request, so that nothing that was written can be used again (what the event itself takes is not counted).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import sys
import time
from decimal import Decimal
from multiprocessing.connection import Connection

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application as BareApplication
from tornado.web import RequestHandler

import handlers.market_data
from bench.fanout.ours import admission
from bench.support import machine
from core.config.settings import Settings
from core.market.market import Market
from core.orders.pieces import nobody_else
from core.telemetry.metrics import Metrics
from handlers.acceptor import Listener
from handlers.bodies import Application
from handlers.http_connection import ANY_BODY_BYTES, IDLE_SECONDS, MAX_HEAD_BYTES
from handlers.http_connection import Server as HttpConnectionServer
from handlers.market_data import MarketData
from handlers.problems import Context, Status

SYMBOL = "KCN/EUR"
DEPTHS = (50, 1000)
CONNECTIONS = 16
REQUESTS = 500
ROUNDS = 25
EPOCH = "pY7mPbzSTxC0bBlk0JbD2g.12"
TARGET = 1.3
# Far enough that all offsets of a run have as many digits.
FIRST_OFFSET = 10_000_000


def market() -> Market:
    """Of a book with as many levels as are asked for at most."""
    made = Market(lambda *_: None, lambda *_: None, lambda *_: None, tick_of=lambda _symbol: Decimal("0.01"))
    made.partitions.begin(0, 0)
    made.fold(0, FIRST_OFFSET, snapshot())
    made.partitions.serve([0])
    return made


def snapshot() -> bytes:
    """The engine's, with some digits more than round ones have."""
    sides = [
        ",".join(
            f'{{"price":"{1000 + sign * number / 100:.2f}","quantity":"{1 + number * 0.0371:.4f}"}}'
            for number in range(1, max(DEPTHS) + 1)
        )
        for sign in (-1, 1)
    ]
    return (
        f'{{"type":"orderbook_snapshot","symbol":"{SYMBOL}","sequence":1,"timestamp":1795350151867,'
        f'"bids":[{sides[0]}],"asks":[{sides[1]}]}}'
    ).encode()


class BareHandler(RequestHandler):
    """Bytes that are there."""

    body = b""

    def get(self) -> None:
        """Answer with them."""
        self.set_header("Content-Type", "application/json")
        self.write(self.body)


class Epoch:
    """The epoch; where the book is to be another each time that it is asked for, it is as if an event had come."""

    def __init__(self, changed: Market) -> None:
        self._changed = changed.find(SYMBOL)
        self.is_changing = False

    def __call__(self) -> str:
        """Asked for in the beginning of each answer."""
        if self.is_changing and self._changed is not None:
            self._changed.offset += 1
        return EPOCH


def serve(pipe: Connection) -> None:
    """Tell both ports; then, whenever asked, the CPU seconds of this process so far, with the bare handler's body and whether the book changes."""

    async def run() -> None:
        settings = Settings()
        context = Context(settings, Metrics(), Status(), admission(settings))
        made = market()
        epoch = Epoch(made)
        routes = handlers.market_data.routes(context, MarketData(made, epoch, nobody_else))
        ours = HttpConnectionServer(
            Application(routes, log_function=lambda _handler: None), max_body_size=ANY_BODY_BYTES
        )
        bare = HTTPServer(
            BareApplication([(r"/api/book", BareHandler)], log_function=lambda _handler: None),
            max_body_size=ANY_BODY_BYTES,
            max_header_size=MAX_HEAD_BYTES,
            idle_connection_timeout=IDLE_SECONDS,
        )
        [our_socket], [bare_socket] = (bind_sockets(0, "127.0.0.1") for _ in range(2))
        Listener(ours, most=1 << 20, clients=lambda: 0).accept_on([our_socket])
        bare.add_socket(bare_socket)
        ended = asyncio.Event()

        def answer() -> None:
            try:
                BareHandler.body, epoch.is_changing = pipe.recv()
            except EOFError:
                ended.set()
            else:
                pipe.send(time.process_time())

        asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
        pipe.send((our_socket.getsockname()[1], bare_socket.getsockname()[1]))
        await ended.wait()

    asyncio.run(run())


def get(connection: socket.socket, depth: int) -> None:
    """Ask, on a connection that is kept."""
    connection.sendall(f"GET /api/book?symbol={SYMBOL}&depth={depth} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


def body(connection: socket.socket) -> bytes:
    """The body of the answer, which has to be one."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"book over REST: {head.decode()}")
    size = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(rest) < size:
        rest += connection.recv(1 << 16)
    return rest


class Asked:
    """One of the two, and who asks it."""

    def __init__(self, port: int, pipe: Connection) -> None:
        self._connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        self._pipe = pipe
        self.told: tuple[bytes, bool] = b"", False

    def one(self, depth: int) -> bytes:
        """One body."""
        get(self._connections[0], depth)
        return body(self._connections[0])

    def cost_us(self, depth: int) -> float:
        """CPU microseconds that the serving process takes for a request."""
        before = self._cpu_seconds()
        for connection in self._connections:
            get(connection, depth)
        for number in range(REQUESTS):
            connection = self._connections[number % CONNECTIONS]
            body(connection)
            get(connection, depth)
        for number in range(CONNECTIONS):
            body(self._connections[(REQUESTS + number) % CONNECTIONS])
        return (self._cpu_seconds() - before) / (REQUESTS + CONNECTIONS) * 1e6

    def _cpu_seconds(self) -> float:
        self._pipe.send(self.told)
        seconds: float = self._pipe.recv()
        return seconds


def main() -> None:
    """The figures."""
    print("\n".join(machine.describe()))
    forking = multiprocessing.get_context("fork")
    here, there = forking.Pipe()
    server = forking.Process(target=serve, args=(there,), daemon=True)
    server.start()
    ours, bare = (Asked(port, here) for port in here.recv())
    for depth, is_changing in ((depth, is_changing) for depth in DEPTHS for is_changing in (False, True)):
        whole = ours.one(depth)
        ours.told = bare.told = whole, is_changing
        for one in (ours, bare):
            one.cost_us(depth)
        if len(bare.one(depth)) != len(ours.one(depth)):
            sys.exit("book over REST: the answers differ")
        told: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            first, second = (ours, bare) if number % 2 else (bare, ours)
            costs = {first: first.cost_us(depth), second: second.cost_us(depth)}
            told.append((costs[ours], costs[bare]))
        ratio = statistics.median(mine / theirs for mine, theirs in told)
        mine, theirs = (statistics.median(costs) for costs in zip(*told, strict=True))
        print(
            f"{depth} levels a side, {'changed before each' if is_changing else 'unchanged'}, {len(whole)} bytes: "
            f"{mine:.0f} us, bare {theirs:.0f} us, ratio {ratio:.2f}{f' (target {TARGET})' if depth == DEPTHS[0] else ''}"
        )
    server.terminate()


if __name__ == "__main__":
    main()
