"""Orders over `/ws`: what becomes of them, how often, and what a connection takes with it when it ends."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

import handlers.websocket
from core.access.limits import Bucket, Limiter, Policy
from core.access.penalties import Penalties
from core.errors import CloseCode
from core.orders.pieces import PIECE
from tests.core.admission import taker
from tests.core.fake_orders import command
from tests.core.trading import CERTAINLY_NOT
from tests.handlers.websocket_server import EXPIRED, LIMIT, asked, call, placed, serve
from tests.handlers.wire import CLOSE, PING, UPGRADE, Connection, connected, until

# Orders.


@pytest.mark.gen_test
async def test_other_messages_are_read_while_an_order_waits_for_its_acknowledgement() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        server.trade.log.acks = False
        await connection.say(call("private/place_order", 1, **LIMIT, client_order_id="a"), call("public/ping", 2))
        assert (await connection.message())["id"] == 2
        await connection.say(call("private/place_order", 3, **LIMIT, client_order_id="a"))
        await connection.say(call("private/cancel_order", 4, client_order_id="a"))
        await until(lambda: len(server.trade.log.produced) == 2)
        for one in server.trade.log.produced:
            one.ack()
        answers = {(answer := await connection.message())["id"]: answer["result"] for _ in range(3)}
        order_id = answers[1]["order_id"]
        assert answers == {
            1: {"order_id": order_id, "client_order_id": "a"},
            3: {"order_id": order_id, "client_order_id": "a", "duplicate": True},
            4: {"order_id": order_id},
        }


@pytest.mark.gen_test
async def test_order_is_answered_with_what_became_of_it() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        order = call("private/place_order", 7, **LIMIT, client_order_id="a")
        server.trade.log.refuses = CERTAINLY_NOT
        await connection.say(order)
        assert (await connection.message())["error"]["code"] == 10004
        server.trade.log.refuses, server.trade.log.acks = None, False
        await connection.say(order)
        await until(lambda: bool(server.trade.log.produced))
        server.trade.log.last.lose()
        told = await connection.message()
        order_id = server.trade.log.last.order_id
        assert (told["id"], told["error"]["code"], told["error"]["data"]) == (7, 10005, {"order_id": order_id})
        server.trade.log.acks = True
        assert (await asked(connection, "private/place_order", **LIMIT, client_order_id="a"))["result"][
            "order_id"
        ] == order_id
        other = await asked(connection, "private/place_order", **{**LIMIT, "quantity": "9"}, client_order_id="a")
        assert other["error"]["code"] == 10001
        assert (await asked(connection, "private/cancel_order", order_id="17"))["error"]["code"] == 10002
        bad = await asked(connection, "private/place_order", **{**LIMIT, "price": "1.501"})
        assert bad["error"]["data"]["errors"] == [
            {"field": "price", "message": "expected a multiple of the tick, 0.01"}
        ]
        assert (await asked(connection, "private/cancel_all"))["result"] == {"order_ids": [order_id]}


@pytest.mark.gen_test
async def test_client_that_a_shutdown_sends_away_is_first_told_what_became_of_its_orders() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        server.trade.log.acks = False
        await connection.say(*(call("private/place_order", number, **LIMIT) for number in (1, 2)))
        await until(lambda: len(server.trade.log.produced) == 2)
        [subscriber] = server.driven.hub.subscribers
        subscriber.end(CloseCode.GOING_AWAY, "reconnect")
        await connection.say(call("private/place_order", 3, **LIMIT), call("public/ping", 4))
        late = await connection.message()
        assert (late["id"], late["error"]["code"]) == (3, 10004)
        assert (await connection.message())["result"] == "pong"
        first, second = server.trade.log.produced
        second.lose()
        assert (told := await connection.message())["id"] == 2
        assert told["error"]["code"] == 10005
        first.ack()
        assert (await connection.message())["result"]["order_id"] == first.order_id
        assert await connection.closed() == (1001, "reconnect")
        assert len(server.trade.log.produced) == 2


@pytest.mark.gen_test
async def test_records_have_the_handshakes_request_id_and_trace() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serve() as server, connected(server.port) as connection:
        answer = await connection.ask(
            "GET",
            "/ws?stream=none",
            **UPGRADE,
            Authorization="Bearer alice-token",
            X_Request_Id="hand",
            Traceparent=trace,
        )
        assert (answer.status, answer.headers["x-request-id"]) == (101, "hand")
        await asked(connection, "private/set_cancel_on_disconnect", enabled=True)
        await asked(connection, "private/place_order", **LIMIT, client_order_id="a")
        await asked(connection, "private/cancel_order", client_order_id="a")
        await asked(connection, "private/cancel_all")
    await until(lambda: len(server.trade.log.produced) == 4)  # the last goes with the connection
    for one in server.trade.log.produced:
        assert one.headers == [("x-request-id", "hand"), ("traceparent", trace)]


@pytest.mark.gen_test
async def test_older_dialect_signs_in_orders_and_cancels_in_its_own_form() -> None:
    async with serve() as server, server.client() as connection:
        await connection.say({"type": "place_order", **LIMIT})
        refused = await connection.message()
        assert (refused["type"], refused["success"], refused["order_id"]) == ("order_result", False, None)
        await connection.say({"type": "auth", "token": "bad"})
        assert (await connection.message())["success"] is False
        await connection.say({"type": "auth", "token": "alice-token"})
        assert await connection.message() == {
            "type": "auth_result", "success": True, "user_id": "alice", "error": None,
        }  # fmt: skip
        await connection.say({"type": "place_order", **LIMIT})
        answer = await connection.message()
        order_id = answer["order_id"]
        assert answer == {"type": "order_result", "success": True, "order_id": order_id, "error": None}
        await connection.say({"type": "cancel_order", "order_id": order_id})
        assert await connection.message() == {
            "type": "cancel_result", "success": True, "order_id": order_id, "error": None,
        }  # fmt: skip
        server.hear("order_filled", order_id)
        await connection.message()
        await connection.say({"type": "cancel_order", "order_id": order_id})
        assert await connection.message() == {
            "type": "cancel_result", "success": False, "order_id": order_id, "error": "the order is filled",
        }  # fmt: skip


# How often.


@pytest.mark.gen_test
async def test_orders_and_cancels_over_the_limit_are_answered_10003_and_cancel_all_is_not() -> None:
    async with serve(orders=taker("orders", 0.5, 1), cancels=taker("cancels", 0.25, 1)) as server:
        async with server.client("alice-token") as connection, server.client("alice-token") as other:
            order_id = await placed(connection)
            told = await asked(other, "private/place_order", **LIMIT)
            assert (told["error"]["code"], told["error"]["data"]) == (10003, {"retry_after": 3})
            assert "result" in await asked(connection, "private/cancel_order", order_id=order_id)
            told = await asked(other, "private/cancel_order", order_id=order_id)
            assert (told["error"]["code"], told["error"]["data"]) == (10003, {"retry_after": 5})
            for _ in range(3):
                assert "result" in await asked(connection, "private/cancel_all")
        counted = server.context.metrics.registry.get_sample_value
        assert counted("gateway_rate_limited_total", {"route": "orders"}) == 1
        assert counted("gateway_rate_limited_total", {"route": "cancels"}) == 1


@pytest.mark.parametrize("kind", ["text", "binary"])
@pytest.mark.gen_test
async def test_flood_is_answered_10003_with_each_requests_id_and_at_last_closed_1008(kind: str) -> None:
    async with serve(messages=Policy("requests", 0.01, 3)) as server, server.client() as connection:
        if kind == "text":
            await connection.say(*(call("public/ping", number) for number in range(9)))
        else:
            from tests.handlers.wire import BINARY, FINAL, client_frame

            await connection.send(client_frame(b"{}", FINAL | BINARY) * 9)
        answers = [await connection.message() for _ in range(6)]
        told = [answer.get("error", {}).get("code") for answer in answers]
        if kind == "text":
            assert [answer["id"] for answer in answers] == [0, 1, 2, 3, 4, 5]
            assert told == [None] * 3 + [10003] * 3
        else:
            assert told == [-32700] * 3 + [10003] * 3
        assert answers[3]["error"]["data"]["retry_after"] in (100, 101)
        assert await connection.closed() == (1008, "flood")


@pytest.mark.gen_test
async def test_flood_is_counted_as_the_cause_of_the_close() -> None:
    async with serve(messages=Policy("requests", 0.01, 1)) as server:
        async with server.client() as connection:
            await connection.say(*[call("public/ping")] * 3)
            await connection.message()
            await connection.message()
            assert (await connection.closed())[0] == 1008
        counted = server.context.metrics.registry.get_sample_value
        await until(lambda: counted("gateway_closes_total", {"cause": "flood"}) == 1)


FLOOD = {"messages": Policy("requests", 0.01, 1)}


async def flood(connection: Connection) -> None:
    """Until it is closed."""
    await connection.say(*[call("public/subscribe", channels=["no such channel"])] * 3)
    for _ in range(2):
        assert "error" in await connection.message()
    assert await connection.closed() == (1008, "flood")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has flooded has its 429 at once."""
    monkeypatch.setattr(handlers.websocket, "PENALTY_ANSWER_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.gen_test
async def test_user_that_has_flooded_gets_no_connection_for_a_while_and_others_do() -> None:
    now = [0.0]
    async with serve(**FLOOD, penalties=Penalties(30, lambda: now[0])) as server:
        async with server.client("alice-token") as connection:
            await flood(connection)
        now[0] = 0.5
        async with connected(server.port) as connection:
            answer = await connection.ask("GET", "/ws", **UPGRADE, Authorization="Bearer alice-token")
            assert (answer.status, answer.headers["retry-after"]) == (429, "30")
            assert answer.json()["type"] == "urn:mexchange:problem:too-many-requests"
            # On the same connection, whoever it is.
            assert (await connection.ask("GET", "/ws", **UPGRADE, Authorization="Bearer bob-token")).status == 101
        async with server.client() as connection:
            told = await asked(connection, "public/auth", token="alice-token")
            assert (told["error"]["code"], told["error"]["data"]) == (10003, {"retry_after": 30})
        counted = server.context.metrics.registry.get_sample_value
        assert counted("gateway_rate_limited_total", {"route": "penalty"}) == 2
        now[0] = 30.0
        async with server.client("alice-token") as connection:
            assert (await asked(connection, "public/ping"))["result"] == "pong"


@pytest.mark.gen_test
async def test_renewing_a_token_on_an_open_connection_is_no_new_connection() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        server.context.admission.penalise("127.0.0.1", "alice")
        assert "result" in await asked(connection, "public/auth", token="alice-token")


@pytest.mark.gen_test
async def test_who_has_flooded_waits_for_its_refusal_and_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.websocket, "PENALTY_ANSWER_SECONDS", 3600.0)
    async with serve() as server:
        server.context.admission.penalise("127.0.0.1", "alice")
        async with connected(server.port) as connection:
            asking = asyncio.create_task(connection.ask("GET", "/ws", **UPGRADE, Authorization="Bearer alice-token"))
            async with server.client("bob-token") as other:
                assert (await asked(other, "public/ping"))["result"] == "pong"
            assert not asking.done()
            asking.cancel()


@pytest.mark.gen_test
async def test_nothing_that_who_has_flooded_still_sends_is_served() -> None:
    async with serve(messages=Policy("requests", 0.01, 1)) as server:
        async with server.client("alice-token") as connection:
            order = call("private/place_order", **LIMIT)
            await connection.say(*[call("public/ping")] * 3, *[order] * 50)
            await connection.message()
            await connection.message()
            assert await connection.closed() == (1008, "flood")
            await connection.say(*[order] * 50)
            await server.alone()
        counted = server.context.metrics.registry.get_sample_value
        assert counted("gateway_client_messages_total") == 3
        assert not server.trade.log.produced


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("trusts_addresses", [True, False])
@pytest.mark.gen_test
async def test_address_that_has_flooded_gets_no_connection_where_addresses_are_trusted(trusts_addresses: bool) -> None:
    async with serve(
        **FLOOD, trusts_addresses=trusts_addresses, connects=Bucket(Policy("connects", 0.01, 2))
    ) as server:
        async with server.client() as connection:
            await flood(connection)
        for _ in range(3):
            async with connected(server.port) as connection:
                answer = await connection.ask("GET", "/ws", **UPGRADE)
                assert answer.status == (429 if trusts_addresses else 101)
                if not trusts_addresses:
                    return
                assert int(answer.headers["retry-after"]) in (29, 30)
        counted = server.context.metrics.registry.get_sample_value
        assert counted("gateway_rate_limited_total", {"route": "penalty"}) == 3
        assert counted("gateway_rate_limited_total", {"route": "connects"}) is None, "nobody else pays for it"


@pytest.mark.gen_test
async def test_messages_of_one_address_are_limited_over_all_its_connections() -> None:
    limiter = Limiter(Policy("requests", 0.5, 3), clock=lambda: 0.0)
    async with serve(address_requests=limiter, address_requests_per_second=0.5) as server:
        async with server.client() as first, server.client() as second:
            assert (await asked(first, "public/ping"))["result"] == "pong"
            assert (await asked(second, "public/ping"))["result"] == "pong"
            assert (await asked(first, "public/ping"))["result"] == "pong"
            told = await asked(second, "public/ping")
            assert (told["id"], told["error"]["code"], told["error"]["data"]) == (1, 10003, {"retry_after": 3})


@pytest.mark.gen_test
async def test_connects_over_the_limit_are_answered_429_before_the_upgrade() -> None:
    async with serve(connects=Bucket(Policy("connects", 0.5, 1), clock=lambda: 0.0)) as server:
        async with server.client(), connected(server.port) as connection:
            answer = await connection.ask("GET", "/ws", **UPGRADE)
            assert (answer.status, answer.headers["retry-after"]) == (429, "3")


@pytest.mark.gen_test
async def test_connections_of_one_address_are_bounded_and_counted_until_they_end() -> None:
    proxies = (ip_network("127.0.0.0/8"),)
    async with serve(max_connections_per_address=1, trusted_proxies=proxies) as server:
        for _ in range(2):
            async with (
                connected(server.port) as first,
                connected(server.port) as second,
                connected(server.port) as third,
            ):
                await first.upgrade(X_Forwarded_For="203.0.113.9")
                refused = await second.ask("GET", "/ws", **UPGRADE, X_Forwarded_For="203.0.113.9")
                assert (refused.status, refused.json()["type"]) == (503, "urn:mexchange:problem:unavailable")
                await third.upgrade(X_Forwarded_For="203.0.113.10")
            await server.alone()
        assert server.context.admission.connected == {}


# Many.


@pytest.mark.gen_test
async def test_long_lists_of_orders_are_whole() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        for number in range(3 * PIECE):
            server.trade.see(command(f"{number:05}", time_ms=number, symbol="KCN/EUR" if number % 3 else "ABC/EUR"))
        ids = [f"{number:05}" for number in range(3 * PIECE)]
        answer = await asked(connection, "private/open_orders")
        assert [order["order_id"] for order in answer["result"]] == ids
        answer = await asked(connection, "private/open_orders", instrument_name="ABC/EUR")
        assert [order["order_id"] for order in answer["result"]] == ids[::3]
        assert (await asked(connection, "private/open_orders", instrument_name="NO/NE"))["result"] == []
        await asked(connection, "private/subscribe", channels=["account.orders"])
        snapshot = await connection.message()
        assert [order["order_id"] for order in snapshot["notification"]["orders"]] == ids


# Cancel on disconnect.


@pytest.mark.parametrize("how", ["client", "drain"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.gen_test
async def test_open_orders_of_a_connection_are_cancelled_when_it_ends(how: str, when: str) -> None:
    async with serve() as server:
        async with server.client("alice-token") as other, server.client("alice-token") as connection:
            if when == "before":
                await asked(connection, "private/set_cancel_on_disconnect", enabled=True)
            await placed(other)
            first, closed, second = [await placed(connection) for _ in range(3)]
            server.hear("order_filled", closed)
            await connection.message()
            if when == "after":
                answer = await asked(connection, "private/set_cancel_on_disconnect", enabled=True)
                assert answer["result"] == {"enabled": True}
            if how == "client":
                connection.writer.close()
                await until(lambda: len(server.driven.hub.subscribers) == 1)
            else:
                for subscriber in [*server.driven.hub.subscribers]:
                    subscriber.end(CloseCode.GOING_AWAY, "reconnect")
            await server.order_services.finish(10)
            assert sorted(server.cancels) == sorted([(first, "alice"), (second, "alice")])


@pytest.mark.gen_test
async def test_orders_are_cancelled_with_their_connection_also_when_the_token_has_expired() -> None:
    async with serve() as server:
        async with server.client(server.expires_in("short", 0.001)) as connection:
            await asked(connection, "private/set_cancel_on_disconnect", enabled=True)
            order_id = await placed(connection)
            server.now += 1
            assert await connection.message() == EXPIRED
        await server.alone()
        assert server.cancels == [(order_id, "alice")]


@pytest.mark.gen_test
async def test_client_that_promised_signs_of_life_and_shows_none_is_gone_and_its_orders_with_it() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        await asked(connection, "private/set_cancel_on_disconnect", timeout_secs=0.02)
        order_id = await placed(connection)
        assert await connection.frame() == (PING, b"")
        opcode, payload = await connection.frame()
        assert (opcode, payload[:2]) == (CLOSE, CloseCode.PING_TIMEOUT.to_bytes(2, "big"))
        await server.alone()
        assert server.cancels == [(order_id, "alice")]


@pytest.mark.gen_test
async def test_client_that_promises_nothing_more_is_pinged_as_everybody_is() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        for seconds in (0.02, 0):
            await asked(connection, "private/set_cancel_on_disconnect", timeout_secs=seconds)
        [subscriber] = server.driven.hub.subscribers
        handler = subscriber.end.__self__  # type: ignore[attr-defined]
        assert handler.ws_connection.ping_interval == server.settings.websocket.ping_interval_seconds
        order_id = await placed(connection)
        connection.writer.close()
        await server.alone()
        assert order_id
        assert server.cancels == []
