"""The console's book against a dictionary."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import Page

FOLD = """async (events) => {
  const { OrderBook } = await import("/console/order-book.js");
  const { format } = await import("/console/decimal.js");
  const book = new OrderBook();
  const shown = (side) => book.levels(side).map(({ price, quantity }) => [format(price), format(quantity)]);
  return events.map((event) => {
    const applied = event.type === "orderbook_snapshot" ? (book.applySnapshot(event), null) : book.applyDelta(event);
    const spread = book.spread();
    return { applied, known: book.known, stale: book.stale, bids: shown("bid"), asks: shown("ask"),
             spread: spread && format(spread) };
  });
}"""


def snapshot(bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> dict[str, Any]:
    sides = {"bids": bids, "asks": asks}
    levels = {
        name: [{"price": price, "quantity": quantity} for price, quantity in side] for name, side in sides.items()
    }
    return {"type": "orderbook_snapshot", **levels}


def delta(*changes: tuple[str, str, str, str]) -> dict[str, Any]:
    names = ("action", "side", "price", "quantity")
    return {"type": "orderbook_delta", "deltas": [dict(zip(names, change, strict=True)) for change in changes]}


def test_order_book_agrees_with_a_dictionary(modules: Page) -> None:
    chance = random.Random(20)
    sides: dict[str, dict[Decimal, str]] = {"bid": {}, "ask": {}}
    events = [snapshot([], [])]
    expected = []
    for _ in range(250):
        side = chance.choice(["bid", "ask"])
        ticks = chance.randrange(1, 60) if side == "bid" else chance.randrange(60, 120)
        # The same price in several spellings: 1.5, 1.50, 1.500.
        price = format((Decimal(ticks) / 20).quantize(Decimal(1).scaleb(-chance.randrange(2, 5))), "f")
        quantity = "0" if chance.random() < 0.3 else f"{chance.randrange(1, 50)}.{chance.randrange(10)}"
        action = "remove" if quantity == "0" and chance.random() < 0.5 else chance.choice(["add", "update"])
        events.append(delta((action, side, price, quantity)))
        if action == "remove" or Decimal(quantity) == 0:
            sides[side].pop(Decimal(price), None)
        else:
            sides[side][Decimal(price)] = quantity
        bids = [(price, Decimal(sides["bid"][price])) for price in sorted(sides["bid"], reverse=True)]
        asks = [(price, Decimal(sides["ask"][price])) for price in sorted(sides["ask"])]
        expected.append((bids, asks))
    states = modules.evaluate(FOLD, events)[1:]
    for state, (bids, asks) in zip(states, expected, strict=True):
        assert state["applied"] is True
        assert [(Decimal(price), Decimal(quantity)) for price, quantity in state["bids"]] == bids
        assert [(Decimal(price), Decimal(quantity)) for price, quantity in state["asks"]] == asks
        if bids and asks:
            assert Decimal(state["spread"]) == asks[0][0] - bids[0][0]


def test_order_book_ignores_deltas_before_its_first_snapshot(modules: Page) -> None:
    [state] = modules.evaluate(FOLD, [delta(("add", "bid", "1", "1"))])
    assert (state["applied"], state["known"], state["bids"]) == (False, False, [])


@pytest.mark.parametrize(
    "bad",
    [
        delta(("add", "bid", "11", "1")),
        delta(("add", "ask", "9", "1")),
        delta(("add", "bid", "nine", "1")),
        delta(("add", "middle", "9.5", "1")),
        {"type": "orderbook_delta"},
    ],
    ids=["bid crosses", "ask crosses", "no price", "no side", "no deltas"],
)
def test_order_book_is_stale_from_a_bad_delta_to_the_next_snapshot(modules: Page, bad: dict[str, Any]) -> None:
    start = snapshot([("9", "1")], [("11", "2")])
    good = delta(("add", "bid", "9.5", "3"))
    states = modules.evaluate(FOLD, [start, bad, good, start, good])
    assert [state["stale"] for state in states] == [False, True, True, False, False]
    assert [state["applied"] for state in states[1:]] == [False, False, None, True]
    assert states[-1]["bids"] == [["9.5", "3"], ["9", "1"]]


def test_order_book_is_stale_after_a_crossed_snapshot(modules: Page) -> None:
    [state] = modules.evaluate(FOLD, [snapshot([("10", "1")], [("10", "1")])])
    assert state["stale"] is True


def test_order_book_costs_an_order_along_its_levels(modules: Page) -> None:
    script = """async () => {
      const { OrderBook } = await import("/console/order-book.js");
      const { format, parse } = await import("/console/decimal.js");
      const book = new OrderBook();
      book.applySnapshot({ bids: [{ price: "9", quantity: "1" }],
                           asks: [{ price: "10.1", quantity: "2" }, { price: "10.2", quantity: "5" }] });
      const cost = (...args) => Object.values(book.cost(...args)).map(format);
      return [cost("bid", parse("3")), cost("bid", parse("3"), parse("10.15")), cost("ask", parse("4"))];
    }"""
    assert modules.evaluate(script) == [["3", "30.4"], ["2", "20.2"], ["1", "9"]]
