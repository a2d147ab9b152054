"""Attributes on an order's way: told from the moment it is registered, the same on every instance, and kept."""

from __future__ import annotations

from msgspec.structs import replace

from core.messages.attributes import Attribute, Kind, attribute_values
from core.messages.order_rules import OrderRules, check_place
from tests.core.fake_orders import Fed, event, placed
from tests.core.orders.kept_orders import Kept

DECLARED = (Attribute("post_only", Kind.BOOLEAN), Attribute("stp", Kind.ENUM, ("newest", "oldest")))
RULES = OrderRules(attributes=DECLARED)
GIVEN = '{"post_only":true,"stp":"oldest"}'
ORDER = replace(placed("mine"), attributes=GIVEN, attribute_terms=GIVEN)
RECORD = ORDER.encode("a", "alice", 1)


def test_attributes_are_checked_and_encoded_as_here() -> None:
    body = {"symbol": "KCN/EUR", "side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0"}
    assert check_place({**body, "client_order_id": "mine", "stp": "oldest", "post_only": True}, RULES) == ORDER


def test_order_has_its_attributes_where_it_is_placed_and_wherever_it_is_read() -> None:
    here, there = Fed(attributes=DECLARED), Fed(attributes=DECLARED)
    order = here.directory.register("a", "alice", ORDER, 1)
    here.directory.produced(order, RECORD)
    here.directory.confirm(order)
    for one in (here, there):
        one.commands(RECORD).events(event("order_accepted", "a", timestamp=9))
        assert one.told.changes[-1] == {**one.told.changes[-1], "post_only": True, "stp": "oldest", "status": "open"}
    assert here.told.changes[-1] == there.told.changes[-1]
    assert here.directory.get("a").has_terms(ORDER.terms_hash)  # type: ignore[union-attr]


def test_orders_with_the_same_attributes_share_them() -> None:
    fed = Fed(attributes=DECLARED).commands(RECORD, replace(ORDER, client_order_id="other").encode("b", "alice", 1))
    one, other = fed.directory.get("a"), fed.directory.get("b")
    assert one is not None and other is not None
    assert one.attributes is other.attributes == GIVEN


def test_first_record_of_an_order_has_the_last_word_on_its_attributes() -> None:
    nameless = replace(ORDER, client_order_id=None)
    fed = Fed(attributes=DECLARED)
    fed.directory.register("a", "alice", replace(nameless, attributes='{"post_only":false}'), 1)
    fed.commands(nameless.encode("a", "alice", 1))
    order = fed.directory.get("a")
    assert order is not None and order.attributes == GIVEN


def test_order_of_which_only_events_told_gets_its_attributes_from_its_record() -> None:
    fed = Fed(attributes=DECLARED).events(event("order_accepted", "a", symbol="KCN/EUR", user_id="alice"))
    fed.mark()
    fed.commands(RECORD)
    order = fed.directory.get("a")
    assert order is not None and attribute_values(order.attributes) == {"post_only": True, "stp": "oldest"}


def test_order_has_its_attributes_in_what_is_kept_and_when_it_is_taken_back() -> None:
    kept = Kept(attributes=DECLARED).commands(RECORD)
    assert isinstance(kept, Kept)
    fresh = kept.taken_back(kept.cut(), attributes=DECLARED)
    assert fresh.state_of("a") == kept.state_of("a")
    assert fresh.state_of("a")["stp"] == "oldest"
    assert fresh.cut()["order/a"] == kept.cut()["order/a"]


def test_order_keeps_its_attributes_when_they_are_declared_no_more() -> None:
    kept = Kept(attributes=DECLARED).commands(RECORD)
    assert isinstance(kept, Kept)
    assert kept.taken_back(kept.cut()).state_of("a")["stp"] == "oldest"


def test_undeclared_attributes_of_a_record_are_not_told() -> None:
    kept = Kept().commands(RECORD)
    assert isinstance(kept, Kept)
    assert "stp" not in kept.state_of("a") and b"attributes" not in (kept.cut()["order/a"] or b"")
