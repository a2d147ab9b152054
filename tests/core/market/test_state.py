"""What is kept of the market: whatever happens and whenever it is cut, it is taken back as it was."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market.book_views import BookView
from core.market.market import Market
from core.market.state import MarketState
from core.market.statistics import MAX_BUCKETS, PAGE_MS, PAGES, WINDOW_MS, DayPage, Statistics
from core.market.symbol_market import SymbolMarket
from core.messages.events import Event
from core.messages.kept_state import VERSION, Cursor, KeptRecord
from core.messages.model import Side, decimal_text
from core.messages.times import Times
from tests.core.fakes import delta, fill, filled, snapshot
from tests.support.examples import examples

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
DAY = ("high", "low", "open", "volume", "value", "change", "last_price", "width_ms")
GOLDEN = Path(__file__).parents[2] / "vectors" / "state" / "v1" / "market.json"


def cursor(market: int) -> Cursor:
    return Cursor(VERSION, "market life", "order life", market, {}, {}, None, NOW_MS)


class Kept:
    """A market with its state, and the clock of both."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms
        self.heard: list[tuple[Event, int, int, int]] = []
        self.stale: list[tuple[str, str]] = []
        self.poisoned: list[int] = []
        self.market = Market(
            on_poisoned=lambda _poison, _partition, offset: self.poisoned.append(offset),
            on_event=lambda *heard: self.heard.append(heard),
            on_stale=lambda *told: self.stale.append(told),
            times=Times(lambda: (self.now_ms + 0.5) / 1000),
        )
        self.state = MarketState(self.market)

    def fold(self, *records: bytes, first: int = 0, partition: int = 0) -> None:
        for offset, record in enumerate(records, first):
            self.market.fold(partition, offset, record, self.now_ms)

    def cut(self, keys: set[str] | None = None, is_whole: bool = False, partition: int = 0) -> list[KeptRecord]:
        return [record for piece in self.state.cut(partition, keys, is_whole=is_whole) for record in piece]

    def restore(self, records: Iterable[KeptRecord], next_offset: int, partition: int = 0) -> None:
        for record in records:
            self.state.take_back(partition, *record)
        self.state.resume({partition: cursor(next_offset)})


def restored(records: Iterable[KeptRecord], next_offset: int, now_ms: int = NOW_MS) -> Kept:
    kept = Kept(now_ms)
    kept.restore(records, next_offset)
    return kept


def compacted(records: Iterable[KeptRecord]) -> list[KeptRecord]:
    return [KeptRecord(*item) for item in dict(records).items()]


def values(records: Iterable[KeptRecord]) -> dict[str, Any]:
    return {key: None if value is None else json.loads(value) for key, value in records}


def written(records: Iterable[KeptRecord]) -> list[str]:
    """The keys that have a value."""
    return [key for key, value in records if value is not None]


def levels(market: SymbolMarket) -> dict[str, list[tuple[str, str]]]:
    return {
        side: [(decimal_text(price), decimal_text(quantity)) for price, quantity in market.book.levels(side)]
        for side in Side
    }


def visible(market: SymbolMarket) -> dict[str, Any]:
    """All that can be told of a symbol now, down to the digits."""
    market.move_on()
    stats, book = market.statistics, market.book
    view = market.open_view(None, 5)
    view.take()
    window = view.snapshot()
    market.views.close(view)
    return {
        "place": (market.partition, market.offset, market.time_ms),
        "book": (levels(market), book.sequence, book.known, book.stale, str(market.mark())),
        "snapshot": book.snapshot_event() if book.known else None,
        "day": [str(getattr(stats, name)) for name in DAY],
        "buckets": (len(stats), stats.since_ms),
        "trades": [(trade.as_tuple(), trade.as_object()) for trade in market.trades],
        "trade count": market.trade_count,
        "tick": market.previous_tick,
        "text": market.state_text(),
        "view": [[tuple(map(str, row)) for row in side] for side in window],
    }


# What is written.


def book_of(levels: int, sequence: int = 1) -> bytes:
    bids = [{"price": f"{1000 - number}", "quantity": "1"} for number in range(levels)]
    asks = [{"price": f"{1001 + number}", "quantity": "1"} for number in range(levels)]
    return snapshot(sequence=sequence, bids=bids, asks=asks)


def levels_of(side: str, count: int, sequence: int = 2, quantity: str = "5") -> bytes:
    sign, best = (-1, 1000) if side == "bid" else (1, 1001)
    rows = [
        {"action": "update", "side": side, "price": str(best + sign * number), "quantity": quantity}
        for number in range(count)
    ]
    return delta(sequence=sequence, deltas=rows)


def test_first_description_has_every_key_of_a_symbol_so_that_none_of_another_writer_remains() -> None:
    kept = Kept()
    kept.fold(snapshot(), fill())
    records = kept.cut()
    assert len(records) == len(dict(records)) == 3 + 11 + PAGES
    [day] = [key for key in written(records) if key.startswith("day/")]
    assert written(records) == ["symbol/KCN/EUR", "book/KCN/EUR", "trades/KCN/EUR/0", day]
    assert kept.cut({"KCN/EUR"}, is_whole=True) == records


def test_description_of_a_book_has_its_changes_until_they_are_many() -> None:
    kept = Kept()
    kept.fold(book_of(400), fill())
    kept.cut()
    kept.fold(levels_of("bid", 2), first=2)
    first = values(kept.cut({"KCN/EUR"}))
    assert list(first) == ["symbol/KCN/EUR", "changes/KCN/EUR"]
    assert first["changes/KCN/EUR"] == {"since": 1, "bids": [["999", "5"], ["1000", "5"]], "asks": []}
    kept.fold(levels_of("ask", 1, quantity="0"), first=3)
    second = values(kept.cut({"KCN/EUR"}))
    assert second["changes/KCN/EUR"] == {"since": 1, "bids": [["999", "5"], ["1000", "5"]], "asks": [["1001", "0"]]}
    kept.fold(levels_of("bid", 300), first=4)
    many = kept.cut({"KCN/EUR"})
    assert [key for key, _ in many] == ["symbol/KCN/EUR", "book/KCN/EUR", "changes/KCN/EUR"]
    assert dict(many)["changes/KCN/EUR"] is None
    kept.fold(fill(), first=5)
    assert [key.partition("/")[0] for key, _ in kept.cut({"KCN/EUR"})] == ["symbol", "trades", "day"]


def test_description_has_the_book_whole_when_a_snapshot_replaced_it() -> None:
    kept = Kept()
    kept.fold(snapshot())
    kept.cut()
    kept.fold(snapshot(sequence=9, bid="1.5"), first=1)
    records = kept.cut({"KCN/EUR"})
    assert [key for key, _ in records] == ["symbol/KCN/EUR", "book/KCN/EUR"]
    assert restored(kept.cut(is_whole=True), 2).market.of("KCN/EUR").book.sequence == 9


def test_description_has_the_pages_of_trades_that_are_new() -> None:
    kept = Kept()
    kept.fold(*(fill(timestamp=NOW_MS + number) for number in range(115)))
    whole = values(kept.cut())
    assert {key: page["first"] for key, page in whole.items() if key.startswith("trades/") and page} == {
        f"trades/KCN/EUR/{page}": first
        for page, first in [(1, 15), *((page, page * 10) for page in range(2, 11)), (0, 110)]
    }
    kept.fold(fill(timestamp=NOW_MS), first=115)
    new = values(kept.cut({"KCN/EUR"}))
    assert [key for key in new if key.startswith("trades/")] == ["trades/KCN/EUR/0"]
    assert (new["trades/KCN/EUR/0"]["first"], len(new["trades/KCN/EUR/0"]["trades"])) == (110, 6)
    kept.fold(*(fill(timestamp=NOW_MS) for _ in range(500)), first=116)
    assert len([key for key in values(kept.cut({"KCN/EUR"})) if key.startswith("trades/")]) == 11


def test_description_has_the_pages_of_the_day_that_changed() -> None:
    kept = Kept()
    early, late = NOW_MS - HOUR_MS, NOW_MS
    kept.fold(fill(timestamp=early), fill(timestamp=late))
    kept.cut()
    kept.fold(fill(timestamp=late + 1), first=2)
    assert [key for key in values(kept.cut({"KCN/EUR"})) if key.startswith("day/")] == [
        f"day/KCN/EUR/{late // PAGE_MS % PAGES}"
    ]
    kept.fold(fill(timestamp=early + 1), first=3)
    assert [key for key in values(kept.cut({"KCN/EUR"})) if key.startswith("day/")] == [
        f"day/KCN/EUR/{early // PAGE_MS % PAGES}"
    ]
    kept.fold(delta(), first=4)
    assert [key for key, _ in kept.cut({"KCN/EUR"})] == ["symbol/KCN/EUR"]


def test_description_forgets_a_symbol_that_lives_elsewhere_by_now() -> None:
    kept = Kept()
    kept.fold(snapshot("A/A"), snapshot("B/B"))
    first = kept.cut()
    kept.fold(snapshot("A/A"), partition=1)
    assert kept.state.journal.since(0, 0) == {"A/A", "B/B"}
    gone = kept.cut({"A/A"})
    assert {key for key, _ in gone} == {key for key, _ in first if "/A/A" in key}
    assert written(gone) == []
    assert written(kept.cut({"A/A"}, partition=1)) == ["symbol/A/A", "book/A/A"]


def test_description_of_everything_forgets_what_was_taken_back_and_is_not_known() -> None:
    kept = Kept()
    kept.state.take_back(0, "book/OLD/EUR", b'{"at":5,"bids":[],"asks":[]}')
    kept.state.discard(0)
    kept.state.resume({0: cursor(0)})
    kept.fold(snapshot())
    records = dict(kept.cut(is_whole=True))
    assert records["book/OLD/EUR"] is records["symbol/OLD/EUR"] is records["day/OLD/EUR/99"] is None
    assert records["symbol/KCN/EUR"] is not None


def test_description_ends_when_nobody_knows_what_lives_on_a_partition() -> None:
    kept = Kept()
    with pytest.raises(LookupError):
        kept.cut()
    kept.fold(snapshot("A/A"), snapshot("B/B"))
    pieces = kept.state.cut(0, None, is_whole=True)
    assert next(pieces)
    kept.market.forget(0)
    with pytest.raises(LookupError):
        next(pieces)
    kept.market.partitions.begin(0, 2)
    kept.fold(snapshot("A/A"), snapshot("B/B"), first=2)
    pieces = kept.state.cut(0, None, is_whole=True)
    next(pieces)
    kept.market.forget(0)
    kept.market.partitions.begin(0, 2)
    with pytest.raises(LookupError):
        next(pieces)


def test_description_is_of_one_moment_whatever_is_folded_between_two_of_them() -> None:
    kept = Kept()
    kept.fold(snapshot("A/A"), snapshot("B/B"))
    records = []
    for piece in kept.state.cut(0, None, is_whole=True):
        records += piece
        kept.fold(delta("A/A", sequence=5), delta("B/B", sequence=5), first=2)
    again = restored(records, 2).market
    assert (again.of("A/A").offset, again.of("A/A").book.sequence) == (0, 1)
    assert (again.of("B/B").offset, again.of("B/B").book.sequence) == (3, 5)


def test_journal_names_what_changes() -> None:
    kept = Kept()
    journal = kept.state.journal

    def changed_by(record: bytes, offset: int) -> set[str]:
        generation = journal.rotate()
        kept.fold(record, first=offset)
        return journal.since(0, generation)

    assert changed_by(snapshot(), 0) == {"KCN/EUR"}
    assert changed_by(filled(symbol="KCN/EUR"), 1) == set()
    assert changed_by(fill(symbol="A/A"), 2) == {"A/A"}
    malformed = delta(deltas=[{"action": "replace"}])
    assert changed_by(malformed, 3) == {"KCN/EUR"}
    assert changed_by(malformed, 4) == set(), "nothing is left to distrust"
    assert changed_by(delta(), 4) == {"KCN/EUR"}


# What is taken back.


def busy() -> Kept:
    kept = Kept()
    kept.fold(
        snapshot(bid="1.40", ask="1.6"),
        fill(price="1.6", timestamp=NOW_MS - 30 * 60_000),
        fill(price="1.50", timestamp=NOW_MS),
        delta(sequence=7, price="1.30"),
    )
    return kept


def test_symbol_is_as_it_was() -> None:
    kept = busy()
    again = restored(compacted(kept.cut()), 9)
    assert visible(again.market.of("KCN/EUR")) == visible(kept.market.of("KCN/EUR"))
    assert again.market.symbols == ["KCN/EUR"]
    assert (again.stale, again.heard) == ([], [])


@pytest.mark.parametrize(("next_offset", "complete_after"), [(2, 3), (9, 8)])
def test_history_of_a_restored_symbol_begins_after_what_was_restored(next_offset: int, complete_after: int) -> None:
    again = restored(busy().cut(), next_offset)
    history = again.market.of("KCN/EUR").history
    assert (history.complete_after, len(history)) == (complete_after, 0)
    again.fold(delta(), first=9)
    assert [entry.offset for entry in history.after(-1)] == [9]


def test_records_that_are_a_part_of_what_was_restored_are_told_and_not_folded_again() -> None:
    kept = busy()
    again = restored(kept.cut(), 2)
    again.market.partitions.begin(0, 1)
    before = visible(again.market.of("KCN/EUR"))
    malformed = delta(deltas=[{"action": "replace"}])
    for offset, record in [(1, fill()), (2, malformed), (3, delta())]:
        assert again.market.fold(0, offset, record, NOW_MS) is None
    assert visible(again.market.of("KCN/EUR")) == before
    assert len(again.market.of("KCN/EUR").history) == 0
    assert [offset for _, _, offset, _ in again.heard] == [1, 3]
    assert (again.poisoned, again.stale) == ([2], [])
    assert again.market.fold(0, 4, malformed, NOW_MS) is None
    assert again.stale == [("KCN/EUR", "malformed")]
    assert again.market.fold(0, 5, fill(), NOW_MS) is not None


def test_event_that_could_not_be_folded_is_a_part_of_what_is_kept() -> None:
    kept = busy()

    class Broken(Statistics):
        def add(self, price: Decimal, quantity: Decimal, timestamp_ms: int) -> None:
            raise RuntimeError("statistics")

    kept.market.of("KCN/EUR").statistics = Broken()
    kept.fold(fill(), first=4)
    kept.market.of("KCN/EUR").statistics.last_price = Decimal(1)
    again = restored(kept.cut(), 4)
    again.fold(fill(), first=4)
    assert len(again.market.of("KCN/EUR").trades) == 3


def test_offsets_begin_again_with_a_partition() -> None:
    again = restored(busy().cut(), 9)
    again.market.forget(0)
    assert again.market.symbols == []
    again.market.of("KCN/EUR").listeners += 1
    again.restore(busy().cut(), 9)
    assert again.market.of("KCN/EUR").offset == 3
    again.market.forget(0)
    again.market.partitions.begin(0, 0)
    assert again.market.fold(0, 0, snapshot(), NOW_MS) is not None
    assert again.market.of("KCN/EUR").book.live


def test_book_that_was_distrusted_is_so_again() -> None:
    kept = busy()
    kept.fold(delta(price="1.7"), first=4)
    again = restored(kept.cut(), 5)
    assert visible(again.market.of("KCN/EUR")) == visible(kept.market.of("KCN/EUR"))
    assert again.market.of("KCN/EUR").book.stale
    again.fold(snapshot(), first=5)
    assert again.market.of("KCN/EUR").book.live


def test_symbol_whose_trades_are_older_than_a_day_keeps_the_last_price_only() -> None:
    again = restored(busy().cut(), 4, NOW_MS + DAY_MS)
    market = again.market.of("KCN/EUR")
    assert (market.statistics.last_price, market.statistics.high, market.statistics.volume) == (
        Decimal("1.50"),
        None,
        0,
    )
    assert len(market.trades) == 2


def test_symbol_has_wide_buckets_again() -> None:
    kept = Kept()
    kept.fold(*(fill(timestamp=NOW_MS - HOUR_MS + number, price=str(number + 1)) for number in range(MAX_BUCKETS)))
    records = kept.cut()
    kept.fold(fill(timestamp=NOW_MS), fill(timestamp=NOW_MS - 2 * HOUR_MS), first=MAX_BUCKETS)
    assert kept.market.of("KCN/EUR").statistics.width_ms > 1
    again = restored(compacted(records + kept.cut({"KCN/EUR"})), MAX_BUCKETS + 2)
    assert visible(again.market.of("KCN/EUR")) == visible(kept.market.of("KCN/EUR"))


def test_price_of_a_level_has_the_digits_it_has_now() -> None:
    kept = Kept()
    kept.fold(snapshot(bid="1.0"))
    records = kept.cut()
    kept.fold(
        delta(price="1.000", deltas=[{"action": "remove", "side": "bid", "price": "1.000"}]),
        delta(price="1.00"),
        first=1,
    )
    records += kept.cut({"KCN/EUR"})
    again = restored(compacted(records), 3)
    assert levels(again.market.of("KCN/EUR")) == levels(kept.market.of("KCN/EUR"))
    assert levels(again.market.of("KCN/EUR"))["bid"] == [("1.00", "5")]


def test_nothing_is_known_before_all_is_taken_back() -> None:
    kept = Kept()
    for record in busy().cut():
        kept.state.take_back(0, *record)
    kept.state.take_back(1, "symbol/A/A", None)
    assert kept.market.symbols == []
    kept.state.resume({1: cursor(0)})
    assert kept.market.symbols == [], "another partition"
    kept.state.resume({0: cursor(4)})
    assert kept.market.symbols == ["KCN/EUR"]


def test_what_is_discarded_was_never_there() -> None:
    kept = Kept()
    for record in busy().cut():
        kept.state.take_back(0, *record)
    kept.state.discard(0)
    kept.state.discard(1)
    kept.state.take_back(0, "changes/KCN/EUR", b'{"since":3,"bids":[],"asks":[]}')
    kept.state.resume({0: cursor(4)})
    assert kept.market.symbols == []


def test_listener_of_a_symbol_sees_what_was_restored() -> None:
    kept = Kept()
    market = kept.market.of("KCN/EUR")
    market.listeners += 1
    view = market.open_view(None, None)
    assert view.take() == ([], [])
    kept.restore(busy().cut(), 4)
    bids, asks = view.take()
    assert [str(price) for price, _, _ in bids + asks] == ["1.40", "1.30", "1.6"]


def altered(records: list[KeptRecord], key: str, **more: object) -> list[KeptRecord]:
    [page] = [found for found in written(records) if found.startswith(key)]
    changed = {**values(records)[page], **more}
    return [*records, KeptRecord(page, json.dumps(changed).encode())]


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("symbol/", {"at": -1}),
        ("symbol/", {"at": "3"}),
        ("symbol/", {"time_ms": None}),
        ("symbol/", {"sequence": None}),
        ("symbol/", {"trades": 0}),
        ("symbol/", {"last_price": None}),
        ("symbol/", {"previous_tick": "up"}),
        ("book/", {"bids": [["NaN", "1"]]}),
        ("book/", {"bids": [["NaN", "1"], ["1", "1"]]}),
        ("book/", {"bids": [["-1", "1"]]}),
        ("book/", {"asks": [["Infinity", "1"]]}),
        ("book/", {"asks": [["7", "-1"]]}),
        ("book/", {"asks": [["7", "NaN"]]}),
        ("book/", {"asks": [["7", "1e999999"], ["8", "1"]]}),
        ("book/", {"asks": [["7", "sNaN"], ["sNaN", "1"]]}),
        ("book/", {"asks": [["7"]]}),
        ("book/", {"asks": [["1.40", "1"]]}),
        ("trades/", {"first": 1}),
        ("trades/", {"trades": []}),
        ("day/KCN/EUR/88", {"buckets": []}),
        ("day/KCN/EUR/88", {"highs": []}),
        ("day/KCN/EUR/88", {"lows": [[NOW_MS + 1, "1"]]}),
        ("day/KCN/EUR/88", {"highs": [[NOW_MS, "NaN"]]}),
        ("day/KCN/EUR/88", {"buckets": [[NOW_MS, NOW_MS, "NaN", "1", "1"]]}),
        ("day/KCN/EUR/88", {"buckets": [[NOW_MS, NOW_MS, "1", "NaN", "1"]]}),
        ("day/KCN/EUR/88", {"buckets": [[NOW_MS, NOW_MS, "1", "1", "1"]] * 2}),
    ],
)  # fmt: skip
def test_record_that_contradicts_itself_or_the_others_is_refused_with_its_key(
    key: str, more: dict[str, object]
) -> None:
    records = busy().cut()
    kept = Kept()
    with pytest.raises(ValueError, match=f"^{key.partition('/')[0]}/KCN/EUR"):
        kept.restore(altered(records, key, **more), 4)
    assert kept.market.symbols == []
    kept.state.discard(0)
    kept.restore(records, 4)
    assert kept.market.symbols == ["KCN/EUR"]


def test_days_with_other_buckets_than_they_say_are_refused() -> None:
    records = busy().cut()
    for more in ({"day_since_ms": 5}, {"day_width_ms": 7}, {"day_width_ms": 60_000}):
        with pytest.raises(ValueError, match=r"^day/KCN/EUR"):
            restored(altered(records, "symbol/", **more), 4)


def test_book_or_changes_that_are_missing_are_refused() -> None:
    kept = busy()
    records = kept.cut()
    with pytest.raises(ValueError, match=r"^book/KCN/EUR"):
        restored([record for record in records if not record.key.startswith("book/")], 4)
    with pytest.raises(ValueError, match=r"^book/KCN/EUR"):
        restored([*records, KeptRecord("changes/KCN/EUR", b'{"since":2,"bids":[],"asks":[]}')], 4)
    with pytest.raises(ValueError, match=r"^book/KCN/EUR"):
        restored([*records, KeptRecord("changes/KCN/EUR", b'{"since":3,"bids":[["1.7","1"]],"asks":[]}')], 4)


@pytest.mark.parametrize(
    "key",
    ["", "symbol", "symbol/", "symbol/KCN", "symbol/KCN/EUR/1", "trades/KCN/EUR", "trades/KCN/EUR/11", "trades/KCN/EUR/-1",
     "day/KCN/EUR/100", "day/KCN/EUR/x", "order/1", "book/KCN.EUR"],
)  # fmt: skip
def test_key_of_nobody_here_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: "):
        Kept().state.take_back(0, key, b"{}")


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b"\xff", b'{"at":"\xff"}', b"null"])
def test_value_that_cannot_be_read_is_refused(value: bytes) -> None:
    for key in ("symbol/A/A", "book/A/A", "changes/A/A", "trades/A/A/0", "day/A/A/0"):
        with pytest.raises(ValueError, match=f"^{key}: "):
            Kept().state.take_back(0, key, value)


# The format, as it lies on topics that are there.


def golden() -> Kept:
    """A little of everything: changes on top of a book, two pages of trades, two of the day, a distrusted book, an unknown one."""
    kept = Kept()
    kept.fold(
        snapshot(bid="1.40", ask="1.6"),
        *(fill(price=f"1.{50 + number}", timestamp=NOW_MS - HOUR_MS + number * 400_000) for number in range(11)),
        snapshot("STALE/EUR", bid="7", ask="6"),
        fill("NEW/EUR", taker_side="ask", price="1E-7", quantity="100"),
    )
    return kept


def golden_records() -> list[KeptRecord]:
    kept = golden()
    records = kept.cut()
    kept.fold(
        delta(sequence=8, price="1.30"),
        delta(sequence=9, deltas=[{"action": "remove", "side": "ask", "price": "1.6"}]),
        fill(price="1.5", quantity="0.25", timestamp=NOW_MS),
        first=14,
    )
    records += kept.cut({"KCN/EUR"})
    return [record for record in compacted(records) if record.value is not None]


def test_records_of_version_1_are_written_as_they_were() -> None:
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert [(key, value and value.decode()) for key, value in golden_records()] == [
        (record["key"], record["value"]) for record in kept
    ]


def test_records_of_version_1_are_read() -> None:
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    again = restored([KeptRecord(record["key"], record["value"].encode()) for record in kept], 17)
    market = again.market.of("KCN/EUR")
    assert (market.offset, market.time_ms, market.book.sequence, market.book.live) == (16, NOW_MS, 9, True)
    assert levels(market) == {"bid": [("1.40", "1"), ("1.30", "5")], "ask": []}
    stats = market.statistics
    assert [str(getattr(stats, name)) for name in ("high", "low", "open", "last_price", "volume", "value")] == [
        "1.60", "1.5", "1.50", "1.5", "22.25", "34.475",
    ]  # fmt: skip
    assert (len(market.trades), market.trade_count, market.previous_tick) == (12, 12, "sell")
    assert market.trades[-1].as_object() == (
        '{"price":1.5,"quantity":0.25,"side":"buy","timestamp":1700000000000,"buy_order_id":"b","sell_order_id":"s"}'
    )
    stale, new = again.market.of("STALE/EUR"), again.market.of("NEW/EUR")
    assert (stale.book.known, stale.book.stale, levels(stale)["bid"]) == (True, True, [("7", "1")])
    assert (new.book.known, new.trades[0].as_tuple()) == (False, '[0.0000001,100,"sell",1700000000.000,false]')


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
        self.statistics.add(price, Decimal("0.5"), time_ms)

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
