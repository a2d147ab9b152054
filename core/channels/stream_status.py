"""Quiet or dead, for those who get everything: which symbols are told stale, and who has to hear of a change."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from core.channels.membership import Membership
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT
from core.delivery.subscriber import Subscriber


class StreamStatus:
    """`stale` are the symbols whose lossless listeners were told that silence now means nothing: it is not quiet there."""

    def __init__(self, members: Membership, fanout: Fanout) -> None:
        self._members = members
        self._fanout = fanout
        self.stale: set[str] = set()

    def tell(self, status: str, symbols: Iterable[str]) -> None:
        """Tell everybody concerned that symbols are `stale` or `live`, if that is new."""
        changed = [symbol for symbol in dict.fromkeys(symbols) if (symbol in self.stale) is (status == "live")]
        if changed:
            self.stale.symmetric_difference_update(changed)
            self._send(status, changed, self._members.stream)
            for subscriber, mine in self._concerned_by(changed).items():
                self._send(status, mine, (subscriber,))

    def tell_newcomer(self, subscriber: Subscriber, symbol: str | None) -> None:
        """Tell one who joined what is stale: of one symbol, or (None) of all."""
        stale = sorted(self.stale if symbol is None else self.stale & {symbol})
        if stale:
            self._send("stale", stale, (subscriber,))

    def _concerned_by(self, symbols: list[str]) -> dict[Subscriber, list[str]]:
        """Who listens losslessly, on channels, to which of these symbols, sorted."""
        lossless_of = self._members.lossless_of
        in_order = sorted(symbols)
        concerned: dict[Subscriber, list[str]] = {}
        for channel in lossless_of.get(None, {}).values():
            concerned.update(dict.fromkeys(channel.everyone(), in_order))
        for symbol in in_order:
            for channel in lossless_of.get(symbol, {}).values():
                for subscriber in channel.everyone():
                    mine = concerned.setdefault(subscriber, [])
                    if mine is not in_order and mine[-1:] != [symbol]:
                        mine.append(symbol)
        return concerned

    def _send(self, status: str, symbols: list[str], subscribers: Collection[Subscriber]) -> None:
        if subscribers:
            text = json.dumps({"type": "stream_status", "status": status, "symbols": symbols}, separators=(",", ":"))
            self._fanout.send(Bundle((text.encode(),), private=True), tuple(subscribers), EXEMPT)
