"""The channel grammar: from a channel's name to what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from core.model import is_symbol

MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class EventsChannel:
    """`events.{symbol}` or, with no symbol, `events`: the engine's own events, untouched, one record each."""

    name: str
    symbol: str | None


Channel = EventsChannel


@lru_cache(maxsize=4096)
def parse_channel(name: str) -> Channel:
    """Return the channel that `name` names. Raises `ValueError` with a sentence fit for the client."""
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a channel's name has at most {MAX_NAME_CHARACTERS} characters")
    kind, dot, rest = name.partition(".")
    if kind == "events":
        if not dot:
            return EventsChannel(name, None)
        if is_symbol(rest):
            return EventsChannel(name, rest)
        raise ValueError(f"{name!r}: expected events or events.BASE/QUOTE")
    raise ValueError(f"{name!r}: there is no such channel; there are events and events.BASE/QUOTE")
