"""What one connection has waiting, and its bound.

The invariant: only whole frames enter, and they leave in the order in which they were offered. In the usual case
nothing waits and `offer` is one `send`. What the kernel does not take goes to the transport's own buffer, so that pings
and closes, which the transport writes by itself, never land inside a frame; everything after that waits here as
references to the bytes that all subscribers share, until the transport says that it is empty again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Protocol

# What is handed to the transport at once: enough to fill a socket buffer, little enough to keep pings prompt.
CHUNK_BYTES = 65_536


class Offer(Enum):
    """What became of a frame that was offered."""

    ACCEPTED = "accepted"
    OVERFLOW = "overflow"
    CLOSED = "closed"


class Transport(Protocol):
    """The socket side, as the outbox needs it."""

    def is_empty(self) -> bool:
        """Nothing waits in the transport's own buffer."""

    def send(self, data: bytes) -> int:
        """Give what the kernel takes at once, return how many bytes that was. Raises `OSError` once closed."""

    def spill(self, data: bytes | memoryview) -> None:
        """Buffer `data` (perhaps nothing), and call the outbox's `drained` once the buffer is empty."""


class Outbox:
    """The waiting frames of one connection, at most `max_bytes` of them."""

    __slots__ = ("_exempt_bytes", "_max_bytes", "_spilling", "_transport", "_waiting", "closed", "waiting_bytes")

    def __init__(self, transport: Transport, max_bytes: int) -> None:
        self._transport = transport
        self._max_bytes = max_bytes
        # Exempt frames wait as memoryviews: that tells them apart without a copy.
        self._waiting: deque[bytes | memoryview] = deque()
        self._spilling = False
        self._exempt_bytes = 0
        self.waiting_bytes = 0
        self.closed = False

    def offer(self, frames: bytes, exempt: bool = False) -> Offer:
        """Send whole frames or keep them. `exempt` ones (snapshots) do not count towards the bound."""
        if self.closed:
            return Offer.CLOSED
        if not self._spilling and self._transport.is_empty():
            return self._send(frames)
        if exempt:
            self._exempt_bytes += len(frames)
        elif self.waiting_bytes - self._exempt_bytes + len(frames) > self._max_bytes:
            return Offer.OVERFLOW
        self._waiting.append(memoryview(frames) if exempt else frames)
        self.waiting_bytes += len(frames)
        if not self._spilling:
            # A ping or a close of the transport's own is on its way: wait behind it.
            self._spill(b"")
        return Offer.ACCEPTED

    def _send(self, frames: bytes) -> Offer:
        try:
            sent = self._transport.send(frames)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return Offer.CLOSED
        if sent < len(frames):
            self._spill(memoryview(frames)[sent:])
        return Offer.ACCEPTED

    def _spill(self, rest: bytes | memoryview) -> None:
        self._spilling = True
        self._transport.spill(rest)

    def drained(self) -> None:
        """The transport's buffer is empty: give it the next frames."""
        self._spilling = False
        while self._waiting and not self._spilling:
            if self._transport.is_empty():
                self._send(self._take_chunk())
            else:
                self._spill(b"")

    def _take_chunk(self) -> bytes:
        parts: list[bytes | memoryview] = []
        size = 0
        while self._waiting and (not parts or size + len(self._waiting[0]) <= CHUNK_BYTES):
            part = self._waiting.popleft()
            parts.append(part)
            size += len(part)
            if isinstance(part, memoryview):
                self._exempt_bytes -= len(part)
        self.waiting_bytes -= size
        return b"".join(parts)

    def close(self) -> None:
        """Forget what waits and take nothing more."""
        self.closed = True
        self._waiting.clear()
        self.waiting_bytes = self._exempt_bytes = 0
