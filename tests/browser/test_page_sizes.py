"""Whatever digits the numbers have and whatever the window: none is cut, and the book fills its column."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DEADLINE_MS, Complaints
from tests.browser.fake_gateway import KCN_TRADES, START, FakeGateway, order_state
from tests.support.examples import outermost

WINDOWS = outermost([(390, 844), (1280, 800), (1920, 1080), (2560, 1440)])
LOT = [{"symbol": "KCN/EUR", "tick": "0.01", "lot": "0.00000001", "min_quantity": "0.00000001"}]
EIGHT_DECIMALS, TEN_DIGITS = "400.00000000", "1234567890.12345678"
TWENTY_NINE = "1234567890.123456789012345678"

CELLS = ".level > span, .tape-rows li > span, .spread > span, .figures dd, #orders td, .symbol-tab span"


@dataclass
class Shown:
    """The page in a window of one size, signed in, which is told all anew by each test."""

    page: Page
    gateway: FakeGateway
    complaints: Complaints
    width: int

    def fill(self, levels: int, quantity: str) -> None:
        """A book of so many levels a side, trades and an order."""
        bids = [(f"{24.9 - level / 100:.2f}", "0", quantity) for level in range(levels)]
        asks = [(f"{25.1 + level / 100:.2f}", "0", quantity) for level in range(levels)]
        self.gateway.tell_orders(order_state(price="24.95", quantity=quantity, filled="0"), snapshot=True)
        self.gateway.tell(KCN_TRADES, {"trades": [[25.1, 1, "buy", START, False]] * 60, "snapshot": True}, epoch="e")
        self.gateway.trade("25.10", quantity)
        self.gateway.book(bids=bids, asks=asks, snapshot=True)
        told = re.compile(rf"^{re.escape(quantity.rstrip('0').rstrip('.'))}\.?0*$")
        expect(self.page.locator("#tape .quantity").first).to_have_text(told)
        expect(self.page.locator("#orders-body .quantity")).to_have_text([told])
        expect(self.page.locator(".bids .level .quantity").first).to_have_text(told)
        expect(self.page.locator(".bids .level .price").first).to_have_text("24.90")


@contextlib.contextmanager
def shown(chromium: Browser, width: int, height: int) -> Iterator[Shown]:
    context = chromium.new_context(viewport={"width": width, "height": height})
    try:
        page = context.new_page()
        complaints = Complaints()
        complaints.hear(page)
        gateway = FakeGateway(context, page, LOT)
        gateway.open("/#token=t-alice")
        yield Shown(page, gateway, complaints, width)
    finally:
        context.close()


@pytest.fixture(scope="module", params=WINDOWS, ids=lambda window: str(window[0]))
def window(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Shown]:
    with shown(chromium, *request.param) as window:
        yield window


def cut(page: Page) -> list[Any]:
    """The numbers that are wider than their cells, or stand beyond the edge of what holds them or of another number.

    The page looks at its numbers once they are drawn, so that what is found must still be there for some frames.
    """
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
    deadline = time.monotonic() + DEADLINE_MS / 1000
    found: list[Any]
    while (found := page.evaluate(script, CELLS)) and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    return found


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
def test_no_number_is_cut_whatever_its_digits(window: Shown, quantity: str) -> None:
    window.fill(50, quantity)
    window.gateway.wait_until(lambda: cut(window.page) == [])
    ladder = measured(window.page)
    assert ladder["page"][0] <= ladder["page"][1]
    assert abs(ladder["widths"][0] - ladder["widths"][1]) <= 3
    # All of its digits are there, in every row.
    texts = window.page.locator(".bids .level[data-empty=false] .quantity").all_text_contents()
    assert {text.rstrip("0") for text in texts} == {quantity.rstrip("0").rstrip(".") + "." * quantity.endswith("00000")}
    assert window.complaints.texts == []


@pytest.mark.parametrize("size", WINDOWS, ids=lambda size: str(size[0]))
def test_book_fills_its_column_with_as_many_levels_as_there_are(chromium: Browser, size: tuple[int, int]) -> None:
    # Rows that are there stay: of few levels they are told to a new page.
    with shown(chromium, *size) as window:
        for levels, rows in ((20, {1280: 15, 1920: 20, 2560: 20}), (50, {1280: 15, 1920: 21, 2560: 30})):
            window.fill(levels, "4.5")
            expect(window.page.locator(".bids .level")).to_have_count(rows.get(window.width, 8))
            ladder = measured(window.page)
            assert ladder["empty"] == 0
            assert 0 <= ladder["left"] < 10
            assert ladder["row"] >= 21


def test_numbers_stand_under_what_they_are_also_when_they_get_longer(window: Shown) -> None:
    window.fill(20, "4.5")
    script = """() => {
      const right = (node) => node.getBoundingClientRect().right;
      const edges = (cells) => [...cells].filter((cell) => cell.getClientRects().length).map(right);
      const heads = edges(document.querySelectorAll(".ladder-head span"));
      const rows = [...document.querySelectorAll(".level[data-empty=false]")].map((row) => edges(row.children));
      return rows.flatMap((row) => row.map((edge, index) => Math.abs(edge - heads[index])));
    }"""
    for quantity in ("4.5", "123456.5"):
        if quantity != "4.5":
            window.gateway.book(bids=[("24.90", "4.5", quantity)])
            expect(window.page.locator(".level .quantity", has_text=quantity)).to_have_count(1)
        assert max(window.page.evaluate(script)) < 1
        assert cut(window.page) == []


def test_rows_do_not_come_and_go_with_the_levels(window: Shown) -> None:
    window.fill(20, "4.5")
    before = measured(window.page)
    window.gateway.book(bids=[("24.71", "4.5", "0")], asks=[("25.29", "4.5", "0")])
    expect(window.page.locator(".level", has_text="24.71")).to_have_count(0)
    after = measured(window.page)
    assert (after["rows"], after["row"]) == (before["rows"], before["row"])


def test_zeros_that_say_nothing_go_where_there_is_no_room_for_them(chromium: Browser) -> None:
    with shown(chromium, 390, 844) as window:
        window.fill(8, "1234567890.5")
        quantity = window.page.locator(".bids .level .quantity").first
        expect(quantity).to_have_text("1234567890.5")
        # Wide enough for all of them.
        window.page.set_viewport_size({"width": 680, "height": 844})
        expect(quantity).to_have_text("1234567890.50000000")
        window.gateway.book(bids=[("24.90", "1234567890.5", "1234567890.12345678")])
        window.page.set_viewport_size({"width": 390, "height": 844})
        expect(quantity).to_have_text("1234567890.12345678")
        assert cut(window.page) == []
