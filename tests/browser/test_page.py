"""The page against a gateway that says exactly what a test wants: answers no real one gives on demand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, WebSocketRoute, expect

from tests.browser.conftest import ORIGIN, Complaints, serve_console

INSTRUMENTS = [
    {"symbol": "KCN/EUR", "tick": "0.01", "lot": "0.001", "min_quantity": "0.010"},
    {"symbol": "BTC/EUR", "tick": "0.5", "lot": "0.0001", "min_quantity": "0.0001"},
]
BOOK = {
    "type": "orderbook_snapshot",
    "symbol": "KCN/EUR",
    "sequence": 1,
    "bids": [{"price": "24.90", "quantity": "1.5"}, {"price": "24.8", "quantity": "2"}],
    "asks": [{"price": "25.10", "quantity": "0.25"}, {"price": "25.2", "quantity": "4"}],
}
ORDER_ID = "6f1c2d1e-0000-5000-8000-000000000001"


class FakeGateway:
    """Answers subscribes, pushes what it is told to, and gives the next order the answer it was told."""

    def __init__(self, context: BrowserContext, page: Page, instruments: list[dict[str, str]]) -> None:
        self.page = page
        self.channels: list[str] = []
        self.orders: list[dict[str, Any]] = []
        self.cancels: list[dict[str, Any]] = []
        self.answer: tuple[int, dict[str, str], dict[str, Any]] | None = None
        self._sockets: list[WebSocketRoute] = []
        self._seq = 0
        headers = {"content-type": "application/json"}
        serve_console(context, {"/api/instruments": (200, headers, json.dumps({"instruments": instruments}))})
        context.route(f"{ORIGIN}/api/order", lambda route: self._post(route, self.orders))
        context.route(f"{ORIGIN}/api/order/cancel", lambda route: self._post(route, self.cancels))
        context.route_web_socket(re.compile(r"/ws"), self._connect)

    def open(self, address: str = "/") -> None:
        self.page.goto(ORIGIN + address)
        expect(self.page.locator("#connection-text")).to_have_text("Live")
        self.push(BOOK, snapshot=True)

    def _post(self, route: Any, kept: list[dict[str, Any]]) -> None:
        kept.append(route.request.post_data_json)
        if self.answer is None:
            route.abort("connectionreset")
            return
        status, headers, body = self.answer
        kind = "application/json" if status < 400 else "application/problem+json"
        route.fulfill(status=status, headers={"content-type": kind, **headers}, body=json.dumps(body))

    def _connect(self, socket: WebSocketRoute) -> None:
        self._sockets.append(socket)

        def on_message(text: str | bytes) -> None:
            request = json.loads(text)
            if request["method"] == "public/subscribe":
                self.channels.extend(request["params"]["channels"])
            result = request["params"].get("channels", "pong")
            socket.send(json.dumps({"id": request["id"], "result": result}))

        socket.on_message(on_message)

    def push(self, event: dict[str, Any], **more: Any) -> None:
        self._seq += 1
        notification = {"event": event, **more}
        message = {"channel_name": "events", "seq": self._seq, "partition": 0, "notification": notification}
        self.send(message)

    def send(self, message: dict[str, Any]) -> None:
        self._sockets[-1].send(json.dumps(message))

    def fill(self, price: str, quantity: str, **more: Any) -> None:
        ids = {"buy_order_id": "b", "sell_order_id": "s"}
        self.push(
            {
                "type": "fill",
                "symbol": "KCN/EUR",
                "price": price,
                "quantity": quantity,
                "timestamp": 1_700_000_000_000 + self._seq,
                **ids,
                **more,
            }
        )

    def change(self, action: str, side: str, price: str, quantity: str) -> None:
        deltas = [{"action": action, "side": side, "price": price, "quantity": quantity}]
        self.push({"type": "orderbook_delta", "symbol": "KCN/EUR", "sequence": 2, "deltas": deltas})

    def drop(self, code: int, reason: str = "") -> None:
        self._sockets[-1].close(code=code, reason=reason)


@pytest.fixture
def start(context: BrowserContext, page: Page) -> Callable[..., FakeGateway]:
    def begin(instruments: list[dict[str, str]] | None = None, address: str = "/") -> FakeGateway:
        gateway = FakeGateway(context, page, INSTRUMENTS if instruments is None else instruments)
        gateway.open(address)
        return gateway

    return begin


@pytest.fixture
def gateway(page: Page, start: Callable[..., FakeGateway]) -> FakeGateway:
    gateway = start()
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    return gateway


def rows(page: Page, side: str) -> list[list[str]]:
    """The levels of a side as shown, top to bottom."""
    script = """(side) => [...document.querySelectorAll(`.${side} .level[data-empty=false]`)].map((row) =>
      [...row.querySelectorAll(".price, .quantity, .total")].map((cell) => cell.textContent))"""
    told: list[list[str]] = page.evaluate(script, side)
    return told


def place(page: Page, price: str, quantity: str) -> None:
    page.fill("#price", price)
    page.fill("#quantity", quantity)
    page.click("#place")


ACCEPTED: tuple[int, dict[str, str], dict[str, Any]] = (
    202,
    {},
    {"order_id": ORDER_ID, "client_order_id": "c", "status": "accepted"},
)


def problem(status: int, **more: Any) -> dict[str, Any]:
    return {"title": "A title", "status": status, "detail": "a detail", "error": "an error", "request_id": "r1", **more}


def test_page_shows_the_book_with_asks_above_and_totals_from_the_spread(page: Page, gateway: FakeGateway) -> None:
    expect(page.locator(".spread-width")).to_have_text("Spread 0.20 (0.80 %)")
    assert rows(page, "asks") == [["25.20", "4.000", "4.250"], ["25.10", "0.250", "0.250"]]
    assert rows(page, "bids") == [["24.90", "1.500", "1.500"], ["24.80", "2.000", "3.500"]]


def test_page_folds_deltas_into_the_book(page: Page, gateway: FakeGateway) -> None:
    gateway.change("update", "bid", "24.9", "9.125")
    gateway.change("add", "ask", "25.05", "1")
    gateway.change("update", "ask", "25.20", "0")
    gateway.change("remove", "bid", "24.80", "0")
    expect(page.locator(".spread-width")).to_contain_text("Spread 0.15")
    expect(page.locator(".bids .level[data-empty=false]")).to_have_count(1)
    assert rows(page, "asks") == [["25.10", "0.250", "1.250"], ["25.05", "1.000", "1.000"]]
    assert rows(page, "bids") == [["24.90", "9.125", "9.125"]]


def test_page_does_not_lose_digits(page: Page, gateway: FakeGateway) -> None:
    gateway.change("add", "bid", "24.9000000000000000000000001", "1234567890.123456789012345678")
    expect(page.locator(".bids .level .price").first).to_have_text("24.9000000000000000000000001")
    expect(page.locator(".bids .level .quantity").first).to_have_text("1234567890.123456789012345678")


def test_page_says_that_a_crossed_book_is_out_of_step(page: Page, gateway: FakeGateway) -> None:
    gateway.change("add", "bid", "26", "1")
    expect(page.locator("#book-note")).to_have_text("Out of step, waiting for a snapshot")
    gateway.push(BOOK, snapshot=True)
    expect(page.locator("#book-note")).to_have_text("")


def test_page_says_which_symbol_the_gateway_cannot_read(page: Page, gateway: FakeGateway) -> None:
    gateway.send({"type": "stream_status", "status": "stale", "symbols": ["KCN/EUR"]})
    expect(page.locator("#book-note")).to_have_text("Not read by the gateway now")
    gateway.send({"type": "stream_status", "status": "live", "symbols": ["KCN/EUR"]})
    expect(page.locator("#book-note")).to_have_text("")


def test_tape_tells_the_aggressor_by_colour_shape_and_word(page: Page, gateway: FakeGateway) -> None:
    gateway.fill("24.90", "1", taker_side="ask")
    gateway.fill("25.20", "2", taker_side="bid")
    gateway.fill("25.10", "3")  # below the last, but at the best ask: bought, by the quote rule
    expect(page.locator("#tape li")).to_have_count(3)
    assert page.locator("#tape li").evaluate_all("(rows) => rows.map((row) => row.dataset.side)") == [
        "buy",
        "buy",
        "sell",
    ]
    newest = page.locator("#tape li").first
    assert newest.locator("b").text_content() == "buy"
    assert newest.locator(".price").evaluate("(cell) => getComputedStyle(cell, '::before').content") == '"▲"'
    expect(page.locator("#last-price")).to_have_text("25.10")
    expect(page.locator("#last-direction")).to_have_text("falling")


@pytest.mark.parametrize(
    ("order_type", "side", "expected"),
    [
        ("limit", "bid", {"side": "bid", "order_type": "limit", "price": "24.95", "time_in_force": "GTC"}),
        ("limit", "ask", {"side": "ask", "order_type": "limit", "price": "24.95", "time_in_force": "GTC"}),
        ("market", "bid", {"side": "bid", "order_type": "market", "time_in_force": "IOC"}),
    ],
)
def test_ticket_posts_what_was_typed(
    page: Page, gateway: FakeGateway, order_type: str, side: str, expected: dict[str, str]
) -> None:
    gateway.answer = ACCEPTED
    page.check(f"input[name=side][value={side}]", force=True)
    page.fill("#price", "24.95")
    page.check(f"input[name=order_type][value={order_type}]", force=True)
    page.fill("#quantity", " 0.50 ")
    page.click("#place")
    expect(page.locator("#answer strong")).to_contain_text("Accepted")
    [body] = gateway.orders
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body.pop("client_order_id"))
    assert body == {"symbol": "KCN/EUR", "quantity": "0.50", **expected}


def test_ticket_shows_each_refused_field_beside_it(page: Page, gateway: FakeGateway) -> None:
    errors = [
        {"field": "price", "message": "price: off the <b>tick</b> 0.01"},
        {"field": "quantity", "message": "quantity: a number is expected"},
        {"field": "symbol", "message": "not listed"},
    ]
    gateway.answer = (422, {}, problem(422, errors=errors))
    place(page, "1.005", "many")
    expect(page.locator("#price-error")).to_have_text("price: off the <b>tick</b> 0.01")
    expect(page.locator("#quantity-error")).to_have_text("quantity: a number is expected")
    expect(page.locator("#answer")).to_contain_text("symbol: not listed")
    expect(page.locator("#price")).to_be_focused()
    assert page.get_attribute("#quantity", "aria-invalid") == "true"
    expect(page.locator("#orders")).to_be_hidden()
    page.fill("#quantity", "1")
    expect(page.locator("#quantity-error")).to_have_text("")
    assert page.get_attribute("#quantity", "aria-invalid") is None


@pytest.mark.parametrize(
    ("answer", "headline", "detail"),
    [
        ((400, {}, problem(400)), "The gateway could not read the request", "a detail"),
        ((401, {}, problem(401)), "Not signed in", "valid token"),
        ((409, {}, problem(409)), "conflicts", "a detail"),
        ((429, {"retry-after": "7"}, problem(429)), "Too many orders", "in 7 s"),
        ((503, {}, problem(503)), "Not sent", "certainly not in the market"),
    ],
)
def test_ticket_explains_a_refusal_and_lists_no_order(
    page: Page, gateway: FakeGateway, answer: tuple[int, dict[str, str], dict[str, Any]], headline: str, detail: str
) -> None:
    gateway.answer = answer
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_contain_text(headline)
    expect(page.locator("#answer")).to_contain_text(detail)
    expect(page.locator("#orders")).to_be_hidden()


def test_ticket_follows_an_order_of_unknown_outcome(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = (504, {}, problem(504, order_id=ORDER_ID))
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("Outcome unknown")
    expect(page.locator("#orders-body .status-text")).to_have_text("Outcome unknown")
    gateway.fill("24.95", "1", buy_order_id=ORDER_ID)
    expect(page.locator("#orders-body .status-text")).to_have_text("Filled")


def test_ticket_does_not_claim_to_know_after_a_broken_connection(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = None
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("No answer")
    expect(page.locator("#answer")).to_contain_text("not known")
    expect(page.locator("#orders-body .status-text")).to_have_text("Outcome unknown")
    # Without an order id there is nothing to cancel by.
    expect(page.locator("#orders-body .cancel")).to_be_hidden()


def test_order_is_followed_through_its_fills(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    place(page, "24.95", "1.00")
    row = page.locator("#orders-body tr")
    expect(page.locator("#answer strong")).to_have_text("Accepted: waiting in the market")
    gateway.change("add", "bid", "24.95", "1")
    expect(page.locator(".bids .level[data-own=true] .price")).to_have_text("24.95")
    gateway.fill("24.95", "0.25", buy_order_id=ORDER_ID)
    expect(page.locator("#answer strong")).to_have_text("Partly filled: 0.25 of 1.00 KCN at 24.95")
    expect(row.locator(".status-text")).to_have_text("Partly filled")
    expect(row.locator(".filled")).to_have_text("0.25")
    gateway.fill("24.93", "0.75", buy_order_id=ORDER_ID)
    expect(page.locator("#answer strong")).to_have_text("Filled: 1.00 KCN at 24.9350 on average")
    expect(row.locator(".average")).to_have_text("24.9350")
    expect(row.locator(".cancel")).to_be_hidden()
    expect(page.locator("#tape li[data-own=true]")).to_have_count(2)


def test_fill_that_came_before_the_answer_is_counted_once(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    gateway.fill("24.90", "0.4", sell_order_id=ORDER_ID)
    gateway.fill("24.90", "0.5")
    place(page, "24.90", "1")
    expect(page.locator("#orders-body .filled")).to_have_text("0.4")
    expect(page.locator("#tape li[data-own=true]")).to_have_count(1)


def test_order_can_be_cancelled(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    gateway.change("add", "bid", "24.95", "1")
    expect(page.locator(".level[data-own=true]")).to_have_count(1)
    gateway.answer = (202, {}, {"order_id": ORDER_ID, "status": "cancel_requested"})
    page.click("#orders-body .cancel")
    expect(page.locator("#orders-body .note")).to_have_text("Cancel requested")
    assert gateway.cancels == [{"order_id": ORDER_ID, "symbol": "KCN/EUR"}]
    expect(page.locator("#orders-body .cancel")).to_be_disabled()
    expect(page.locator(".level[data-own=true]")).to_have_count(0)


def test_refused_cancel_says_so_and_can_be_tried_again(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    gateway.answer = (503, {}, problem(503))
    page.click("#orders-body .cancel")
    expect(page.locator("#orders-body .note")).to_contain_text("Cancel: Not sent")
    expect(page.locator("#orders-body .cancel")).to_be_enabled()


def test_order_that_does_not_rest_is_not_said_to_wait(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    page.select_option("#time_in_force", "IOC")
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("Accepted; no fill seen so far")
    expect(page.locator("#orders-body .note")).to_contain_text("does not wait in the book")


@pytest.mark.parametrize(
    ("price", "quantity", "price_hint", "quantity_hint"),
    [
        ("", "", "Tick 0.01", "Lot 0.001, minimum 0.010"),
        ("24.955", "0.0005", "Not a multiple of the tick 0.01", "Less than the minimum 0.010"),
        ("24,95", "x", "Not a number: digits with a point, like 10.25", "Not a number: digits with a point, like 0.5"),
        ("25.10", "1.0005", "Trades at once: best ask is 25.10", "Not a multiple of the lot 0.001"),
        ("0", "-1", "Must be more than zero", "Must be more than zero"),
    ],
)
def test_ticket_hints_before_anything_is_sent(
    page: Page, gateway: FakeGateway, price: str, quantity: str, price_hint: str, quantity_hint: str
) -> None:
    page.fill("#price", price)
    page.fill("#quantity", quantity)
    expect(page.locator("#price-hint")).to_have_text(price_hint)
    expect(page.locator("#quantity-hint")).to_have_text(quantity_hint)


def test_ticket_reckons_exactly(page: Page, gateway: FakeGateway) -> None:
    page.fill("#price", "0.1")
    page.fill("#quantity", "3")
    expect(page.locator("#estimate")).to_have_text("0.3 EUR")
    page.focus("#price")
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    expect(page.locator("#price")).to_have_value("0.13")
    page.check("input[value=market]", force=True)
    expect(page.locator("#estimate")).to_have_text("75.5750 EUR (≈ 25.1917)")


def test_ladder_is_walked_and_picked_from_with_keys(page: Page, gateway: FakeGateway) -> None:
    page.locator(".bids .level").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#price")).to_have_value("24.90")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press(" ")
    expect(page.locator("#price")).to_have_value("25.20")


def test_ladder_fills_the_price_on_a_click(page: Page, gateway: FakeGateway) -> None:
    page.check("input[value=market]", force=True)
    page.locator(".asks .level[data-empty=false]").last.click()
    expect(page.locator("#price")).to_have_value("25.10")
    expect(page.locator("input[value=limit]")).to_be_checked()


def test_another_symbol_empties_the_ticket(page: Page, gateway: FakeGateway) -> None:
    page.fill("#price", "24.95")
    page.fill("#quantity", "1")
    page.check("input[name=symbol][value='BTC/EUR']", force=True)
    expect(page.locator("#ticket-symbol")).to_have_text("BTC/EUR")
    expect(page.locator("#price")).to_have_value("")
    expect(page.locator("#quantity")).to_have_value("")
    assert page.url.endswith("#symbol=BTC/EUR")


def test_page_opens_on_the_symbol_of_its_address(page: Page, start: Callable[..., FakeGateway]) -> None:
    start(address="/#symbol=BTC/EUR")
    expect(page.locator("#chart-title")).to_have_text("BTC/EUR")
    expect(page.locator("input[name=symbol][value='BTC/EUR']")).to_be_checked()


def test_page_ignores_an_address_with_an_unlisted_symbol(page: Page, start: Callable[..., FakeGateway]) -> None:
    start(address="/#symbol=NO/NO")
    expect(page.locator("#chart-title")).to_have_text("KCN/EUR")


def test_page_learns_symbols_from_the_stream_where_none_are_configured(
    page: Page, start: Callable[..., FakeGateway]
) -> None:
    gateway = start(instruments=[])
    expect(page.locator("#chart-title")).to_have_text("KCN/EUR")
    gateway.push({**BOOK, "symbol": "NEW/EUR"}, snapshot=True)
    expect(page.locator("input[name=symbol][value='NEW/EUR']")).to_have_count(1)


def test_page_follows_only_what_it_needs_among_many_symbols(page: Page, start: Callable[..., FakeGateway]) -> None:
    many = [{**INSTRUMENTS[0], "symbol": f"S{number}/EUR"} for number in range(17)]
    gateway = start(instruments=many)
    expect(page.locator("#chart-title")).to_have_text("S0/EUR")
    page.select_option("#symbols select", "S9/EUR")
    expect(page.locator("#chart-title")).to_have_text("S9/EUR")
    page.wait_for_timeout(0)
    assert gateway.channels == ["events.S0/EUR", "events.S9/EUR"]


def test_page_says_that_it_is_not_live_and_comes_back(page: Page, gateway: FakeGateway) -> None:
    gateway.drop(1001, "reconnect")
    expect(page.locator("#banner")).to_contain_text("Not live: the server is restarting.")
    expect(page.locator("#banner")).to_contain_text("has not changed since")
    expect(page.locator("#connection-text")).to_have_text("Live")
    expect(page.locator("#banner")).to_be_hidden()


def test_open_order_is_marked_when_the_stream_was_away(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    expect(page.locator("#orders-body tr")).to_have_count(1)
    gateway.drop(1001, "reconnect")
    expect(page.locator("#orders-body .note")).to_have_text("The stream was away: fills may be missing here")


def test_market_keeps_a_bounded_past(modules: Page) -> None:
    counts = modules.evaluate(
        """async () => {
          const { Market } = await import("/console/market-feed.js");
          const market = new Market("A/B");
          let most = 0;
          for (let index = 0; index < 20000; index += 1) {
            market.addFill({ price: "1", quantity: "1", timestamp: index, buy_order_id: "b", sell_order_id: "s" });
            most = Math.max(most, market.trades.length);
          }
          return [most, market.tradeCount, market.trades.at(-1).time];
        }"""
    )
    assert counts == [4499, 20000, 19999]


def test_price_axis_steps_are_round(modules: Page) -> None:
    script = """async () => {
      const { niceStep } = await import("/console/price-line.js");
      return [[1n, 5], [7n, 5], [42n, 5], [100n, 5], [99n, 1], [123456n, 6]].map((args) => String(niceStep(...args)));
    }"""
    assert modules.evaluate(script) == ["1", "2", "10", "20", "50", "20000"]


def test_page_complains_of_nothing(page: Page, gateway: FakeGateway, complaints: Complaints) -> None:
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    gateway.fill("24.95", "1", buy_order_id=ORDER_ID)
    expect(page.locator("#orders-body .status-text")).to_have_text("Filled")
    assert complaints.texts == []


def test_order_ids_are_uuids_without_a_secure_context_too(modules: Page) -> None:
    ids = modules.evaluate(
        """async () => {
          const { newOrderId } = await import("/console/order-api.js");
          const secure = newOrderId();
          crypto.randomUUID = undefined;
          return [secure, newOrderId(), newOrderId()];
        }"""
    )
    assert len(set(ids)) == 3
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", each) for each in ids
    )
