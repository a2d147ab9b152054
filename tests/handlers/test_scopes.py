"""What a token's scope allows, over REST, over WebSocket and on the routes that are passed through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from core.access.identity import Principal
from core.access.scopes import CANCEL, EVERYTHING, NOTHING, READ, TRADE
from handlers.passthrough import passed_user
from handlers.problems import Refusal
from tests.core.admission import NEVER, Tokens, admission, taker
from tests.handlers.orders_server import LIMIT, OrdersServer, check_refused
from tests.handlers.orders_server import serve as serve_orders
from tests.handlers.test_amends import serve as serve_amends
from tests.handlers.websocket_server import StreamServer, asked, placed, serve
from tests.handlers.wire import UPGRADE, connected


def allow(server: OrdersServer | StreamServer, name: str, allowed: frozenset[str]) -> str:
    """A token of alice's that allows this."""
    tokens: Any = server.context.admission.authenticator
    tokens.good[f"{name}-token"] = Principal("alice", NEVER, allowed)
    return f"{name}-token"


TRADER = frozenset({TRADE, CANCEL})
ROUTES = [
    ("POST", "/api/order", LIMIT, TRADE),
    ("POST", "/api/order", {**LIMIT, "validate_only": True}, TRADE),
    ("POST", "/api/order/cancel", {"order_id": "17", "symbol": "KCN/EUR"}, CANCEL),
    ("POST", "/api/order/cancel_all", {}, CANCEL),
    ("POST", "/api/order/cancel_all_after", {"timeout_seconds": 5}, CANCEL),
    ("GET", "/api/order", None, READ),
    ("GET", "/api/order?client_order_id=a", None, READ),
    ("GET", "/api/order/17", None, READ),
    ("GET", "/api/order/history", None, READ),
]


@pytest.mark.parametrize(("method", "path", "body", "needed"), ROUTES)
@pytest.mark.parametrize("allows_anonymous", [True, False])
@pytest.mark.gen_test
async def test_request_is_refused_without_the_word_and_served_with_it(
    method: str, path: str, body: object, needed: str, allows_anonymous: bool
) -> None:
    async with serve_orders(allows_anonymous=allows_anonymous) as server:
        allow(server, "none", NOTHING)
        allow(server, "lacks", EVERYTHING - {needed})
        allow(server, "has", frozenset({needed}))
        for who in ("none", "lacks"):
            answer = await server.ask(method, path, body, who)
            assert check_refused(answer, 403, "insufficient_scope")["error"] == f"the token's scope has no {needed}"
            assert answer.headers["www-authenticate"] == (
                f'Bearer realm="mexchange", error="insufficient_scope", scope="{needed}"'
            )
        assert server.trade.log.records == []
        assert (await server.ask(method, path, body, "has")).status != 403
        refusals = server.context.metrics.refusals.labels("insufficient_scope")
        assert refusals.value == 2


@pytest.mark.gen_test
async def test_refused_order_takes_nothing_of_a_limit() -> None:
    async with serve_orders(orders=taker("orders", 1, 1)) as server:
        allow(server, "reader", frozenset({READ}))
        for _ in range(3):
            assert (await server.ask("POST", "/api/order", LIMIT, "reader")).status == 403
        await server.place()


METHODS: list[tuple[str, dict[str, Any], str]] = [
    ("private/place_order", {**LIMIT, "symbol": "KCN/EUR"}, TRADE),
    ("private/insert", {"direction": "buy", "instrument_name": "KCN/EUR", "amount": 1, "price": 1}, TRADE),
    ("private/buy", {"instrument_name": "KCN/EUR", "amount": 1, "price": 1}, TRADE),
    ("private/sell", {"instrument_name": "KCN/EUR", "amount": 1, "price": 1}, TRADE),
    ("private/amend", {"order_id": "17", "price": 1}, TRADE),
    ("private/cancel", {"order_id": "17"}, CANCEL),
    ("private/cancel_order", {"order_id": "17", "symbol": "KCN/EUR"}, CANCEL),
    ("private/cancel_all", {}, CANCEL),
    ("private/cancel_all_after", {"timeout_seconds": 5}, CANCEL),
    ("private/set_cancel_on_disconnect", {"enabled": True}, CANCEL),
    ("private/subscribe", {"channels": ["account.orders"]}, READ),
    ("private/open_orders", {}, READ),
]


@pytest.mark.parametrize(("method", "params", "needed"), METHODS)
@pytest.mark.parametrize("allows_anonymous", [True, False])
@pytest.mark.gen_test
async def test_method_is_refused_without_the_word_and_served_with_it(
    method: str, params: dict[str, Any], needed: str, allows_anonymous: bool
) -> None:
    async with serve(allows_anonymous=allows_anonymous) as server:
        lacks = allow(server, "lacks", EVERYTHING - {needed})
        has = allow(server, "has", frozenset({needed}))
        async with server.client(lacks) as connection:
            answer = await asked(connection, method, **params)
            assert answer["error"] == {"code": 10006, "message": f"the token's scope has no {needed}"}
            assert server.trade.log.records == []
            assert server.context.metrics.refusals.labels("insufficient_scope").value == 1
        async with server.client(has) as connection:
            assert (await asked(connection, method, **params)).get("error", {}).get("code") != 10006


@pytest.mark.gen_test
async def test_batch_asks_for_each_of_its_requests_what_that_alone_would() -> None:
    requests = [
        {"method": "place", "params": {**LIMIT, "symbol": "KCN/EUR"}},
        {"method": "cancel", "params": {"order_id": "17", "symbol": "KCN/EUR"}},
    ]
    async with serve() as server, server.client(allow(server, "c", frozenset({CANCEL}))) as connection:
        results = (await asked(connection, "private/batch", requests=requests))["result"]["results"]
        assert [one.get("error", {}).get("code") for one in results] == [10006, None]
        assert [record["type"] for record in server.trade.log.records] == ["cancel_order"]


BROKEN = [
    {"method": "place", "params": {"price": "no number"}},
    {"method": "place", "params": {}, "and": 1},
    {"method": "cancel", "params": {}},
    {"method": "none"},
]


@pytest.mark.gen_test
async def test_broken_request_of_a_batch_is_first_refused_for_its_scope() -> None:
    async with serve() as server, server.client(allow(server, "c", frozenset({CANCEL}))) as connection:
        results = (await asked(connection, "private/batch", requests=BROKEN))["result"]["results"]
        assert [one["error"]["code"] for one in results] == [10006, 10006, -32602, -32602]
    async with serve_amends() as server:
        allow(server, "c", frozenset({CANCEL}))
        answer = await server.ask("POST", "/api/order/batch", {"requests": BROKEN}, "c")
        assert [one["status"] for one in answer.json()["results"]] == [403, 403, 422, 422]


@pytest.mark.parametrize("kind", ["place_order", "cancel_order"])
@pytest.mark.gen_test
async def test_older_dialect_is_told_in_its_own_words(kind: str) -> None:
    async with serve() as server, server.client(allow(server, "reader", frozenset({READ}))) as connection:
        await connection.say({"type": kind, **LIMIT, "symbol": "KCN/EUR", "order_id": "17"})
        answer = await connection.message()
        needed = "trade" if kind == "place_order" else "cancel"
        assert (answer["success"], answer["error"]) == (False, f"the token's scope has no {needed}")
        assert server.context.metrics.refusals.labels("insufficient_scope").value == 1


@pytest.mark.gen_test
async def test_handshake_of_a_token_that_allows_nothing_is_refused() -> None:
    async with serve() as server, connected(server.port) as connection:
        allow(server, "none", NOTHING)
        answer = await connection.ask("GET", "/ws", **UPGRADE, Authorization="Bearer none-token")
        assert (answer.status, answer.json()["type"]) == (403, "urn:mexchange:problem:insufficient_scope")
        assert answer.headers["www-authenticate"].endswith('scope="cancel read trade"')


@pytest.mark.gen_test
async def test_token_that_allows_nothing_does_not_sign_in() -> None:
    async with serve() as server, server.client() as connection:
        answer = await asked(connection, "public/auth", token=allow(server, "none", NOTHING))
        assert answer["error"]["code"] == 10006
        assert (await asked(connection, "private/cancel_all"))["error"]["code"] == 10000


@pytest.mark.gen_test
async def test_newest_token_of_a_connection_counts_both_ways() -> None:
    async with serve() as server, server.client(allow(server, "reader", frozenset({READ}))) as connection:
        order = {**LIMIT, "symbol": "KCN/EUR"}
        assert (await asked(connection, "private/place_order", **order))["error"]["code"] == 10006
        await asked(connection, "private/subscribe", channels=["account.orders"])
        await connection.message()  # the snapshot
        await connection.say({"id": 5, "method": "public/auth", "params": {"token": allow(server, "t", TRADER)}})
        assert await connection.message() == {
            "type": "auth_status", "status": "narrowed", "channels": ["account.orders"],
        }  # fmt: skip
        assert (await connection.message())["id"] == 5
        order_id = await placed(connection)
        server.hear("order_accepted", order_id, side="bid", order_type="limit", price="1.50", quantity="2.0")
        assert (await asked(connection, "public/ping"))["result"] == "pong", "it hears nothing of its orders"
        assert (await asked(connection, "private/subscribe", channels=["account.orders"]))["error"]["code"] == 10006
        assert (await asked(connection, "public/auth", token="alice-token"))["result"]["user_id"] == "alice"
        assert server.trade.private.connections == 1
        assert "result" in await asked(connection, "private/subscribe", channels=["account.orders"])


@pytest.mark.gen_test
async def test_nobody_needs_no_scope_where_orders_need_no_token() -> None:
    async with serve(allows_anonymous=True) as server, server.client() as connection:
        assert await placed(connection)


@pytest.mark.parametrize(
    ("method", "path", "allowed", "user_id"),
    [
        ("GET", "/api/me", frozenset({READ}), "alice"),
        ("HEAD", "/api/balances", frozenset({READ}), "alice"),
        ("POST", "/api/faucet/eur", TRADER, "alice"),
        ("DELETE", "/api/orders/1", EVERYTHING, "alice"),
        ("POST", "/auth/password", EVERYTHING, "alice"),
        ("POST", "/auth/password", TRADER, None),
        ("GET", "/auth/me", frozenset({READ}), None),
        ("GET", "/api/me", TRADER, 403),
        ("POST", "/api/faucet/eur", frozenset({READ, CANCEL}), 403),
    ],
)
@pytest.mark.gen_test
async def test_passed_request_is_its_users_as_far_as_the_scope_allows(
    method: str, path: str, allowed: frozenset[str], user_id: str | int | None
) -> None:
    tokens = Tokens()
    tokens.good["a"] = Principal("alice", NEVER, allowed)
    handler: Any = SimpleNamespace(
        request=SimpleNamespace(method=method, path=path, headers={"Authorization": "Bearer a"})
    )
    if user_id == 403:
        with pytest.raises(Refusal) as refused:
            await passed_user(admission(tokens), handler)
        assert refused.value.problem.slug == "insufficient_scope"
    else:
        assert await passed_user(admission(tokens), handler) == user_id
