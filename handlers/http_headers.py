"""Header fields as Tornado keeps them, without what it costs to look again at what nearly every request and answer says."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Final

from tornado.httputil import HTTPHeaders, format_timestamp

# By how they are mostly spelled, the names of fields that requests mostly have.
_NAMES: Final = {
    spelling: name
    for name in (
        "Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection", "Content-Length",
        "Content-Type", "Cookie", "Host", "Origin", "Referer", "Traceparent", "User-Agent", "X-Forwarded-For",
        "X-Forwarded-Proto", "X-Request-Id",
    )
    for spelling in (name, name.lower())
}  # fmt: skip


class Headers(HTTPHeaders):
    """Tornado's, which takes every line and every set of fields for one that it has never seen."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        """`fields` are ours: their names are spelled as Tornado spells them."""
        self._combined_cache: dict[str, str] = {} if fields is None else {**fields}
        self._as_list: dict[str, list[str]] = {name: [value] for name, value in self._combined_cache.items()}

    def parse_line(self, line: str, *, _chars_are_bytes: bool = True) -> None:
        """See Tornado, to whom every line goes of which anything has to be looked at more closely."""
        if line.endswith("\r\n"):
            spelled, colon, value = line[:-2].partition(":")
            name = _NAMES.get(spelled) if colon else None
            value = value.strip(" \t")
            # Of visible ASCII and spaces: a value by RFC 9110 section 5.5.
            if name is not None and name not in self._as_list and value.isascii() and value.isprintable():
                self._combined_cache[name] = value
                self._as_list[name] = [value]
                return
        super().parse_line(line, _chars_are_bytes=_chars_are_bytes)


def date() -> str:
    """The time as `Date` has it, in whole seconds."""
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=1)
def _date_of(seconds: int) -> str:
    return format_timestamp(seconds)
