"""Quiet or dead, for those who get everything: which symbols are told stale, and who has to hear of a change."""

from __future__ import annotations

import json
from collections.abc import Iterable

from core.channel import Channel
from core.subscriber import Subscriber


class StreamStatus:
    """The symbols whose listeners were told that silence now means nothing."""

    def __init__(self) -> None:
        self._stale: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._stale)

    def change(self, status: str, symbols: Iterable[str]) -> list[str]:
        """Note that symbols are `stale` or `live`; return those for which that is new."""
        if status == "stale":
            changed = [symbol for symbol in dict.fromkeys(symbols) if symbol not in self._stale]
            self._stale.update(changed)
        else:
            changed = [symbol for symbol in dict.fromkeys(symbols) if symbol in self._stale]
            self._stale.difference_update(changed)
        return changed

    def stale_of(self, symbol: str | None) -> list[str]:
        """What a newcomer has to be told is stale: of one symbol, or (None) of all."""
        return sorted(self._stale if symbol is None else self._stale & {symbol})


def concerned_by(
    symbols: list[str], stream: Iterable[Subscriber], channels: Iterable[Channel]
) -> dict[Subscriber, list[str]]:
    """Who listens losslessly to which of these symbols."""
    concerned: dict[Subscriber, list[str]] = dict.fromkeys(stream, symbols)
    for channel in channels:
        if channel.lossless:
            mine = symbols if channel.name.symbol is None else [s for s in symbols if s == channel.name.symbol]
            for subscriber in channel.everyone() if mine else ():
                concerned[subscriber] = sorted({*concerned.get(subscriber, ()), *mine})
    return concerned


def status_text(status: str, symbols: list[str]) -> bytes:
    """The message itself."""
    return json.dumps({"type": "stream_status", "status": status, "symbols": symbols}, separators=(",", ":")).encode()
