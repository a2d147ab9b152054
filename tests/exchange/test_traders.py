from __future__ import annotations

import random
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from exchange.commands import Side
from exchange.events import Event
from exchange.matching import Engine
from exchange.traders import MARKETS, MAX_QUOTES_A_SIDE, Traders

KCN = "KCN/EUR"
TICK = Decimal("0.01")


class Simulation:
    """Traders on their own time, with an engine that a person can send orders to as well."""

    def __init__(self, seed: int = 1, rate: float = 100.0) -> None:
        self.engine = Engine([(market.instrument.symbol, market.instrument) for market in MARKETS], lambda: 0)
        self.traders = Traders(self.engine, random.Random(seed), rate, MARKETS)
        self.traders.open()

    def run(self, seconds: float) -> list[Event]:
        events: list[Event] = []
        until = self.traders.due_seconds + seconds
        while self.traders.due_seconds < until:
            events += self.traders.act()
        return events

    def person(self, order_id: str, side: str, quantity: str, price: str | None, **more: Any) -> list[Event]:
        return self.engine.execute(
            {
                "type": "place_order",
                "order_id": order_id,
                "symbol": KCN,
                "side": side,
                "order_type": "market" if price is None else "limit",
                "price": price,
                "quantity": quantity,
                "user_id": None,
                **more,
            }
        )

    def best(self, side: Side, symbol: str = KCN) -> Decimal:
        level = self.engine.book(symbol).best(side)
        assert level is not None
        return level.price

    def run_until_closed(self, order_id: str, limit_seconds: float) -> tuple[float, list[Event]]:
        """How long it took and what happened meanwhile."""
        began = self.traders.due_seconds
        events: list[Event] = []
        while self.engine.order(order_id) is not None:
            events += self.traders.act()
            assert self.traders.due_seconds - began < limit_seconds
        return self.traders.due_seconds - began, events


def test_traders_do_the_same_again_when_given_the_same_seed() -> None:
    assert Simulation(seed=5).run(20) == Simulation(seed=5).run(20)


def test_traders_do_something_else_when_given_another_seed() -> None:
    assert Simulation(seed=5).run(1) != Simulation(seed=6).run(1)


@pytest.mark.parametrize("rate", [20.0, 100.0, 500.0])
def test_traders_cause_the_public_events_asked_for(rate: float) -> None:
    events = Simulation(rate=rate).run(4000 / rate)
    assert len(events) == pytest.approx(4000, rel=0.1)
    assert {event["type"] for event in events} == {"fill", "orderbook_delta"}


def test_traders_move_every_symbol_and_use_every_kind_of_change() -> None:
    events = Simulation().run(30)
    for market in MARKETS:
        mine = [event for event in events if event["symbol"] == market.instrument.symbol]
        assert sum(event["type"] == "fill" for event in mine) >= 30
        actions = {change["action"] for event in mine for change in event.get("deltas", ())}
        assert actions == {"add", "update", "remove"}


@pytest.mark.parametrize("seed", range(2))
def test_traders_keep_the_ladder_bounded_and_the_spread_wide(seed: int) -> None:
    simulation = Simulation(seed)
    for _ in range(200):
        simulation.run(0.25)
        for market in MARKETS:
            book = simulation.engine.book(market.instrument.symbol)
            for side in Side:
                assert 10 <= book.level_count(side) <= 20
                assert sum(len(level.orders) for level in book.levels(side)) <= MAX_QUOTES_A_SIDE
        assert simulation.best(Side.ASK) - simulation.best(Side.BID) >= 8 * TICK


def test_traders_price_moves_slowly() -> None:
    simulation = Simulation(rate=20.0)
    mids = []
    for _ in range(300):
        simulation.run(1)
        mids.append((simulation.best(Side.BID) + simulation.best(Side.ASK)) / 2)
    assert len(set(mids)) > 20
    assert max(abs(later - earlier) for earlier, later in pairwise(mids)) <= 20 * TICK
    assert all(abs(mid - Decimal(25)) < Decimal("1.5") for mid in mids)


@pytest.mark.parametrize("away", [0.8, 1.2])
def test_traders_price_comes_back(away: float) -> None:
    [desk, *_] = Simulation().traders._desks
    desk.fair = away * desk.anchor
    for _ in range(100_000):
        desk.drift(1.0, 0.0)
    assert abs(desk.fair - desk.anchor) < 1.0


@pytest.mark.parametrize("side", ["bid", "ask"])
@pytest.mark.parametrize("quantity", ["0.001", "10.000", "2000"])
@pytest.mark.parametrize("seed", range(3))
def test_traders_fill_a_persons_order_inside_the_spread_within_seconds(side: str, quantity: str, seed: int) -> None:
    simulation = Simulation(seed)
    simulation.run(3)
    price = simulation.best(Side(side)) + (TICK if side == "bid" else -TICK)
    events = simulation.person("mine", side, quantity, str(price))
    assert "fill" not in {event["type"] for event in events}
    _, events = simulation.run_until_closed("mine", limit_seconds=20)
    first = next(event for event in events if event["type"] == "fill" and event["symbol"] == KCN)
    assert "mine" in (first["buy_order_id"], first["sell_order_id"])


def test_traders_let_a_persons_order_rest_a_moment() -> None:
    rested = []
    for seed in range(20):
        simulation = Simulation(seed)
        simulation.run(2)
        simulation.person("mine", "bid", "5", str(simulation.best(Side.BID) + 2 * TICK))
        rested.append(simulation.run_until_closed("mine", limit_seconds=20)[0])
    assert sorted(rested)[len(rested) // 2] > 0.2


@pytest.mark.parametrize("side", [Side.BID, Side.ASK])
def test_traders_refill_a_side_that_a_huge_order_emptied(side: Side) -> None:
    simulation = Simulation()
    simulation.person("mine", side.opposite.value, "9" * 30, None)
    assert simulation.engine.book(KCN).best(side) is None
    simulation.run(5)
    assert simulation.engine.book(KCN).level_count(side) >= 10


@pytest.mark.parametrize(("side", "price"), [("bid", "999999.99"), ("ask", "0.01")])
def test_traders_clear_a_huge_mispriced_order_and_refill(side: str, price: str) -> None:
    simulation = Simulation()
    simulation.person("mine", side, "9" * 35, price)
    assert simulation.best(Side(side)) == Decimal(price)
    simulation.run(15)
    assert simulation.engine.order("mine") is None
    assert Decimal(20) < simulation.best(Side.BID) < simulation.best(Side.ASK) < Decimal(30)
    assert simulation.engine.book(KCN).level_count(Side(side).opposite) >= 10


def test_traders_orders_cannot_be_cancelled_by_a_stranger() -> None:
    simulation = Simulation()
    level = simulation.engine.book(KCN).best(Side.BID)
    assert level is not None
    command = {"type": "cancel_order", "order_id": level.first.order_id, "symbol": KCN, "user_id": None}
    assert simulation.engine.execute(command) == []


def test_traders_own_order_events_are_left_out_and_a_persons_are_not() -> None:
    simulation = Simulation()
    events = simulation.person("mine", "bid", "1", None, user_id="alice")
    big = simulation.person("more", "bid", "500", None, user_id="alice")
    assert any(event.get("user_id") == simulation.traders.user_id for event in big)
    shown = simulation.traders.without_own(events + big)
    assert {event["user_id"] for event in shown if event["type"].startswith("order_")} == {"alice"}
    assert [event for event in shown if "user_id" not in event] == [
        event for event in events + big if "user_id" not in event
    ]
