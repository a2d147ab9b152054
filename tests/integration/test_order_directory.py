"""Every instance knows every order: whose it is and what became of it (docs/contract.md#order-directory)."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import dump, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on, stopped
from tests.integration.trading import (
    Trader,
    check_problem,
    limit,
    order_command,
    order_event,
    own_commands,
    settings,
)
from tests.support.kafka import Bus


def known(trader: Trader, gateway: Gateway, order_id: str) -> dict[str, Any]:
    """An order's state once this instance has read of it."""
    return dict(gateway.wait_until(lambda: trader.order(gateway, order_id), f"order {order_id} known"))


# Known everywhere


def test_order_placed_here_is_known_there(gateway: Gateway, other: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()
    body = limit(symbol, client_order_id="mine", price="1.10", quantity="2.50", time_in_force="IOC")
    order_id = trader.place(gateway, body)["order_id"]
    here, there = trader.order(gateway, order_id), known(trader, other, order_id)
    assert here == there
    assert float(there.pop("time")) > 1_700_000_000
    assert there == {
        "order_id": order_id,
        "client_order_id": "mine",
        "symbol": symbol,
        "side": "bid",
        "order_type": "limit",
        "time_in_force": "IOC",
        "price": "1.10",
        "quantity": "2.50",
        "filled_quantity": "0",
        "status": "pending",
    }
    for one in (gateway, other):
        assert [order["order_id"] for order in trader.orders(one)] == [order_id]
        assert [order["order_id"] for order in trader.orders(one, "?client_order_id=mine")] == [order_id]
        assert trader.orders(one, "?client_order_id=another") == []


def test_order_is_unknown_and_no_more_than_that_where_a_transactions_marker_is_the_last_on_the_topic(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    order_id = str(uuid.uuid4())
    market.publish_orders_in_transaction(symbol, order_command(order_id, trader.user_id, symbol))
    known(trader, gateway, order_id)
    assert trader.look_up(gateway, str(uuid.uuid4())).status == 404
    assert [order["order_id"] for order in trader.orders(gateway)] == [order_id]
    # Who reads the topic for the other tests counts records: the last is one again.
    market.publish_orders(symbol, order_command(str(uuid.uuid4()), trader.user_id, symbol))


def test_order_id_may_be_asked_for_in_any_case(gateway: Gateway, trader: Trader) -> None:
    order_id = trader.place(gateway, limit(fresh_symbol()))["order_id"]
    assert trader.order(gateway, order_id.upper()) == trader.order(gateway, order_id)


def test_market_order_has_no_price(gateway: Gateway, trader: Trader) -> None:
    body = {"symbol": fresh_symbol(), "side": "ask", "order_type": "market", "quantity": 1}
    order_id = trader.place(gateway, body)["order_id"]
    order = trader.order(gateway, order_id)
    assert order is not None
    assert (order["price"], order["time_in_force"], order["client_order_id"]) == (None, "IOC", None)


def test_open_orders_are_the_callers_own_oldest_first(gateway: Gateway, other: Gateway, trader: Trader) -> None:
    stranger = Trader()
    stranger.place(gateway, limit(fresh_symbol()))
    placed = [trader.place(one, limit(fresh_symbol()))["order_id"] for one in (gateway, other, gateway, other)]
    for one in (gateway, other):
        one.wait_until(lambda one=one: len(trader.orders(one)) == 4, "all four known")
        assert [order["order_id"] for order in trader.orders(one)] == placed


@pytest.mark.parametrize("order_id", ["5f0c6a2e-6c1b-4b58-8f6f-3d1d3a2b9a10", "17", "x", "%00", "a%2Fb"])
def test_unknown_order_is_404(gateway: Gateway, trader: Trader, order_id: str) -> None:
    check_problem(trader.look_up(gateway, order_id), 404)


def test_somebody_elses_order_is_as_unknown_as_none(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    stranger, symbol = Trader(), fresh_symbol()
    order_id = trader.place(gateway, limit(symbol, client_order_id="c"))["order_id"]
    known(trader, other, order_id)
    nothing = str(uuid.uuid4())
    for one in (gateway, other):
        theirs, none = (stranger.look_up(one, asked).json() for asked in (order_id, nothing))
        assert {**theirs, "request_id": 0} == {**none, "request_id": 0}
        assert theirs["status"] == 404
        for more in ({}, {"symbol": symbol}):
            refused = check_problem(stranger.cancel(one, order_id=order_id, **more), 404)
            assert refused["error"] == check_problem(stranger.cancel(one, order_id=nothing), 404)["error"]
        check_problem(stranger.cancel(one, client_order_id="c"), 404)
        assert stranger.cancel_all(one) == stranger.orders(one) == []
    assert [command["type"] for command in market.commands_of(symbol)] == ["place_order"]


# Cancels


def test_cancel_needs_no_symbol_on_any_instance(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol, client_order_id="c"))["order_id"]
    known(trader, other, order_id)
    for one, body in (
        (other, {"order_id": order_id}),
        (other, {"client_order_id": "c"}),
        (gateway, {"order_id": order_id}),
    ):
        answer = trader.cancel(one, **body)
        assert (answer.status, answer.json()) == (202, {"order_id": order_id, "status": "cancel_requested"})
    for command in own_commands(market, symbol, "cancel_order"):
        assert command.pop("timestamp") > 0
        assert command == {"type": "cancel_order", "order_id": order_id, "symbol": symbol, "user_id": trader.user_id}
    assert len(own_commands(market, symbol, "cancel_order")) == 3


def test_cancel_with_another_symbol_than_the_orders_is_refused(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol, wrong = fresh_symbol(), fresh_symbol()
    order_id = trader.place(gateway, limit(symbol))["order_id"]
    told = check_problem(trader.cancel(gateway, order_id=order_id, symbol=wrong), 422)
    assert [error["field"] for error in told["errors"]] == ["symbol"]
    assert market.commands_of(wrong) == own_commands(market, symbol, "cancel_order") == []


def test_unknown_order_is_404_without_a_symbol_and_asked_of_the_engine_with_one(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol, order_id = fresh_symbol(), str(uuid.uuid4())
    check_problem(trader.cancel(gateway, order_id=order_id), 404)
    check_problem(trader.cancel(gateway, client_order_id="never-used"), 404)
    assert trader.cancel(gateway, order_id=order_id, symbol=symbol).status == 202
    [command] = market.commands_of(symbol)
    assert (command["order_id"], command["user_id"]) == (order_id, trader.user_id)


@pytest.mark.parametrize("kind", ["filled", "cancelled", "rejected"])
def test_closed_order_cannot_be_cancelled_and_the_answer_says_how_it_ended(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader, kind: str
) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol, client_order_id="c"))["order_id"]
    market.publish(symbol, order_event(kind, order_id, symbol))
    for one in (gateway, other):
        trader.wait_for(one, order_id, kind)
        for body in ({"order_id": order_id}, {"client_order_id": "c"}, {"order_id": order_id, "symbol": symbol}):
            told = check_problem(trader.cancel(one, **body), 409)
            assert (told["order_id"], told["order_status"]) == (order_id, kind)
            assert kind in told["error"]
        assert trader.orders(one) == []
        assert [order["status"] for order in trader.orders(one, "?client_order_id=c")] == [kind]
    assert own_commands(market, symbol, "cancel_order") == []


def test_cancel_all_cancels_the_callers_open_orders_of_one_symbol_or_of_all(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    one, two, stranger = fresh_symbol(), fresh_symbol(), Trader()
    stranger.place(gateway, limit(one))
    first = [trader.place(gateway, limit(one))["order_id"] for _ in range(3)]
    second = [trader.place(other, limit(two))["order_id"] for _ in range(2)]
    market.publish(one, order_event("filled", first[0], one))
    trader.wait_for(gateway, first[0], "filled")
    gateway.wait_until(lambda: len(trader.orders(gateway)) == 4, "all known here")
    assert trader.cancel_all(gateway, symbol=one) == first[1:]
    assert sorted(trader.cancel_all(gateway)) == sorted([*first[1:], *second])
    # Without any body too.
    assert gateway.request("POST", "/api/order/cancel_all", headers=trader.headers).status == 202
    cancelled = [command["order_id"] for command in own_commands(market, one, "cancel_order")]
    assert sorted(cancelled) == sorted(first[1:] * 3)
    assert {command["user_id"] for command in own_commands(market, one, "cancel_order")} == {trader.user_id}


@pytest.mark.parametrize("body", [{"symbol": "x"}, {"order_id": "a"}, [], 5, {"symbol": 7}])
def test_cancel_all_that_breaks_a_rule_is_422(gateway: Gateway, trader: Trader, body: object) -> None:
    assert check_problem(trader.post(gateway, "/api/order/cancel_all", body), 422)["errors"]


# What becomes of an order


def test_state_follows_the_engines_events_to_the_last_digit(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol, quantity="0.30000000000000000001"))["order_id"]
    for one in (gateway, other):
        known(trader, one, order_id)
    steps = [
        (order_event("accepted", order_id, symbol), "open", "0"),
        (fill(symbol, buy_order_id=order_id, quantity="0.1"), "partially_filled", "0.1"),
        (fill(symbol, sell_order_id=order_id, quantity="0.2"), "partially_filled", "0.3"),
        (fill(symbol, buy_order_id=order_id, quantity="0.00000000000000000001"), "filled", "0.30000000000000000001"),
    ]
    for event, status, filled in steps:
        market.publish(symbol, event)
        for one in (gateway, other):
            one.wait_until(
                lambda one=one, status=status, filled=filled: (
                    [
                        (order or {}).get("status") == status and (order or {}).get("filled_quantity") == filled
                        for order in [trader.order(one, order_id)]
                    ]
                    == [True]
                ),
                f"{status} {filled}",
            )


def test_closed_order_stays_closed_whatever_comes(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol, marker = fresh_symbol(), Trader()
    order_id = trader.place(gateway, limit(symbol))["order_id"]
    last = marker.place(gateway, limit(symbol))["order_id"]
    market.publish(
        symbol,
        order_event("cancelled", order_id, symbol, filled_quantity="0.5"),
        order_event("accepted", order_id, symbol),
        fill(symbol, buy_order_id=order_id, quantity="1"),
        order_event("filled", order_id, symbol),
        order_event("rejected", order_id, symbol),
        order_event("rejected", last, symbol),
    )
    marker.wait_for(gateway, last, "rejected")
    order = trader.order(gateway, order_id)
    assert order is not None
    assert (order["status"], order["filled_quantity"]) == ("cancelled", "0.5")
    assert "reason" not in order


def test_integer_ids_of_older_engines_are_followed(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    number = random.Random().randrange(1 << 40)
    command = json.loads(order_command("x", trader.user_id, symbol)) | {"order_id": number}
    market.publish_orders(symbol, dump(command))
    known(trader, gateway, str(number))
    market.publish(symbol, fill(symbol, sell_order_id=number, quantity="1"))
    trader.wait_for(gateway, str(number), "partially_filled")
    assert trader.cancel(gateway, order_id=number).status == 202
    assert [one["order_id"] for one in own_commands(market, symbol, "cancel_order")] == [number]


def test_with_a_real_engine_every_instance_comes_to_the_same(bus: Bus) -> None:
    market, maker, taker = Market.create(bus), Trader(), Trader()
    symbol = fresh_symbol()
    with exchange_on(market), Gateway.on(market, settings()) as gateway, Gateway.on(market, settings()) as other:
        ask = maker.place(gateway, limit(symbol, side="ask", price="10", quantity="2"))["order_id"]
        maker.wait_for(other, ask, "open")
        with maker.connect(other) as mine, taker.connect(gateway) as theirs:
            bid = taker.place(other, limit(symbol, price="11", quantity="0.5"))["order_id"]
            taken = json.loads(theirs.receive()), json.loads(theirs.receive())
            assert [(event["type"], event["order_id"]) for event in taken] == [
                ("order_accepted", bid),
                ("order_filled", bid),
            ]
            for one in (gateway, other):
                assert taker.wait_for(one, bid, "filled")["filled_quantity"] == "0.5"
                assert maker.wait_for(one, ask, "partially_filled")["filled_quantity"] == "0.5"
            assert maker.cancel(other, order_id=ask).status == 202
            cancelled = json.loads(mine.receive())
            assert (cancelled["type"], cancelled["order_id"], cancelled["filled_quantity"]) == (
                "order_cancelled",
                ask,
                "0.5",
            )
            for one in (gateway, other):
                assert maker.wait_for(one, ask, "cancelled")["filled_quantity"] == "0.5"
                check_problem(maker.cancel(one, order_id=ask), 409)
        # The engine says no: a market order with nobody on the other side.
        body = {"symbol": symbol, "side": "bid", "order_type": "market", "quantity": "1"}
        lonely = taker.place(gateway, body)["order_id"]
        closed = other.wait_until(
            lambda: (order := taker.order(other, lonely)) and order["status"] in ("rejected", "cancelled") and order,
            "the end of an order that nobody takes",
        )
        for one in (gateway, other):
            one.wait_until(lambda one=one: taker.orders(one) == [], "no order left open")
        assert taker.wait_for(gateway, lonely, closed["status"]) == closed


# The two topics have no order between them


def test_events_written_before_their_orders_command_reach_the_owner_once(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    ids = [str(uuid.uuid4()) for _ in range(20)]
    with trader.connect(gateway) as here, trader.connect(other) as there:
        with stopped(gateway, other):
            events = [order_event(kind, one, symbol) for one in ids for kind in ("accepted", "cancelled")]
            market.publish(symbol, *events)
            market.publish_orders(symbol, *(order_command(one, trader.user_id, symbol) for one in ids))
        for client in (here, there):
            assert sorted(client.receive() for _ in events) == sorted(events)
            client.expect_silence()
        for one in (gateway, other):
            for order_id in ids:
                assert trader.wait_for(one, order_id, "cancelled")


def test_events_of_an_order_come_in_their_order_when_its_command_is_read_late(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()

    def is_read_late() -> bool:
        order_id = str(uuid.uuid4())
        # So many that the market's events are read first; the engine has, of course, read them all.
        before = [order_command(str(uuid.uuid4()), "somebody", symbol) for _ in range(20_000)]
        events = [
            order_event("accepted", order_id, symbol),
            order_event("filled", order_id, symbol, n=1),
            order_event("filled", order_id, symbol, n=2),
        ]
        parked = gateway.metric("gateway_parked_events_total")
        with trader.connect(gateway) as client:
            with stopped(gateway):
                market.publish_orders(symbol, *before, order_command(order_id, trader.user_id, symbol))
                market.publish(symbol, events[0], fill(symbol, buy_order_id=order_id, quantity="1"), *events[1:])
            assert [client.receive() for _ in events] == events
            client.expect_silence()
        order = trader.order(gateway, order_id)
        assert order is not None and (order["status"], order["filled_quantity"]) == ("filled", "2")
        # The fill's other side is nobody's and waits as well; that alone is no proof.
        return gateway.metric("gateway_parked_events_total") > parked + 1

    # Where the bus is slow with the market's events, the commands are read first after all.
    gateway.wait_until(is_read_late, "a command read behind its order's events")


def test_events_of_unknown_owners_reach_nobody_and_are_counted(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    before = gateway.metric("gateway_ownerless_events_total", why="unknown")
    with trader.connect(gateway, "/ws") as client, WebSocket(gateway.address) as nobody:
        kinds = ("accepted", "filled", "cancelled", "rejected")
        market.publish(symbol, *(order_event(kind, str(uuid.uuid4()), symbol) for kind in kinds), last := fill(symbol))
        for one in (client, nobody):
            seen = one.receive_until(lambda message: message == last)
            assert not [message for message in seen if b'"order_' in message and symbol.encode() in message]
        # The fill has two sides that nobody knows.
        gateway.wait_until(
            lambda: gateway.metric("gateway_ownerless_events_total", why="unknown") >= before + len(kinds),
            "events given up",
        )
        client.expect_silence()
        nobody.expect_silence()


def test_orders_before_the_warmup_are_known_by_their_events_alone(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol, order_id = fresh_symbol(), str(uuid.uuid4())
    with trader.connect(gateway) as client:
        event = order_event("accepted", order_id, symbol, user_id=trader.user_id)
        market.publish(symbol, event)
        assert client.receive() == event
        order = known(trader, gateway, order_id)
        assert (order["status"], order["client_order_id"], order["time_in_force"]) == ("open", None, None)
        assert trader.cancel(gateway, order_id=order_id).status == 202


# From the beginning on


def test_after_a_restart_everything_is_there(bus: Bus) -> None:
    market, trader, stranger = Market.create(bus), Trader(), Trader()
    symbol = fresh_symbol()
    with Gateway.on(market, settings()) as gateway:
        ids = [trader.place(gateway, limit(symbol, client_order_id=f"c{number}"))["order_id"] for number in range(6)]
        market.publish(
            symbol,
            *(order_event("accepted", order_id, symbol) for order_id in ids[1:]),
            fill(symbol, buy_order_id=ids[2], quantity="0.5"),
            order_event("filled", ids[3], symbol),
            order_event("cancelled", ids[4], symbol, filled_quantity="1"),
            order_event("rejected", ids[5], symbol, reason="because"),
        )
        trader.wait_for(gateway, ids[5], "rejected")
        before = [trader.order(gateway, order_id) for order_id in ids]
        open_before = trader.orders(gateway)
    with Gateway.on(market, settings()) as gateway, trader.connect(gateway) as client:
        # From the first answer on, and nothing of it is told again.
        assert [trader.order(gateway, order_id) for order_id in ids] == before
        assert trader.orders(gateway) == open_before
        assert [order["status"] for order in before if order] == [
            "pending", "open", "partially_filled", "filled", "cancelled", "rejected",
        ]  # fmt: skip
        assert stranger.orders(gateway) == []
        client.expect_silence()
        market.publish(symbol, event := order_event("cancelled", ids[2], symbol))
        assert client.receive() == event
        check_problem(trader.cancel(gateway, client_order_id="c3"), 409)


def test_topics_out_of_step_at_the_start_come_to_the_same(bus: Bus) -> None:
    """Events of orders whose commands are written late, and commands whose events come when the gateway serves."""
    market, trader = Market.create(bus), Trader()
    symbol = fresh_symbol()
    early, late = ([str(uuid.uuid4()) for _ in range(50)] for _ in range(2))
    market.publish(symbol, snapshot(symbol), *(order_event("filled", order_id, symbol) for order_id in early))
    market.publish_orders(symbol, *(order_command(order_id, trader.user_id, symbol) for order_id in (*early, *late)))
    with Gateway.on(market, settings()) as gateway, trader.connect(gateway) as client:
        assert {order["order_id"] for order in trader.orders(gateway)} == set(late)
        for order_id in early:
            order = trader.order(gateway, order_id)
            assert order is not None and order["status"] == "filled"
        client.expect_silence()
        market.publish(symbol, *(events := [order_event("accepted", order_id, symbol) for order_id in late]))
        assert [client.receive() for _ in events] == events


def test_before_the_order_topic_is_read_nothing_is_said_of_orders(bus: Bus) -> None:
    market, trader = Market.create(bus), Trader()
    symbol = fresh_symbol()
    market.publish_orders(symbol, *(order_command(str(uuid.uuid4()), trader.user_id, symbol) for _ in range(5000)))
    seen = set()
    with Gateway.on(market, settings(), wait=False) as gateway:

        def answered() -> bool:
            answer = gateway.request("GET", "/api/order", headers=trader.headers)
            seen.add((answer.status, len(answer.json().get("orders", ()))))
            if answer.status == 503:
                check_problem(answer, 503)
                assert answer.headers["Retry-After"]
            return answer.status == 200

        gateway.wait_until(answered, "the orders listed")
        assert seen <= {(503, 0), (200, 5000)}, "told a part for all"


def test_poisoned_commands_are_skipped_counted_and_logged(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol, order_id = fresh_symbol(), str(uuid.uuid4())
    bad = [b"", b"{", b"\xff", b"[]", b'{"type":"place_order"}', b'{"type":"nonsense"}', b"[" * 10_000, b'{"type":5}']
    before = sum(poisoned(gateway).values())
    market.publish_orders(symbol, *bad, order_command(order_id, trader.user_id, symbol))
    known(trader, gateway, order_id)
    assert sum(poisoned(gateway).values()) == before + len(bad)
    gateway.wait_log(f"poisoned record skipped: .*topic {market.order_topic} partition")


def poisoned(gateway: Gateway) -> dict[str, float]:
    lines = gateway.get("/metrics").body.decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith("gateway_poisoned_commands_total{")]
    return {name: float(value) for name, _, value in found}


# shared: two instances of one group


@pytest.fixture(scope="module")
def pair(bus: Bus) -> Iterator[tuple[Market, Gateway, Gateway]]:
    """Each reads a part of the market, and both all orders."""
    market = Market.create(bus)
    given = settings(kafka={"consume": "shared", "group_id": f"pair-{uuid.uuid4().hex[:8]}"})
    with Gateway.on(market, given, wait=False) as one, Gateway.on(market, given, wait=False) as two:
        for gateway in (one, two):
            gateway.wait_until(lambda gateway=gateway: gateway.get("/ready").status == 200, "ready")
        one.wait_until(
            lambda: all(0 < gateway.health()["kafka"]["partitions"] < 4 for gateway in (one, two)), "the market divided"
        )
        yield market, one, two


def test_shared_instances_each_know_all_orders_and_deliver_all_private_events(
    pair: tuple[Market, Gateway, Gateway], trader: Trader
) -> None:
    market, one, two = pair
    # Of every partition, so that each instance has some whose market it does not read.
    symbols = [fresh_symbol() for _ in range(40)]
    with trader.connect(one) as first, trader.connect(two) as second:
        ids = {
            symbol: trader.place((one, two)[number % 2], limit(symbol))["order_id"]
            for number, symbol in enumerate(symbols)
        }
        places = market.publish_all((symbol, order_event("accepted", ids[symbol], symbol)) for symbol in symbols)
        assert {partition for partition, _ in places} == {0, 1, 2, 3}
        expected = sorted(order_event("accepted", ids[symbol], symbol) for symbol in symbols)
        for client in (first, second):
            assert sorted(client.receive() for _ in symbols) == expected
            client.expect_silence()
        for gateway in (one, two):
            assert {order["order_id"]: order["status"] for order in trader.orders(gateway)} == dict.fromkeys(
                ids.values(), "open"
            )
        market.publish_all((symbol, fill(symbol, sell_order_id=ids[symbol], quantity="2")) for symbol in symbols)
        for gateway in (one, two):
            for order_id in ids.values():
                trader.wait_for(gateway, order_id, "filled")
            check_problem(trader.cancel(gateway, order_id=ids[symbols[0]]), 409)


def test_shared_instances_cancel_each_others_orders(pair: tuple[Market, Gateway, Gateway], trader: Trader) -> None:
    market, one, two = pair
    symbols = [fresh_symbol() for _ in range(8)]
    placed = [trader.place(one, limit(symbol))["order_id"] for symbol in symbols]
    two.wait_until(lambda: len(trader.orders(two)) == len(placed), "all known there")
    assert sorted(trader.cancel_all(two)) == sorted(placed)
    for symbol, order_id in zip(symbols, placed, strict=True):
        assert [command["order_id"] for command in own_commands(market, symbol, "cancel_order")] == [order_id]


def test_shared_instance_that_is_left_alone_misses_nothing(bus: Bus, trader: Trader) -> None:
    market = Market.create(bus)
    given = settings(kafka={"consume": "shared", "group_id": f"left-{uuid.uuid4().hex[:8]}"})
    symbols = [fresh_symbol() for _ in range(8)]
    with Gateway.on(market, given) as stays, trader.connect(stays) as client:
        with Gateway.on(market, given) as leaves:
            ids = [trader.place(leaves, limit(symbol))["order_id"] for symbol in symbols]
        events = [
            order_event(kind, order_id, symbol)
            for kind in ("accepted", "filled")
            for symbol, order_id in zip(symbols, ids, strict=True)
        ]
        market.publish_all((symbol, event) for event, symbol in zip(events, symbols * 2, strict=True))
        assert sorted(client.receive() for _ in events) == sorted(events)
        stays.wait_until(lambda: stays.health()["kafka"]["partitions"] == 4, "all of the market read here")
        client.expect_silence()
