"""What one connection has waiting, and its bound.

The invariant: only whole frames enter, and they leave in the order in which they were offered. In the usual case
nothing waits and `offer` is one `send`, or the fan-out calls what `sender` gave it. What the kernel does not take goes to the
transport's own buffer, so that pings and closes, which the transport writes by itself, never land inside a frame;
everything after that waits here as references to the bytes that all subscribers share, until the transport says that it
is empty again. Whoever lets the transport write something of its own says so (`others_wrote`).

Three kinds of frames: lossless ones, whose overflow ends the connection; conflatable ones, which are not even taken
above the high watermark, and are dropped first; and exempt ones (snapshots), which do not count. Below the low watermark
the connection's owner is asked for more (`pull`): replays and the snapshots of what was conflated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from enum import Enum
from typing import Final, Protocol

# What is handed to the transport at once: enough to fill a socket buffer, little enough to keep pings prompt.
CHUNK_BYTES: Final = 65_536
PULLS_PER_TURN: Final = 16


class Conflatable:
    """The tag of frames that may be left out: what they are said by, and what those they do not reach are known by.

    Whoever lacks frames of a `source` is owed its whole state, so further ones of it are of no use until then.
    """

    __slots__ = ("before", "source")

    def __init__(self, source: object, before: object = None) -> None:
        self.source = source
        self.before = before


class Exempt:
    """The tag of frames that do not count."""

    __slots__ = ()


Tag = Conflatable | Exempt | None

LOSSLESS: Final = None
EXEMPT: Final = Exempt()


# Nothing waits; shared, because an empty deque of one's own takes 700 bytes a connection. Never written to.
_EMPTY: Final[deque[tuple[bytes, Tag]]] = deque(maxlen=0)


Send = Callable[[bytes], int]


class _DirectChanges:
    """How often any outbox of the process has begun or ceased to be direct."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


# While the count stays the same, a list of senders need not be looked through again.
DIRECT_CHANGES: Final = _DirectChanges()


class Offer(Enum):
    """What became of a frame that was offered."""

    ACCEPTED = "accepted"
    CONFLATED = "conflated"
    OVERFLOW = "overflow"
    CLOSED = "closed"


class Transport(Protocol):
    """The socket side, as the outbox needs it."""

    def is_empty(self) -> bool:
        """Nothing waits in the transport's own buffer."""

    def send(self, data: bytes) -> int:
        """Give what the kernel takes at once, return how many bytes that was. Raises `OSError` once closed."""

    def sender(self) -> Send:
        """What does the same with the least between it and the kernel, made anew."""

    def spill(self, data: bytes | memoryview) -> None:
        """Buffer `data` (perhaps nothing), and call the outbox's `drained` once the buffer is empty."""

    def moved(self) -> int:
        """A number that grows with every byte that leaves the transport's buffer, or reaches the peer."""


class _Closed:
    """What is left of a transport: nothing. The real one refers to the outbox, which would keep both in a cycle."""

    def is_empty(self) -> bool:
        return True

    def send(self, data: bytes) -> int:
        raise OSError("closed")

    def sender(self) -> Send:
        return self.send

    def spill(self, data: bytes | memoryview) -> None:
        pass

    def moved(self) -> int:
        return 0


_CLOSED: Final = _Closed()


def _nothing() -> bytes | None:
    return None


def _to_nobody(_tags: Collection[Conflatable]) -> None:
    pass


class Outbox:
    """The waiting frames of one connection, at most `max_bytes` of them.

    `is_direct` as long as nothing waits anywhere. `pull` gives the next frames of what is pulled as the socket drains, or
    None; `on_dropped` is told the tag of the oldest conflatable frames of each source that had to make room.
    """

    __slots__ = (
        "_exempt_bytes",
        "_high",
        "_low",
        "_max_bytes",
        "_moved_before",
        "_spilling",
        "_stuck_since",
        "_transport",
        "_waiting",
        "closed",
        "is_direct",
        "on_dropped",
        "pull",
        "waiting_bytes",
    )

    def __init__(self, transport: Transport, max_bytes: int) -> None:
        self._transport: Transport = transport
        self._max_bytes = max_bytes
        self._high = max_bytes // 2
        self._low = max_bytes // 8
        self._waiting = _EMPTY
        self._spilling = False
        self._exempt_bytes = 0
        self.is_direct = True
        self.pull: Callable[[], bytes | None] = _nothing
        self.on_dropped: Callable[[Collection[Conflatable]], None] = _to_nobody
        self.waiting_bytes = 0
        self.closed = False
        self._moved_before = 0
        self._stuck_since: float | None = None

    def offer(self, frames: bytes, tag: Tag = LOSSLESS) -> Offer:
        """Send whole frames or keep them."""
        if self.closed:
            return Offer.CLOSED
        if self.is_direct:
            return self._send(frames)
        if tag is EXEMPT:
            self._exempt_bytes += len(frames)
        else:
            bound = self._max_bytes if tag is LOSSLESS else self._high
            if self._counted() + len(frames) > bound:
                if tag is not LOSSLESS:
                    return Offer.CONFLATED
                self._drop_conflatable()
                if self._counted() + len(frames) > bound:
                    return Offer.OVERFLOW
        self._keep(frames, tag)
        return Offer.ACCEPTED

    def _keep(self, frames: bytes, tag: Tag) -> None:
        if self._waiting is _EMPTY:
            self._waiting = deque()
        self._waiting.append((frames, tag))
        self.waiting_bytes += len(frames)

    def others_wrote(self) -> None:
        """The transport wrote something of its own; what of it is still on its way goes first."""
        if self.is_direct and not self._transport.is_empty():
            self._spill(b"")

    def sender(self) -> Send | None:
        """What gives bytes to the kernel, or None if something waits. Valid until the next of the `DIRECT_CHANGES`.

        What it does not take is to be handed to `left_over` at once. It is made anew: senders made one after the other lie
        together in memory, where a thousand of them are called in 4 % less time than those made when each connection was.
        """
        return self._transport.sender() if self.is_direct else None

    def left_over(self, frames: bytes, sent: int) -> None:
        """A sender took only so many bytes of whole frames."""
        self._spill(memoryview(frames)[sent:])

    def _counted(self) -> int:
        return self.waiting_bytes - self._exempt_bytes

    def drop(self, source: object) -> Conflatable | None:
        """Forget what waits of a source. Returns the tag of the oldest of it, None if nothing did."""
        return self._drop(lambda tag: tag.source is source).get(source)

    def _drop_conflatable(self) -> None:
        dropped = self._drop(lambda _tag: True)
        if dropped:
            self.on_dropped(dropped.values())

    def _drop(self, is_dropped: Callable[[Conflatable], bool]) -> dict[object, Conflatable]:
        oldest: dict[object, Conflatable] = {}
        kept: deque[tuple[bytes, Tag]] = deque()
        for frames, tag in self._waiting:
            if isinstance(tag, Conflatable) and is_dropped(tag):
                oldest.setdefault(tag.source, tag)
                self.waiting_bytes -= len(frames)
            else:
                kept.append((frames, tag))
        if oldest:
            self._waiting = kept
        return oldest

    def _send(self, frames: bytes) -> Offer:
        try:
            sent = self._transport.send(frames)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return Offer.CLOSED
        if sent < len(frames):
            self.left_over(frames, sent)
        return Offer.ACCEPTED

    def _set_direct(self, is_direct: bool) -> None:
        self.is_direct = is_direct
        DIRECT_CHANGES.count += 1

    def _spill(self, rest: bytes | memoryview) -> None:
        self._set_direct(False)
        self._spilling = True
        self._transport.spill(rest)

    def drained(self) -> None:
        """The transport's buffer has been emptied: give it the next frames, unless something else is in it by now."""
        self._spilling = False
        if not self.closed and not self._transport.is_empty():
            self._spill(b"")
        self.send_pulled()

    def send_pulled(self) -> None:
        """Send what waits, and what can be pulled, as long as the kernel takes it."""
        for _ in range(PULLS_PER_TURN):
            if self._spilling or self.closed:
                return
            self._set_direct(False)  # what is offered during the pull goes behind what waits
            if self.waiting_bytes <= self._low:
                pulled = self.pull()
                if self.closed:
                    return
                if pulled is not None:
                    self._keep(pulled, EXEMPT)
                    self._exempt_bytes += len(pulled)
            if not self._waiting:
                self._waiting = _EMPTY
                self._set_direct(True)
                return
            self._send(self._take_chunk())
        if not self._spilling and not self.closed:
            self._spill(b"")  # the rest in another turn of the loop: others have work too

    def _take_chunk(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._waiting and (not parts or size + len(self._waiting[0][0]) <= CHUNK_BYTES):
            frames, tag = self._waiting.popleft()
            parts.append(frames)
            size += len(frames)
            if tag is EXEMPT:
                self._exempt_bytes -= len(frames)
        self.waiting_bytes -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def is_stuck(self, now: float, patience_seconds: float) -> bool:
        """Whether something has waited for that long without a byte moving. To be asked from time to time."""
        if not self._spilling:
            self._stuck_since = None
            return False
        moved = self._transport.moved()
        if self._stuck_since is None or moved != self._moved_before:
            self._moved_before, self._stuck_since = moved, now
        return now - self._stuck_since >= patience_seconds

    def close(self) -> None:
        """Forget what waits and take nothing more. Nobody is referred to any more, so no cycle is left."""
        self.closed = True
        self._set_direct(False)
        self._transport = _CLOSED
        self.pull = _nothing
        self.on_dropped = _to_nobody
        self._waiting = _EMPTY
        self.waiting_bytes = self._exempt_bytes = 0
