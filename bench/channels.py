"""What one event costs on its way to the channels, beside the loop that one writes first. `python -m bench.channels`.

Ours: parse, book, three views (top 10, top 50, all), their notifications as frames: `Market.fold` and `Hub.publish` with one
subscriber a channel, whose socket takes everything. The peer: `json.loads`, a dict a side, each view sorted and dumped
whole, framed as Tornado's `write_message` does it. Both once an event, in turns within one run. Then the same for one view
on one symbol and one view on each of 1,000 symbols.
"""

from __future__ import annotations

import json
import statistics
import struct
from collections.abc import Callable
from random import Random
from time import thread_time_ns

from bench.support import machine
from bench.support.transport import Transport
from bench.views import delta_records
from core.channels.hub import Hub
from core.channels.names import parse_channel
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.market.market import Market

ROUNDS = 7
EVENTS = 4_000
LEVELS = 200
SYMBOLS = 1_000
VIEWS = ("none.10.raw", "none.50.raw", "none.all.raw")


def snapshot(symbol: str) -> bytes:
    side = [{"price": f"{1000 - i / 100:.2f}", "quantity": "1.5"} for i in range(1, LEVELS + 1)]
    asks = [{"price": f"{1000 + i / 100:.2f}", "quantity": "1.5"} for i in range(1, LEVELS + 1)]
    event = {"type": "orderbook_snapshot", "symbol": symbol, "sequence": 0, "bids": side, "asks": asks}
    return json.dumps(event).encode()


class Ours:
    """The gateway's own way, fed record by record as a drain of one would."""

    def __init__(self, symbols: list[str], views: tuple[str, ...]) -> None:
        self.market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        self.hub = Hub(self.market, lambda: "epoch", lambda: 0.0)
        self.market.partitions.begin(0, 0)
        self._offset = 0
        for symbol in symbols:
            self.market.fold(0, self._next(), snapshot(symbol))
        self.hub.partitions.serve([0])
        for symbol in symbols:
            subscriber = Subscriber(Outbox(Transport(len), 1 << 20), lambda _code, _reason: None)
            self.hub.add(subscriber, stream=False)
            self.hub.subscribe(subscriber, [parse_channel(f"book.{symbol}.{view}") for view in views])

    def _next(self) -> int:
        self._offset += 1
        return self._offset

    def take(self, record: bytes) -> None:
        news = self.market.fold(0, self._next(), record)
        if news is not None:
            self.hub.publish([news])


class Naive:
    """What one writes first."""

    def __init__(self) -> None:
        event = json.loads(snapshot("KCN/EUR"))
        self.sides = {
            side: {float(level["price"]): float(level["quantity"]) for level in event[f"{side}s"]}
            for side in ("bid", "ask")
        }

    def take(self, record: bytes) -> None:
        event = json.loads(record)
        for delta in event["deltas"]:
            side, price, quantity = self.sides[delta["side"]], float(delta["price"]), float(delta["quantity"])
            if quantity:
                side[price] = quantity
            else:
                side.pop(price, None)
        for depth in (10, 50, None):
            bids = sorted(self.sides["bid"].items(), reverse=True)[:depth]
            asks = sorted(self.sides["ask"].items())[:depth]
            text = json.dumps({"channel": f"book.{depth}", "bids": bids, "asks": asks}).encode()
            frame = struct.pack("!BBQ", 0x81, 127, len(text)) + text
            assert frame


def microseconds(take: Callable[[bytes], None], records: list[bytes]) -> float:
    """CPU time a record: what others on the machine take does not count."""
    started = thread_time_ns()
    for record in records:
        take(record)
    return (thread_time_ns() - started) / 1000 / len(records)


def renamed(records: list[bytes], symbols: list[str]) -> list[bytes]:
    """The same events, each on a symbol of its own choice, all symbols equally often."""
    return [
        record.replace(b'"KCN/EUR"', json.dumps(symbols[number % len(symbols)]).encode())
        for number, record in enumerate(records)
    ]


def main() -> None:
    records = delta_records(Random(7))[:EVENTS]
    many = [f"S{number}/EUR" for number in range(SYMBOLS)]
    scattered = renamed(records, many)
    runs: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
        "three views, one symbol": (Ours(["KCN/EUR"], VIEWS).take, records),
        "the loop one writes first": (Naive().take, records[:400]),
        "one view, one symbol": (Ours(["KCN/EUR"], VIEWS[:1]).take, records),
        "one view each, 1,000 symbols": (Ours(many, VIEWS[:1]).take, scattered),
    }
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, (take, fed) in runs.items():
            figures[name].append(microseconds(take, fed))
    for line in machine.describe():
        print(line)
    print(f"CPU microseconds an event, medians of {ROUNDS} rounds in turns, {EVENTS} events each")
    for name, values in figures.items():
        print(f"  {name:32} {statistics.median(values):8.1f}")
    ours, naive, one, thousand = (statistics.median(values) for values in figures.values())
    print(f"  ours / the loop one writes first {ours / naive:8.3f}   (three views)")
    print(f"  1,000 symbols / one              {thousand / one:8.2f}   (one view each)")


if __name__ == "__main__":
    main()
