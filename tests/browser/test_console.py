"""The page on the real gateway, trading on the simulated exchange: what a newcomer sees after `make run`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, TimeoutError, WebSocketRoute, expect

from tests.browser.conftest import Complaints
from tests.browser.demo import demo_settings, quiet_demo
from tests.support.examples import outermost
from tests.support.gateway import GatewayProcess
from tests.support.ports import free_port

# A trade on the simulated exchange is a matter of its traders' chance.
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def gateway(chromium: Browser) -> Iterator[GatewayProcess]:
    # Asks for Chromium first: where that is missing, nothing needs to be started.
    with quiet_demo(rate=20) as process:
        # The traders would trade, too, but when is a matter of chance.
        trade(process, "bid")
        yield process


def trade(gateway: GatewayProcess, side: str) -> None:
    """A market order of somebody else's."""
    order = {"symbol": "KCN/EUR", "side": side, "order_type": "market", "quantity": "1"}
    answer = gateway.post("/api/order", order)
    assert answer.status == 202, answer.body


def open_console(page: Page, gateway: GatewayProcess) -> None:
    page.goto(gateway.url + "/")
    expect(page.locator("#connection-text")).to_have_text("Live")
    expect(page.locator("#best-bid")).not_to_have_text("–")
    expect(page.locator("#best-ask")).not_to_have_text("–")


def book_text(page: Page) -> str:
    return page.locator("#ladder").inner_text()


def expect_book_to_move(page: Page) -> None:
    expect_book_to_differ(page, book_text(page))


def expect_book_to_differ(page: Page, before: str) -> None:
    # Not wait_for_function: Playwright asks it again through eval(), which the page's policy refuses.
    expect(page.locator("#ladder")).not_to_have_text(before, use_inner_text=True)


def best(page: Page, side: str) -> Decimal:
    return Decimal(page.locator(f"#best-{side}").inner_text())


def test_console_shows_a_moving_market(page: Page, gateway: GatewayProcess, complaints: Complaints) -> None:
    open_console(page, gateway)
    expect(page.locator("#chart-title")).to_have_text("KCN/EUR")
    expect(page.locator("input[name=symbol]")).to_have_count(3)
    expect_book_to_move(page)
    expect(page.locator("#tape li").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("#last-price")).not_to_have_text("–")
    assert best(page, "bid") < best(page, "ask")
    expect(page.locator("#chart-empty")).to_be_hidden()
    expect(page.locator("#candle-legend")).to_contain_text("Vol")
    expect_painted(page, "#candles canvas")
    expect_painted(page, "#depth")
    choose(page, "input[name=interval][value=live]")
    expect(page.locator("#chart-empty")).to_be_hidden()
    expect_painted(page, "#price-line")
    assert complaints.texts == []


def expect_painted(page: Page, selector: str) -> None:
    """One of these canvases has something on it, or will have."""
    # Of a copy, for to read a canvas often is something that Chromium warns of.
    script = """(selector) => [...document.querySelectorAll(selector)].some(({ width, height }, at, found) => {
      if (!width || !height) return false;
      const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(found[at], 0, 0);
      return copy.getImageData(0, 0, width, height).data.some((value) => value !== 0);
    })"""
    page.wait_for_function(script, arg=selector, timeout=PATIENCE_MS)


def test_console_switches_to_another_symbol_and_keeps_the_first_ones_past(page: Page, gateway: GatewayProcess) -> None:
    open_console(page, gateway)
    expect(page.locator("#tape li").first).to_be_visible(timeout=PATIENCE_MS)
    choose(page, "input[name=symbol][value='BTC/EUR']")
    expect(page.locator("#ticket-symbol")).to_have_text("BTC/EUR")
    expect(page.locator("#best-bid")).to_have_text(re.compile(r"^\d{5}\.\d$"))
    choose(page, "input[name=symbol][value='KCN/EUR']")
    expect(page.locator("#best-bid")).to_have_text(re.compile(r"^\d{2}\.\d{2}$"))
    expect(page.locator("#tape li").first).to_be_visible()


def test_market_order_is_placed_appears_and_is_filled(
    page: Page, gateway: GatewayProcess, complaints: Complaints
) -> None:
    open_console(page, gateway)
    choose(page, "input[value=market]")
    page.fill("#quantity", "0.500")
    page.click("#place")
    row = page.locator("#orders-body tr")
    expect(row).to_have_count(1)
    expect(row.locator(".status-text")).to_have_text("Filled", timeout=PATIENCE_MS)
    assert Decimal(row.locator(".filled").inner_text()) == Decimal("0.5")
    expect(page.locator("#answer strong")).to_contain_text("Filled: 0.500 KCN at ")
    expect(page.locator("#tape li[data-own=true]").first).to_have_attribute("data-side", "buy")
    assert complaints.texts == []


def test_limit_order_waits_in_the_book_and_one_within_the_spread_is_filled(page: Page, gateway: GatewayProcess) -> None:
    open_console(page, gateway)
    # The traders take what is best, perhaps before anybody looks: what is to be seen waiting stands behind others.
    page.fill("#price", str(best(page, "bid") - Decimal("0.12")))
    page.fill("#quantity", "150")
    page.click("#place")
    rows = page.locator("#orders-body tr")
    expect(rows).to_have_count(1)
    expect(page.locator(".bids .level[data-own=true]")).to_have_count(1)
    filled = rows.filter(has=page.locator(".status-text", has_text=re.compile("Partly filled|Filled")))
    # The market may leave one behind: then another follows it.
    for number in range(10):
        page.click("#take-bid")
        page.focus("#price")
        page.keyboard.press("ArrowUp")
        page.click("#place")
        expect(rows).to_have_count(2 + number)
        expect(page.locator("#answer strong")).to_have_text(re.compile("Accepted|[Ff]illed"))
        trade(gateway, "ask")
        try:
            filled.first.wait_for(timeout=PATIENCE_MS / 6)
            break
        except TimeoutError:
            pass
    assert 0 < Decimal(filled.first.locator(".filled").inner_text()) <= 150


def test_order_is_cancelled(page: Page, gateway: GatewayProcess) -> None:
    open_console(page, gateway)
    page.fill("#price", "1.00")
    page.fill("#quantity", "1")
    page.click("#place")
    expect(page.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    page.click("#orders-body .cancel")
    expect(page.locator("#orders-body .note")).to_have_text("Cancel requested")


def test_refused_fields_are_marked_with_the_gateways_words(page: Page, gateway: GatewayProcess) -> None:
    open_console(page, gateway)
    page.fill("#price", "24.9551")
    page.fill("#quantity", "a lot")
    page.click("#place")
    expect(page.locator("#price-error")).to_contain_text("0.01")
    expect(page.locator("#quantity-error")).not_to_have_text("")
    expect(page.locator("#answer strong")).to_have_text("Refused")
    expect(page.locator("#price")).to_be_focused()


def test_order_is_placed_with_the_keyboard_alone(page: Page, gateway: GatewayProcess) -> None:
    open_console(page, gateway)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("input[name=side][value=bid]")).to_be_focused()
    page.keyboard.press("ArrowRight")
    for _ in range(5):  # order type, time in force, best bid, best ask, price
        page.keyboard.press("Tab")
    expect(page.locator("#price")).to_be_focused()
    page.keyboard.type("9999.99")
    page.keyboard.press("Tab")
    page.keyboard.type("0.125")
    page.keyboard.press("Enter")
    expect(page.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    expect(page.locator("#orders-body .side")).to_have_text("▼ Sell")
    expect(page.locator("#orders-body .price")).to_have_text("9999.99")


@pytest.mark.usefixtures("alone")
def test_console_comes_back_by_itself_when_the_server_is_restarted(page: Page, complaints: Complaints) -> None:
    settings = demo_settings(free_port())
    with GatewayProcess(settings) as first:
        first.wait_ready()
        open_console(page, first)
        assert first.terminate() == 0
    expect(page.locator("#banner")).to_contain_text("Not live", timeout=PATIENCE_MS)
    expect(page.locator("#book-note")).to_have_text("Frozen")
    with GatewayProcess(settings) as second:
        expect(page.locator("#connection-text")).to_have_text("Live", timeout=PATIENCE_MS)
        second.wait_ready()
        expect(page.locator("#banner")).to_be_hidden()
        # This market lives in the gateway: what was before it cannot be had from the new one.
        expect(page.locator("#tape-note")).to_have_text("Some trades were missed", timeout=PATIENCE_MS)
        expect(page.locator("#book-note")).to_have_text("", timeout=PATIENCE_MS)
        expect_book_to_move(page)
        choose(page, "input[value=market]")
        page.fill("#quantity", "0.5")
        page.click("#place")
        expect(page.locator("#orders-body .status-text")).to_have_text("Filled", timeout=PATIENCE_MS)
    assert complaints.without_lost_server() == []


@pytest.mark.usefixtures("alone")
def test_console_misses_nothing_when_its_connection_is_cut(
    context: BrowserContext, page: Page, gateway: GatewayProcess, complaints: Complaints
) -> None:
    connections: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        connections.append(socket)

    context.route_web_socket(re.compile(r"/ws"), pass_on)
    open_console(page, gateway)
    expect(page.locator("#tape li").first).to_be_visible(timeout=PATIENCE_MS)
    page.fill("#price", "1.00")
    page.fill("#quantity", "1")
    # An order waits for its fills to be followed, but only a second. The second one need not: the first stays open.
    for count in (1, 2):
        page.click("#place")
        expect(page.locator("#orders-body tr")).to_have_count(count)
    expect(page.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    connections[0].close(code=1001, reason="reconnect")
    expect(page.locator("#tape-note")).to_have_text("Back: no trade was missed", timeout=PATIENCE_MS)
    expect(page.locator("#book-note")).to_have_text("")
    expect(page.locator("#orders-body .note").first).to_have_text("")
    expect_book_to_move(page)
    assert len(connections) == 2
    assert complaints.texts == []


@pytest.mark.parametrize(
    ("width", "scheme"), outermost([(360, "light"), (700, "dark"), (1119, "light"), (1440, "dark")])
)
def test_console_fits_its_window(
    chromium: Browser, gateway: GatewayProcess, complaints: Complaints, tmp_path: Path, width: int, scheme: Any
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        complaints.hear(page)
        open_console(page, gateway)
        choose(page, "input[value=market]")
        page.fill("#quantity", "0.5")
        page.click("#place")
        expect(page.locator("#orders-body .status-text")).to_have_text("Filled", timeout=PATIENCE_MS)
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
        shown, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert shown <= room == width
        assert cut_off(page) == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) > 3 * 128) == (scheme == "light")
        assert complaints.texts == []
    finally:
        context.close()


def choose(page: Page, selector: str) -> None:
    """Click by no place on the page, which moves while it fills."""
    page.locator(selector).dispatch_event("click")
    expect(page.locator(selector)).to_be_checked()


def cut_off(page: Page) -> list[str]:
    """Texts that are wider than the room they have."""
    script = """() => [...document.querySelectorAll("main *, .top *")]
      .filter((node) => node.childElementCount === 0 && node.textContent.trim() && node.clientWidth > 1)
      .filter((node) => node.scrollWidth > node.clientWidth + 1 && !node.matches("option, select, .visually-hidden"))
      .map((node) => `${node.className || node.id || node.tagName}: ${node.textContent}`)"""
    told: list[str] = page.evaluate(script)
    return told


@pytest.mark.usefixtures("alone")
def test_console_draws_nothing_while_hidden_and_all_of_it_afterwards(
    context: BrowserContext, page: Page, gateway: GatewayProcess
) -> None:
    # Headless Chromium never hides a tab: the page is told that it is, and gets no frames, as a hidden tab does.
    page.add_init_script(
        """let hidden = false;
        const frames = [];
        const real = window.requestAnimationFrame.bind(window);
        window.requestAnimationFrame = (callback) => hidden ? frames.push(callback) : real(callback);
        Object.defineProperty(document, "hidden", { get: () => hidden });
        window.hideTab = (value) => {
          hidden = value;
          document.dispatchEvent(new Event("visibilitychange"));
          if (!value) for (const callback of frames.splice(0)) real(callback);
          // Frames that were asked for before are still drawn.
          return new Promise((resolve) => real(() => real(resolve)));
        };"""
    )
    open_console(page, gateway)
    expect_book_to_move(page)
    page.evaluate("hideTab(true)")
    before = book_text(page)
    # The stream goes on: a second page sees it move.
    other = context.new_page()
    open_console(other, gateway)
    expect_book_to_move(other)
    expect(other.locator("#tape li").first).to_be_visible(timeout=PATIENCE_MS)
    assert book_text(page) == before
    page.evaluate("hideTab(false)")
    expect_book_to_differ(page, before)
