"""The same order sent again: recognised on every instance, and on the topic once (docs/contract.md#retries)."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import (
    NAMESPACE,
    SECRET,
    Trader,
    check_problem,
    error_of,
    limit,
    order_command,
    order_event,
    order_id_of,
    own_commands,
    settings,
)
from tests.support.gateway import Answer
from tests.support.kafka import Bus

OPTIONAL = {"secret": SECRET, "mode": "optional"}


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, settings(auth=OPTIONAL)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def other(market: Market) -> Iterator[Gateway]:
    """Another instance on the same topics, with the same secret; it looks at a quiet topic once a second."""
    kafka = {"consume": "broadcast", "idle_interval_ms": 1000}
    with Gateway.on(market, settings(auth=OPTIONAL, kafka=kafka)) as gateway:
        yield gateway


@pytest.fixture
def trader() -> Trader:
    return Trader()


def wait_seen(gateway: Gateway, trader: Trader, name: str) -> None:
    """Until this instance has read of the order."""
    gateway.wait_until(lambda: trader.orders(gateway, f"?client_order_id={name}"), f"{name} read from the topic")


def check_duplicate(answer: Answer, order_id: str, name: str) -> None:
    assert (answer.status, answer.json()) == (
        202,
        {"order_id": order_id, "client_order_id": name, "status": "accepted", "duplicate": True},
    )


# Ids


def test_order_id_is_the_uuid5_of_user_and_client_order_id(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol, name = fresh_symbol(), "My.order_1:a-Z"
    told = trader.place(gateway, limit(symbol, client_order_id=name))
    expected = uuid.uuid5(NAMESPACE, f'["{trader.user_id}","{name}"]')
    assert told == {"order_id": str(expected), "client_order_id": name, "status": "accepted"}
    [command] = market.commands_of(symbol)
    assert (command["order_id"], command["client_order_id"]) == (str(expected), name)


def test_order_id_of_a_user_who_needs_escapes_is_that_of_the_json(gateway: Gateway, market: Market) -> None:
    trader, symbol = Trader('a","b\N{SNOWMAN}\\'), fresh_symbol()
    told = trader.place(gateway, limit(symbol, client_order_id="c"))
    assert told["order_id"] == order_id_of(trader.user_id, "c")
    assert [command["user_id"] for command in market.commands_of(symbol)] == [trader.user_id]


def test_order_without_a_client_order_id_gets_an_id_of_its_own_each_time(gateway: Gateway, trader: Trader) -> None:
    body = limit(fresh_symbol())
    told = [trader.place(gateway, body) for _ in range(3)]
    assert {uuid.UUID(one["order_id"]).version for one in told} == {4}
    assert len({one["order_id"] for one in told}) == 3


def test_default_namespace_follows_from_the_secret_and_is_the_same_after_a_restart(bus: Bus, trader: Trader) -> None:
    market, body = Market.create(bus), limit(fresh_symbol(), client_order_id="c")
    given = {"auth": {"secret": SECRET}, "kafka": {"consume": "broadcast"}}
    with Gateway.on(market, given) as gateway:
        first = trader.place(gateway, body)["order_id"]
    assert uuid.UUID(first).version == 5
    # Neither the one of another secret nor one that anybody could know.
    assert first not in {
        order_id_of(trader.user_id, "c", space) for space in (NAMESPACE, uuid.NAMESPACE_DNS, uuid.UUID(int=0))
    }
    with Gateway.on(market, given) as gateway:
        check_duplicate(trader.post(gateway, "/api/order", body), first, "c")


# Repeats


def test_repeat_is_answered_with_the_same_id_and_produces_nothing(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    before = gateway.metric("gateway_orders_total", kind="place", outcome="duplicate")
    body = limit(symbol, client_order_id="c")
    order_id = trader.place(gateway, body)["order_id"]
    for _ in range(3):
        check_duplicate(trader.post(gateway, "/api/order", body), order_id, "c")
    with trader.connect(gateway) as client:
        assert client.result("private/place_order", body) == {
            "order_id": order_id,
            "client_order_id": "c",
            "duplicate": True,
        }
    assert len(market.commands_of(symbol)) == 1
    assert gateway.metric("gateway_orders_total", kind="place", outcome="duplicate") == before + 4


def test_repeat_is_recognised_by_what_was_meant(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol, client_order_id="c", price="1.0", quantity="10"))["order_id"]
    for same in (
        limit(symbol, client_order_id="c", price="1.00", quantity="10.000"),
        limit(symbol, client_order_id="c", price=1, quantity=1e1),
        limit(symbol, client_order_id="c", price="1", quantity="10", time_in_force="GTC"),
        limit(symbol, client_order_id="c", price="1", quantity="10", time_in_force=None),
    ):
        check_duplicate(trader.post(gateway, "/api/order", same), order_id, "c")
    assert len(market.commands_of(symbol)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"price": "1.11"},
        {"quantity": "2.01"},
        {"side": "ask"},
        {"time_in_force": "IOC"},
        {"order_type": "market", "price": None},
        {"symbol": "ELSE/WHERE"},
    ],
)
def test_other_terms_are_a_conflict_on_every_instance(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader, change: dict[str, Any]
) -> None:
    symbol = fresh_symbol()
    body = limit(symbol, client_order_id="c")
    order_id = trader.place(gateway, body)["order_id"]
    wait_seen(other, trader, "c")
    for one in (gateway, other):
        told = check_problem(trader.post(one, "/api/order", body | change), 409)
        assert told["client_order_id"] == "c"
        with trader.connect(one) as client:
            error_of(client.call("private/place_order", body | change)[0], 10001)
    assert [command["order_id"] for command in market.commands_of(symbol)] == [order_id]
    assert not [command for command in market.commands_of("ELSE/WHERE") if command["order_id"] == order_id]


def test_repeat_on_another_instance_is_recognised(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    body = limit(symbol, client_order_id="c")
    order_id = trader.place(gateway, body)["order_id"]
    wait_seen(other, trader, "c")
    check_duplicate(trader.post(other, "/api/order", body), order_id, "c")
    assert len(market.commands_of(symbol)) == 1


def test_repeat_on_another_instance_that_has_not_read_so_far_has_the_same_id(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            body = limit(symbol, client_order_id=f"c{number}")
            told = list(pool.map(lambda one, body=body: trader.place(one, body), (gateway, other)))
            assert {one["order_id"] for one in told} == {order_id_of(trader.user_id, f"c{number}")}
    # At least once; exactly once after dropping repeated order ids.
    counts = Counter(command["order_id"] for command in market.commands_of(symbol))
    assert set(counts) == {order_id_of(trader.user_id, f"c{number}") for number in range(10)}
    assert set(counts.values()) <= {1, 2}


@pytest.mark.parametrize("kind", ["filled", "cancelled", "rejected"])
def test_repeat_of_a_closed_order_is_recognised(gateway: Gateway, market: Market, trader: Trader, kind: str) -> None:
    symbol = fresh_symbol()
    body = limit(symbol, client_order_id="c")
    order_id = trader.place(gateway, body)["order_id"]
    market.publish(symbol, order_event(kind, order_id, symbol))
    trader.wait_for(gateway, order_id, kind)
    check_duplicate(trader.post(gateway, "/api/order", body), order_id, "c")
    check_problem(trader.post(gateway, "/api/order", body | {"price": "9"}), 409)
    assert len(market.commands_of(symbol)) == 1


def test_repeat_after_a_restart_is_recognised(bus: Bus, trader: Trader) -> None:
    market, symbol = Market.create(bus), fresh_symbol()
    bodies = [limit(symbol, client_order_id=f"c{number}") for number in range(5)]
    with Gateway.on(market, settings()) as gateway:
        ids = [trader.place(gateway, body)["order_id"] for body in bodies]
        market.publish(symbol, order_event("filled", ids[0], symbol))
    with Gateway.on(market, settings()) as gateway:
        for body, order_id in zip(bodies, ids, strict=True):
            check_duplicate(trader.post(gateway, "/api/order", body), order_id, str(body["client_order_id"]))
        check_problem(trader.post(gateway, "/api/order", bodies[0] | {"side": "ask"}), 409)
    assert len(market.commands_of(symbol)) == 5


def test_repeats_at_once_join_and_one_record_is_written(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol, callers, rounds = fresh_symbol(), 16, 10
    barrier = Barrier(callers)

    def place(name: str) -> dict[str, Any]:
        barrier.wait(60)
        return trader.place(gateway, limit(symbol, client_order_id=name))

    with ThreadPoolExecutor(callers) as pool:
        for number in range(rounds):
            told = list(pool.map(place, [f"c{number}"] * callers))
            assert {one["order_id"] for one in told} == {order_id_of(trader.user_id, f"c{number}")}
            assert Counter(one.get("duplicate", False) for one in told) == {False: 1, True: callers - 1}
    assert [command["client_order_id"] for command in market.commands_of(symbol)] == [f"c{n}" for n in range(rounds)]


def test_repeats_in_one_breath_on_a_connection_join(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    bodies = [limit(symbol, client_order_id="c")] * 5 + [limit(symbol, client_order_id="c", price="7")]
    with trader.connect(gateway) as client:
        for number, body in enumerate(bodies):
            client.send({"id": number, "method": "private/place_order", "params": body})
        answers = {answer["id"]: answer for answer in (json.loads(client.receive()) for _ in bodies)}
    assert "duplicate" not in answers[0]["result"]
    assert all(answers[number]["result"]["duplicate"] for number in range(1, 5))
    error_of(answers[5], 10001)
    assert len(market.commands_of(symbol)) == 1


# Whose name it is


def test_one_name_of_two_users_is_two_orders(gateway: Gateway, market: Market) -> None:
    symbol, one, two = fresh_symbol(), Trader(), Trader()
    ids = [
        trader.place(gateway, limit(symbol, client_order_id="c", price=price))["order_id"]
        for trader, price in ((one, "1"), (two, "2"))
    ]
    assert ids == [order_id_of(one.user_id, "c"), order_id_of(two.user_id, "c")]
    assert len(own_commands(market, symbol)) == 2
    for trader, order_id in zip((one, two), ids, strict=True):
        assert [order["order_id"] for order in trader.orders(gateway, "?client_order_id=c")] == [order_id]


def test_anonymous_callers_share_one_namespace_which_is_no_users(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol, nobody, name = fresh_symbol(), Trader(None), f"c-{uuid.uuid4().hex}"
    body = limit(symbol, client_order_id=name)
    order_id = nobody.place(gateway, body)["order_id"]
    assert order_id == order_id_of(None, name)
    check_duplicate(nobody.post(gateway, "/api/order", body), order_id, name)
    check_problem(nobody.post(gateway, "/api/order", body | {"price": "3"}), 409)
    assert trader.place(gateway, body | {"price": "3"})["order_id"] == order_id_of(trader.user_id, name)
    # A user who is called as nobody is.
    assert Trader("null").place(gateway, body)["order_id"] == order_id_of("null", name) != order_id
    other.wait_until(lambda: nobody.order(other, order_id), "the order known there")
    check_duplicate(nobody.post(other, "/api/order", body), order_id, name)


# Two instances

ROUNDS = 10


@pytest.mark.parametrize("how", ["by id", "listed", "cancelled"])
def test_order_is_known_on_another_instance_as_soon_as_it_was_accepted(
    gateway: Gateway, other: Gateway, trader: Trader, how: str
) -> None:
    for _ in range(ROUNDS):
        order_id = trader.place(gateway, limit(fresh_symbol()))["order_id"]
        if how == "by id":
            assert trader.look_up(other, order_id).status == 200
        elif how == "listed":
            assert order_id in {order["order_id"] for order in trader.orders(other)}
        else:
            assert trader.cancel(other, order_id=order_id).status == 202


def test_two_orders_of_one_name_at_two_instances_at_once_are_one_order_and_one_conflict(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    with ThreadPoolExecutor(2) as pool:
        for number in range(2 * ROUNDS):
            symbol, name = fresh_symbol(), f"twice-{number}"
            bodies = [limit(symbol, client_order_id=name, quantity=quantity) for quantity in ("1", "2")]
            together = Barrier(2)

            def place(one: Gateway, body: dict[str, object], together: Barrier = together) -> Answer:
                together.wait()
                return trader.post(one, "/api/order", body)

            answers = list(pool.map(place, (gateway, other), bodies))
            assert sorted(answer.status for answer in answers) == [202, 409]
            [accepted] = [body for body, answer in zip(bodies, answers, strict=True) if answer.status == 202]
            assert own_commands(market, symbol)[0]["quantity"] == accepted["quantity"], "the first on the topic counts"
            for one in (gateway, other):
                [order] = trader.orders(one, f"?client_order_id={name}")
                assert order["quantity"] == accepted["quantity"]


# What other programs wrote


def test_order_of_another_producer_is_recognised_by_its_name_and_terms(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol, order_id = fresh_symbol(), order_id_of(trader.user_id, "c")
    terms = hashlib.sha256(json.dumps([symbol, "bid", "limit", "1.1", "2", "GTC"], separators=(",", ":")).encode())
    market.publish_orders(
        symbol,
        order_command(order_id, trader.user_id, symbol, client_order_id="c", terms_hash=terms.hexdigest()),
        # Repeats of an order id count as nothing, whatever they say.
        order_command(order_id, trader.user_id, symbol, client_order_id="c", price="99"),
        order_command(order_id, "somebody-else", symbol, client_order_id="c", price="98"),
    )
    wait_seen(gateway, trader, "c")
    check_duplicate(trader.post(gateway, "/api/order", limit(symbol, client_order_id="c")), order_id, "c")
    check_problem(trader.post(gateway, "/api/order", limit(symbol, client_order_id="c", price="99")), 409)
    order = trader.order(gateway, order_id)
    assert order is not None and order["price"] == "1.10"


def test_closed_orders_are_forgotten_in_time_and_their_names_with_them(bus: Bus, trader: Trader) -> None:
    market, symbol = Market.create(bus), fresh_symbol()
    given = settings(orders={"id_secret": str(NAMESPACE), "keep_terminal_seconds": 0})
    with Gateway.on(market, given) as gateway:
        body = limit(symbol, client_order_id="c")
        order_id = trader.place(gateway, body)["order_id"]
        # What is behind the order on the topic has been read, and so has the order: read later, it would be known anew.
        behind = order_id_of(trader.user_id, "behind")
        market.publish_orders(symbol, order_command(behind, trader.user_id, symbol, client_order_id="behind"))
        wait_seen(gateway, trader, "behind")
        market.publish(symbol, order_event("filled", order_id, symbol))
        gateway.wait_until(lambda: trader.order(gateway, order_id) is None, "the order forgotten")
        assert gateway.metric("gateway_forgotten_orders_total") == 1
        # Not recognised any more, it goes out again, under its id, which the engine knows.
        assert trader.place(gateway, body) == {"order_id": order_id, "client_order_id": "c", "status": "accepted"}
    assert [command["order_id"] for command in market.commands_of(symbol)] == [order_id, behind, order_id]
