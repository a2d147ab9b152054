"""What the operators have closed, on the page: a banner, and a ticket that sends nothing in vain."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.fake_gateway import ACCEPTED, FakeGateway, place


def test_page_says_nothing_of_an_exchange_that_is_online(page: Page, gateway: FakeGateway) -> None:
    for one in ("#status-banner", "#closing-banner", "#status-hint"):
        expect(page.locator(one)).to_be_hidden()


def test_ticket_of_a_halted_symbol_refuses_before_sending(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    gateway.tell_status(symbols={"KCN/EUR": "halted"}, reasons={"KCN/EUR": "odd prices"})
    expect(page.locator("#status-banner")).to_have_text("Trading is halted: KCN/EUR")
    reason = "KCN/EUR: trading is halted (odd prices). Open orders can be cancelled."
    expect(page.locator("#status-hint")).to_have_text(reason)
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("Not sent")
    expect(page.locator("#answer")).to_contain_text(reason)
    assert gateway.orders == []
    gateway.tell_status()
    expect(page.locator("#status-banner")).to_be_hidden()
    expect(page.locator("#status-hint")).to_be_hidden()
    page.click("#place")
    gateway.wait_until(lambda: len(gateway.orders) == 1)


def test_ticket_of_another_symbol_sends(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    gateway.tell_status(symbols={"BTC/EUR": "maintenance"})
    expect(page.locator("#status-banner")).to_have_text("Closed for maintenance: BTC/EUR")
    expect(page.locator("#status-hint")).to_be_hidden()
    place(page, "24.95", "1")
    gateway.wait_until(lambda: len(gateway.orders) == 1)


def test_state_of_all_is_told_with_its_message(page: Page, gateway: FakeGateway) -> None:
    for state, words in (
        ("cancel_only", "Only cancels are taken"),
        ("halted", "Trading is halted"),
        ("maintenance", "Closed for maintenance"),
    ):
        gateway.tell_status(state=state, message="an upgrade")
        expect(page.locator("#status-banner")).to_have_text(f"{words} · an upgrade")
        expect(page.locator("#status-hint")).to_contain_text(f"KCN/EUR: {words.lower()} (an upgrade)")


def test_what_is_announced_refuses_nothing_yet(page: Page, gateway: FakeGateway) -> None:
    now_ms = page.evaluate("Date.now()")
    gateway.tell_status(
        message="an upgrade",
        from_ms=now_ms + 60_000,
        until_ms=now_ms + 120_000,
        announced={"state": "maintenance", "symbols": ["KCN/EUR"]},
    )
    banner = page.locator("#status-banner")
    expect(banner).to_contain_text("an upgrade · Closed for maintenance (KCN/EUR) from ")
    expect(banner).to_contain_text(" until ")
    expect(page.locator("#status-hint")).to_be_hidden()


def test_many_halted_symbols_are_counted(page: Page, gateway: FakeGateway) -> None:
    gateway.tell_status(symbols={f"A{number}/EUR": "halted" for number in range(7)})
    expect(page.locator("#status-banner")).to_have_text(
        "Trading is halted: A0/EUR, A1/EUR, A2/EUR, A3/EUR, A4/EUR and 2 more"
    )


def test_end_of_the_connection_is_announced_until_it_comes(page: Page, gateway: FakeGateway) -> None:
    gateway.send({"channel_name": "status", "notification": {"closing_in_ms": 3_600_000}})
    closing = page.locator("#closing-banner")
    expect(closing).to_contain_text("This connection ends in 3")
    gateway.drop(1001, "reconnect")
    expect(closing).to_be_hidden()
    expect(page.locator("#connection-text")).to_have_text("Live")
    expect(closing).to_be_hidden()
