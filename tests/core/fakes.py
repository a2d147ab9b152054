"""Hand-made stand-ins: a socket that takes what it is told to, frames read back, the engine's records, time that only
passes where somebody waits for it."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, TypeVar

from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.errors import CloseCode

T = TypeVar("T")

TEXT, PING = 0x1, 0x9


def read_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """(opcode, payload) of each whole server frame, and what is left. Fails on anything fragmented or masked."""
    frames = []
    position = 0
    while len(data) - position >= 2:
        first, second = data[position], data[position + 1]
        assert first & 0xF0 == 0x80, "a final frame without reserved bits"
        size, start = second, position + 2
        if second == 126:
            size, start = int.from_bytes(data[position + 2 : position + 4], "big"), position + 4
        elif second == 127:
            size, start = int.from_bytes(data[position + 2 : position + 10], "big"), position + 10
        else:
            assert second < 126, "servers do not mask"
        if start > len(data) or len(data) - start < size:
            break
        frames.append((first & 0x0F, data[start : start + size]))
        position = start + size
    return frames, data[position:]


class FakeTransport:
    """A socket with `room` bytes of kernel buffer, and before it a stream buffer like that of Tornado's IOStream.

    Who has spilled is called back when what was in the buffer at that time has gone, and only once the loop turns: a
    ping that came later may be in the buffer then.
    """

    def __init__(self, room: float = float("inf")) -> None:
        self.room = room
        self.wire = bytearray()
        self.sends: list[bytes] = []
        self.buffer = bytearray()
        self.broken = False
        self.on_drained: Callable[[], None] = lambda: None
        self.on_own_write: Callable[[], None] = lambda: None
        self.awaited: deque[int] = deque()
        self.acknowledged = 0
        self._buffered_total = 0
        self._flushed_total = 0

    def is_empty(self) -> bool:
        return not self.buffer

    def send(self, data: bytes) -> int:
        if self.broken:
            raise BrokenPipeError
        assert not self.buffer, "past what the stream still holds"
        if not self.room:
            raise BlockingIOError
        taken = int(min(self.room, len(data)))
        self.room -= taken
        self.wire += data[:taken]
        self.sends.append(data)
        return taken

    def sender(self) -> Callable[[bytes], int]:
        return self.send

    def spill(self, data: bytes | memoryview) -> None:
        self._buffer(data)
        self.awaited.append(self._buffered_total)

    def ping(self) -> None:
        """The transport's own: it may come at any time, and stands whole between what it meets."""
        self._buffer(b"\x89\x00")
        self.on_own_write()

    def _buffer(self, data: bytes | memoryview) -> None:
        self.buffer += data
        self._buffered_total += len(data)
        self.take(0)

    def moved(self) -> int:
        """Bytes that have left the stream's buffer, and acknowledged ones."""
        return self._flushed_total + self.acknowledged

    def take(self, size: float) -> None:
        """The peer reads: the kernel has room for `size` bytes more."""
        self.room += size
        taken = int(min(self.room, len(self.buffer)))
        self.room -= taken
        self.wire += self.buffer[:taken]
        del self.buffer[:taken]
        self._flushed_total += taken

    def turn(self) -> None:
        """One turn of the loop: call back who waits for what has gone."""
        due = 0
        while self.awaited and self.awaited[0] <= self._flushed_total:
            self.awaited.popleft()
            due += 1
        for _ in range(due):
            self.on_drained()

    def settle(self) -> None:
        """The peer reads all there is."""
        self.take(float("inf"))
        while self.awaited:
            self.turn()


class Client:
    """A subscriber, and what it got."""

    def __init__(self, max_bytes: int = 1 << 20, room: float = float("inf")) -> None:
        self.transport = FakeTransport(room)
        self.outbox = Outbox(self.transport, max_bytes)
        self.transport.on_drained = self.outbox.drained
        self.transport.on_own_write = self.outbox.others_wrote
        self.ends: list[tuple[CloseCode, str]] = []
        self.subscriber = Subscriber(self.outbox, self.end)
        self._read = 0

    def end(self, code: CloseCode, reason: str) -> None:
        self.ends.append((code, reason))

    def texts(self) -> list[bytes]:
        """Payloads of the text frames that arrived since the last call; each frame has to be whole."""
        frames, rest = read_frames(bytes(self.transport.wire[self._read :]))
        assert not rest
        self._read = len(self.transport.wire)
        return [payload for opcode, payload in frames if opcode == TEXT]

    def messages(self) -> list[dict[str, Any]]:
        """The same, read as JSON."""
        return [json.loads(text) for text in self.texts()]

    def exact_messages(self) -> list[dict[str, Any]]:
        """The messages of whole frames that arrived since the last call, with exact numbers."""
        frames, rest = read_frames(bytes(self.transport.wire[self._read :]))
        self._read = len(self.transport.wire) - len(rest)
        return [json.loads(text, parse_float=Decimal, parse_int=Decimal) for opcode, text in frames if opcode == TEXT]


# The engine's records.


def fill(symbol: str = "KCN/EUR", **more: object) -> bytes:
    record = {
        "type": "fill", "symbol": symbol, "buy_order_id": "b", "sell_order_id": "s",
        "price": "1.50", "quantity": "2", "timestamp": 1700000000000,
    }  # fmt: skip
    return json.dumps({**record, **more}).encode()


def snapshot(symbol: str = "KCN/EUR", sequence: int = 1, bid: str = "1.4", ask: str = "1.6", **more: object) -> bytes:
    record = {
        "type": "orderbook_snapshot",
        "symbol": symbol,
        "sequence": sequence,
        "bids": [{"price": bid, "quantity": "1"}],
        "asks": [{"price": ask, "quantity": "1"}],
    }
    return json.dumps({**record, **more}).encode()


def delta(symbol: str = "KCN/EUR", sequence: int = 2, price: str = "1.3", side: str = "bid", **more: object) -> bytes:
    change = {"action": "update", "side": side, "price": price, "quantity": "5"}
    record = {"type": "orderbook_delta", "symbol": symbol, "sequence": sequence, "deltas": [change]}
    return json.dumps({**record, **more}).encode()


def filled(order_id: str = "o", **more: object) -> bytes:
    return json.dumps({"type": "order_filled", "order_id": order_id, **more}).encode()


# Time.


class _SkippingSelector(selectors.DefaultSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            ready = super().select(10)
            assert ready, "everybody waits, and nothing will happen"
            return ready
        self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as nothing else is to be done."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _SkippingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def turns(count: int = 10) -> None:
    """Let everything that can go on without waiting go on, `count` times at most."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await asyncio.sleep(0)
        if isinstance(loop, VirtualLoop) and not loop._ready:  # type: ignore[attr-defined]
            return
