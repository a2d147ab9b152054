"""Signed-in users on the real gateway, which takes orders with a token only, and the simulated exchange."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Literal, cast

import pytest
from jose import jwt
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import WINDOW, Complaints
from tests.browser.demo import quiet_demo
from tests.browser.fake_gateway import place
from tests.browser.test_console import PATIENCE_MS, best, cut_off, open_console
from tests.support.gateway import GatewayProcess

SECRET = "only the tests know this secret, nobody else"
LEEWAY_SECONDS = 60
SYMBOL = "KCN/EUR"


def token(user_id: str, seconds: float = 600) -> str:
    """Good for so long, the gateway's leeway aside."""
    claims = {"sub": user_id, "exp": int(time.time() + seconds)}
    minted: str = jwt.encode(claims, SECRET, "HS256")
    return minted


@pytest.fixture(scope="module")
def gateway(chromium: Browser) -> Iterator[GatewayProcess]:
    # What is traded here is sold by the tests.
    with quiet_demo(1, {"auth": {"mode": "required"}}, {"JWT_SECRET": SECRET}) as process:
        yield process


@pytest.fixture
def page_of(
    chromium: Browser, page: Page, gateway: GatewayProcess, complaints: Complaints
) -> Iterator[Callable[[str], Page]]:
    """Opens the page for a user, each in a browser profile of its own."""
    first = [page]
    contexts = []

    def open_for(user_id: str) -> Page:
        if first:
            page = first.pop()
        else:
            context = chromium.new_context(viewport=WINDOW)
            contexts.append(context)
            page = context.new_page()
            complaints.hear(page)
        page.goto(f"{gateway.url}/#token={token(user_id)}")
        expect(page.locator("#account-text")).to_have_text(f"Signed in as {user_id}")
        expect(page.locator("#best-bid")).not_to_have_text("–")
        return page

    yield open_for
    for context in contexts:
        context.close()


def sell(gateway: GatewayProcess, user_id: str, quantity: str) -> None:
    """A market order from elsewhere."""
    order = {"symbol": SYMBOL, "side": "ask", "order_type": "market", "quantity": quantity}
    answer = gateway.post("/api/order", order, {"Authorization": f"Bearer {token(user_id)}"})
    assert answer.status == 202, answer.body


def test_token_of_the_address_signs_in_and_leaves_no_trace(
    page_of: Callable[[str], Page], complaints: Complaints
) -> None:
    page = page_of("alice")
    assert page.url.endswith("/#symbol=KCN/EUR")
    expect(page.locator("#account-until")).to_have_text(re.compile(r"^until .*\d\d:\d\d$"))
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert page.context.cookies() == []
    page.reload()
    expect(page.locator("#connection-text")).to_have_text("Live")
    expect(page.locator("#sign-in")).to_be_visible()
    assert complaints.texts == []


def test_who_has_no_token_is_asked_to_sign_in(page: Page, gateway: GatewayProcess) -> None:
    open_console(page, gateway)
    place(page, "1.00", "1")
    expect(page.locator("#answer strong")).to_have_text("Not signed in")
    expect(page.locator("#answer")).to_contain_text("Nothing was sent")
    page.click("#answer button")
    page.fill("#token", jwt.encode({"sub": "alice", "exp": time.time() + 60}, SECRET + "!", "HS256"))
    page.click("#sign-in-submit")
    expect(page.locator("#token-error")).to_contain_text("The gateway does not accept this token: ")
    page.fill("#token", token("carol"))
    page.click("#sign-in-submit")
    expect(page.locator("#account-text")).to_have_text("Signed in as carol")
    page.click("#place")
    expect(page.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    expect(page.locator("#orders-body .status-text")).to_have_text("Open")


def test_users_see_their_own_orders_on_every_page_of_theirs_and_nobody_elses(
    page_of: Callable[[str], Page], complaints: Complaints
) -> None:
    alice, also_alice, bob = page_of("alice"), page_of("alice"), page_of("bob")
    place(alice, "1.00", "1")
    expect(alice.locator("#orders-body .status-text")).to_have_text("Open")
    expect(also_alice.locator("#orders-body .status-text")).to_have_text("Open")
    place(bob, "1.00", "1")
    expect(bob.locator("#orders-body tr")).to_have_count(1)
    expect(alice.locator("#orders-body tr")).to_have_count(1)
    theirs = [page.locator("#orders-body tr").get_attribute("data-order-id") for page in (alice, also_alice, bob)]
    assert theirs[0] == theirs[1] != theirs[2]
    also_alice.click("#orders-body .cancel")
    expect(alice.locator("#orders-body .status-text")).to_have_text("Cancelled")
    expect(bob.locator("#orders-body .status-text")).to_have_text("Open")
    for quantity in ("2", "3"):
        alice.fill("#quantity", quantity)
        alice.click("#place")
        expect(alice.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    expect(alice.locator("#orders-note")).to_have_text("3 listed, 2 open")
    alice.click("#cancel-all")
    expect(alice.locator("#orders-answer")).to_have_text("Cancel requested for 2 orders")
    expect(also_alice.locator("#orders-note")).to_have_text("3 listed")
    expect(bob.locator("#orders-body .status-text")).to_have_text("Open")
    assert complaints.texts == []


def test_own_order_is_filled_before_ones_eyes(
    page_of: Callable[[str], Page], gateway: GatewayProcess, complaints: Complaints
) -> None:
    page = page_of("dave")
    # Behind others, where the traders seldom come: it is filled by what is sold here.
    page.fill("#price", str(best(page, "bid") - Decimal("0.20")))
    page.fill("#quantity", "2000")
    page.click("#place")
    row = page.locator("#orders-body tr")
    expect(row.locator(".status-text")).to_have_text(re.compile("Open|Partly filled"))
    sell(gateway, "erin", "1000")
    expect(row.locator(".status-text")).to_have_text("Partly filled", timeout=PATIENCE_MS)
    assert 0 < Decimal(row.locator(".filled").inner_text()) < 2000
    expect(page.locator("#tape li[data-own=true]").first).to_be_visible()
    for _ in range(3):
        sell(gateway, "erin", "1000")
    expect(row.locator(".status-text")).to_have_text("Filled", timeout=PATIENCE_MS)
    expect(row.locator(".filled")).to_have_text("2000")
    expect(row.locator(".average")).not_to_have_text("–")
    expect(row.locator(".cancel")).to_be_hidden()
    assert complaints.texts == []


def test_page_says_when_the_token_has_expired(page: Page, gateway: GatewayProcess, complaints: Complaints) -> None:
    open_console(page, gateway)
    page.click("#sign-in")
    for seconds in (4, 8, 16):
        page.fill("#token", token("frank", seconds - LEEWAY_SECONDS))
        page.click("#sign-in-submit")
        expect(page.locator("#account-problem")).not_to_have_text("", timeout=PATIENCE_MS)
        # On a busy machine it has expired before the gateway sees it.
        if not page.locator("#token-error").inner_text():
            break
    # Only what was good before is said to have expired.
    expect(page.locator("#account-problem")).to_contain_text("Your sign-in has expired")
    expect(page.locator("#sign-in-again")).to_be_visible()
    page.evaluate("(token) => { location.hash = `#token=${token}`; }", token("frank"))
    expect(page.locator("#account-text")).to_have_text("Signed in as frank")
    expect(page.locator("#account-banner")).to_be_hidden()
    expect(page.locator("#connection-text")).to_have_text("Live")
    assert complaints.texts == []


@pytest.mark.usefixtures("alone")
def test_signed_in_page_fits_its_window(page_of: Callable[[str], Page]) -> None:
    page = page_of("a-user-whose-name-is-rather-long@example.org")
    place(page, "1.00", "1")
    expect(page.locator("#orders-body .status-text")).to_have_text("Open")
    for width, scheme in ((1440, "dark"), (1120, "light"), (700, "dark"), (380, "light"), (380, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=cast(Literal["dark", "light"], scheme))
        shown, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert shown <= room == width
        assert cut_off(page) == []
        for button in ("#sign-out", "#cancel-all", "#orders-body .cancel"):
            box = page.locator(button).bounding_box()
            panel = page.locator(".top" if button == "#sign-out" else ".orders-panel").bounding_box()
            assert box is not None and panel is not None
            assert panel["x"] <= box["x"] and box["x"] + box["width"] <= panel["x"] + panel["width"]
    page.evaluate("location.hash = '#token=nonsense'")
    expect(page.locator("#account-banner")).to_be_visible()
    page.click("#sign-in-again")
    expect(page.locator("#token")).to_be_focused()
    dialog = page.locator("#sign-in-dialog").bounding_box()
    assert dialog is not None and dialog["x"] >= 0 and dialog["x"] + dialog["width"] <= 380


def test_balances_of_the_real_channel_are_listed_and_shared_out(page_of: Callable[[str], Page]) -> None:
    page = page_of("demo-trader")
    page.get_by_role("tab", name="Balances").click()
    rows = page.locator("#balances-panel tbody tr")
    expect(rows).to_have_count(4)

    def eur() -> list[str]:
        return rows.filter(has_text="EUR").locator("td").all_inner_texts()

    expect(rows.filter(has_text="EUR")).to_contain_text("100000")
    page.fill("#price", "1.00")
    page.click("#shares [data-percent='25']")
    expect(page.locator("#quantity")).to_have_value("25000.000")
    page.click("#place")
    expect(page.locator("#available")).to_contain_text("75000 EUR")
    assert eur() == ["EUR", "75000", "25000", "100000"]
    page.check("input[name=side][value=ask]", force=True)
    page.click("#shares [data-percent='100']")
    expect(page.locator("#quantity")).to_have_value("5000.000")
    page.check("input[name=side][value=bid]", force=True)
    page.click("#orders-tab")
    page.click("#orders-body .cancel")
    expect(page.locator("#available")).to_contain_text("100000 EUR")
