"""Whatever digits the numbers have and whatever the window: none is cut, and the book fills its column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Complaints
from tests.browser.fake_gateway import KCN_TRADES, START, FakeGateway, order_state
from tests.support.examples import outermost

WINDOWS = outermost([(390, 844), (1280, 800), (1920, 1080), (2560, 1440)])
LOT = [{"symbol": "KCN/EUR", "tick": "0.01", "lot": "0.00000001", "min_quantity": "0.00000001"}]
EIGHT_DECIMALS, TEN_DIGITS = "400.00000000", "1234567890.12345678"
TWENTY_NINE = "1234567890.123456789012345678"

CELLS = ".level > span, .tape-rows li > span, .spread > span, .figures dd, #orders td, .symbol-tab span"


@pytest.fixture(params=WINDOWS, ids=lambda window: str(window[0]))
def window(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    width, height = request.param
    context = chromium.new_context(viewport={"width": width, "height": height})
    yield context.new_page()
    context.close()


def filled(page: Page, levels: int, quantity: str) -> FakeGateway:
    """The page with a book of so many levels a side, trades and an order."""
    gateway = FakeGateway(page.context, page, LOT)
    gateway.account = [order_state(price="24.95", quantity=quantity, filled="0")]
    gateway.open("/#token=t-alice")
    bids = [(f"{24.9 - level / 100:.2f}", "0", quantity) for level in range(levels)]
    asks = [(f"{25.1 + level / 100:.2f}", "0", quantity) for level in range(levels)]
    gateway.book(bids=bids, asks=asks, snapshot=True)
    trade = [25.1, 1, "buy", START, False]
    gateway.tell(KCN_TRADES, {"trades": [trade] * 60, "snapshot": True}, epoch="e")
    gateway.trade("25.10", quantity)
    expect(page.locator("#tape .quantity").first).to_contain_text(quantity)
    expect(page.locator("#orders-body tr")).to_have_count(1)
    expect(page.locator(".bids .level .price").first).to_have_text("24.90")
    return gateway


def cut(page: Page) -> list[Any]:
    """The numbers that are wider than their cells, or stand beyond the edge of what holds them or of another number."""
    script = """(cells) => {
      const beyond = (node, box, frame) => box.left < frame.left - 1 || box.right > frame.right + 1;
      const found = [];
      for (const node of document.querySelectorAll(cells)) {
        if (!node.textContent || node.matches(".visually-hidden") || !node.getClientRects().length) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const text = range.getBoundingClientRect();
        const before = node.previousElementSibling;
        const overlaps = before?.matches(cells) && before.textContent &&
          before.getBoundingClientRect().top === node.getBoundingClientRect().top &&
          before.getBoundingClientRect().right > text.left + 1;
        const isWide = getComputedStyle(node).display !== "inline" && node.scrollWidth > node.clientWidth;
        if (isWide || overlaps || beyond(node, text, node.closest(".panel, .top").getBoundingClientRect())) {
          found.push([node.className, node.textContent]);
        }
      }
      return found;
    }"""
    told: list[Any] = page.evaluate(script, CELLS)
    return told


def measured(page: Page) -> Any:
    """The ladder: rows a side, how many of them are empty, and the pixels of its column that are left over at its end."""
    return page.evaluate(
        """() => {
          const ladder = document.querySelector("#ladder");
          const side = [...ladder.querySelectorAll(".bids .level")];
          const panel = ladder.closest(".panel").getBoundingClientRect();
          return {
            rows: side.length,
            empty: side.filter((row) => row.dataset.empty === "true").length,
            left: panel.bottom - side.at(-1).getBoundingClientRect().bottom,
            row: side[0].getBoundingClientRect().height,
            widths: [side[0].getBoundingClientRect().width, panel.width],
            page: [document.documentElement.scrollWidth, innerWidth],
          };
        }"""
    )


@pytest.mark.parametrize("quantity", [EIGHT_DECIMALS, TEN_DIGITS, TWENTY_NINE])
def test_no_number_is_cut_whatever_its_digits(window: Page, complaints: Complaints, quantity: str) -> None:
    complaints.hear(window)
    gateway = filled(window, 50, quantity)
    gateway.wait_until(lambda: cut(window) == [])
    ladder = measured(window)
    assert ladder["page"][0] <= ladder["page"][1]
    assert abs(ladder["widths"][0] - ladder["widths"][1]) <= 3
    # All of its digits are there, in every row.
    shown = window.locator(".bids .level[data-empty=false] .quantity").all_text_contents()
    assert {text.rstrip("0") for text in shown} == {quantity.rstrip("0").rstrip(".") + "." * quantity.endswith("00000")}
    assert complaints.texts == []


@pytest.mark.parametrize(
    ("levels", "rows"), [(50, {1280: 15, 1920: 21, 2560: 30}), (20, {1280: 15, 1920: 20, 2560: 20})]
)
def test_book_fills_its_column_with_as_many_levels_as_there_are(
    window: Page, levels: int, rows: dict[int, int]
) -> None:
    filled(window, levels, "4.5")
    width = window.viewport_size and window.viewport_size["width"]
    ladder = measured(window)
    assert ladder["rows"] == rows.get(width or 0, 8)
    assert ladder["empty"] == 0
    assert 0 <= ladder["left"] < 10
    assert ladder["row"] >= 21


def test_numbers_stand_under_what_they_are_also_when_they_get_longer(window: Page) -> None:
    gateway = filled(window, 20, "4.5")
    script = """() => {
      const right = (node) => node.getBoundingClientRect().right;
      const edges = (cells) => [...cells].filter((cell) => cell.getClientRects().length).map(right);
      const heads = edges(document.querySelectorAll(".ladder-head span"));
      const rows = [...document.querySelectorAll(".level[data-empty=false]")].map((row) => edges(row.children));
      return rows.flatMap((row) => row.map((edge, index) => Math.abs(edge - heads[index])));
    }"""
    for quantity in ("4.5", "123456.5"):
        if quantity != "4.5":
            gateway.book(bids=[("24.90", "4.5", quantity)])
            expect(window.locator(".level .quantity", has_text=quantity)).to_have_count(1)
        assert max(window.evaluate(script)) < 1
        assert cut(window) == []


def test_rows_do_not_come_and_go_with_the_levels(window: Page) -> None:
    gateway = filled(window, 20, "4.5")
    before = measured(window)
    gateway.book(bids=[("24.71", "4.5", "0")], asks=[("25.29", "4.5", "0")])
    expect(window.locator(".level", has_text="24.71")).to_have_count(0)
    after = measured(window)
    assert (after["rows"], after["row"]) == (before["rows"], before["row"])


def test_zeros_that_say_nothing_go_where_there_is_no_room_for_them(chromium: Browser) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    try:
        page = context.new_page()
        gateway = filled(page, 8, "1234567890.5")
        quantity = page.locator(".bids .level .quantity").first
        expect(quantity).to_have_text("1234567890.5")
        # Wide enough for all of them.
        page.set_viewport_size({"width": 680, "height": 844})
        expect(quantity).to_have_text("1234567890.50000000")
        gateway.book(bids=[("24.90", "1234567890.5", "1234567890.12345678")])
        page.set_viewport_size({"width": 390, "height": 844})
        expect(quantity).to_have_text("1234567890.12345678")
        assert cut(page) == []
    finally:
        context.close()
