"""What candles and tickers cost: folding, memory, asking, keeping, and telling. `python -m bench.candles [--quick]`.

By turns, CPU time, medians: one fill on its way into the market as it is, and with candles left out; the same for late fills.
Then memory and records of 500 symbols that have all the candles they can; and the longest that the overview of
10,000 symbols holds the loop, when somebody joins and when all of them change.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tracemalloc
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from functools import partial
from random import Random
from time import perf_counter, thread_time, thread_time_ns

from bench.support import machine
from bench.support.transport import Transport
from core.channels.hub import Hub
from core.channels.names import parse_channel
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.market.candle_series import MOST_CANDLES, Candle
from core.market.candles import CANDLE_INTERVALS_MS, Candles
from core.market.market import Market
from core.market.state import MarketState
from core.messages.model import EXACT
from core.messages.times import Times

NOW_MS = 1_790_000_000_000
FILLS = 20_000
ROUNDS = 9
SYMBOLS = 500
DIFFERENT = 10
OVERVIEW = 10_000
SLICE_SECONDS = 0.005


def fill(chance: Random, symbol: str, time_ms: int) -> bytes:
    event = {"type": "fill", "symbol": symbol, "buy_order_id": "b", "sell_order_id": "s",
             "price": f"{1000 + chance.randrange(-300, 300) / 100:.2f}", "quantity": f"{chance.randrange(1, 5000) / 1000:.3f}",
             "timestamp": time_ms}  # fmt: skip
    return json.dumps(event).encode()


class Without(Candles):
    """Candles that nobody folds."""

    def add(self, price: Decimal, quantity: Decimal, value: Decimal, time_ms: int, offset: int) -> None:
        """Nothing."""


def new_market(now_ms: int = NOW_MS) -> Market:
    return Market(lambda *_: None, lambda *_: None, lambda *_: None, times=Times(lambda: now_ms / 1000))


def microseconds(call: Callable[[], int]) -> float:
    """CPU time of one of as many as the call says that it did."""
    started = thread_time_ns()
    count = call()
    return (thread_time_ns() - started) / 1000 / count


def folding(rounds: int) -> None:
    chance = Random(7)
    records = [fill(chance, "KCN/EUR", NOW_MS - FILLS * 7 + number * 7) for number in range(FILLS)]
    trades = [
        (Decimal(event["price"]), Decimal(event["quantity"]), event["timestamp"]) for event in map(json.loads, records)
    ]
    late = [(price, quantity, time_ms - chance.randrange(3_600_000)) for price, quantity, time_ms in trades]

    def folded(market: Market) -> int:
        for offset, record in enumerate(records):
            market.fold(0, offset, record, NOW_MS)
        return len(records)

    def with_candles() -> int:
        return folded(new_market())

    def without() -> int:
        market = new_market()
        market.of("KCN/EUR").candles = market.settle("KCN/EUR", 0, -1).candles = Without(lambda: NOW_MS)
        return folded(market)

    def alone(fills: list[tuple[Decimal, Decimal, int]]) -> int:
        candles = Candles(lambda: NOW_MS)
        for offset, (price, quantity, time_ms) in enumerate(fills):
            candles.add(price, quantity, EXACT.multiply(price, quantity), time_ms, offset)
        return len(fills)

    runs = {
        "a fill, record to market": with_candles,
        "the same without candles": without,
        "folding alone": lambda: alone(trades),
        "folding alone, up to an hour late": lambda: alone(late),
    }
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            figures[name].append(microseconds(run))
    print(f"CPU microseconds a fill, medians of {rounds} rounds in turns, {FILLS} fills each")
    for name, values in figures.items():
        print(f"  {name:36} {statistics.median(values):8.2f}   ({min(values):.2f} to {max(values):.2f})")


def fill_up(candles: Candles, chance: Random) -> None:
    """All that is kept of each interval, as a market makes them that moves a thousandth in a period."""
    for series in candles._series:
        price = 1000.0
        for number in range(MOST_CANDLES + 200, 0, -1):
            moves = [price * (1 + chance.gauss(0, 0.001)) for _ in range(4)]
            price = moves[3]
            low, opened, closed, high = (Decimal(f"{move:.2f}") for move in sorted(moves))
            volume = Decimal(chance.randrange(1, 500_000)) / 1000
            start_ms = (NOW_MS // 86_400_000 + 2) * 86_400_000 - number * series.width_ms
            series.under_way = Candle(
                start_ms, opened, high, low, closed, volume, volume * closed, chance.randrange(1, 300), 120, 59_000
            )
            series.end(start_ms + series.width_ms)
        series.under_way = Candle(
            start_ms + series.width_ms, opened, high, low, closed, volume, volume * closed, 1, 0, 0
        )
    candles.revision = 1


def rows(candles: Candles, limit: int) -> int:
    return bool(candles.rows("1m", limit=limit))


def kept(symbols: int) -> None:
    chance = Random(7)
    market = new_market()
    for number in range(symbols):
        market.fold(0, number, fill(chance, f"S{number}/EUR", NOW_MS), NOW_MS)
    # To fold all of them takes minutes: each is taken back from what one of a few would have kept.
    few = []
    for _ in range(min(symbols, DIFFERENT)):
        filled = Candles(lambda: NOW_MS)
        fill_up(filled, chance)
        few.append(
            (filled.kept(), {number: page for number, page in filled.take_pages(everything=True).items() if page})
        )
    started = thread_time_ns()
    for under_way, pages in few:
        assert under_way is not None
        market.new_candles().restore(deepcopy(under_way), pages)
    restored = (thread_time_ns() - started) / 1e6 / len(few)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number, one in enumerate(market.on({0})):
        under_way, pages = few[number % len(few)]
        assert under_way is not None
        one.candles = market.new_candles()
        one.candles.restore(deepcopy(under_way), pages)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    total = after - before
    print(f"{symbols} symbols with {MOST_CANDLES} of each of {len(CANDLE_INTERVALS_MS)} intervals")
    print(f"  memory {total / 1e6:.0f} MB, {total / symbols / 1000:.0f} kB a symbol, "
          f"{total / symbols / MOST_CANDLES / len(CANDLE_INTERVALS_MS):.0f} bytes a candle; taken back in {restored:.1f} ms a symbol")  # fmt: skip
    candles = market.of("S0/EUR").candles
    for limit in (2, 100, MOST_CANDLES):
        took = [microseconds(partial(rows, candles, limit)) for _ in range(9)]
        print(f"  {limit} rows of text: {statistics.median(took):.0f} us")
    state = MarketState(market)
    records = [record for piece in state.cut(0, None, is_whole=True) for record in piece]
    mine = {kind: sum(len(key) + len(value or b"") for key, value in records if key.startswith(f"{kind}/") and value)
            for kind in ("candle", "candles")}  # fmt: skip
    print(
        f"  kept: {mine['candles'] / symbols / 1000:.0f} kB a symbol that have ended, {mine['candle'] / symbols:.0f} bytes under way"
    )
    minute = market.of("S0/EUR").candles._series[0]
    minute.end(minute.under_way.start_ms + 60_000)
    changed = [record for piece in state.cut(0, {"S0/EUR"}, is_whole=False) for record in piece]
    size = sum(len(key) + len(value or b"") for key, value in changed if key.startswith("candles/"))
    print(f"  a minute that ends: {size} bytes")


class Turns:
    """A loop with nothing but slices."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        self.longest = 0.0

    def timed(self, call: Callable[[], object]) -> None:
        started = thread_time()
        call()
        self.longest = max(self.longest, thread_time() - started)

    def run(self, hub: Hub) -> float:
        """Until nothing is left to do; the longest turn in milliseconds."""
        for _ in range(5_000):
            if self.waiting:
                self.timed(self.waiting.popleft())
            else:
                self.timed(hub.beat)
        longest, self.longest = self.longest, 0.0
        return longest * 1000


def overview() -> None:
    gc.collect()
    gc.disable()  # what it costs is not asked here
    market = new_market()
    hub = Hub(market, lambda: "epoch", perf_counter)
    turns = Turns()
    for sliced in (hub.slices, hub.fanout):
        sliced.slice_seconds = SLICE_SECONDS
        sliced.schedule_slice = turns.waiting.append
    symbols = [f"S{number}/EUR" for number in range(OVERVIEW)]
    hub.partition_changes.begin(0, 0)
    chance, offset = Random(7), 0
    for symbol in symbols:
        market.fold(0, offset, fill(chance, symbol, NOW_MS), NOW_MS)
        offset += 1
    hub.partition_changes.serve([0])

    def join() -> None:
        subscriber = Subscriber(Outbox(Transport(len), 1 << 20), lambda _code, _reason: None)
        hub.add(subscriber, stream=False)
        hub.subscribe(subscriber, [parse_channel("tickers.1000ms")])

    print(f"tickers of {OVERVIEW} symbols: the longest turn of the loop, slices of {SLICE_SECONDS * 1000:.0f} ms")
    for name in ("who joins first", "who joins later"):
        turns.timed(join)
        print(f"  {name:24} {turns.run(hub):6.1f} ms")
    for name, count in (("100 symbols change", 100), ("500 symbols change", 500), ("all change", OVERVIEW)):
        for symbol in symbols[:count]:
            news = market.fold(0, offset, fill(chance, symbol, NOW_MS), NOW_MS)
            offset += 1
            assert news is not None
            turns.timed(partial(hub.publish, [news]))
        print(f"  {name:24} {turns.run(hub):6.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.candles")
    parser.add_argument("--quick", action="store_true", help="few rounds and symbols: it works, no figures")
    is_quick = parser.parse_args().quick
    for line in machine.describe():
        print(line)
    folding(1 if is_quick else ROUNDS)
    kept(5 if is_quick else SYMBOLS)
    overview()


if __name__ == "__main__":
    main()
