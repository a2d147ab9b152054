"""One WebSocket client of the soak, on a plain blocking socket: it sees every text and answers pings."""

from __future__ import annotations

import json
import select
import socket
import time
from typing import Any

from bench.latency.stream_client import REQUEST, take_frame
from bench.support.crowd import CLOSE, PING, PONG, TEXT, client_frame


class Ended(Exception):
    """The gateway ended the connection, and how."""


class Stream:
    """Connected and upgraded when made; silent until it subscribes."""

    def __init__(self, port: int, token: str = "") -> None:
        """With a token the connection is that user's. Raises `Ended`."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = REQUEST.format(port=port).replace("GET /ws ", "GET /ws?stream=none ")
        if token:
            request = request.removesuffix("\r\n") + f"Authorization: Bearer {token}\r\n\r\n"
        self._socket.sendall(request.encode())
        self._waiting = bytearray()
        while b"\r\n\r\n" not in self._waiting:
            self._fill()
        head, _, rest = self._waiting.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise Ended(head.partition(b"\r\n")[0].decode())
        self._waiting = bytearray(rest)

    def _fill(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise Ended("end of stream")
        self._waiting += data

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
            self._fill()

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
