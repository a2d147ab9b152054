"""The request that commands come from: what their records say of it, beside the command, for whoever follows an order.

Kafka's headers, which no engine has to know: the command is whole without them (docs/contract.md#record-headers).
"""

from __future__ import annotations

import asyncio
import re
from copy import copy
from typing import Final

from core.messages.feed_record import Headers

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"

# W3C Trace Context, section 3.2: version, trace, parent and flags; what a later version has besides is not known yet.
_read = re.compile(
    r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
).fullmatch
_SAMPLED: Final = 1


class Turn:
    """That of one of several commands which are written in their order, though each takes its time before that."""

    def __init__(self, before: Turn | None) -> None:
        """`before` is the one that it has to be behind."""
        self._before = before
        self._over: asyncio.Future[None] | None = None
        self._is_over = False

    async def come(self) -> None:
        """Wait until all of those before are with the log, or will not be."""
        before = self._before
        while before is not None:
            if not before._is_over:
                if before._over is None:
                    before._over = asyncio.get_running_loop().create_future()
                await asyncio.wait((before._over,))
            before = before._before

    def end(self) -> None:
        """What follows must not pause before the command is with the log, if there is one. Harmless when repeated."""
        self._is_over = True
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


class Origin:
    """A request that commands come from: the headers of their records, and how long Kafka took for them."""

    __slots__ = ("_whole", "bus_seconds", "headers", "request_id", "turn")

    def __init__(self, request_id: str, traceparent: str | None = None) -> None:
        """`traceparent` is the header as it came; one that is not valid is as none."""
        self.request_id = request_id
        self.headers: Headers = [(REQUEST_ID, request_id)]
        if traceparent and (read := read_traceparent(traceparent)) is not None:
            self.headers.append((TRACEPARENT, read))
        # From handing a command over to its acknowledgement, of several the longest; None before there is one.
        self.bus_seconds: float | None = None
        # Of one command of several.
        self.turn: Turn | None = None
        self._whole: Origin | None = None

    def with_turn(self, turn: Turn) -> Origin:
        """The same for one of its commands, which has a turn."""
        part = copy(self)
        part.turn = turn
        part._whole = self
        return part

    def acknowledged(self, seconds: float) -> None:
        """One of its commands was acknowledged, so long after it was handed over."""
        whole = self if self._whole is None else self._whole
        if whole.bus_seconds is None or seconds > whole.bus_seconds:
            whole.bus_seconds = seconds


def read_traceparent(text: str) -> str | None:
    """The same in the version that is known, 00; None if it is not valid."""
    found = _read(text)
    if found is None:
        return None
    version, ids, flags, more = found.groups()
    if version == "00":
        return None if more is not None else text
    # As the standard has it for a later version: of its flags only the known one.
    return f"00-{ids}-{int(flags, 16) & _SAMPLED:02x}"
