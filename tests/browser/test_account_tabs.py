"""What is known of the user's own trading: tabs only where it is offered, exact to the last digit, and nobody else's."""

from __future__ import annotations

import csv
import io
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints
from tests.browser.fake_gateway import ACCEPTED, ORDER_ID, START, FakeGateway, order_state, place, problem

PRICE, QUANTITY = "24.9500000000000000000000001", "1234567890.123456789012345678"


def fill(number: int, **more: Any) -> dict[str, Any]:
    terms = {"symbol": "KCN/EUR", "side": "bid", "price": "25.00", "quantity": "1.5", "liquidity": "maker"}
    ids = {"fill_id": f"0-{number}", "order_id": ORDER_ID, "client_order_id": None}
    return {**ids, **terms, "fee": None, "fee_currency": None, "time": START + number, **more}


def told(*fills: dict[str, Any]) -> dict[str, Any]:
    return {"trades": list(fills), "snapshot": True}


@pytest.fixture
def gateway(page: Page, context: Any) -> FakeGateway:
    """One that offers all of it, with nobody signed in yet."""
    gateway = FakeGateway(
        context, page, [{"symbol": "KCN/EUR", "tick": "0.01", "lot": "0.001", "min_quantity": "0.01"}]
    )
    gateway.offered = {
        "account.trades": told(fill(1), fill(2, side="ask", symbol="BTC/EUR", price=PRICE, quantity=QUANTITY)),
        "account.balances": {
            "balances": {
                "EUR": {"available": "1000.50", "reserved": "0.25"},
                "KCN": {"available": "7.77777777", "reserved": "0"},
            },
            "snapshot": True,
        },
    }
    ended = order_state("o-1", "cancelled", "0.25", reason='by "alice", late')
    gateway.records = {"order/history?limit=100": {"orders": [ended]}}
    return gateway


def open_tab(page: Page, gateway: FakeGateway, name: str) -> None:
    gateway.open("/#token=t-alice")
    page.get_by_role("tab", name=name).click()


def cells(page: Page, panel: str) -> list[list[str]]:
    script = "(rows) => rows.map((row) => [...row.cells].slice(1).map((cell) => cell.textContent))"
    shown: list[list[str]] = page.locator(f"#{panel}-panel tbody tr").evaluate_all(script)
    return shown


def test_tabs_are_only_where_the_gateway_offers_them(page: Page, gateway: FakeGateway, complaints: Complaints) -> None:
    del gateway.offered["account.balances"]
    gateway.open("/")
    expect(page.get_by_role("tab")).to_have_count(1)
    page.goto("about:blank")
    gateway.open("/#token=t-alice")
    expect(page.get_by_role("tab")).to_have_text(["Your orders", "Fills", "History"])
    expect(page.locator("#shares")).to_be_hidden()
    assert complaints.texts == []


def test_fills_are_listed_newest_first_to_their_last_digit(page: Page, gateway: FakeGateway) -> None:
    open_tab(page, gateway, "Fills")
    expect(page.locator("#fills-panel tbody tr")).to_have_count(2)
    newest, oldest = cells(page, "fills")
    assert newest[:4] == ["BTC/EUR", "▼ Sell", PRICE, QUANTITY]
    assert oldest == ["KCN/EUR", "▲ Buy", "25.00", "1.5", "37.500", "maker", "–"]
    with localcontext(prec=80):
        assert newest[4] == str(Decimal(PRICE) * Decimal(QUANTITY))
    news = fill(3, fee="-0.01", fee_currency="EUR")
    gateway.send({"channel_name": "account.trades", "notification": {"trades": [news, fill(2)]}})
    expect(page.locator("#fills-panel tbody tr")).to_have_count(4)
    assert "-0.01 EUR" in [row[-1] for row in cells(page, "fills")]


@pytest.mark.parametrize("recovered", [True, False])
def test_fills_go_on_after_a_reconnect_without_a_hole_or_a_repeat(
    page: Page, gateway: FakeGateway, recovered: bool
) -> None:
    gateway.offered = {"account.trades": told(fill(1), fill(2))}
    gateway.with_offered = {"account.trades": {"epoch": "e", "seq": {"0": 2, "3": 7}}}
    open_tab(page, gateway, "Fills")
    expect(page.locator("#fills-panel tbody tr")).to_have_count(2)
    gateway.send({"channel_name": "account.trades", "seq": {"0": 3, "3": 7}, "notification": {"trades": [fill(3)]}})
    expect(page.locator("#fills-panel tbody tr")).to_have_count(3)
    missed, newer = fill(4, price="26"), fill(5, price="27")
    gateway.offered = {"account.trades": {"trades": [missed, newer]} if recovered else told(missed, newer)}
    gateway.with_offered = {"account.trades": {"epoch": "e", "seq": {"0": 5, "3": 7}, "recovered": recovered}}
    gateway.private_subscribes.clear()
    gateway.drop(1001)
    expect(page.locator("#fills-panel tbody tr")).to_have_count(5 if recovered else 2)
    since = {"account.trades": {"epoch": "e", "seq": {"0": 3, "3": 7}}}
    assert [asked["since"] for asked in gateway.private_subscribes if "since" in asked] == [since]
    assert [row[2] for row in cells(page, "fills")] == ["27", "26", *(["25.00"] * 3 if recovered else [])]


def test_fills_are_filtered_and_written_to_a_file(page: Page, gateway: FakeGateway, tmp_path: Path) -> None:
    open_tab(page, gateway, "Fills")
    page.locator("#fills-panel select").first.select_option("BTC/EUR")
    expect(page.locator("#fills-panel tbody tr")).to_have_count(1)
    expect(page.locator("#fills-panel .panel-note")).to_have_text("1 of 2 listed")
    with page.expect_download() as download:
        page.locator("#fills-panel").get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "fills.csv"
    download.value.save_as(tmp_path / "fills.csv")
    [row] = csv.DictReader(io.StringIO((tmp_path / "fills.csv").read_text("utf-8")))
    assert (row["symbol"], row["side"], row["price"], row["quantity"]) == ("BTC/EUR", "Sell", PRICE, QUANTITY)
    assert (row["fill_id"], row["order_id"]) == ("0-2", ORDER_ID)
    page.locator("#fills-panel select").nth(1).select_option("buy")
    expect(page.locator("#fills-panel .empty")).to_be_visible()


def test_older_fills_are_asked_for(page: Page, gateway: FakeGateway) -> None:
    gateway.offered["account.trades"] = told(*(fill(number) for number in range(100, 200)))
    gateway.records["fills?limit=100&before=0-100"] = {"fills": [fill(99), fill(98)]}
    open_tab(page, gateway, "Fills")
    page.get_by_role("button", name="Load older").click()
    expect(page.locator("#fills-panel tbody tr")).to_have_count(102)
    expect(page.get_by_role("button", name="Load older")).to_be_hidden()
    assert gateway.authorizations[-1] == "Bearer t-alice"


def test_history_lists_closed_orders_and_hears_of_the_next_one(
    page: Page, gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.account = [order_state()]
    open_tab(page, gateway, "History")
    assert cells(page, "history") == [
        ["KCN/EUR", "▲ Buy", "Limit GTC", "24.95", "1", "0.25", "cancelled", 'by "alice", late']
    ]
    with page.expect_download() as download:
        page.locator("#history-panel").get_by_role("button", name="CSV").click()
    download.value.save_as(tmp_path / "history.csv")
    [row] = csv.DictReader(io.StringIO((tmp_path / "history.csv").read_text("utf-8")))
    assert row["reason"] == 'by "alice", late'
    gateway.records["order/history?limit=100"]["orders"].insert(0, order_state(status="filled", filled="1"))
    gateway.tell_orders(order_state(status="filled", filled="1"))
    expect(page.locator("#history-panel tbody tr")).to_have_count(2)
    assert cells(page, "history")[0][-2] == "filled"


def test_balances_follow_their_channel(page: Page, gateway: FakeGateway) -> None:
    open_tab(page, gateway, "Balances")
    assert cells(page, "balances") == [["1000.50", "0.25", "1000.75"], ["7.77777777", "0", "7.77777777"]]
    change = {"EUR": {"available": "0.1", "reserved": "0.2"}}
    gateway.send({"channel_name": "account.balances", "notification": {"balances": change}})
    expect(page.locator("#balances-panel tbody tr").first).to_contain_text("0.3")
    assert cells(page, "balances")[1][0] == "7.77777777"


def test_balances_that_cannot_be_told_are_shown_as_old(page: Page, gateway: FakeGateway) -> None:
    open_tab(page, gateway, "Balances")
    panel = page.locator("#balances-panel")
    expect(panel).to_have_attribute("data-stale", "false")
    notification: dict[str, Any] = {"balances": {}, "time": None, "stale": True}
    gateway.send({"channel_name": "account.balances", "notification": notification})
    expect(panel).to_have_attribute("data-stale", "true")
    expect(panel.locator("tbody tr")).to_have_count(2)
    notification = {"balances": {"EUR": {"available": "1", "reserved": "0"}}, "time": START, "snapshot": True}
    gateway.send({"channel_name": "account.balances", "notification": notification})
    expect(panel).to_have_attribute("data-stale", "false")
    assert cells(page, "balances") == [["1", "0", "1"]]


def test_balances_are_filtered_and_written_to_a_file(page: Page, gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.offered["account.balances"]["balances"]["ETH"] = {"available": "0.00", "reserved": "0"}
    open_tab(page, gateway, "Balances")
    panel = page.locator("#balances-panel")
    expect(panel.locator("tbody tr")).to_have_count(3)
    panel.get_by_label("Zero balances").select_option("Without zeros")
    expect(panel.locator("tbody tr")).to_have_count(2)
    expect(panel.locator(".panel-note")).to_have_text("2 of 3 listed")
    with page.expect_download() as download:
        panel.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "balances.csv"
    download.value.save_as(tmp_path / "balances.csv")
    [eur, kcn] = csv.DictReader(io.StringIO((tmp_path / "balances.csv").read_text("utf-8")))
    assert eur == {"currency": "EUR", "available": "1000.50", "reserved": "0.25", "total": "1000.75"}
    assert kcn["currency"] == "KCN"


def test_nothing_of_a_user_is_left_for_the_next_one(page: Page, gateway: FakeGateway) -> None:
    open_tab(page, gateway, "Balances")
    expect(page.locator("#balances-panel tbody tr")).to_have_count(2)
    expect(page.locator("#shares")).to_be_visible()
    page.click("#sign-out")
    expect(page.get_by_role("tab")).to_have_count(1)
    expect(page.locator("#orders-tab")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#shares")).to_be_hidden()
    expect(page.locator("#balances-panel tbody tr, #fills-panel tbody tr, #history-panel tbody tr")).to_have_count(0)


def test_tabs_are_walked_by_arrow_keys(page: Page, gateway: FakeGateway) -> None:
    gateway.open("/#token=t-alice")
    expect(page.get_by_role("tab")).to_have_count(4)
    page.focus("#orders-tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#fills-tab")).to_be_focused()
    expect(page.locator("#fills-panel")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#balances-tab")).to_be_focused()


def test_shares_are_of_what_is_available_in_whole_lots(page: Page, gateway: FakeGateway) -> None:
    gateway.open("/#token=t-alice")
    for side, price, percent, quantity in (
        ("bid", "24.95", 100, "40.100"),
        ("bid", "24.95", 50, "20.050"),
        ("bid", "3", 75, "250.125"),
        ("ask", "24.95", 100, "7.777"),
        ("ask", "", 25, "1.944"),
    ):
        page.check(f"input[name=side][value={side}]", force=True)
        expect(page.locator("#available")).to_contain_text("1000.50 EUR" if side == "bid" else "7.77777777 KCN")
        page.fill("#price", price)
        page.click(f"#shares [data-percent='{percent}']")
        expect(page.locator("#quantity")).to_have_value(quantity)


def test_shares_of_a_buy_wait_for_a_price(page: Page, gateway: FakeGateway) -> None:
    gateway.open("/#token=t-alice")
    share = page.locator("#shares [data-percent='100']")
    expect(share).to_be_disabled()
    page.fill("#price", "25")
    expect(share).to_be_enabled()
    page.check("input[name=order_type][value=market]", force=True)
    expect(share).to_be_disabled()


def test_page_says_each_answer_and_fill_in_passing(page: Page, gateway: FakeGateway) -> None:
    gateway.open("/")
    toasts = page.locator("#toasts .toast")
    gateway.answer = (422, {}, problem(422, errors=[{"field": "price", "message": "off the tick"}]))
    place(page, "24.951", "1")
    expect(toasts).to_have_text(["Refused: buy 1 KCN/EUR"])
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    expect(toasts.last).to_have_text("Accepted: buy 1 KCN/EUR")
    gateway.fill("24.95", "0.25", buy_order_id=ORDER_ID)
    expect(toasts.last).to_have_text("Bought 0.25 KCN at 24.95")
    expect(toasts.last).to_have_attribute("data-kind", "good")
    # What is read aloud is the ticket's answer: once is enough.
    expect(page.locator("#toasts")).to_have_attribute("aria-hidden", "true")
    expect(page.get_by_role("status").filter(has_text="Partly filled: 0.25 of 1 KCN")).to_have_count(1)


@pytest.mark.usefixtures("alone")
def test_what_was_said_in_passing_goes_by_itself(page: Page, gateway: FakeGateway) -> None:
    page.clock.install()
    gateway.open("/")
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    expect(page.locator("#toasts .toast")).to_have_count(1)
    page.clock.run_for(7_000)
    expect(page.locator("#toasts .toast")).to_have_count(0)
