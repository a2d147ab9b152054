"""The engine against a naive reference: one list of resting orders, searched from end to end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.commands import Malformed
from exchange.events import Event, encode
from exchange.matching import Engine
from tests.support.examples import examples

SYMBOL = "A/B"
Ladder = dict[str, dict[Decimal, Decimal]]

IDS = st.integers(0, 24)
USERS = st.sampled_from([None, "alice", "bob"])
QUANTITIES = st.sampled_from(["0.5", "1", "1.0", "2", "3.25", "7", "10"])
PRICES = st.sampled_from(["1", "1.0", "1.5", "2", "2.00", "2.5", "3", "4e0"])

PLACES = st.fixed_dictionaries(
    {
        "type": st.just("place_order"),
        "order_id": IDS,
        "symbol": st.just(SYMBOL),
        "side": st.sampled_from(["bid", "ask"]),
        "order_type": st.just("limit"),
        "price": PRICES,
        "quantity": QUANTITIES,
        "user_id": USERS,
        "time_in_force": st.sampled_from(["GTC", "GTC", "GTC", "IOC", "FOK"]),
        "stp": st.sampled_from([None, None, "cancel_newest", "cancel_oldest", "cancel_both"]),
    }
)
POST_ONLY = PLACES.map(lambda place: {**place, "time_in_force": "GTC", "post_only": True})
MARKETS = PLACES.map(lambda place: {**place, "order_type": "market", "price": None})
CANCELS = st.fixed_dictionaries(
    {"type": st.just("cancel_order"), "order_id": IDS, "symbol": st.just(SYMBOL), "user_id": USERS}
)
AMENDS = st.fixed_dictionaries(
    {
        "type": st.just("amend_order"),
        "order_id": IDS,
        "symbol": st.just(SYMBOL),
        "price": PRICES | st.none(),
        "quantity": QUANTITIES,
        "user_id": USERS,
    }
)
COMMANDS = st.lists(st.one_of(PLACES, PLACES, PLACES, POST_ONLY, MARKETS, CANCELS, AMENDS, AMENDS), max_size=60)


@dataclass
class Resting:
    order_id: int
    side: str
    price: Decimal
    quantity: Decimal
    left: Decimal
    user_id: str | None
    stp: str | None = None
    post_only: bool = False


class Reference:
    """What must happen, as tuples: (kind, ids and numbers...). Resting orders are in the order of their arrival."""

    def __init__(self) -> None:
        self.resting: list[Resting] = []
        self.seen: set[int] = set()

    def execute(self, command: dict[str, Any]) -> list[tuple[Any, ...]]:
        order_id = command["order_id"]
        if command["type"] == "amend_order":
            return self._amend(command)
        if command["type"] == "cancel_order":
            for order in self.resting:
                if order.order_id == order_id and order.user_id in (None, command["user_id"]):
                    self.resting.remove(order)
                    return [("order_cancelled", order_id, order.quantity - order.left)]
            return []
        if order_id in self.seen:
            return []
        self.seen.add(order_id)
        return self._place(command)

    def _amend(self, command: dict[str, Any]) -> list[tuple[Any, ...]]:
        for order in self.resting:
            if order.order_id == command["order_id"] and order.user_id in (None, command["user_id"]):
                break
        else:
            return []
        price = order.price if command["price"] is None else Decimal(command["price"])
        quantity, filled = Decimal(command["quantity"]), order.quantity - order.left
        amended = ("order_amended", order.order_id, price, quantity)
        if quantity <= filled:
            self.resting.remove(order)
            return [("order_cancelled", order.order_id, filled)]
        if price == order.price and quantity <= order.quantity:
            order.quantity, order.left = quantity, quantity - filled
            return [amended]
        # Anything else is as if it were cancelled, and placed anew with what is left of it.
        if order.post_only and self._within(order.side, price):
            return [("order_amend_rejected", order.order_id)]
        self.resting.remove(order)
        anew = {**command, "side": order.side, "price": price, "quantity": quantity - filled, "time_in_force": "GTC"}
        also = {"user_id": order.user_id, "stp": order.stp, "post_only": order.post_only}
        [_, *events] = self._place({**anew, **also})
        if order.order_id == (last := self.resting[-1] if self.resting else order).order_id:
            last.quantity = quantity
        own = ("order_cancelled", order.order_id)
        return [amended, *((*own, event[2] + filled) if event[:2] == own else event for event in events)]

    def _within(self, side: str, limit: Decimal | None) -> list[Resting]:
        sign = 1 if side == "bid" else -1
        opposite = [order for order in self.resting if order.side != side]
        return [order for order in opposite if limit is None or sign * order.price <= sign * limit]

    def _place(self, command: dict[str, Any]) -> list[tuple[Any, ...]]:
        order_id, side, quantity = command["order_id"], command["side"], Decimal(command["quantity"])
        limit = None if command["price"] is None else Decimal(command["price"])
        sign = 1 if side == "bid" else -1
        opposite = [order for order in self.resting if order.side != side]
        within = sorted(self._within(side, limit), key=lambda order: sign * order.price)
        user_id, stp = command["user_id"], command["stp"]

        def meets_own(maker: Resting) -> bool:
            return stp is not None and maker.user_id == user_id is not None

        if (limit is None and not opposite) or (command.get("post_only") and within):
            return [("order_rejected", order_id)]
        tradable = [order for order in within if not meets_own(order)]
        if stp in ("cancel_newest", "cancel_both"):
            tradable = list(takewhile(lambda order: not meets_own(order), within))
        if command["time_in_force"] == "FOK" and sum(order.left for order in tradable) < quantity:
            return [("order_rejected", order_id)]
        fills: list[tuple[Any, ...]] = []
        closed: list[tuple[Any, ...]] = []
        left = quantity
        is_stopped = False
        for maker in within:
            if not left:
                break
            if meets_own(maker):
                if stp != "cancel_newest":
                    self.resting.remove(maker)
                    closed.append(("order_cancelled", maker.order_id, maker.quantity - maker.left))
                if stp == "cancel_oldest":
                    continue
                is_stopped = True
                break
            traded = min(left, maker.left)
            left -= traded
            maker.left -= traded
            buyer, seller = (order_id, maker.order_id) if side == "bid" else (maker.order_id, order_id)
            fills.append(("fill", buyer, seller, maker.price, traded, side))
            if not maker.left:
                self.resting.remove(maker)
                closed.append(("order_filled", maker.order_id))
        if not left:
            closed.append(("order_filled", order_id))
        elif is_stopped or limit is None or command["time_in_force"] != "GTC":
            closed.append(("order_cancelled", order_id, quantity - left))
        else:
            self.resting.append(
                Resting(order_id, side, limit, quantity, left, user_id, stp, bool(command.get("post_only")))
            )
        return [("order_accepted", order_id), *fills, *closed]

    def ladder(self) -> Ladder:
        ladder: Ladder = {"bid": defaultdict(Decimal), "ask": defaultdict(Decimal)}
        for order in self.resting:
            ladder[order.side][order.price] += order.left
        return ladder


def essence(event: Event) -> tuple[Any, ...]:
    kind = event["type"]
    if kind == "fill":
        numbers = Decimal(event["price"]), Decimal(event["quantity"])
        return (kind, event["buy_order_id"], event["sell_order_id"], *numbers, event["taker_side"])
    if kind == "order_cancelled":
        return kind, event["order_id"], Decimal(event["filled_quantity"])
    if kind == "order_amended":
        return kind, event["order_id"], Decimal(event["price"]), Decimal(event["quantity"])
    return kind, event["order_id"]


def ladder_of(snapshot: Event) -> Ladder:
    return {
        side: {Decimal(level["price"]): Decimal(level["quantity"]) for level in snapshot[side + "s"]}
        for side in ("bid", "ask")
    }


def apply_delta(ladder: Ladder, delta: Event) -> None:
    """As strictly as a reader could: each action must fit what the reader holds, and none may leave it crossed."""
    assert delta["deltas"]
    for change in delta["deltas"]:
        side, price, quantity = ladder[change["side"]], Decimal(change["price"]), Decimal(change["quantity"])
        if change["action"] == "remove":
            assert change["quantity"] == "0"
            del side[price]
        else:
            assert quantity > 0
            assert (price in side) == (change["action"] == "update")
            assert side.get(price) != quantity
            side[price] = quantity
        assert_not_crossed(ladder)


def assert_not_crossed(ladder: Ladder) -> None:
    assert not ladder["bid"] or not ladder["ask"] or max(ladder["bid"]) < min(ladder["ask"])


def new_engine() -> Engine:
    return Engine([(SYMBOL, None)], lambda: 0)


@settings(max_examples=examples(150))
@given(COMMANDS)
def test_engine_does_what_the_reference_does(commands: list[dict[str, Any]]) -> None:
    engine, reference = new_engine(), Reference()
    for command in commands:
        events = [event for event in engine.execute(command) if event["type"] != "orderbook_delta"]
        assert [essence(event) for event in events] == reference.execute(command)
        ladder = ladder_of(engine.snapshot(SYMBOL))
        assert ladder == reference.ladder()
        assert_not_crossed(ladder)


@settings(max_examples=examples(100))
@given(COMMANDS, st.integers(0, 59))
def test_engine_book_is_the_last_snapshot_plus_its_deltas(commands: list[dict[str, Any]], snapshot_at: int) -> None:
    engine = new_engine()
    held = ladder_of(engine.snapshot(SYMBOL))
    last_sequence = -1
    for number, command in enumerate(commands):
        for event in engine.execute(command):
            if event["type"] == "orderbook_delta":
                assert event["sequence"] > last_sequence
                last_sequence = event["sequence"]
                apply_delta(held, event)
        if number == snapshot_at:
            snapshot = engine.snapshot(SYMBOL)
            assert snapshot["sequence"] > last_sequence
            last_sequence = snapshot["sequence"]
            held = ladder_of(snapshot)
    assert held == ladder_of(engine.snapshot(SYMBOL))


@settings(max_examples=examples(100))
@given(COMMANDS)
def test_engine_conserves_every_orders_quantity(commands: list[dict[str, Any]]) -> None:
    engine = new_engine()
    ordered: dict[int, Decimal] = {}
    traded: dict[int, Decimal] = defaultdict(Decimal)
    closed: dict[int, str] = {}
    for command in commands:
        for event in engine.execute(command):
            kind = event["type"]
            if kind == "order_accepted":
                assert event["order_id"] not in ordered
                ordered[event["order_id"]] = Decimal(event["quantity"])
            elif kind == "order_amended":
                assert Decimal(event["quantity"]) > traded[event["order_id"]]
                assert event["order_id"] not in closed
                ordered[event["order_id"]] = Decimal(event["quantity"])
            elif kind == "fill":
                assert not {event["buy_order_id"], event["sell_order_id"]} & closed.keys()
                traded[event["buy_order_id"]] += Decimal(event["quantity"])
                traded[event["sell_order_id"]] += Decimal(event["quantity"])
            elif kind == "order_cancelled":
                assert event["order_id"] not in closed
                assert Decimal(event["filled_quantity"]) == traded[event["order_id"]] < ordered[event["order_id"]]
                closed[event["order_id"]] = kind
            elif kind == "order_filled":
                assert traded[event["order_id"]] == ordered[event["order_id"]]
                assert event["order_id"] not in closed
                closed[event["order_id"]] = kind
    for order_id, quantity in ordered.items():
        order = engine.order(order_id)
        assert (order is None) == (order_id in closed)
        if order is not None:
            assert order.remaining == quantity - traded[order_id] > 0


@settings(max_examples=examples(100))
@given(COMMANDS)
def test_engine_lets_no_order_trade_that_is_not_to(commands: list[dict[str, Any]]) -> None:
    engine = new_engine()
    placed: dict[int, dict[str, Any]] = {}
    for command in commands:
        events = engine.execute(command)
        if command["type"] == "place_order" and events:
            placed[command["order_id"]] = command
        for event in events:
            if event["type"] != "fill":
                continue
            ids = event["buy_order_id"], event["sell_order_id"]
            taker, maker = (placed[each] for each in (ids if event["taker_side"] == "bid" else ids[::-1]))
            assert not taker.get("post_only")
            assert taker["stp"] is None or taker["user_id"] is None or taker["user_id"] != maker["user_id"]


@settings(max_examples=examples(100))
@given(COMMANDS)
def test_engine_changes_nothing_when_orders_and_amends_are_repeated(commands: list[dict[str, Any]]) -> None:
    once, twice = new_engine(), new_engine()
    for command in commands:
        once.execute(command)
        twice.execute(command)
        if command["type"] == "place_order":
            assert twice.execute(command) == []
        elif command["type"] == "amend_order":
            assert "orderbook_delta" not in {event["type"] for event in twice.execute(command)}
    assert ladder_of(once.snapshot(SYMBOL)) == ladder_of(twice.snapshot(SYMBOL))


@settings(max_examples=examples(100))
@given(COMMANDS, PLACES)
def test_engine_fills_all_or_nothing_of_a_fill_or_kill_order(
    commands: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    engine = new_engine()
    for command in commands:
        engine.execute(command)
    before = ladder_of(engine.snapshot(SYMBOL))
    events = engine.execute({**last, "order_id": "fok", "time_in_force": "FOK"})
    filled = sum(Decimal(event["quantity"]) for event in events if event["type"] == "fill")
    if events[0]["type"] == "order_rejected":
        assert len(events) == 1
        assert ladder_of(engine.snapshot(SYMBOL)) == before
    else:
        assert filled == Decimal(last["quantity"])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=examples(150))
@given(PLACES, st.dictionaries(st.sampled_from(["type", "symbol", "side", "price", "quantity"]), JUNK))
def test_engine_answers_any_malformed_order_with_a_rejection_or_not_at_all(
    place: dict[str, Any], junk: dict[str, Any]
) -> None:
    try:
        events = new_engine().execute({**place, **junk})
    except Malformed:
        return
    assert events
    assert all(encode(event) for event in events)
