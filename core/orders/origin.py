"""The request that commands come from: what their records say of it, beside the command, for whoever follows an order.

Kafka's headers, which no engine has to know: the command is whole without them (docs/contract.md#record-headers).
"""

from __future__ import annotations

import re
from typing import Final

from core.messages.feed_record import Headers

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"

# W3C Trace Context, section 3.2: version, trace, parent and flags; what a later version has besides is not known yet.
_read = re.compile(
    r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
).fullmatch
_SAMPLED: Final = 1


class Origin:
    """A request that commands come from: the headers of their records, and how long Kafka took for them."""

    __slots__ = ("bus_seconds", "headers")

    def __init__(self, request_id: str, traceparent: str | None = None) -> None:
        """`traceparent` is the header as it came; one that is not valid is as none."""
        self.headers: Headers = [(REQUEST_ID, request_id)]
        if traceparent and (read := read_traceparent(traceparent)) is not None:
            self.headers.append((TRACEPARENT, read))
        # From handing a command over to its acknowledgement, of several the longest; None before there is one.
        self.bus_seconds: float | None = None

    def acknowledged(self, seconds: float) -> None:
        """One of its commands was acknowledged, so long after it was handed over."""
        if self.bus_seconds is None or seconds > self.bus_seconds:
            self.bus_seconds = seconds


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
