"""What is kept of the market: which records are written, and what is taken back of them."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core.market.candles import CANDLE_PAGES
from core.market.ladder import Ladder
from core.market.statistics import MAX_BUCKETS, PAGE_MS, PAGES, Statistics
from core.messages.kept_state import READABLE_VERSIONS, VERSION, KeptRecord
from core.messages.model import Side
from tests.core.fakes import delta, fill, filled, snapshot
from tests.core.market.kept import (
    DAY_MS,
    HOUR_MS,
    NOW_MS,
    Kept,
    compacted,
    cursor,
    levels,
    restored,
    values,
    visible,
    written,
)

GOLDEN = Path(__file__).parents[2] / "vectors" / "state"


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
    assert len(records) == len(dict(records)) == 4 + 11 + PAGES + CANDLE_PAGES
    [day] = [key for key in written(records) if key.startswith("day/")]
    assert written(records) == ["symbol/KCN/EUR", "book/KCN/EUR", "trades/KCN/EUR/0", day, "candle/KCN/EUR"]
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
    assert [key.partition("/")[0] for key, _ in kept.cut({"KCN/EUR"})] == ["symbol", "trades", "day", "candle"]


def test_description_has_the_book_whole_when_as_many_levels_were_told_as_its_changes() -> None:
    kept = Kept()
    kept.fold(book_of(400))
    kept.cut()
    told = []
    for offset in range(1, 23):
        kept.fold(levels_of("bid", 40, quantity=str(offset)), first=offset)
        told += [key.partition("/")[0] for key in written(kept.cut({"KCN/EUR"})) if not key.startswith("symbol/")]
    assert told == 2 * [*["changes"] * 10, "book"]


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
    generation = kept.state.journal.rotate()
    kept.fold(snapshot("A/A"), partition=1)
    assert kept.state.journal.since(0, generation) == {"A/A"}
    gone = kept.cut({"A/A"})
    assert {key for key, _ in gone} == {key for key, _ in first if "/A/A" in key}
    assert written(gone) == []
    moved = kept.cut({"A/A"}, partition=1)
    assert written(moved) == ["symbol/A/A", "book/A/A"]
    assert {key for key, _ in moved} == {key for key, _ in gone}, "described there for the first time"


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
    pieces = kept.state.cut(0, {"GONE/EUR"}, is_whole=True)
    kept.market.forget(0)
    with pytest.raises(LookupError):
        next(pieces)
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


def test_ladder_that_is_another_one_notes_no_changes_of_what_it_was() -> None:
    ladder = Ladder(Side.BID)
    ladder.note_changes()
    ladder.become(Ladder(Side.BID, [(Decimal(1), Decimal(2))]))
    assert ladder.changed is None
    assert (ladder.levels(), ladder.total) == ([(1, 2)], 2)


@pytest.mark.parametrize("count", [2, 60])
def test_changed_levels_are_those_of_now_in_order_of_price(count: int) -> None:
    ladder = Ladder(Side.BID, [(Decimal(price), Decimal(1)) for price in range(1, 101)])
    ladder.note_changes()
    for price in range(count, 0, -1):
        ladder.put(Decimal(price), Decimal(price % 2))
    ladder.put(Decimal(1), Decimal(0))
    ladder.put(Decimal("1.00"), Decimal("5.0"))
    expected = [("1.00", "5.0"), *[(str(price), str(price % 2)) for price in range(2, count + 1)]]
    assert [(str(price), str(quantity)) for price, quantity in ladder.changed_levels()] == expected


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
    assert not view.take()
    kept.restore(busy().cut(), 4)
    view.take()
    bids, asks = view.taken()
    assert [str(price) for price, _, _ in bids + asks] == ["1.40", "1.30", "1.6"]


NO_TRADE = {
    "price": "NaN",
    "quantity": "1",
    "side": "buy",
    "timestamp_ms": 0,
    "buy_order_id": "b",
    "sell_order_id": "s",
}


A_TRADE = {**NO_TRADE, "price": "1"}
BAD_OFFSETS = [[2, 1], [1, 1], [1, None], [-2, 1], [2, 4]]


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
        ("trades/", {"trades": [NO_TRADE, NO_TRADE]}),
        *(("trades/", {"trades": [{**A_TRADE, "offset": at} for at in offsets]}) for offsets in BAD_OFFSETS),
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
     "day/KCN/EUR/100", "day/KCN/EUR/x", "candles/KCN/EUR/60", "order/1", "book/KCN.EUR"],
)  # fmt: skip
def test_key_of_nobody_here_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: "):
        Kept().state.take_back(0, key, b"{}")


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b"\xff", b'{"at":"\xff"}', b"null"])
def test_value_that_cannot_be_read_is_refused(value: bytes) -> None:
    for key in ("symbol/A/A", "book/A/A", "changes/A/A", "trades/A/A/0", "day/A/A/0", "candle/A/A", "candles/A/A/0"):
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


def golden_file(version: int, name: str = "market.json") -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((GOLDEN / f"v{version}" / name).read_text(encoding="utf-8"))
    return found


def test_records_of_this_version_are_written_as_they_were() -> None:
    kept = golden_file(VERSION)
    assert [(key, unpacked(value)) for key, value in golden_records()] == [
        (record["key"], unpacked(record["value"])) for record in kept
    ]


def unpacked(value: str | bytes | None) -> dict[str, Any]:
    """Not every build of zlib packs the same lines the same."""
    found: dict[str, Any] = json.loads(value or "")
    if "lines" in found:
        found["lines"] = zlib.decompress(b64decode(found["lines"]))
    return found


def restored_golden(version: int, name: str = "market.json") -> Kept:
    return restored([KeptRecord(one["key"], one["value"].encode()) for one in golden_file(version, name)], 17)


def test_candles_begin_with_what_follows_when_what_is_kept_has_none() -> None:
    again = restored_golden(1)
    candles = again.market.of("KCN/EUR").candles
    assert (candles.revision, candles.rows("1d", limit=5)) == (-1, [])
    again.fold(fill(price="2", timestamp=NOW_MS), first=17)
    [row] = again.market.of("KCN/EUR").candles.rows("1d", limit=5)
    assert row.split(",")[1:] == ['"2"', '"2"', '"2"', '"2"', '"2"', '"4"', "1", "false]"]
    records = again.cut({"KCN/EUR"}, is_whole=True)
    assert restored(records, 18).market.of("KCN/EUR").candles.rows("1d", limit=5) == [row]


def test_candles_are_taken_back_as_they_were_kept() -> None:
    rows = restored_golden(2).market.of("KCN/EUR").candles.rows("1m", limit=100)
    assert rows[:-1] == golden().market.of("KCN/EUR").candles.rows("1m", limit=100)[:-1]
    assert rows[-1] == f'[{NOW_MS - NOW_MS % 60_000},"1.59","1.60","1.5","1.5","4.25","6.755",3,false]'
    assert len(rows) == 61


def test_candles_that_have_ended_without_any_under_way_are_refused() -> None:
    records = [KeptRecord(*record) for record in golden_records() if record.key != "candle/KCN/EUR"]
    with pytest.raises(ValueError, match=r"^candle/KCN/EUR: "):
        restored(records, 17)


@pytest.mark.parametrize(
    ("version", "name"),
    [(1, "market_without_trade_offsets.json"), *((one, "market.json") for one in READABLE_VERSIONS)],
)
def test_records_of_each_version_are_read(version: int, name: str) -> None:
    again = restored_golden(version, name)
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
    names = [f"0-{offset}" for offset in (*range(1, 12), 16)] if name == "market.json" else [None] * 12
    assert [trade.trade_id for trade in market.trades] == names
    assert market.trades[-1].as_named_tuple().endswith(f",false,{json.dumps(names[-1])}]")
