"""What axe-core finds wrong with the page for those who do not see it, or not well, or use no mouse."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.fake_gateway import KCN_BOOK, KCN_CANDLES, FakeGateway, order_state, place
from tests.browser.test_account_tabs import fill, told
from tests.browser.test_charts import candle, history
from tests.browser.test_overview import ticker
from tests.support.examples import outermost

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
SERIOUS = ("serious", "critical")


def serious_findings(page: Page, part: str = ":root") -> list[Any]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found = page.evaluate("part => axe.run(part, { resultTypes: ['violations'] })", part)
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]


# Colours do not hang on the width.
@pytest.mark.parametrize(
    ("width", "scheme"), outermost([(360, "light"), (768, "dark"), (1440, "light"), (2560, "dark")])
)
def test_page_has_no_serious_finding_of_axe(chromium: Browser, width: int, scheme: Any) -> None:
    # What is on its way in has not its colours yet.
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        page = context.new_page()
        gateway = FakeGateway(
            context, page, [{"symbol": "KCN/EUR", "tick": "0.01", "lot": "0.001", "min_quantity": "1"}]
        )
        gateway.account = [order_state(), order_state("o-2", side="ask", price="26")]
        balances = {"EUR": {"available": "1000", "reserved": "0"}}
        gateway.offered = {
            "account.trades": told(fill(1), fill(2, side="ask")),
            "account.balances": {"balances": balances, "snapshot": True},
        }
        gateway.records = {"order/history?limit=100": {"orders": [order_state("o-1", "cancelled")]}}
        gateway.open("/#token=t-alice")
        gateway.candles = [history(candle(0), candle(1))]
        gateway.tell(KCN_CANDLES, {"candles": [candle(1)], "snapshot": True})
        gateway.tell_tickers({"KCN/EUR": ticker("25", "-0.5", "10"), "BTC/EUR": ticker("50000", "1", "7")})
        gateway.trade("25.00", "1", "sell")
        expect(page.locator("#candle-legend")).to_contain_text("C 25.10")
        expect(page.locator("#orders-body tr")).to_have_count(2)
        gateway.answer = (422, {}, {"title": "t", "errors": [{"field": "price", "message": "off the tick"}]})
        place(page, "24.95", "1")
        expect(page.locator("#price-error")).to_have_text("off the tick")
        assert serious_findings(page) == []
        for tab in ("fills", "history", "balances"):
            page.locator(f"#{tab}-tab").dispatch_event("click")
            expect(page.locator(f"#{tab}-panel tbody tr").first).to_be_visible()
            assert serious_findings(page, f"#{tab}-panel") == []
        if width < 1900:
            page.click("#markets-open")
        expect(page.locator("#markets-body tr")).to_have_count(2)
        assert serious_findings(page, "#markets") == []
        gateway.tell(KCN_BOOK, {"stale": True})
        expect(page.locator("#book-note")).to_contain_text("Stale")
        assert serious_findings(page, ".book-panel") == []
    finally:
        context.close()


def test_axe_is_told_of_what_is_wrong(page: Page, gateway: FakeGateway) -> None:
    page.evaluate("document.querySelector('#markets-search').removeAttribute('aria-label')")
    page.evaluate("document.querySelector('#markets-search').removeAttribute('placeholder')")
    page.click("#markets-open")
    assert [name for name, _ in serious_findings(page)] == ["label"]
