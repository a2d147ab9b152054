"""What browsers are told: CORS, security headers, and ids that a request is found again by (docs/contract.md#other-origins)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.clients import Refused, WebSocket
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import SECRET, Trader, bearer, check_problem, limit, settings
from tests.support.gateway import Answer
from tests.support.kafka import embedded_bus

APP = "https://app.example.com"
PATHS = ["/api/order", "/api/order/cancel", "/api/order/cancel_all", "/api/order/x", "/api/instruments", "/health"]


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    """Which bus it is makes no difference here."""
    with embedded_bus() as bus:
        yield Market.create(bus)


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    """Trusts the pages of two origins besides its own."""
    http = {"allowed_origins": [APP, "http://localhost:8080"]}
    with Gateway.on(market, settings(http=http, log={"level": "debug"})) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def closed(market: Market) -> Iterator[Gateway]:
    """Trusts no other origin, as by default."""
    with Gateway.on(market, settings(auth={"secret": SECRET, "mode": "optional"})) as gateway:
        yield gateway


@pytest.fixture
def trader() -> Trader:
    return Trader()


def access(answer: Answer) -> list[str]:
    """Names of the CORS headers that an answer has."""
    return sorted(name for name in answer.headers if name.lower().startswith("access-control-"))


def preflight(gateway: Gateway, path: str, origin: str, method: str = "POST") -> Answer:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    return gateway.request("OPTIONS", path, headers=asked)


def words(answer: Answer, name: str) -> set[str]:
    """The elements of a header that is a list."""
    return {word.strip() for word in answer.headers[name].split(",")}


# CORS


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [APP, "http://localhost:8080"])
def test_preflight_of_a_configured_origin_is_let_through(gateway: Gateway, path: str, origin: str) -> None:
    answer = preflight(gateway, path, origin)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert words(answer, "Access-Control-Allow-Methods") >= {"GET", "POST"}
    allowed = {name.lower() for name in words(answer, "Access-Control-Allow-Headers")}
    assert allowed >= {"authorization", "content-type", "x-request-id"}
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    assert "Origin" in words(answer, "Vary")
    assert "*" not in str(answer.headers)


FOREIGN = [
    "https://evil.example",
    "https://app.example.com.evil.example",
    "https://app.example.com:8443",
    "http://app.example.com",
    "https://sub.app.example.com",
    "null",
    "*",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_origin_gets_nothing(gateway: Gateway, trader: Trader, origin: str) -> None:
    refused = preflight(gateway, "/api/order", origin)
    check_problem(refused, 403)
    answer = gateway.post("/api/order", limit(fresh_symbol()), {**trader.headers, "Origin": origin})
    # It was the trader's own program that asked: only browsers keep the answer from a page.
    assert answer.status == 202
    assert access(refused) == access(answer) == []
    assert "Origin" in words(answer, "Vary")


@pytest.mark.parametrize("origin", [APP, *FOREIGN])
def test_without_configured_origins_nobody_gets_anything(closed: Gateway, origin: str) -> None:
    refused = preflight(closed, "/api/order", origin)
    answer = closed.request("GET", "/api/instruments", headers={"Origin": origin})
    assert (refused.status, answer.status) == (403, 200)
    assert access(refused) == access(answer) == []


def test_every_answer_to_a_configured_origin_can_be_read_by_its_page(gateway: Gateway, trader: Trader) -> None:
    origin = {"Origin": APP}
    mine = {**origin, **trader.headers}
    answers = {
        202: gateway.post("/api/order", limit(fresh_symbol()), mine),
        200: gateway.request("GET", "/api/order", headers=mine),
        400: gateway.post("/api/order", b"{", mine),
        401: gateway.post("/api/order", limit("A/B"), {**origin, **bearer("a.b.c")}),
        404: gateway.request("GET", "/api/order/x", headers=mine),
        405: gateway.request("DELETE", "/api/order", headers=mine),
        413: gateway.post("/api/order", b" " * 20_000, mine),
        415: gateway.post("/api/order", b"x", {**mine, "Content-Type": "text/plain"}),
        422: gateway.post("/api/order", {}, mine),
    }
    for status, answer in answers.items():
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == APP, status
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        exposed = words(answer, "Access-Control-Expose-Headers")
        assert exposed >= {"Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-Id"}
        assert words(answer, "Vary") == {"Origin"}


def test_origin_is_compared_without_case(gateway: Gateway) -> None:
    answer = preflight(gateway, "/api/order", APP.upper())
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, APP.upper())


@pytest.mark.parametrize("path", PATHS)
def test_options_without_a_preflight_names_the_methods(gateway: Gateway, path: str) -> None:
    answer = gateway.request("OPTIONS", path)
    assert (answer.status, answer.body) == (204, b"")
    assert words(answer, "Allow") - {"OPTIONS"}
    assert access(answer) == []


def test_wildcard_is_no_origin_to_configure() -> None:
    from tests.integration.test_settings_process import run

    done = run("--check", GATEWAY_HTTP_ALLOWED_ORIGINS='["*"]')
    assert done.returncode == 2
    assert "http.allowed_origins" in done.stderr and len(done.stderr.splitlines()) == 1


def test_websocket_takes_the_same_origins(gateway: Gateway) -> None:
    for origin in (APP, "http://localhost:8080", gateway.address):
        with WebSocket(gateway.address, "/ws?stream=none", {"Origin": origin}) as client:
            client.expect_silence()
    for origin in FOREIGN:
        if origin:
            with pytest.raises(Refused) as refused:
                WebSocket(gateway.address, "/ws?stream=none", {"Origin": origin})
            check_problem(refused.value.answer, 403)


# Security headers


def test_page_may_do_what_it_needs_and_nothing_else(gateway: Gateway) -> None:
    for path in ("/", "/console/console.js", "/console/client/gateway-client.js"):
        headers = gateway.get(path).headers
        policy = headers["Content-Security-Policy"]
        for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "connect-src 'self'"):
            assert part in policy
        assert "unsafe" not in policy and "*" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]
        assert access(gateway.request("GET", path, headers={"Origin": APP})) == []


def test_answers_of_the_api_are_neither_kept_nor_guessed_at(gateway: Gateway, trader: Trader) -> None:
    for answer in (
        gateway.post("/api/order", limit(fresh_symbol()), trader.headers),
        gateway.request("GET", "/api/order", headers=trader.headers),
        gateway.get("/api/order"),
        gateway.get("/api/nothing"),
        gateway.get("/health"),
    ):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", *PATHS, "/metrics", "/nothing"])
def test_no_answer_names_a_version(gateway: Gateway, path: str) -> None:
    headers = gateway.get(path).headers
    assert headers["Server"] == "mexchange-gateway"
    assert "tornado" not in str(headers).lower()


# Request ids


def test_request_id_is_on_every_answer_and_the_clients_own_where_it_is_plain(gateway: Gateway, trader: Trader) -> None:
    for path in ("/", *PATHS, "/nothing", "/metrics"):
        answer = gateway.request("GET", path, headers={"X-Request-Id": "my.own-id_1"})
        assert answer.headers["X-Request-Id"] == "my.own-id_1"
        first, second = (gateway.get(path).headers["X-Request-Id"] for _ in range(2))
        assert first and second and first != second
    for odd in ("a" * 65, "a b", "<x>", "\xe9", ""):
        answer = gateway.post("/api/order", b"{", {**trader.headers, "X-Request-Id": odd})
        assert check_problem(answer, 400)["request_id"] not in ("", odd)


def test_request_id_is_in_the_log_line_of_a_refusal_and_of_a_connection(gateway: Gateway) -> None:
    gateway.request("GET", "/api/order", headers={"X-Request-Id": "lost-and-found"})
    gateway.wait_log(r"request lost-and-found: GET /api/order refused: 401")
    with WebSocket(gateway.address, "/ws?stream=none", {"X-Request-Id": "found-here"}):
        gateway.wait_log(r"client \d+ connected from 127\.0\.0\.1 \(request found-here\)")
