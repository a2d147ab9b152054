"""The channel grammar: from a channel's name to what it is about (docs/contract.md#channels)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from core.market.candles import CANDLE_INTERVALS_MS
from core.messages.model import is_symbol

MAX_NAME_CHARACTERS = 200
MAX_DEPTH = 1000
MAX_GROUPING = 1_000_000_000
INTERVALS_MS = {
    "raw": 0,
    "50ms": 50,
    "100ms": 100,
    "200ms": 200,
    "500ms": 500,
    "1000ms": 1000,
    "5000ms": 5000,
    "60000ms": 60_000,
}
# Between two notifications of candles, whatever the interval is that they are of.
CANDLES_EVERY_MS = 250
FORMS = {
    "book": "book.BASE/QUOTE.grouping.depth.interval",
    "ticker": "ticker.BASE/QUOTE.interval",
    "lwt": "lwt.BASE/QUOTE.interval",
    "trades": "trades.BASE/QUOTE",
    "events": "events.BASE/QUOTE",
    "candles": "candles.BASE/QUOTE.interval",
    "tickers": "tickers.interval",
}

# Of the exchange and not of its market: told beside the other channels.
STATUS = "status"

# One spelling for each number, so that each view has one name.
_is_whole = re.compile(r"[1-9][0-9]{0,9}").fullmatch


@dataclass(frozen=True, slots=True)
class ChannelName:
    """A parsed name. `symbol` is None for `events` alone and `tickers`; `grouping` None is `none`, `depth` None is `all`.
    `candles` is the interval of a channel of candles, which is not `interval_ms`, the least time between two notifications.

    With `trades_as_objects` its trades have the older shape: told otherwise, it is another channel of the same name.
    """

    text: str
    kind: str
    symbol: str | None
    grouping: int | None = None
    depth: int | None = None
    interval_ms: int = 0
    trades_as_objects: bool = False
    candles: str = ""

    def __hash__(self) -> int:
        # Nearly all of it is in the text, whose hash is kept: of all fields it would be worked out each time.
        return hash(self.text)


@lru_cache(maxsize=8192)
def parse_channel(name: str, trades_as_objects: bool = False) -> ChannelName:
    """Return what `name` names, its trades in the present or the older shape; where there are none, that is the same.

    Raises `ValueError` with a sentence fit for the client.
    """
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a channel's name has at most {MAX_NAME_CHARACTERS} characters")
    kind, *parts = name.split(".")
    form = FORMS.get(kind)
    if form is None:
        raise ValueError(f"{name!r}: there is no such channel; there are {STATUS}, events, {', '.join(FORMS.values())}")
    if kind == "events" and not parts:
        return ChannelName(name, kind, None)
    if len(parts) != form.count("."):
        raise ValueError(f"{name!r}: expected {form}")
    if kind == "tickers":
        return ChannelName(name, kind, None, interval_ms=_interval(name, parts[0]))
    symbol, *rest = parts
    if not is_symbol(symbol):
        raise ValueError(f"{name!r}: {symbol!r} is not a symbol; expected {form}")
    if kind == "book":
        grouping = _part(name, "grouping", rest[0], read_grouping)
        depth = _part(name, "depth", rest[1], read_depth)
        interval = _interval(name, rest[2])
        return ChannelName(name, kind, symbol, grouping, depth, interval, trades_as_objects)
    if kind == "candles":
        if rest[0] not in CANDLE_INTERVALS_MS:
            raise ValueError(f"{name!r}: interval {rest[0]!r}: expected one of {', '.join(CANDLE_INTERVALS_MS)}")
        return ChannelName(name, kind, symbol, interval_ms=CANDLES_EVERY_MS, candles=rest[0])
    return ChannelName(
        name,
        kind,
        symbol,
        interval_ms=_interval(name, rest[0]) if rest else 0,
        trades_as_objects=trades_as_objects and kind == "trades",
    )


def _part(name: str, what: str, text: str, read: Callable[[str], int | None]) -> int | None:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{name!r}: {what} {text!r}: {error}") from error


def read_grouping(text: str) -> int | None:
    """How many ticks are summed into one level, None for `none`. Raises ValueError."""
    if text == "none":
        return None
    if _is_whole(text) and int(text) <= MAX_GROUPING:
        return int(text)
    raise ValueError("expected none or a number of ticks, 1 or more")


def read_depth(text: str) -> int | None:
    """How many levels of each side, None for `all`. Raises ValueError."""
    if text == "all":
        return None
    if _is_whole(text) and int(text) <= MAX_DEPTH:
        return int(text)
    raise ValueError(f"expected all or 1 to {MAX_DEPTH}")


def _interval(name: str, text: str) -> int:
    if text not in INTERVALS_MS:
        raise ValueError(f"{name!r}: interval {text!r}: expected one of {', '.join(INTERVALS_MS)}")
    return INTERVALS_MS[text]
