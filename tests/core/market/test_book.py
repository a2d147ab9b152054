from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.market.book import OrderBook
from core.market.ladder import Change
from core.messages.events import BookDelta, BookSnapshot, Delta, Level, read_event
from core.messages.model import Side


def levels(*pairs: tuple[str, str]) -> tuple[Level, ...]:
    return tuple((Decimal(price), Decimal(quantity)) for price, quantity in pairs)


def snapshot(bids: tuple[Level, ...] = (), asks: tuple[Level, ...] = (), sequence: int = 1) -> BookSnapshot:
    return BookSnapshot("orderbook_snapshot", b"", None, "KCN/EUR", sequence, bids, asks)


def delta(*changes: tuple[str, Side, str, str], sequence: int = 2) -> BookDelta:
    deltas = tuple((action, side, Decimal(price), Decimal(quantity)) for action, side, price, quantity in changes)
    return BookDelta("orderbook_delta", b"", None, "KCN/EUR", sequence, deltas)


@pytest.fixture
def book() -> OrderBook:
    book = OrderBook("KCN/EUR")
    book.apply_snapshot(snapshot(levels(("1.0", "5"), ("0.9", "6"), ("0.8", "7")), levels(("1.1", "8"), ("1.2", "9"))))
    return book


def test_order_book_is_empty_and_not_live_before_a_snapshot() -> None:
    book = OrderBook("KCN/EUR")
    assert (book.symbol, book.sequence, book.known, book.stale, book.live) == ("KCN/EUR", None, False, False, False)
    for side in Side:
        assert book.levels(side) == []
        assert book.best(side) is None
    with pytest.raises(ValueError, match="KCN/EUR"):
        book.snapshot_event()


def test_order_book_ignores_deltas_before_a_snapshot() -> None:
    book = OrderBook("KCN/EUR")
    assert book.apply_delta(delta(("add", Side.BID, "1", "1"))) is None
    assert (book.sequence, book.known, book.levels(Side.BID)) == (None, False, [])


def test_order_book_replaces_every_level_on_a_snapshot(book: OrderBook) -> None:
    book.apply_snapshot(snapshot(levels(("0.5", "1")), (), sequence=7))
    assert (book.sequence, book.live) == (7, True)
    assert book.levels(Side.BID) == [(Decimal("0.5"), Decimal(1))]
    assert book.levels(Side.ASK) == []


def test_order_book_sorts_a_snapshot_in_any_order() -> None:
    book = OrderBook("KCN/EUR")
    book.apply_snapshot(
        snapshot(levels(("2", "1"), ("3", "1"), ("1", "1")), levels(("6", "1"), ("4", "1"), ("5", "1")))
    )
    assert [price for price, _ in book.levels(Side.BID)] == [3, 2, 1]
    assert [price for price, _ in book.levels(Side.ASK)] == [4, 5, 6]


def test_order_book_takes_the_last_of_repeated_levels() -> None:
    book = OrderBook("KCN/EUR")
    book.apply_snapshot(snapshot(levels(("1.0", "1"), ("1.00", "2"))))
    assert book.levels(Side.BID) == [(Decimal(1), Decimal(2))]


def test_order_book_adds_updates_and_removes_levels(book: OrderBook) -> None:
    assert book.apply_delta(
        delta(
            ("add", Side.BID, "0.95", "1"),
            ("update", Side.BID, "0.90", "2"),
            ("remove", Side.BID, "0.8", "0"),
            ("update", Side.ASK, "1.1", "0"),
            ("add", Side.ASK, "1.15", "3"),
            sequence=12,
        )
    )
    assert book.levels(Side.BID) == list(levels(("1.0", "5"), ("0.95", "1"), ("0.9", "2")))
    assert book.levels(Side.ASK) == list(levels(("1.15", "3"), ("1.2", "9")))
    assert book.sequence == 12


def test_order_book_removes_a_level_that_is_not_there(book: OrderBook) -> None:
    before = [book.levels(side) for side in Side]
    assert book.apply_delta(delta(("remove", Side.ASK, "1.0", "0"), ("update", Side.BID, "7", "0")))
    assert [book.levels(side) for side in Side] == before


def test_order_book_may_cross_within_a_delta_but_not_after_it(book: OrderBook) -> None:
    assert book.apply_delta(
        delta(("add", Side.BID, "1.1", "1"), ("remove", Side.ASK, "1.1", "0"), ("add", Side.ASK, "1.15", "1"))
    )
    assert book.best(Side.BID) == (Decimal("1.1"), Decimal(1))
    assert book.best(Side.ASK) == (Decimal("1.15"), Decimal(1))


@pytest.mark.parametrize("price", ["1.1", "1.10", "1.2", "9"])
def test_order_book_is_stale_when_a_delta_leaves_it_crossed(book: OrderBook, price: str) -> None:
    assert book.apply_delta(delta(("add", Side.BID, price, "1"))) is None
    assert (book.known, book.stale, book.live) == (True, True, False)


def test_order_book_ignores_deltas_while_stale_until_a_snapshot(book: OrderBook) -> None:
    book.mark_stale()
    assert book.apply_delta(delta(("remove", Side.BID, "1.0", "0"))) is None
    assert book.best(Side.BID) == (Decimal("1.0"), Decimal(5))
    assert (book.sequence, book.stale) == (1, True)
    book.apply_snapshot(snapshot(levels(("0.7", "1")), sequence=3))
    assert book.live
    assert book.apply_delta(delta(("add", Side.BID, "0.75", "1")))


def test_order_book_is_stale_when_a_snapshot_is_crossed() -> None:
    book = OrderBook("KCN/EUR")
    book.apply_snapshot(snapshot(levels(("1", "1")), levels(("1.00", "1"))))
    assert (book.known, book.stale, book.live) == (True, True, False)


def test_order_book_follows_a_sequence_that_jumps_or_starts_again(book: OrderBook) -> None:
    for sequence in (900, 900, 2):
        assert book.apply_delta(delta(sequence=sequence)) == []
        assert book.sequence == sequence


@pytest.mark.parametrize(
    ("side", "depth", "prices"),
    [
        (Side.BID, None, ["1.0", "0.9", "0.8"]),
        (Side.BID, 0, []),
        (Side.BID, 1, ["1.0"]),
        (Side.BID, 2, ["1.0", "0.9"]),
        (Side.BID, 3, ["1.0", "0.9", "0.8"]),
        (Side.BID, 1000, ["1.0", "0.9", "0.8"]),
        (Side.ASK, None, ["1.1", "1.2"]),
        (Side.ASK, 0, []),
        (Side.ASK, 1, ["1.1"]),
        (Side.ASK, 1000, ["1.1", "1.2"]),
    ],
)
def test_levels_gives_the_best_first(book: OrderBook, side: Side, depth: int | None, prices: list[str]) -> None:
    assert [str(price) for price, _ in book.levels(side, depth)] == prices


@pytest.mark.parametrize("side", list(Side))
def test_levels_refuses_a_negative_depth(book: OrderBook, side: Side) -> None:
    with pytest.raises(ValueError, match="-1"):
        book.levels(side, -1)


def test_snapshot_event_is_the_engines_own_form(book: OrderBook) -> None:
    book.apply_delta(delta(("add", Side.BID, "1E-7", "1.50"), ("add", Side.ASK, "1E+3", "2"), sequence=4))
    assert book.snapshot_event() == (
        b'{"type":"orderbook_snapshot","symbol":"KCN/EUR","sequence":4,'
        b'"bids":[{"price":"1.0","quantity":"5"},{"price":"0.9","quantity":"6"},{"price":"0.8","quantity":"7"},'
        b'{"price":"0.0000001","quantity":"1.50"}],'
        b'"asks":[{"price":"1.1","quantity":"8"},{"price":"1.2","quantity":"9"},{"price":"1000","quantity":"2"}]}'
    )


def test_snapshot_event_is_built_once_after_each_change(book: OrderBook) -> None:
    first = book.snapshot_event()
    assert book.snapshot_event() is first
    book.apply_delta(delta(sequence=3))
    second = book.snapshot_event()
    assert json.loads(second)["sequence"] == 3
    book.apply_snapshot(snapshot(sequence=4))
    assert json.loads(book.snapshot_event()) == {
        "type": "orderbook_snapshot",
        "symbol": "KCN/EUR",
        "sequence": 4,
        "bids": [],
        "asks": [],
    }


class NaiveBook:
    """The obvious way: one list of levels a side, sorted whenever it is read."""

    def __init__(self) -> None:
        self.sides: dict[Side, list[Level]] = {Side.BID: [], Side.ASK: []}
        self.known = self.stale = False

    def replace(self, bids: tuple[Level, ...], asks: tuple[Level, ...]) -> None:
        self.sides = {Side.BID: [], Side.ASK: []}
        for side, side_levels in ((Side.BID, bids), (Side.ASK, asks)):
            for price, quantity in side_levels:
                self.put(side, price, quantity)
        self.known = True
        self.stale = self.crossed()

    def change(self, deltas: tuple[Delta, ...]) -> list[Change] | None:
        if not self.known or self.stale:
            return None
        changes = []
        for _, side, price, quantity in deltas:
            changes.append((side, price, dict(self.sides[side]).get(price, Decimal(0)), quantity))
            self.put(side, price, quantity)
        self.stale = self.crossed()
        return None if self.stale else changes

    def put(self, side: Side, price: Decimal, quantity: Decimal) -> None:
        self.sides[side] = [level for level in self.sides[side] if level[0] != price]
        if quantity != 0:
            self.sides[side].append((price, quantity))

    def levels(self, side: Side) -> list[Level]:
        return sorted(self.sides[side], key=lambda level: level[0], reverse=side is Side.BID)

    def crossed(self) -> bool:
        return any(bid >= ask for bid, _ in self.sides[Side.BID] for ask, _ in self.sides[Side.ASK])


# Few prices, so that levels meet; some of 30 digits that differ in the last, where a rounded key would merge them.
LONG = "1.00000000000000000000000000000"
PRICES = st.sampled_from(
    [Decimal(text) for text in ("0.5", "0.50", "0.9", "1", "1.0", "1.1", "2", "2E+1", "30", LONG + "1", LONG + "2")]
)
QUANTITIES = st.sampled_from(
    [Decimal(text) for text in ("0", "0.00", "1", "2.50", "123456789012345678901234567890", LONG + "3")]
)
POSITIVE = QUANTITIES.filter(bool)
SIDE_LEVELS = st.lists(st.tuples(PRICES, POSITIVE), max_size=5).map(tuple)
# Snapshots that are mostly not crossed, or most histories would end at once.
SNAPSHOTS = st.tuples(
    st.just("snapshot"),
    st.lists(st.tuples(PRICES.filter(lambda price: price <= 1), POSITIVE), max_size=5).map(tuple) | SIDE_LEVELS,
    st.lists(st.tuples(PRICES.filter(lambda price: price > 1), POSITIVE), max_size=5).map(tuple) | SIDE_LEVELS,
)
CHANGES = st.tuples(st.sampled_from(["add", "update"]), st.sampled_from(Side), PRICES, QUANTITIES) | st.tuples(
    st.just("remove"), st.sampled_from(Side), PRICES, st.just(Decimal(0))
)
STEPS = st.lists(
    SNAPSHOTS | st.tuples(st.just("delta"), st.lists(CHANGES, max_size=4).map(tuple)) | st.just(("stale",)),
    max_size=12,
)


@given(STEPS)
def test_order_book_agrees_with_the_naive_one(steps: list[Any]) -> None:
    book, naive = OrderBook("KCN/EUR"), NaiveBook()
    for sequence, (kind, *parts) in enumerate(steps):
        if kind == "snapshot":
            bids, asks = parts
            book.apply_snapshot(snapshot(bids, asks, sequence))
            naive.replace(bids, asks)
        elif kind == "delta":
            (changes,) = parts
            event = BookDelta("orderbook_delta", b"", None, "KCN/EUR", sequence, changes)
            assert book.apply_delta(event) == naive.change(changes)
        else:
            book.mark_stale()
            naive.stale = True
        assert (book.known, book.stale) == (naive.known, naive.stale)
        for side in Side:
            expected = naive.levels(side)
            assert book.levels(side) == expected
            assert book.best(side) == (expected[0] if expected else None)
            for depth in (0, 1, 2, 100):
                assert book.levels(side, depth) == expected[:depth]


@given(SNAPSHOTS, st.integers(0, 2**63))
def test_snapshot_event_reads_back_as_the_same_book(
    parts: tuple[str, tuple[Level, ...], tuple[Level, ...]], sequence: int
) -> None:
    book, again = OrderBook("KCN/EUR"), OrderBook("KCN/EUR")
    book.apply_snapshot(snapshot(parts[1], parts[2], sequence))
    event = read_event(book.snapshot_event())
    assert isinstance(event, BookSnapshot)
    again.apply_snapshot(event)
    assert (again.symbol, again.sequence, again.stale) == (event.symbol, sequence, book.stale)
    for side in Side:
        assert again.levels(side) == book.levels(side)
    assert again.snapshot_event() == book.snapshot_event()
