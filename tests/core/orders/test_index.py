"""The index of orders leaves Python's collector nothing that grows with the orders to look at."""

from __future__ import annotations

import gc
from decimal import Decimal

import pytest

from core.messages.commands import PlaceOrder
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.directory import OrderDirectory

MANY = 2_000


@pytest.mark.parametrize("users", [1, MANY])
def test_collector_does_not_look_at_all_orders_when_one_more_comes(users: int) -> None:
    directory = OrderDirectory(
        keep_terminal_seconds=1.0, on_change=lambda _order: None, on_private=lambda _user_id, _payload: None
    )

    def place(number: int) -> None:
        order = PlaceOrder(
            "KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.5"), Decimal(2), TimeInForce.GTC, f"name {number}"
        )
        record = directory.register(f"{number:032x}", f"user {number % users}", order, number, None)
        directory.produced(record, b"%d" % number)
        directory.confirm(record)
        directory.fold_command(0, number, number, b"%d" % number, True)

    for number in range(MANY):
        place(number)
    gc.collect()
    gc.freeze()  # and so it stays, with what was collected of all tests
    place(MANY)
    # Of these it would have to look at each that is young and large.
    young = [one for one in gc.get_objects() if isinstance(one, dict | set | list | tuple)]
    assert [one for one in young if len(one) >= MANY // 2 and one is not young] == []
    found = directory.find_by_client_order_id("user 0", "name 0")
    assert found is not None
    assert found.order_id == f"{0:032x}"


def test_order_is_removed_once_however_often_that_is_asked_for() -> None:
    directory = OrderDirectory(
        keep_terminal_seconds=1.0, on_change=lambda _order: None, on_private=lambda _user_id, _payload: None
    )
    terms = PlaceOrder("KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.5"), Decimal(2), TimeInForce.GTC, "mine")
    first = directory.register("o-1", "alice", terms, 1, terms.quantity)
    directory.index.remove(first)
    directory.index.remove(first)
    assert directory.get("o-1") is None
    again = directory.register("o-1", "alice", terms, 2, terms.quantity)
    directory.index.remove(first)
    assert directory.get("o-1") is again
