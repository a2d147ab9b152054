"""The page against a gateway that says exactly what a test wants: answers no real one gives on demand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints
from tests.browser.fake_gateway import (
    ACCEPTED,
    ASKS,
    BIDS,
    INSTRUMENTS,
    KCN_BOOK,
    KCN_CANDLES,
    KCN_EVENTS,
    KCN_TRADES,
    ORDER_ID,
    START,
    TICKER,
    TICKERS,
    FakeGateway,
    place,
    problem,
)


def rows(page: Page, side: str) -> list[list[str]]:
    """The levels of a side as shown, top to bottom."""
    script = """(side) => [...document.querySelectorAll(`.${side} .level[data-empty=false]`)].map((row) =>
      [...row.querySelectorAll(".price, .quantity, .total")].map((cell) => cell.textContent))"""
    told: list[list[str]] = page.evaluate(script, side)
    return told


def place_another(page: Page, gateway: FakeGateway) -> None:
    """An order that stays open: for the next one the fills are followed already.

    An order waits for that, but only a second, and is marked if that was too short.
    """
    gateway.answer = (202, {}, {"order_id": "another", "status": "accepted"})
    place(page, "24.95", "1")
    expect(page.locator("#orders-body tr")).to_have_count(1)
    gateway.answer = ACCEPTED


def test_page_shows_the_book_with_asks_above_and_totals_from_the_spread(page: Page, gateway: FakeGateway) -> None:
    expect(page.locator(".spread-width")).to_have_text("Spread 0.20 (0.80 %)")
    assert rows(page, "asks") == [["25.20", "4.000", "4.250"], ["25.10", "0.250", "0.250"]]
    assert rows(page, "bids") == [["24.90", "1.500", "1.500"], ["24.80", "2.000", "3.500"]]


def test_page_folds_changes_into_the_book(page: Page, gateway: FakeGateway) -> None:
    gateway.book(bids=[("24.9", "1.50", "9.125")], asks=[("25.05", "0", "1")])
    gateway.book(asks=[("25.20", "4", "0")])
    gateway.book(bids=[("24.80", "2.0", "0")])
    expect(page.locator(".spread-width")).to_contain_text("Spread 0.15")
    expect(page.locator(".bids .level[data-empty=false]")).to_have_count(1)
    assert rows(page, "asks") == [["25.10", "0.250", "1.250"], ["25.05", "1.000", "1.000"]]
    assert rows(page, "bids") == [["24.90", "9.125", "9.125"]]


def test_page_does_not_lose_digits(page: Page, gateway: FakeGateway) -> None:
    gateway.book(bids=[("24.9000000000000000000000001", "0", "1234567890.123456789012345678")])
    expect(page.locator(".bids .level .price").first).to_have_text("24.9000000000000000000000001")
    expect(page.locator(".bids .level .quantity").first).to_have_text("1234567890.123456789012345678")


def test_page_asks_for_a_fresh_book_where_a_change_does_not_fit(
    page: Page, gateway: FakeGateway, complaints: Complaints
) -> None:
    gateway.channels.clear()
    gateway.book(bids=[("24.90", "7", "8")])
    expect(page.locator("#book-note")).to_have_text("A change did not fit, asking for a fresh book")
    expect(page.locator(".book-panel")).to_have_attribute("data-stale", "true")
    gateway.book(bids=[("24.90", "8", "9")])
    gateway.book(bids=BIDS, asks=ASKS, snapshot=True)
    expect(page.locator("#book-note")).to_have_text("")
    expect(page.locator(".book-panel")).to_have_attribute("data-stale", "false")
    assert rows(page, "bids") == [["24.90", "1.500", "1.500"], ["24.80", "2.000", "3.500"]]
    assert gateway.channels == [KCN_BOOK]
    assert ["does not fit" in text for text in complaints.texts] == [True]


def test_page_says_that_the_book_is_stale_until_a_snapshot_comes(page: Page, gateway: FakeGateway) -> None:
    gateway.tell(KCN_BOOK, {"stale": True})
    expect(page.locator("#book-note")).to_have_text("Stale, waiting for a snapshot")
    expect(page.get_by_role("status").filter(has_text="Stale")).to_have_count(1)
    expect(page.locator(".book-panel")).to_have_attribute("data-stale", "true")
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    gateway.book(bids=BIDS, snapshot=True)
    expect(page.locator("#book-note")).to_have_text("")
    expect(page.locator(".level[data-empty=false]")).to_have_count(2)


def test_page_says_that_it_skipped_ahead_until_the_next_snapshot(page: Page, gateway: FakeGateway) -> None:
    gateway.book(bids=BIDS, asks=ASKS, snapshot=True, conflated=True)
    expect(page.locator("#book-note")).to_have_text("Skipped ahead to keep up")
    # It is out of date no more: nothing is greyed out.
    expect(page.locator(".book-panel")).to_have_attribute("data-stale", "false")
    gateway.book(bids=BIDS, asks=ASKS, snapshot=True)
    expect(page.locator("#book-note")).to_have_text("")


@pytest.mark.parametrize(
    ("recovered", "words", "tape"),
    [(True, "Back: no trade was missed", ["25.10", "25.00"]), (False, "Some trades were missed", ["25.10"])],
)
def test_page_says_what_became_of_an_interruption(
    page: Page, gateway: FakeGateway, recovered: bool, words: str, tape: list[str]
) -> None:
    gateway.tell(KCN_TRADES, {"trades": [[25, 1, "buy", START, False]], "snapshot": True}, epoch="e")
    expect(page.locator("#tape li")).to_have_count(1)
    gateway.subscribes.clear()
    gateway.drop(1001, "reconnect")
    expect(page.locator("#connection-text")).to_have_text("Live")
    [request] = gateway.subscribes
    assert request["since"] == {KCN_TRADES: {"epoch": "e", "seq": 2}}
    missed = {"trades": [[25.1, 1, "buy", START + 1, False]], **({} if recovered else {"snapshot": True})}
    gateway.tell(KCN_TRADES, missed, epoch="e", recovered=recovered)
    expect(page.locator("#tape-note")).to_have_text(words)
    expect(page.get_by_role("status").filter(has_text=words)).to_have_count(1)
    expect(page.locator("#tape .price")).to_have_text(tape)
    gateway.tell(KCN_TRADES, {"trades": [], "snapshot": True}, epoch="e")
    expect(page.locator("#tape-note")).to_have_text("")


@pytest.mark.usefixtures("alone")
def test_page_tells_a_silent_book_from_a_quiet_one(page: Page, start: Callable[..., FakeGateway]) -> None:
    page.clock.install(time=0)
    # From here on no time passes but by run_for, however long the machine takes.
    page.clock.pause_at(3_600)
    gateway = start()
    note = page.locator("#book-note")
    page.clock.run_for(1_000)
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    for _ in range(3):
        page.clock.run_for(5_000)
        gateway.book()
        expect(note).to_have_text("")
    page.clock.run_for(10_000)
    # The answer to this keeps the connection.
    gateway.wait_until(lambda: "public/ping" in gateway.methods)
    expect(note).to_have_text("")
    page.clock.run_for(4_000)
    expect(note).to_have_text("Silent, perhaps out of date")
    gateway.book()
    page.clock.run_for(1_000)
    expect(note).to_have_text("")


def test_page_does_not_trust_the_book_of_a_lost_connection(page: Page, gateway: FakeGateway) -> None:
    gateway.drop(1001, "reconnect")
    expect(page.locator("#connection-text")).to_have_text("Live")
    expect(page.locator("#book-note")).to_have_text("Stale, waiting for a snapshot")
    gateway.book(bids=BIDS, asks=ASKS, snapshot=True)
    expect(page.locator("#book-note")).to_have_text("")


def test_page_says_which_symbol_the_gateway_cannot_read(page: Page, gateway: FakeGateway) -> None:
    gateway.send({"type": "stream_status", "status": "stale", "symbols": ["KCN/EUR"]})
    expect(page.locator("#book-note")).to_have_text("Not read by the gateway now")
    gateway.send({"type": "stream_status", "status": "live", "symbols": ["KCN/EUR"]})
    expect(page.locator("#book-note")).to_have_text("")


def test_tape_tells_the_aggressor_by_colour_shape_and_word(page: Page, gateway: FakeGateway) -> None:
    gateway.trade("24.90", "1", "sell")
    gateway.trade("25.20", "2", "buy")
    gateway.trade("25.10", "3", "buy")
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


def test_ticket_posts_what_was_typed(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    for order_type, side, expected in (
        ("limit", "bid", {"side": "bid", "order_type": "limit", "price": "24.95", "time_in_force": "GTC"}),
        ("limit", "ask", {"side": "ask", "order_type": "limit", "price": "24.95", "time_in_force": "GTC"}),
        ("market", "bid", {"side": "bid", "order_type": "market", "time_in_force": "IOC"}),
    ):
        page.check(f"input[name=side][value={side}]", force=True)
        page.check("input[name=order_type][value=limit]", force=True)
        page.fill("#price", "24.95")
        page.check(f"input[name=order_type][value={order_type}]", force=True)
        page.fill("#quantity", " 0.50 ")
        page.click("#place")
        gateway.wait_until(lambda: bool(gateway.orders))
        body = gateway.orders.pop()
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body.pop("client_order_id"))
        assert body == {"symbol": "KCN/EUR", "quantity": "0.50", **expected}
        expect(page.locator("#answer strong")).to_contain_text("Accepted")


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


def test_ticket_explains_a_refusal_and_lists_no_order(page: Page, gateway: FakeGateway) -> None:
    for status, headers, headline, detail in (
        (400, {}, "The gateway could not read the request", "a detail"),
        (401, {}, "Not signed in", "valid token"),
        (409, {}, "conflicts", "a detail"),
        (429, {"retry-after": "7"}, "Too many orders", "in 7 s"),
        (503, {}, "Not sent", "certainly not in the market"),
    ):
        gateway.answer = (status, headers, problem(status))
        place(page, "24.95", "1")
        expect(page.locator("#answer strong")).to_contain_text(headline)
        expect(page.locator("#answer")).to_contain_text(detail)
        expect(page.locator("#orders")).to_be_hidden()


def test_ticket_follows_an_order_of_unknown_outcome(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = (504, {}, problem(504, order_id=ORDER_ID))
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("Outcome unknown")
    expect(page.locator("#orders-body .status-text")).to_have_text("Outcome unknown")
    gateway.fill("24.95", "1", buy_order_id=ORDER_ID.upper())  # as an engine may write it
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
    gateway.book(bids=[("24.95", "0", "1")])
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

    def fill_first() -> None:
        gateway.fill("24.90", "0.4", sell_order_id=ORDER_ID)
        gateway.fill("24.90", "0.5")

    gateway.before_answer = fill_first
    place(page, "24.90", "1")
    expect(page.locator("#orders-body .filled")).to_have_text("0.4")
    expect(page.locator("#tape li")).to_have_count(2)
    expect(page.locator("#tape li[data-own=true]")).to_have_count(1)


def test_page_follows_fills_only_where_an_order_may_be_filled(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    assert KCN_EVENTS not in gateway.channels
    seen: list[bool] = []
    gateway.before_answer = lambda: seen.append(KCN_EVENTS in gateway.channels)
    place(page, "24.90", "1")
    expect(page.locator("#orders-body tr")).to_have_count(1)
    assert seen == [True]
    assert gateway.dropped == []
    gateway.fill("24.90", "1", buy_order_id=ORDER_ID)
    expect(page.locator("#orders-body .status-text")).to_have_text("Filled")
    # An answer of the gateway to something later shows that it was told.
    gateway.answer = (503, {}, problem(503))
    place(page, "24.90", "1")
    expect(page.locator("#answer strong")).to_contain_text("Not sent")
    assert KCN_EVENTS in gateway.dropped


def test_order_can_be_cancelled(page: Page, gateway: FakeGateway) -> None:
    gateway.answer = ACCEPTED
    place(page, "24.95", "1")
    gateway.book(bids=[("24.95", "0", "1")])
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
    expect(page.locator("#orders-body .cancel")).to_be_enabled()
    gateway.answer = (503, {}, problem(503))
    page.click("#orders-body .cancel")
    expect(page.locator("#orders-body .note")).to_contain_text("Cancel: Not sent")
    expect(page.locator("#orders-body .cancel")).to_be_enabled()


def test_order_that_does_not_rest_is_not_said_to_wait(page: Page, gateway: FakeGateway) -> None:
    place_another(page, gateway)
    page.select_option("#time_in_force", "IOC")
    place(page, "24.95", "1")
    expect(page.locator("#answer strong")).to_have_text("Accepted; no fill seen so far")
    expect(page.locator("#orders-body .note").first).to_contain_text("does not wait in the book")


def test_ticket_hints_before_anything_is_sent(page: Page, gateway: FakeGateway) -> None:
    not_a_number = "Not a number: digits with a point, like"
    for price, quantity, price_hint, quantity_hint in (
        ("", "", "Tick 0.01", "Lot 0.001, minimum 0.010"),
        ("24.955", "0.0005", "Not a multiple of the tick 0.01", "Less than the minimum 0.010"),
        ("24,95", "x", f"{not_a_number} 10.25", f"{not_a_number} 0.5"),
        ("25.10", "1.0005", "Trades at once: best ask is 25.10", "Not a multiple of the lot 0.001"),
        ("0", "-1", "Must be more than zero", "Must be more than zero"),
    ):
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


@pytest.mark.usefixtures("alone")
def test_page_learns_symbols_from_the_gateway_where_none_are_configured(
    page: Page, start: Callable[..., FakeGateway]
) -> None:
    page.clock.install()
    unknown: dict[str, Any] = {"tick": None, "lot": None, "min_quantity": None}
    gateway = start(instruments=[{"symbol": "KCN/EUR", **unknown}])
    expect(page.locator("#chart-title")).to_have_text("KCN/EUR")
    gateway.list_instruments([{"symbol": symbol, **unknown} for symbol in ("KCN/EUR", "NEW/EUR")])
    page.clock.run_for(3_000)
    expect(page.locator("input[name=symbol][value='NEW/EUR']")).to_have_count(1)


def test_page_follows_one_book_and_all_tickers_on_one_channel(page: Page, gateway: FakeGateway) -> None:
    assert sorted(gateway.channels) == sorted([KCN_BOOK, KCN_TRADES, KCN_CANDLES, TICKERS, "status"])
    gateway.trade("25.00", "1")
    kcn, btc = {**TICKER, "last_price": "11"}, {**TICKER, "last_price": 50000.5}
    gateway.tell_tickers({"KCN/EUR": kcn, "BTC/EUR": btc}, snapshot=True)
    price = page.locator(".symbol-tab-price[data-symbol='BTC/EUR']")
    expect(price).to_have_text("50000.5")
    # Where the trades are followed, a ticker is old news.
    expect(page.locator(".symbol-tab-price[data-symbol='KCN/EUR']")).to_have_text("25.00")
    gateway.tell_tickers({"BTC/EUR": {**TICKER, "stale": True}})
    expect(price).to_have_attribute("data-stale", "true")
    gateway.tell_tickers({"BTC/EUR": {**TICKER, "last_price": 50001}})
    expect(price).to_have_attribute("data-stale", "false")
    expect(price).to_have_attribute("data-direction", "up")
    page.check("input[name=symbol][value='BTC/EUR']", force=True)
    expect(page.locator("#book-note")).to_have_text("Waiting for a snapshot")
    page.check("input[name=symbol][value='KCN/EUR']", force=True)
    # What was held is not shown as if it were now; the trades are, as they were followed meanwhile.
    expect(page.locator("#chart-title")).to_have_text("KCN/EUR")
    expect(page.locator("#book-note")).to_have_text("Waiting for a snapshot")
    expect(page.locator("#tape li")).to_have_count(1)
    gateway.book(bids=BIDS, asks=ASKS, snapshot=True)
    expect(page.locator(".level[data-empty=false]")).to_have_count(4)
    btc = ["book.BTC/EUR.none.50.100ms", "candles.BTC/EUR.1m"]
    assert sorted(gateway.dropped) == sorted([KCN_BOOK, KCN_CANDLES, *btc])


def test_page_follows_only_what_it_needs_among_many_symbols(page: Page, start: Callable[..., FakeGateway]) -> None:
    many = [{**INSTRUMENTS[0], "symbol": f"S{number}/EUR"} for number in range(17)]
    gateway = start(instruments=many)
    expect(page.locator("#chart-title")).to_have_text("S0/EUR")
    page.select_option("#symbols select", "S9/EUR")
    expect(page.locator("#chart-title")).to_have_text("S9/EUR")
    page.wait_for_timeout(0)
    followed = ["book.{}.none.50.100ms", "candles.{}.1m", "trades.{}"]
    wanted = [name.format(symbol) for symbol in ("S0/EUR", "S9/EUR") for name in followed]
    gateway.wait_until(lambda: sorted(gateway.channels) == sorted([*wanted, TICKERS, "status"]))
    gateway.wait_until(lambda: sorted(gateway.dropped) == wanted[:3])


def test_page_says_that_it_is_not_live_and_comes_back(page: Page, gateway: FakeGateway) -> None:
    gateway.drop(1001, "reconnect")
    expect(page.locator("#banner")).to_contain_text("Not live: the server is restarting.")
    expect(page.locator("#banner")).to_contain_text("has not changed since")
    expect(page.locator("#connection-text")).to_have_text("Live")
    expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.parametrize(
    ("recovered", "note"),
    [(True, ""), (False, "Fills may be missing here: what came meanwhile could not be had")],
)
def test_open_order_is_marked_only_when_fills_were_missed(
    page: Page, gateway: FakeGateway, recovered: bool, note: str
) -> None:
    place_another(page, gateway)
    place(page, "24.95", "1")
    expect(page.locator("#orders-body tr")).to_have_count(2)
    gateway.tell(KCN_EVENTS, {"event": {"type": "orderbook_snapshot", "symbol": "KCN/EUR"}}, epoch="e")
    gateway.drop(1001, "reconnect")
    expect(page.locator("#connection-text")).to_have_text("Live")
    gateway.tell(KCN_EVENTS, {}, epoch="e", recovered=recovered)
    gateway.fill("24.95", "0.5", buy_order_id=ORDER_ID)
    expect(page.locator("#orders-body .filled").first).to_have_text("0.5")
    expect(page.locator("#orders-body .note").first).to_have_text(note)


def test_market_keeps_a_bounded_past(modules: Page) -> None:
    counts = modules.evaluate(
        """async () => {
          const { Market } = await import("/console/market-feed.js");
          const market = new Market("A/B");
          let most = 0;
          for (let index = 0; index < 20000; index += 1) {
            market.applyTrades({ trades: [[1, 1, "buy", index / 1000, false]] });
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
          const { newOrderId } = await import("/console/client/gateway-protocol.js");
          const secure = newOrderId();
          crypto.randomUUID = undefined;
          return [secure, newOrderId(), newOrderId()];
        }"""
    )
    assert len(set(ids)) == 3
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", each) for each in ids
    )
