"""How often: what REST and WebSocket say at a limit, whose bucket it is, and limits that a fleet shares
(docs/contract.md#limits).
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import Refused, WebSocket
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import NAMESPACE, SECRET, Trader, check_problem, error_of, limit, own_commands
from tests.integration.waiting import wait_until
from tests.support.gateway import Answer
from tests.support.kafka import embedded_bus
from tests.support.redis import RedisServer, redis_or_skip

# Until a token comes back: so long that a bucket that is empty stays so however long a test takes.
TOKEN_SECONDS = 20_000
SCARCE = 1 / TOKEN_SECONDS
SLOW = {"orders_per_second": SCARCE, "orders_burst": 3, "cancels_per_second": SCARCE, "cancels_burst": 5}
THREE_ORDERS = f'"orders";q=3;w={3 * TOKEN_SECONDS}'


def given(limits: dict[str, object], **more: object) -> dict[str, Any]:
    return {
        "auth": {"secret": SECRET, "mode": "optional"},
        "orders": {"id_secret": str(NAMESPACE)},
        "limits": limits,
        "kafka": {"consume": "broadcast"},
        **more,
    }


@pytest.fixture(scope="module")
def default(market: Market) -> Iterator[Gateway]:
    """With the limits of the contract."""
    with Gateway.on(market, given({})) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def slow(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, given(SLOW)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def own_market() -> Iterator[Market]:
    """For gateways with limits of their own: which bus it is makes no difference to those."""
    with embedded_bus() as bus:
        yield Market.create(bus)


@pytest.fixture
def trader() -> Trader:
    return Trader()


def rate_limit(answer: Answer) -> tuple[int, int]:
    """Remaining and seconds of a `RateLimit` header."""
    found = re.fullmatch(r'"(?:orders|cancels)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert found, answer.headers["RateLimit"]
    return int(found[1]), int(found[2])


def until_refused(trader: Trader, gateway: Gateway, path: str, bodies: Iterator[object]) -> tuple[list[Answer], Answer]:
    """What was answered up to the first 429, and that."""
    answers: list[Answer] = []
    for body in bodies:
        answer = trader.post(gateway, path, body)
        if answer.status == 429:
            return answers, answer
        answers.append(answer)
    raise AssertionError(f"no limit after {len(answers)}")


def orders(symbol: str, count: int = 400) -> Iterator[object]:
    return iter([limit(symbol)] * count)


# REST


def test_order_is_told_where_it_stands(default: Gateway, trader: Trader) -> None:
    answer = trader.post(default, "/api/order", limit(fresh_symbol()))
    assert answer.status == 202
    assert answer.headers["RateLimit-Policy"] == '"orders";q=20;w=1'
    assert answer.headers["RateLimit"] == '"orders";r=19;t=1'
    assert answer.headers["Retry-After"] is None
    answer = trader.cancel(default, order_id=answer.json()["order_id"])
    assert answer.status == 202
    assert answer.headers["RateLimit-Policy"] == '"cancels";q=100;w=1'
    assert answer.headers["RateLimit"] == '"cancels";r=99;t=1'


def test_order_over_the_limit_is_429_and_not_written(slow: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    taken, refused = until_refused(trader, slow, "/api/order", orders(symbol))
    assert [answer.status for answer in taken] == [202] * 3
    assert [answer.headers["RateLimit-Policy"] for answer in (*taken, refused)] == [THREE_ORDERS] * 4
    assert [rate_limit(answer)[0] for answer in (*taken, refused)] == [2, 1, 0, 0]
    told = check_problem(refused, 429)
    assert told["type"].endswith("too-many-requests")
    seconds = int(refused.headers["Retry-After"])
    assert TOKEN_SECONDS / 2 < seconds <= TOKEN_SECONDS and rate_limit(refused) == (0, seconds)
    assert len(market.commands_of(symbol)) == 3
    assert slow.metric("gateway_rate_limited_total", route="orders") >= 1


def test_waiting_as_long_as_told_is_enough(own_market: Market, trader: Trader) -> None:
    with Gateway.on(own_market, given({"orders_per_second": 1, "orders_burst": 1})) as gateway:
        symbol = fresh_symbol()
        _, refused = until_refused(trader, gateway, "/api/order", orders(symbol))
        told_at, seconds = time.monotonic(), int(refused.headers["Retry-After"])
        assert seconds == 1
        gateway.wait_until(lambda: time.monotonic() >= told_at + seconds, "as long as told")
        assert trader.post(gateway, "/api/order", limit(symbol)).status == 202


def test_bucket_is_the_users_own(slow: Gateway, trader: Trader) -> None:
    until_refused(trader, slow, "/api/order", orders(fresh_symbol()))
    assert Trader().post(slow, "/api/order", limit(fresh_symbol())).status == 202


def test_anonymous_callers_have_no_bucket(slow: Gateway) -> None:
    nobody, symbol = Trader(None), fresh_symbol()
    for _ in range(10):
        answer = nobody.post(slow, "/api/order", limit(symbol))
        assert answer.status == 202 and answer.headers["RateLimit"] is None


def test_bad_order_counts_and_says_so_too(slow: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()
    answers = [trader.post(slow, "/api/order", body) for body in (limit(symbol, price="x"), b"{", limit(symbol))]
    assert [answer.status for answer in answers] == [422, 400, 202]
    assert [rate_limit(answer)[0] for answer in answers] == [2, 1, 0]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {THREE_ORDERS}
    assert trader.post(slow, "/api/order", limit(symbol)).status == 429


def test_cancels_have_a_bucket_of_their_own_and_cancel_all_has_none(
    slow: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    taken, _ = until_refused(trader, slow, "/api/order", orders(symbol))
    order_id = taken[0].json()["order_id"]
    cancels = iter([{"order_id": order_id}] * 20)
    answers, refused = until_refused(trader, slow, "/api/order/cancel", cancels)
    assert [answer.status for answer in answers] == [202] * 5
    assert [rate_limit(answer)[0] for answer in (*answers, refused)] == [4, 3, 2, 1, 0, 0]
    assert refused.headers["RateLimit-Policy"] == f'"cancels";q=5;w={5 * TOKEN_SECONDS}'
    assert TOKEN_SECONDS / 2 < int(refused.headers["Retry-After"]) <= TOKEN_SECONDS
    assert len(own_commands(market, symbol, "cancel_order")) == 5
    for _ in range(10):
        answer = trader.post(slow, "/api/order/cancel_all", {})
        assert answer.status == 202 and answer.headers["RateLimit"] is None
    assert len(trader.orders(slow)) == 3


def test_conflict_and_unknown_order_say_where_the_caller_stands(slow: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()
    trader.place(slow, limit(symbol, client_order_id="c"))
    conflict = trader.post(slow, "/api/order", limit(symbol, client_order_id="c", price="9"))
    assert (conflict.status, rate_limit(conflict)[0]) == (409, 1)
    unknown = trader.cancel(slow, order_id=str(uuid.uuid4()))
    assert (unknown.status, rate_limit(unknown)[0]) == (404, 4)


def test_rate_of_zero_is_no_limit(own_market: Market, trader: Trader) -> None:
    off = {"orders_per_second": 0, "cancels_per_second": 0, "requests_per_second": 0}
    with Gateway.on(own_market, given(off)) as gateway:
        symbol = fresh_symbol()
        answers = [trader.post(gateway, "/api/order", limit(symbol)) for _ in range(50)]
        assert {answer.status for answer in answers} == {202}
        assert answers[0].headers["RateLimit"] is answers[0].headers["RateLimit-Policy"] is None
        with trader.connect(gateway) as client:
            for number in range(1000):
                client.send({"id": number, "method": "public/ping"})
            assert all(json.loads(client.receive())["result"] == "pong" for _ in range(1000))


# WebSocket


def test_order_over_the_limit_is_10003_on_every_connection_of_the_user(
    slow: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    with trader.connect(slow) as one, trader.connect(slow) as two:
        assert one.result("private/place_order", limit(symbol))["order_id"]
        trader.place(slow, limit(symbol))
        assert two.result("private/place_order", limit(symbol))["order_id"]
        for client in (one, two):
            error = error_of(client.call("private/place_order", limit(symbol))[0], 10003)
            assert TOKEN_SECONDS / 2 < error["data"]["retry_after"] <= TOKEN_SECONDS
        check_problem(trader.post(slow, "/api/order", limit(symbol)), 429)
        two.send({"type": "place_order", **limit(symbol)})
        assert json.loads(two.receive())["success"] is False
        # Cancels still go out, and all of them at once always.
        order_id = trader.orders(slow)[0]["order_id"]
        for _ in range(5):
            assert one.result("private/cancel_order", {"order_id": order_id}) == {"order_id": order_id}
        error_of(one.call("private/cancel_order", {"order_id": order_id})[0], 10003)
        for _ in range(8):
            assert len(one.result("private/cancel_all")["order_ids"]) == 3
    assert len(own_commands(market, symbol)) == 3


def flood(client: WebSocket, count: int) -> tuple[Counter[Any], list[dict[str, Any]], int | None]:
    """So many pings at once: the answers by code (None: served), the refusals, and the close code, if there was one."""
    closed: int | None = None
    with contextlib.suppress(OSError):
        for number in range(count):
            client.send({"id": number, "method": "public/ping"})
    codes: Counter[Any] = Counter()
    refusals = []
    for _ in range(count):
        try:
            answer = json.loads(client.receive())
        except Exception as error:
            closed = getattr(error, "code", None)
            assert hasattr(error, "code"), error
            break
        codes[answer.get("error", {}).get("code")] += 1
        if "error" in answer:
            refusals.append(answer)
    return codes, refusals, closed


def test_messages_over_the_limit_are_10003_with_their_id_and_at_last_1008(slow: Gateway) -> None:
    with WebSocket(slow.address, "/ws?stream=none") as client:
        codes, refusals, closed = flood(client, 5000)
    # A burst of 200 and what the seconds bring, as many refusals, and no more.
    assert closed == 1008
    assert 200 <= codes[None] <= 2000 and 200 <= codes[10003] <= 2000
    assert set(codes) == {None, 10003}
    for answer in refusals:
        assert isinstance(answer["id"], int)
        assert set(answer["error"]["data"]) == {"retry_after"} and answer["error"]["data"]["retry_after"] == 1
    slow.wait_until(lambda: slow.metric("gateway_closes_total", cause="flood") >= 1, "the close counted")


def test_burst_within_the_limit_is_served(slow: Gateway) -> None:
    with WebSocket(slow.address, "/ws?stream=none") as client:
        codes, _, closed = flood(client, 200)
    assert (codes, closed) == (Counter({None: 200}), None)


def test_little_too_fast_is_told_so_and_never_closed(own_market: Market) -> None:
    with Gateway.on(own_market, given({"requests_per_second": SCARCE, "requests_burst": 5})) as gateway:
        with WebSocket(gateway.address, "/ws?stream=none") as client:
            codes, refusals, closed = flood(client, 8)
            assert (codes, closed) == (Counter({None: 5, 10003: 3}), None)
            assert TOKEN_SECONDS / 2 < refusals[0]["error"]["data"]["retry_after"] <= TOKEN_SECONDS
            # What cannot be read, and binary frames, count as well.
            client.send("{")
            error_of(json.loads(client.receive()), 10003)
            client.send_frame(0x2, b"x")
            assert json.loads(client.receive())["error"]["code"] == 10003
            client.send({"id": 1, "method": "public/ping"})
            assert client.receive_close().code == 1008


def test_limit_of_messages_is_each_connections_own(own_market: Market, trader: Trader) -> None:
    with Gateway.on(own_market, given({"requests_per_second": SCARCE, "requests_burst": 2})) as gateway:
        for _ in range(3):
            with trader.connect(gateway) as client:
                assert flood(client, 3)[0] == Counter({None: 2, 10003: 1})


# Connects and addresses


def upgrades(gateway: Gateway, count: int, headers: dict[str, str] | None = None) -> list[Answer | None]:
    """Connections one after the other; None for one that was let in."""
    answers: list[Answer | None] = []
    for _ in range(count):
        try:
            with WebSocket(gateway.address, "/ws?stream=none", headers):
                answers.append(None)
        except Refused as refused:
            answers.append(refused.answer)
    return answers


def test_connects_over_the_limit_are_429(own_market: Market) -> None:
    with Gateway.on(own_market, given({"connects_per_second": SCARCE})) as gateway:
        first, second = upgrades(gateway, 2)
        assert first is None and second is not None
        check_problem(second, 429)
        assert TOKEN_SECONDS / 2 < int(second.headers["Retry-After"]) <= TOKEN_SECONDS


def test_limits_by_address_are_off_at_first(default: Gateway) -> None:
    assert {default.get("/api/instruments").status for _ in range(100)} == {200}


def test_requests_of_an_address_are_limited_where_that_is_set(own_market: Market) -> None:
    with Gateway.on(own_market, given({"address_requests_per_second": SCARCE})) as gateway:
        nobody = Trader(None)
        assert nobody.post(gateway, "/api/order", limit(fresh_symbol())).status == 202
        for refused in (
            nobody.post(gateway, "/api/order", limit(fresh_symbol())),
            gateway.get("/api/instruments"),
            Trader().look_up(gateway, "x"),
            Trader().post(gateway, "/api/order/cancel_all", {}),
        ):
            check_problem(refused, 429)
            assert TOKEN_SECONDS / 2 < int(refused.headers["Retry-After"]) <= TOKEN_SECONDS
            assert refused.headers["RateLimit-Policy"] == f'"requests";q=1;w={TOKEN_SECONDS}'
        # Who watches the process is not refused.
        assert gateway.get("/health").status == gateway.get("/ready").status == 200
        # Without a trusted proxy anybody can write anything into this.
        answer = gateway.request("GET", "/api/instruments", headers={"X-Forwarded-For": "198.51.100.7"})
        assert answer.status == 429
        with WebSocket(gateway.address, "/ws?stream=none") as client:
            error_of(client.call("public/ping")[0], 10003)


def from_address(gateway: Gateway, *forwarded: str) -> int:
    """The status of a request that came through these, as its X-Forwarded-For tells."""
    return gateway.request("GET", "/api/instruments", headers={"X-Forwarded-For": ", ".join(forwarded)}).status


def test_address_behind_trusted_proxies_is_the_clients(own_market: Market) -> None:
    http = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
    with Gateway.on(own_market, given({"address_requests_per_second": SCARCE}, http=http)) as gateway:
        assert [from_address(gateway, "198.51.100.1"), from_address(gateway, "198.51.100.1")] == [200, 429]
        assert from_address(gateway, "198.51.100.2") == 200
        # What stands left of the first one that is no proxy was written by the client.
        assert from_address(gateway, "198.51.100.9", "198.51.100.1") == 429
        assert from_address(gateway, "198.51.100.9", "198.51.100.2", "10.1.2.3") == 429
        assert from_address(gateway, "198.51.100.3:4711") == 200
        assert from_address(gateway, "198.51.100.3") == 429
        # IPv6 by /64, and IPv4 written as IPv6 as what it is.
        assert from_address(gateway, "2001:db8:1:2::1") == 200
        assert from_address(gateway, "[2001:db8:1:2:ffff::2]:443") == 429
        assert from_address(gateway, "2001:db8:1:3::1") == 200
        assert from_address(gateway, "::ffff:198.51.100.1") == 429
        # Nobody's address: the proxy's own.
        assert [from_address(gateway, "unknown"), from_address(gateway, "")] == [200, 429]


def test_connects_of_an_address_are_limited_where_that_is_set(own_market: Market) -> None:
    limits = {"address_connects_per_second": SCARCE}
    with Gateway.on(own_market, given(limits, http={"trusted_proxies": ["127.0.0.1/32"]})) as gateway:
        first, second = upgrades(gateway, 2, {"X-Forwarded-For": "198.51.100.1"})
        assert first is None and second is not None and second.status == 429
        assert upgrades(gateway, 1, {"X-Forwarded-For": "198.51.100.2"}) == [None]


def test_connections_of_an_address_are_bounded_where_that_is_set(own_market: Market) -> None:
    http = {"trusted_proxies": ["127.0.0.1/32"]}
    websocket = {"max_connections_per_address": 2}
    with Gateway.on(own_market, given({}, http=http, websocket=websocket)) as gateway:
        here = {"X-Forwarded-For": "2001:db8::1"}
        with WebSocket(gateway.address, "/ws", here), WebSocket(gateway.address, "/ws", here):
            for address in ("2001:db8::1", "2001:db8::2"):
                [refused] = upgrades(gateway, 1, {"X-Forwarded-For": address})
                assert refused is not None
                check_problem(refused, 503)
                assert refused.headers["Retry-After"]
            assert upgrades(gateway, 2, {"X-Forwarded-For": "2001:db8:0:1::1"}) == [None, None]
        gateway.wait_until(lambda: upgrades(gateway, 1, here) == [None], "room again")


# Shared through Redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_or_skip("a-password-of-redis") as server:
        yield server


SHARED = {"orders_per_second": SCARCE, "orders_burst": 10, "cancels_per_second": SCARCE, "cancels_burst": 10}


@pytest.fixture
def fleet(own_market: Market, redis: RedisServer) -> Iterator[tuple[Gateway, Gateway]]:
    settings = given({**SHARED, "storage": redis.url})
    with Gateway.on(own_market, settings) as one, Gateway.on(own_market, settings) as two:
        yield one, two


def taken(trader: Trader, *gateways: Gateway, tries: int) -> int:
    """Of so many orders, by turns, how many are taken."""
    answers = [trader.post(gateways[n % len(gateways)], "/api/order", limit(fresh_symbol())) for n in range(tries)]
    assert {answer.status for answer in answers} <= {202, 429}
    return sum(answer.status == 202 for answer in answers)


def trader_of_all(one: Gateway, two: Gateway) -> Trader | None:
    """One who has had of both together, by REST and by WebSocket, what is one user's: each alone gives as much again.

    None where that was not so. A gateway that was held up, or whose Redis was, counts alone for a while.
    """
    trader = Trader()
    if taken(trader, one, two, tries=40) != SHARED["orders_burst"]:
        return None
    with trader.connect(two) as client:
        answer, _ = client.call("private/place_order", limit(fresh_symbol()))
    return trader if answer.get("error", {}).get("code") == 10003 else None


def told_of_redis(gateway: Gateway) -> list[str]:
    """What its log says became of Redis; nothing until that has an end. A log is in order, and is read with a delay."""
    told = re.findall(r"Redis is (away|back)", gateway.log)
    return told if told[-1:] == ["back"] else []


def test_fleet_shares_its_limits_and_goes_on_alone_while_redis_is_away(
    fleet: tuple[Gateway, Gateway], redis: RedisServer
) -> None:
    one, two = fleet
    trader = wait_until(lambda: trader_of_all(one, two), "the limit shared")
    for gateway in fleet:
        _, refused = until_refused(trader, gateway, "/api/order", orders(fresh_symbol()))
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["RateLimit-Policy"] == f'"orders";q=10;w={10 * TOKEN_SECONDS}'
        gateway.wait_until(lambda gateway=gateway: "problems" not in gateway.health(), "no problem in /health")
    redis.kill()
    assert taken(Trader(), one, two, tries=60) == 20
    for gateway in fleet:
        gateway.wait_until(lambda gateway=gateway: gateway.health().get("problems"), "a problem in /health")
        health = gateway.health()
        assert health["status"] == "degraded" and len(health["problems"]) == 1 and "Redis" in health["problems"][0]
        assert gateway.get("/ready").status == 200
    redis.start()
    for gateway in fleet:
        gateway.wait_until(lambda gateway=gateway: "problems" not in gateway.health(), "Redis found again")
        # Told when it changes, and not for each order: however often Redis was slow, nothing is said twice in a row.
        told = gateway.wait_until(lambda gateway=gateway: told_of_redis(gateway), "the end of it in the log")
        assert told == ["away", "back"] * (len(told) // 2)
        assert redis.password is not None and redis.password not in gateway.log
    wait_until(lambda: trader_of_all(one, two), "the limit shared again")


def test_redis_that_hangs_holds_no_order_up(fleet: tuple[Gateway, Gateway], redis: RedisServer) -> None:
    one, two = fleet
    assert taken(Trader(), one, two, tries=2) == 2
    with redis.frozen():
        # One that waits for Redis is not answered.
        assert taken(Trader(), one, tries=9) == 9
        one.wait_until(lambda: one.health().get("problems"), "a problem in /health")
    one.wait_until(lambda: "problems" not in one.health(), "Redis found again")


def test_redis_that_is_not_there_at_the_start_is_said_at_once(own_market: Market) -> None:
    with redis_or_skip() as server:
        server.kill()
        with Gateway.on(own_market, given({**SHARED, "storage": server.url})) as gateway:
            gateway.wait_until(lambda: gateway.health().get("problems"), "a problem in /health")
            assert taken(Trader(), gateway, tries=30) == 10
            server.start()
            gateway.wait_until(lambda: "problems" not in gateway.health(), "Redis found")


def test_cancel_behind_its_order_finds_it_whatever_redis_takes(
    own_market: Market, redis: RedisServer, trader: Trader
) -> None:
    limits = {
        "orders_per_second": 10_000,
        "orders_burst": 10_000,
        "cancels_per_second": 10_000,
        "cancels_burst": 10_000,
    }
    settings = given({**limits, "requests_per_second": 0, "storage": redis.url})
    symbol = fresh_symbol()
    with Gateway.on(own_market, settings) as gateway, trader.connect(gateway) as client:
        for number in range(200):
            params = limit(symbol, client_order_id=f"c{number}", quantity=number + 1)
            client.send({"id": number, "method": "private/place_order", "params": params})
            client.send(
                {"id": -1 - number, "method": "private/cancel_order", "params": {"client_order_id": f"c{number}"}}
            )
        answers = [json.loads(client.receive()) for _ in range(400)]
        assert [answer for answer in answers if "error" in answer] == []
    placed = own_commands(own_market, symbol)
    assert [command["quantity"] for command in placed] == [str(number + 1) for number in range(200)]
