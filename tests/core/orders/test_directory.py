from __future__ import annotations

import pytest

from core.messages.commands import CancelOrder
from tests.core.fake_orders import Fed, command, event, fill, placed

# what the order topic tells


def test_directory_knows_an_order_from_the_topic() -> None:
    fed = Fed().commands(command("a", "alice", "my-1", time_ms=1_500))
    assert fed.state("a") == {
        "order_id": "a",
        "client_order_id": "my-1",
        "symbol": "KCN/EUR",
        "side": "bid",
        "order_type": "limit",
        "time_in_force": "GTC",
        "price": "1.50",
        "quantity": "2.0",
        "filled_quantity": "0",
        "status": "pending",
        "time": 1.5,
    }
    order = fed.directory.find("alice", "a")
    assert order is not None and order.is_certain and order.is_on_topic and not order.in_flight
    assert fed.directory.find_by_client_order_id("alice", "my-1") is order
    assert order.has_terms(placed("my-1", "2.00").terms_hash)
    assert fed.open() == ["a"]
    assert fed.told.statuses == [("a", "pending")]


def test_directory_shows_an_order_to_its_owner_only() -> None:
    fed = Fed().commands(command("a", "alice", "my-1"), command("b", None, "my-1"))
    directory = fed.directory
    assert [directory.find(user_id, "a") is None for user_id in ("alice", "bob", None, "")] == [False, True, True, True]
    assert [directory.find(user_id, "b") is None for user_id in ("alice", "bob", None, "")] == [True, True, False, True]
    assert directory.find_by_client_order_id("bob", "my-1") is None
    anonymous = directory.find_by_client_order_id(None, "my-1")
    assert anonymous is not None and anonymous.order_id == "b"
    assert fed.open("bob") == []


def test_directory_has_only_the_first_of_repeated_order_ids() -> None:
    fed = Fed().commands(command("a", quantity="2"), command("a", "mallory", quantity="3"))
    assert fed.state("a")["quantity"] == "2"
    assert fed.directory.find("mallory", "a") is None
    assert len(fed.told.changes) == 1


def test_directory_says_nothing_of_what_is_not_live() -> None:
    fed = Fed().commands(command("a"), live=False).events(event("order_accepted", "a"), live=False)
    assert (fed.told.changes, fed.told.private) == ([], [])
    assert fed.state("a")["status"] == "open"


def test_directory_skips_poisoned_commands_and_counts_them() -> None:
    fed = Fed().commands(None, b"{", b"\xff", b'{"type":"place_order"}', b'{"type":"replace"}', command("a"))
    reasons = ["empty", "not_json", "not_utf8", "bad_field", "unknown_type"]
    assert fed.told.poison == [(0, offset, reason) for offset, reason in enumerate(reasons)]
    assert fed.open() == ["a"]


def test_directory_is_not_changed_by_a_cancel() -> None:
    fed = Fed().commands(command("a"))
    before = fed.state("a")
    fed.commands(CancelOrder("a", None).encode("a", "KCN/EUR", "alice", 2))
    assert fed.state("a") == before
    assert len(fed.told.changes) == 1


def test_directory_lists_open_orders_oldest_first_and_by_symbol() -> None:
    fed = Fed().commands(
        command("c", time_ms=3),
        command("b", time_ms=1, symbol="X/EUR"),
        command("a", time_ms=2),
        command("d", time_ms=2),
        command("e", "bob"),
        command("f", None),
    )
    assert fed.open() == ["b", "a", "d", "c"]
    assert fed.open(symbol="X/EUR") == ["b"]
    assert fed.open("bob") == ["e"]
    fed.events(event("order_filled", "a"), event("order_filled", "e"))
    assert fed.open() == ["b", "d", "c"]
    assert fed.open("bob") == []


def test_directory_finds_open_orders_by_the_connection_that_they_name_whoever_they_are() -> None:
    fed = Fed().commands(
        command("a", connection="c1"),
        command("b", None, connection="c1"),
        command("c", "bob", connection="c2"),
        command("d", None),
    )

    def named(connection: str) -> set[str]:
        return {order.order_id for order in fed.directory.orders_of_connection(connection)}

    assert (named("c1"), named("c2"), named("c3"), named("")) == ({"a", "b"}, {"c"}, set(), set())
    fed.events(event("order_filled", "a"), event("order_cancelled", "c"))
    assert (named("c1"), named("c2")) == ({"b"}, set())


@pytest.mark.parametrize("is_other_terms", [False, True])
def test_order_is_of_the_connection_that_its_record_names(is_other_terms: bool) -> None:
    fed = Fed()
    order = fed.directory.register("a", "alice", placed("my-1", connection="c1"), 1)
    fed.directory.confirm(order)
    assert fed.directory.orders_of_connection("c1") == [order]
    quantity = "7.0" if is_other_terms else "2.0"
    fed.commands(command("a", client_order_id="my-1", quantity=quantity, connection="c2"))
    assert fed.directory.orders_of_connection("c1") == []
    assert fed.directory.orders_of_connection("c2") == [order]
    assert fed.open() == ["a"]


def test_directory_shares_the_text_of_users_and_symbols() -> None:
    fed = Fed().commands(command("a", "al" + "ice"), command("b", "alice"))
    a, b = fed.directory.get("a"), fed.directory.get("b")
    assert a is not None and b is not None
    assert a.user_id is b.user_id and a.symbol is b.symbol


# what the engine tells


def test_directory_passes_an_orders_events_to_its_owner() -> None:
    accepted, filled = event("order_accepted", "a"), event("order_filled", "a")
    fed = Fed().commands(command("a")).events(accepted, filled, filled)
    assert fed.told.private == [("alice", one.payload) for one in (accepted, filled, filled)]  # type: ignore[union-attr]
    assert fed.told.statuses == [("a", "pending"), ("a", "open"), ("a", "filled")]


def test_directory_passes_events_by_the_owner_in_the_command() -> None:
    fed = Fed().commands(command("a", "alice")).events(event("order_accepted", "a", user_id="mallory"))
    assert fed.told.kinds == [("alice", "order_accepted")]


def test_directory_tells_nobody_of_an_anonymous_order() -> None:
    fed = Fed().commands(command("a", None)).events(event("order_accepted", "a", user_id="mallory"))
    assert fed.told.private == []
    assert fed.state("a")["status"] == "open"


def test_directory_folds_a_fill_into_both_orders_and_sends_it_to_nobody() -> None:
    fed = Fed().commands(command("a"), command("b", "bob")).events(fill("a", "b", "0.5", user_id="alice"))
    assert fed.state("a")["filled_quantity"] == fed.state("b")["filled_quantity"] == "0.5"
    assert fed.told.private == []
    assert fed.told.statuses[2:] == [("a", "partially_filled"), ("b", "partially_filled")]


def test_directory_knows_integer_ids_as_text() -> None:
    fed = Fed().commands(command("17"), command("18", "bob")).events(event("order_accepted", 17), fill(17, 18))
    assert fed.state("17")["status"] == fed.state("18")["status"] == "partially_filled"
    assert fed.told.kinds == [("alice", "order_accepted")]


def test_directory_ignores_what_is_not_of_orders() -> None:
    snapshot = event("orderbook_snapshot", "a", symbol="KCN/EUR", sequence=1, bids=[], asks=[])
    fed = Fed().commands(command("a")).events(snapshot, event("halted", "a"))
    assert fed.told.statuses == [("a", "pending")]
    assert len(fed.directory.early_events) == 0


# reading again


def test_directory_is_not_changed_by_records_that_it_has_read() -> None:
    fed = Fed().commands(command("a")).events(fill("a", "b"), event("order_accepted", "a"))
    before = fed.state("a"), len(fed.told.changes), list(fed.told.private), len(fed.directory.early_events)
    for offset, one in enumerate((fill("a", "b"), event("order_accepted", "a"))):
        fed.directory.fold_event(one, 0, offset, 1, True)
    fed.directory.fold_command(0, 0, 1, command("z"), True)
    assert fed.directory.get("z") is None
    assert (fed.state("a"), len(fed.told.changes), list(fed.told.private), len(fed.directory.early_events)) == before


def test_directory_counts_offsets_by_partition() -> None:
    fed = Fed().commands(command("a"))
    fed.directory.fold_command(1, 0, 1, command("b"), True)
    assert fed.open() == ["a", "b"]


def test_directory_reads_a_topic_that_was_made_again() -> None:
    fed = Fed().commands(command("a")).events(event("order_accepted", "a"))
    fed.directory.forget_order_topic()
    fed.directory.fold_command(0, 0, 1, command("b"), True)
    fed.directory.forget_event_topic()
    fed.directory.fold_event(event("order_filled", "a"), 0, 0, 1, True)
    assert fed.state("a")["status"] == "filled"
    assert fed.open() == ["b"]


# what waits for its order


def test_directory_folds_early_events_when_the_order_comes() -> None:
    fed = Fed().events(event("order_accepted", "a"), fill("a", "b"), event("order_accepted", "b"))
    assert len(fed.directory.early_events) == 4
    assert (fed.told.changes, fed.told.private) == ([], [])
    fed.commands(command("b", "bob"), command("a"))
    assert len(fed.directory.early_events) == 0
    assert fed.told.kinds == [("bob", "order_accepted"), ("alice", "order_accepted")]
    assert fed.told.statuses == [
        ("b", "pending"), ("b", "partially_filled"), ("a", "pending"), ("a", "open"), ("a", "partially_filled"),
    ]  # fmt: skip
    assert fed.told.counts == {"early": 4}


def test_directory_delivers_early_events_only_if_they_were_live() -> None:
    fed = Fed().events(event("order_accepted", "a"), live=False).events(event("order_filled", "a"))
    fed.commands(command("a"), live=False)
    assert fed.told.kinds == [("alice", "order_filled")]
    assert fed.told.statuses == [("a", "filled")]


def test_directory_folds_early_events_when_the_order_is_registered() -> None:
    fed = Fed().events(event("order_accepted", "a"))
    order = fed.directory.register("a", "alice", placed(), 1)
    assert order.is_certain
    assert fed.told.kinds == [("alice", "order_accepted")]
    assert not fed.directory.withdraw(order)


def test_directory_drops_an_event_of_nobodys_order_when_the_topic_was_read() -> None:
    fed = Fed().events(event("order_accepted", "a", symbol="KCN/EUR"), fill("a", "b"))
    fed.mark()
    assert fed.told.counts == {"early": 3, "nobodys": 3}
    assert len(fed.directory) == len(fed.directory.early_events) == 0


def test_directory_takes_an_older_orders_event_to_the_user_it_names() -> None:
    cancelled = event("order_cancelled", "a", user_id="alice")
    fed = Fed().events(cancelled).events(event("order_filled", "b", user_id="alice"), live=False)
    assert fed.told.private == []
    fed.mark()
    assert fed.told.private == [("alice", cancelled.payload)]  # type: ignore[union-attr]
    assert len(fed.directory) == 0
    assert fed.told.counts == {"early": 2}


def test_directory_makes_an_older_order_from_its_acceptance() -> None:
    fed = Fed().events(
        fill("a", "b", "0.5"),
        event("order_accepted", "a", user_id="alice", symbol="KCN/EUR", timestamp=2_000, price="1.50"),
        event("order_accepted", "c", user_id="alice"),
    )
    fed.mark()
    assert fed.state("a") == {
        "order_id": "a",
        "client_order_id": None,
        "symbol": "KCN/EUR",
        "side": "bid",
        "order_type": "limit",
        "time_in_force": None,
        "price": "1.50",
        "quantity": "2.0",
        "filled_quantity": "0.5",
        "status": "partially_filled",
        "time": 0.009,
    }
    assert fed.directory.get("c") is None  # its symbol is not known
    assert fed.told.kinds == [("alice", "order_accepted")] * 2
    fed.events(event("order_filled", "a"))
    assert fed.told.kinds[2:] == [("alice", "order_filled")]


def test_directory_completes_an_order_that_was_made_from_an_event() -> None:
    fed = Fed().events(event("order_accepted", "a", user_id="alice", symbol="KCN/EUR")).mark()
    fed.commands(command("a", "alice", "my-1"))
    assert fed.state("a")["client_order_id"] == "my-1"
    assert fed.state("a")["time_in_force"] == "GTC"
    found = fed.directory.find_by_client_order_id("alice", "my-1")
    assert found is not None and found.status.value == "open"
    assert fed.told.statuses == [("a", "open"), ("a", "open")]


def test_directory_waits_with_the_release_until_the_topic_is_read() -> None:
    fed = Fed().events(event("order_filled", "a", user_id="alice"))
    fed.directory.early_events.ends_asked()
    fed.directory.early_events.on_ends({0: 2, 1: 4})
    fed.commands(b"{").commands(command("b"))
    assert fed.told.private == []
    fed.directory.early_events.read_to(0, 2)
    fed.directory.early_events.read_to(1, 3)
    assert fed.told.private == []
    fed.directory.early_events.read_to(1, 4)
    assert fed.told.kinds == [("alice", "order_filled")]


def test_directory_folds_what_the_last_record_before_the_mark_makes_known() -> None:
    fed = Fed().events(event("order_filled", "a"))
    fed.directory.early_events.ends_asked()
    fed.directory.early_events.on_ends({0: 2})
    fed.commands(command("b"), command("a"))
    assert fed.told.kinds == [("alice", "order_filled")]
    assert "nobodys" not in fed.told.counts


def test_directory_asks_again_when_a_question_failed() -> None:
    fed = Fed().events(event("order_filled", "a"))
    fed.directory.early_events.ends_asked()
    assert not fed.directory.early_events.needs_ends
    fed.directory.early_events.on_ends(None)
    assert fed.directory.early_events.needs_ends


def test_directory_gives_up_the_oldest_early_event_when_too_many_wait() -> None:
    fed = Fed(max_early_events=2).events(
        event("order_accepted", "a", user_id="alice", symbol="KCN/EUR"), fill("b", "c"), event("order_filled", "a")
    )
    assert fed.told.counts == {"early": 4, "overflow": 2, "nobodys": 1}
    assert fed.told.kinds == [("alice", "order_accepted")]
    fed.commands(command("a"))
    assert fed.state("a")["status"] == "filled"
    assert fed.told.kinds == [("alice", "order_accepted"), ("alice", "order_filled")]


# forgetting


def test_directory_forgets_closed_orders_after_their_time() -> None:
    fed = Fed(keep_terminal_seconds=10)
    fed.commands(command("a", "alice", "my-1"), command("b"), command("c"))
    fed.events(event("order_filled", "a", timestamp=10**12), live=False, time_ms=5_000)
    fed.events(event("order_filled", "b"), live=False, time_ms=7_000)
    assert not fed.directory.sweep(14_999)
    assert len(fed.directory) == 3
    fed.directory.sweep(15_000)
    assert fed.directory.get("a") is fed.directory.find_by_client_order_id("alice", "my-1") is None
    fed.directory.sweep(10**12)
    assert fed.directory.get("b") is None
    assert fed.open() == ["c"]
    assert fed.told.counts == {"terminal_dropped": 2}


def test_directory_keeps_nothing_of_users_whose_orders_are_closed() -> None:
    fed = Fed()
    for number in range(10):
        fed.commands(command(f"{number}-a", f"user-{number}"), command(f"{number}-b", f"user-{number}"))
        fed.events(event("order_filled", f"{number}-a"), event("order_filled", f"{number}-b"))
    assert not any(fed.directory.index._open.values())
    assert not any(user.startswith("user") for user in fed.directory.index._open)


def test_directory_forgets_so_many_orders_a_call() -> None:
    fed = Fed().commands(*(command(str(number)) for number in range(5)))
    fed.events(*(event("order_filled", number) for number in range(5)), live=False)
    assert fed.directory.sweep(10**9, at_most=2)
    assert len(fed.directory) == 3
    assert fed.directory.sweep(10**9, at_most=2)
    assert not fed.directory.sweep(10**9, at_most=2)
    assert len(fed.directory) == 0
    assert fed.told.counts == {"terminal_dropped": 5}


def test_directory_keeps_no_more_closed_orders_than_it_may() -> None:
    fed = Fed(max_terminal=2).commands(*(command(str(number)) for number in range(5)))
    fed.events(*(event("order_filled", number) for number in range(4)), live=False)
    fed.directory.sweep(5)
    assert [fed.directory.get(str(number)) is not None for number in range(5)] == [False, False, True, True, True]


def test_directory_forgets_what_was_never_seen_after_its_outcome_was_unknown() -> None:
    fed = Fed(keep_terminal_seconds=10)
    orders = [fed.directory.register(name, "alice", placed(f"my-{name}"), 1_000) for name in "abcd"]
    for order in orders:
        fed.directory.mark_unknown(order)
    fed.commands(command("b", client_order_id="my-b"))
    fed.events(event("order_filled", "c"), live=False, time_ms=9_000)
    fed.directory.register("d", "alice", placed("my-d"), 2_000)
    fed.directory.sweep(10_999)
    assert len(fed.directory) == 4
    fed.directory.sweep(11_000)
    assert [fed.directory.get(name) is not None for name in "abcd"] == [False, True, True, True]
    assert fed.directory.find_by_client_order_id("alice", "my-a") is None
    assert fed.open() == ["b", "d"]
    fed.directory.mark_unknown(orders[3])
    fed.directory.sweep(11_999)
    assert fed.directory.get("d") is not None
    fed.directory.sweep(12_000)
    assert fed.open() == ["b"]


def test_directory_knows_the_earlier_of_two_orders_with_one_client_order_id() -> None:
    fed = Fed().commands(command("a", client_order_id="my-1"), command("b", client_order_id="my-1"))
    found = fed.directory.find_by_client_order_id("alice", "my-1")
    assert found is not None and found.order_id == "a"
    fed.events(event("order_filled", "b"), live=False)
    fed.directory.sweep(10**9)
    assert fed.directory.find_by_client_order_id("alice", "my-1") is found


# amends


def test_directory_follows_an_amend_and_tells_its_owner() -> None:
    fed = Fed().commands(command("a")).events(event("order_accepted", "a"), event("order_amended", "a"))
    assert (fed.state("a")["price"], fed.state("a")["quantity"]) == ("1.75", "3.0")
    assert fed.told.changes[-1] == fed.state("a")
    assert fed.told.kinds[-1] == ("alice", "order_amended")


def test_directory_tells_once_why_an_amend_was_rejected() -> None:
    fed = Fed().commands(command("a")).events(event("order_accepted", "a"))
    before = fed.state("a")
    fed.events(event("order_amend_rejected", "a"))
    assert fed.told.changes[-1] == {**before, "amend_rejected": "too late"}
    assert fed.told.kinds[-1] == ("alice", "order_amend_rejected")
    assert fed.state("a") == before
    fed.events(fill("a", "b"))
    assert "amend_rejected" not in fed.told.changes[-1]


def test_directory_does_not_show_a_rejected_amend_that_is_not_live_or_of_a_closed_order() -> None:
    fed = Fed().commands(command("a")).events(event("order_accepted", "a"))
    told = len(fed.told.changes)
    fed.events(event("order_amend_rejected", "a"), live=False)
    assert len(fed.told.changes) == told
    fed.events(event("order_filled", "a"), event("order_amend_rejected", "a"))
    assert len(fed.told.changes) == told + 1
    assert fed.told.kinds[-1] == ("alice", "order_amend_rejected"), "the engine's own word is passed on all the same"


def test_amended_terms_outlive_the_orders_record_that_is_read_behind_them() -> None:
    fed = Fed().events(event("order_accepted", "a", user_id="alice", symbol="KCN/EUR"), event("order_amended", "a"))
    fed.mark()
    assert fed.state("a")["price"] == "1.75"
    fed.commands(command("a", "alice", "my-1"))
    assert fed.state("a")["client_order_id"] == "my-1"
    assert (fed.state("a")["price"], fed.state("a")["quantity"]) == ("1.75", "3.0")


def test_repeat_of_an_amended_order_is_known_by_the_terms_that_it_was_placed_with() -> None:
    fed = Fed().commands(command("a", "alice", "my-1")).events(event("order_amended", "a"))
    order = fed.directory.get("a")
    assert order is not None and order.has_terms(placed("my-1").terms_hash)


def test_order_that_is_amended_to_what_is_filled_is_open_no_more() -> None:
    fed = Fed().commands(command("a")).events(fill("a", "b"), event("order_amended", "a", quantity="0.5"))
    assert fed.state("a")["status"] == "cancelled"
    assert fed.open() == []
    fed.events(event("order_cancelled", "a", filled_quantity="0.5"))
    assert fed.told.statuses[-1] == ("a", "cancelled") and len(fed.told.changes) == 3
