"""Clients that see what is on the wire: a WebSocket one that hides nothing, an HTTP one, and events as engines write them.

Everything is synchronous and waits on a socket or a condition with a deadline, never for a time.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import select
import socket
import string
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.support.gateway import REPOSITORY, Answer, GatewayProcess
from tests.support.kafka import Bus, Record
from tools.kafka.cluster import quiet_client

ROOT = REPOSITORY
# Generous: the machine may be busy, and who waits for a condition does not pay for it.
DEADLINE_SECONDS = 60.0

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

_serial = iter(range(1_000_000))


def fresh_symbol(base: str = "T") -> str:
    """A symbol that no other test uses, so that tests share a gateway and its topics."""
    return f"{base}{next(_serial)}-{uuid.uuid4().hex[:8]}/EUR"


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """What `condition` returns once it is true; AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        pause.wait(0.01)
    return found


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def without_proxy(address: str) -> tuple[str, int]:
    """Host and port of `http://host:port`."""
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    return host, int(port)


# WebSocket.


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
    ) -> None:
        """Connect and upgrade. Raises `Refused`.

        `receive_buffer`: bytes that the kernel takes for us while we do not read; 0 leaves it alone, which is megabytes.
        """
        self._timeout = timeout
        self._answer_pings = answer_pings
        self.pings = 0
        host, port = without_proxy(address)
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            # Only what is set before the connection is made limits the window that the peer is offered.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, port))
        self._buffer = bytearray()
        given = {
            "Host": f"{host}:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        response = http.client.HTTPResponse(_Unread(self))  # type: ignore[arg-type]
        response.begin()
        if response.status != 101:
            answer = Answer(response.status, response.msg, response.read())
            self.socket.close()
            raise Refused(answer)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def _fill(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.socket], [], [], left)[0]:
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
        inside["trades"] or inside["bid_changes"] or inside["ask_changes"] or "snapshot" in inside
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
        if inside == {"stale": True}:
            self.kinds.append("stale")
            return
        is_snapshot = inside.get("snapshot", False)
        assert is_snapshot or (self.kinds and self.kinds[-1] != "stale"), f"changes of nothing: {told}"
        self.kinds.append("conflated" if "conflated" in inside else "snapshot" if is_snapshot else "changes")
        if is_snapshot:
            assert inside["trades"] == []
            self.bid, self.ask = {}, {}
        self.trades += inside["trades"]
        for side, levels in (("bid", self.bid), ("ask", self.ask)):
            for price, old, new in inside[f"{side}_changes"]:
                assert levels.get(price, 0) == old != new, (
                    f"{side} {price}: {old} -> {new}, held {levels.get(price, 0)}"
                )
                levels[price] = new
                if not new:
                    del levels[price]

    def levels(self) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        """Bids and asks, best first."""
        return sorted(self.bid.items(), reverse=True), sorted(self.ask.items())


# Market events as engines write them.


def dump(event: object) -> bytes:
    """Compact JSON."""
    return json.dumps(event, separators=(",", ":")).encode()


def fill(symbol: str, /, **more: object) -> bytes:
    """A fill; `more` replaces and adds members."""
    return dump(
        {
            "type": "fill",
            "symbol": symbol,
            "buy_order_id": str(uuid.uuid4()),
            "sell_order_id": str(uuid.uuid4()),
            "price": "10.10",
            "quantity": "0.500",
            "timestamp": 1_700_000_000_000,
            **more,
        }
    )


def snapshot(symbol: str, sequence: int = 1, /, **more: object) -> bytes:
    """A book of one level a side."""
    return dump(
        {
            "type": "orderbook_snapshot",
            "symbol": symbol,
            "sequence": sequence,
            "bids": [{"price": "10.00", "quantity": "1.50"}],
            "asks": [{"price": "10.20", "quantity": "2"}],
            **more,
        }
    )


def delta(symbol: str, sequence: int, *changes: tuple[str, str, str, str]) -> bytes:
    """A delta of (action, side, price, quantity)."""
    names = ("action", "side", "price", "quantity")
    return dump(
        {
            "type": "orderbook_delta",
            "symbol": symbol,
            "sequence": sequence,
            "deltas": [dict(zip(names, change, strict=True)) for change in changes],
        }
    )


@dataclass
class Engine:
    """Random events of some symbols, written as differently as JSON allows. Repeatable by its seed.

    `public` has, for each symbol, the records that clients may see, in order.
    """

    random: random.Random
    symbols: list[str]
    public: dict[str, list[bytes]] = field(default_factory=dict)
    _sequence: int = 0

    def records(self, count: int) -> Iterator[tuple[str, bytes]]:
        """(symbol, record): first a snapshot of each symbol, then anything."""
        for symbol in self.symbols:
            self.public[symbol] = []
        for number in range(count):
            is_first = number < len(self.symbols)
            symbol = self.symbols[number] if is_first else self.random.choice(self.symbols)
            kinds = (
                [self._snapshot] if is_first else [self._fill, self._delta, self._snapshot, self._private, self._odd]
            )
            make = self.random.choices(kinds, [1] if is_first else [40, 40, 2, 12, 6])[0]
            members = make(symbol)
            is_public = make not in (self._private, self._odd)
            if self.random.random() < 0.2:
                members["user_id"] = self._word()
            record = self._write(members).encode()
            if is_public:
                self.public[symbol].append(record)
            yield symbol, record

    def _price(self, side: str) -> object:
        # Bids stay below 100 and asks above, so that no book is ever crossed.
        whole = self.random.randint(1, 99) if side == "bid" else self.random.randint(101, 999)
        return self._number(f"{whole}.{self.random.randint(0, 999):03d}")

    def _number(self, digits: str) -> object:
        return Raw(digits) if self.random.random() < 0.3 else digits

    def _quantity(self) -> object:
        return self._number(f"{self.random.randint(1, 999)}.{'0' * self.random.randint(1, 20)}1")

    def _step(self) -> int:
        self._sequence += self.random.randint(1, 5)
        return self._sequence

    def _word(self) -> str:
        alphabet = string.ascii_letters + '/\\"éß漢🙂\u2028\t\x7f'
        return "".join(self.random.choices(alphabet, k=self.random.randint(1, 12)))

    def _fill(self, symbol: str) -> dict[str, object]:
        members: dict[str, object] = {
            "type": "fill",
            "symbol": symbol,
            "buy_order_id": self.random.randint(1, 10**9) if self.random.random() < 0.3 else str(uuid.uuid4()),
            "sell_order_id": str(uuid.uuid4()),
            "price": self._price("bid"),
            "quantity": self._quantity(),
            "timestamp": 1_700_000_000_000 + self._step(),
        }
        if self.random.random() < 0.5:
            members["taker_side"] = self.random.choice(["bid", "ask"])
        return members

    def _levels(self, side: str) -> list[object]:
        return [{"price": self._price(side), "quantity": self._quantity()} for _ in range(self.random.randint(0, 8))]

    def _snapshot(self, symbol: str) -> dict[str, object]:
        return {
            "type": "orderbook_snapshot",
            "symbol": symbol,
            "sequence": self._step(),
            "bids": self._levels("bid"),
            "asks": self._levels("ask"),
        }

    def _delta(self, symbol: str) -> dict[str, object]:
        changes: list[object] = []
        for _ in range(self.random.randint(0, 4)):
            side = self.random.choice(["bid", "ask"])
            action = self.random.choice(["add", "update", "remove"])
            changes.append({"action": action, "side": side, "price": self._price(side), "quantity": self._quantity()})
        return {"type": "orderbook_delta", "symbol": symbol, "sequence": self._step(), "deltas": changes}

    def _private(self, symbol: str) -> dict[str, object]:
        kind = self.random.choice(["order_accepted", "order_filled", "order_cancelled", "order_rejected"])
        return {
            "type": kind,
            "order_id": str(uuid.uuid4()),
            "symbol": symbol,
            "side": "bid",
            "order_type": "limit",
            "price": "1",
            "quantity": "1",
            "filled_quantity": "0",
            "reason": "no",
            "user_id": "trader",
        }

    def _odd(self, symbol: str) -> dict[str, object]:
        return {"type": self.random.choice(["settlement", "Fill", "heartbeat", ""]), "symbol": symbol}

    def _write(self, members: dict[str, object]) -> str:
        items = [*members.items(), *((self._word() + "_", self._word()) for _ in range(self.random.randint(0, 2)))]
        self.random.shuffle(items)
        return self._space() + self._object(items) + self._space()

    def _space(self) -> str:
        return "".join(self.random.choices(" \t\n\r", k=self.random.choice([0, 0, 0, 1, 3])))

    def _object(self, items: Iterable[tuple[str, object]]) -> str:
        written = [
            f"{self._space()}{self._text(name)}{self._space()}:{self._space()}{self._value(value)}{self._space()}"
            for name, value in items
        ]
        return "{" + ",".join(written) + "}"

    def _value(self, value: object) -> str:
        if isinstance(value, Raw):
            return value.text
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return "[" + ",".join(f"{self._space()}{self._value(one)}{self._space()}" for one in value) + "]"
        if isinstance(value, dict):
            return self._object(value.items())
        return json.dumps(value)

    def _text(self, text: str) -> str:
        written = json.dumps(text, ensure_ascii=self.random.random() < 0.5)
        return written.replace("/", "\\/") if self.random.random() < 0.3 else written


@dataclass(frozen=True)
class Raw:
    """A number as it is to be written."""

    text: str


def shown(record: bytes) -> Any:
    """What a client may see of a record, by value: without `user_id`, every digit as it was written."""
    members = notification(record)
    members.pop("user_id", None)
    return members


# The bus and the processes on it.


class Market:
    """A market topic and an order topic, written to and read by a test. Can be given to a gateway as its bus."""

    def __init__(self, bootstrap: str, topic: str, order_topic: str, *, embedded: bool) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self.order_topic = order_topic
        self.embedded = embedded
        # The embedded cluster hands out one batch a fetch: without lingering each record is one.
        self._producer = Producer(
            {**quiet_client(bootstrap), "linger.ms": 5 if embedded else 0, "acks": "all", "enable.idempotence": True}
        )
        self._consumer: Consumer | None = None
        self._next: dict[int, int] = {}
        self._orders: list[Record] = []
        self.partitions = len(self._producer.list_topics(topic, timeout=DEADLINE_SECONDS).topics[topic].partitions)

    @classmethod
    def create(cls, bus: Bus) -> Market:
        """Fresh topics on a bus."""
        return cls(
            bus.bootstrap,
            bus.new_topic("market-events"),
            bus.new_topic("order-commands"),
            embedded=bus.flavour == "embedded",
        )

    def publish(self, symbol: str, *records: bytes, timestamp_ms: int = 0) -> list[tuple[int, int]]:
        """Write market events keyed by their symbol; (partition, offset) of each, once the bus has them all."""
        return self._write([(symbol, record, -1) for record in records], timestamp_ms)

    def publish_all(self, records: Iterable[tuple[str, bytes]]) -> list[tuple[int, int]]:
        """The same for records of several symbols."""
        return self._write([(symbol, record, -1) for symbol, record in records], 0)

    def publish_to(self, *records: tuple[int, bytes | None]) -> list[int]:
        """Write records without a key to the partition given with each; their offsets."""
        return [offset for _, offset in self._write([(None, record, partition) for partition, record in records], 0)]

    def publish_orders(self, symbol: str, *records: bytes, timestamp_ms: int = 0) -> list[tuple[int, int]]:
        """Write order commands keyed by their symbol, as another gateway does."""
        return self._write([(symbol, record, -1) for record in records], timestamp_ms, self.order_topic)

    def _write(
        self, records: list[tuple[str | None, bytes | None, int]], timestamp_ms: int, topic: str | None = None
    ) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = []
        errors: list[KafkaError] = []

        def on_delivery(number: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error)
            partition, offset = message.partition(), message.offset()
            places[number] = (-1 if partition is None else partition, -1 if offset is None else offset)

        for number, (key, value, partition) in enumerate(records):
            places.append((-1, -1))
            self._producer.produce(
                topic or self.topic, value, key, partition, partial(on_delivery, number), timestamp=timestamp_ms
            )
            if number % 1000 == 999:
                self._producer.poll(0)
        left = self._producer.flush(DEADLINE_SECONDS)
        assert not errors and not left, f"not written: {errors[:1]}, {left} left"
        return places

    def orders(self) -> list[Record]:
        """Every record that is on the order topic now; of one partition in its order."""
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    **quiet_client(self.bootstrap),
                    "group.id": "reader",
                    "enable.auto.commit": False,
                    "fetch.wait.max.ms": 5,
                    "auto.offset.reset": "error",
                }
            )
            metadata = self._consumer.list_topics(self.order_topic, timeout=DEADLINE_SECONDS)
            self._next = dict.fromkeys(metadata.topics[self.order_topic].partitions, 0)
            self._consumer.assign([TopicPartition(self.order_topic, number, 0) for number in self._next])
        ends = {number: self._end(self._consumer, number) for number in self._next}
        deadline = time.monotonic() + DEADLINE_SECONDS
        while any(self._next[number] < end for number, end in ends.items()):
            assert time.monotonic() < deadline, f"read up to {self._next} of {ends}"
            for message in self._consumer.consume(1000, 0.1):
                partition, offset = message.partition(), message.offset()
                if message.error() is None and partition is not None and offset is not None:
                    self._next[partition] = offset + 1
                    self._orders.append(Record(partition, offset, message.key(), message.value()))
        return self._orders

    def _end(self, consumer: Consumer, number: int) -> int:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                return consumer.get_watermark_offsets(TopicPartition(self.order_topic, number), DEADLINE_SECONDS)[1]
            except KafkaException:
                # A broker that was frozen or dead a moment ago may not lead its partitions yet.
                if time.monotonic() > deadline:
                    raise

    def orders_of(self, symbol: str) -> list[Record]:
        """The order commands with this key."""
        return [record for record in self.orders() if record.key == symbol.encode()]

    def commands_of(self, symbol: str) -> list[dict[str, Any]]:
        """Their values."""
        return [json.loads(record.value or b"") for record in self.orders_of(symbol)]

    def reopened(self) -> Market:
        """The same topics through new clients: a producer does not follow a topic that was made again."""
        return Market(self.bootstrap, self.topic, self.order_topic, embedded=self.embedded)

    def close(self) -> None:
        """Let go of the bus."""
        if self._consumer is not None:
            self._consumer.close()


class Gateway(GatewayProcess):
    """A gateway process, with what these tests ask of it."""

    @classmethod
    @contextmanager
    def on(
        cls,
        market: Market | None,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        brokers: str | None = None,
        wait: bool = True,
        files: int | None = None,
    ) -> Iterator[Gateway]:
        """One on this market, ready unless told not to `wait`; `brokers` stands in for the market's. Ends at once."""
        given: dict[str, Any] = {"drain_seconds": 0, **(settings or {})}
        kafka: dict[str, Any] = {**given.get("kafka", {})}
        if brokers is not None:
            kafka["brokers"] = brokers
        if market is not None and market.embedded:
            # Its groups take almost a session's length to form, each time.
            kafka.setdefault("consume", "broadcast")
        given["kafka"] = kafka
        gateway = cls(given, environ, bus=market, files=files)
        with gateway:
            if wait:
                gateway.wait_ready(DEADLINE_SECONDS)
            yield gateway

    @property
    def address(self) -> str:
        """`http://host:port`."""
        return self.url

    def health(self) -> dict[str, Any]:
        """The body of /health."""
        answer = self.get("/health")
        assert answer.status == 200
        return dict(answer.json())

    def clients(self) -> int:
        """Open WebSocket connections."""
        return int(self.health()["clients"])

    def metric(self, name: str, /, **labels: str) -> float:
        """A metric's value; 0 where it is not there yet."""
        wanted = set(labels.items())
        for line in self.get("/metrics").body.decode().splitlines():
            left, _, value = line.rpartition(" ")
            found, _, inside = left.partition("{")
            pairs = (pair.partition("=") for pair in inside.rstrip("}").split(",") if pair)
            if found == name and wanted <= {(label, text.strip('"')) for label, _, text in pairs}:
                return float(value)
        return 0.0

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
        """What `condition` returns once it is true; AssertionError with the log after the deadline."""
        try:
            return wait_until(condition, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None


@contextmanager
def exchange_on(market: Market) -> Iterator[subprocess.Popen[str]]:
    """`python -m exchange`, engine only, ready to execute what is on the market's order topic from now on."""
    topics = ["--brokers", market.bootstrap, "--topic", market.topic, "--order-topic", market.order_topic]
    process = subprocess.Popen(
        [sys.executable, "-m", "exchange", "--no-traders", "--until-stdin-closes", *topics],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None and process.stdin is not None
            readable, _, _ = select.select([process.stdout], [], [], DEADLINE_SECONDS)
            assert readable and "ready" in process.stdout.readline(), "the exchange did not begin"
            yield process
            process.stdin.close()
            process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
