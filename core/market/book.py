"""One symbol's order book, kept from the engine's snapshots and deltas in exact decimals.

Invariant: a book that is `live` is not crossed (best bid below best ask).
"""

from __future__ import annotations

import json
from decimal import Decimal

from core.market.ladder import Change, Ladder
from core.messages.events import BookDelta, BookSnapshot, Level
from core.messages.model import Side, decimal_text

_BID = Side.BID


class OrderBook:
    """A symbol's levels. `known` once a snapshot was seen; `stale` when it can no longer be the engine's book.

    `lacks_snapshot` while deltas have come and no snapshot yet: what they change stands further back.

    While it is stale the levels are the last ones and may be crossed: show them to nobody. Only a snapshot heals it.
    `sequence` is the engine's, of the last event applied; jumps in it are normal (docs/contract.md#kafka-topics).
    """

    __slots__ = ("_snapshot", "asks", "bids", "known", "lacks_snapshot", "sequence", "stale", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.sequence: int | None = None
        self.known = False
        self.stale = False
        self.lacks_snapshot = False
        self.bids = Ladder(Side.BID)
        self.asks = Ladder(Side.ASK)
        self._snapshot: bytes | None = None

    @property
    def live(self) -> bool:
        """Whether the levels are the engine's, as far as the gateway can tell."""
        return self.known and not self.stale

    def apply_snapshot(self, event: BookSnapshot) -> None:
        """Replace every level. A snapshot that is itself crossed leaves the book stale."""
        self.bids.replace(event.bids)
        self.asks.replace(event.asks)
        self.sequence = event.sequence
        self.known = True
        self.lacks_snapshot = False
        self.stale = self._crossed()
        self._snapshot = None

    def apply_delta(self, event: BookDelta) -> list[Change] | None:
        """Set or remove levels; return the changes, or None if nothing may be shown of it.

        That is so before the first snapshot and while the book is stale (the delta is then ignored), and when the
        whole delta leaves the book crossed (which makes it stale). Removing a level that is not there is no error.
        """
        if self.stale or not self.known:
            self.lacks_snapshot = not self.known
            return None
        bids, asks = self.bids, self.asks
        changes = [
            (side, price, (bids if side is _BID else asks).put(price, quantity), quantity)
            for _, side, price, quantity in event.deltas
        ]
        self.sequence = event.sequence
        self._snapshot = None
        self.stale = self._crossed()
        return None if self.stale else changes

    def forget(self) -> None:
        """Be as before the first snapshot."""
        self.restore(Ladder(Side.BID), Ladder(Side.ASK), None, known=False, stale=False)

    def restore(self, bids: Ladder, asks: Ladder, sequence: int | None, *, known: bool, stale: bool) -> None:
        """Be as it was when it had the levels of these."""
        self.bids.become(bids)
        self.asks.become(asks)
        self.sequence = sequence
        self.known = known
        self.stale = stale
        self.lacks_snapshot = False
        self._snapshot = None

    def mark_stale(self) -> None:
        """Distrust the levels until the next snapshot: a record of this symbol was malformed or missed."""
        self.stale = True

    def levels(self, side: Side, depth: int | None = None) -> list[Level]:
        """(price, quantity) of the best `depth` levels (all if None), best first. Raises ValueError below 0."""
        if depth is not None and depth < 0:
            raise ValueError(f"depth: expected 0 or more, got {depth}")
        return self._ladder(side).levels(depth)

    def best(self, side: Side) -> Level | None:
        """(price, quantity) of the highest bid or lowest ask; None if the side is empty."""
        return self._ladder(side).best()

    def quote(self) -> tuple[Decimal | None, Decimal | None]:
        """The prices of the best bid and ask, None for a side that is empty; of a book that is not live, neither."""
        if not self.live:
            return None, None
        bids, asks = self.bids.prices, self.asks.prices
        return bids[-1] if bids else None, asks[0] if asks else None

    def _ladder(self, side: Side) -> Ladder:
        return self.bids if side is _BID else self.asks

    def snapshot_event(self) -> bytes:
        """The book as the engine's own `orderbook_snapshot`: UTF-8 JSON, decimals as strings, best levels first.

        Built once after each change, however many ask. Raises ValueError before the first snapshot.
        """
        if not self.known:
            raise ValueError(f"{self.symbol}: no snapshot has been seen yet")
        if self._snapshot is None:
            event = {
                "type": "orderbook_snapshot",
                "symbol": self.symbol,
                "sequence": self.sequence,
                "bids": self._shown(Side.BID),
                "asks": self._shown(Side.ASK),
            }
            self._snapshot = json.dumps(event, separators=(",", ":")).encode("ascii")
        return self._snapshot

    def _shown(self, side: Side) -> list[dict[str, str]]:
        return [
            {"price": decimal_text(price), "quantity": decimal_text(quantity)} for price, quantity in self.levels(side)
        ]

    def _crossed(self) -> bool:
        bids, asks = self.bids.prices, self.asks.prices
        return bool(bids and asks and bids[-1] >= asks[0])
