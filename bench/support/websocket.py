"""A WebSocket client on a plain blocking socket, and the frames of all clients of the benches (RFC 6455).

Nothing but the socket, so that what is measured is the gateway.
"""

from __future__ import annotations

import json
import select
import socket
import time
from typing import Any

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
CONNECT_SECONDS = 30.0


class Ended(Exception):
    """The gateway ended the connection, or did not let it in, and how."""


def upgrade(port: int, path: str, token: str = "") -> bytes:
    """The request that makes a connection a WebSocket; with a token it is that user's."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{authorization}\r\n"
    ).encode()


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame of a client, of 65,535 bytes at most; a mask of zeros leaves the payload as it is (section 5.3)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size, 0, 0, 0, 0)) + payload
    return bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big") + bytes(4) + payload


def take_frame(waiting: bytearray) -> tuple[int, bytes] | None:
    """The first whole frame of a server, taken off `waiting`: its opcode and payload; None if there is none yet."""
    if len(waiting) < 2:
        return None
    size, start = waiting[1] & 0x7F, 2
    if size >= 126:
        start = 4 if size == 126 else 10
        if len(waiting) < start:
            return None
        size = int.from_bytes(waiting[2:start], "big")
    if len(waiting) < start + size:
        return None
    frame = waiting[0] & 0x0F, bytes(waiting[start : start + size])
    del waiting[: start + size]
    return frame


def connect(port: int, path: str, token: str = "") -> tuple[socket.socket, bytearray]:
    """An upgraded connection, and what has come behind the answer. Raises `Ended` and OSError."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(upgrade(port, path, token))
    waiting = bytearray()
    while b"\r\n\r\n" not in waiting:
        data = connection.recv(65536)
        if not data:
            break
        waiting += data
    head, _, rest = waiting.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        raise Ended(head.partition(b"\r\n")[0].decode() or "end of stream")
    return connection, rest


class Stream:
    """A client that is silent until it subscribes; it sees every text and answers pings."""

    def __init__(self, port: int, token: str = "") -> None:
        """With a token the connection is that user's. Raises `Ended`."""
        self._socket, self._waiting = connect(port, "/ws?stream=none", token)

    def send(self, message: object) -> None:
        """One JSON text."""
        self._socket.sendall(client_frame(TEXT, json.dumps(message).encode()))

    def texts(self, seconds: float) -> list[bytes]:
        """What has come; waits for something at most so long. Raises `Ended` and OSError."""
        deadline = time.monotonic() + seconds
        texts: list[bytes] = []
        while True:
            while (frame := take_frame(self._waiting)) is not None:
                opcode, payload = frame
                if opcode == TEXT:
                    texts.append(payload)
                elif opcode == PING:
                    self._socket.sendall(client_frame(PONG, payload))
                elif opcode == CLOSE:
                    raise Ended(f"closed {int.from_bytes(payload[:2], 'big')}")
            left = deadline - time.monotonic()
            if texts or left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return texts
            data = self._socket.recv(1 << 18)
            if not data:
                raise Ended("end of stream")
            self._waiting += data

    def call(self, method: str, params: object, seconds: float = 30.0) -> tuple[dict[str, Any], list[bytes]]:
        """The answer, and the texts before and behind it that came with it. Raises `Ended` and TimeoutError."""
        self.send({"id": "call", "method": method, "params": params})
        deadline = time.monotonic() + seconds
        others: list[bytes] = []
        while True:
            answer = None
            for text in self.texts(deadline - time.monotonic()):
                if answer is None and text.startswith(b'{"id":"call"'):
                    answer = json.loads(text)
                else:
                    others.append(text)
            if answer is not None:
                return answer, others
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{method} was not answered within {seconds:g} s")

    def close(self) -> None:
        """Without a word."""
        self._socket.close()
