"""The operators' page, with no gateway behind it: what it shows, asks and sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.browser.conftest import Complaints
from tests.browser.serving import OPERATORS_ORIGIN as ORIGIN
from tests.browser.test_accessibility import serious_findings

TOKEN = "t" * 40
HOSTILE = '<img src=x onerror="document.title=1">\u202e"\'&'


def client(number: int, user_id: str | None) -> dict[str, Any]:
    return {
        "client": f"c-{number}",
        "user_id": user_id,
        "address": "192.0.2.7",
        "since_ms": 1_760_000_000_000,
        "subscriptions": 1,
        "channels": ["status"],
        "waiting_bytes": 5,
    }


class Gateway:
    """What the page is answered, and what it asked."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.page = page
        self.state: dict[str, Any] = {
            "blocks": [], "blocked_users": 0, "halts": [], "announcement": None, "problem": None,
        }  # fmt: skip
        self.clients: dict[str, Any] = {"clients": [client(1, "alice"), client(2, None)], "next": None, "open": 2}
        self.posted: list[tuple[str, Any]] = []
        self.asked: list[str] = []
        self.refusal: tuple[int, str] | None = None
        self.done: dict[str, Any] = {}
        context.route(f"{ORIGIN}/**", self._serve)

    def _serve(self, route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        self.asked.append(path)
        name = path.removeprefix("/admin/").partition("?")[0]
        if name in ("", "page/admin.js", "page/admin.css") or path.startswith("/console/"):
            route.continue_()
            return
        if route.request.headers.get("authorization") != f"Bearer {TOKEN}":
            self._answer(route, 401, {"error": "the token is not that of the operators"})
        elif route.request.method == "GET":
            self._answer(route, 200, {"state": self.state, "clients": self.clients}[name])
        else:
            self.posted.append((name, json.loads(route.request.post_data or "")))
            status, error = self.refusal or (200, "")
            self._answer(route, status, {"error": error} if error else {"status": "done", **self.done})

    @staticmethod
    def _answer(route: Route, status: int, body: object) -> None:
        route.fulfill(status=status, headers={"content-type": "application/json"}, body=json.dumps(body))

    def sign_in(self, token: str = TOKEN) -> None:
        self.page.goto(f"{ORIGIN}/admin/")
        self.page.get_by_label("Token of the operators").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def answer_question(self, yes: str | None) -> None:
        dialog = self.page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        dialog.get_by_role("button", name=yes or "No", exact=True).click()
        expect(dialog).to_be_hidden()


@pytest.fixture
def gateway(context: BrowserContext, page: Page) -> Gateway:
    return Gateway(context, page)


def test_token_is_kept_in_the_tab_and_is_in_no_address(gateway: Gateway, complaints: Complaints) -> None:
    gateway.sign_in()
    page = gateway.page
    expect(page.locator("#clients tr")).to_have_count(2)
    page.reload()
    expect(page.locator("#clients tr")).to_have_count(2)
    assert not any(TOKEN in asked for asked in [*gateway.asked, page.url])
    assert page.evaluate("[document.cookie, localStorage.length, document.getElementById('token').value]") == [
        "",
        0,
        "",
    ]
    page.get_by_role("button", name="Forget the token").click()
    expect(page.locator("#desk")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    assert complaints.texts == []


def test_wrong_token_is_refused_and_forgotten(gateway: Gateway) -> None:
    gateway.sign_in("wrong")
    expect(gateway.page.locator("#problem")).to_have_text("the token is not that of the operators")
    expect(gateway.page.locator("#desk")).to_be_hidden()
    assert gateway.page.evaluate("sessionStorage.length") == 0
    gateway.sign_in("no\u2713header")
    expect(gateway.page.locator("#problem")).to_have_text("That is no token.")


def test_names_of_users_are_text_whatever_they_are(gateway: Gateway, complaints: Complaints) -> None:
    gateway.clients["clients"] = [client(1, HOSTILE)]
    gateway.state |= {
        "blocks": [{"user_id": HOSTILE, "since_ms": 1, "reason": HOSTILE}],
        "blocked_users": 1,
        "halts": [{"symbol": "KCN/EUR", "since_ms": 1, "reason": HOSTILE}],
        "announcement": {"state": "halted", "symbols": None, "message": HOSTILE, "from_ms": None, "until_ms": None},
        "problem": HOSTILE,
    }
    gateway.sign_in()
    page = gateway.page
    expect(page.locator("#clients bdi")).to_have_text(HOSTILE)
    page.get_by_role("button", name="Disconnect user").click()
    expect(page.locator("#question-text")).to_contain_text(HOSTILE)
    gateway.answer_question("Disconnect")
    expect(page.locator("#told")).to_contain_text(HOSTILE)
    assert gateway.posted == [("disconnect", {"user_id": HOSTILE})]
    assert page.locator("img").count() == 0
    assert page.title() == "Operators: exchange gateway"
    assert complaints.texts == []


def test_nothing_is_done_without_a_yes(gateway: Gateway) -> None:
    gateway.sign_in()
    page = gateway.page
    page.get_by_role("button", name="Disconnect client c-2").click()
    # Who presses Enter without reading has said no.
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Disconnect client c-2").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert gateway.posted == []
    page.get_by_role("button", name="Disconnect client c-2").click()
    gateway.answer_question("Disconnect")
    expect(page.locator("#told")).to_have_text("Client c-2 is disconnected.")
    assert gateway.posted == [("disconnect", {"client": "c-2"})]


def test_user_is_blocked_and_unblocked(gateway: Gateway) -> None:
    gateway.sign_in()
    page = gateway.page
    page.get_by_label("User", exact=True).fill(" bob ")
    page.get_by_label("Reason, told to the user").fill("margin call")
    page.get_by_label("Cancel open orders too").check()
    page.get_by_role("button", name="Block", exact=True).click()
    gateway.state |= {"blocks": [{"user_id": "bob", "since_ms": 1, "reason": "margin call"}], "blocked_users": 1}
    gateway.answer_question("Block")
    expect(page.locator("#blocks li")).to_contain_text("margin call")
    expect(page.get_by_label("User", exact=True)).to_have_value("")
    page.get_by_role("button", name="Unblock bob").click()
    gateway.state |= {"blocks": [], "blocked_users": 0}
    gateway.answer_question("Unblock")
    expect(page.locator("#blocks li")).to_have_count(0)
    assert gateway.posted == [
        ("block", {"user_id": "bob", "cancel_open": True, "reason": "margin call"}),
        ("unblock", {"user_id": "bob"}),
    ]


def test_everything_is_halted_and_resumed(gateway: Gateway) -> None:
    gateway.sign_in()
    page = gateway.page
    page.get_by_role("button", name="Halt", exact=True).click()
    expect(page.locator("#question-title")).to_have_text("Halt all symbols?")
    gateway.state["halts"] = [{"symbol": None, "since_ms": 1, "reason": None}]
    gateway.answer_question("Halt")
    page.get_by_role("button", name="Resume all symbols").click()
    gateway.answer_question("Resume")
    expect(page.locator("#told")).to_have_text("Resumed: all symbols.")
    assert gateway.posted == [("halt", {"symbol": None}), ("resume", {"symbol": None})]


def test_symbol_of_which_nothing_is_known_is_told_as_perhaps_misspelt(gateway: Gateway) -> None:
    gateway.sign_in()
    gateway.done = {"unknown_symbols": ["KCN/EURO"]}
    gateway.page.get_by_label("Symbol, such as").fill("KCN/EURO")
    gateway.page.get_by_role("button", name="Halt", exact=True).click()
    gateway.answer_question("Halt")
    expect(gateway.page.locator("#told")).to_have_text(
        "Halted: KCN/EURO. Nothing is known here of KCN/EURO: is it spelt right?"
    )


def test_announcement_is_made_and_withdrawn(gateway: Gateway) -> None:
    gateway.sign_in()
    page = gateway.page
    page.get_by_label("State").select_option("maintenance")
    page.get_by_label("Message").fill("back at noon")
    page.get_by_label("Symbols, with").fill("KCN/EUR, BTC/EUR")
    page.get_by_role("button", name="Announce").click()
    body = {
        "state": "maintenance",
        "symbols": ["KCN/EUR", "BTC/EUR"],
        "message": "back at noon",
        "from_ms": None,
        "until_ms": None,
    }
    gateway.state["announcement"] = body
    gateway.answer_question("Announce")
    page.get_by_role("button", name="Withdraw the announcement").click()
    gateway.state["announcement"] = None
    gateway.answer_question("Withdraw")
    expect(page.locator("#announcement li")).to_have_count(0)
    assert gateway.posted == [("announce", body), ("withdraw", {})]


def test_refusal_is_shown_and_keeps_what_was_typed(gateway: Gateway) -> None:
    gateway.sign_in()
    page = gateway.page
    gateway.refusal = 503, "not sent: there is no control topic"
    page.get_by_label("User", exact=True).fill("bob")
    page.get_by_role("button", name="Block", exact=True).click()
    gateway.answer_question("Block")
    expect(page.locator("#problem")).to_have_text("not sent: there is no control topic")
    expect(page.get_by_label("User", exact=True)).to_have_value("bob")


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_page_has_no_serious_finding_of_axe(chromium: Browser, width: int, scheme: Any) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        gateway = Gateway(context, context.new_page())
        gateway.state["halts"] = [{"symbol": None, "since_ms": 1, "reason": "why"}]
        gateway.sign_in()
        page = gateway.page
        expect(page.locator("#halts li")).to_have_count(1)
        assert serious_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Resume all symbols").click()
        assert serious_findings(page) == []
    finally:
        context.close()
