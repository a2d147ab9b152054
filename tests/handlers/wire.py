"""A client that writes its own bytes, and a server inside the test's loop."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tornado.netutil import bind_sockets

from handlers.acceptor import Listener
from handlers.bodies import Application, NotFoundHandler
from handlers.http_connection import Server
from handlers.problems import Context

MASK = b"\x37\xfa\x21\x3d"
CLOSE, PING, PONG, TEXT, BINARY, CONTINUATION = 0x8, 0x9, 0xA, 0x1, 0x2, 0x0
FINAL = 0x80
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}


@asynccontextmanager
async def serving(
    context: Context, routes: Sequence[Any], *, tls: ssl.SSLContext | None = None, most: int = 1_000_000
) -> AsyncIterator[int]:
    """Serve the routes as `gateway.py` does; gives the port."""
    application = Application(
        list(routes),
        default_handler_class=NotFoundHandler,
        default_handler_args={"context": context},
        log_function=lambda _handler: None,
    )
    server = Server(application, max_body_size=1 << 50)
    [socket] = bind_sockets(0, "127.0.0.1")
    listener = Listener(
        server,
        most=most,
        clients=lambda: 0,
        on_refused=lambda slug: context.metrics.refusals.labels(slug).inc(),
        tls=None if tls is None else lambda: tls,
    )
    listener.accept_on([socket])
    try:
        yield socket.getsockname()[1]
    finally:
        listener.close()
        await server.close_all_connections()


@dataclass
class Response:
    """Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One TCP connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, has_body: bool = True) -> Response:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        headers = {}
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        size = int(headers.get("content-length", 0)) if has_body else 0
        return Response(int(head[0].split()[1]), headers, await self.reader.readexactly(size))

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        """One request; `Content_Type="x"` is the header Content-Type. A body gets its Content-Length."""
        given = {"Host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            given.setdefault("Content-Length", str(len(body)))
        await self.send(request(method, path, given) + (body or b""))
        return await self.response(has_body=method != "HEAD")

    async def upgrade(self, path: str = "/ws", **headers: str) -> None:
        """Become a WebSocket."""
        answer = await self.ask("GET", path, **UPGRADE, **headers)
        assert answer.status == 101
        # RFC 6455 section 1.3 has this key and its answer.
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    async def say(self, *messages: object) -> None:
        """Send messages in one write, each in a frame of its own."""
        texts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in messages]
        await self.send(b"".join(map(client_frame, texts)))

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame, which has to be whole. Raises `IncompleteReadError` at the end."""
        first, size = await self.reader.readexactly(2)
        assert first & 0xF0 == FINAL
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def message(self) -> dict[str, Any]:
        opcode, payload = await self.frame()
        assert opcode == TEXT
        message: dict[str, Any] = json.loads(payload)
        return message

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the Close frame that has to come next."""
        opcode, payload = await self.frame()
        assert opcode == CLOSE
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


def request(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def masked(payload: bytes) -> bytes:
    size = len(payload)
    mask = (MASK * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def header(first: int, size: int) -> bytes:
    """A client's frame header with its mask."""
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([first]) + length + MASK


def client_frame(payload: bytes, first: int = FINAL | TEXT) -> bytes:
    return header(first, len(payload)) + masked(payload)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came about")
