from __future__ import annotations

from decimal import Decimal

import pytest

from core.errors import PoisonedRecord
from core.events import BookDelta, BookSnapshot, Event, Fill
from core.market import Market
from core.model import Side
from tests.core.fakes import delta, fill, filled, snapshot

MALFORMED = delta(deltas=[{"action": "replace"}])


class Told:
    """A market, and what it told of."""

    def __init__(self) -> None:
        self.poisoned: list[tuple[PoisonedRecord, int, int]] = []
        self.events: list[Event] = []
        self.stale: list[tuple[str, str]] = []
        self.market = Market(
            on_poisoned=lambda poison, partition, offset: self.poisoned.append((poison, partition, offset)),
            on_event=self.events.append,
            on_stale=lambda symbol, cause: self.stale.append((symbol, cause)),
        )


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.mark.parametrize(
    ("record", "kind"),
    [(fill(), Fill), (snapshot(), BookSnapshot), (delta(), BookDelta)],
    ids=["fill", "snap", "delta"],
)
def test_market_returns_the_event_when_everyone_may_see_it(told: Told, record: bytes, kind: type) -> None:
    event = told.market.fold(1, 7, record)
    assert isinstance(event, Fill | BookSnapshot | BookDelta)
    assert type(event) is kind
    assert event.payload == record
    assert told.events == [event]
    assert told.market.partition_of == {"KCN/EUR": 1}
    assert told.market.folded == {1: 7}


@pytest.mark.parametrize("record", [filled(), filled(symbol="KCN/EUR"), b'{"type":"halt","symbol":"KCN/EUR"}'])
def test_market_counts_but_shows_nobody_what_is_private_or_unknown(told: Told, record: bytes) -> None:
    assert told.market.fold(1, 7, record) is None
    assert [event.type for event in told.events] in (["order_filled"], ["halt"])
    assert told.market.symbols == []
    assert told.market.folded == {1: 7}


@pytest.mark.parametrize("record", [None, b"", b"\xff", b"{", b"[]", b"{}", fill(price="NaN"), fill(symbol="KCN.EUR")])
def test_market_reports_and_skips_a_poisoned_record(told: Told, record: bytes | None) -> None:
    told.market.fold(0, 1, snapshot())
    assert told.market.fold(2, 9, record) is None
    [(poison, partition, offset)] = told.poisoned
    assert (partition, offset) == (2, 9)
    assert poison.symbol is None
    assert len(told.events) == 1
    assert told.market.folded == {0: 1, 2: 9}
    assert told.stale == []
    assert told.market.known_books() != []


def test_market_folds_deltas_into_the_book(told: Told) -> None:
    told.market.fold(0, 1, snapshot(bid="1.4", ask="1.6"))
    told.market.fold(0, 2, delta(price="1.45"))
    book = told.market.books["KCN/EUR"]
    assert book.levels(Side.BID) == [(Decimal("1.45"), Decimal(5)), (Decimal("1.4"), Decimal(1))]
    assert book.sequence == 2


def test_market_ignores_deltas_before_the_first_snapshot_without_distrusting_the_book(told: Told) -> None:
    assert told.market.fold(0, 1, delta()) is not None
    assert told.market.known_books() == []
    assert told.stale == []
    told.market.fold(0, 2, snapshot())
    assert [book.symbol for book in told.market.known_books()] == ["KCN/EUR"]


@pytest.mark.parametrize(
    ("record", "cause"), [(delta(price="1.6"), "crossed"), (MALFORMED, "malformed")], ids=["crossed", "malformed"]
)
def test_market_distrusts_a_book_once_until_the_next_snapshot(told: Told, record: bytes, cause: str) -> None:
    told.market.fold(0, 1, snapshot())
    told.market.fold(0, 2, record)
    assert told.market.known_books() == []
    told.market.fold(0, 3, record)
    assert told.market.fold(0, 4, delta()) is not None
    assert told.stale == [("KCN/EUR", cause)]
    told.market.fold(0, 5, snapshot())
    assert len(told.market.known_books()) == 1
    told.market.fold(0, 6, record)
    assert told.stale == [("KCN/EUR", cause)] * 2


def test_market_still_shows_a_delta_that_crosses_the_book(told: Told) -> None:
    told.market.fold(0, 1, snapshot())
    crossing = delta(price="1.7")
    event = told.market.fold(0, 2, crossing)
    assert event is not None
    assert event.payload == crossing


def test_market_distrusts_a_book_whose_snapshot_is_crossed(told: Told) -> None:
    told.market.fold(0, 1, snapshot(bid="1.7"))
    assert told.stale == [("KCN/EUR", "crossed")]
    assert told.market.known_books() == []


@pytest.mark.parametrize("first", [None, fill(), delta()], ids=["never seen", "fill", "delta"])
def test_market_has_nothing_to_distrust_in_a_malformed_delta_of_an_unknown_book(
    told: Told, first: bytes | None
) -> None:
    if first is not None:
        told.market.fold(0, 1, first)
    told.market.fold(0, 2, MALFORMED)
    assert [poison.symbol for poison, _, _ in told.poisoned] == ["KCN/EUR"]
    assert told.stale == []


def test_market_keeps_the_books_of_other_symbols_when_one_is_distrusted(told: Told) -> None:
    told.market.fold(0, 1, snapshot("A/B"))
    told.market.fold(0, 2, snapshot("KCN/EUR"))
    told.market.fold(0, 3, MALFORMED)
    assert [book.symbol for book in told.market.known_books()] == ["A/B"]


def test_market_gives_known_books_by_symbol_and_partition(told: Told) -> None:
    for offset, (symbol, partition) in enumerate([("C/C", 0), ("A/A", 1), ("B/B", 0), ("D/D", 2)]):
        told.market.fold(partition, offset, snapshot(symbol))
    told.market.fold(0, 9, fill("E/E"))
    assert [book.symbol for book in told.market.known_books()] == ["A/A", "B/B", "C/C", "D/D"]
    assert [book.symbol for book in told.market.known_books([0, 2])] == ["B/B", "C/C", "D/D"]
    assert told.market.known_books(()) == []
    assert told.market.symbols == ["A/A", "B/B", "C/C", "D/D", "E/E"]


def test_market_forgets_the_symbols_and_the_offset_of_a_partition(told: Told) -> None:
    told.market.fold(0, 1, snapshot("A/A"))
    told.market.fold(1, 5, snapshot("B/B"))
    told.market.fold(0, 2, fill("C/C"))
    assert sorted(told.market.forget(0)) == ["A/A", "C/C"]
    assert told.market.symbols == ["B/B"]
    assert told.market.partition_of == {"B/B": 1}
    assert told.market.folded == {1: 5}
    assert told.market.forget(0) == []


def test_market_keeps_a_symbol_that_has_moved_when_its_old_partition_is_forgotten(told: Told) -> None:
    told.market.fold(0, 1, snapshot("A/A"))
    told.market.fold(3, 1, delta("A/A"))
    assert told.market.forget(0) == []
    assert [book.symbol for book in told.market.known_books([3])] == ["A/A"]
    assert told.market.forget(3) == ["A/A"]
