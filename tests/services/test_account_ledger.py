"""The tests' own account service: what its ledger keeps, and that it notices what must never be."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.support.account_ledger import Ledger, Refused

DEPOSITS = {("ann", "EUR"): "1000", ("bob", "KCN"): "5", ("bob", "EUR"): "0"}


def order(side: str = "bid", **more: str) -> dict[str, Any]:
    return {"symbol": "KCN/EUR", "side": side, "order_type": "limit", "price": "20", "quantity": "3", **more}


def reserved(ledger: Ledger, user_id: str, key: str, body: dict[str, Any]) -> str:
    return str(ledger.reserve(user_id, key, body)[1]["order"]["id"])


def accepted(order_id: str) -> dict[str, str]:
    return {"type": "order_accepted", "order_id": order_id}


def ended(order_id: str, how: str) -> dict[str, str]:
    return {"type": f"order_{how}", "order_id": order_id}


def fill(buy: str, sell: str, price: str, quantity: str) -> dict[str, str]:
    return {
        "type": "fill",
        "symbol": "KCN/EUR",
        "buy_order_id": buy,
        "sell_order_id": sell,
        "price": price,
        "quantity": quantity,
    }


def test_ledger_reserves_settles_and_releases_to_the_last_digit() -> None:
    ledger = Ledger(DEPOSITS)
    bid = reserved(ledger, "ann", "a", order(price="20.01"))
    ask = reserved(ledger, "bob", "b", order("ask", price="19.99", quantity="1.00000001"))
    assert ledger.reserved() == {("ann", "EUR"): Decimal("60.03"), ("bob", "KCN"): Decimal("1.00000001")}
    ledger.take([accepted(ask), accepted(bid), fill(bid, ask, "19.99", "1.00000001"), ended(ask, "filled")])
    ledger.take([ended(bid, "cancelled")])
    assert ledger.reserved() == {("ann", "EUR"): Decimal("20.01") * Decimal("1.99999999")}
    assert ledger.release("ann", bid) == Decimal("20.01") * Decimal("1.99999999")
    assert ledger.release("ann", bid) == 0
    assert ledger.reserved() == {}
    assert ledger.available == {
        ("ann", "EUR"): 1000 - Decimal("19.99") * Decimal("1.00000001"),
        ("ann", "KCN"): Decimal("1.00000001"),
        ("bob", "KCN"): 5 - Decimal("1.00000001"),
        ("bob", "EUR"): Decimal("19.99") * Decimal("1.00000001"),
    }
    assert ledger.totals() == {"EUR": 1000, "KCN": 5}
    assert ledger.wrongs == []


def test_ledger_gives_a_repeated_key_the_first_answer_until_its_order_is_released() -> None:
    ledger = Ledger(DEPOSITS)
    is_new, first = ledger.reserve("ann", "a", order())
    assert is_new
    assert ledger.reserve("ann", "a", order()) == (False, first)
    with pytest.raises(Refused, match="another order"):
        ledger.reserve("ann", "a", order(quantity="4"))
    ledger.release("ann", first["order"]["id"])
    assert ledger.reserve("ann", "a", order())[0]


def test_ledger_refuses_what_it_has_no_funds_for_and_what_is_not_the_users() -> None:
    ledger = Ledger(DEPOSITS)
    with pytest.raises(Refused, match="insufficient EUR"):
        ledger.reserve("ann", "a", order(quantity="51"))
    with pytest.raises(Refused, match="insufficient KCN"):
        ledger.reserve("ann", "a", order("ask"))
    order_id = reserved(ledger, "ann", "a", order())
    with pytest.raises(Refused, match="no such reservation"):
        ledger.release("bob", order_id)
    with pytest.raises(Refused, match="no such reservation"):
        ledger.release("ann", "another")


def test_ledger_reserves_for_market_orders_what_they_may_cost() -> None:
    ledger = Ledger(DEPOSITS, price="30")
    market = {"symbol": "KCN/EUR", "side": "bid", "order_type": "market"}
    _, answer = ledger.reserve("ann", "a", {**market, "quote_amount": "100"})
    assert answer["order"]["quantity"] == "3.33333333"
    _, answer = ledger.reserve("ann", "b", {**market, "quantity": "2", "max_slippage_price": "25"})
    assert ledger.reserved() == {("ann", "EUR"): 30 * Decimal("3.33333333") + 50}


def test_ledger_knows_what_is_reserved_for_orders_that_the_engine_has_not_seen() -> None:
    ledger = Ledger(DEPOSITS)
    placed, other = (reserved(ledger, "ann", key, order()) for key in "ab")
    ledger.take([accepted(placed)])
    assert [hold.order_id for hold in ledger.unplaced()] == [other]
    # Under the key for an id, after it was released.
    ledger.next_id = lambda key: key
    first = reserved(ledger, "ann", "c", order())
    ledger.take([accepted(first), ended(first, "cancelled")])
    ledger.release("ann", first)
    reserved(ledger, "ann", "c", order())
    assert [hold.key for hold in ledger.unplaced()] == ["b", "c"]


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([], None),
        (["accepted"], "order {} was released before the engine had ended it"),
        (["accepted", "cancelled"], None),
        (["rejected"], None),
        (["accepted", "filled"], "order {} was released, and had filled completely"),
    ],
)
def test_ledger_notices_a_release_that_should_not_be(events: list[str], wrong: str | None) -> None:
    ledger = Ledger(DEPOSITS)
    order_id = reserved(ledger, "ann", "a", order())
    ledger.take([ended(order_id, event) for event in events])
    ledger.release("ann", order_id)
    assert ledger.wrongs == ([] if wrong is None else [wrong.format(order_id)])


def test_ledger_notices_an_order_and_a_fill_that_nothing_is_reserved_for() -> None:
    ledger = Ledger(DEPOSITS)
    bid, ask = reserved(ledger, "ann", "a", order()), reserved(ledger, "bob", "b", order("ask"))
    ledger.release("ann", bid)
    ledger.take([accepted(bid), accepted(ask), accepted("nobody's"), fill(bid, ask, "20", "4")])
    assert ledger.wrongs == [
        f"order {bid} came to the engine with nothing reserved",
        "order nobody's came to the engine with nothing reserved",
        f"order {bid} filled 4, and so much was not reserved",
        f"order {ask} filled 4, and so much was not reserved",
    ]


def test_ledger_tells_balances_as_they_are_written_by_hand() -> None:
    ledger = Ledger(DEPOSITS)
    reserved(ledger, "ann", "a", order(price="20.00", quantity="10"))
    assert ledger.balances("ann") == {"balances": [{"asset": "EUR", "available": "800", "locked": "200"}]}
