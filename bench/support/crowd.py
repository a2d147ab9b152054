"""Many WebSocket clients in one process: one epoll, plain sockets, and of what they are sent only the frames' heads are read.

A client costs its socket and some hundred bytes; one frame two microseconds. They connect from several addresses of the
loopback, for each has only some 28,000 ports. The kernel sends what the gateway sees: nothing here waits for anybody.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

from bench.support.websocket import CLOSE, PING, PONG, TEXT, client_frame, upgrade

SOURCES = tuple(f"127.0.0.{number}" for number in range(1, 9))
# linux/in.h; Python names it from 3.12 on. Without it a port is taken from all destinations at once.
IP_BIND_ADDRESS_NO_PORT = 24
READ_BYTES = 1 << 16


class State(Enum):
    """How far a client is."""

    CONNECTING = "connecting"
    UPGRADING = "upgrading"
    OPEN = "open"
    GONE = "gone"


class Client:
    """One connection. `frames` counts the texts that came; `label` names its kind in what is told."""

    __slots__ = ("close_code", "frames", "greeting", "is_reading", "label", "payloads", "rest", "socket", "state")

    def __init__(self, connection: socket.socket, greeting: bytes, label: str) -> None:
        self.socket = connection
        self.greeting = greeting
        self.label = label
        self.state = State.CONNECTING
        self.is_reading = True
        self.frames = 0
        self.rest = b""
        self.close_code: int | None = None
        # Called with each text, if somebody wants to see them.
        self.payloads: Callable[[bytes], None] | None = None


class Crowd:
    """The clients, by the descriptors of their sockets. `turn` does what there is to do."""

    def __init__(self, port: int) -> None:
        """`port` of 127.0.0.1. Takes as many descriptors as the hard limit allows."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._port = port
        self._poll = select.epoll()
        self._number = 0
        self.clients: dict[int, Client] = {}
        self.connecting = 0
        self.open = 0
        self.frames = 0
        # The first line of the answer and its Retry-After, of who was not let in; how connections ended.
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def connect(
        self, greeting: bytes, label: str = "", path: str = "/ws?stream=none", receive_buffer: int = 0
    ) -> Client:
        """Begin a connection; `greeting`, frames, is sent as soon as it is open."""
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((SOURCES[self._number % len(SOURCES)], 0))
        self._number += 1
        connection.connect_ex(("127.0.0.1", self._port))
        client = Client(connection, greeting, label)
        client.rest = upgrade(self._port, path)
        self.clients[connection.fileno()] = client
        self.connecting += 1
        self._poll.register(connection.fileno(), select.EPOLLOUT)
        return client

    def turn(self, timeout_seconds: float) -> None:
        """Wait for something to come, at most so long, and take it."""
        for number, _events in self._poll.poll(timeout_seconds, 512):
            client = self.clients.get(number)
            if client is None:
                continue
            try:
                if client.state is State.CONNECTING:
                    self._begin(client)
                else:
                    data = client.socket.recv(READ_BYTES)
                    if data:
                        self._take(client, data)
                    else:
                        self._end(client, "end of stream")
            except BlockingIOError:
                continue
            except OSError as error:
                self._end(client, error.strerror or "error")

    def read(self, client: Client, most: int) -> int:
        """Of a client that was told to pause, take so many bytes at most; how many it were."""
        try:
            data = client.socket.recv(most)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._end(client, error.strerror or "error")
            return 0
        if data:
            self._take(client, data)
        else:
            self._end(client, "end of stream")
        return len(data)

    def pause(self, client: Client) -> None:
        """Read nothing more of what it is sent."""
        if client.is_reading and client.state is not State.GONE:
            client.is_reading = False
            self._poll.unregister(client.socket.fileno())

    def go_on(self, client: Client) -> None:
        """Read again."""
        if not client.is_reading and client.state is not State.GONE:
            client.is_reading = True
            self._poll.register(client.socket.fileno(), select.EPOLLIN)

    def pong(self, client: Client) -> None:
        """Tell the gateway that somebody is there, unasked (RFC 6455 section 5.5.3): the pings are not read."""
        if client.state is State.OPEN:
            try:
                client.socket.send(client_frame(PONG, b""))
            except OSError:
                pass  # it has been ended; that is seen when it is read

    def leave(self, client: Client, *, politely: bool) -> None:
        """End a connection: with a Close frame, whose answer is not awaited, or without a word."""
        if client.state is State.OPEN and politely:
            try:
                client.socket.send(client_frame(CLOSE, b"\x03\xe8"))
            except OSError:
                pass  # it has ended by itself meanwhile
        self._end(client, "left")

    def leave_all(self) -> None:
        """End all of them, each second one politely."""
        for number, client in enumerate(tuple(self.clients.values())):
            self.leave(client, politely=number % 2 == 0)

    def _begin(self, client: Client) -> None:
        if error := client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "no connection")
        client.socket.send(client.rest)
        client.rest = b""
        client.state = State.UPGRADING
        self._poll.modify(client.socket.fileno(), select.EPOLLIN)

    def _take(self, client: Client, data: bytes) -> None:
        if client.rest:
            data = client.rest + data
            client.rest = b""
        if client.state is State.UPGRADING:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                client.rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._refuse(client, head.decode("latin-1"))
                return
            client.state = State.OPEN
            self.connecting -= 1
            self.open += 1
            if client.greeting:
                client.socket.send(client.greeting)
        at, end = 0, len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start], "big")
            if end < start + size:
                break
            opcode = data[at] & 0x0F
            at = start + size
            if opcode == TEXT:
                client.frames += 1
                self.frames += 1
                if client.payloads is not None:
                    client.payloads(data[start:at])
            elif opcode == PING:
                client.socket.send(client_frame(PONG, data[start:at]))
            elif opcode == CLOSE:
                client.close_code = int.from_bytes(data[start : start + 2], "big")
                client.socket.send(client_frame(CLOSE, data[start : start + 2]))
                self._end(client, f"closed {client.close_code}")
                return
        if at < end:
            client.rest = data[at:]

    def _refuse(self, client: Client, head: str) -> None:
        first, *lines = head.split("\r\n")
        retry = [line for line in lines if line.lower().startswith("retry-after:")]
        self.refused[" ".join([first, *retry])] += 1
        self._end(client, "refused")

    def _end(self, client: Client, how: str) -> None:
        if client.state is State.GONE:
            return
        if client.state is State.OPEN:
            self.open -= 1
        else:
            self.connecting -= 1
        client.state = State.GONE
        self.ended[f"{client.label} {how}".strip()] += 1
        del self.clients[client.socket.fileno()]
        client.socket.close()


def paced(rate: float, most: int) -> Callable[[], int]:
    """How many are due now, at `rate` a second from the first call on and `most` in all."""
    started: list[float] = []
    given = 0

    def due() -> int:
        nonlocal given
        now = time.monotonic()
        if not started:
            started.append(now)
        more = min(most, int((now - started[0]) * rate)) - given
        given += more
        return more

    return due
