"""Signing in on the page: where a token comes from, where it never stays, and what is said when it is no good."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints
from tests.browser.fake_gateway import ACCEPTED, FakeGateway, order_state, place, problem

# Everything that outlives a page, or can be seen in it.
REMAINS = """() => JSON.stringify([
  { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, document.documentElement.outerHTML,
  [...document.querySelectorAll("input")].map((input) => input.value), history.state, window.name, document.title,
])"""


def token(until: float) -> str:
    """A token that says until when it is good; its signature is nobody's business here."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "mallory", "exp": until}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


def sign_in(page: Page, given: str) -> None:
    page.click("#sign-in")
    page.fill("#token", given)
    page.click("#sign-in-submit")


def test_page_signs_in_with_the_token_of_its_address_and_takes_it_out_of_there(
    page: Page, start: Callable[..., FakeGateway], complaints: Complaints
) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    gateway = start(address="/#token=t-alice&symbol=BTC/EUR")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    expect(page.locator("#sign-in")).to_be_hidden()
    assert page.url.endswith("/#symbol=BTC/EUR")
    assert gateway.methods[0] == "public/auth"
    assert "t-alice" not in page.evaluate(REMAINS)
    assert page.evaluate("async () => [(await indexedDB.databases()).length, (await caches.keys()).length]") == [0, 0]
    assert not any("t-alice" in text for text in said)
    assert complaints.texts == []


def test_page_is_signed_out_by_a_reload(page: Page, start: Callable[..., FakeGateway]) -> None:
    start(address="/#token=t-alice")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    page.reload()
    expect(page.locator("#connection-text")).to_have_text("Live")
    expect(page.locator("#sign-in")).to_be_visible()
    expect(page.locator("#account-text")).to_have_text("")


def test_page_takes_a_token_from_an_address_that_is_opened_over_it(page: Page, gateway: FakeGateway) -> None:
    page.evaluate("location.hash = '#token=t-alice'")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    assert page.url.endswith("/#symbol=KCN/EUR")
    page.evaluate("location.hash = '#token=t-bob'")
    expect(page.locator("#account-text")).to_have_text("Signed in as bob")


@pytest.mark.parametrize(
    "given", ["t-alice", " t-alice\n", "Bearer t-alice", "http://127.0.0.1:3000/#token=t-alice", "t-\nalice"]
)
def test_token_is_pasted_as_people_have_it(modules: Page, given: str) -> None:
    script = """async (given) => (await import("/console/identity.js")).tokenOf(given)"""
    assert modules.evaluate(script, given) == "t-alice"


def test_page_signs_in_with_a_pasted_token_by_the_keyboard_alone(page: Page, gateway: FakeGateway) -> None:
    page.focus("#sign-in")
    page.keyboard.press("Enter")
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type("t-alice")
    page.keyboard.press("Enter")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    expect(page.locator("#sign-in-dialog")).to_be_hidden()
    expect(page.locator("#token")).to_have_value("")
    assert "t-alice" not in page.evaluate(REMAINS)


def test_wrong_token_is_told_of_where_it_was_given(page: Page, gateway: FakeGateway, complaints: Complaints) -> None:
    page.click("#sign-in")
    for given, words in (
        ("wrong", "The gateway does not accept this token: the token's signature is wrong."),
        ("", "There is no token in what was given."),
        ("not a tökén", "What was given is not a token: it has characters that no token has."),
        ("x" * 9000, "What was given is too long for a token."),
    ):
        page.fill("#token", given)
        page.keyboard.press("Enter")
        expect(page.locator("#token-error")).to_have_text(words)
        expect(page.locator("#token")).to_be_focused()
        assert page.get_attribute("#token", "aria-invalid") == "true"
    page.keyboard.press("Escape")
    expect(page.locator("#sign-in-dialog")).to_be_hidden()
    expect(page.locator("#account-banner")).to_be_hidden()
    expect(page.locator("#token")).to_have_value("")
    expect(page.locator("#connection-text")).to_have_text("Live")
    assert gateway.methods.count("public/auth") == 1
    assert complaints.texts == []


def test_wrong_token_of_the_address_is_told_of_and_the_page_goes_on_without(
    page: Page, start: Callable[..., FakeGateway]
) -> None:
    gateway = start(address="/#token=wrong")
    expect(page.get_by_role("alert").filter(has_text="does not accept this token")).to_have_count(1)
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    assert "wrong" not in page.url
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_contain_text("Accepted")
    assert gateway.authorizations == [None]
    page.click("#account-dismiss")
    expect(page.locator("#account-banner")).to_be_hidden()


@pytest.mark.usefixtures("alone")
def test_page_says_until_when_the_token_is_good_but_not_who_is_in_it(
    page: Page, start: Callable[..., FakeGateway]
) -> None:
    page.clock.install(time=1_700_000_000)
    given = token(1_700_000_000 + 600)
    gateway = start()
    gateway.users[given] = "alice"
    sign_in(page, given)
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    shown = page.evaluate("new Date(1700000600000).toTimeString().slice(0, 5)")
    expect(page.locator("#account-until")).to_have_text(f"until {shown}")


def test_page_says_plainly_that_the_sign_in_has_expired(page: Page, start: Callable[..., FakeGateway]) -> None:
    gateway = start(address="/#token=t-alice")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    gateway.tell_orders(order_state())
    expect(page.locator("#orders-body tr")).to_have_count(1)
    gateway.send({"type": "auth_status", "status": "expired"})
    expect(page.get_by_role("alert").filter(has_text="Your sign-in has expired")).to_have_count(1)
    expect(page.locator("#account-text")).to_have_text("")
    expect(page.locator("#orders-body tr")).to_have_count(0)
    page.click("#sign-in-again")
    page.fill("#token", "t-bob")
    page.keyboard.press("Enter")
    expect(page.locator("#account-text")).to_have_text("Signed in as bob")
    expect(page.locator("#account-banner")).to_be_hidden()


def test_page_signs_in_again_when_it_reconnects(page: Page, start: Callable[..., FakeGateway]) -> None:
    gateway = start(address="/#token=t-alice")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    gateway.methods.clear()
    gateway.drop(1001, "reconnect")
    expect(page.locator("#connection-text")).to_have_text("Live")
    assert gateway.methods[:3] == ["public/auth", "public/subscribe", "private/subscribe"]
    del gateway.users["t-alice"]
    gateway.drop(1001, "reconnect")
    expect(page.locator("#account-problem")).to_contain_text("does not accept your token any more")
    expect(page.locator("#connection-text")).to_have_text("Live")


def test_signing_out_takes_what_was_the_users_off_the_page(page: Page, start: Callable[..., FakeGateway]) -> None:
    gateway = start(address="/#token=t-alice")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    gateway.tell_orders(order_state())
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    expect(page.locator("#answer code")).to_be_visible()
    page.click("#sign-out")
    expect(page.locator("#sign-in")).to_be_focused()
    expect(page.locator("#orders-body tr")).to_have_count(0)
    expect(page.locator("#answer code")).to_have_count(0)
    expect(page.locator("#connection-text")).to_have_text("Live")
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_contain_text("Accepted")
    assert gateway.authorizations == ["Bearer t-alice", None]


def test_ticket_offers_to_sign_in_where_orders_need_it(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = (401, {}, problem(401))
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("Not signed in")
    page.click("#answer button")
    page.fill("#token", "t-alice")
    page.click("#sign-in-submit")
    expect(page.locator("#account-text")).to_have_text("Signed in as alice")
    gateway.answer = (401, {}, problem(401, detail="the token has expired"))
    page.click("#place")
    expect(page.locator("#answer strong")).to_have_text("Your token is not accepted any more")
    expect(page.locator("#answer")).to_contain_text("the token has expired")
    assert gateway.authorizations == [None, "Bearer t-alice"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("e30.eyJleHAiOjE3MDAwMDB9.x", 1700000000), ("e30.e30.x", None), ("nonsense", None), ("a.%%%.c", None)],
)
def test_expiry_is_read_where_it_can_be(modules: Page, text: str, expected: int | None) -> None:
    script = """async (text) => (await import("/console/client/gateway-protocol.js")).expiryOf(text)"""
    assert modules.evaluate(script, text) == expected
    assert re.fullmatch(r"[\w.-]+", token(time.time()))
