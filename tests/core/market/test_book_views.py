from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.market.book_views import BookView, BookViews, GroupedLadders, step_of
from core.market.ladder import MOST_FOLLOWED, Ladder, LevelChange, changes_json, number_text
from core.market.ladder_changes import LadderChanges
from core.messages.events import Level
from core.messages.model import EXACT, ZERO, Side

TICK = Decimal("0.01")


def level(price: str, quantity: str) -> Level:
    return Decimal(price), Decimal(quantity)


def shown(changes: Iterable[LevelChange]) -> str:
    """`price old>new` each, for reading."""
    return ", ".join(f"{price} {old}>{new}" for price, old, new in changes)


class Book:
    """What the order book is for the views."""

    def __init__(self, bids: Iterable[Level] = (), asks: Iterable[Level] = ()) -> None:
        self.ladders = {Side.BID: Ladder(Side.BID, bids), Side.ASK: Ladder(Side.ASK, asks)}
        self.views = BookViews(*self.ladders.values())

    def put(self, *levels: tuple[Side, Decimal, Decimal]) -> None:
        for side, price, quantity in levels:
            self.ladders[side].put(price, quantity)

    def bid(self, price: str, quantity: str) -> None:
        self.put((Side.BID, *level(price, quantity)))

    def ask(self, price: str, quantity: str) -> None:
        self.put((Side.ASK, *level(price, quantity)))

    def replace(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        self.ladders[Side.BID].replace(bids)
        self.ladders[Side.ASK].replace(asks)


@pytest.fixture
def book() -> Book:
    bids = (level("1.00", "5"), level("0.90", "6"), level("0.80", "7"))
    asks = (level("1.10", "8"), level("1.20", "9"), level("1.30", "10"))
    return Book(bids, asks)


# Ladder


def test_ladder_is_empty_before_the_first_level() -> None:
    ladder = Ladder(Side.BID)
    assert (len(ladder), ladder.best(), ladder.levels(), ladder.levels(3)) == (0, None, [], [])
    assert str(ladder.total) == "0"


@pytest.mark.parametrize(("side", "prices"), [(Side.BID, "3 2 1"), (Side.ASK, "1 2 3")])
def test_ladder_gives_the_best_first(side: Side, prices: str) -> None:
    ladder = Ladder(side, [level("2", "1"), level("1", "1"), level("3", "1")])
    assert " ".join(str(price) for price, _ in ladder.levels()) == prices
    assert [ladder.levels(depth) for depth in range(5)] == [ladder.levels()[:depth] for depth in range(5)]
    assert ladder.best() == ladder.levels()[0]


def test_ladder_returns_what_was_there_before() -> None:
    ladder = Ladder(Side.ASK)
    old = [ladder.put(*level(*pair)) for pair in (("1", "5"), ("1.0", "0.5"), ("1", "0.0"), ("1", "0"), ("2", "0"))]
    assert " ".join(map(str, old)) == "0 5 0.5 0 0"
    assert len(ladder) == 0


def test_ladder_takes_the_last_of_equal_prices_and_no_empty_levels() -> None:
    ladder = Ladder(Side.BID, [level("1.0", "1"), level("1.00", "2"), level("2", "3"), level("2", "0")])
    assert ladder.levels() == [level("1", "2")]


def test_ladder_sums_its_side_without_the_decimals_of_what_has_gone() -> None:
    ladder = Ladder(Side.BID, [level("1", "70"), level("2", "30.0")])
    ladder.put(*level("3", "0.0000000000000000000000000000000001"))
    assert str(ladder.total) == "100.0000000000000000000000000000000001"
    ladder.put(*level("3", "0"))
    assert str(ladder.total) == "100"


def test_ladder_stays_the_same_lists_when_it_is_replaced() -> None:
    ladder = Ladder(Side.BID, [level("1", "1")])
    prices, quantities = ladder.prices, ladder.quantities
    ladder.replace([level("3", "2"), level("2", "2")])
    assert prices == [Decimal(2), Decimal(3)]
    assert list(quantities.values()) == [Decimal(2), Decimal(2)]
    assert ladder.total == 4


# Grouped ladders


def grouped_ladders(bids: Ladder, asks: Ladder, step: Decimal) -> GroupedLadders:
    return GroupedLadders(LadderChanges(bids), LadderChanges(asks), step)


def test_grouped_ladders_round_bids_down_and_asks_up() -> None:
    bids = Ladder(Side.BID, [level("1.09", "1"), level("1.05", "2"), level("1.0499", "4"), level("0.04", "8")])
    asks = Ladder(Side.ASK, [level("1.10", "1"), level("1.1001", "2"), level("1.15", "4"), level("1.150", "8")])
    grouped = grouped_ladders(bids, asks, step_of(TICK, 5))
    grouped.catch_up()
    assert ", ".join(f"{price}x{quantity}" for price, quantity in grouped.bids.levels()) == "1.05x3, 1.00x4, 0.00x8"
    assert ", ".join(f"{price}x{quantity}" for price, quantity in grouped.asks.levels()) == "1.10x1, 1.15x10"


def test_grouped_ladders_drop_a_step_with_its_last_level() -> None:
    bids, asks = Ladder(Side.BID, [level("1.06", "0.1"), level("1.07", "0.2")]), Ladder(Side.ASK)
    grouped = grouped_ladders(bids, asks, step_of(TICK, 5))
    seen = []
    for price in ("1.06", "1.07"):
        grouped.catch_up()
        seen.append(grouped.bids.levels())
        bids.put(Decimal(price), ZERO)
    grouped.catch_up()
    assert seen == [[level("1.05", "0.3")], [level("1.05", "0.2")]]
    assert len(grouped.bids) == 0


@pytest.mark.parametrize("step", ["0", "-1"])
def test_grouped_ladders_refuse_a_step_that_is_not_above_0(step: str) -> None:
    with pytest.raises(ValueError, match=f"got {step}"):
        grouped_ladders(Ladder(Side.BID), Ladder(Side.ASK), Decimal(step))


def test_grouped_ladders_write_a_sum_in_one_way_however_it_came_about() -> None:
    bids, asks = Ladder(Side.BID, [level("1.06", "70.10")]), Ladder(Side.ASK)
    grouped = grouped_ladders(bids, asks, step_of(TICK, 5))
    for quantity in ("29.901", "29.90"):
        grouped.catch_up()
        bids.put(Decimal("1.07"), Decimal(quantity))
    anew = grouped_ladders(bids, asks, step_of(TICK, 5))
    for ladders in (grouped, anew):
        ladders.catch_up()
    assert [str(ladders.bids.quantities[Decimal("1.05")]) for ladders in (grouped, anew)] == ["100", "100"]


def test_step_of_is_that_many_ticks() -> None:
    assert str(step_of(Decimal("0.0100"), 25)) == "0.2500"
    assert step_of(Decimal("12345678901234567890123456789.012345678"), 10) == Decimal(
        "123456789012345678901234567890.12345678"
    )
    with pytest.raises(ValueError, match="got 0"):
        step_of(TICK, 0)


# Views


def take(view: BookView) -> tuple[list[LevelChange], list[LevelChange]]:
    is_news, taken = view.take(), view.taken()
    assert is_news is any(taken)
    return taken


def test_view_tells_the_whole_window_first_then_nothing(book: Book) -> None:
    view = book.views.open(None, 2)
    bids, asks = take(view)
    assert (shown(bids), shown(asks)) == ("1.00 0>5, 0.90 0>6", "1.10 0>8, 1.20 0>9")
    assert take(view) == ([], [])


def test_view_holds_nothing_for_joiners_before_its_first_take(book: Book) -> None:
    assert book.views.open(None, 2).snapshot() == ([], [])


def test_view_tells_net_changes_best_first(book: Book) -> None:
    view = book.views.open(None, None)
    take(view)
    for price, quantity in (("0.85", "3"), ("0.80", "1"), ("0.95", "2"), ("1.00", "0")):
        book.bid(price, quantity)
    for price, quantity in (("1.30", "0"), ("1.05", "2"), ("1.05", "4")):
        book.ask(price, quantity)
    bids, asks = take(view)
    assert shown(bids) == "1.00 5>0, 0.95 0>2, 0.85 0>3, 0.80 7>1"
    assert shown(asks) == "1.05 0>4, 1.30 10>0"


def test_view_tells_nothing_when_what_changed_changed_back(book: Book) -> None:
    view = book.views.open(None, 2)
    take(view)
    book.bid("1.00", "0")
    book.bid("1.0", "5.0")
    book.ask("1.05", "1")
    book.ask("1.05", "0")
    assert take(view) == ([], [])


def test_view_tells_of_levels_pushed_out_of_the_window_and_back_in(book: Book) -> None:
    view = book.views.open(None, 2)
    take(view)
    book.bid("1.01", "1")
    book.ask("1.05", "1")
    bids, asks = take(view)
    assert (shown(bids), shown(asks)) == ("1.01 0>1, 0.90 6>0", "1.05 0>1, 1.20 9>0")
    book.bid("1.01", "0")
    book.ask("1.05", "0")
    bids, asks = take(view)
    assert (shown(bids), shown(asks)) == ("1.01 1>0, 0.90 0>6", "1.05 1>0, 1.20 0>9")


def test_view_shows_what_changed_beyond_the_window_when_it_comes_in(book: Book) -> None:
    view = book.views.open(None, 2)
    take(view)
    book.bid("0.80", "1")
    book.bid("0.85", "2")
    assert take(view) == ([], [])
    book.bid("0.90", "0")
    assert shown(take(view)[0]) == "0.90 6>0, 0.85 0>2"
    book.bid("1.00", "0")
    assert shown(take(view)[0]) == "1.00 5>0, 0.80 0>1"


def test_view_fills_up_and_runs_dry() -> None:
    book = Book()
    view = book.views.open(None, 2)
    assert take(view) == ([], [])
    for price in ("1", "2", "3"):
        book.ask(price, "1")
    assert shown(take(view)[1]) == "1 0>1, 2 0>1"
    for price in ("1", "2", "3"):
        book.ask(price, "0")
    assert shown(take(view)[1]) == "1 1>0, 2 1>0"
    assert view.snapshot() == ([], [])


def test_views_keep_little_of_what_has_been_told(book: Book) -> None:
    view = book.views.open(None, None)
    for i in range(3 * MOST_FOLLOWED):
        book.bid(f"0.{i % 50:03}1", str(i + 1))
        take(view)
    # Not visible from outside, but in a day it would be all the memory there is.
    ladder = book.ladders[Side.BID]
    assert ladder.segment is not None and len(ladder.segment.changes) <= 3 * MOST_FOLLOWED


@pytest.mark.parametrize("changes", [MOST_FOLLOWED - 1, MOST_FOLLOWED + 1, 2 * MOST_FOLLOWED + 1, 3 * MOST_FOLLOWED])
def test_view_tells_what_changed_however_long_ago_it_was_asked(book: Book, changes: int) -> None:
    view, client = book.views.open(None, 2), Client()
    client.receive(take(view))
    for i in range(changes):
        book.bid("1.00", str(i + 6))
    joined = Client()
    joined.receive(view.snapshot())
    assert joined.sides == client.sides
    assert shown(take(view)[0]) == f"1.00 5>{changes + 5}"


def test_view_tells_the_difference_when_the_book_was_replaced(book: Book) -> None:
    view = book.views.open(None, 2)
    take(view)
    book.bid("1.00", "4")
    book.replace([level("1.00", "5"), level("0.95", "2"), level("0.90", "6")], [])
    bids, asks = take(view)
    assert (shown(bids), shown(asks)) == ("0.95 0>2, 0.90 6>0", "1.10 8>0, 1.20 9>0")


def test_view_snapshot_is_what_was_told_last(book: Book) -> None:
    view = book.views.open(None, 2)
    take(view)
    book.bid("1.00", "1")
    bids, asks = view.snapshot()
    assert (shown(bids), shown(asks)) == ("1.00 0>5, 0.90 0>6", "1.10 0>8, 1.20 0>9")
    take(view)
    assert shown(view.snapshot()[0]) == "1.00 0>1, 0.90 0>6"


@pytest.mark.parametrize("depth", [0, -1])
def test_view_refuses_a_depth_below_1(depth: int) -> None:
    with pytest.raises(ValueError, match=f"got {depth}"):
        Book().views.open(None, depth)


def test_views_sum_levels_once_for_all_views_of_a_step(book: Book) -> None:
    views = [book.views.open(step_of(TICK, 20), depth) for depth in (1, None)]
    assert len({id(view.bids) for view in views}) == 1
    assert [shown(take(view)[0]) for view in views] == ["1.00 0>5", "1.00 0>5, 0.80 0>13"]
    book.bid("0.85", "1")
    assert [shown(take(view)[0]) for view in views] == ["", "0.80 13>14"]
    book.replace([level("0.95", "4"), level("0.81", "1")], [])
    assert [shown(take(view)[0]) for view in views] == ["1.00 5>0, 0.80 0>5", "1.00 5>0, 0.80 14>5"]


def test_views_let_go_of_what_nobody_looks_at(book: Book) -> None:
    plain, other, grouped = book.views.open(None, 1), book.views.open(None, 1), book.views.open(TICK, 1)
    for view in (plain, other, grouped):
        take(view)
    assert len(book.views) == 3
    book.views.close(plain)
    book.views.close(grouped)
    assert len(book.views) == 1
    book.bid("1.00", "1")
    assert shown(take(other)[0]) == "1.00 5>1"
    assert not book.views._steps
    book.views.close(other)
    assert [ladder.segment for ladder in book.ladders.values()] == [None, None]


def test_views_keep_a_step_that_another_view_needs(book: Book) -> None:
    one, other = book.views.open(TICK, 1), book.views.open(TICK, 2)
    book.views.close(one)
    take(other)
    book.bid("1.00", "1")
    assert shown(take(other)[0]) == "1.00 5>1"


# Text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0", "0"),
        ("0.000", "0"),
        ("0E+5", "0"),
        ("0.10", "0.10"),
        ("1E-7", "0.0000001"),
        ("1E+3", "1000"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("0.00000000000000000000000000000000000001", "0.00000000000000000000000000000000000001"),
        ("-0.5", "-0.5"),
    ],
)
def test_number_text_is_plain_and_exact(number: str, text: str) -> None:
    assert number_text(Decimal(number)) == text


def test_changes_json_is_an_array_of_arrays() -> None:
    assert changes_json([]) == "[]"
    changes = [(Decimal("1.10"), ZERO, Decimal("1E-7")), (Decimal("1.2"), Decimal(3), Decimal("0.0"))]
    assert changes_json(changes) == "[[1.10,0,0.0000001],[1.2,3,0]]"


# Everything against naive references, over any course of events

_JSON_NUMBER = re.compile(r"0|(?:[1-9][0-9]*|0)\.[0-9]+|[1-9][0-9]*")

# Up to 30 digits, on either side of the point.
amounts = st.builds(
    lambda digits, places: EXACT.scaleb(Decimal(digits), -places), st.integers(1, 10**30 - 1), st.integers(0, 30)
)
small = st.integers(1, 9).map(Decimal)


class Scenario(NamedTuple):
    """Events over a few prices, so that they meet, and the views that watch: (grouping or none, depth or all)."""

    tick: Decimal
    shapes: list[tuple[int | None, int | None]]
    steps: list[tuple[str, object]]


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    tick = draw(st.sampled_from([Decimal("0.01"), Decimal(5), Decimal("0.000000000000000000000000000003")]))
    # On the tick, off it, and the same price written with other digits.
    near = st.builds(
        lambda ticks, part, zeros: (tick * ticks + tick * part / 8).quantize(tick * Decimal("0.001") ** zeros),
        st.integers(1, 12),
        st.integers(0, 7),
        st.integers(1, 2),
    )
    pool = draw(st.lists(st.one_of(near, near, amounts), min_size=1, max_size=14))
    prices, quantities = st.sampled_from(pool), st.one_of(small, amounts)
    sides = st.sampled_from(Side)
    levels = st.lists(st.tuples(prices, quantities), max_size=20)
    put = st.tuples(sides, prices, st.one_of(st.just(Decimal("0.0")), quantities))
    shapes = draw(
        st.lists(
            st.tuples(
                st.one_of(st.none(), st.integers(1, 4), st.integers(1, 10**6)), st.one_of(st.none(), st.integers(1, 6))
            ),
            min_size=1,
            max_size=4,
        )
    )
    views = st.integers(0, len(shapes) - 1)
    deltas = st.tuples(st.just("delta"), st.lists(put, max_size=6))
    steps = draw(
        st.lists(
            st.one_of(
                deltas,
                deltas,
                st.tuples(st.just("take"), views),
                st.tuples(st.just("take"), views),
                st.tuples(st.just("join"), views),
                st.tuples(st.just("reopen"), views),
                st.tuples(st.just("replace"), st.tuples(levels, levels)),
            ),
            max_size=40,
        )
    )
    return Scenario(tick, shapes, steps)


Held = dict[Fraction, Fraction]


class Client:
    """What somebody holds who applies every change, and checks each `old` against what it holds."""

    def __init__(self) -> None:
        self.sides: tuple[Held, Held] = ({}, {})

    def receive(self, told: tuple[Sequence[LevelChange], Sequence[LevelChange]]) -> None:
        for held, changes, is_bid in zip(self.sides, told, (True, False), strict=True):
            prices = [price for price, _, _ in changes]
            assert prices == sorted(set(prices), reverse=is_bid)
            text = changes_json(changes)
            assert all(map(_JSON_NUMBER.fullmatch, re.findall(r"[^][,]+", text)))
            for row in json.loads(text, parse_float=Fraction, parse_int=Fraction):
                price, old, new = row
                assert held.get(price, 0) == old != new
                if new:
                    held[price] = new
                else:
                    del held[price]


class NaiveBook:
    """Keeps levels unsorted in exact fractions; sorts, sums and cuts all of them whenever asked."""

    def __init__(self) -> None:
        self.sides: dict[Side, Held] = {Side.BID: {}, Side.ASK: {}}

    def put(self, side: Side, price: Decimal, quantity: Decimal) -> None:
        self.sides[side][Fraction(price)] = Fraction(quantity)

    def window(self, side: Side, step: Fraction | None, depth: int | None) -> Held:
        sums: Held = {}
        for price, quantity in self.sides[side].items():
            at = price if step is None else step * (floor(price / step) if side is Side.BID else ceil(price / step))
            sums[at] = sums.get(at, Fraction(0)) + quantity
        there = sorted(((at, total) for at, total in sums.items() if total), reverse=side is Side.BID)
        return dict(there[:depth])


@given(scenarios())
def test_views_agree_with_naive_ones_and_their_changes_chain(scenario: Scenario) -> None:
    book, naive = Book(), NaiveBook()

    def opened(index: int) -> tuple[BookView, Client]:
        grouping, depth = scenario.shapes[index]
        step = None if grouping is None else step_of(scenario.tick, grouping)
        return book.views.open(step, depth), Client()

    watching = [opened(i) for i in range(len(scenario.shapes))]
    for kind, what in [*scenario.steps, *(("take", i) for i in range(len(watching)))]:
        if kind == "delta":
            assert isinstance(what, list)
            book.put(*what)
            for put in what:
                naive.put(*put)
        elif kind == "replace":
            assert isinstance(what, tuple)
            book.replace(*what)
            naive = NaiveBook()
            for side, levels in zip(Side, what, strict=True):
                for price, quantity in levels:
                    naive.put(side, price, quantity)
        else:
            assert isinstance(what, int)
            view, client = watching[what]
            grouping, depth = scenario.shapes[what]
            step = None if grouping is None else Fraction(scenario.tick) * grouping
            if kind == "take":
                taken = take(view)
                assert view.taken_texts() == tuple(map(changes_json, taken))
                client.receive(taken)
                assert client.sides == tuple(naive.window(side, step, depth) for side in Side)
                assert take(view) == ([], [])
                assert view.taken_texts() == ("[]", "[]")
            elif kind == "join":
                joined = Client()
                joined.receive(view.snapshot())
                assert view.snapshot_texts() == tuple(map(changes_json, view.snapshot()))
                assert joined.sides == client.sides
            else:
                book.views.close(view)
                watching[what] = opened(what)
        for side, ladder in book.ladders.items():
            assert ladder.prices == sorted(ladder.quantities)
            assert all(ladder.quantities.values())
            assert Fraction(ladder.total) == sum(naive.sides[side].values())
            if len(ladder) == 0:
                assert str(ladder.total) == "0"


@given(st.one_of(amounts, st.just(ZERO)))
def test_number_text_is_read_back_to_the_last_digit(number: Decimal) -> None:
    read = json.loads(number_text(number), parse_float=Decimal, parse_int=Decimal)
    assert str(read) == str(number)
