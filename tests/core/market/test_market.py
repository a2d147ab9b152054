from __future__ import annotations

from decimal import Decimal

import pytest

from core.errors import PoisonedRecord
from core.market.market import Market
from core.market.statistics import Statistics
from core.messages.events import BookDelta, BookSnapshot, Event, Fill
from core.messages.model import Side
from core.messages.times import Times
from tests.core.fakes import delta, fill, filled, snapshot

MALFORMED = delta(deltas=[{"action": "replace"}])


class Told:
    """A market, and what it told of."""

    def __init__(self) -> None:
        self.poisoned: list[tuple[PoisonedRecord, int, int]] = []
        self.heard: list[tuple[Event, int, int, int]] = []
        self.stale: list[tuple[str, str]] = []
        self.now_ms = 0
        self.market = Market(
            on_poisoned=lambda poison, partition, offset: self.poisoned.append((poison, partition, offset)),
            on_event=lambda *heard: self.heard.append(heard),
            on_stale=lambda symbol, cause: self.stale.append((symbol, cause)),
            times=Times(lambda: (self.now_ms + 0.5) / 1000),
        )

    @property
    def events(self) -> list[Event]:
        return [event for event, *_ in self.heard]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.mark.parametrize(
    ("record", "kind"),
    [(fill(), Fill), (snapshot(), BookSnapshot), (delta(), BookDelta)],
    ids=["fill", "snap", "delta"],
)
def test_market_returns_the_event_when_everyone_may_see_it(told: Told, record: bytes, kind: type) -> None:
    news = told.market.fold(1, 7, record, 1700)
    assert news is not None
    assert type(news.event) is kind
    assert (news.event.payload, news.partition, news.offset) == (record, 1, 7)
    assert (news.trade is None) is (kind is not Fill)
    assert told.heard == [(news.event, 1, 7, 1700)]
    assert told.market.partition_of("KCN/EUR") == 1
    assert told.market.partitions.folded == {1: 7}


def test_market_without_a_history_folds_as_any_other() -> None:
    market = Market(
        on_poisoned=lambda *_: None,
        on_event=lambda *_: None,
        on_stale=lambda *_: None,
        times=Times(),
        history_records=0,
    )
    for offset, record in enumerate([snapshot(), fill()]):
        assert market.fold(0, offset, record) is not None
    history = market.of("KCN/EUR").history
    assert (len(history), history.complete_after) == (0, 1)
    assert market.of("KCN/EUR").book.live


@pytest.mark.parametrize("record", [filled(), filled(symbol="KCN/EUR"), b'{"type":"halt","symbol":"KCN/EUR"}'])
def test_market_counts_but_shows_nobody_what_is_private_or_unknown(told: Told, record: bytes) -> None:
    assert told.market.fold(1, 7, record, 1700) is None
    assert [(event.type, *where) for event, *where in told.heard] in (
        [("order_filled", 1, 7, 1700)],
        [("halt", 1, 7, 1700)],
    )
    assert told.market.symbols == []
    assert told.market.partitions.folded == {1: 7}


@pytest.mark.parametrize("record", [None, b"", b"\xff", b"{", b"[]", b"{}", fill(price="NaN"), fill(symbol="KCN.EUR")])
def test_market_reports_and_skips_a_poisoned_record(told: Told, record: bytes | None) -> None:
    told.market.fold(0, 1, snapshot())
    assert told.market.fold(2, 9, record) is None
    [(poison, partition, offset)] = told.poisoned
    assert (partition, offset) == (2, 9)
    assert poison.symbol is None
    assert len(told.events) == 1
    assert told.market.partitions.folded == {0: 1, 2: 9}
    assert told.stale == []
    assert told.market.known_books(range(9)) != []


def test_market_folds_deltas_into_the_book(told: Told) -> None:
    told.market.fold(0, 1, snapshot(bid="1.4", ask="1.6"))
    told.market.fold(0, 2, delta(price="1.45"))
    book = told.market.of("KCN/EUR").book
    assert book.levels(Side.BID) == [(Decimal("1.45"), Decimal(5)), (Decimal("1.4"), Decimal(1))]
    assert book.sequence == 2


def test_market_ignores_deltas_before_the_first_snapshot_without_distrusting_the_book(told: Told) -> None:
    assert told.market.fold(0, 1, delta()) is not None
    assert told.market.known_books(range(9)) == []
    assert told.stale == []
    told.market.fold(0, 2, snapshot())
    assert [book.symbol for book in told.market.known_books(range(9))] == ["KCN/EUR"]


@pytest.mark.parametrize(
    ("record", "cause"), [(delta(price="1.6"), "crossed"), (MALFORMED, "malformed")], ids=["crossed", "malformed"]
)
def test_market_distrusts_a_book_once_until_the_next_snapshot(told: Told, record: bytes, cause: str) -> None:
    told.market.fold(0, 1, snapshot())
    told.market.fold(0, 2, record)
    assert told.market.known_books(range(9)) == []
    told.market.fold(0, 3, record)
    assert told.market.fold(0, 4, delta()) is not None
    assert told.stale == [("KCN/EUR", cause)]
    told.market.fold(0, 5, snapshot())
    assert len(told.market.known_books(range(9))) == 1
    told.market.fold(0, 6, record)
    assert told.stale == [("KCN/EUR", cause)] * 2


def test_market_still_shows_a_delta_that_crosses_the_book(told: Told) -> None:
    told.market.fold(0, 1, snapshot())
    crossing = delta(price="1.7")
    news = told.market.fold(0, 2, crossing)
    assert news is not None
    assert news.event.payload == crossing


def test_market_distrusts_a_book_whose_snapshot_is_crossed(told: Told) -> None:
    told.market.fold(0, 1, snapshot(bid="1.7"))
    assert told.stale == [("KCN/EUR", "crossed")]
    assert told.market.known_books(range(9)) == []


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
    assert [book.symbol for book in told.market.known_books(range(9))] == ["A/B"]


def test_market_gives_known_books_by_symbol_and_partition(told: Told) -> None:
    for offset, (symbol, partition) in enumerate([("C/C", 0), ("A/A", 1), ("B/B", 0), ("D/D", 2)]):
        told.market.fold(partition, offset, snapshot(symbol))
    told.market.fold(0, 9, fill("E/E"))
    assert [book.symbol for book in told.market.known_books(range(9))] == ["A/A", "B/B", "C/C", "D/D"]
    assert [book.symbol for book in told.market.known_books([0, 2])] == ["B/B", "C/C", "D/D"]
    assert told.market.known_books(()) == []
    assert told.market.symbols == ["A/A", "B/B", "C/C", "D/D", "E/E"]


def test_market_forgets_the_symbols_and_the_offset_of_a_partition(told: Told) -> None:
    told.market.partitions.serve((0, 1))
    told.market.fold(0, 1, snapshot("A/A"))
    told.market.fold(1, 5, snapshot("B/B"))
    told.market.fold(0, 2, fill("C/C"))
    for _ in range(2):
        told.market.forget(0)
        assert told.market.symbols == ["B/B"]
        assert told.market.partition_of("B/B") == 1
        with pytest.raises(KeyError, match="A/A"):
            told.market.partition_of("A/A")
        assert told.market.partitions.folded == {1: 5}
        assert told.market.partitions.served == {1}


def test_market_keeps_a_symbol_that_has_moved_when_its_old_partition_is_forgotten(told: Told) -> None:
    told.market.fold(0, 1, snapshot("A/A"))
    told.market.fold(3, 1, snapshot("A/A"))
    told.market.forget(0)
    assert [book.symbol for book in told.market.known_books([3])] == ["A/A"]
    told.market.forget(3)
    assert told.market.symbols == []


def test_market_knows_nothing_of_a_symbol_from_before_it_moved(told: Told) -> None:
    told.market.fold(0, 1, snapshot("A/A"))
    told.market.fold(0, 2, fill("A/A"))
    told.market.partitions.begin(3, 70)
    told.market.fold(3, 71, delta("A/A"))
    market = told.market.of("A/A")
    assert (market.book.known, list(market.trades), market.statistics.last_price) == (False, [], None)
    assert (market.partition, market.history.complete_after) == (3, 69)
    assert [entry.offset for entry in market.history.after(-1)] == [71]


# Symbols that only a listener asks for.


def test_market_makes_a_symbol_for_who_waits_for_it_and_drops_it_with_the_last(told: Told) -> None:
    first, second = told.market.of("A/A"), told.market.of("A/A")
    assert first is second
    first.listeners = 2
    assert told.market.symbols == []
    told.market.release(first)
    assert told.market.of("A/A") is first
    told.market.release(first)
    assert told.market.of("A/A") is not first


def test_market_keeps_a_symbol_whose_partition_is_forgotten_for_who_listens(told: Told) -> None:
    told.market.fold(0, 1, snapshot("A/A"))
    market = told.market.of("A/A")
    market.listeners = 1
    told.market.forget(0)
    assert told.market.symbols == []
    assert told.market.of("A/A") is market
    told.market.fold(0, 9, snapshot("A/A"))
    assert market.book.live
    told.market.release(market)
    assert told.market.of("A/A") is market, "it is known"


def test_market_says_what_is_known_only_of_symbols_that_are_read_now(told: Told) -> None:
    market = told.market
    assert (market.mark("A/A"), market.has_aged("A/A")) == (None, False), "never seen"
    market.of("A/A").listeners = 1
    with pytest.raises(KeyError):
        market.partition_of("A/A")
    market.fold(0, 1, snapshot("A/A"))
    market.partitions.begin(0, 0)
    market.partitions.serve([0], "")
    assert (market.mark("A/A"), market.partition_of("A/A")) == (Decimal("1.50"), 0)
    market.partitions.set_unread({0})
    assert market.mark("A/A") is None, "of its partition nothing comes"
    market.partitions.set_unread(set())
    market.fold(0, 3, delta("A/A", price="1.6"))
    assert (market.find("A/A") is not None, market.mark("A/A")) == (True, None), "its book is out of date"


# Statistics, trades, mark.

DAY_MS = 86_400_000


def test_symbol_moves_its_day_with_our_clock_at_every_event_and_when_it_is_looked_at(told: Told) -> None:
    told.now_ms = 1_700_000_000_000
    told.market.fold(0, 1, fill(timestamp=told.now_ms - 1000, price="5"))
    told.market.fold(0, 2, fill(timestamp=told.now_ms, price="7"))
    statistics = told.market.of("KCN/EUR").statistics
    assert (statistics.open, statistics.high) == (5, 7)
    told.now_ms += DAY_MS - 1000
    assert statistics.volume == 4
    told.market.fold(0, 3, delta(timestamp=1))
    assert (statistics.open, statistics.volume) == (7, 2)
    told.now_ms += 1000
    assert told.market.has_aged("KCN/EUR")
    assert (statistics.open, statistics.volume, statistics.last_price) == (None, 0, 7)
    assert not told.market.has_aged("KCN/EUR")


def test_symbol_keeps_the_last_hundred_trades(told: Told) -> None:
    for number in range(105):
        told.market.fold(0, number, fill(timestamp=number))
    assert [trade.timestamp_ms for trade in told.market.of("KCN/EUR").trades] == list(range(5, 105))


@pytest.mark.parametrize(
    ("records", "mark"),
    [
        ([], None),
        ([fill(price="7")], Decimal(7)),
        ([snapshot(bid="1.4", ask="1.7")], Decimal("1.55")),
        ([snapshot(asks=[]), fill(price="7")], Decimal(7)),
        ([snapshot(asks=[])], None),
        ([snapshot(bid="0." + "1" * 30, ask="0." + "1" * 29 + "2")], Decimal("0." + "1" * 30 + "5")),
    ],
)
def test_symbol_marks_the_middle_or_else_the_last_price(told: Told, records: list[bytes], mark: Decimal | None) -> None:
    for offset, record in enumerate(records):
        told.market.fold(0, offset, record)
    assert told.market.of("KCN/EUR").mark() == mark


def test_symbol_asks_the_engine_then_the_book_before_the_trade_who_the_aggressor_was(told: Told) -> None:
    told.market.fold(0, 1, snapshot(bid="1.4", ask="1.6"))
    sides = []
    for offset, more in enumerate([{"price": "1.6"}, {"price": "1.4"}, {"price": "1.4", "taker_side": "bid"}], start=2):
        news = told.market.fold(0, offset, fill(**more))
        assert news is not None
        assert news.trade is not None
        sides.append(news.trade.side)
    assert sides == ["buy", "sell", "buy"]


def test_symbol_groups_by_its_configured_tick_only() -> None:
    ticks = {"A/A": Decimal("0.5")}
    market = Market(lambda *_: None, lambda *_: None, lambda *_: None, tick_of=ticks.get)
    view = market.of("A/A").open_view(3, None)
    market.fold(0, 1, snapshot("A/A", bid="4.4", ask="4.6"))
    view.take()
    bids, asks = view.taken()
    assert (bids, asks) == ([(Decimal(3), 0, 1)], [(Decimal(6), 0, 1)])
    with pytest.raises(ValueError, match="tick"):
        market.of("B/B").open_view(1, None)
    assert len(market.of("B/B").views) == 0


def test_news_says_what_came_before_it_of_its_symbol_its_trades_and_its_partition(told: Told) -> None:
    records = [snapshot("A/A"), fill("B/B"), fill("A/A"), filled(), delta("A/A"), fill("A/A"), fill("B/B")]
    said = [(offset, told.market.fold(0, offset, record)) for offset, record in enumerate(records, 10)]
    news = {offset: (one.previous, one.previous_trade, one.previous_of_partition) for offset, one in said if one}
    assert news == {
        10: (-1, -1, -1),
        11: (-1, -1, 10),
        12: (10, -1, 11),
        14: (12, 12, 12),
        15: (14, 12, 14),
        16: (11, 11, 15),
    }
    other = told.market.fold(1, 3, fill("C/C"))
    assert other is not None
    assert other.previous_of_partition == -1


class Broken(Statistics):
    """Statistics with a fault of ours."""

    def add(self, price: Decimal, quantity: Decimal, timestamp_ms: int) -> None:
        raise RuntimeError


def test_news_behind_a_record_that_was_lost_says_that_something_came_before_it() -> None:
    failed: list[int] = []
    market = Market(
        lambda *_: None, lambda *_: None, lambda *_: None, on_failed=lambda _error, _partition, at: failed.append(at)
    )
    market.fold(0, 1, fill())
    symbol = market.of("KCN/EUR")
    whole, symbol.statistics = symbol.statistics, Broken()
    market.fold(0, 2, fill())
    symbol.statistics = whole
    news = market.fold(0, 3, fill())
    assert failed == [2]
    assert news is not None
    assert (news.previous, news.previous_trade, news.previous_of_partition) == (2, 2, 2)


def test_partition_that_is_lost_and_read_anew_knows_of_nothing_before(told: Told) -> None:
    told.market.fold(0, 5, fill())
    told.market.forget(0)
    news = told.market.fold(0, 6, fill())
    assert news is not None
    assert (news.previous, news.previous_trade, news.previous_of_partition) == (-1, -1, -1)


def test_what_is_read_once_more_from_further_back_is_not_what_came_last(told: Told) -> None:
    told.market.fold(0, 8, fill("A/A"))
    told.market.begin_again(0, ["A/A"], 2)
    told.market.fold_again(0, ["A/A"], 3, fill("A/A"), 0)
    news = told.market.fold(0, 9, fill("B/B"))
    assert news is not None
    assert news.previous_of_partition == 8


def test_fault_of_ours_in_a_fill_of_an_unknown_symbol_costs_that_record_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []
    market = Market(
        lambda *_: None, lambda *_: None, lambda *_: None, on_failed=lambda _error, _partition, at: failed.append(at)
    )

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as faulty:
        faulty.setattr(market, "settle", fail)
        assert market.fold(0, 5, fill("KCN/EUR")) is None
    assert (failed, market.find("KCN/EUR")) == ([5], None)
    assert market.fold(0, 6, fill("KCN/EUR")) is not None


def test_fault_in_telling_of_a_poisoned_record_costs_that_record_alone() -> None:
    failed: list[int] = []

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    market = Market(fail, lambda *_: None, lambda *_: None, on_failed=lambda _error, _partition, at: failed.append(at))
    assert market.fold(0, 5, b"{") is None
    assert failed == [5]
