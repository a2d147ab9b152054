from __future__ import annotations

import asyncio
import gzip
import logging

import pytest

import handlers.passthrough
from core.config.settings import Settings
from core.telemetry.metrics import Metrics
from handlers.passthrough import MAX_BODY_BYTES
from handlers.problems import Context, Status
from services.http_client import HttpResponse
from tests.handlers.passing import OK, Callbacks, Client, FakeAdmission, before_accounts, check_problem, gateway
from tests.handlers.wire import connected, request, serving
from tests.support.accounts import raw_service
from tests.support.deadlines import deadlines, meet

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


# Requests.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.gen_test
async def test_request_is_passed_whatever_its_method(method: str) -> None:
    async with raw_service(OK) as service, gateway(service.url) as client:
        answer = await client.ask(method, "/api/me", body=b"")
        assert answer.status == 200
        assert service.head[0] == f"{method} /api/me HTTP/1.1"
        length = ["0"] if method in ("POST", "PUT", "PATCH") else []
        assert [value for name, value in service.headers if name == "content-length"] == length
        assert "content-type" not in dict(service.headers), "none that the client did not give"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND"])
@pytest.mark.gen_test
async def test_request_with_any_other_method_is_answered_405(method: str) -> None:
    async with before_accounts() as (client, service):
        check_problem(await client.ask(method, "/api/me"), 405, "method-not-allowed")
        assert service.seen == []


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
@pytest.mark.gen_test
async def test_body_is_passed_byte_for_byte(method: str) -> None:
    body = bytes(range(256)) * 100
    async with raw_service(OK) as service, gateway(service.url) as client:
        await client.ask(method, "/api/me", "Content-Type: application/octet-stream", body=body)
        assert service.body == body
        assert ("content-type", "application/octet-stream") in service.headers


@pytest.mark.gen_test
async def test_body_is_passed_up_to_one_mebibyte_and_beyond_answered_413() -> None:
    async with before_accounts() as (client, service):
        answer = await client.ask("POST", "/api/me", body=b"x" * MAX_BODY_BYTES)
        assert answer.json()["size"] == MAX_BODY_BYTES
        for size in (MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES):
            answer = await client.ask("POST", "/api/me", body=b"x" * size)
            check_problem(answer, 413, "too-large")
            assert str(MAX_BODY_BYTES) in answer.json()["error"]
        assert len(service.seen) == 1


CHUNKED = request("POST", "/api/me", {"Host": "x", "Transfer-Encoding": "chunked"})


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@pytest.mark.gen_test
async def test_body_in_chunks_is_passed_with_its_length() -> None:
    async with raw_service(OK) as service, gateway(service.url) as client:
        assert (await client.exchange(CHUNKED + chunked(b"one", b"two" * 1000))).status == 200
        assert service.body == b"one" + b"two" * 1000
        headers = dict(service.headers)
        assert headers["content-length"] == "3003"
        assert "transfer-encoding" not in headers


@pytest.mark.gen_test
async def test_body_in_chunks_is_bounded_too() -> None:
    async with before_accounts() as (client, service):
        answer = await client.exchange(CHUNKED + chunked(*[b"x" * 65_536] * 16))
        assert answer.json()["size"] == MAX_BODY_BYTES
        check_problem(await client.exchange(CHUNKED + chunked(*[b"x" * 65_536] * 16, b"x")), 413, "too-large")
        assert len(service.seen) == 1


@pytest.mark.gen_test
async def test_request_that_means_two_things_is_passed_as_neither() -> None:
    async with before_accounts() as (client, service):
        smuggled = b"0\r\n\r\nGET /internal/orders HTTP/1.1\r\nHost: x\r\n\r\n"
        head = b"POST /api/me HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await client.exchange(head % len(smuggled) + smuggled)).status == 400
        assert service.seen == []


# Request headers.


@pytest.mark.gen_test
async def test_headers_from_end_to_end_are_passed_as_they_came() -> None:
    lines = [
        "Authorization: Bearer expired",
        "Cookie: session=1; theme=dark",
        "Accept: text/html",
        "Accept: application/json",
        "Accept-Encoding: gzip, br",
        "User-Agent: test/1",
        'If-None-Match: "abc"',
        "Idempotency-Key: k",
        "X-Custom: \xfc",
        "Origin: https://exchange.example",
    ]
    async with raw_service(OK) as service, gateway(service.url) as client:
        await client.ask("GET", "/api/me", *lines)
        for line in lines:
            name, _, value = line.partition(": ")
            assert (name.lower(), value) in service.headers


@pytest.mark.gen_test
async def test_headers_from_hop_to_hop_are_dropped() -> None:
    lines = [
        "Connection: keep-alive, X-Mine, TE",
        "X-Mine: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic x",
        "TE: trailers",
        "Trailer: X-Sum",
        "Upgrade: websocket",
        "HTTP2-Settings: x",
        "Expect: nothing",
    ]
    async with raw_service(OK) as service, gateway(service.url) as client:
        await client.ask("GET", "/api/me", *lines)
        names = [name for name, _ in service.headers]
        assert sorted(names) == sorted(
            ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"]
        )


@pytest.mark.parametrize("name", ["X-User-Id", "x-user-id", "X-USER-ID", "X_User_Id", "x.user.id", "X-User_Id"])
@pytest.mark.gen_test
async def test_user_id_from_outside_is_dropped_however_it_is_spelt(name: str) -> None:
    async with raw_service(OK) as service, gateway(service.url) as client:
        for more in ("", "Authorization: Bearer expired", f"Connection: {name}", f"{name}: bob"):
            await client.ask("GET", "/api/me", f"{name}: ann", *([more] if more else []))
            assert [given for given, _ in service.headers if "user" in given] == []
        await client.ask("GET", "/api/me", f"{name}: ann", "Authorization: Bearer good-carol", "Connection: X-User-Id")
        assert [value for given, value in service.headers if "user" in given] == ["carol"]
        assert ("authorization", "Bearer good-carol") in service.headers


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix",
        "X-Forwarded-User", "X_Forwarded_For", "X-Real-IP", "x_real_ip", "True-Client-IP", "X-Original-URL", "X-Rewrite-URL",
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_origin_from_outside_is_dropped_and_our_own_is_told(name: str) -> None:
    async with raw_service(OK) as service, gateway(service.url) as client:
        await client.ask("GET", "/api/me", f"{name}: /internal/orders", f"{name}: 6.6.6.6")
        assert not any("internal" in value or "6.6.6.6" in value for _, value in service.headers)
        headers = service.headers
        assert [value for given, value in headers if given.startswith("x-forwarded-")] == [
            "127.0.0.1", "http", "exchange.example"
        ]  # fmt: skip
        assert dict(headers)["host"] == f"127.0.0.1:{service.port}"


@pytest.mark.gen_test
async def test_origin_is_what_a_trusted_proxy_says() -> None:
    lines = ("X-Forwarded-For: 6.6.6.6, 192.0.2.7", "X-Forwarded-Proto: http, https")
    async with raw_service(OK) as service, gateway(service.url, trusted=["127.0.0.0/8"]) as client:
        await client.ask("GET", "/api/me", *lines)
        assert ("x-forwarded-for", "192.0.2.7") in service.headers
        assert ("x-forwarded-proto", "https") in service.headers
        await client.ask("GET", "/api/me", lines[0], "X-Forwarded-Proto: gopher")
        assert ("x-forwarded-proto", "http") in service.headers


@pytest.mark.gen_test
async def test_request_id_is_the_same_on_both_sides() -> None:
    async with raw_service(b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n") as service:
        async with gateway(service.url) as client:
            for lines in (["X-Request-Id: mine"], ["X-Request-Id: a b"], []):
                answer = await client.ask("GET", "/api/me", *lines)
                [request_id] = answer.get("x-request-id")
                assert [value for name, value in service.headers if name == "x-request-id"] == [request_id]
                assert (request_id == "mine") == (lines[:1] == ["X-Request-Id: mine"])


# Who is let through.


@pytest.mark.gen_test
async def test_auth_is_admitted_by_address_and_nothing_else_is() -> None:
    async with before_accounts() as (client, service):
        for target in ("/auth/login", "/api/me", "/api/orders", "/api/faucet/x", "/auth/x?y"):
            assert (await client.ask("POST", target)).status == 200
        assert client.callbacks.asked == ["/auth/login", "/auth/x"]
        client.callbacks.is_shut = True
        answer = await client.ask("POST", "/auth/login", body=b"{}")
        check_problem(answer, 429, "too-many-requests")
        assert answer.get("retry-after") == ["7"]
        assert (await client.ask("GET", "/api/me")).status == 200
        assert len(service.seen) == 6


@pytest.mark.gen_test
async def test_question_about_other_origins_is_answered_here_and_other_options_are_passed() -> None:
    origin = "https://trader.example"
    async with before_accounts(origins=(origin,)) as (client, service):
        asks = "Access-Control-Request-Method: POST"
        answer = await client.ask("OPTIONS", "/auth/login", f"Origin: {origin}", asks)
        assert (answer.status, answer.get("access-control-allow-origin")) == (204, [origin])
        answer = await client.ask("OPTIONS", "/auth/login", "Origin: https://evil.example", asks)
        check_problem(answer, 403, "forbidden")
        assert service.seen == []
        assert (await client.ask("OPTIONS", "/auth/login")).status == 200
        assert len(service.seen) == 1


@pytest.mark.gen_test
async def test_origins_that_the_service_allows_are_not_told() -> None:
    reply = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"
        b"Vary: Accept\r\nContent-Length: 0\r\n\r\n"
    )
    origin = "https://trader.example"
    async with raw_service(reply) as service, gateway(service.url, origins=(origin,)) as client:
        answer = await client.ask("GET", "/api/me", "Origin: https://evil.example")
        assert answer.get("access-control-allow-origin") == []
        answer = await client.ask("GET", "/api/me", f"Origin: {origin}")
        assert answer.get("access-control-allow-origin") == [origin]
        assert answer.get("vary") == ["Origin", "Accept"]


# Answers.


@pytest.mark.parametrize(
    "status", [200, 201, 202, 301, 302, 307, 400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503]
)
@pytest.mark.gen_test
async def test_answer_is_given_whatever_its_status(status: int) -> None:
    async with before_accounts() as (client, service):
        with service.answering(status, b'{"a": "b"}', Content_Type="application/json", Location="/x", Retry_After="3"):
            answer = await client.ask("POST", "/api/me")
        assert (answer.status, answer.body) == (status, b'{"a": "b"}')
        assert answer.get("content-type") == ["application/json"]
        assert (answer.get("location"), answer.get("retry-after")) == (["/x"], ["3"])
        assert len(service.seen) == 1


@pytest.mark.gen_test
async def test_answer_keeps_cookies_apart_and_drops_what_is_between_two_hops() -> None:
    reply = (
        b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=1; Path=/, x\r\nSet-Cookie: b=2; HttpOnly\r\nset-cookie: a=3\r\n"
        b"Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n"
        b"Trailer: X-Sum\r\nServer: leaky/1.2.3\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nCache-Control: private\r\n"
        b'Cache-Control: max-age=1\r\nX-Odd: \xfc\r\nETag: "e"\r\nContent-Length: 2\r\n\r\nok'
    )
    async with raw_service(reply) as service, gateway(service.url) as client:
        answer = await client.ask("GET", "/api/me", 'If-None-Match: "e"')
        assert answer.status == 200, "the service has seen If-None-Match, and decided"
        assert answer.get("set-cookie") == ["a=1; Path=/, x", "b=2; HttpOnly", "a=3"]
        assert answer.get("cache-control") == ["private", "max-age=1"]
        assert answer.get("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]
        assert answer.get("x-odd") == ["\xfc"]
        assert answer.get("server") == ["mexchange-gateway"]
        assert answer.get("x-content-type-options") == ["nosniff"]
        for name in ("x-hop", "keep-alive", "proxy-authenticate", "upgrade", "trailer", "connection", "content-type"):
            assert answer.get(name) == [], name
        assert (await client.ask("GET", "/api/me")).status == 200, "the connection to the client goes on"


@pytest.mark.gen_test
async def test_answer_in_chunks_gets_a_length() -> None:
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one", b"two")
    async with raw_service(reply) as service, gateway(service.url) as client:
        answer = await client.ask("GET", "/api/me")
        assert (answer.body, answer.get("content-length"), answer.get("transfer-encoding")) == (b"onetwo", ["6"], [])


@pytest.mark.gen_test
async def test_answer_that_ends_with_the_connection_gets_a_length() -> None:
    async with raw_service(b"HTTP/1.0 200 OK\r\n\r\nuntil the end") as service, gateway(service.url) as client:
        assert (await client.ask("GET", "/api/me")).body == b"until the end"


@pytest.mark.gen_test
async def test_answer_stays_compressed() -> None:
    body = gzip.compress(b"plain" * 100)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with raw_service(head + body) as service, gateway(service.url) as client:
        answer = await client.ask("GET", "/api/me", "Accept-Encoding: gzip")
        assert (answer.body, answer.get("content-encoding")) == (body, ["gzip"])


@pytest.mark.parametrize(
    ("length", "told"), [(b"Content-Length: 1234\r\n", ["1234"]), (b"", []), (b"Content-Length: 0\r\n", ["0"])]
)
@pytest.mark.gen_test
async def test_answer_to_head_has_the_length_of_get_and_no_body(length: bytes, told: list[str]) -> None:
    async with raw_service(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n") as service, gateway(service.url) as client:
        for _ in range(2):
            answer = await client.ask("HEAD", "/api/me")
            assert (answer.status, answer.get("content-length"), answer.get("transfer-encoding")) == (200, told, [])


@pytest.mark.parametrize(
    "reply", [b"304 Not Modified\r\nContent-Length: 10", b'304 Not Modified\r\nETag: "e"', b"204 No Content"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.gen_test
async def test_answer_without_a_body_is_given_without_one(reply: bytes, method: str) -> None:
    async with raw_service(b"HTTP/1.1 " + reply + b"\r\n\r\n") as service, gateway(service.url) as client:
        for _ in range(2):
            answer = await client.ask(method, "/api/me", 'If-None-Match: "e"')
            assert answer.status == int(reply[:3])
            assert answer.get("content-length") == []


@pytest.mark.gen_test
async def test_answer_is_bounded() -> None:
    async with before_accounts(max_answer_bytes=1000) as (client, service):
        for size, status in ((1000, 200), (1001, 502)):
            with service.answering(200, b"x" * size):
                assert (await client.ask("GET", "/api/me")).status == status


# When the service fails.


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 600 What\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
    ],
)
@pytest.mark.gen_test
async def test_service_that_closes_early_or_speaks_no_http_is_a_502(
    reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_service(reply) as service, gateway(service.url) as client:
        check_problem(await client.ask("POST", "/api/me", body=b"{}"), 502, "bad-gateway")
        assert len(service.requests) == 1, "nothing is asked twice"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.gen_test
async def test_service_whose_connection_breaks_is_a_502_even_if_its_body_has_no_length() -> None:
    async with raw_service(b"HTTP/1.0 200 OK\r\n\r\nhalf", resets=True) as service:
        async with gateway(service.url) as client:
            check_problem(await client.ask("GET", "/api/me"), 502, "bad-gateway")


@pytest.mark.gen_test
async def test_service_that_is_not_there_is_a_502() -> None:
    async with before_accounts() as (client, service):
        await service.stop()
        answer = await client.ask("GET", "/api/me", "X-Request-Id: mine")
        check_problem(answer, 502, "bad-gateway")
        assert str(service.port) not in answer.body.decode()
        await service.start()
        assert (await client.ask("GET", "/api/me")).status == 200


@pytest.mark.gen_test
async def test_service_that_does_not_answer_in_time_is_a_504() -> None:
    async with before_accounts() as (client, service):
        with service.frozen(), deadlines() as begun:
            asking = asyncio.ensure_future(client.ask("GET", "/api/me"))
            await service.arrived(1)
            meet(begun.pop())
            check_problem(await asking, 504, "gateway-timeout")
        assert (await client.ask("GET", "/api/orders")).status == 200


@pytest.mark.parametrize("headers", [[("X", "a\r\nSet-Cookie: b")], [("A b", "x")], [("X", "\u20ac")]])
@pytest.mark.gen_test
async def test_upstream_that_lets_bad_headers_through_is_a_502(headers: list[tuple[str, str]]) -> None:
    class Careless:
        async def fetch(self, *_request: object) -> HttpResponse:
            return HttpResponse(200, headers, b"ok")

    context = Context(Settings(), Metrics(), Status(), FakeAdmission(()))  # type: ignore[arg-type]
    callbacks = Callbacks()
    async with serving(
        context, handlers.passthrough.routes(context, Careless(), callbacks.user_of, callbacks.admit)
    ) as port:
        async with connected(port) as connection:
            check_problem(await Client(connection, callbacks).ask("GET", "/api/me"), 502, "bad-gateway")


@pytest.mark.gen_test
async def test_client_that_leaves_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with before_accounts() as (client, service):
        with service.frozen():
            await client.connection.send(b"GET /api/me HTTP/1.1\r\nHost: x\r\n\r\n")
            await service.arrived(1)
            client.connection.writer.close()
        for _ in range(20):
            await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
