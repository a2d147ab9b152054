"""The list of one's own orders once signed in: what `account.orders` tells, and what is asked for besides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Complaints
from tests.browser.fake_gateway import (
    ACCEPTED,
    KCN_EVENTS,
    ORDER_ID,
    FakeGateway,
    order_state,
    place,
    problem,
)

OTHER_ID = "6f1c2d1e-0000-5000-8000-000000000002"
BTC_EVENTS = "events.BTC/EUR"


@pytest.fixture
def alice(page: Page, start: Callable[..., FakeGateway]) -> FakeGateway:
    return signed_in(page, start)


def signed_in(page: Page, start: Callable[..., FakeGateway], **more: object) -> FakeGateway:
    gateway = start(address="/#token=t-alice", **more)
    expect(page.locator("#orders-title")).to_have_text("Your orders")
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    gateway.wait_until(lambda: KCN_EVENTS in gateway.channels and "private/subscribe" in gateway.methods)
    return gateway


def statuses(page: Page) -> Locator:
    return page.locator("#orders-body .status-text")


def test_open_orders_are_listed_wherever_they_were_placed(page: Page, alice: FakeGateway) -> None:
    alice.tell_orders(
        order_state(OTHER_ID, symbol="BTC/EUR", price="50000.5", quantity="0.0100", side="ask"),
        order_state(status="partially_filled", filled="0.25"),
        snapshot=True,
    )
    expect(page.locator("#orders-body tr")).to_have_count(2)
    expect(statuses(page)).to_have_text(["Partly filled", "Open"])
    first = page.locator("#orders-body tr").first
    expect(first.locator(".filled")).to_have_text("0.25")
    # Fills that nobody saw here have no price here either.
    expect(first.locator(".average")).to_have_text("–")
    expect(page.locator("#orders-body tr").last.locator(".price")).to_have_text("50000.5")
    expect(page.locator("#orders-note")).to_have_text("2 listed, 2 open")


def test_order_is_shown_as_the_gateway_tells_it(page: Page, alice: FakeGateway) -> None:
    told = ("pending", "open", "partially_filled", "filled", "cancelled", "rejected")
    states = [order_state(f"00000000-0000-5000-8000-00000000000{at}", status) for at, status in enumerate(told)]
    states[-1]["reason"] = "not enough <b>money</b>"
    alice.tell_orders(*states)
    expect(statuses(page)).to_have_text(["Rejected", "Cancelled", "Filled", "Partly filled", "Open", "Pending"])
    expect(page.locator("#orders-body .note").first).to_have_text("not enough <b>money</b>")
    # Only what is not over can be cancelled.
    expect(page.locator("#orders-body .cancel:visible")).to_have_count(3)


def test_order_of_the_page_is_one_with_what_is_told_of_it(page: Page, alice: FakeGateway) -> None:
    def tell_first() -> None:
        alice.tell_orders(order_state(status="pending", client_order_id=alice.orders[0]["client_order_id"]))

    alice.before_answer = tell_first
    alice.answer = ACCEPTED
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("Accepted: on its way to the market")
    assert alice.authorizations == ["Bearer t-alice"]
    alice.tell_orders(order_state())
    expect(page.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    alice.tell_orders(order_state(status="partially_filled", filled="0.5"), order_state(status="filled", filled="1"))
    expect(page.locator("#answer strong")).to_have_text("Filled: 1 KCN")
    expect(page.locator("#orders-body tr")).to_have_count(1)
    expect(statuses(page)).to_have_text(["Filled"])


def test_fill_is_marked_on_the_tape_and_counted_once(page: Page, alice: FakeGateway) -> None:
    # Placed elsewhere, and filled before anything is told of it here.
    alice.fill("24.95", "0.4", buy_order_id=ORDER_ID)
    alice.fill("24.90", "0.5")
    alice.tell_orders(order_state(status="partially_filled", filled="0.4"))
    expect(page.locator("#tape li[data-own=true]")).to_have_count(1)
    expect(page.locator("#orders-body .average")).to_have_text("24.95")
    alice.fill("24.93", "0.6", buy_order_id=ORDER_ID)
    alice.tell_orders(order_state(status="filled", filled="1"))
    expect(page.locator("#orders-body .filled")).to_have_text("1")
    expect(page.locator("#orders-body .average")).to_have_text("24.9380")
    expect(page.locator("#orders-body tr")).to_have_attribute("data-flash", "odd")
    expect(page.locator("#tape li")).to_have_count(3)
    assert page.locator("#tape li").evaluate_all("(rows) => rows.map((row) => row.dataset.own)") == [
        "true",
        "false",
        "true",
    ]
    page.click("#sign-out")
    expect(page.locator("#tape li[data-own=true]")).to_have_count(0)


def test_fills_are_followed_where_orders_are_open_and_where_one_looks(page: Page, alice: FakeGateway) -> None:
    assert BTC_EVENTS not in alice.channels
    alice.tell_orders(order_state(symbol="BTC/EUR"))
    expect(page.locator("#orders-body tr")).to_have_count(1)
    alice.wait_until(lambda: BTC_EVENTS in alice.channels)
    assert KCN_EVENTS not in alice.dropped


def test_snapshot_after_a_reconnect_replaces_what_was_known(page: Page, alice: FakeGateway) -> None:
    ids = [f"00000000-0000-5000-8000-00000000000{number}" for number in range(4)]
    alice.tell_orders(*[order_state(each) for each in ids], snapshot=True)
    expect(page.locator("#orders-body tr")).to_have_count(4)
    alice.account = [order_state(ids[0], status="partially_filled", filled="0.1")]
    alice.known = {ids[1]: order_state(ids[1], status="filled", filled="1"), ids[2]: order_state(ids[2])}
    alice.drop(1001, "reconnect")
    expect(page.locator(f"[data-order-id='{ids[3]}'] .status-text")).to_have_text("Ended")
    expect(statuses(page)).to_have_text(["Ended", "Open", "Filled", "Partly filled"])
    assert alice.authorizations == ["Bearer t-alice"] * 3
    expect(page.locator("#orders-note")).to_have_text("4 listed, 2 open")


def test_closed_order_stays_closed_whatever_an_instance_behind_says(page: Page, alice: FakeGateway) -> None:
    alice.tell_orders(order_state(status="cancelled"))
    alice.tell_orders(order_state(), order_state(OTHER_ID))
    expect(page.locator("#orders-body tr")).to_have_count(2)
    expect(statuses(page)).to_have_text(["Open", "Cancelled"])


@pytest.mark.usefixtures("alone")
def test_ended_orders_leave_the_list_after_a_while(page: Page, start: Callable[..., FakeGateway]) -> None:
    page.clock.install()
    gateway = start(address="/#token=t-alice")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    gateway.tell_orders(order_state(status="filled", filled="1"), order_state(OTHER_ID))
    expect(page.locator("#orders-body tr")).to_have_count(2)
    page.clock.fast_forward(16 * 60_000)
    page.clock.run_for(2_000)
    expect(page.locator("#orders-body tr")).to_have_count(1)
    expect(statuses(page)).to_have_text(["Open"])


def test_user_cancels_one_order(page: Page, alice: FakeGateway) -> None:
    alice.tell_orders(order_state())
    alice.book(bids=[("24.95", "0", "1")])
    expect(page.locator(".level[data-own=true]")).to_have_count(1)
    alice.answer = (202, {}, {"order_id": ORDER_ID, "status": "cancel_requested"})
    page.click("#orders-body .cancel")
    expect(page.locator("#orders-body .note")).to_have_text("Cancel requested")
    assert alice.cancels == [{"order_id": ORDER_ID, "symbol": "KCN/EUR"}]
    assert alice.authorizations == ["Bearer t-alice"]
    alice.tell_orders(order_state(status="cancelled"))
    expect(page.locator("#orders-body .status-text")).to_have_text("Cancelled")
    expect(page.locator("#orders-body .cancel")).to_be_hidden()


def test_cancel_of_an_order_that_had_ended_shows_how(page: Page, alice: FakeGateway) -> None:
    alice.tell_orders(order_state())
    alice.known = {ORDER_ID: order_state(status="filled", filled="1")}
    alice.answer = (409, {}, problem(409, order_id=ORDER_ID, order_status="filled"))
    page.click("#orders-body .cancel")
    expect(page.locator("#orders-body .status-text")).to_have_text("Filled")


def test_user_cancels_all_orders_at_once(page: Page, alice: FakeGateway) -> None:
    expect(page.locator("#cancel-all")).to_be_hidden()
    alice.tell_orders(order_state(), order_state(OTHER_ID, symbol="BTC/EUR"))
    alice.answer = (503, {}, problem(503))
    page.click("#cancel-all")
    expect(page.get_by_role("status").filter(has_text="Cancel all: Not sent")).to_have_count(1)
    alice.answer = (202, {}, {"order_ids": [ORDER_ID, OTHER_ID]})
    page.click("#cancel-all")
    expect(page.get_by_role("status").filter(has_text="Cancel requested for 2 orders")).to_have_count(1)
    expect(page.locator("#orders-body .note").filter(has_text="Cancel requested")).to_have_count(2)
    assert alice.cancels == [{}, {}]
    alice.tell_orders(order_state(status="cancelled"), order_state(OTHER_ID, status="cancelled"))
    expect(page.locator("#cancel-all")).to_be_hidden()


def test_news_of_orders_from_elsewhere_are_spoken(page: Page, alice: FakeGateway) -> None:
    alice.tell_orders(order_state(), snapshot=True)
    expect(page.locator("#orders-body tr")).to_have_count(1)
    expect(page.locator("#orders-news")).to_have_text("")
    alice.tell_orders(order_state(status="partially_filled", filled="0.5"))
    expect(page.locator("#orders-news")).to_have_text("Partly filled: 0.5 of 1 KCN (buy 1 KCN/EUR)")
    alice.tell_orders(order_state(status="cancelled", filled="0.5"))
    expect(page.locator("#orders-news")).to_have_text("Cancelled (buy 1 KCN/EUR)")


@pytest.mark.parametrize("first", [None, (504, {}, problem(504, order_id=ORDER_ID))], ids=["no answer", "504"])
def test_unknown_outcome_is_asked_again_under_the_same_name(
    page: Page, alice: FakeGateway, first: tuple[int, dict[str, str], dict[str, object]] | None
) -> None:
    alice.answer = first
    place(page, "24.95", "1")
    status = page.locator("#orders-body .status-text")
    expect(status).to_have_text("Outcome unknown")
    # This attempt did not come through; that says nothing of the one before.
    alice.answer = (503, {}, problem(503))
    page.click("#orders-body .again")
    expect(page.locator("#orders-body .note")).to_contain_text("Asked again: Not sent")
    expect(status).to_have_text("Outcome unknown")
    alice.answer = (202, {}, {"order_id": ORDER_ID, "client_order_id": "c", "status": "accepted", "duplicate": True})
    page.click("#orders-body .again")
    expect(status).to_have_text("Accepted")
    expect(page.locator("#orders-body .again")).to_be_hidden()
    expect(page.locator("#orders-body .cancel")).to_be_visible()
    assert len(alice.orders) == 3
    assert alice.orders[0] == alice.orders[1] == alice.orders[2]


def test_unknown_outcome_is_known_when_the_gateway_tells_of_the_order(page: Page, alice: FakeGateway) -> None:
    alice.answer = None
    place(page, "24.95", "1")
    status = page.locator("#orders-body .status-text")
    expect(status).to_have_text("Outcome unknown")
    named = {"client_order_id": alice.orders[0]["client_order_id"]}
    alice.tell_orders(order_state(status="pending", **named))
    # Now it has an id to cancel by, and that is all.
    expect(page.locator("#orders-body .cancel")).to_be_visible()
    expect(status).to_have_text("Outcome unknown")
    alice.tell_orders(order_state(**named))
    expect(status).to_have_text("Open")
    expect(page.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    expect(page.locator("#orders-body tr")).to_have_count(1)


def test_anonymous_order_stays_nobodys_after_signing_in(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    expect(page.locator("#orders-body tr")).to_have_count(1)
    page.evaluate("location.hash = '#token=t-alice'")
    expect(page.locator("#orders-body .note")).to_have_text("Placed without signing in")
    expect(page.locator("#cancel-all")).to_be_hidden()
    page.click("#orders-body .cancel")
    expect(page.locator("#orders-body .note")).to_have_text("Cancel requested")
    assert gateway.authorizations == [None, None]


def test_thousands_of_orders_leave_the_page_usable(page: Page, alice: FakeGateway, complaints: Complaints) -> None:
    ids = [f"00000000-0000-5000-8000-{number:012}" for number in range(3000)]
    alice.tell_orders(*[order_state(each) for each in ids], snapshot=True)
    expect(page.locator("#orders-note")).to_have_text("3000 listed, 3000 open, the last 200 shown")
    expect(page.locator("#orders-body tr")).to_have_count(200)
    alice.tell_orders(order_state(ids[-1], status="filled", filled="1"))
    expect(page.locator("#orders-body .status-text").first).to_have_text("Filled")
    assert complaints.texts == []


# Edit.


@pytest.fixture
def editor(page: Page, start: Callable[..., FakeGateway]) -> FakeGateway:
    """Alice's gateway, where orders can be amended."""
    return signed_in(page, start, amend=True)


def editable(page: Page, gateway: FakeGateway) -> Locator:
    """An open order in its row."""
    gateway.tell_orders(order_state())
    expect(page.locator("#orders-body tr")).to_have_count(1)
    return page.locator("#orders-body tr")


def test_order_is_edited_in_its_row(page: Page, editor: FakeGateway) -> None:
    row = editable(page, editor)
    editor.answer = (202, {}, {"order_id": ORDER_ID, "status": "amend_requested"})
    row.get_by_role("button", name="Edit price and quantity").click()
    price, quantity = row.locator("input").all()
    expect(price).to_be_focused()
    expect(price).to_have_value("24.95")
    price.fill("24.90")
    quantity.fill("2")
    row.get_by_role("button", name="Save the edit").click()
    expect(price).to_be_hidden()
    assert editor.amends == [{"order_id": ORDER_ID, "symbol": "KCN/EUR", "price": "24.90", "quantity": "2"}]
    assert editor.authorizations[-1] == "Bearer t-alice"
    expect(row.locator(".price")).to_have_text("24.95")
    editor.tell_orders(order_state(price="24.90", quantity="2"))
    expect(row.locator(".price")).to_have_text("24.90")
    expect(row.locator(".quantity")).to_have_text("2")


def test_edit_by_keyboard_sends_what_changed_and_escape_sends_nothing(page: Page, editor: FakeGateway) -> None:
    row = editable(page, editor)
    editor.answer = (202, {}, {"order_id": ORDER_ID, "status": "amend_requested"})
    edit = row.get_by_role("button", name="Edit price and quantity")
    edit.press("Enter")
    row.locator("input").first.press("Escape")
    expect(edit).to_be_focused()
    assert editor.amends == []
    edit.click()
    row.locator("input").last.fill("0.5")
    row.locator("input").last.press("Enter")
    expect(row.locator("input").first).to_be_hidden()
    assert editor.amends == [{"order_id": ORDER_ID, "symbol": "KCN/EUR", "quantity": "0.5"}]


def test_edit_that_is_refused_says_why_and_can_be_mended(page: Page, editor: FakeGateway) -> None:
    row = editable(page, editor)
    errors = [{"field": "price", "message": "expected a multiple of the tick, 0.01"}]
    editor.answer = (422, {}, problem(422, errors=errors))
    row.get_by_role("button", name="Edit price and quantity").click()
    row.locator("input").first.fill("24.955")
    row.get_by_role("button", name="Save the edit").click()
    expect(row.locator(".note")).to_have_text("Edit: price: expected a multiple of the tick, 0.01")
    expect(row.locator("input").first).to_have_value("24.955")


def test_edit_that_the_engine_refuses_is_told_in_the_row(page: Page, editor: FakeGateway) -> None:
    row = editable(page, editor)
    editor.tell_orders(order_state(amend_rejected="too late"))
    expect(row.locator(".note")).to_have_text("Edit refused: too late")


def test_order_that_closes_or_never_rests_is_not_edited(page: Page, editor: FakeGateway) -> None:
    row = editable(page, editor)
    row.get_by_role("button", name="Edit price and quantity").click()
    editor.tell_orders(order_state(status="filled", filled="1"))
    expect(row.locator("input").first).to_be_hidden()
    expect(row.locator(".edit")).to_be_hidden()


def test_nothing_is_edited_where_orders_cannot_be_amended(page: Page, alice: FakeGateway) -> None:
    row = editable(page, alice)
    expect(row.locator(".cancel")).to_be_visible()
    expect(row.locator(".edit")).to_be_hidden()
