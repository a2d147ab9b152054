"""What clocks of others may not do to a symbol."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market.market import Market
from core.messages.times import Times
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import delta, fill, snapshot

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
SYMBOL = "KCN/EUR"

FUTURE = {
    "two days ahead": NOW_MS + 2 * DAY_MS,
    "in microseconds": NOW_MS * 1_000,
    "in nanoseconds": NOW_MS * 1_000_000,
    "in microseconds, two days ahead": (NOW_MS + 2 * DAY_MS) * 1_000,
}


def fills(driven: DrivenHub, first: int, *prices: str) -> None:
    records = [(0, first + n, fill(price=p, quantity="1", timestamp=NOW_MS + n)) for n, p in enumerate(prices)]
    driven.say(*records, time_ms=NOW_MS)


@pytest.mark.parametrize("time", FUTURE.values(), ids=FUTURE)
@pytest.mark.parametrize("what", ["fill", "delta", "snapshot", "record"])
def test_future_time_of_one_record_costs_no_honest_trade(what: str, time: int) -> None:
    driven = DrivenHub()
    driven.say((0, 0, snapshot(bid="100", ask="101", timestamp=NOW_MS)), time_ms=NOW_MS)
    fills(driven, 1, "100.5", "100.6", "100.7", "100.8", "100.9")
    odd: dict[str, Any] = {
        "fill": fill(price="100.50", quantity="1", timestamp=time),
        "delta": delta(price="99", timestamp=time),
        "snapshot": snapshot(bid="100", ask="101", timestamp=time),
        "record": delta(price="99"),
    }
    driven.say((0, 6, odd[what]), time_ms=driven.times.of_record(time) if what == "record" else NOW_MS)
    fills(driven, 7, "90", "91", "92", "93", "94")
    market = driven.market.of(SYMBOL)
    stats = market.statistics
    assert stats.volume == 10 + (what == "fill")
    assert (stats.low, stats.high) == (Decimal(90), Decimal("100.9"))
    assert market.time_ms <= NOW_MS + 60_000
    [ticker] = driven.connect("ticker.KCN/EUR.raw").messages()
    assert ticker["notification"]["volume_24h"] == 10 + (what == "fill")


def test_future_time_of_a_record_drops_no_history() -> None:
    driven = DrivenHub()
    for offset in range(3):
        driven.say((0, offset, delta()), time_ms=driven.times.of_record(FUTURE["two days ahead"] if offset else NOW_MS))
    assert len(driven.market.of(SYMBOL).history) == 3


def test_time_that_was_not_taken_is_told_with_what_had_it() -> None:
    driven = DrivenHub()
    driven.say((0, 0, fill(timestamp=NOW_MS * 1000)), (0, 1, delta(timestamp=2 * NOW_MS)), time_ms=NOW_MS)
    assert driven.odd_times == [
        ("microseconds", "fill", NOW_MS * 1000),
        ("ahead", "orderbook_delta", 2 * NOW_MS),
    ]


# Random clocks, beside what the contract says worked out by hand.


@dataclass
class Written:
    """One record: how far the writer's clock is from the truth, the unit it writes in, and what it writes about."""

    what: str
    pause_ms: int
    off_ms: int
    per_second: int
    record_off_ms: int


WRITTEN = st.builds(
    Written,
    st.sampled_from(["fill", "fill", "delta", "snapshot"]),
    st.sampled_from([0, 1, 1000, 3_600_000]),
    st.sampled_from([0, 0, -3_600_000, -2 * DAY_MS, 30_000, 60_000, 60_001, 3_600_000, 2 * DAY_MS, 10**11]),
    st.sampled_from([1, 1000, 1000, 10**6, 10**9]),
    st.sampled_from([0, 0, -1000, 61_000, 2 * DAY_MS]),
)


def as_written(true_ms: int, one: Written) -> tuple[int, int]:
    """The number in the event, and what it says in milliseconds."""
    moment_ms = true_ms + one.off_ms
    number = moment_ms // 1000 if one.per_second == 1 else moment_ms * (one.per_second // 1000)
    return number, moment_ms // 1000 * 1000 if one.per_second == 1 else moment_ms


def taken(says_ms: int, kafka_ms: int, now_ms: int) -> int:
    record_ms = now_ms if kafka_ms > now_ms + 60_000 else kafka_ms
    return record_ms if says_ms > now_ms + 60_000 else says_ms


@settings(deadline=None)
@given(st.lists(WRITTEN, min_size=1, max_size=30), st.sampled_from([0, 1000, 3_600_000]))
def test_window_has_what_the_contract_says_whatever_the_clocks_say(
    script: list[Written], until_warm_up_ms: int
) -> None:
    now_ms = NOW_MS
    times = Times(lambda: now_ms / 1000)
    log: list[tuple[Written, bytes, int, int]] = []
    live_trades = []
    live, again = (Market(lambda *_: None, lambda *_: None, lambda *_: None, times=times) for _ in range(2))
    for offset, one in enumerate(script):
        now_ms += one.pause_ms
        number, says_ms = as_written(now_ms, one)
        kafka_ms = now_ms + one.record_off_ms
        make: Any = {"fill": partial(fill, quantity="1"), "delta": delta, "snapshot": snapshot}[one.what]
        log.append((one, make(timestamp=number), says_ms, kafka_ms))
        live.fold(0, offset, log[-1][1], times.of_record(kafka_ms))
        if one.what == "fill":
            live_trades.append(taken(says_ms, kafka_ms, now_ms))
    assert live.of(SYMBOL).time_ms <= now_ms + 60_000
    assert live.of(SYMBOL).statistics.volume == in_window(live_trades, now_ms)
    # Read once more, by an instance that starts later.
    now_ms += until_warm_up_ms
    for offset, (_, value, _, kafka_ms) in enumerate(log):
        again.fold(0, offset, value, times.of_record(kafka_ms))
    trades = [taken(says_ms, kafka_ms, now_ms) for one, _, says_ms, kafka_ms in log if one.what == "fill"]
    assert again.of(SYMBOL).time_ms <= now_ms + 60_000
    assert again.of(SYMBOL).statistics.volume == in_window(trades, now_ms)


def in_window(trades: list[int], end_ms: int) -> int:
    return sum(end_ms - DAY_MS < at_ms for at_ms in trades)
