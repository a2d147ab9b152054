from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.messages.events import BookDelta, BookSnapshot, Fill, OrderEvent, read_event
from core.messages.order_records import read_order_record
from core.messages.times import AHEAD_MS, KINDS, Times
from tests.core.fakes import delta, fill, filled, snapshot

NOW_MS = 1_795_000_000_000
ODD = {
    "ahead": NOW_MS + AHEAD_MS + 1,
    "seconds": NOW_MS // 1000,
    "microseconds": NOW_MS * 1000,
    "nanoseconds": NOW_MS * 1_000_000,
}


class Told:
    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms
        self.odd: list[tuple[str, str, int]] = []
        self.times = Times(lambda: self.now_ms / 1000, lambda *odd: self.odd.append(odd))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.mark.parametrize("given_ms", [NOW_MS, NOW_MS + AHEAD_MS, NOW_MS - 10**11, 10**11, 1700, 1])
def test_time_that_can_be_is_taken_as_it_is(told: Told, given_ms: int) -> None:
    assert told.times.of_record(given_ms) == given_ms
    event = read_event(fill(timestamp=given_ms))
    assert told.times.in_event(event, 5) == event
    assert told.odd == []


@pytest.mark.parametrize(("why", "given_ms"), ODD.items())
def test_odd_time_of_a_record_is_ours_or_read_in_its_unit(told: Told, why: str, given_ms: int) -> None:
    assert told.times.of_record(given_ms) == NOW_MS
    assert told.odd == [(why, "record", given_ms)]


@pytest.mark.parametrize("given_ms", [0, -1])
def test_record_that_kafka_has_no_time_for_is_taken_for_new(told: Told, given_ms: int) -> None:
    assert told.times.of_record(given_ms) == NOW_MS
    assert told.odd == []


@pytest.mark.parametrize(("why", "given_ms"), ODD.items())
@pytest.mark.parametrize("record", [fill, snapshot, delta, filled])
def test_odd_time_in_an_event_is_its_records_or_read_in_its_unit(
    told: Told, why: str, given_ms: int, record: Any
) -> None:
    event = told.times.in_event(read_event(record(timestamp=given_ms)), NOW_MS - 7)
    assert isinstance(event, Fill | BookSnapshot | BookDelta | OrderEvent)
    assert event.timestamp_ms == (NOW_MS - 7 if why == "ahead" else NOW_MS)
    assert json.loads(event.payload)["timestamp"] == given_ms, "what the engine wrote is passed on as it is"
    assert told.odd == [(why, event.type, given_ms)]


def test_event_from_the_future_in_a_record_without_a_time_is_taken_for_new(told: Told) -> None:
    event = told.times.in_event(read_event(fill(timestamp=NOW_MS * 2)), 0)
    assert isinstance(event, Fill)
    assert event.timestamp_ms == NOW_MS


@pytest.mark.parametrize(("why", "given_ms"), ODD.items())
def test_odd_time_in_a_command_is_its_records_or_read_in_its_unit(told: Told, why: str, given_ms: int) -> None:
    command = {
        "type": "place_order", "order_id": "a", "symbol": "KCN/EUR", "side": "bid", "order_type": "limit",
        "price": "1.5", "quantity": "2", "user_id": "alice", "timestamp": given_ms,
    }  # fmt: skip
    record = read_order_record(json.dumps(command).encode())
    assert record is not None
    assert told.times.in_order(record, 5).timestamp_ms == (5 if why == "ahead" else NOW_MS)
    assert told.odd == [(why, "place_order", given_ms)]
    without = record._replace(timestamp_ms=None)
    assert told.times.in_order(without, 5) is without


@given(st.integers(10**12, 3 * 10**12), st.integers(0, 2**63 - 1), st.integers(-1, 2**63 - 1))
def test_no_time_that_is_taken_is_more_than_a_minute_ahead(now_ms: int, event_time: int, record_time: int) -> None:
    told = Told(now_ms)
    record_ms = told.times.of_record(record_time)
    event = told.times.in_event(read_event(fill(timestamp=event_time)), record_ms)
    assert isinstance(event, Fill)
    assert max(record_ms, event.timestamp_ms) <= told.times.now_ms() + AHEAD_MS
    assert {why for why, _, _ in told.odd} <= set(KINDS)


@given(
    st.integers(1_100 * 10**9, 3 * 10**12), st.integers(-(10**10), AHEAD_MS - 1), st.sampled_from([1, 1000, 1_000_000])
)
def test_time_is_the_same_in_every_unit(now_ms: int, since_now_ms: int, divides: int) -> None:
    times = Told(now_ms).times
    moment_ms = now_ms + since_now_ms
    assert times.of_record(moment_ms * divides) == times.of_record(moment_ms)
    assert times.of_record(moment_ms // 1000) == moment_ms // 1000 * 1000
