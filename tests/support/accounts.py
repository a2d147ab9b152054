"""An account service that really keeps balances, and one that answers whatever bytes a test wants.

Both run in the test's own loop on a free port (`tests/support/ledger_service.py` has the first in a thread). `AccountService`
speaks what `services/accounts.py` expects: reservations under `/internal/orders`, the first answer again for a repeated
Idempotency-Key, and 200 with an echo for all else.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.support.account_ledger import Hold, Ledger, Owner, Refused


@dataclass(frozen=True)
class Seen:
    """One request that reached the service."""

    method: str
    uri: str
    headers: HTTPHeaders
    body: bytes
    port: int
    """The client's end of the connection."""
    at: int = 0
    """The service's end."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The client has closed the connection."""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Canned:
    """An answer; with status 0 none, and the connection is cut."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class AccountService:
    """What a ledger keeps, over HTTP. `balances` by user and currency; `price` is what a market order costs, in quote per base."""

    def __init__(self, balances: Mapping[Owner, str], price: str = "2") -> None:
        self.ledger = Ledger(balances, price)
        self.seen: list[Seen] = []
        self.ports = [0]
        self._canned: list[Canned] = []
        self._fixed: Canned | None = None
        self._gates: dict[bool, asyncio.Event | None] = {False: None, True: None}
        self._news = asyncio.Condition()
        self._server: HTTPServer | None = None

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, after a stop on the same ports again."""
        application = Application([(r".*", _Handler, {"service": self})], log_function=lambda _handler: None)
        self._server = HTTPServer(application)
        self.ports = [self._listen(self._server, port) for port in self.ports]

    @staticmethod
    def _listen(server: HTTPServer, port: int) -> int:
        [listener] = bind_sockets(port, "127.0.0.1")
        server.add_socket(listener)
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """Refuse connections, and drop those that there are."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
            self._server = None

    @property
    def balances(self) -> dict[Owner, Decimal]:
        """What is available."""
        return self.ledger.available

    @property
    def held(self) -> dict[str, Hold]:
        """What is reserved, by order."""
        return {order_id: hold for order_id, hold in self.ledger.holds.items() if hold.amount}

    @property
    def next_id(self) -> Callable[[str], str | int]:
        """The id of a reservation, by its Idempotency-Key."""
        return self.ledger.next_id

    @next_id.setter
    def next_id(self, made: Callable[[str], str | int]) -> None:
        self.ledger.next_id = made

    # Faults.

    @contextmanager
    def answering(self, status: int, body: bytes = b"", **headers: str) -> Iterator[None]:
        """Do nothing, and answer so."""
        self._fixed = Canned(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
        try:
            yield
        finally:
            self._fixed = None

    def answer_next(self, *statuses: int) -> None:
        """Do nothing for the next requests, and answer with these statuses."""
        self._canned += [Canned(status) for status in statuses]

    @contextmanager
    def frozen(self, after_its_work: bool = False) -> Iterator[None]:
        """Take requests and let them wait, until the end: before the work on them, or after it."""
        gate = self._gates[after_its_work] = asyncio.Event()
        try:
            yield
        finally:
            self._gates[after_its_work] = None
            gate.set()

    def let_newcomers_pass(self) -> None:
        """What waits goes on waiting until the end of `frozen`; what comes from now on does not."""
        self._gates = {False: None, True: None}

    async def arrived(self, count: int) -> None:
        """Wait until so many requests have come, since the service was made."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.seen) >= count)

    # Work.

    async def serve(self, seen: Seen) -> Canned:
        self.seen.append(seen)
        async with self._news:
            self._news.notify_all()
        await self._pass(False)
        if self._fixed is not None:
            return self._fixed
        if self._canned:
            return self._canned.pop(0)
        try:
            answer = self._work(seen)
        except Refused as refused:
            answer = Canned(refused.status, json.dumps({"error": refused.error}).encode())
        await self._pass(True)
        return answer

    async def _pass(self, after_its_work: bool) -> None:
        gate = self._gates[after_its_work]
        if gate is not None:
            await gate.wait()

    def _work(self, seen: Seen) -> Canned:
        if not seen.uri.startswith("/internal/"):
            echo = {"method": seen.method, "uri": seen.uri, "size": len(seen.body)}
            return Canned(200, json.dumps(echo).encode(), {"Content-Type": "application/json"})
        user_id = seen.headers.get("X-User-Id")
        if not user_id:
            raise Refused(401, "no user")
        if seen.method == "POST" and seen.uri == "/internal/orders":
            return self._reserve(user_id, seen)
        if seen.method == "DELETE" and seen.uri.startswith("/internal/orders/"):
            return self._release(user_id, seen.uri.removeprefix("/internal/orders/"))
        raise Refused(404, "nothing here")

    def _reserve(self, user_id: str, seen: Seen) -> Canned:
        order = json.loads(seen.body, parse_float=_no_floats)
        is_new, answer = self.ledger.reserve(user_id, seen.headers["Idempotency-Key"], order)
        return Canned(201 if is_new else 200, json.dumps(answer).encode())

    def _release(self, user_id: str, order_id: str) -> Canned:
        amount = self.ledger.release(user_id, order_id)
        return Canned(200, json.dumps({"released": str(amount)}).encode())


def _no_floats(text: str) -> None:
    raise AssertionError(f"decimals are strings, and {text} is none")


def port_of(request: HTTPServerRequest) -> int:
    """The client's end of the connection that a request came over."""
    return _ends_of(request)[0]


def _ends_of(request: HTTPServerRequest) -> tuple[int, int]:
    connection = request.connection
    assert isinstance(connection, HTTP1Connection)
    peer = connection.stream.socket
    return peer.getpeername()[1], peer.getsockname()[1]


class _Handler(RequestHandler):
    def initialize(self, service: AccountService) -> None:
        self._service = service
        self._gone = asyncio.Event()

    def on_connection_close(self) -> None:
        self._gone.set()

    async def get(self) -> None:
        request = self.request
        client, own = _ends_of(request)
        seen = Seen(request.method or "", request.uri or "", request.headers, request.body, client, own, self._gone)
        answer = await self._service.serve(seen)
        if not answer.status:
            self.detach().close()
            return
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        self.finish(answer.body or None)

    head = post = put = patch = delete = options = get


@asynccontextmanager
async def account_service(
    balances: dict[tuple[str, str], str] | None = None, price: str = "2"
) -> AsyncIterator[AccountService]:
    service = AccountService(balances or {}, price)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


class RawService:
    """Keeps the bytes of each request, answers each with the same bytes, and closes."""

    def __init__(self, reply: bytes, resets: bool = False) -> None:
        self.reply = reply
        self.resets = resets
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def head(self) -> list[str]:
        """The lines of the last request, without its body."""
        return self.requests[-1].partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case."""
        pairs = [line.partition(": ") for line in self.head[1:]]
        return [(name.lower(), value) for name, _, value in pairs]

    @property
    def body(self) -> bytes:
        return self.requests[-1].partition(b"\r\n\r\n")[2]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            for line in request.decode("latin-1").lower().split("\r\n"):
                if line.startswith("content-length: "):
                    request += await reader.readexactly(int(line.partition(": ")[2]))
            self.requests.append(request)
            writer.write(self.reply)
            await writer.drain()
            if self.resets:
                # With no time to linger, closing sends RST instead of FIN.
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_service(reply: bytes, resets: bool = False) -> AsyncIterator[RawService]:
    """`resets`: it ends the connection with a reset instead of a close."""
    service = RawService(reply, resets)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
        await server.wait_closed()
