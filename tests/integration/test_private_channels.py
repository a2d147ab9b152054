"""What only an order's owner is told: `account.orders`, the engine's own events, and how that ends
(docs/contract.md#private-events).
"""

from __future__ import annotations

import json
import signal
import uuid
from typing import Any

import pytest

from tests.integration.clients import Refused, WebSocket
from tests.integration.events import dump, fill, fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import (
    Trader,
    bearer,
    check_problem,
    error_of,
    expiring,
    limit,
    order_command,
    order_event,
    pass_of,
    settings,
)

EXPIRED = b'{"type":"auth_status","status":"expired"}'


def changes(message: bytes) -> list[dict[str, Any]]:
    """The orders of a notification of `account.orders` that is no snapshot."""
    told = json.loads(message)
    assert set(told) == {"channel_name", "seq", "notification"} and told["channel_name"] == "account.orders", told
    assert set(told["notification"]) == {"orders"}, told
    return list(told["notification"]["orders"])


def next_change(client: WebSocket) -> dict[str, Any]:
    [order] = changes(client.receive())
    return order


def subscribe(client: WebSocket) -> list[dict[str, Any]]:
    """Subscribe to `account.orders`; the orders of its snapshot, which comes behind the answer."""
    assert client.result("private/subscribe", {"channels": ["account.orders"]}) == ["account.orders"]
    told = json.loads(client.receive())
    assert (told["channel_name"], set(told)) == ("account.orders", {"epoch", "channel_name", "seq", "notification"})
    assert told["notification"]["snapshot"] is True and set(told["notification"]) == {"orders", "snapshot"}
    return list(told["notification"]["orders"])


# account.orders


def test_account_orders_begin_with_the_open_orders_and_go_on_with_each_change(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    first = trader.place(gateway, limit(symbol, client_order_id="first", price="1.10", quantity="2.50"))["order_id"]
    with trader.connect(gateway) as client:
        [resting] = subscribe(client)
        time = resting.pop("time")
        assert (
            isinstance(time, float)
            and abs(time - json.loads(market.orders_of(symbol)[0].value or b"")["timestamp"] / 1000) < 0.01
        )
        assert resting == {
            "order_id": first,
            "client_order_id": "first",
            "symbol": symbol,
            "side": "bid",
            "order_type": "limit",
            "time_in_force": "GTC",
            "price": "1.10",
            "quantity": "2.50",
            "filled_quantity": "0",
            "status": "pending",
        }
        accepted = order_event("accepted", first, symbol, quantity="2.50", timestamp=1_700_000_000_123)
        market.publish(symbol, accepted)
        assert client.receive() == accepted
        assert next_change(client) == {**resting, "status": "open", "time": 1_700_000_000.123}
        market.publish(symbol, fill(symbol, buy_order_id=first, quantity="1.5", timestamp=1_700_000_000_124))
        part = next_change(client)
        assert (part["status"], part["filled_quantity"]) == ("partially_filled", "1.5")
        market.publish(symbol, cancelled := order_event("cancelled", first, symbol, filled_quantity="1.5"))
        assert client.receive() == cancelled
        last = next_change(client)
        assert (last["status"], last["filled_quantity"]) == ("cancelled", "1.5")
        client.expect_silence()
    with trader.connect(gateway) as late:
        assert subscribe(late) == []


def test_new_order_is_a_change_on_every_instance(gateway: Gateway, other: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as here, trader.connect(other) as there:
        assert subscribe(here) == subscribe(there) == []
        order_id = trader.place(gateway, limit(symbol))["order_id"]
        for client in (here, there):
            told = next_change(client)
            assert (told["order_id"], told["status"], told["symbol"]) == (order_id, "pending", symbol)
            client.expect_silence()


def test_rejected_order_says_why(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        subscribe(client)
        order_id = trader.place(gateway, limit(symbol))["order_id"]
        next_change(client)
        market.publish(symbol, rejected := order_event("rejected", order_id, symbol, reason="no \N{SNOWMAN} today"))
        assert client.receive() == rejected
        told = next_change(client)
        assert (told["status"], told["reason"]) == ("rejected", "no \N{SNOWMAN} today")
    assert trader.order(gateway, order_id) == told | {"time": str(told["time"])}


def test_fill_of_two_orders_of_one_user_changes_both(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    bid = trader.place(gateway, limit(symbol))["order_id"]
    ask = trader.place(gateway, limit(symbol, side="ask", quantity="3"))["order_id"]
    with trader.connect(gateway) as client:
        assert [order["order_id"] for order in subscribe(client)] == [bid, ask]
        market.publish(symbol, fill(symbol, buy_order_id=bid, sell_order_id=ask, quantity="2"))
        told: dict[str, Any] = {}
        while len(told) < 2:
            told |= {order["order_id"]: order for order in changes(client.receive())}
        assert {name: order["status"] for name, order in told.items()} == {bid: "filled", ask: "partially_filled"}


def test_account_orders_need_a_token_and_private_subscribe(gateway: Gateway, trader: Trader) -> None:
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        error_of(client.call("private/subscribe", {"channels": ["account.orders"]})[0], 10000)
        trader.sign_in(client)
        error_of(client.call("public/subscribe", {"channels": ["account.orders"]})[0], -32602)
        error_of(client.call("private/subscribe", {"channels": ["account.orders", "account.funds"]})[0], -32602)
        error_of(client.call("private/subscribe", {"channels": ["trades.A/B"]})[0], -32602)
        client.expect_silence()
        assert subscribe(client) == []


@pytest.mark.parametrize("method", ["unsubscribe", "public/unsubscribe", "private/unsubscribe"])
def test_unsubscribing_ends_the_changes_and_leaves_the_events(
    gateway: Gateway, market: Market, trader: Trader, method: str
) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        subscribe(client)
        assert client.result(method, {"channels": ["account.orders", "trades.A/B"]}) == ["account.orders"]
        order_id = trader.place(gateway, limit(symbol))["order_id"]
        market.publish(symbol, accepted := order_event("accepted", order_id, symbol))
        assert client.receive() == accepted
        client.expect_silence()


def test_subscribing_again_sends_a_snapshot_again(gateway: Gateway, trader: Trader) -> None:
    with trader.connect(gateway) as client:
        assert subscribe(client) == subscribe(client) == []


def test_account_orders_are_resumed_at_another_instance_with_all_that_closed_meanwhile(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    first, second, third, resting = (trader.place(gateway, limit(symbol))["order_id"] for _ in range(4))
    with trader.connect(gateway) as client:
        assert client.result("private/subscribe", {"channels": ["account.orders"]}) == ["account.orders"]
        begun = json.loads(client.receive())
        market.publish(symbol, filled := order_event("filled", first, symbol))
        assert client.receive() == filled
        told = json.loads(client.receive())
        assert [(order["order_id"], order["status"]) for order in told["notification"]["orders"]] == [(first, "filled")]
    # Read in the same beat as what comes now it would be told there once more.
    trader.wait_for(other, first, "filled")
    fourth = trader.place(gateway, limit(symbol))["order_id"]
    # An event that is read before its order's command waits for it, and the closings of other orders come before it.
    trader.wait_for(other, fourth, "pending")
    market.publish(
        symbol,
        order_event("cancelled", second, symbol),
        fill(symbol, buy_order_id=resting, quantity="0.5"),
        order_event("filled", fourth, symbol),
        order_event("rejected", third, symbol, reason="no"),
    )
    trader.wait_for(other, third, "rejected")
    since = {"account.orders": {"epoch": begun["epoch"], "seq": told["seq"]}}
    with trader.connect(other) as client:
        asked = {"channels": ["account.orders"], "since": since}
        assert client.result("private/subscribe", asked) == ["account.orders"]
        resumed = json.loads(client.receive())
        assert (resumed["recovered"], resumed["epoch"]) == (True, begun["epoch"])
        assert [(order["order_id"], order["status"]) for order in resumed["notification"]["orders"]] == [
            (second, "cancelled"),
            (fourth, "filled"),
            (third, "rejected"),
            (resting, "partially_filled"),
        ]
        client.expect_silence()
        # From there on it goes on, and who comes back with that misses nothing and hears nothing twice.
        since["account.orders"]["seq"] = resumed["seq"]
        assert client.result("private/subscribe", asked) == ["account.orders"]
        again = json.loads(client.receive())
        assert again["recovered"] is True
        assert [order["order_id"] for order in again["notification"]["orders"]] == [resting]


def test_private_subscribe_ends_the_market_data_stream(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway, "/ws") as client, WebSocket(gateway.address) as witness:
        market.publish(symbol, record := fill(symbol))
        client.receive_until(lambda message: message == record)
        subscribe(client)
        market.publish(symbol, record := fill(symbol, n=2))
        witness.receive_until(lambda message: message == record)
        client.expect_silence()


def test_thousand_open_orders_are_all_in_the_snapshot(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    ids = [str(uuid.uuid4()) for _ in range(1000)]
    market.publish_orders(symbol, *(order_command(one, trader.user_id, symbol) for one in ids))
    gateway.wait_until(lambda: len(trader.orders(gateway)) == len(ids), "all orders known")
    with trader.connect(gateway) as client:
        assert {order["order_id"] for order in subscribe(client)} == set(ids)


# The engine's own events


def odd(kind: str, order_id: str, symbol: str, **more: object) -> bytes:
    """An event as differently written as JSON allows."""
    return b' \n{"z\xc3\xa9":{"a":[1.50,"\\u00e9"]} , ' + order_event(kind, order_id, symbol, **more)[1:] + b"\t"


def test_private_events_reach_every_connection_of_the_user_byte_for_byte_and_nobody_else(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol, stranger = fresh_symbol(), Trader()
    order_id = trader.place(gateway, limit(symbol))["order_id"]
    events = [
        odd("accepted", order_id, symbol, user_id=trader.user_id, price=1.1),
        odd("cancelled", order_id, symbol),
        odd("filled", order_id, symbol, user_id="somebody"),
        order_event("rejected", order_id, symbol, timestamp=1),
    ]
    with trader.connect(gateway) as silent, trader.connect(gateway) as listening, trader.connect(other) as elsewhere, \
            trader.connect(other, "/ws") as streaming, WebSocket(gateway.address, "/ws?stream=none") as late, \
            stranger.connect(gateway) as third, WebSocket(gateway.address) as nobody, \
            stranger.connect(other, "/ws") as fourth:  # fmt: skip
        trader.sign_in(late)
        subscribe(listening)
        subscribe(third)
        public = fill(symbol)
        market.publish(symbol, *events, public)
        for client in (silent, elsewhere, late):
            assert [client.receive() for _ in events] == events
            client.expect_silence()
        told, changes = [], b""
        # A change comes at the end of a beat: behind all of the events, or between them.
        while len(told) < len(events) or b'"cancelled"' not in changes:
            message = listening.receive()
            if b"account.orders" in message:
                changes += message
            else:
                told.append(message)
        assert told == events
        for client in (nobody, fourth, streaming):
            shown = client.receive_until(lambda message: message == public)
            mine = [message for message in shown if order_id.encode() in message and message != public]
            if client is streaming:
                # Two ways to one connection; what is private and what is public need not wait for each other.
                while len(mine) < len(events):
                    mine.append(streaming.receive())
                assert mine == events
            else:
                assert mine == []
            client.expect_silence()
        third.expect_silence()


def test_events_of_orders_that_another_instance_took_come_here(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        order_id = trader.place(other, limit(symbol))["order_id"]
        # The owner is on the order topic alone: the event names nobody.
        market.publish(symbol, accepted := order_event("accepted", order_id, symbol))
        assert client.receive() == accepted


def test_owner_is_who_placed_the_order_whatever_its_event_says(gateway: Gateway, market: Market) -> None:
    symbol, owner, named = fresh_symbol(), Trader(), Trader()
    order_id = owner.place(gateway, limit(symbol))["order_id"]
    with owner.connect(gateway) as mine, named.connect(gateway) as theirs:
        market.publish(symbol, event := order_event("accepted", order_id, symbol, user_id=named.user_id))
        assert mine.receive() == event
        theirs.expect_silence()


def test_signing_in_changes_nothing_on_the_market_data_stream(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address) as client:
        answer, _ = client.call("public/auth", {"token": trader.token})
        assert answer["result"]["user_id"] == trader.user_id
        market.publish(symbol, record := fill(symbol))
        assert record in client.receive_until(lambda message: symbol.encode() in message)


# How it ends


def test_expired_token_ends_what_is_private_and_leaves_what_is_public(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol))["order_id"]

    def subscribe_to_both(client: WebSocket) -> None:
        client.subscribe(f"trades.{symbol}")
        subscribe(client)

    with expiring(gateway, trader, subscribe_to_both) as (client, _), trader.connect(gateway) as witness:
        assert client.receive() == EXPIRED
        market.publish(symbol, event := order_event("accepted", order_id, symbol))
        assert witness.receive() == event
        for method, params in (
            ("private/place_order", limit(symbol)),
            ("private/cancel_order", {"order_id": order_id}),
            ("private/cancel_all", {}),
            ("private/subscribe", {"channels": ["account.orders"]}),
            ("private/set_cancel_on_disconnect", {"enabled": True}),
        ):
            answer, before = client.call(method, params)
            error_of(answer, 10000)
            assert before == []
        assert len(market.commands_of(symbol)) == 1
        market.publish(symbol, fill(symbol, quantity="7"))
        assert b'"trades":[[10.10,7' in client.receive()
        # A new token brings it all back; the channel has to be subscribed again.
        assert client.call("public/auth", {"token": trader.token})[0]["result"]["user_id"] == trader.user_id
        assert [order["order_id"] for order in subscribe(client)] == [order_id]
        market.publish(symbol, event := order_event("cancelled", order_id, symbol))
        assert client.receive() == event
    gateway.wait_log(r"client \d+: its token has expired")


def test_token_of_the_upgrade_expires_too(gateway: Gateway, trader: Trader) -> None:
    with expiring(gateway, trader, subscribe, by_header=True) as (client, orders):
        assert orders == []
        assert client.receive() == EXPIRED


def test_renewed_token_does_not_expire_with_the_first(gateway: Gateway, trader: Trader) -> None:
    # Of the two first tokens the renewed one ends sooner.
    with expiring(gateway, trader, trader.sign_in) as (long, _), expiring(gateway, trader) as (short, _):
        assert short.receive() == EXPIRED
        long.expect_silence()
        assert long.result("private/cancel_all", {}) == {"order_ids": []}


def test_connection_stays_its_first_users(gateway: Gateway, trader: Trader) -> None:
    stranger = Trader()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        trader.sign_in(client)
        error_of(client.call("public/auth", {"token": stranger.token})[0], 10000)
        error_of(client.call("public/auth", {"token": "a.b.c"})[0], 10000)
        # It is still the first one's, whom nothing was taken from.
        order_id = client.result("private/place_order", limit(fresh_symbol()))["order_id"]
    assert trader.order(gateway, order_id) is not None
    assert stranger.order(gateway, order_id) is None


def test_connection_stays_its_first_users_when_the_token_has_expired(gateway: Gateway, trader: Trader) -> None:
    with expiring(gateway, trader, by_header=True) as (client, _):
        assert client.receive() == EXPIRED
        error_of(client.call("public/auth", {"token": Trader().token})[0], 10000)
        error_of(client.call("private/cancel_all", {})[0], 10000)


@pytest.mark.parametrize("token", [None, 5, "", "x", "a.b.c", ["a"]])
def test_bad_token_is_refused_and_the_connection_goes_on(gateway: Gateway, token: object) -> None:
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        answer, _ = client.call("public/auth", {"token": token})
        error_of(answer, 10000 if isinstance(token, str) else -32602)
        client.expect_silence()


def test_upgrade_with_a_bad_token_is_401(gateway: Gateway) -> None:
    for headers in (bearer("a.b.c"), bearer(pass_of("u", seconds=-61)), {"Authorization": "Basic eDp5"}):
        with pytest.raises(Refused) as refused:
            WebSocket(gateway.address, "/ws", headers)
        check_problem(refused.value.answer, 401)
        assert refused.value.answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_private_events_come_until_the_close_of_a_drain(market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    # It drains for as long as this takes; a second signal ends that.
    with Gateway.on(market, settings(drain_seconds=3600)) as gateway, trader.connect(gateway) as client:
        order_id = trader.place(gateway, limit(symbol))["order_id"]
        gateway.send_signal(signal.SIGTERM)
        gateway.wait_until(lambda: gateway.get("/ready").status == 503, "draining")
        market.publish(symbol, event := dump({"type": "order_filled", "order_id": order_id}))
        assert client.receive() == event
        gateway.send_signal(signal.SIGTERM)
        assert client.receive_close().code == 1001
