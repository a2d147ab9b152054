"""The console's book against a dictionary."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import Page

FOLD = """async (notifications) => {
  const { OrderBook } = await import("/console/client/order-book.js");
  const { format } = await import("/console/client/decimal.js");
  const book = new OrderBook();
  const shown = (side) => book.levels(side).map(({ price, quantity }) => [format(price), format(quantity)]);
  return notifications.map((notification) => {
    const fits = book.apply(notification);
    const spread = book.spread();
    return { fits, known: book.known, stale: book.stale, bids: shown("bid"), asks: shown("ask"),
             spread: spread && format(spread) };
  });
}"""


def changes(*, bids: Any = (), asks: Any = (), **more: Any) -> dict[str, Any]:
    return {"bid_changes": list(bids), "ask_changes": list(asks), **more}


def snapshot(*, bids: Any = (), asks: Any = ()) -> dict[str, Any]:
    return changes(
        bids=[(price, 0, quantity) for price, quantity in bids],
        asks=[(price, 0, quantity) for price, quantity in asks],
        snapshot=True,
    )


def test_order_book_agrees_with_a_dictionary(modules: Page) -> None:
    chance = random.Random(20)
    sides: dict[str, dict[Decimal, str]] = {"bids": {}, "asks": {}}
    notifications = [snapshot()]
    expected = []
    for _ in range(250):
        side = chance.choice(["bids", "asks"])
        ticks = chance.randrange(1, 60) if side == "bids" else chance.randrange(60, 120)
        # The same price in several spellings: 1.5, 1.50, 1.500.
        price = format((Decimal(ticks) / 20).quantize(Decimal(1).scaleb(-chance.randrange(2, 5))), "f")
        quantity = "0" if chance.random() < 0.3 else f"{chance.randrange(1, 50)}.{chance.randrange(10)}"
        old = sides[side].pop(Decimal(price), "0")
        if Decimal(quantity) != 0:
            sides[side][Decimal(price)] = quantity
        notifications.append(changes(**{side: [(price, old + ".0" if "." not in old else old + "0", quantity)]}))
        bids = [(price, Decimal(sides["bids"][price])) for price in sorted(sides["bids"], reverse=True)]
        asks = [(price, Decimal(sides["asks"][price])) for price in sorted(sides["asks"])]
        expected.append((bids, asks))
    states = modules.evaluate(FOLD, notifications)[1:]
    for state, (bids, asks) in zip(states, expected, strict=True):
        assert state["fits"] is True
        assert [(Decimal(price), Decimal(quantity)) for price, quantity in state["bids"]] == bids
        assert [(Decimal(price), Decimal(quantity)) for price, quantity in state["asks"]] == asks
        if bids and asks:
            assert Decimal(state["spread"]) == asks[0][0] - bids[0][0]


def test_order_book_ignores_changes_before_its_first_snapshot(modules: Page) -> None:
    [state] = modules.evaluate(FOLD, [changes(bids=[(1, 0, 1)])])
    assert (state["fits"], state["known"], state["bids"]) == (True, False, [])


@pytest.mark.parametrize(
    "bad",
    [
        changes(bids=[("9", "2", "3")]),
        changes(bids=[("9", 0, "3")]),
        changes(asks=[("12", "1", "3")]),
        changes(asks=[("11", "2.0000000000000000000000000001", "3")]),
        changes(bids=[("11", 0, "1")]),
        changes(asks=[("9", 0, "1")]),
        changes(bids=[("nine", 0, "1")]),
        {"bid_changes": []},
    ],
    ids=[
        "another old",
        "held, not new",
        "new, not held",
        "last digit",
        "bid crosses",
        "ask crosses",
        "price",
        "member",
    ],
)
def test_order_book_is_stale_from_a_change_that_does_not_fit_to_the_next_snapshot(
    modules: Page, bad: dict[str, Any]
) -> None:
    start = snapshot(bids=[("9", "1")], asks=[("11", "2")])
    good = changes(bids=[("9.5", 0, "3")])
    states = modules.evaluate(FOLD, [start, bad, good, start, good])
    assert [state["fits"] for state in states] == [True, False, True, True, True]
    assert [state["stale"] for state in states] == [False, True, True, False, False]
    assert "9.5" not in dict(states[2]["bids"])
    assert states[-1]["bids"] == [["9.5", "3"], ["9", "1"]]


def test_order_book_passes_over_what_a_snapshot_names_as_gone(modules: Page) -> None:
    start = snapshot(bids=[("9", "1"), ("8", "1")], asks=[("11", "2")])
    again = changes(bids=[("9.5", 0, "3"), ("9", "1", 0), ("8", "1", 0)], asks=[("11", "2", "0")], snapshot=True)
    states = modules.evaluate(FOLD, [start, again, changes(bids=[("9", 0, "4")])])
    assert [state["fits"] for state in states] == [True, True, True]
    assert (states[1]["bids"], states[1]["asks"]) == ([["9.5", "3"]], [])
    assert states[2]["bids"] == [["9.5", "3"], ["9", "4"]]


def test_order_book_is_stale_after_a_crossed_snapshot(modules: Page) -> None:
    [state] = modules.evaluate(FOLD, [snapshot(bids=[("10", "1")], asks=[("10", "1")])])
    assert (state["fits"], state["stale"]) == (False, True)


def test_order_book_costs_an_order_along_its_levels(modules: Page) -> None:
    script = """async () => {
      const { OrderBook } = await import("/console/client/order-book.js");
      const { format, parse } = await import("/console/client/decimal.js");
      const book = new OrderBook();
      book.apply({ snapshot: true, bid_changes: [[9, 0, 1]], ask_changes: [["10.1", 0, 2], ["10.2", 0, 5]] });
      const cost = (...args) => Object.values(book.cost(...args)).map(format);
      return [cost("bid", parse("3")), cost("bid", parse("3"), parse("10.15")), cost("ask", parse("4"))];
    }"""
    assert modules.evaluate(script) == [["3", "30.4"], ["2", "20.2"], ["1", "9"]]
