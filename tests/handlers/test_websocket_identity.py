"""Who is who on `/ws`: tokens, their end, and what is the user's alone."""

from __future__ import annotations

import json

import pytest

from core.access.identity import Principal
from core.errors import CloseCode
from tests.core.fake_orders import command
from tests.core.fakes import fill, snapshot
from tests.core.sessions import ORDER_ID
from tests.handlers.websocket_server import EXPIRED, LIMIT, asked, call, placed, serve
from tests.handlers.wire import UPGRADE, connected, until

# Signing in.


@pytest.mark.gen_test
async def test_auth_by_message_is_answered_with_the_token_and_whose_it_is() -> None:
    async with serve() as server, server.client() as connection:
        answer = await asked(connection, "public/auth", token="alice-token")
        assert answer == {
            "id": 1,
            "result": {"access_token": "alice-token", "token_type": "bearer", "user_id": "alice"},
        }
        assert server.trade.private.connections == 1
        assert await placed(connection)
        assert [record["user_id"] for record in server.records("place_order")] == ["alice"]


@pytest.mark.gen_test
async def test_auth_by_header_needs_no_message() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        assert server.trade.private.connections == 1
        await placed(connection)
        assert [record["user_id"] for record in server.records("place_order")] == ["alice"]


@pytest.mark.parametrize("header", ["Bearer bad", "Bearer", "Basic alice-token", "alice-token"])
@pytest.mark.parametrize("allows_anonymous", [True, False])
@pytest.mark.gen_test
async def test_bad_header_is_answered_401_before_the_upgrade(header: str, allows_anonymous: bool) -> None:
    async with serve(allows_anonymous=allows_anonymous) as server, connected(server.port) as connection:
        answer = await connection.ask("GET", "/ws", **UPGRADE, Authorization=header)
        assert (answer.status, answer.json()["type"]) == (401, "urn:mexchange:problem:unauthorised")
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert server.driven.hub.subscribers == set()


@pytest.mark.gen_test
async def test_bad_token_is_answered_10000_and_changes_nothing() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        answer = await asked(connection, "public/auth", token="bad")
        assert (answer["id"], answer["error"]["code"]) == (1, 10000)
        assert await placed(connection)


@pytest.mark.gen_test
async def test_connection_stays_its_first_users() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        assert (await asked(connection, "public/auth", token="bob-token"))["error"]["code"] == 10000
        await placed(connection)
        assert [record["user_id"] for record in server.records("place_order")] == ["alice"]
        assert (await asked(connection, "public/auth", token="alice-token"))["result"]["user_id"] == "alice"
        assert server.trade.private.connections == 1


@pytest.mark.gen_test
async def test_messages_after_an_auth_that_waits_for_keys_are_read_after_it() -> None:
    async with serve() as server, server.client() as connection, server.client() as other:
        await connection.say(
            call("public/auth", 1, token="fresh-1"), call("public/ping", 2), call("private/place_order", 3, **LIMIT)
        )
        await until(lambda: server.tokens.fetches == 1)
        assert (await asked(other, "public/ping"))["result"] == "pong", "everybody else is served"
        assert server.trade.log.produced == []
        server.tokens.fetched["fresh-1"] = Principal("alice", float("inf"))
        server.tokens.may_fetch.set()
        answers = [await connection.message() for _ in range(3)]
        assert [answer["id"] for answer in answers] == [1, 2, 3]
        assert ["result" in answer for answer in answers] == [True] * 3
        assert [record["user_id"] for record in server.records("place_order")] == ["alice"]


@pytest.mark.gen_test
async def test_token_whose_key_cannot_be_had_is_answered_10000() -> None:
    async with serve() as server, server.client() as connection:
        server.tokens.may_fetch.set()
        assert (await asked(connection, "public/auth", token="fresh-1"))["error"]["code"] == 10000
        assert (await asked(connection, "public/ping"))["result"] == "pong"


@pytest.mark.gen_test
async def test_client_that_leaves_while_its_key_is_fetched_is_not_signed_in() -> None:
    async with serve() as server:
        async with server.client() as connection:
            await connection.say(call("public/auth", 1, token="fresh-1"))
            await until(lambda: server.tokens.fetches == 1)
            [subscriber] = server.driven.hub.subscribers
            subscriber.end(CloseCode.GOING_AWAY, "reconnect")
            server.tokens.fetched["fresh-1"] = Principal("alice", float("inf"))
            server.tokens.may_fetch.set()
            assert (await connection.closed())[0] == 1001
        await server.alone()
        assert server.trade.private.connections == 0


@pytest.mark.gen_test
async def test_order_that_was_sent_before_the_token_is_nobodys() -> None:
    async with serve(allows_anonymous=True) as server, server.client() as connection:
        await connection.say(
            call("private/place_order", 1, **LIMIT), call("public/auth", 2, token="alice-token"),
            call("private/place_order", 3, **LIMIT),
        )  # fmt: skip
        assert {(await connection.message())["id"] for _ in range(3)} == {1, 2, 3}
        assert [record["user_id"] for record in server.records("place_order")] == [None, "alice"]


@pytest.mark.gen_test
async def test_authentication_changes_nothing_of_the_market_data_stream_but_a_private_subscription_does() -> None:
    async with serve() as server:
        server.driven.say((0, 1, snapshot()))
        async with server.client(path="/ws") as connection:
            assert (await connection.message())["type"] == "orderbook_snapshot"
            await asked(connection, "public/auth", token="alice-token")
            server.driven.say((0, 2, fill()))
            assert (await connection.message())["type"] == "fill"
            await asked(connection, "private/subscribe", channels=["account.orders"])
            assert (await connection.message())["channel_name"] == "account.orders"
            server.driven.say((0, 3, fill()))
            assert (await asked(connection, "public/ping"))["result"] == "pong"


# The end of a token.


@pytest.mark.gen_test
async def test_expiry_ends_what_is_private_and_leaves_what_is_public() -> None:
    async with serve() as server:
        token = server.expires_in("short", 0.001)
        async with server.client(token) as connection:
            await asked(connection, "private/subscribe", channels=["account.orders"])
            await connection.message()
            await asked(connection, "public/subscribe", channels=["events.KCN/EUR"])
            order_id = await placed(connection)
            server.trade.private.flush()
            assert (await connection.message())["channel_name"] == "account.orders"
            server.now += 0.001
            assert await connection.message() == EXPIRED
            assert server.trade.private.connections == 0
            server.hear("order_filled", order_id)
            server.driven.say((0, 1, fill()))
            assert (await connection.message())["channel_name"] == "events.KCN/EUR"
            for method, params in (
                ("private/place_order", LIMIT),
                ("private/cancel_order", {"order_id": order_id}),
                ("private/cancel_all", {}),
                ("private/subscribe", {"channels": ["account.orders"]}),
            ):
                assert (await asked(connection, method, **params))["error"]["code"] == 10000


@pytest.mark.gen_test
async def test_token_is_renewed_before_its_end_and_after_it() -> None:
    async with serve() as server:
        async with server.client(server.expires_in("first", 0.001)) as connection:
            await asked(connection, "public/auth", token=server.expires_in("second", 0.002))
            server.now += 0.0015
            assert (await asked(connection, "public/ping"))["result"] == "pong"
            await placed(connection)
            server.now += 0.001
            assert await connection.message() == EXPIRED
            answer = await asked(connection, "public/auth", token=server.expires_in("bobs", 9, "bob"))
            assert answer["error"]["code"] == 10000, "it stays alice's connection"
            await asked(connection, "public/auth", token=server.expires_in("third", 1000))
            order_id = await placed(connection)
            payload = server.hear("order_filled", order_id)
            assert await connection.message() == json.loads(payload)
            await asked(connection, "private/subscribe", channels=["account.orders"])
            assert (await connection.message())["notification"]["snapshot"]


# What is the user's alone.


@pytest.mark.gen_test
async def test_events_of_an_order_go_to_every_connection_of_its_owner_as_the_engine_wrote_them() -> None:
    async with serve() as server:
        async with server.client("alice-token") as first, server.client("alice-token") as second:
            async with server.client("bob-token") as other:
                order_id = await placed(first)
                payload = server.hear("order_rejected", order_id, reason="größe")
                for connection in (first, second):
                    assert await connection.frame() == (1, payload)
                assert (await asked(other, "public/ping"))["result"] == "pong"


@pytest.mark.gen_test
async def test_account_orders_are_told_until_they_are_unsubscribed() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        order_id = await placed(connection)
        answer = await asked(connection, "private/subscribe", channels=["account.orders"])
        assert answer["result"] == ["account.orders"]
        told = (await connection.message())["notification"]
        assert (told["snapshot"], [order["order_id"] for order in told["orders"]]) == (True, [order_id])
        payload = server.hear("order_cancelled", order_id, filled_quantity="0.5")
        assert await connection.message() == json.loads(payload)
        [state] = (await connection.message())["notification"]["orders"]
        assert (state["status"], state["filled_quantity"]) == ("cancelled", "0.5")
        assert (await asked(connection, "unsubscribe", channels=["account.orders"]))["result"] == ["account.orders"]
        await placed(connection)
        server.trade.private.flush()
        assert (await asked(connection, "public/ping"))["result"] == "pong"


@pytest.mark.gen_test
async def test_account_orders_are_refused_while_others_orders_cannot_be_read_and_the_stream_goes_on() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        server.trade.is_reachable = False
        refused = await asked(connection, "private/subscribe", channels=["account.orders"])
        assert refused["error"]["code"] == 10004
        assert (await asked(connection, "unsubscribe", channels=["account.orders"]))["result"] == []
        server.trade.is_reachable = True
        await asked(connection, "private/subscribe", channels=["account.orders"])
        assert (await connection.message())["notification"] == {"orders": [], "snapshot": True}


@pytest.mark.gen_test
async def test_account_orders_begin_with_what_other_instances_had_accepted() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        server.trade.topic.end = 1
        await connection.say(call("private/subscribe", channels=["account.orders"]))
        await connection.say(call("public/ping"))
        await until(lambda: server.trade.catch_up.is_awaited)
        server.trade.see(command(ORDER_ID, "alice"))
        assert (await connection.message())["result"] == ["account.orders"]
        [order] = (await connection.message())["notification"]["orders"]
        assert order["order_id"] == ORDER_ID
        assert (await connection.message())["result"] == "pong", "what came after it is read after it"
