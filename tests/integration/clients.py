"""Clients that see what is on the wire: a WebSocket one that hides nothing, and what it makes of messages.

Everything is synchronous and waits on a socket with a deadline, never for a time.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.integration.waiting import DEADLINE_SECONDS
from tests.support.gateway import Answer

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

_serial = iter(range(1_000_000))


def without_proxy(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, with http:// or https:// before it or without."""
    host, _, port = address.rpartition("//")[2].rstrip("/").rpartition(":")
    return host, int(port)


class Closed(Exception):
    """The server ended the connection: with a Close frame (its code), or without one (None)."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"closed: {code} {reason!r}")


class Refused(Exception):
    """The upgrade was answered with something else than 101."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(f"{answer.status} {answer.body!r}")


class WebSocket:
    """One connection, frame by frame. Pings are answered while it is read."""

    def __init__(
        self,
        address: str,
        path: str = "/ws",
        headers: Mapping[str, str] | None = None,
        *,
        answer_pings: bool = True,
        timeout: float = DEADLINE_SECONDS,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        source: str = "",
    ) -> None:
        """Connect and upgrade. Raises `Refused`.

        `source`: the address that it connects from. `receive_buffer`: bytes that the kernel takes for us while we do not read; 0 leaves it alone, which is megabytes.
        """
        self._timeout = timeout
        self._answer_pings = answer_pings
        self._tls = tls
        self.pings = 0
        host, port = without_proxy(address)
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            # Only what is set before the connection is made limits the window that the peer is offered.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self._buffer = bytearray()
        try:
            self._upgrade(host, port, path, headers or {})
        except BaseException:
            self.socket.close()  # the caller gets nothing that it could close
            raise

    def _upgrade(self, host: str, port: int, path: str, headers: Mapping[str, str]) -> None:
        self.socket.connect((host, port))
        if self._tls is not None:
            self.socket = self._tls.wrap_socket(self.socket, server_hostname=host)
        given = {
            "Host": f"{host}:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            **headers,
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        response = http.client.HTTPResponse(_Unread(self))  # type: ignore[arg-type]
        response.begin()
        if response.status != 101:
            raise Refused(Answer(response.status, response.msg, response.read()))

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def _fill(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        is_here = isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()
        if left <= 0 or not (is_here or select.select([self.socket], [], [], left)[0]):
            raise AssertionError(f"nothing more came within the deadline ({bytes(self._buffer[:80])!r} is there)")
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError as error:
            raise Closed(None, str(error)) from error
        if not data:
            raise Closed(None, "end of stream")
        self._buffer += data

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._fill(deadline)
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def frame(self, timeout: float | None = None) -> tuple[int, bytes]:
        """The next frame, whatever it is: opcode and payload. The server's are whole and unmasked."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        first, second = self._take(2, deadline)
        assert first & 0xF0 == 0x80, f"fragmented, or with reserved bits: {first:#x}"
        assert not second & 0x80, "a server's frames are not masked"
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2, deadline))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8, deadline))
        return first & 0x0F, self._take(size, deadline)

    def receive(self, timeout: float | None = None) -> bytes:
        """The next text message. Raises `Closed`; AssertionError at the deadline."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while True:
            opcode, payload = self.frame(deadline - time.monotonic())
            if opcode == TEXT:
                return payload
            if opcode == PING:
                self.pings += 1
                if self._answer_pings:
                    self.send_frame(PONG, payload)
            elif opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                with contextlib.suppress(OSError):
                    self.send_frame(CLOSE, payload[:2])
                raise Closed(code, payload[2:].decode())
            else:
                assert opcode == PONG, f"opcode {opcode}"

    def receive_until(self, is_last: Callable[[bytes], bool], timeout: float | None = None) -> list[bytes]:
        """Messages up to and with the first one that is the last."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        messages: list[bytes] = []
        while not messages or not is_last(messages[-1]):
            messages.append(self.receive(deadline - time.monotonic()))
        return messages

    def news(self) -> dict[str, Any]:
        """The next message that is not about whether the stream is live; its JSON."""
        while True:
            message: dict[str, Any] = json.loads(self.receive())
            if message.get("type") != "stream_status":
                return message

    def receive_close(self, timeout: float | None = None) -> Closed:
        """How the connection ends; messages before that are dropped."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while True:
            try:
                self.receive(deadline - time.monotonic())
            except Closed as closed:
                return closed

    def send_frame(self, opcode: int, payload: bytes, *, final: bool = True) -> None:
        """One masked frame."""
        size = len(payload)
        head = bytes([opcode | (0x80 if final else 0)])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65_536:
            head += struct.pack("!BH", 0x80 | 126, size)
        else:
            head += struct.pack("!BQ", 0x80 | 127, size)
        mask = os.urandom(4)
        key = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
        self.socket.sendall(head + mask + masked)

    def send(self, message: object) -> None:
        """A text message: str and bytes as they are, anything else as JSON."""
        text = message if isinstance(message, str | bytes) else json.dumps(message)
        self.send_frame(TEXT, text if isinstance(text, bytes) else text.encode())

    def call(self, method: str, params: object = None, request_id: object = None) -> tuple[Any, list[bytes]]:
        """The answer to a request, and the messages that came before it."""
        request_id = f"call-{next(_serial)}" if request_id is None else request_id
        message = {"id": request_id, "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)
        messages = self.receive_until(lambda text: json.loads(text).get("id") == request_id)
        return json.loads(messages[-1]), messages[:-1]

    def result(self, method: str, params: object = None) -> Any:
        """The result of a request whose answer comes next."""
        answer, before = self.call(method, params)
        assert not before, before
        return answer["result"]

    def subscribe(self, *channels: str, since: Mapping[str, object] | None = None) -> list[bytes]:
        """Subscribe; returns what came before the answer."""
        params: dict[str, object] = {"channels": list(channels)}
        if since is not None:
            params["since"] = since
        answer, before = self.call("public/subscribe", params)
        assert answer.get("result") == list(channels), answer
        return before

    def expect_silence(self) -> None:
        """Nothing was sent to us: the answer to a ping is the next message."""
        answer, before = self.call("public/ping")
        assert (before, answer.get("result")) == ([], "pong")


class _Unread:
    """The response of the upgrade read byte for byte, so that the frames behind it stay in the WebSocket's buffer."""

    def __init__(self, owner: WebSocket) -> None:
        self._owner = owner

    def makefile(self, *_arguments: object) -> _Unread:
        return self

    def readline(self, limit: int = -1) -> bytes:
        deadline = time.monotonic() + self._owner._timeout
        while (end := self._owner._buffer.find(b"\n")) < 0:
            self._owner._fill(deadline)
        return self._owner._take(end + 1, deadline)

    def read(self, count: int = -1) -> bytes:
        assert count >= 0, "a response without a length"
        return self._owner._take(count, time.monotonic() + self._owner._timeout)

    def readinto(self, target: Any) -> int:
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def frame_of(payload: bytes) -> bytes:
    """A masked text frame with a mask of zeros."""
    assert len(payload) < 65_536
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, 0x80 | len(payload)) + bytes(4) + payload
    return struct.pack("!BBH", 0x81, 0x80 | 126, len(payload)) + bytes(4) + payload


def notification(message: bytes) -> Any:
    """A message's JSON with all numbers as their text: what is compared is what is on the wire."""
    return json.loads(message, parse_float=str, parse_int=str)


def exact(message: bytes) -> Any:
    """A message's JSON with every digit of its fractions, to calculate with."""
    return json.loads(message, parse_float=Decimal)


def is_heartbeat(told: Mapping[str, Any]) -> bool:
    """Whether a message says that a book is alive and has nothing new."""
    inside = told.get("notification", {})
    return inside.keys() >= {"trades", "bid_changes"} and not (
        inside["trades"] or inside["bid_changes"] or inside["ask_changes"] or {"snapshot", "stale"} & inside.keys()
    )


def news(client: WebSocket, channel: str, timeout: float | None = None) -> Any:
    """The next message, which has to be of this channel; heartbeats, which busy machines bring on, are passed over."""
    while is_heartbeat(told := exact(client.receive(timeout))):
        pass
    assert told.get("channel_name") == channel, told
    return told


@dataclass
class ClientBook:
    """A book channel as its client keeps it. Strict: what is said to be held has to be what is held."""

    bid: dict[Decimal, Decimal] = field(default_factory=dict)
    ask: dict[Decimal, Decimal] = field(default_factory=dict)
    seq: int = -1
    trades: list[Any] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def apply(self, told: Mapping[str, Any]) -> None:
        """Take one message of the channel in."""
        assert told["seq"] >= self.seq, f"seq went back from {self.seq}: {told}"
        self.seq = told["seq"]
        inside = told["notification"]
        if inside.get("stale"):
            self.kinds.append("stale")
            return
        is_snapshot = inside.get("snapshot", False)
        assert is_snapshot or (self.kinds and self.kinds[-1] != "stale"), f"changes of nothing: {told}"
        self.kinds.append("conflated" if "conflated" in inside else "snapshot" if is_snapshot else "changes")
        held = {"bid": self.bid, "ask": self.ask}
        if is_snapshot:
            assert inside["trades"] == [] or self.kinds == ["snapshot"]
            self.bid, self.ask = {}, {}
        else:
            self.trades += inside["trades"]
        for side, levels in (("bid", self.bid), ("ask", self.ask)):
            gone = [(price, old) for price, old, new in inside[f"{side}_changes"] if is_snapshot and not new]
            for price, old, new in inside[f"{side}_changes"]:
                if (price, old) in gone:
                    assert held[side].get(price) == old, f"{side} {price} is gone, and was never held: {told}"
                    continue
                assert levels.get(price, 0) == old != new, (
                    f"{side} {price}: {old} -> {new}, held {levels.get(price, 0)}"
                )
                levels[price] = new
                if not new:
                    del levels[price]
            if is_snapshot:
                assert {price for price, _ in gone} == held[side].keys() - levels.keys(), (
                    f"not all that is gone: {told}"
                )

    def levels(self) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        """Bids and asks, best first."""
        return sorted(self.bid.items(), reverse=True), sorted(self.ask.items())
