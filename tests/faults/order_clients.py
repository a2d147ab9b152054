"""Connections of traders' programs on asyncio, as cheap as it goes: what they cost, the gateway under test lacks."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Lost(Exception):
    """The connection ended before the answer came, or could not be made (then nothing was sent)."""


@contextmanager
def whose_fault() -> Iterator[None]:
    """Whatever ends a connection is told as `Lost`."""
    try:
        yield
    except (OSError, EOFError, asyncio.IncompleteReadError) as error:
        raise Lost(str(error)) from error


class RestClient:
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_open(self) -> bool:
        """Not so once the server has closed it, as far as that is known."""
        return self._streams is not None and not self._streams[0].at_eof()

    async def connect(self, port: int) -> None:
        """Raises `Lost`."""
        self.close()
        with whose_fault():
            self._streams = await asyncio.open_connection("127.0.0.1", port)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def request(self, method: str, path: str, bearer: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON. Raises `Lost`."""
        assert self._streams is not None
        reader, writer = self._streams
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {bearer}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        with whose_fault():
            writer.write(head.encode() + data)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(answer.lower().partition("content-length: ")[2].partition("\r\n")[0])
            return int(answer.split(" ", 2)[1]), json.loads(await reader.readexactly(length))


class SocketClient:
    """One WebSocket connection of one user, signed in by its header; any number of requests at a time."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 0
        self.close_code: int | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    async def connect(self, port: int, bearer: str) -> None:
        """Raises `Lost`."""
        with whose_fault():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await self._upgrade(reader, writer, bearer)
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        self._reading = asyncio.get_running_loop().create_task(self._read(reader, writer))

    @staticmethod
    async def _upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bearer: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        with whose_fault():
            writer.write(
                f"GET /ws?stream=none HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise Lost(head.decode())

    async def call(self, method: str, params: object) -> dict[str, Any]:
        """The answer. Raises `Lost`."""
        if self._writer is None:
            raise Lost("closed")
        self._next_id += 1
        number = self._next_id
        future: asyncio.Future[dict[str, Any]]
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(self._writer, 0x1, json.dumps({"id": number, "method": method, "params": params}).encode())
            return await future
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._end()
        if self._reading is not None:
            await self._reading

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Lost("the connection ended"))
        self._waiting.clear()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, opcode: int, payload: bytes) -> None:
        size = len(payload)
        head = bytes([0x80 | opcode, 0x80 | size]) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
        # A mask of zeros is one too (RFC 6455, section 5.3), and leaves the payload as it is.
        writer.write(head + bytes(4) + payload)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with whose_fault():
                while True:
                    first, size = await reader.readexactly(2)
                    if size == 126:
                        (size,) = struct.unpack("!H", await reader.readexactly(2))
                    elif size == 127:
                        (size,) = struct.unpack("!Q", await reader.readexactly(8))
                    payload = await reader.readexactly(size)
                    if first == 0x81:
                        self._take(json.loads(payload))
                    elif first == 0x89:
                        self._send(writer, 0xA, payload)
                    elif first == 0x88:
                        (self.close_code,) = struct.unpack("!H", payload[:2])
                        self._send(writer, 0x8, payload[:2])
                        break
        except Lost:
            pass
        if self._writer is writer:
            self._end()

    def _take(self, message: dict[str, Any]) -> None:
        future = self._waiting.get(message.get("id", 0))
        if future is not None and not future.done():
            future.set_result(message)
