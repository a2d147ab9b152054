"""Who listens: connections, the audiences they form, and where a returning client stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from core.errors import CloseCode
from core.outbox import Outbox


class Subscriber:
    """One connection as the hub sees it: where its frames go and what it listens to."""

    __slots__ = ("channels", "deflates", "end", "on_stream", "outbox")

    def __init__(self, outbox: Outbox, end: Callable[[CloseCode, str], None], deflates: bool = False) -> None:
        """`end` closes the connection with a code and a reason; `deflates` if it negotiated permessage-deflate."""
        self.outbox = outbox
        self.deflates = deflates
        self.end = end
        self.on_stream = False
        self.channels: dict[str, Audience] = {}


class Audience:
    """The subscribers of a line who want one shape of trades."""

    __slots__ = ("new", "objects", "settled")

    def __init__(self, objects: bool) -> None:
        self.objects = objects
        self.new: set[Subscriber] = set()
        self.settled: set[Subscriber] = set()

    def discard(self, subscriber: Subscriber) -> None:
        """Take a subscriber out, in whichever state."""
        self.new.discard(subscriber)
        self.settled.discard(subscriber)


class Owed(NamedTuple):
    """A snapshot that a subscriber is to get as soon as its outbox drains: in which shape, and what goes before it.

    `head` is that of a first notification; None is for one who fell behind.
    """

    audience: Audience
    head: bytes | None


@dataclass(frozen=True, slots=True)
class Since:
    """Where a client stopped: the last offset it has, by partition or (None) on its symbol's, and of which epoch."""

    positions: dict[int | None, int]
    epoch: str | None


def read_since(value: object) -> Since:
    """From the checked form of a request: `seq`, `{epoch, seq}`, or either with an object of partition to seq."""
    epoch: str | None = None
    if isinstance(value, dict) and "seq" in value:
        epoch = value.get("epoch")
        value = value["seq"]
    if isinstance(value, dict):
        return Since({int(partition): int(seq) for partition, seq in value.items()}, epoch)
    assert isinstance(value, int)
    return Since({None: value}, epoch)
