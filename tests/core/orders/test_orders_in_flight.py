"""What the directory knows of commands that are in flight here."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from core.orders.directory import MAX_OWN
from core.orders.order import Outcome, state
from tests.core.fake_orders import Fed, command, event, fill, placed


def test_directory_finds_what_is_in_flight_but_does_not_show_it() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1_500)
    assert order.in_flight and not order.is_certain and not order.is_on_topic and order.outcome is Outcome.AWAITED
    assert fed.directory.find("alice", "a") is order
    assert fed.directory.find_by_client_order_id("alice", "my-1") is order
    assert order.has_terms(placed("my-1").terms_hash)
    assert (fed.open(), fed.told.changes) == ([], [])


def test_directory_has_the_reserved_quantity() -> None:
    order = Fed().directory.register("a", "alice", placed("my-1"), 1, Decimal("0.70"))
    assert order.quantity == "0.70"
    assert order.has_terms(placed("my-1").terms_hash)


def test_directory_shows_an_acknowledged_order_once() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1_500)
    fed.directory.confirm(order)
    assert order.is_certain and not order.in_flight
    fed.commands(command("a", "alice", "my-1", 1_500))
    assert order.is_on_topic
    assert fed.open() == ["a"]
    assert fed.told.statuses == [("a", "pending")]


def test_directory_shows_an_order_that_was_read_before_its_acknowledgement_once() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed(), 1)
    fed.commands(command("a"), live=False)  # what is in flight here is of today, even in a second warm-up
    assert order.in_flight and order.is_certain and fed.open() == ["a"]
    fed.directory.confirm(order)
    assert not order.in_flight
    assert fed.told.statuses == [("a", "pending")]


def test_directory_shows_an_order_that_the_engine_spoke_of_before_its_acknowledgement() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed(), 1)
    fed.events(event("order_accepted", "a"))
    assert order.in_flight and order.is_certain and not order.is_on_topic
    fed.directory.confirm(order)
    fed.commands(command("a"))
    assert fed.told.statuses == [("a", "open")]
    assert fed.told.kinds == [("alice", "order_accepted")]


def test_directory_shows_an_order_of_unknown_outcome() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed(), 1)
    fed.directory.mark_unknown(order)
    assert order.outcome is Outcome.UNKNOWN and not order.in_flight and not order.is_certain
    assert fed.open() == ["a"]
    fed.commands(command("a"))
    assert order.is_certain
    assert fed.told.statuses == [("a", "pending")]


def test_directory_does_not_doubt_what_it_has_read() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed(), 1)
    fed.commands(command("a"))
    fed.directory.mark_unknown(order)
    assert order.is_certain and not order.in_flight


def test_directory_forgets_what_was_certainly_not_written() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    assert fed.directory.withdraw(order)
    assert fed.directory.find("alice", "a") is fed.directory.find_by_client_order_id("alice", "my-1") is None
    assert (fed.open(), fed.told.changes, len(fed.directory)) == ([], [], 0)


def test_directory_lists_the_other_orders_when_one_is_withdrawn() -> None:
    fed = Fed().commands(command("a"))
    fed.directory.withdraw(fed.directory.register("b", "alice", placed(), 1))
    assert fed.open() == ["a"]


@pytest.mark.parametrize("sign", ["command", "event"])
def test_directory_keeps_a_withdrawn_order_of_which_there_is_a_sign(sign: str) -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed(), 1)
    if sign == "command":
        fed.commands(command("a"))
    else:
        fed.events(event("order_accepted", "a"))
    assert not fed.directory.withdraw(order)
    assert order.is_certain and not order.in_flight
    assert fed.open() == ["a"]


def test_directory_still_doubts_an_order_whose_second_attempt_was_not_written() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed(), 1)
    fed.directory.mark_unknown(order)
    assert fed.directory.register("a", "alice", placed(), 2) is order
    assert order.in_flight
    assert not fed.directory.withdraw(order)
    assert order.outcome is Outcome.UNKNOWN and not order.in_flight
    assert fed.open() == ["a"]


def test_directory_returns_the_known_order_when_another_instance_was_first() -> None:
    fed = Fed().commands(command("a", quantity="7"))
    order = fed.directory.register("a", "alice", placed(), 2)
    assert order.quantity == "7" and order.is_on_topic and order.in_flight
    assert not fed.directory.withdraw(order)
    assert fed.open() == ["a"]


def test_directory_knows_the_record_that_it_produced_itself() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    record = command("a", "alice", "my-1")
    fed.directory.produced(order, record)
    fed.commands(record)
    assert order.is_on_topic and order.is_certain and order.in_flight
    assert fed.open() == ["a"]
    fed.directory.confirm(order)
    fed.commands(record)
    assert fed.told.statuses == [("a", "pending")]


@pytest.mark.parametrize("is_known_by_its_bytes", [True, False])
def test_directory_does_not_open_a_closed_order_when_its_record_is_read(is_known_by_its_bytes: bool) -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    if is_known_by_its_bytes:
        fed.directory.produced(order, command("a", "alice", "my-1"))
    fed.events(event("order_filled", "a")).commands(command("a", "alice", "my-1"))
    assert order.is_on_topic
    assert fed.open() == []
    assert fed.told.statuses == [("a", "filled")]


def test_directory_has_the_time_of_the_attempt_that_came_first() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    fed.directory.produced(order, command("a", "alice", "my-1", time_ms=1))
    fed.directory.mark_unknown(order)
    fed.directory.register("a", "alice", placed("my-1"), 2)
    fed.directory.produced(order, command("a", "alice", "my-1", time_ms=2))
    fed.commands(command("a", "alice", "my-1", time_ms=1), command("a", "alice", "my-1", time_ms=2))
    assert (order.created_ms, order.time_ms) == (1, 1)


def test_directory_learns_from_its_own_record_what_an_event_did_not_tell() -> None:
    fed = Fed().events(event("order_accepted", "a", user_id="alice", symbol="KCN/EUR")).mark()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    fed.directory.produced(order, command("a", "alice", "my-1"))
    fed.commands(command("a", "alice", "my-1"))
    assert fed.directory.find_by_client_order_id("alice", "my-1") is order


def test_directory_reads_a_record_of_its_own_that_was_withdrawn() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    fed.directory.produced(order, command("a", "alice", "my-1"))
    assert fed.directory.withdraw(order)
    fed.commands(command("a", "alice", "my-1"))
    known = fed.directory.find_by_client_order_id("alice", "my-1")
    assert known is not None and known is not order and known is fed.directory.get("a")


def test_directory_keeps_a_bounded_number_of_its_own_records() -> None:
    fed = Fed()
    for number in range(MAX_OWN + 1):
        order = fed.directory.register(str(number), "alice", placed(), 1)
        fed.directory.produced(order, command(str(number)))
    assert len(fed.directory._own) <= MAX_OWN
    fed.commands(command("0"), command(str(MAX_OWN)))
    assert fed.open() == ["0", str(MAX_OWN)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("symbol", "X/EUR"),
        ("side", "ask"),
        ("price", "1.51"),
        ("quantity", "2.01"),
        ("time_in_force", "FOK"),
        ("client_order_id", "my-2"),
        ("timestamp", 2),
    ],
)
def test_directory_takes_each_term_of_the_topic_over_its_own(field: str, value: str | int) -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    fed.directory.confirm(order)
    fed.commands(json.dumps(json.loads(command("a", "alice", "my-1")) | {field: value}).encode())
    changed = {"time": 0.002} if field == "timestamp" else {field: value}
    before, after = fed.told.changes
    assert after == before | changed == state(order)


def test_directory_takes_owner_and_terms_hash_of_the_topic_over_its_own() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1"), 1)
    fed.directory.confirm(order)
    terms_hash = placed("my-1", "9").terms_hash
    record = json.loads(command("a", "alice", "my-1"))
    fed.commands(json.dumps(record | {"terms_hash": terms_hash}).encode())
    assert order.has_terms(terms_hash)
    order = fed.directory.register("b", "alice", placed("my-1"), 1)
    fed.directory.confirm(order)
    fed.commands(command("b", "bob", "my-1"))
    assert (fed.open(), fed.open("bob")) == (["a"], ["b"])
    assert fed.directory.find_by_client_order_id("bob", "my-1") is order


def test_directory_shows_what_is_in_flight_when_any_event_tells_of_it() -> None:
    fed = Fed()
    for order_id in "ab":
        fed.directory.register(order_id, "alice", placed(), 1)
    fed.events(event("order_accepted", "a"), live=False).events(fill("b", "c", "0"))
    assert fed.told.statuses == [("a", "open"), ("b", "pending")]
    assert fed.open() == ["a", "b"]


def test_directory_tells_of_another_attempt_at_a_doubted_order() -> None:
    fed = Fed()
    fed.directory.mark_unknown(fed.directory.register("a", "alice", placed(), 1_000))
    fed.directory.register("a", "alice", placed(), 2_000)
    assert [change["time"] for change in fed.told.changes] == [1.0, 2.0]


def test_directory_takes_the_terms_of_the_topic_over_its_own() -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1", "2.0"), 1)
    fed.directory.confirm(order)
    fed.commands(command("a", "alice", "my-1", time_ms=9, quantity="5", symbol="X/EUR"), command("a", "alice", "my-1"))
    assert order.quantity == "5" and order.time_ms == 9
    assert not order.has_terms(placed("my-1", "2.0").terms_hash)
    assert fed.open(symbol="X/EUR") == ["a"] and fed.open(symbol="KCN/EUR") == []
    assert [change["quantity"] for change in fed.told.changes] == ["2.0", "5"]
