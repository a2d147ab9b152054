"""The overview of all symbols, against a gateway that says what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.fake_gateway import (
    INSTRUMENTS,
    TICKER,
    FakeGateway,
)


def ticker(last: str, change: str, value: str) -> dict[str, Any]:
    day = {"high_price_24h": last, "low_price_24h": last, "volume_24h": 1, "value_24h": value, "change_24h": change}
    return {**TICKER, "last_price": last, **day}


def overview(page: Page) -> list[list[str]]:
    script = "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    told: list[list[str]] = page.locator("#markets-body tr").evaluate_all(script)
    return told


def test_overview_has_all_symbols_with_their_24_hours(page: Page, gateway: FakeGateway) -> None:
    day = {"KCN/EUR": ticker("25.00", "1.25", "9876543210.123456789"), "BTC/EUR": ticker("50000.5", "-500", "7")}
    gateway.tell_tickers({**day, "NEW/USD": {**TICKER}}, snapshot=True)
    page.click("#markets-open")
    expect(page.locator("#markets-search")).to_be_focused()
    expect(page.locator("#markets-body tr")).to_have_count(3)
    gateway.wait_until(lambda: len(overview(page)) == 3 and overview(page)[0][1] != "–")
    assert overview(page) == [
        ["KCN/EUR", "25.00", "+5.26 %", "9876543210.123456789 EUR"],
        ["BTC/EUR", "50000.5", "-0.99 %", "7 EUR"],
        ["NEW/USD", "–", "–", "–"],
    ]
    gateway.tell_tickers({"BTC/EUR": {**TICKER, "stale": True}})
    expect(page.locator("#markets-body tr[data-symbol='BTC/EUR']")).to_have_attribute("data-stale", "true")
    expect(page.locator("#markets-body tr[data-symbol='KCN/EUR']")).to_have_attribute("data-stale", "false")


def test_overview_is_searched_and_chosen_from_by_keys(page: Page, start: Callable[..., FakeGateway]) -> None:
    many = [{**INSTRUMENTS[0], "symbol": f"S{number}/EUR"} for number in range(500)]
    gateway = start(instruments=many)
    page.click("#markets-open")
    page.keyboard.type("s49")
    expect(page.locator("#markets-note")).to_have_text("11 of 500")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#chart-title")).to_have_text("S490/EUR")
    expect(page.locator("#markets")).to_be_hidden()
    gateway.wait_until(lambda: "book.S490/EUR.none.50.100ms" in gateway.channels)
    page.click("#markets-open")
    page.keyboard.press("Escape")
    expect(page.locator("#markets-open")).to_be_focused()
    page.click("#markets-open")
    page.fill("#markets-search", "nothing like it")
    expect(page.locator("#markets-empty")).to_be_visible()


def test_overview_is_sorted_by_what_is_asked_for(page: Page, gateway: FakeGateway) -> None:
    day = {"A/EUR": ticker("11", "1", "5"), "B/EUR": ticker("9", "-1", "500"), "C/EUR": ticker("10.5", "0.5", "40")}
    gateway.tell_tickers({**day, "D/EUR": {**TICKER}}, snapshot=True)
    page.click("#markets-open")
    page.fill("#markets-search", "/EUR")
    wanted = {"symbol": "ABCD", "change": "ACBD", "value": "BCAD"}
    for column, symbols in wanted.items():
        page.click(f"#markets-by-{column}")
        expect(page.locator(f"#markets-body tr[data-symbol='{symbols[0]}/EUR']")).to_be_visible()
        rows_shown = [row[0].removesuffix("/EUR") for row in overview(page)]
        assert [symbol for symbol in rows_shown if symbol in wanted["symbol"]] == [*symbols]
        direction = "ascending" if column == "symbol" else "descending"
        expect(page.locator("#markets th[aria-sort]")).to_have_attribute("aria-sort", direction)
