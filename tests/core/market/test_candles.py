"""Candles: beside those of a plain model that keeps every fill, and each rule of them by itself."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market import candle_series, candles
from core.market.candle_series import BLOCK, MOST_CANDLES, CandlePage
from core.market.candles import Candles, KeptCandles
from core.messages.model import ENGINE_DIGITS, EXACT
from tests.core.market.naive_candles import INTERVALS, Trade, naive_rows, periods, row_of, shown_rows
from tests.support.examples import examples

NOON_MS = 1_700_006_400_000 - 1_700_006_400_000 % 86_400_000 + 43_200_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


class World:
    """Candles, the plain model beside them, and one clock. `restore` goes on with what was kept."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS
        self.fills: list[Trade] = []
        self.pages: dict[int, bytes | None] = {}
        self.is_failed = False
        self.candles = self.new()

    def new(self) -> Candles:
        return Candles(lambda: self.now_ms)

    def trade(self, price: str, quantity: str, time_ms: int) -> None:
        fill = Trade(Decimal(price), Decimal(quantity), time_ms)
        self.candles.add(
            fill.price, fill.quantity, EXACT.multiply(fill.price, fill.quantity), fill.time_ms, len(self.fills)
        )
        self.fills.append(fill)

    def take(self) -> dict[int, bytes | None]:
        pages = self.candles.take_pages(everything=self.is_failed)
        return {number: page and msgspec.json.encode(page) for number, page in pages.items()}

    def keep(self) -> bytes:
        self.pages.update(self.take())
        self.is_failed = False
        return msgspec.json.encode(self.candles.kept())

    def restore(self) -> None:
        kept = self.keep()
        if self.fills:
            again = self.new()
            pages = {n: msgspec.json.decode(page, type=CandlePage) for n, page in self.pages.items() if page}
            again.restore(msgspec.json.decode(kept, type=KeptCandles), pages)
            assert again.revision == self.candles.revision
            self.candles = again
            self.is_failed = True

    def look(self, interval: str) -> None:
        assert (
            shown_rows(self.candles, interval) == naive_rows(self.fills, interval, self.now_ms)[-candles.MOST_CANDLES :]
        )

    def look_at_ends(self) -> None:
        """Where trades are too far apart to tell every period between them."""
        for interval in INTERVALS:
            found = periods(self.fills, interval)
            for start_ms in [*list(found)[:2], *list(found)[-2:]]:
                is_closed = start_ms + INTERVALS[interval] * 1000 <= self.now_ms
                shown = shown_rows(self.candles, interval, start_ms=start_ms, limit=1)
                assert shown == [row_of(start_ms, found[start_ms], is_closed)]


PRICES = ["1", "1.0", "2", "3.10", "3.1", "0.0000000000000000001", "9" * ENGINE_DIGITS]
QUANTITIES = ["0.1", "0.10", "3", "0.000000000000000000000000007"]
AGES = [0, 0, 0, 1, 1, 999, 60_000, 61_001, 300_000, HOUR_MS, 5 * HOUR_MS]
PASSES = [0, 0, 1, 1, 7, 30_000, 60_000, 200_000, HOUR_MS]


@settings(max_examples=examples(150))
@given(st.data())
def test_candles_are_those_of_a_model_that_keeps_every_fill(data: st.DataObject) -> None:
    world = World()
    steps = data.draw(
        st.lists(
            st.one_of(
                st.tuples(
                    st.just("trade"),
                    st.sampled_from(PRICES),
                    st.sampled_from(QUANTITIES),
                    st.sampled_from([*AGES, -30_000, -60_000]),
                ),
                st.tuples(st.just("pass"), st.sampled_from(PASSES)),
                st.tuples(st.sampled_from(["restore", "keep", "fail"])),
            ),
            max_size=40,
        )
    )
    for kind, *given_ in steps:
        if kind == "trade":
            price, quantity, age_ms = given_
            world.trade(price, quantity, world.now_ms - age_ms)
        elif kind == "pass":
            world.now_ms += given_[0]
        elif kind == "restore":
            world.restore()
        elif kind == "keep":
            world.keep()
        else:
            world.take()
            world.is_failed = True
    for interval in INTERVALS:
        world.look(interval)


@pytest.mark.parametrize("seed", range(examples(20)))
def test_long_history_is_that_of_a_model_that_keeps_every_fill(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few kept that all of the ways come up in which blocks are begun, divided and dropped."""
    monkeypatch.setattr(candle_series, "BLOCK", 4)
    for module in (candle_series, candles):
        monkeypatch.setattr(module, "MOST_CANDLES", 30)
        monkeypatch.setattr(module, "PAGES_AN_INTERVAL", 30 // 4 + 3)
    monkeypatch.setattr("tests.core.market.naive_candles.MOST", 30)
    chance = random.Random(seed)
    world = World()
    is_sparse, is_late = chance.random() < 0.3, chance.random() < 0.5
    for _ in range(400):
        if chance.random() < 0.1:
            world.restore()
        elif chance.random() < 0.1:
            world.keep()
        world.now_ms += chance.choice([0, 20_000, 60_000, 90_000, *([7 * HOUR_MS] if is_sparse else [])])
        age_ms = chance.choice([0, *([chance.randrange(60 * MINUTE_MS)] if is_late else [])])
        world.trade(chance.choice(PRICES), "0.1", world.now_ms - age_ms)
        if not is_sparse and chance.random() < 0.1:
            world.look("1m")
            world.look("5m")
    if is_sparse:
        world.look_at_ends()
    else:
        for interval in INTERVALS:
            world.look(interval)


def test_candles_that_are_restored_go_on_as_those_that_were_not() -> None:
    chance = random.Random(5)
    world = World()
    for number in range(3 * BLOCK):
        world.now_ms = NOON_MS + number * MINUTE_MS
        world.trade(chance.choice(PRICES), "0.5", world.now_ms)
    world.restore()
    for _ in range(50):
        world.trade(chance.choice(PRICES), "0.5", world.now_ms - chance.randrange(3 * BLOCK * MINUTE_MS))
    world.restore()
    for interval in INTERVALS:
        world.look(interval)


# Which rows are told.


def minutes(count: int, every: int = 1) -> World:
    """A trade in each minute, at its number, and now right behind the last one."""
    world = World()
    for number in range(0, count, every):
        world.now_ms = NOON_MS + number * MINUTE_MS
        world.trade(str(number + 1), "1", world.now_ms)
    return world


def starts(candles: Candles, interval: str = "1m", **asked: Any) -> list[int]:
    rows = [json.loads(row) for row in candles.rows(interval, **{"limit": 1_500, **asked})]
    return [(row[0] - NOON_MS) // MINUTE_MS for row in rows]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"limit": 3}, [7, 8, 9]),
        ({"limit": 1}, [9]),
        ({"start": 2}, [2, 3, 4, 5, 6, 7, 8, 9]),
        ({"start": 2, "limit": 3}, [2, 3, 4]),
        ({"end": 5, "limit": 3}, [3, 4, 5]),
        ({"start": 3, "end": 5}, [3, 4, 5]),
        ({"start": -9, "end": 1}, [0, 1]),
        ({"start": 5, "end": 5}, [5]),
        ({"start": 5, "end": 4}, []),
        ({"end": -1}, []),
        ({"start": 10}, []),
    ],
)
def test_rows_are_the_first_from_a_start_on_and_else_the_last(asked: dict[str, int], told: list[int]) -> None:
    world = minutes(10)
    given_ = {f"{name}_ms": NOON_MS + at * MINUTE_MS for name, at in asked.items() if name != "limit"}
    assert starts(world.candles, **given_, limit=asked.get("limit", 1_500)) == told


def test_rows_between_two_times_open_then() -> None:
    world = minutes(10)
    assert starts(world.candles, start_ms=NOON_MS + 1, end_ms=NOON_MS + 3 * MINUTE_MS - 1) == [1, 2]


def test_row_of_a_period_without_a_trade_repeats_the_close_with_no_volume() -> None:
    world = minutes(10, every=5)
    world.now_ms += 3 * MINUTE_MS
    rows = [json.loads(row) for row in world.candles.rows("1m", limit=5)]
    assert [row[1:] for row in rows] == [
        ["1", "1", "1", "1", "0", "0", 0, True],
        ["6", "6", "6", "6", "1", "6", 1, True],
        *2 * [["6", "6", "6", "6", "0", "0", 0, True]],
        ["6", "6", "6", "6", "0", "0", 0, False],
    ]


def test_rows_may_have_numbers_with_every_digit() -> None:
    world = World()
    world.trade("9" * ENGINE_DIGITS, "0.10", NOON_MS)
    [row] = world.candles.rows("1d", limit=1, as_numbers=True)
    text = "9" * ENGINE_DIGITS
    assert row == f"[{NOON_MS - 12 * HOUR_MS},{text},{text},{text},{text},0.1,{text[:-1]}.9,1,false]"


def test_day_is_that_of_utc() -> None:
    world = World()
    midnight_ms = NOON_MS + 12 * HOUR_MS
    world.trade("1", "1", midnight_ms - 1)
    world.trade("2", "1", midnight_ms)
    rows = [json.loads(row) for row in world.candles.rows("1d", limit=10)]
    assert [(row[0], row[4]) for row in rows] == [(midnight_ms - DAY_MS, "1"), (midnight_ms, "2")]
    assert midnight_ms % DAY_MS == 0


def test_rows_are_never_more_than_are_kept_however_far_the_clock_has_gone() -> None:
    world = minutes(3)
    world.now_ms += 400 * DAY_MS
    assert len(world.candles.rows("1m", limit=10_000)) == MOST_CANDLES
    [oldest, *_] = world.candles.rows("1m", start_ms=0, limit=10_000)
    assert json.loads(oldest)[0] == NOON_MS
    world.trade("7", "1", world.now_ms)
    assert world.candles._series[0].count == 3, "what is empty is not kept"
    assert [row[7] for row in map(json.loads, world.candles.rows("1m", limit=2))] == [0, 1]


def test_trade_of_a_clock_that_was_far_ahead_takes_nothing_away() -> None:
    world = minutes(10)
    world.trade("99", "1", NOON_MS + 900 * DAY_MS)
    world.trade("50", "1", NOON_MS + 4 * MINUTE_MS)
    rows = [json.loads(row) for row in world.candles.rows("1m", start_ms=NOON_MS, limit=10)]
    assert [(row[1], row[4], row[7]) for row in rows] == [
        (str(n), "50" if n == 5 else str(n), 2 if n == 5 else 1) for n in range(1, 11)
    ]


def test_fill_that_is_older_than_all_that_is_kept_is_left_out_of_that_interval() -> None:
    world = minutes(MOST_CANDLES + 50)
    before = world.candles.rows("1m", limit=1_500, start_ms=0)
    for late in (0, 20, 48):
        world.trade("7777", "1", NOON_MS + late * MINUTE_MS)
    assert world.candles.rows("1m", limit=1_500, start_ms=0) == before
    assert json.loads(before[0])[0] == NOON_MS + 49 * MINUTE_MS
    [hour, *_] = world.candles.rows("1h", limit=100)
    assert json.loads(hour)[2] == "7777"


def test_memory_is_bounded_when_every_fill_is_of_another_time() -> None:
    chance = random.Random(1)
    world = World()
    for _ in range(2_500):
        world.trade("1", "1", NOON_MS - chance.randrange(40_000) * MINUTE_MS)
    [series, *_] = world.candles._series
    assert series.count < MOST_CANDLES + 2 * BLOCK
    assert sum(block._lines is not None for block in series._blocks) <= 2


# What changed.


def test_follower_is_told_what_ended_or_changed() -> None:
    world = minutes(10)
    changed = world.candles.follow("1m")
    assert world.candles.rows_at("1m", changed) == []
    world.trade("50", "1", NOON_MS + 3 * MINUTE_MS)
    world.now_ms = NOON_MS + 12 * MINUTE_MS
    world.trade("60", "1", world.now_ms)
    rows = [json.loads(row) for row in world.candles.rows_at("1m", changed)]
    assert [((row[0] - NOON_MS) // MINUTE_MS, row[4], row[8]) for row in rows] == [(3, 50, True), (9, 10, True)]
    assert world.candles.rows_at("1m", [0, NOON_MS - MINUTE_MS, NOON_MS + 1, world.now_ms]) == []


def test_who_stops_following_takes_nothing_from_who_began_since() -> None:
    world = minutes(10)
    former = world.candles.follow("1m")
    follower = world.candles.follow("1m")
    world.candles.unfollow("1m", former)
    world.trade("50", "1", NOON_MS + 3 * MINUTE_MS)
    assert list(follower) == [NOON_MS + 3 * MINUTE_MS]
    world.candles.unfollow("1m", follower)
    world.trade("50", "1", NOON_MS + 4 * MINUTE_MS)
    assert (list(former), len(follower)) == ([], 1)


def test_revision_is_the_offset_of_the_last_fill() -> None:
    candles = Candles(lambda: NOON_MS)
    assert (candles.revision, candles.rows("1m", limit=5), candles.kept()) == (-1, [], None)
    candles.add(Decimal(1), Decimal(1), Decimal(1), NOON_MS, 41)
    candles.add(Decimal(1), Decimal(1), Decimal(1), NOON_MS - HOUR_MS, 77)
    assert candles.revision == 77


def test_interval_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError):
        minutes(1).candles.rows("2m", limit=1)


# What is kept.


def test_only_pages_that_changed_are_taken() -> None:
    world = minutes(2 * BLOCK + 12)
    assert {number for number, page in world.candles.take_pages(everything=True).items() if page} >= {0, 1, 2, 10}
    assert world.candles.take_pages() == {}
    world.trade("1", "1", world.now_ms)
    assert world.candles.take_pages() == {}, "what is under way is not on a page"
    world.now_ms += MINUTE_MS
    world.trade("1", "1", world.now_ms)
    assert list(world.candles.take_pages()) == [2]
    world.trade("1", "1", NOON_MS)
    assert set(world.candles.take_pages()) == {0, 10, 20, 30, 40}, "but for the day, which is under way"


def test_page_of_what_is_kept_no_longer_is_taken_as_empty() -> None:
    world = minutes(MOST_CANDLES)
    world.candles.take_pages()
    for _ in range(BLOCK + 20):
        world.now_ms += MINUTE_MS
        world.trade("1", "1", world.now_ms)
    taken = world.candles.take_pages()
    assert taken[0] is None


def kept_of(world: World) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """What is written, as objects of JSON."""
    pages = {
        number: json.loads(msgspec.json.encode(page)) for number, page in world.candles.take_pages(True).items() if page
    }
    return json.loads(msgspec.json.encode(world.candles.kept())), pages


def restore(kept: dict[str, Any], pages: dict[int, dict[str, Any]]) -> None:
    again = Candles(lambda: NOON_MS)
    again.restore(
        msgspec.convert(kept, KeptCandles, strict=False),
        {number: msgspec.convert(page, CandlePage) for number, page in pages.items()},
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", -1),
        ("under_way", []),
        ("under_way.0.0", NOON_MS - DAY_MS),
        ("under_way.1.0", NOON_MS),
        ("under_way.0.7", 0),
        ("under_way.3.1", "NaN"),
        ("under_way.3.5", "Infinity"),
        ("under_way.2.8", -1),
        ("under_way.2.9", 900_000),
    ],
)
def test_state_that_cannot_be_is_refused(name: str, value: Any) -> None:
    kept, pages = kept_of(minutes(BLOCK + 5))
    restore(kept, pages)
    place: Any = kept
    *parts, last = [int(part) if part.isdecimal() else part for part in name.split(".")]
    for part in parts:
        place = place[part]
    place[last] = value
    with pytest.raises(ValueError, match=r"at|candle|under_way"):
        restore(kept, pages)


@pytest.mark.parametrize(
    "change",
    [
        lambda pages: pages[0].update(lines="?"),
        lambda pages: pages[0].update(lines="AAAA"),
        lambda pages: pages[0].update(count=BLOCK - 1),
        lambda pages: pages[0].update(first_ms=NOON_MS + 1),
        lambda pages: pages.update({1: pages[0]}),
        lambda pages: pages.update({0: pages[1]}) or (pages.pop(1) and pages.update({1: pages[10]})),
        lambda pages: pages.update({n: {**pages[0]} for n in range(2, 10)}),
    ],
)
def test_pages_that_cannot_be_are_refused(change: Any) -> None:
    kept, pages = kept_of(minutes(BLOCK + 5))
    change(pages)
    with pytest.raises(ValueError, match=r"lines|candle|base64|padding|padded"):
        restore(kept, pages)
