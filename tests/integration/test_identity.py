"""Who may: tokens at the door of REST and WebSocket, in every mode and by every kind of key (docs/contract.md#identity)."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.core.tokens import (
    SECRET,
    base64url,
    ec_key,
    hmac_token,
    jwk_of,
    key_set,
    public_pem,
    raw_token,
    rsa_key,
)
from tests.integration.clients import Refused, WebSocket
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.test_settings_process import run
from tests.integration.trading import (
    Trader,
    bearer,
    check_problem,
    error_of,
    fresh_user,
    limit,
    pass_of,
    settings,
)
from tests.integration.waiting import wait_until
from tests.support.kafka import embedded_bus

NOW = int(time.time())
SUB = "user-of-identity"


@pytest.fixture(scope="module")
def own_market() -> Iterator[Market]:
    """For gateways with keys of their own: which bus it is makes no difference to those."""
    with embedded_bus() as bus:
        yield Market.create(bus)


@pytest.fixture(scope="module")
def required(market: Market) -> Iterator[Gateway]:
    """HS256, and nobody without a token."""
    with Gateway.on(market, settings()) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def optional(market: Market) -> Iterator[Gateway]:
    """HS256, and anybody."""
    with Gateway.on(market, settings(auth={"secret": SECRET, "mode": "optional"})) as gateway:
        yield gateway


def place(gateway: Gateway, text: str | None = None, **headers: str) -> Any:
    """Try to place an order with this token; the answer."""
    given = headers if text is None else bearer(text)
    return gateway.post("/api/order", limit(fresh_symbol()), given)


def whose(gateway: Gateway, text: str) -> str:
    """Whom a good token makes the caller, over WebSocket."""
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        answer, _ = client.call("public/auth", {"token": text})
        assert set(answer) == {"id", "result"}, answer
        assert answer["result"]["access_token"] == text
        return str(answer["result"]["user_id"])


def check_refused(gateway: Gateway, text: str) -> None:
    """A token is refused, over REST and over WebSocket, at the upgrade and behind it, and never quoted."""
    answer = place(gateway, text)
    told = check_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert len(text) < 8 or text not in json.dumps(told)
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        error = error_of(client.call("public/auth", {"token": text})[0], 10000)
        assert len(text) < 8 or text not in error["message"]
        client.expect_silence()


# A shared secret


def test_order_belongs_to_the_sub_of_its_token(required: Gateway, market: Market) -> None:
    user_id, symbol = "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} \N{SNOWMAN}|auth0/7", fresh_symbol()
    assert required.post("/api/order", limit(symbol), bearer(pass_of(user_id))).status == 202
    assert [command["user_id"] for command in market.commands_of(symbol)] == [user_id]
    assert whose(required, pass_of(user_id)) == user_id


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("no sub", {"sub": ...}),
        ("empty sub", {"sub": ""}),
        ("number as sub", {"sub": 5}),
        ("list as sub", {"sub": ["a"]}),
        ("no exp", {"exp": ...}),
        ("text as exp", {"exp": str(NOW + 600)}),
        ("expired beyond the leeway", {"exp": NOW - 61}),
        ("not yet beyond the leeway", {"nbf": NOW + 3600}),
        ("refresh token", {"jti": "a"}),
        ("refresh token with an empty email", {"jti": "a", "email": ""}),
        ("for another audience", {"aud": "elsewhere"}),
    ],
)
def test_token_with_a_claim_that_will_not_do_is_refused(
    required: Gateway, optional: Gateway, name: str, changes: dict[str, Any]
) -> None:
    claims = {"sub": SUB, "exp": NOW + 3600, **changes}
    text = raw_token({"alg": "HS256", "typ": "JWT"}, {key: value for key, value in claims.items() if value is not ...})
    check_refused(required, text)
    check_refused(optional, text)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 30},
        {"nbf": NOW + 30},
        {"jti": "a", "email": "a@example.com"},
        {"iat": NOW + 1000},
        {"iss": "anybody"},
    ],
)
def test_token_within_the_rules_is_taken(market: Market, required: Gateway, changes: dict[str, Any]) -> None:
    # Made when the test runs: the leeway is a minute.
    shift = int(time.time()) - NOW
    moved = {name: value + shift if isinstance(value, int) else value for name, value in changes.items()}
    text = raw_token({"alg": "HS256"}, {"sub": SUB, "exp": NOW + shift + 3600, **moved})
    assert whose(required, text) == SUB
    assert place(required, text).status == 202


def good_claims() -> dict[str, Any]:
    return {"sub": SUB, "exp": int(time.time()) + 3600}


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "a.b.c",
        "..",
        raw_token({"alg": "HS256"}, good_claims(), "another secret of 32 bytes and more"),
        raw_token({"alg": "HS256"}, good_claims())[:-2],
        raw_token({"alg": "HS256"}, good_claims()) + ".x",
        raw_token({"alg": "RS256"}, good_claims(), rsa_key()),
        raw_token({"alg": "HS512"}, good_claims()),
        raw_token({"alg": "none"}, good_claims()),
        raw_token({"alg": "HS256", "crit": ["exp"]}, good_claims()),
        f"{base64url(b'{' + chr(34).encode() + b'alg' + chr(34).encode() + b':' + chr(34).encode() + b'none' + chr(34).encode() + b'}')}.{base64url(json.dumps(good_claims()).encode())}.",
        raw_token({"alg": "HS256"}, {**good_claims(), "pad": "x" * 4096}),
        raw_token({"alg": "HS256"}, b"[" * 1500),
        raw_token({"alg": "HS256"}, b"[]"),
        raw_token({"alg": "HS256"}, b'{"sub":"a","sub":"b","exp":9999999999}'),
        raw_token(b"[" * 1500, good_claims()),
    ],
    ids=str.__len__,  # what is in them is of this moment
)
def test_what_is_no_good_token_is_refused(required: Gateway, optional: Gateway, text: str) -> None:
    check_refused(required, text)
    check_refused(optional, text)


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "bearer a b", "Basic eDp5", "Token x", "x", "Bearer " + "x" * 5000, "Bearer \xe9"],
)
@pytest.mark.parametrize("path", ["/api/order", "/api/order/cancel", "/api/order/cancel_all"])
def test_header_that_is_no_good_bearer_is_refused(required: Gateway, optional: Gateway, path: str, header: str) -> None:
    for gateway in (required, optional):
        answer = gateway.post(path, limit("A/B"), {"Authorization": header})
        check_problem(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_scheme_may_be_written_in_any_case(required: Gateway) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        answer = place(required, None, Authorization=f"{scheme} {pass_of(SUB)}")
        assert answer.status == 202, answer.body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/order"),
        ("POST", "/api/order/cancel"),
        ("POST", "/api/order/cancel_all"),
        ("GET", "/api/order"),
        ("HEAD", "/api/order"),
        ("GET", "/api/order?client_order_id=a"),
        ("GET", "/api/order/5f0c6a2e-6c1b-4b58-8f6f-3d1d3a2b9a10"),
    ],
)
def test_caller_without_a_token_is_401_where_one_is_required(required: Gateway, method: str, path: str) -> None:
    answer = required.request(method, path)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="mexchange"'
    if method != "HEAD":
        check_problem(answer, 401)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/order"), ("POST", "/api/order/cancel_all"), ("GET", "/api/order?client_order_id=a")],
)
def test_what_is_somebodys_needs_a_token_in_optional_mode_too(optional: Gateway, method: str, path: str) -> None:
    answer = optional.request(method, path, b"{}", {"Content-Type": "application/json"})
    check_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_anonymous_caller_places_looks_up_and_cancels_by_id_in_optional_mode(optional: Gateway, market: Market) -> None:
    nobody, symbol = Trader(None), fresh_symbol()
    order_id = nobody.place(optional, limit(symbol))["order_id"]
    order = nobody.order(optional, order_id)
    assert order is not None and order["status"] == "pending"
    assert nobody.cancel(optional, order_id=order_id).status == 202
    assert [command["user_id"] for command in market.commands_of(symbol)] == [None, None]


def test_anonymous_order_and_a_users_are_nothing_to_each_other(optional: Gateway) -> None:
    nobody, somebody = Trader(None), Trader()
    theirs = somebody.place(optional, limit(fresh_symbol()))["order_id"]
    ours = nobody.place(optional, limit(fresh_symbol()))["order_id"]
    for caller, order_id in ((nobody, theirs), (somebody, ours)):
        assert caller.order(optional, order_id) is None
        check_problem(caller.cancel(optional, order_id=order_id), 404)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/api/instruments", "/asyncapi.json", "/"])
def test_what_is_public_needs_no_token_and_looks_at_none(required: Gateway, path: str) -> None:
    assert required.get(path).status == 200
    assert required.request("GET", path, headers=bearer("a.b.c")).status == 200


# Keys


def keyed(market: Market, **auth: object) -> contextlib.AbstractContextManager[Gateway]:
    return Gateway.on(market, settings(auth=auth))


@pytest.mark.parametrize("key", [rsa_key("pem"), ec_key("pem")], ids=["RS256", "ES256"])
def test_token_signed_by_the_key_of_the_pem_is_taken_and_no_other(own_market: Market, key: Any) -> None:
    pem = public_pem(key)
    others = [rsa_key("other"), ec_key("other"), SECRET]
    with keyed(own_market, public_key=pem) as gateway:
        user_id = fresh_user()
        assert whose(gateway, pass_of(user_id, key)) == user_id
        assert whose(gateway, pass_of(user_id, key, kid="any")) == user_id
        assert place(gateway, pass_of(user_id, key)).status == 202
        for other in others:
            check_refused(gateway, pass_of(user_id, other))
        # The public key taken for a shared secret, which everybody knows.
        check_refused(gateway, hmac_token({"alg": "HS256"}, pem.encode()))


def test_issuer_and_audience_are_checked_where_they_are_set(own_market: Market) -> None:
    with keyed(own_market, secret=SECRET, issuer="https://id.example", audience="gateway") as gateway:
        good = {"iss": "https://id.example", "aud": ["other", "gateway"]}
        assert whose(gateway, pass_of(SUB, **good)) == SUB
        assert whose(gateway, pass_of(SUB, **{**good, "aud": "gateway"})) == SUB
        for change in ({"iss": "https://id.example/"}, {"iss": ...}, {"aud": "other"}, {"aud": ...}, {"aud": []}):
            check_refused(gateway, pass_of(SUB, **{**good, **change}))


def test_algorithm_comes_from_the_settings(own_market: Market) -> None:
    with keyed(own_market, secret=SECRET, public_key=public_pem(rsa_key()), algorithms=["RS256"]) as gateway:
        assert whose(gateway, pass_of(SUB, rsa_key())) == SUB
        check_refused(gateway, pass_of(SUB))


def test_without_any_key_all_are_refused_and_the_log_says_why(own_market: Market) -> None:
    with keyed(own_market) as gateway:
        for text in (pass_of(SUB), pass_of(SUB, rsa_key())):
            check_refused(gateway, text)
        check_problem(place(gateway), 401)
        [line] = [line for line in gateway.log.splitlines() if "all orders will be answered 401" in line]
        assert "auth.mode: required" in line and "WARNING" in line
        assert gateway.health()["status"] == "ok"


# Keys that rotate


class Issuer:
    """A JWKS on the loopback, which a test rotates and takes down.

    Attributes:
        document: what it answers; None: 500.
        fetches: how often it was asked.
    """

    def __init__(self, *keys: object) -> None:
        self.document: bytes | None = key_set(*keys)
        self.fetches = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                document = issuer.document
                self.send_response(500 if document is None else 200)
                self.send_header("Content-Length", str(len(document or b"")))
                self.end_headers()
                self.wfile.write(document or b"")

            def log_message(self, *_arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys"

    def __enter__(self) -> Issuer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_fetched(self) -> None:
        """Once it has been asked again."""
        before = self.fetches
        wait_until(lambda: self.fetches > before, "the keys fetched again")


def test_keys_rotate_and_the_old_ones_live_on(own_market: Market) -> None:
    first, second, third = rsa_key("r1"), ec_key("r2"), rsa_key("r3")
    with Issuer(jwk_of(first, "one")) as issuer, keyed(own_market, jwks_url=issuer.url) as gateway:
        assert whose(gateway, pass_of(SUB, first, "one")) == SUB
        issuer.document = key_set(jwk_of(second, "two"))
        # By the unknown kid, at once; the key that left is good for as long as its tokens may live.
        assert place(gateway, pass_of(SUB, second, "two")).status == 202
        assert whose(gateway, pass_of(SUB, first, "one")) == SUB

        def is_left_alone() -> bool:
            fetches = issuer.fetches
            for kid in ("three", "four", "five"):
                check_refused(gateway, pass_of(SUB, third, kid))
            return issuer.fetches == fetches

        # Whoever makes up kids is not to make the gateway ask each time: once in a while it does.
        gateway.wait_until(is_left_alone, "made-up kids that the issuer is not asked about")
        # A known kid with another key's signature.
        check_refused(gateway, pass_of(SUB, third, "one"))
        assert "problems" not in gateway.health()


def test_unknown_kid_at_the_upgrade_and_in_public_auth_fetches_the_keys(own_market: Market) -> None:
    first, second = ec_key("u1"), ec_key("u2")
    with Issuer(jwk_of(first, "one")) as issuer, keyed(own_market, jwks_url=issuer.url) as gateway:
        assert whose(gateway, pass_of(SUB, first, "one")) == SUB
        issuer.document = key_set(jwk_of(first, "one"), jwk_of(second, "two"))
        with WebSocket(gateway.address, "/ws?stream=none", bearer(pass_of(SUB, second, "two"))) as client:
            # What is sent behind a token is read behind it.
            client.send({"id": 1, "method": "public/auth", "params": {"token": pass_of(SUB, first, "one")}})
            client.send({"id": 2, "method": "private/cancel_all"})
            assert [json.loads(client.receive())["id"] for _ in range(2)] == [1, 2]
        with pytest.raises(Refused) as refused:
            WebSocket(gateway.address, "/ws", bearer(pass_of(SUB, second, "three")))
        check_problem(refused.value.answer, 401)


def test_timer_brings_new_keys_and_ends_old_ones(own_market: Market) -> None:
    first, second = ec_key("t1"), ec_key("t2")
    settled = {"jwks_refresh_seconds": 1, "jwks_keep_seconds": 0}
    with Issuer(jwk_of(first, "one")) as issuer, keyed(own_market, jwks_url=issuer.url, **settled) as gateway:
        assert whose(gateway, pass_of(SUB, first, "one")) == SUB
        issuer.document = key_set(jwk_of(second, "two"))
        gateway.wait_until(lambda: place(gateway, pass_of(SUB, first, "one")).status == 401, "the old key gone")
        assert whose(gateway, pass_of(SUB, second, "two")) == SUB


@pytest.mark.parametrize("down", [None, b"<html>", b'{"keys":[]}', b'{"keys":5}'])
def test_issuer_that_is_down_leaves_the_last_keys_and_health_says_so(own_market: Market, down: bytes | None) -> None:
    first, second = ec_key("d1"), ec_key("d2")
    with (
        Issuer(jwk_of(first, "one")) as issuer,
        keyed(own_market, jwks_url=issuer.url, jwks_refresh_seconds=1) as gateway,
    ):
        assert whose(gateway, pass_of(SUB, first, "one")) == SUB
        good, issuer.document = issuer.document, down
        gateway.wait_until(lambda: gateway.health().get("problems"), "a problem in /health")
        health = gateway.health()
        assert health["status"] == "degraded" and "keys" in health["problems"][0]
        assert gateway.get("/ready").status == 200
        assert whose(gateway, pass_of(SUB, first, "one")) == SUB
        check_refused(gateway, pass_of(SUB, second, "two"))
        assert good is not None
        issuer.document = key_set(*json.loads(good)["keys"], jwk_of(second, "two"))
        gateway.wait_until(lambda: "problems" not in gateway.health(), "no problem any more")
        assert whose(gateway, pass_of(SUB, second, "two")) == SUB
        assert gateway.log.count("could not be") == 1, gateway.log


def test_issuer_that_comes_later_is_asked_until_it_answers(own_market: Market) -> None:
    key = rsa_key("later")
    with Issuer() as issuer, keyed(own_market, jwks_url=issuer.url) as gateway:
        issuer.document = None
        check_refused(gateway, pass_of(SUB, key, "one"))
        issuer.document = key_set(jwk_of(key, "one"))
        gateway.wait_until(lambda: place(gateway, pass_of(SUB, key, "one")).status == 202, "the first keys")


# What is refused at start, and what is never written down


def test_short_secret_stops_the_start_with_one_line(tmp_path: Path) -> None:
    secret = "s" * 31
    file = tmp_path / "given.yaml"
    file.write_text(f"auth:\n  secret: {secret}\n", encoding="utf-8")
    done = run("--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"gateway: {file}:2: auth.secret: expected at least 32 bytes")
    assert secret not in line
    done = run("--check", JWT_SECRET=secret)
    assert done.returncode == 2 and "JWT_SECRET" in done.stderr and len(done.stderr.splitlines()) == 1


def test_short_secret_is_taken_with_a_warning_in_optional_mode() -> None:
    done = run("--check", JWT_SECRET="short", GATEWAY_AUTH_MODE="optional")
    assert done.returncode == 0
    assert "auth.secret" in done.stderr and "short" not in done.stderr.replace("shorter", "")


@pytest.mark.parametrize("check", [True, False])
def test_public_key_that_cannot_be_used_stops_the_start_with_one_line(check: bool) -> None:
    # A key without a flaw but that it is too short; what is no key at all the settings refuse.
    key = public_pem(rsa_key(bits=1024))
    done = run(*(["--check"] if check else []), GATEWAY_AUTH_PUBLIC_KEY=key, BIND_ADDR="127.0.0.1:0")
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert "auth.public_key" in line


def test_secrets_and_tokens_are_never_in_log_health_or_metrics(own_market: Market) -> None:
    secret = "never-to-be-seen-0123456789abcdefghij"
    good, bad = pass_of("user-to-be-seen", secret), pass_of("user-to-be-seen", "another-secret-that-signs-nothing-here")
    given = settings(auth={"secret": secret}, log={"level": "debug"})
    with Gateway.on(own_market, given) as gateway:
        assert place(gateway, good).status == 202
        answers = [place(gateway, bad).body, place(gateway, good + "x").body]
        for text in (good, bad):
            with contextlib.suppress(Refused):
                WebSocket(gateway.address, "/ws", bearer(text)).socket.close()
            with WebSocket(gateway.address, "/ws?stream=none") as client:
                client.call("public/auth", {"token": text})
                client.send({"type": "auth", "token": text})
                client.receive()
        seen = [gateway.get(path).body for path in ("/health", "/ready", "/metrics")]
        told = gateway.log.encode() + b"".join(answers + seen)
        for text in (secret, good, bad, *good.split(".")[1:], *bad.split(".")[1:]):
            assert text.encode() not in told
