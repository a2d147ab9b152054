"""What the engine publishes in the property test of market data, and every state that follows from it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.core.naive import State

TICK = Decimal("0.01")
SYMBOLS_OF = {0: ("A/A", "B/B"), 1: ("C/C",), 2: ("D/D",)}
PARTITION_OF = {symbol: partition for partition, symbols in SYMBOLS_OF.items() for symbol in symbols}
SYMBOLS = tuple(PARTITION_OF)
CLIENTS = range(4)
MAX_BYTES = 4000
HISTORY = 12
WARM_UP = 15

LONG = "0123456789012345678901234567890"
BIDS = ("99.99", "99.98", "99.90", "99.5", "98", "97." + LONG, "97." + LONG[:-1] + "1", "1E+1")
ASKS = ("100.01", "100.010", "100.02", "100.1", "101", "102." + LONG, "102." + LONG[:-1] + "1", "1E+3")
QUANTITIES = ("1", "2.50", "0." + LONG[1:], LONG[1:], "7E-7", "0")

Kind = tuple[str, str, int, int]  # what, of which symbol, and two numbers that choose among prices and quantities


def engines_record(what: str, symbol: str, one: int, two: int, time_ms: int) -> bytes:
    """One record as the engine writes it."""
    bid, ask = BIDS[one % len(BIDS)], ASKS[two % len(ASKS)]
    positive = QUANTITIES[:-1]
    record: dict[str, Any] = {"symbol": symbol, "timestamp": time_ms}
    if what == "fill":
        taker = ("bid", "ask", None)[one % 3]
        record |= {"type": "fill", "buy_order_id": f"b{one}", "sell_order_id": two}
        record |= {"price": (bid, ask)[two % 2], "quantity": positive[two % len(positive)]}
        record |= {"taker_side": taker} if taker else {}
    elif what in ("snapshot", "crossed snapshot"):
        bids = [
            {"price": p, "quantity": positive[(one + n) % len(positive)]} for n, p in enumerate(BIDS) if (one >> n) & 1
        ]
        asks = {Decimal(p): p for n, p in enumerate(ASKS) if (two >> n) & 1}
        record |= {"type": "orderbook_snapshot", "sequence": time_ms, "bids": bids}
        record["asks"] = [{"price": p, "quantity": positive[two % len(positive)]} for p in asks.values()]
        if what == "crossed snapshot":
            record["bids"], record["asks"] = ({"price": "5", "quantity": "1"},), ({"price": "5.0", "quantity": "1"},)
    elif what == "private":
        record |= {"type": "order_filled", "order_id": "o", "user_id": "alice"}
    elif what == "poison":
        return b'{"type":"fill","price":NaN}'
    else:
        changes = [("bid", bid, QUANTITIES[two % len(QUANTITIES)]), ("ask", ask, QUANTITIES[one % len(QUANTITIES)])]
        if what == "crossing":
            changes = [("bid", "5000", "1")]
        deltas = [{"action": "update", "side": side, "price": p, "quantity": q} for side, p, q in changes]
        if what == "malformed":
            deltas = [{"action": "replace"}]
        record |= {"type": "orderbook_delta", "sequence": time_ms, "deltas": deltas[: 1 + one % 2]}
    return json.dumps(record).encode()


PUBLIC = ("fill", "snapshot", "crossed snapshot", "delta", "crossing")


@dataclass
class Life:
    """What is known of one partition since its reading began: every state of every symbol, by offset."""

    begun: int
    states: dict[str, dict[int, State]] = field(default_factory=dict)
    now: dict[str, State] = field(default_factory=dict)

    def fold(self, symbol: str, what: str, value: bytes, offset: int, kafka_ms: int) -> None:
        if what == "malformed" and symbol in self.now:
            self.now[symbol] = self.now[symbol].after_malformed()
            # Nothing was published: it is still the state of the last public event.
        if what in PUBLIC:
            state = self.now.get(symbol, State()).after(json.loads(value), offset, kafka_ms)
            self.now[symbol] = self.states.setdefault(symbol, {})[offset] = state


@dataclass
class Logged:
    symbol: str
    what: str
    value: bytes
    kafka_ms: int
