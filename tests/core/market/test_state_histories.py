"""What is kept of the market: whatever happens, and whenever it is cut and taken back, it is as if nothing had ended."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market.book_views import BookView
from core.market.statistics import WINDOW_MS, DayPage, Statistics
from core.market.symbol_market import SymbolMarket
from core.messages.kept_state import KeptRecord
from core.messages.model import Side
from tests.core.fakes import delta, fill, filled, snapshot
from tests.core.market.kept import DAY, DAY_MS, HOUR_MS, NOW_MS, Kept, compacted, cursor, visible
from tests.support.examples import examples

# The day, page by page, beside the statistics themselves.

PRICES = [Decimal(price) for price in ("1", "1.0", "2", "3", "3.00", "4", "5")]
DAY_STEPS: dict[str, tuple[float, list[int]]] = {
    "trade": (6, [0, 0, 1, 9, 70_000, 1_000_000, 5_000_000]),
    "late": (3, [1, 8, 70_000, 3_000_000, 80_000_000]),
    "rush": (2, list(range(2, 13))),
    "pass": (1, [HOUR_MS, 20 * HOUR_MS, DAY_MS, 5 * DAY_MS]),
    "back": (1, [1, HOUR_MS, 25 * HOUR_MS, 3 * DAY_MS]),
    "take": (5, [0]),
    "fail": (0.5, [0]),
    "restore": (0.5, [0]),
}


def shown(statistics: Statistics) -> list[str]:
    return [str(getattr(statistics, name)) for name in (*DAY, "since_ms")] + [str(len(statistics))]


class KeptDay:
    """Statistics and their pages as they are written; `again` is made of those."""

    def __init__(self, max_buckets: int) -> None:
        self.max_buckets = max_buckets
        self.now_ms = NOW_MS
        self.statistics = Statistics(WINDOW_MS, max_buckets)
        self.pages: dict[int, bytes | None] = {}
        self.is_failed = False

    def take(self) -> dict[int, bytes | None]:
        pages = self.statistics.take_pages(everything=self.is_failed)
        return {number: page and msgspec.json.encode(page) for number, page in pages.items()}

    def add(self, price: Decimal, time_ms: int) -> None:
        self.statistics.add(price, Decimal("0.5"), price / 2, time_ms)

    def again(self) -> Statistics:
        before = self.statistics
        again = Statistics(WINDOW_MS, self.max_buckets)
        pages = [msgspec.json.decode(page, type=DayPage) for page in self.pages.values() if page]
        again.restore(pages[::-1], before.since_ms, before.width_ms, before.last_price)
        assert shown(again) == shown(before)
        for statistics in (again, before):
            statistics.expire(self.now_ms)
        return again

    def step(self, kind: str, amount: int, price: Decimal) -> None:
        if kind == "trade":
            self.now_ms += amount
            self.add(price, self.now_ms)
        elif kind == "late":
            self.add(price, self.now_ms - amount)
        elif kind == "rush":
            for _ in range(amount):
                self.now_ms += 3
                self.add(price, self.now_ms)
        elif kind in ("pass", "back"):
            self.now_ms += amount if kind == "pass" else -amount
            self.statistics.expire(self.now_ms)
        elif kind == "fail":
            self.take()
            self.is_failed = True
        else:
            self.pages.update(self.take())
            self.is_failed = False
            self.again()
            if kind == "restore":
                # It goes on from what was restored, and that from what it had taken before: all is taken anew.
                self.statistics = self.again()
                self.is_failed = True


@pytest.mark.parametrize("seed", range(examples(100)))
def test_day_is_made_again_of_its_pages(seed: int) -> None:
    chance = random.Random(seed)
    day = KeptDay(chance.choice([6, 12, 2_880]))
    for _ in range(150):
        [kind] = chance.choices(list(DAY_STEPS), [weight for weight, _ in DAY_STEPS.values()])
        day.step(kind, chance.choice(DAY_STEPS[kind][1]), chance.choice(PRICES))
    day.step("take", 0, PRICES[0])
    again = day.again()
    # Nor are the two told apart by what comes then.
    while again:
        assert again.since_ms is not None
        now_ms = again.since_ms + again.width_ms + WINDOW_MS - 1
        for statistics in (again, day.statistics):
            statistics.expire(now_ms)
        assert shown(again) == shown(day.statistics)


# All of it: an instance that writes, is replaced at any time, and the next one, beside one that was never replaced.

SYMBOLS = {0: ["A/A", "B/B"], 1: ["C/C"]}
PARTITION_OF = {symbol: partition for partition, symbols in SYMBOLS.items() for symbol in symbols}
LEVEL_PRICES = ["1.0", "1.00", "1.1", "1.2", "1.3", "1.30", "1.5", "1.6", "1.60", "1.7", "1.8", "2"]
MIDDLE = "1.4"


class World:
    """Both topics, who reads and keeps, and `reference`, who only reads."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.reference = Kept()
        self.log: dict[int, list[tuple[bytes, int]]] = {partition: [] for partition in SYMBOLS}
        self.topic: dict[int, list[KeptRecord]] = {partition: [] for partition in SYMBOLS}
        self.cursors: dict[int, int] = {}
        self.now_ms = NOW_MS
        self.sequence = 0
        self.begin()

    def begin(self) -> None:
        self.kept = Kept(self.now_ms)
        self.committed: dict[int, int] = {}
        self.is_whole = dict.fromkeys(SYMBOLS, True)
        self.view: BookView | None = None
        if self.chance.random() < 0.5:
            market = self.kept.market.of("A/A")
            market.listeners += 1
            self.view = market.open_view(None, None)

    def pass_time(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        self.reference.now_ms = self.kept.now_ms = self.now_ms

    def say(self) -> None:
        pick, symbol = self.chance.choice, self.chance.choice(list(PARTITION_OF))
        partition = PARTITION_OF[symbol]
        self.pass_time(pick([0, 0, 1, 1, 500, 20_000]))
        self.sequence += pick([0, 1, 5])
        record = self.record(symbol)
        self.log[partition].append((record, self.now_ms))
        for kept in (self.reference, self.kept):
            kept.market.fold(partition, len(self.log[partition]) - 1, record, self.now_ms)

    def record(self, symbol: str) -> bytes:
        pick = self.chance.choice
        ages = [0, 0, 0, 1, 1, 5_000, HOUR_MS, -30_000]
        timed: dict[str, Any] = {"timestamp": self.now_ms - pick(ages)} if pick([0, 1, 1]) else {}
        quantities = ["0", "0", "1", "1.0", "2.50", "7"]
        match pick(
            ["fill"] * 6 + ["delta"] * 6 + ["snapshot", "crossing", "crossed", "malformed", "private", "poison"]
        ):
            case "fill":
                more = {"taker_side": pick(["bid", "ask"])} if pick([0, 0, 1]) else {}
                timestamp = self.now_ms - pick(ages)
                price, quantity = pick([*LEVEL_PRICES, MIDDLE]), pick(["1", "0.50"])
                return fill(symbol, price=price, quantity=quantity, timestamp=timestamp, **more)
            case "delta":
                rows = [
                    {
                        "action": "update",
                        "side": "bid" if price < MIDDLE else "ask",
                        "price": price,
                        "quantity": pick(quantities),
                    }
                    for price in self.chance.sample(LEVEL_PRICES, self.chance.randrange(1, 5))
                ]
                return delta(symbol, self.sequence, deltas=rows, **timed)
            case "snapshot":
                sides: dict[str, Any] = {
                    side: [{"price": price, "quantity": pick(quantities)} for price in self.chance.sample(prices, 3)]
                    for side, prices in (("bids", LEVEL_PRICES[:6]), ("asks", LEVEL_PRICES[6:]))
                }
                return snapshot(symbol, self.sequence, **sides, **timed)
            case "crossing":
                return delta(symbol, self.sequence, price="1.9", **timed)
            case "crossed":
                return snapshot(symbol, self.sequence, bid="1.6", ask="1.5", **timed)
            case "malformed":
                return delta(symbol, self.sequence, deltas=[{"action": "replace"}])
            case "private":
                return filled(symbol=symbol)
        return b"{"

    def cut(self, partition: int, fails: bool) -> None:
        journal, market = self.kept.state.journal, self.kept.market
        next_offset = market.partitions.folded_to(partition) + 1
        generation = journal.rotate()
        since = self.committed.get(partition)
        keys = None if since is None else journal.since(partition, since)
        if partition not in market.partitions.folded:
            return
        records = []
        for piece in self.kept.state.cut(partition, keys, is_whole=self.is_whole[partition]):
            records += piece
            if fails and self.chance.random() < 0.4:
                break
            if self.chance.random() < 0.5:
                self.say()
        self.is_whole[partition] = fails
        if not fails:
            self.topic[partition] += records
            self.cursors[partition] = next_offset
            self.committed[partition] = generation

    def take_back(self, partition: int) -> None:
        """What is kept, as it was written or compacted, and reading from there or from earlier."""
        kept, records = self.kept, self.topic[partition]
        if self.chance.random() < 0.5:
            records = compacted(records)
            self.chance.shuffle(records)
        if self.chance.random() < 0.2:
            for record in records:
                kept.state.take_back(partition, *record)
            kept.state.discard(partition)
        for record in records:
            kept.state.take_back(partition, *record)
        next_offset = self.cursors.get(partition)
        start = 0
        if next_offset is None:
            kept.state.discard(partition)
        else:
            kept.state.resume({partition: cursor(next_offset)})
            start = self.chance.choice([next_offset, max(next_offset - 3, 0), 0])
            for market in kept.market.on({partition}):
                assert market.history.complete_after == max(market.offset, next_offset - 1)
        self.committed[partition] = kept.state.journal.generation
        self.is_whole[partition] = True
        kept.market.partitions.begin(partition, start)
        for offset, (record, time_ms) in enumerate(self.log[partition][start:], start):
            kept.market.fold(partition, offset, record, time_ms)
        self.look()

    def replace(self) -> None:
        """The process ends; another one begins."""
        self.begin()
        for partition in SYMBOLS:
            self.take_back(partition)

    def lose(self, partition: int) -> None:
        """A rebalance, and back again."""
        self.kept.market.forget(partition)
        self.take_back(partition)

    def look(self) -> None:
        reference, market = self.reference.market, self.kept.market
        for partition in market.partitions.folded:
            symbols = [found.symbol for found in reference.on({partition})]
            assert [found.symbol for found in market.on({partition})] == symbols
            for symbol in symbols:
                assert visible(market.of(symbol)) == visible(reference.of(symbol)), symbol
                self.look_back(market.of(symbol), reference.of(symbol))
        if self.view is not None and market.of("A/A").book.live:
            self.view.take()
            book = market.of("A/A").book
            told = [[(price, quantity) for price, _, quantity in side] for side in self.view.snapshot()]
            assert told == [book.levels(Side.BID), book.levels(Side.ASK)]

    def look_back(self, market: SymbolMarket, reference: SymbolMarket) -> None:
        after = market.history.complete_after
        assert [(entry.offset, entry.payload, entry.trade) for entry in market.history.after(-1)] == [
            (entry.offset, entry.payload, entry.trade) for entry in reference.history.after(after)
        ]

    def step(self) -> None:
        chance = self.chance
        [kind] = chance.choices(["say", "cut", "fail", "replace", "lose", "quiet"], [12, 4, 2, 1, 1, 0.4])
        partition = chance.choice(list(SYMBOLS))
        if kind == "say":
            for _ in range(chance.randrange(1, 12)):
                self.say()
        elif kind in ("cut", "fail"):
            self.cut(partition, fails=kind == "fail")
        elif kind == "replace":
            self.replace()
        elif kind == "lose":
            self.lose(partition)
        else:
            # What is read again is not folded as it was before a day that passed since; so nothing is to be read again.
            for each in SYMBOLS:
                self.cut(each, fails=False)
            self.pass_time(chance.choice([20 * HOUR_MS, DAY_MS - 1, DAY_MS + HOUR_MS, 26 * HOUR_MS]))


@pytest.mark.parametrize("seed", range(examples(60)))
def test_instance_that_is_replaced_at_any_time_knows_what_one_does_that_never_is(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(60):
        world.step()
        world.look()
    world.replace()


@settings(max_examples=examples(100))
@given(st.randoms(use_true_random=False), st.integers(1, 15))
def test_instance_that_is_replaced_soon_knows_what_one_does_that_never_is(chance: random.Random, steps: int) -> None:
    world = World(chance)
    for _ in range(steps):
        world.step()
    world.replace()
