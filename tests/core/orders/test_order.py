from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import ujson
from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages.commands import PlaceOrder
from core.messages.events import Fill, OrderEvent
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.order import Order, Outcome, Status, fold, state, terms_digest
from tests.core.fake_orders import event, fill

RECORD_MS = 50
EVENT_MS = 1_790_000_000_123


def order(quantity: str = "2.0", **changes: Any) -> Order:
    made = Order(
        "a", "alice", "my-1", "KCN/EUR", Side.BID, OrderType.LIMIT, TimeInForce.GTC, "1.50", quantity, None, 1, 1,
        Outcome.ACCEPTED,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def told(kind: str, **fields: Any) -> OrderEvent | Fill:
    """What the engine tells of the order."""
    read = event(kind, "a", **({"timestamp": EVENT_MS} | fields))
    assert isinstance(read, OrderEvent | Fill)
    return read


def bought(quantity: str) -> Fill:
    read = fill("a", "b", quantity, EVENT_MS)
    assert isinstance(read, Fill)
    return read


def cancelled(filled_quantity: str) -> OrderEvent | Fill:
    return told("order_cancelled", filled_quantity=filled_quantity)


ACCEPTED = told("order_accepted")
FILLED = told("order_filled")
REJECTED = told("order_rejected")


def folded(*events: OrderEvent | Fill, quantity: str = "2.0") -> tuple[str, str]:
    """Status and filled quantity."""
    made = order(quantity)
    for one in events:
        fold(made, one, RECORD_MS)
    return made.status.value, made.filled


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], ("pending", "0")),
        ([ACCEPTED], ("open", "0")),
        ([ACCEPTED, ACCEPTED], ("open", "0")),
        ([ACCEPTED, bought("0.50")], ("partially_filled", "0.50")),
        ([ACCEPTED, bought("0.50"), bought("0.5")], ("partially_filled", "1.00")),
        ([bought("0.5")], ("partially_filled", "0.5")),
        ([bought("0.5"), ACCEPTED], ("partially_filled", "0.5")),
        ([ACCEPTED, bought("0")], ("open", "0")),
        ([bought("0.5"), bought("1.5")], ("filled", "2.0")),
        ([bought("2.000")], ("filled", "2.0")),
        ([bought("0.5"), bought("7")], ("filled", "2.0")),
        ([ACCEPTED, FILLED], ("filled", "2.0")),
        ([FILLED], ("filled", "2.0")),
        ([bought("2"), FILLED], ("filled", "2.0")),
        ([ACCEPTED, cancelled("0")], ("cancelled", "0")),
        ([cancelled("0.0")], ("cancelled", "0.0")),
        ([bought("0.5"), cancelled("0.50")], ("cancelled", "0.50")),
        ([cancelled("1.25")], ("cancelled", "1.25")),
        ([cancelled("2")], ("cancelled", "2.0")),
        ([cancelled("9")], ("cancelled", "2.0")),
        ([REJECTED], ("rejected", "0")),
    ],
)
def test_order_becomes_what_the_events_say(events: list[OrderEvent | Fill], expected: tuple[str, str]) -> None:
    assert folded(*events) == expected


@pytest.mark.parametrize("end", [FILLED, bought("2"), cancelled("0.5"), REJECTED])
def test_order_that_is_closed_never_changes_again(end: OrderEvent | Fill) -> None:
    closed = order()
    assert fold(closed, end, RECORD_MS)
    before = state(closed)
    for more in (ACCEPTED, bought("0.1"), FILLED, cancelled("1"), REJECTED):
        assert not fold(closed, more, RECORD_MS + 1)
    assert closed.is_closed
    assert state(closed) == before


def test_order_fills_add_up_to_the_last_digit() -> None:
    quantity = "12345678901234567890123456789012345678"
    assert folded(bought("0." + "0" * 37 + "1"), bought(quantity[:-1]), quantity=quantity) == (
        "partially_filled",
        "1234567890123456789012345678901234567." + "0" * 37 + "1",
    )


def test_order_fold_tells_whether_anything_changed() -> None:
    changing = order()
    assert [fold(changing, one, 1) for one in (ACCEPTED, ACCEPTED, bought("1"), ACCEPTED, bought("0"), FILLED, FILLED)] == [
        True, False, True, False, False, True, False,
    ]  # fmt: skip


def test_order_has_the_time_of_its_last_change() -> None:
    timed = order()
    fold(timed, ACCEPTED, RECORD_MS)
    assert timed.time_ms == EVENT_MS
    fold(timed, bought("1"), RECORD_MS)
    assert timed.time_ms == EVENT_MS
    fold(timed, told("order_filled", timestamp=None), RECORD_MS)
    assert timed.time_ms == RECORD_MS
    fold(timed, ACCEPTED, RECORD_MS + 1)
    assert timed.time_ms == RECORD_MS


# state


def test_order_state_is_the_contracts() -> None:
    assert state(order(time_ms=EVENT_MS)) == {
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
        "time": 1_790_000_000.123,
    }


def test_order_state_has_nulls_for_what_is_not_known() -> None:
    shown = state(order(client_order_id=None, price=None, time_in_force=None, order_type=OrderType.MARKET))
    assert [name for name, value in shown.items() if value is None] == ["client_order_id", "time_in_force", "price"]


def test_order_state_has_a_reason_when_rejected() -> None:
    rejected = order()
    fold(rejected, REJECTED, 1)
    shown = state(rejected)
    assert (shown["status"], shown["reason"]) == ("rejected", "no funds")
    assert list(shown)[-1] == "time"


def test_order_state_goes_through_ujson_as_it_is() -> None:
    shown = state(order())
    assert {type(value) for value in shown.values()} == {str, float}
    assert json.loads(ujson.dumps(shown)) == shown


# what is asked of it


def test_order_knows_its_terms() -> None:
    placed = PlaceOrder("KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.5"), Decimal(2), TimeInForce.GTC)
    other = PlaceOrder("KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.5"), Decimal(3), TimeInForce.GTC)
    known = order(terms_digest=terms_digest(placed.terms_hash))
    assert known.has_terms(placed.terms_hash)
    assert not known.has_terms(other.terms_hash)
    assert not order().has_terms(placed.terms_hash)


@pytest.mark.parametrize("status", Status)
def test_order_is_closed_when_nothing_more_can_come(status: Status) -> None:
    assert order(status=status).is_closed == (status.value in ("filled", "cancelled", "rejected"))


@pytest.mark.parametrize("outcome", Outcome)
def test_order_is_certain_when_it_is_on_the_topic(outcome: Outcome) -> None:
    assert order(outcome=outcome).is_certain == (outcome is Outcome.ACCEPTED)


QUANTITIES = st.decimals("0", "3", places=2).map(str)
EVENTS = st.one_of(
    st.sampled_from([ACCEPTED, FILLED, REJECTED]), QUANTITIES.map(bought), QUANTITIES.map(cancelled)
)  # fmt: skip


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(EVENTS, max_size=8))
def test_order_with_any_events_stays_within_its_quantity_and_goes_only_forward(events: list[OrderEvent | Fill]) -> None:
    rank = {"pending": 0, "open": 1, "partially_filled": 2, "filled": 3, "cancelled": 3, "rejected": 3}
    followed = order()
    for one in events:
        before = state(followed)
        changed = fold(followed, one, RECORD_MS)
        after = state(followed)
        assert changed or after == before
        assert rank[str(after["status"])] >= rank[str(before["status"])]
        assert not changed or rank[str(before["status"])] != 3
        assert Decimal(0) <= Decimal(str(after["filled_quantity"])) <= Decimal("2.0")
        assert after["status"] != "filled" or after["filled_quantity"] == "2.0"


# Amends.


def amended(quantity: str) -> OrderEvent | Fill:
    return told("order_amended", price="1.75", quantity=quantity)


@pytest.mark.parametrize("before", [[], [ACCEPTED], [ACCEPTED, bought("0.5")]], ids=len)
def test_amended_order_has_the_new_terms_and_what_was_filled(before: list[OrderEvent | Fill]) -> None:
    made = order()
    for one in [*before, amended("3.00")]:
        assert fold(made, one, RECORD_MS)
    assert (made.price, made.quantity, made.is_amended, made.time_ms) == ("1.75", "3.00", True, EVENT_MS)
    assert (made.filled, made.status.value) == (("0.5", "partially_filled") if len(before) == 2 else ("0", "open"))


def test_amended_order_is_filled_at_its_new_total() -> None:
    assert folded(ACCEPTED, amended("3.00"), bought("2.0")) == ("partially_filled", "2.0")
    assert folded(ACCEPTED, amended("3.00"), bought("2.0"), bought("1")) == ("filled", "3.00")
    assert folded(ACCEPTED, amended("1.0"), bought("1")) == ("filled", "1.0")


@pytest.mark.parametrize("total", ["0.4", "0.5", "0.50"])
def test_order_that_is_amended_to_what_is_filled_is_cancelled_with_that(total: str) -> None:
    made = order()
    for one in (ACCEPTED, bought("0.5"), amended(total)):
        fold(made, one, RECORD_MS)
    assert (made.status.value, made.filled, made.quantity, made.price) == ("cancelled", "0.5", "2.0", "1.50")


def test_order_whose_amend_is_rejected_is_as_it_was() -> None:
    made = order()
    before = state(made)
    assert not fold(made, told("order_amend_rejected"), RECORD_MS)
    assert state(made) == before


def test_reason_of_an_order_that_is_not_rejected_is_that_of_its_amend() -> None:
    made = order(status=Status.OPEN, reason="too late")
    assert state(made)["amend_rejected"] == "too late"
    assert "reason" not in state(made)
