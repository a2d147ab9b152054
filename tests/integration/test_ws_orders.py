"""Orders over WebSocket, in both dialects, by the rules of REST; and what the end of a connection does
(docs/contract.md#requests, #cancel-on-disconnect).
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import WebSocket, frame_of
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway, stopped
from tests.integration.test_orders import BAD_ORDERS
from tests.integration.trading import (
    SECRET,
    Trader,
    error_of,
    expiring,
    fresh_user,
    limit,
    order_event,
    order_id_of,
    own_commands,
    pass_of,
    settings,
)
from tests.support.kafka import Bus
from tests.support.ports import free_port

OPTIONAL = {"secret": SECRET, "mode": "optional"}
INSTRUMENTS = [
    {"symbol": "KCN/EUR", "tick": "0.05", "lot": "0.001", "min_quantity": "0.01"},
    {"symbol": "BTC/EUR", "tick": "0.5", "lot": "0.0001", "min_quantity": "0.0001"},
]


@pytest.fixture(scope="module")
def anonymous(market: Market) -> Iterator[Gateway]:
    """One that takes orders from anybody, of two instruments."""
    with Gateway.on(market, settings(auth=OPTIONAL, instruments=INSTRUMENTS)) as gateway:
        yield gateway


@pytest.fixture
def trader() -> Trader:
    return Trader()


def placed(client: WebSocket, body: dict[str, object]) -> str:
    """Place an order that is accepted; its id."""
    result = client.result("private/place_order", body)
    assert set(result) == {"order_id", "client_order_id"}
    return str(result["order_id"])


# The present dialect


def test_order_is_on_the_topic_as_one_over_rest(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    body = limit(symbol, client_order_id="c", price="0.10", quantity="5.500", time_in_force="FOK")
    with trader.connect(gateway) as client:
        result = client.result("private/place_order", body)
    assert result == {"order_id": order_id_of(trader.user_id, "c"), "client_order_id": "c"}
    other = Trader()
    other.place(gateway, body)
    mine, theirs = market.commands_of(symbol)
    for command, one in ((mine, trader), (theirs, other)):
        assert (command.pop("user_id"), command.pop("order_id")) == (one.user_id, order_id_of(one.user_id, "c"))
        command.pop("timestamp")
    assert mine == theirs


def test_numbers_keep_every_digit(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        client.send(
            f'{{"id":1,"method":"private/place_order","params":{{"symbol":"{symbol}","side":"ask","order_type":"limit",'
            '"price":12345678901234567890.10,"quantity":0.10000000000000000001}}'
        )
        assert "result" in json.loads(client.receive())
    [command] = market.commands_of(symbol)
    assert (command["price"], command["quantity"]) == ("12345678901234567890.10", "0.10000000000000000001")


def test_order_is_cancelled_by_either_id_and_without_its_symbol(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        order_id = placed(client, limit(symbol, client_order_id="c"))
        for params in (
            {"order_id": order_id},
            {"client_order_id": "c"},
            {"order_id": order_id.upper(), "symbol": symbol},
        ):
            assert client.result("private/cancel_order", params) == {"order_id": order_id}
    assert [command["order_id"] for command in own_commands(market, symbol, "cancel_order")] == [order_id] * 3


def test_cancel_in_the_same_breath_is_behind_its_order(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        for number in range(20):
            name = f"c{number}"
            client.send({"id": name, "method": "private/place_order", "params": limit(symbol, client_order_id=name)})
            client.send({"id": -number, "method": "private/cancel_order", "params": {"client_order_id": name}})
        answers = [json.loads(client.receive()) for _ in range(40)]
    assert [answer for answer in answers if "error" in answer] == []
    expected = [
        (kind, order_id_of(trader.user_id, f"c{number}"))
        for number in range(20)
        for kind in ("place_order", "cancel_order")
    ]
    assert [(command["type"], command["order_id"]) for command in market.commands_of(symbol)] == expected


def test_cancel_all_in_the_same_breath_takes_every_order_before_it(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        for number in range(30):
            client.send({"id": number, "method": "private/place_order", "params": limit(symbol)})
        client.send({"id": "all", "method": "private/cancel_all"})
        answers = {answer["id"]: answer["result"] for answer in (json.loads(client.receive()) for _ in range(31))}
    placed_ids = [answers[number]["order_id"] for number in range(30)]
    assert sorted(answers["all"]["order_ids"]) == sorted(placed_ids)
    cancels = [command["order_id"] for command in own_commands(market, symbol, "cancel_order")]
    assert sorted(cancels) == sorted(placed_ids)


def test_orders_of_a_connection_are_on_the_topic_in_the_order_they_were_sent(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        for number in range(1, 101):
            client.send({"id": number, "method": "private/place_order", "params": limit(symbol, quantity=number)})
        answers = {answer["id"]: answer["result"] for answer in (json.loads(client.receive()) for _ in range(100))}
    commands = market.commands_of(symbol)
    assert [int(command["quantity"]) for command in commands] == list(range(1, 101))
    assert [answers[number]["order_id"] for number in range(1, 101)] == [command["order_id"] for command in commands]


def test_cancel_all_cancels_orders_wherever_they_were_placed(gateway: Gateway, market: Market, trader: Trader) -> None:
    one, two = fresh_symbol(), fresh_symbol()
    first = trader.place(gateway, limit(one))["order_id"]
    with trader.connect(gateway) as client, trader.connect(gateway) as another:
        second = placed(another, limit(two))
        assert client.result("private/cancel_all", {"symbol": two}) == {"order_ids": [second]}
        assert client.result("private/cancel_all") == {"order_ids": [first, second]}
    assert len(own_commands(market, one, "cancel_order")) == 1
    assert len(own_commands(market, two, "cancel_order")) == 2


def test_repeat_says_that_it_is_one(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        body = limit(symbol, client_order_id="c")
        order_id = placed(client, body)
        assert client.result("private/place_order", body) == {
            "order_id": order_id,
            "client_order_id": "c",
            "duplicate": True,
        }
    assert len(market.commands_of(symbol)) == 1


# Refusals


def test_without_a_token_nothing_of_orders_is_done(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        for method, params in (
            ("private/place_order", limit(symbol)),
            ("private/place_order", {}),
            ("private/cancel_order", {"order_id": 5, "symbol": symbol}),
            ("private/cancel_all", {}),
            ("private/set_cancel_on_disconnect", {"enabled": True}),
        ):
            error_of(client.call(method, params)[0], 10000)
    assert market.commands_of(symbol) == []


def test_unknown_and_somebody_elses_order_are_the_same_10002(gateway: Gateway, trader: Trader) -> None:
    order_id = Trader().place(gateway, limit(fresh_symbol()))["order_id"]
    with trader.connect(gateway) as client:
        errors = [
            error_of(client.call("private/cancel_order", params)[0], 10002)
            for params in ({"order_id": order_id}, {"order_id": str(uuid.uuid4())}, {"client_order_id": "never"})
        ]
    assert errors[0] == errors[1] == errors[2]


@pytest.mark.parametrize("kind", ["filled", "cancelled", "rejected"])
def test_closed_order_is_10002_with_how_it_ended(gateway: Gateway, market: Market, trader: Trader, kind: str) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        order_id = placed(client, limit(symbol))
        market.publish(symbol, event := order_event(kind, order_id, symbol))
        assert client.receive() == event
        error = error_of(client.call("private/cancel_order", {"order_id": order_id})[0], 10002)
        assert error["data"] == {"status": kind}
    assert own_commands(market, symbol, "cancel_order") == []


def test_other_terms_are_10001(gateway: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        placed(client, limit(symbol, client_order_id="c"))
        error_of(client.call("private/place_order", limit(symbol, client_order_id="c", price="9"))[0], 10001)


@pytest.mark.parametrize("enabled", [None, 1, "true", [], {}])
def test_cancel_on_disconnect_is_true_or_false(gateway: Gateway, trader: Trader, enabled: object) -> None:
    with trader.connect(gateway) as client:
        error_of(client.call("private/set_cancel_on_disconnect", {"enabled": enabled})[0], -32602)
        error_of(client.call("private/set_cancel_on_disconnect")[0], -32602)


BAD_BODIES: list[object] = [
    *({**limit("KCN/EUR", price="1.10"), **change} for change, _ in BAD_ORDERS),
    {},
    {**limit("ETH/EUR")},
    {**limit("KCN/EUR"), "price": "1.11", "quantity": "0.0001"},
    {**limit("BTC/EUR"), "price": "1.25"},
    {"symbol": "KCN/EUR", "side": "bid", "order_type": "market", "quantity": "1", "price": "1", "time_in_force": "GTC"},
    {**limit("KCN/EUR"), "quote_amount": "5", "max_slippage_price": "3"},
    {**limit("KCN/EUR"), **{f"unknown{number}": 1 for number in range(30)}},
    {**limit("KCN/EUR"), "x" * 500: 1},
]
BAD_CANCELS: list[object] = [
    {},
    {"order_id": ""},
    {"order_id": str(uuid.UUID(int=5)), "client_order_id": "a"},
    {"order_id": 5, "symbol": "A"},
    {"order_id": 5, "symbol": "ETH/EUR"},
    {"order_id": 5, "symbol": "KCN/EUR", "reason": "x"},
    {"client_order_id": " ", "symbol": "KCN/EUR"},
    {"order_id": 2**64},
    {"order_id": True},
    {"order_id": 1.5},
]


@pytest.mark.parametrize(
    ("path", "method", "older", "body"),
    [
        *(("/api/order", "private/place_order", "place_order", body) for body in BAD_BODIES),
        *(("/api/order/cancel", "private/cancel_order", "cancel_order", body) for body in BAD_CANCELS),
        *(("/api/order/cancel_all", "private/cancel_all", None, body) for body in ({"symbol": "x"}, {"order_id": 5})),
    ],
)
def test_bad_body_is_told_the_same_errors_as_over_rest(
    anonymous: Gateway, market: Market, path: str, method: str, older: str | None, body: dict[str, Any]
) -> None:
    trader = Trader()
    before = len(market.orders())
    answer = trader.post(anonymous, path, body)
    assert answer.status == 422, answer.body
    errors = answer.json()["errors"]
    assert errors
    with trader.connect(anonymous) as client:
        error = error_of(client.call(method, body)[0], -32602)
        assert error["data"] == {"errors": errors}
        assert error["message"] == answer.json()["error"]
        if older is not None and not {"id", "type"} & set(body):
            client.send({"type": older, **body})
            told = json.loads(client.receive())
            assert (told["success"], told["error"]) == (False, error["message"])
    assert len(market.orders()) == before


@pytest.mark.parametrize("params", [[], [1], "x", 5, True])
def test_params_that_are_no_object_are_bad_params(gateway: Gateway, trader: Trader, params: object) -> None:
    with trader.connect(gateway) as client:
        for method in ("private/place_order", "private/cancel_order", "private/cancel_all", "public/auth"):
            error_of(client.call(method, params)[0], -32602)


def test_bus_that_is_away_is_10004_and_nothing_is_sent(bus: Bus, market: Market) -> None:
    trader = Trader()
    with Gateway.on(market, settings(), brokers=f"127.0.0.1:{free_port()}", wait=False) as gateway, \
            trader.connect(gateway) as client:  # fmt: skip
        for method, params in (
            ("private/place_order", limit("A/B")),
            ("private/cancel_order", {"order_id": str(uuid.uuid4())}),
            ("private/cancel_all", {}),
        ):
            error = error_of(client.call(method, params)[0], 10004)
            assert error["message"].startswith("not sent")
        client.send({"type": "place_order", **limit("A/B")})
        told = json.loads(client.receive())
        assert (told["type"], told["success"], told["order_id"]) == ("order_result", False, None)
        client.expect_silence()


# Whose an order is


def test_orders_of_anybody_are_taken_where_no_token_is_needed(anonymous: Gateway, market: Market) -> None:
    name = uuid.uuid4().hex
    with WebSocket(anonymous.address, "/ws?stream=none") as client:
        order_id = placed(client, limit("KCN/EUR", client_order_id=name))
        assert order_id == order_id_of(None, name)
        assert client.result("private/cancel_order", {"order_id": order_id}) == {"order_id": order_id}
        for method, params in (
            ("private/cancel_all", {}),
            ("private/subscribe", {"channels": ["account.orders"]}),
        ):
            error_of(client.call(method, params)[0], 10000)
    commands = [command for command in market.commands_of("KCN/EUR") if command["order_id"] == order_id]
    assert [(command["type"], command["user_id"]) for command in commands] == [
        ("place_order", None),
        ("cancel_order", None),
    ]


def test_order_belongs_to_who_was_signed_in_when_it_was_sent(
    anonymous: Gateway, market: Market, trader: Trader
) -> None:
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    with WebSocket(anonymous.address, "/ws?stream=none") as client:
        # In one write, so that the gateway reads all of it before it has done any of it.
        sent = [
            {"id": 1, "method": "private/place_order", "params": limit("KCN/EUR", client_order_id=first)},
            {"id": 2, "method": "public/auth", "params": {"token": trader.token}},
            {"id": 3, "method": "private/place_order", "params": limit("KCN/EUR", client_order_id=second)},
        ]
        client.socket.sendall(b"".join(frame_of(json.dumps(message).encode()) for message in sent))
        answers = {answer["id"]: answer["result"] for answer in (json.loads(client.receive()) for _ in sent)}
    assert answers[1]["order_id"] == order_id_of(None, first)
    assert answers[3]["order_id"] == order_id_of(trader.user_id, second)


# The second older dialect


def older(client: WebSocket, message: dict[str, object]) -> dict[str, Any]:
    client.send(message)
    told = json.loads(client.receive())
    assert isinstance(told, dict)
    return told


def test_older_dialect_signs_in_places_and_cancels(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        told = older(client, {"type": "auth", "token": trader.token})
        assert told == {"type": "auth_result", "success": True, "user_id": trader.user_id, "error": None}
        told = older(client, {"type": "place_order", **limit(symbol, client_order_id="c")})
        order_id = order_id_of(trader.user_id, "c")
        assert told == {"type": "order_result", "success": True, "order_id": order_id, "error": None}
        told = older(client, {"type": "cancel_order", "order_id": order_id})
        assert told == {"type": "cancel_result", "success": True, "order_id": order_id, "error": None}
        # Both dialects on one connection.
        assert client.result("private/cancel_order", {"order_id": order_id}) == {"order_id": order_id}
    assert [command["type"] for command in market.commands_of(symbol)] == [
        "place_order",
        "cancel_order",
        "cancel_order",
    ]


def test_older_dialect_is_told_why_not(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol, unknown = fresh_symbol(), str(uuid.uuid4())
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        told = older(client, {"type": "place_order", **limit(symbol)})
        assert (told["type"], told["success"], told["order_id"]) == ("order_result", False, None) and told["error"]
        told = older(client, {"type": "cancel_order", "order_id": unknown})
        assert (told["type"], told["success"], told["order_id"]) == ("cancel_result", False, unknown) and told["error"]
        for token in ("a.b.c", 5, pass_of("u", "another secret of 32 bytes and more")):
            told = older(client, {"type": "auth", "token": token})
            assert (told["type"], told["success"], told["user_id"]) == ("auth_result", False, None) and told["error"]
        assert older(client, {"type": "auth", "token": trader.token})["success"] is True
        told = older(client, {"type": "auth", "token": pass_of(fresh_user())})
        assert (told["type"], told["success"]) == ("auth_result", False)
        told = older(client, {"type": "cancel_order", "order_id": unknown})
        assert (told["success"], told["order_id"]) == (False, unknown)
        told = older(client, {"type": "place_order", **limit(symbol, quantity="-1"), "id": 5})
        assert told["success"] is False and told["error"].startswith("quantity")
    assert market.commands_of(symbol) == []


# Cancel on disconnect


def with_orders(client: WebSocket, symbol: str, count: int = 3, **more: object) -> list[str]:
    """A connection that wants its orders cancelled, with so many."""
    assert client.result("private/set_cancel_on_disconnect", {"enabled": True}) == {"enabled": True}
    return [placed(client, limit(symbol, **more)) for _ in range(count)]


def wait_cancelled(gateway: Gateway, market: Market, symbol: str, ids: list[str], user_id: str | None) -> None:
    gateway.wait_until(lambda: len(own_commands(market, symbol, "cancel_order")) >= len(ids), "the cancels")
    commands = own_commands(market, symbol, "cancel_order")
    assert sorted(command["order_id"] for command in commands) == sorted(ids)
    assert {command["user_id"] for command in commands} == {user_id}


@pytest.mark.parametrize("how", ["close", "end", "reset", "protocol error"])
def test_orders_of_a_connection_are_cancelled_when_it_ends(
    gateway: Gateway, market: Market, trader: Trader, how: str
) -> None:
    symbol, kept = fresh_symbol(), fresh_symbol()
    elsewhere = trader.place(gateway, limit(kept))["order_id"]
    with trader.connect(gateway) as client, trader.connect(gateway) as another:
        ids = with_orders(client, symbol)
        placed(another, limit(kept))
        # What is closed already needs no cancel.
        market.publish(symbol, event := order_event("filled", ids[0], symbol))
        assert client.receive() == event
        if how == "close":
            client.send_frame(0x8, struct.pack("!H", 1000))
            assert client.receive_close().code == 1000
        elif how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "protocol error":
            client.send_frame(0xB, b"")
            assert client.receive_close().code == 1002
        client.socket.close()
        wait_cancelled(gateway, market, symbol, ids[1:], trader.user_id)
        # The other connection heard of its user's order, and goes on.
        assert another.receive() == event
        another.expect_silence()
    assert elsewhere in {order["order_id"] for order in trader.orders(gateway)}
    assert own_commands(market, kept, "cancel_order") == []


def test_it_is_off_at_first_and_can_be_switched_off(gateway: Gateway, market: Market, trader: Trader) -> None:
    never, off, witness = fresh_symbol(), fresh_symbol(), fresh_symbol()
    with trader.connect(gateway) as client:
        placed(client, limit(never))
    with trader.connect(gateway) as client:
        with_orders(client, off)
        assert client.result("private/set_cancel_on_disconnect", {"enabled": False}) == {"enabled": False}
    with trader.connect(gateway) as client:
        ids = with_orders(client, witness)
    # The last of three connections to end: what the others had to say is said.
    wait_cancelled(gateway, market, witness, ids, trader.user_id)
    assert own_commands(market, never, "cancel_order") == own_commands(market, off, "cancel_order") == []


def test_orders_from_before_it_was_switched_on_are_cancelled_too(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        order_id = placed(client, limit(symbol))
        assert client.result("private/set_cancel_on_disconnect", {"enabled": True}) == {"enabled": True}
    wait_cancelled(gateway, market, symbol, [order_id], trader.user_id)


def test_expired_token_does_not_take_cancel_on_disconnect_with_it(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    def set_up(client: WebSocket) -> tuple[str, list[str]]:
        symbol = fresh_symbol()
        return symbol, with_orders(client, symbol, 1)

    with expiring(gateway, trader, set_up) as (client, (symbol, ids)):
        assert b"auth_status" in client.receive()
    wait_cancelled(gateway, market, symbol, ids, trader.user_id)


def test_anonymous_orders_and_those_of_the_user_who_signed_in_are_each_cancelled_as_whose_they_are(
    anonymous: Gateway, market: Market, trader: Trader
) -> None:
    with WebSocket(anonymous.address, "/ws?stream=none") as client:
        first = placed(client, limit("KCN/EUR"))
        trader.sign_in(client)
        [second] = with_orders(client, "KCN/EUR", 1)

    def cancels() -> dict[str, str | None]:
        found = own_commands(market, "KCN/EUR", "cancel_order")
        return {command["order_id"]: command["user_id"] for command in found if command["order_id"] in (first, second)}

    anonymous.wait_until(lambda: len(cancels()) == 2, "both cancelled")
    assert cancels() == {first: None, second: trader.user_id}


def test_drain_cancels_before_the_producer_is_flushed(market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings()) as gateway, trader.connect(gateway) as client:
        ids = with_orders(client, symbol, 20)
        assert gateway.terminate() == 0
        assert client.receive_close().code == 1001
        assert "cancelling its 20 open orders" in gateway.log
    assert sorted(command["order_id"] for command in own_commands(market, symbol, "cancel_order")) == sorted(ids)


def test_drain_cancels_an_order_that_is_still_under_way(market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings()) as gateway, trader.connect(gateway) as client:
        client.result("private/set_cancel_on_disconnect", {"enabled": True})
        with stopped(gateway):
            for number in range(50):
                client.send({"id": number, "method": "private/place_order", "params": limit(symbol)})
            gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 0
    orders = {command["order_id"] for command in own_commands(market, symbol)}
    assert {command["order_id"] for command in own_commands(market, symbol, "cancel_order")} == orders


def test_killed_gateway_cancels_nothing(market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings()) as gateway, trader.connect(gateway) as client:
        ids = with_orders(client, symbol, 2)
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()
        assert client.receive_close().code is None
    assert own_commands(market, symbol, "cancel_order") == []
    # They are still there for who comes back.
    with Gateway.on(market, settings()) as gateway:
        assert [order["order_id"] for order in trader.orders(gateway)] == ids
