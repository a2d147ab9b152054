"""What it costs to describe the market's kept state, and to take it back. `python -m bench.market_state`.

Books of 1,000 levels a side, with trades all over the day. Described is, in turns, each symbol whole, and each after
some 20 levels changed and five trades came. CPU time, the least of several rounds: others share the machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from time import thread_time_ns

from bench.support import machine
from core.market.market import Market
from core.market.state import MarketState
from core.messages.kept_state import VERSION, Cursor, KeptRecord
from core.messages.times import Times

SYMBOLS = [f"S{number}/EUR" for number in range(500)]
LEVELS = 1_000
TRADES = 300
TOUCHED = SYMBOLS[:100]
ROUNDS = 5
NOW_MS = 1_790_000_000_000
DAY_MS = 86_000_000


def snapshot(symbol: str) -> bytes:
    sides = {
        side: [
            {"price": f"{1000 + sign * number / 100:.2f}", "quantity": f"{number / 7:.3f}"}
            for number in range(1, LEVELS + 1)
        ]
        for side, sign in (("bids", -1), ("asks", 1))
    }
    return json.dumps({"type": "orderbook_snapshot", "symbol": symbol, "sequence": 0, **sides}).encode()


def delta(chance: Random, symbol: str) -> bytes:
    rows = []
    for _ in range(20):
        side, sign = chance.choice((("bid", -1), ("ask", 1)))
        price, quantity = 1000 + sign * chance.randrange(1, 40) / 100, chance.randrange(1, 10**6) / 1000
        rows.append({"action": "update", "side": side, "price": f"{price:.2f}", "quantity": f"{quantity:.3f}"})
    return json.dumps({"type": "orderbook_delta", "symbol": symbol, "sequence": 1, "deltas": rows}).encode()


def fill(chance: Random, symbol: str, timestamp_ms: int) -> bytes:
    ids = {"buy_order_id": f"{chance.getrandbits(128):032x}", "sell_order_id": f"{chance.getrandbits(128):032x}"}
    price = f"{1000 + chance.randrange(-30, 30) / 100:.2f}"
    event = {"type": "fill", "symbol": symbol, **ids, "price": price, "quantity": "1.25", "timestamp": timestamp_ms}
    return json.dumps(event).encode()


def new_market() -> Market:
    return Market(lambda *_: None, lambda *_: None, lambda *_: None, times=Times(lambda: NOW_MS / 1000))


def described(name: str, pieces: Iterator[list[KeptRecord]]) -> list[KeptRecord]:
    """Everything there is to write; tells what the cheapest and the middle piece took."""
    records: list[KeptRecord] = []
    microseconds = []
    started = thread_time_ns()
    for piece in pieces:
        microseconds.append((thread_time_ns() - started) / 1000)
        records += piece
        started = thread_time_ns()
    microseconds.sort()
    size = sum(len(key) + len(value or b"") for key, value in records) / len(microseconds)
    middle = microseconds[len(microseconds) // 2]
    print(f"  {name:12} {microseconds[0]:6.0f} us, in the middle {middle:6.0f} us, {size:7.0f} bytes a symbol")
    return records


def main() -> None:
    for line in machine.describe():
        print(line)
    chance, market = Random(7), new_market()
    state = MarketState(market)
    records = []
    for symbol in SYMBOLS:
        records.append(snapshot(symbol))
        records += [fill(chance, symbol, NOW_MS - DAY_MS + number * (DAY_MS // TRADES)) for number in range(TRADES)]
    for offset, record in enumerate(records):
        market.fold(0, offset, record, NOW_MS)
    offset = len(records)
    kept = dict(described("whole", state.cut(0, None, is_whole=True)))
    for _ in range(ROUNDS):
        for symbol in TOUCHED:
            for record in (delta(chance, symbol), *(fill(chance, symbol, NOW_MS) for _ in range(5))):
                market.fold(0, offset, record, NOW_MS)
                offset += 1
        kept.update(described("what changed", state.cut(0, set(TOUCHED), is_whole=False)))
    fresh = MarketState(new_market())
    seconds = []
    for _ in range(ROUNDS):
        started = thread_time_ns()
        for key, value in kept.items():
            fresh.take_back(0, key, value)
        taken = thread_time_ns()
        fresh.resume(
            {
                0: Cursor(
                    version=VERSION,
                    market_epoch="",
                    order_epoch="",
                    market=offset,
                    events={},
                    orders={},
                    known_since_ms=None,
                    time_ms=NOW_MS,
                )
            }
        )
        seconds.append(((thread_time_ns() - started) / 1e9, (thread_time_ns() - taken) / 1e9))
    total, at_once = min(seconds)
    print(f"  taken back   {len(SYMBOLS)} symbols in {total:.2f} s, {at_once:.2f} s of it at once in the end")


if __name__ == "__main__":
    main()
