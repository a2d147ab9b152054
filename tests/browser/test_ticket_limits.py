"""Pre-trade limits in the ticket, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import INSTRUMENTS
from tests.browser.fake_gateway import FakeGateway, order_state

LIMITS = {"max_quantity": "10", "max_notional": "200", "price_band_percent": "2"}


@pytest.fixture
def limited(start: Callable[..., FakeGateway], page: Page) -> FakeGateway:
    gateway = start(
        instruments=[{**one, **LIMITS} for one in INSTRUMENTS], max_open_orders=2, address="/#token=t-alice"
    )
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    return gateway


def test_ticket_warns_of_an_order_beyond_a_limit(page: Page, limited: FakeGateway) -> None:
    for price, quantity, price_hint, quantity_hint in (
        ("24.95", "1", "Tick 0.01", "Lot 0.001, minimum 0.010"),
        ("20", "10", "More than 2 % away from the mark, ", "Lot 0.001, minimum 0.010"),
        ("20", "10.001", "More than 2 % away from the mark, ", "More than the maximum 10"),
        ("24.95", "8.1", "Tick 0.01", "Worth more than the maximum 200 EUR"),
        ("30", "1", "More than 2 % away from the mark, ", "Lot 0.001, minimum 0.010"),
    ):
        page.fill("#price", price)
        page.fill("#quantity", quantity)
        expect(page.locator("#price-hint")).to_contain_text(price_hint)
        expect(page.locator("#quantity-hint")).to_have_text(quantity_hint)


def test_ticket_takes_the_mark_for_what_a_market_order_is_worth(page: Page, limited: FakeGateway) -> None:
    page.check("input[name=order_type][value=market]", force=True)
    page.fill("#quantity", "9")
    expect(page.locator("#quantity-hint")).to_have_text("Worth more than the maximum 200 EUR")
    page.fill("#quantity", "7")
    expect(page.locator("#quantity-hint")).to_have_text("Lot 0.001, minimum 0.010")


def test_ticket_warns_of_too_many_open_orders(page: Page, limited: FakeGateway) -> None:
    limited.wait_until(lambda: "private/subscribe" in limited.methods)
    expect(page.locator("#limit-hint")).to_be_hidden()
    limited.tell_orders(
        *(order_state(f"6f1c2d1e-0000-5000-8000-00000000000{number}") for number in (1, 2)), snapshot=True
    )
    expect(page.locator("#limit-hint")).to_have_text("You have the most open orders there may be, 2")
    limited.tell_orders(order_state("6f1c2d1e-0000-5000-8000-000000000001", status="cancelled"))
    expect(page.locator("#limit-hint")).to_be_hidden()


def test_edit_of_an_order_warns_of_terms_beyond_a_limit_and_sends_them_all_the_same(
    page: Page, start: Callable[..., FakeGateway]
) -> None:
    gateway = start(instruments=[{**one, **LIMITS} for one in INSTRUMENTS], amend=True, address="/#token=t-alice")
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    gateway.wait_until(lambda: "private/subscribe" in gateway.methods)
    gateway.tell_orders(order_state(), snapshot=True)
    row = page.locator("#orders-body tr")
    row.get_by_role("button", name="Edit price and quantity").click()
    price, quantity = row.locator("input").all()
    hint = row.locator(".edit-hint")
    expect(hint).to_have_text("")
    for field, typed, told in (
        (price, "20", "More than 2 % away from the mark, "),
        (price, "24.955", "Not a multiple of the tick 0.01"),
        (price, "24.95", ""),
        (quantity, "10.001", "More than the maximum 10"),
        (quantity, "8.1", "Worth more than the maximum 200 EUR"),
    ):
        field.fill(typed)
        expect(hint).to_contain_text(told) if told else expect(hint).to_have_text("")
    gateway.answer = (202, {}, {"order_id": order_state()["order_id"], "status": "amend_requested"})
    row.get_by_role("button", name="Save the edit").click()
    expect(price).to_be_hidden()
    expect(hint).to_have_text("")
    assert [amend["quantity"] for amend in gateway.amends] == ["8.1"]
