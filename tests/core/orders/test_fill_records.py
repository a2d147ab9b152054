"""Single records of what is kept of own fills, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.messages.kept_state import order_partition
from core.orders.fills import OwnFills
from tests.core.fake_orders import SYMBOL, command, fill
from tests.core.orders.kept_orders import Kept, cursor_at

FILLS_GOLDEN = Path(__file__).parents[2] / "vectors" / "state" / "v2" / "fills.json"


def test_fills_are_read_from_the_golden_file_and_written_as_they_are_there() -> None:
    records = json.loads(FILLS_GOLDEN.read_text("utf-8"))
    kept = Kept()
    for record in records:
        kept.kept.take_back(0, record["key"], None if record["value"] is None else record["value"].encode())
    kept.kept.resume({0: cursor_at({0: 9}, {0: 6})})
    latest = {record["key"]: record["value"] for record in records}
    again = {key: None if value is None else value.decode() for key, value in kept.cut().items() if "fill" in key}
    assert {key: value for key, value in again.items() if value is not None} == {
        key: value for key, value in latest.items() if value is not None
    }
    assert [one.key.fill_id for one in kept.directory.fills.of("al/ice \ud800")] == ["0-3", "0-5"]
    assert kept.directory.fills.begins() == {0: 2}
    assert kept.directory.fills.dropped_to == {0: 1}


def test_fills_are_known_from_the_cursor_on_where_none_had_been_kept() -> None:
    kept = Kept().taken_back({}, cursor_at({0: 7}, {0: 6}))
    assert kept.directory.fills.begins() == {0: 7}


def test_fills_are_known_from_where_reading_began_when_something_was_not_taken_back() -> None:
    kept = Kept(partitions=2).taken_back({}, cursor_at({0: 7}, {0: 6}), partitions=2)
    kept.directory.fills.read_from = lambda: {0: 3}
    assert kept.directory.fills.begins() == {0: 3}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fill/0-1/bid/", "{}"),
        ("fill/0-1/both/alice", "{}"),
        ("fill/0-x/bid/alice", "{}"),
        ("fill/0-1/bid/alice", "{}"),
        ("fill/0-1/bid/alice", '["o",null,"KCN/EUR","1.5","NaN",9]'),
        ("fills/0", "[]"),
    ],
)
def test_a_record_of_fills_that_cannot_be_read_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError):
        Kept().kept.take_back(0, key, value.encode())


def test_a_fill_of_another_partition_is_refused() -> None:
    value = b'["o",null,"%s","1.5","1",9]' % SYMBOL.encode()
    other = 1 - order_partition(SYMBOL, 2)
    with pytest.raises(ValueError, match="are not kept by partition"):
        Kept(partitions=2).kept.take_back(other, "fill/0-1/bid/alice", value)


def test_the_fills_of_what_cannot_be_used_are_forgotten() -> None:
    kept = Kept().commands(command("a")).events(fill("a", "other"))
    records = {key: value for key, value in kept.cut().items() if "fill" in key}
    fresh = Kept()
    for key, value in records.items():
        fresh.kept.take_back(0, key, value)
    fresh.kept.discard(0)
    assert fresh.directory.fills.of("alice") == []
    assert fresh.cut()["fill/0-0/bid/alice"] is None


def test_a_fill_that_waits_is_kept_with_its_fees() -> None:
    kept = Kept().events(fill("a", "other", buy_fee="0.01", sell_fee="7", fee_currency="EUR"))
    fresh = kept.taken_back(kept.cut()).commands(command("a"))
    [known] = fresh.directory.fills.of("alice")
    assert (known.fill.fee, known.fill.fee_currency) == ("0.01", "EUR")


def test_only_fills_that_changed_are_written() -> None:
    kept = Kept().commands(command("a")).events(fill("a", "other"))
    kept.kept.journal.rotate()
    kept.events(fill("a", "other"))
    assert [key for key in kept.cut(kept.changed()) if key.startswith("fill/")] == ["fill/0-1/bid/alice"]


def test_a_fill_that_was_dropped_for_room_is_forgotten() -> None:
    kept = Kept(fills=OwnFills(most_of_a_user=1)).commands(command("a")).events(fill("a", "x"), fill("a", "x"))
    kept.directory.fills.read_from = lambda: {0: 0}
    records = kept.cut(kept.changed())
    assert records["fill/0-0/bid/alice"] is None
    assert json.loads(records["fills/0"] or b"") == {"begins": {"0": 0}, "dropped_to": {"0": 0}}
