"""Single records of what is kept of the orders, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.messages.kept_state import KeptRecord, order_partition
from tests.core.fake_orders import SYMBOL, command, event, fill, placed
from tests.core.orders.kept_orders import KEEP_SECONDS, PIECE, Kept, cursor_at

GOLDEN = Path(__file__).parents[2] / "vectors" / "state" / "v1" / "orders.json"
AMENDED_GOLDEN = GOLDEN.parents[1] / "v3" / "orders.json"
ATTRIBUTES_GOLDEN = GOLDEN.parents[1] / "v3" / "attributes.json"


def read(value: bytes | None) -> dict[str, Any]:
    assert value is not None
    said: dict[str, Any] = json.loads(value)
    return said


# the format


def test_orders_are_read_from_the_golden_file_and_written_as_they_are_there() -> None:
    records = json.loads(GOLDEN.read_text("utf-8"))
    kept = Kept(keep_terminal_seconds=1e9)
    for record in records:
        kept.kept.take_back(0, record["key"], None if record["value"] is None else record["value"].encode())
    kept.kept.resume({0: cursor_at({0: 7}, {0: 6})})
    latest = {record["key"]: record["value"] for record in records}
    again = {key: None if value is None else value.decode() for key, value in kept.cut().items()}
    assert again.pop("fills/0") == '{"begins":{"0":7},"dropped_to":{}}'
    assert again == {key: value for key, value in latest.items() if value is not None}
    assert [kept.open("alice"), kept.open("carol"), kept.open("bob")] == [
        ["9f1c2d34-0000-5000-8000-000000000001", "f"],
        ["g"],
        [],
    ]
    assert kept.state_of("17") == {
        "order_id": "17",
        "client_order_id": "my-2",
        "symbol": "A/EUR",
        "side": "bid",
        "order_type": "limit",
        "time_in_force": "GTC",
        "price": "1.50",
        "quantity": "0.50",
        "filled_quantity": "0.50",
        "status": "filled",
        "time": 1_790_000_000.012,
        "ended_ms": 1_790_000_000_020,
        "user_id": "bob",
        "named": "my-2",
    }
    assert kept.state("c")["reason"] == "no funds: \u20ac"
    first = kept.directory.find_by_client_order_id("alice", "my-1")
    assert first is not None and first.order_id == "9f1c2d34-0000-5000-8000-000000000001"
    assert first.has_terms(placed("my-1", "2.0").terms_hash)
    assert kept.directory.find("gr\u00f6\u00dfe \ud800", "e") is not None
    assert [(early.order_id, early.offset, early.live) for early in kept.directory.early_events.waiting()] == [
        ("h", 5, False),
        ("h", 6, False),
        ("i", 6, False),
    ]
    assert ("d" in kept.directory.releases, "k" in kept.directory.releases) == (True, False)


def test_amended_orders_are_read_from_the_golden_file_and_written_as_they_are_there() -> None:
    records = json.loads(AMENDED_GOLDEN.read_text("utf-8"))
    kept = Kept(keep_terminal_seconds=1e9)
    for record in records:
        kept.kept.take_back(0, record["key"], record["value"].encode())
    kept.kept.resume({0: cursor_at({0: 7}, {0: 0})})
    again = {key: value.decode() for key, value in kept.cut().items() if value is not None and "order" in key}
    assert again == {record["key"]: record["value"] for record in records}
    assert (kept.state_of("a")["price"], kept.state_of("a")["quantity"]) == ("1.75", "3.0")
    # Of this one no instance had read the record yet.
    kept.commands(command("b", "bob", price="1.25", quantity="2"))
    assert (kept.state_of("b")["price"], kept.state_of("b")["quantity"]) == ("1.50", "0.50")


def test_orders_with_attributes_are_read_from_the_golden_file_and_written_as_they_are_there() -> None:
    records = json.loads(ATTRIBUTES_GOLDEN.read_text("utf-8"))
    kept = Kept(keep_terminal_seconds=1e9)
    for record in records:
        kept.kept.take_back(0, record["key"], record["value"].encode())
    kept.kept.resume({0: cursor_at({0: 7}, {0: 2})})
    again = {key: value.decode() for key, value in kept.cut().items() if value is not None and "order/" in key}
    assert again == {record["key"]: record["value"] for record in records}
    shown = kept.state_of("a")
    assert [shown[name] for name in ("post_only", "stp", "group", "stop")] == [True, "cancel_both", 1, "0.10"]
    assert shown["post_only"] is True
    assert "post_only" not in kept.state_of("b")


GOOD = {
    "symbol": SYMBOL, "side": "bid", "order_type": "limit", "quantity": "2.0", "created_ms": 1, "time_ms": 2, "price": "1.5",
}  # fmt: skip
WAITED = {
    "order_id": "a",
    "partition": 0,
    "offset": 1,
    "time_ms": 1,
    "payload": '{"type":"order_filled","order_id":"a"}',
}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("order/a", b"{", "truncated"),
        ("order/a", b"\xff", "."),
        ("order/a", json.dumps({**GOOD, "side": "buy"}).encode(), "side"),
        ("order/a", json.dumps({**GOOD, "created_ms": "1"}).encode(), "created_ms"),
        ("order/a", json.dumps({**GOOD, "surprise": 1}).encode(), "surprise"),
        ("order/a", json.dumps({**GOOD, "quantity": "much"}).encode(), "quantity"),
        ("order/a", json.dumps({**GOOD, "price": "1e5"}).encode(), "price"),
        ("order/a", json.dumps({**GOOD, "status": "filled"}).encode(), "ended_ms"),
        ("order/a", json.dumps({**GOOD, "ended_ms": 5}).encode(), "ended_ms"),
        ("order/a", json.dumps({**GOOD, "terms_digest": "AQEB"}).encode(), "terms_digest"),
        ("order/a", json.dumps({**GOOD, "symbol": "A/EUR"}).encode(), "symbol"),
        ("order/a", json.dumps({**GOOD, "user_id": "\ud800", "side": "buy"}).encode(), "side"),
        ("order/a", b'{"user_id":"\\ud800",' + b'"x":[' * 100_000, "."),
        ("early/2", json.dumps({"records": 1, "events": [{**WAITED, "payload": "{"}]}).encode(), "payload"),
        ("early/2", json.dumps({"records": 1, "events": [{**WAITED, "payload": '{"type":"x"}'}]}).encode(), "payload"),
        ("early/2", json.dumps({"records": 1, "events": [{**WAITED, "offset": None}]}).encode(), "offset"),
        ("early/0", json.dumps({"records": 0, "events": []}).encode(), "key"),
        ("early/2/x", None, "key"),
        ("release/a", b"{", "truncated"),
        ("release/a", b'{"symbol":"KCN/EUR","user_id":"alice"}', "since_ms"),
        ("release/a", b'{"symbol":"A/EUR","user_id":"alice","since_ms":1}', "symbol"),
        ("book/KCN/EUR", None, "key"),
    ],
)
def test_record_that_cannot_be_read_is_refused_by_the_name_of_its_field(
    key: str, value: bytes | None, named: str
) -> None:
    kept = Kept(partitions=3)
    assert order_partition(SYMBOL, 3) == 2
    with pytest.raises(ValueError, match=named):
        kept.kept.take_back(2, key, value)
    assert len(kept.directory) == 0


def test_later_record_of_an_order_replaces_the_earlier() -> None:
    before = Kept().commands(command("a", name := "alice", "my-1"), command("b"))
    first = before.cut()
    before.events(event("order_filled", "a"), live=False)
    after = Kept()
    for records in (first, before.cut(), {"order/b": None}):
        for key, value in records.items():
            after.kept.take_back(0, key, value)
    assert after.state("a")["status"] == "filled"
    assert (after.open(name), len(after.directory)) == ([], 1)
    after.now = 0.005 + KEEP_SECONDS
    after.sweep()
    assert len(after.directory) == 0
    assert after.told.counts == {"terminal_dropped": 1}


# what is written


def test_nothing_is_noted_while_the_number_of_partitions_is_not_known() -> None:
    kept = Kept(partitions=0).commands(command("a")).events(event("order_filled", "b"))
    assert [kept.changed(partition) for partition in range(-1, 3)] == [set()] * 4


def test_order_of_which_nothing_is_certain_is_not_written() -> None:
    kept = Kept()
    order = kept.directory.register("a", "alice", placed("my-1"), 1)
    assert (kept.changed(), kept.cut()) == (set(), {})
    kept.directory.mark_unknown(order)
    assert (kept.changed(), kept.cut()) == (set(), {})
    kept.directory.confirm(order)
    assert (kept.changed(), list(kept.cut())) == ({"order/a"}, ["order/a"])


def test_changes_are_noted_in_the_generation_in_which_they_happen() -> None:
    kept = Kept().commands(command("a"), command("b"))
    journal = kept.kept.journal
    assert journal.since(0, 0) == {"order/a", "order/b"}
    assert journal.rotate() == 1
    kept.events(event("order_accepted", "b"), event("order_accepted", "c"))
    assert journal.since(0, 1) == {"order/b", "early/0"}
    assert journal.since(0, 0) == {"order/a", "order/b", "early/0"}
    journal.drop_before(1)
    with pytest.raises(LookupError):
        journal.since(0, 0)


def test_order_that_is_forgotten_is_a_tombstone() -> None:
    kept = Kept().commands(command("a"), command("b")).events(event("order_filled", "a"))
    kept.kept.journal.rotate()
    kept.now += KEEP_SECONDS + 1
    kept.sweep()
    assert kept.changed() == {"order/a"}
    assert kept.cut(kept.changed()) == {"order/a": None}
    assert kept.cut() == {"order/a": None, "order/b": kept.cut({"order/b"})["order/b"]}


def test_cut_is_of_its_moment_whatever_comes_between_its_pieces() -> None:
    kept = Kept().commands(*(command(f"{number}", "alice", f"my-{number}") for number in range(1_000)))
    before = kept.cut()
    for keys in (None, {f"order/{number}" for number in range(1_000)} | {"order/new", "order/never", "order/other"}):
        pieces = kept.kept.cut(0, keys, is_whole=True)
        other = kept.kept.cut(0, {"order/5"}, is_whole=True)
        records: list[KeptRecord] = []
        for number, piece in enumerate(pieces):
            records += piece
            assert len(piece) <= PIECE
            kept.events(*(fill(f"{one}", "nobody", "0.0001") for one in range(number % 7, 1_000, 7)))
            if number == 1:
                kept.commands(command("new" if keys else "other"))
        written = {record.key: record.value for record in records}
        late = {key for key, value in written.items() if value is None}
        assert late <= {"order/new", "order/never", "order/other", "early/0"}
        assert {
            key: value for key, value in written.items() if value is not None and key.startswith("order/")
        } == before
        assert next(record for piece in other for record in piece) == ("order/5", before["order/5"])
        before = {key: value for key, value in kept.cut().items() if key.startswith("order/")}
    assert len(kept.directory) == 1_002


def test_cut_that_is_thrown_away_leaves_nothing_behind() -> None:
    kept = Kept().commands(*(command(f"{number}") for number in range(300)))
    for keys in (None, {"order/1", "order/2"}):
        pieces = kept.kept.cut(0, keys, is_whole=True)
        kept.commands(command(f"late {keys}"))
        kept.events(event("order_filled", "0"))
        del pieces
    kept.now += KEEP_SECONDS + 1
    kept.sweep()
    assert kept.kept._cuts == []
    assert len(kept.directory) == 301
    assert [kept.directory.get(order_id) is None for order_id in ("0", "1", "late None")] == [True, False, False]


def test_orders_come_and_go_while_all_are_walked_over() -> None:
    kept = Kept().commands(*(command(f"{number}") for number in range(3_000)))
    pieces = kept.kept.cut(0, None, is_whole=False)
    written = {record.key: record.value for record in next(pieces)}
    kept.commands(command("new")).events(event("order_filled", "new"), event("order_filled", "2999"))
    kept.now += KEEP_SECONDS + 1
    kept.sweep()
    assert len(kept.directory) == 2_999
    assert [kept.directory.get(order_id) for order_id in ("new", "2999")] == [None, None]
    kept.commands(command("2999", "bob"))
    assert kept.open("bob") == ["2999"]
    written |= {record.key: record.value for piece in pieces for record in piece}
    assert (len(kept.directory), len(written)) == (3_000, 3_001)
    assert read(written["order/2999"])["user_id"] == "alice"
    assert read(kept.cut()["order/2999"])["user_id"] == "bob"


def test_order_whose_symbol_becomes_another_one_changes_its_partition() -> None:
    kept = Kept(partitions=3)
    symbols = {order_partition(symbol, 3): symbol for symbol in ("J/EUR", "A/EUR")}
    kept.directory.confirm(kept.directory.register("a", "alice", placed("my-1", symbol=symbols[0]), 1))
    old = kept.cut(kept.changed(0), 0)
    cuts = [kept.kept.cut(partition, {"order/a"}, is_whole=True) for partition in (0, 1)]
    kept.kept.journal.rotate()
    kept.commands(command("a", "alice", "my-1", symbol=symbols[1]))
    assert (kept.changed(0), kept.changed(1), kept.changed(2)) == ({"order/a"}, {"order/a"}, set())
    assert [[record.value for piece in cut for record in piece if record.key == "order/a"] for cut in cuts] == [
        [old["order/a"]],
        [None],
    ]
    assert kept.cut(kept.changed(0), 0) == {"order/a": None}
    new = kept.cut(kept.changed(1), 1)
    assert read(new["order/a"])["symbol"] == symbols[1]
    for first, second in (((0, old), (1, new)), ((1, new), (0, old))):
        fresh = Kept(partitions=3)
        for partition, records in (first, second):
            fresh.kept.take_back(partition, "order/a", records["order/a"])
        assert fresh.state("a")["symbol"] == symbols[1]
        assert len(fresh.directory) == len(fresh.open()) == 1
        assert fresh.cut(fresh.changed(0), 0, is_whole=True) == {"order/a": None, "early/0": None}


# events that waited


def test_events_that_wait_are_written_in_pieces_and_wait_again() -> None:
    kept = Kept().events(*(event("order_accepted", f"{number}") for number in range(250)))
    records = kept.cut()
    assert {key: read(value)["records"] for key, value in records.items()} == dict.fromkeys(
        ("early/0", "early/0/1", "early/0/2"), 3
    )
    fresh = kept.taken_back(records)
    assert len(fresh.directory.early_events) == 250
    fresh.commands(*(command(f"{number}") for number in range(249, -1, -1)))
    assert len(fresh.directory.early_events) == 0
    assert {fresh.state(f"{number}")["status"] for number in range(250)} == {"open"}
    assert {key: value for key, value in fresh.cut().items() if key.startswith("early")} == dict.fromkeys(records)
    assert not any(key.startswith("early") for key in fresh.cut())
    assert fresh.cut(set(), is_whole=True) == {"early/0": None}


def test_events_that_waited_are_not_read_where_the_first_record_says_so() -> None:
    kept = Kept().events(*(event("order_accepted", f"{number}") for number in range(250)))
    records = kept.cut()
    kept.commands(*(command(f"{number}") for number in range(249)))
    fewer = {key: value for key, value in kept.cut(set(), is_whole=True).items() if value is not None}
    assert list(fewer) == ["early/0"]
    assert len(kept.taken_back(records | fewer).directory.early_events) == 1
    assert len(kept.taken_back(records | {"early/0": None}).directory.early_events) == 0


def test_event_that_waited_and_is_read_again_is_added_once() -> None:
    before = Kept(partitions=2).events(fill("a", "b", "0.5"))
    fresh = before.taken_back(before.cut(partition=1), partition=1, partitions=2)  # the other one has no cursor
    fresh.directory.fold_event(fill("a", "b", "0.5"), 0, 0, 1, False)
    fresh.commands(command("a"), command("b"))
    assert [fresh.state(order_id)["filled_quantity"] for order_id in ("a", "b")] == ["0.5", "0.5"]


def test_event_that_an_order_has_in_it_does_not_count_again_by_a_successor_who_did_not_know_the_order() -> None:
    first = Kept()
    first.directory.confirm(first.directory.register("a", "alice", placed("my-1"), 1))
    first.events(fill("a", "nobody", "0.5"))
    records = first.cut()
    second = Kept().events(fill("a", "nobody", "0.5"), fill("a", "nobody", "0.3"))
    records |= second.cut(second.changed(), is_whole=True)
    third = second.taken_back(records)
    assert third.state("a")["filled_quantity"] == "0.8"
    third.commands(command("a", "alice", "my-1"))
    assert third.state("a")["filled_quantity"] == "0.8"


ON_0, ON_1 = "J/EUR", "A/EUR"
REJECTS = (event("order_rejected", "a"), event("order_rejected", "b"))


def waited_on_two_partitions() -> Kept:
    """Taken back from two writers on two partitions: of a fill of order `a` and of its reject, and the reject of `b`.

    Whoever wrote partition 0 knew `a` and no event; who wrote 1, as far as both topics go, knew no order.
    """
    assert [order_partition(symbol, 3) for symbol in (ON_0, ON_1)] == [0, 1]
    first = Kept(partitions=3).commands(command("a", symbol=ON_0))
    second = Kept(partitions=3).events(fill("a", "nobody", symbol=ON_0), *REJECTS)
    third = Kept(partitions=3)
    for partition, one in enumerate((first, second)):
        for key, value in one.cut(partition=partition).items():
            third.kept.take_back(partition, key, value)
    third.kept.resume({0: first.cursor(), 1: second.cursor()})
    return third


def test_event_that_waited_for_whichever_order_counts_for_those_of_its_partition_alone() -> None:
    kept = waited_on_two_partitions()
    assert kept.state("a")["status"] == "pending"
    kept.events(fill("a", "nobody", symbol=ON_0), *REJECTS)
    assert [kept.state("a")[name] for name in ("status", "filled_quantity")] == ["rejected", "0.5"]
    kept.commands(None, command("b", symbol=ON_1))
    assert kept.state("b")["status"] == "rejected"


def test_event_that_waits_again_is_written_for_its_partition_alone() -> None:
    kept = waited_on_two_partitions()
    written = {partition: kept.cut(partition=partition) for partition in range(3)}
    waited = {number: one[f"early/{number}"] for number, one in written.items() if f"early/{number}" in one}
    assert {number: [one["order_id"] for one in read(value)["events"]] for number, value in waited.items()} == {
        1: ["b"]
    }


def test_event_that_is_read_again_waits_for_an_order_of_a_partition_that_does_not_have_it() -> None:
    kept = waited_on_two_partitions()
    kept.events(fill("a", "nobody", symbol=ON_0), *REJECTS)
    kept.commands(None, command("b", symbol=ON_0))
    assert kept.state("b")["status"] == "rejected"


# forgetting


def test_closed_order_is_kept_for_as_long_as_it_would_have_been() -> None:
    kept = Kept().commands(command("a"))
    kept.now = 50.0
    kept.events(event("order_filled", "a"))
    kept.now = 140.0
    fresh = kept.taken_back(kept.cut())
    assert fresh.state_of("a") == kept.state_of("a")
    for now, is_known in ((149.9, True), (150.0, False)):
        for one in (kept, fresh):
            one.now = now
            one.sweep()
            assert (one.directory.get("a") is not None) is is_known
    assert fresh.cut(fresh.changed()) == {"order/a": None}


def test_closed_order_whose_time_is_over_is_not_taken_back_and_is_a_tombstone_next() -> None:
    kept = Kept().commands(command("a"), command("b")).events(event("order_filled", "a"))
    records = kept.cut()
    kept.now = 1.0 + KEEP_SECONDS
    fresh = kept.taken_back(records)
    assert (fresh.directory.get("a"), len(fresh.directory)) == (None, 1)
    assert fresh.changed() == {"order/a"}
    # Also for who takes over long after, and asks for nothing of the beginning.
    (tombstone,) = [
        record for piece in fresh.kept.cut(0, set(), is_whole=True) for record in piece if record.key == "order/a"
    ]
    assert tombstone.value is None
    assert fresh.cut(fresh.changed()) == {"order/a": None}


def test_order_that_was_forgotten_does_not_come_back_by_its_own_record() -> None:
    kept = Kept(partitions=2).commands(command("a"), command("b")).events(event("order_filled", "a"))
    kept.now += KEEP_SECONDS
    kept.sweep()
    fresh = kept.taken_back(kept.cut(partition=1), partition=1, partitions=2)  # the other one has no cursor
    for offset, order_id in enumerate(("a", "b", "c")):
        fresh.directory.fold_command(0, offset, 1, command(order_id), False)
    assert fresh.open() == ["b", "c"]


def test_orders_of_a_discarded_partition_are_unknown_and_tombstones_next() -> None:
    kept = Kept(max_terminal=1).commands(command("a"), command("b"), command("c"))
    kept.events(event("order_filled", "a"), event("order_accepted", "x"))
    fresh = Kept(max_terminal=1)
    for key, value in kept.cut().items():
        fresh.kept.take_back(0, key, value)
    fresh.kept.discard(0)
    fresh.kept.resume({})
    assert (len(fresh.directory), fresh.open(), len(fresh.directory.early_events)) == (0, [], 0)
    assert fresh.changed() == {"order/a", "order/b", "order/c"}
    fresh.commands(command("a"), command("b"))
    fresh.sweep()
    assert fresh.open() == ["a", "b"]
    written = fresh.cut(is_whole=True)
    assert {key for key, value in written.items() if value is None} == {"order/c", "early/0"}
    assert "order/c" not in fresh.cut(set(), is_whole=False)


# reading on


def test_what_is_folded_already_is_looked_at_until_both_topics_are_past_it() -> None:
    kept = Kept(partitions=2)
    cursors = [cursor_at({0: events}, {0: commands}) for events, commands in ((3, 1), (5, 2))]
    kept.kept.resume(dict(enumerate(cursors)))
    kept._command_offset, kept._event_offset = 1, 3
    kept.commands(command("a"))
    assert kept.directory.already_folded is not None
    kept.events(fill("a", "a"))
    assert kept.directory.already_folded is not None
    kept.events(fill("a", "a"))
    assert kept.directory.already_folded is None


def test_what_is_folded_already_is_of_no_use_where_all_are_of_one_moment() -> None:
    kept = Kept(partitions=2)
    kept.kept.resume(dict.fromkeys(range(2), cursor_at({0: 3}, {0: 1})))
    assert kept.directory.already_folded is None


def test_topics_that_were_made_again_are_read_from_their_beginning() -> None:
    kept = Kept().commands(command("a"), command("b")).events(fill("a", "b"), fill("a", "b"))
    other = cursor_at({0: 9}, {0: 9})
    fresh = kept.taken_back(kept.cut(), other)
    fresh.kept.resume({0: other, 1: other})  # more than there are: it cannot tell where reading begins
    fresh.directory.forget_order_topic()
    fresh.directory.forget_event_topic()
    fresh._command_offset = fresh._event_offset = 0
    fresh.commands(command("c")).events(fill("a", "c"))
    assert [fresh.state(order_id)["filled_quantity"] for order_id in "abc"] == ["1.5", "1.0", "0.5"]


def test_symbols_that_somebody_makes_up_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.orders.journal._MOST_SYMBOLS", 2)
    kept = Kept()
    for number in range(7):
        kept.commands(command(f"o{number}", symbol=f"S{number}/EUR"))
    assert len(kept.kept._partition_of) <= 2
    assert sorted(kept.changed()) == [f"order/o{number}" for number in range(7)]
    assert sorted(kept.cut()) == [f"order/o{number}" for number in range(7)]
