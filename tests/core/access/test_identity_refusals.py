from __future__ import annotations

import json
import random
import sys
import traceback
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jose import jwt

import core.access.identity
from core.access.identity import MAX_TOKEN_BYTES, MAX_USER_ID, Identity, KeySet
from core.config.settings import Auth
from core.errors import Unauthorised
from tests.core.tokens import (
    ALGORITHM,
    AUDIENCE,
    GOOD,
    HS256,
    NO_SUB,
    NOW,
    SECRET,
    WRONG,
    Clock,
    base64url,
    claims,
    ec_key,
    identity_with,
    jwk_of,
    key_set,
    public_pem,
    raw_token,
    refusal,
    rsa_key,
    token,
)
from tests.support.examples import examples

# What is refused: each token is good but for one thing, and rightly signed where it does not say otherwise


def unsigned(header: dict[str, Any], signature: str = "") -> str:
    return ".".join([*(base64url(json.dumps(part).encode()) for part in (header, claims())), signature])


def with_claims(text: str | bytes) -> str:
    return raw_token({"alg": "HS256"}, text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))


def with_date(name: str, value: str) -> str:
    return with_claims(json.dumps(claims(**{name: ...}))[:-1] + f', "{name}": {value}}}')


GOOD_TOKEN = token()
HEADER, CLAIMS, SIGNATURE = GOOD_TOKEN.split(".")
HS = {"alg": "HS256"}
MEMBERS = '"sub": "user-1", "exp": 1800000600'
DEEP = "[" * 1500 + "]" * 1500

NOT_A_JWT = "the token is not a JWT of three parts"
NOT_BASE64URL = "the token is not a JWT in base64url"
BAD_HEADER = "the token's header cannot be read as JSON"
BAD_CLAIMS = "the token's claims cannot be read as JSON"
UNFIT_SUB = "the token's sub cannot be a user id"
REFRESH = "the token is a refresh token"

REFUSED: dict[str, tuple[Any, str]] = {
    # the text
    "nothing": ("", NOT_A_JWT),
    "no dots": ("abc", NOT_A_JWT),
    "two parts": (f"{HEADER}.{CLAIMS}", NOT_A_JWT),
    "four parts": (f"{GOOD_TOKEN}.{SIGNATURE}", NOT_A_JWT),
    "encrypted": (f"{HEADER}.a.b.c.d", NOT_A_JWT),
    "dots": ("..", NOT_BASE64URL),
    "no signature": (f"{HEADER}.{CLAIMS}.", NOT_BASE64URL),
    "no claims": (f"{HEADER}..{SIGNATURE}", NOT_BASE64URL),
    "space": (f" {GOOD_TOKEN}", NOT_BASE64URL),
    "line end": (f"{GOOD_TOKEN}\n", NOT_BASE64URL),
    "scheme": (f"Bearer {GOOD_TOKEN}", NOT_BASE64URL),
    "padding": (f"{GOOD_TOKEN}=", NOT_BASE64URL),
    "base64": (f"{HEADER}.{CLAIMS}.++//", NOT_BASE64URL),
    "not ascii": (f"{GOOD_TOKEN}é", NOT_BASE64URL),
    "look-alike digit": (f"{HEADER}.{CLAIMS}.{SIGNATURE[:-1]}٣", NOT_BASE64URL),
    "surrogate": (f"{GOOD_TOKEN}\udc80", NOT_BASE64URL),
    "nul": (f"{GOOD_TOKEN}\0", NOT_BASE64URL),
    "too long": ("a" * (MAX_TOKEN_BYTES + 1), "the token is longer than 4096 bytes"),
    "too long, good": (token(more="x" * MAX_TOKEN_BYTES), "the token is longer than 4096 bytes"),
    "endless": ("." * 10_000_000, "the token is longer than 4096 bytes"),
    "many parts": ("." * MAX_TOKEN_BYTES, NOT_A_JWT),
    "bytes": (GOOD_TOKEN.encode(), "the token is not text"),
    "null": (None, "the token is not text"),
    "object": ({"token": GOOD_TOKEN}, "the token is not text"),
    "number": (5, "the token is not text"),
    # the header
    "header: not UTF-8": (raw_token(b"\xff", claims()), BAD_HEADER),
    "header: UTF-16": (raw_token('{"alg": "HS256"}'.encode("utf-16"), claims()), BAD_HEADER),
    "header: byte order mark": (raw_token(b'\xef\xbb\xbf{"alg": "HS256"}', claims()), BAD_HEADER),
    "header: not JSON": (raw_token(b"{alg: HS256}", claims()), BAD_HEADER),
    "header: array": (raw_token([], claims()), "the token's header is not an object"),
    "header: null": (raw_token(None, claims()), "the token's header is not an object"),
    "header: text": (raw_token("HS256", claims()), "the token's header is not an object"),
    "header: key twice": (raw_token(b'{"alg": "none", "alg": "HS256"}', claims()), BAD_HEADER),
    "header: deep": (raw_token(f'{{"alg": "HS256", "a": {DEEP[:1400]}{DEEP[-1400:]}}}'.encode(), {}), BAD_HEADER),
    "header: deep and unclosed": (raw_token(b"[" * 2900, {}), BAD_HEADER),
    "header: NaN": (raw_token(b'{"alg": "HS256", "a": NaN}', claims()), BAD_HEADER),
    "crit": (raw_token({**HS, "crit": ["exp"]}, claims()), "the token's header has crit"),
    "crit: empty": (raw_token({**HS, "crit": []}, claims()), "the token's header has crit"),
    "crit: null": (raw_token({**HS, "crit": None}, claims()), "the token's header has crit"),
    "crit: b64": (raw_token({**HS, "b64": False, "crit": ["b64"]}, claims()), "the token's header has crit"),
    "alg: missing": (raw_token({"typ": "JWT"}, claims()), ALGORITHM),
    "alg: null": (raw_token({"alg": None}, claims()), ALGORITHM),
    "alg: list": (raw_token({"alg": ["HS256"]}, claims()), ALGORITHM),
    "alg: object": (raw_token({"alg": {}}, claims()), ALGORITHM),
    "alg: none": (unsigned({"alg": "none"}, "AAAA"), ALGORITHM),
    "alg: none, unsigned": (unsigned({"alg": "none"}), NOT_BASE64URL),
    "alg: NONE": (raw_token({"alg": "NONE"}, claims()), ALGORITHM),
    "alg: empty": (raw_token({"alg": ""}, claims()), ALGORITHM),
    "alg: lower case": (raw_token({"alg": "hs256"}, claims()), ALGORITHM),
    "alg: HS512": (jwt.encode(claims(), SECRET, algorithm="HS512"), ALGORITHM),
    "alg: RS256 of an HMAC": (raw_token({"alg": "RS256"}, claims()), ALGORITHM),
    "kid: number": (raw_token({**HS, "kid": 5}, claims()), "the token's kid is not a short text"),
    "kid: null": (raw_token({**HS, "kid": None}, claims()), "the token's kid is not a short text"),
    "kid: list": (raw_token({**HS, "kid": ["e"]}, claims()), "the token's kid is not a short text"),
    "kid: empty": (raw_token({**HS, "kid": ""}, claims()), "the token's kid is not a short text"),
    "kid: long": (raw_token({**HS, "kid": "x" * 257}, claims()), "the token's kid is not a short text"),
    # the signature
    "signature: of another secret": (token("another shared secret, long enough"), WRONG),
    "signature: of another token": (f"{HEADER}.{CLAIMS}.{token(sub='other').split('.')[2]}", WRONG),
    "signature: cut": (f"{HEADER}.{CLAIMS}.{SIGNATURE[:20]}", WRONG),
    "signature: longer": (f"{HEADER}.{CLAIMS}.{base64url(b'x' * 33)}", WRONG),
    "signature: zeros": (f"{HEADER}.{CLAIMS}.{base64url(bytes(32))}", WRONG),
    "signature: spare bits": (f"{GOOD_TOKEN[:-1]}{chr(ord(GOOD_TOKEN[-1]) + 1)}", NOT_BASE64URL),
    "signature: not over the claims": (
        f"{HEADER}.{base64url(json.dumps(claims(sub='x')).encode())}.{SIGNATURE}",
        WRONG,
    ),
    "signature: wrong, and deep claims": (f"{HEADER}.{base64url(b'[' * 2000)}.{SIGNATURE}", WRONG),
    # the claims
    "claims: not UTF-8": (with_claims(b"\xff"), BAD_CLAIMS),
    "claims: not JSON": (with_claims("{sub: 1}"), BAD_CLAIMS),
    "claims: array": (with_claims("[]"), "the token's claims is not an object"),
    "claims: null": (with_claims("null"), "the token's claims is not an object"),
    "claims: key twice": (with_claims('{"sub": "user-2", ' + MEMBERS + "}"), BAD_CLAIMS),
    "claims: key twice, escaped": (with_claims('{"s\\u0075b": "user-2", ' + MEMBERS + "}"), BAD_CLAIMS),
    "claims: key twice, deeper": (with_claims("{" + MEMBERS + ', "a": {"b": 1, "b": 1}}'), BAD_CLAIMS),
    "claims: deep": (with_claims("{" + MEMBERS + f', "a": {"[" * 1200}{"]" * 1200}}}'), BAD_CLAIMS),
    "claims: NaN": (with_claims("{" + MEMBERS + ', "a": NaN}'), BAD_CLAIMS),
    "claims: more behind": (with_claims("{" + MEMBERS + "} {}"), BAD_CLAIMS),
    "sub: missing": (token(sub=...), NO_SUB),
    "sub: null": (raw_token(HS, claims(sub=None)), NO_SUB),
    "sub: empty": (token(sub=""), NO_SUB),
    "sub: number": (raw_token(HS, claims(sub=5)), NO_SUB),
    "sub: true": (raw_token(HS, claims(sub=True)), NO_SUB),
    "sub: list": (raw_token(HS, claims(sub=["user-1"])), NO_SUB),
    "sub: long": (token(sub="x" * (MAX_USER_ID + 1)), UNFIT_SUB),
    "sub: lone surrogate": (with_claims('{"sub": "a\\ud800", "exp": 1800000600}'), BAD_CLAIMS),
    "sub: raw surrogate": (with_claims('{"sub": "a\ud800", "exp": 1800000600}'), BAD_CLAIMS),
    "sub: nul": (token(sub="a\0b"), UNFIT_SUB),
    "sub: line end": (token(sub="a\r\nX-User-Id: b"), UNFIT_SUB),
    "sub: delete": (token(sub="a\x7f"), UNFIT_SUB),
    "sub: C1": (token(sub="a\x85b"), UNFIT_SUB),
    "sub: line separator": (token(sub="a\u2028b"), UNFIT_SUB),
    "sub: space": (token(sub=" "), UNFIT_SUB),
    "sub: space before": (token(sub=" user-1"), UNFIT_SUB),
    "sub: space behind": (token(sub="user-1\u00a0"), UNFIT_SUB),
    "exp: missing": (token(exp=...), "the token has no exp"),
    "exp: past": (token(exp=int(NOW) - 60), "the token has expired"),
    "exp: negative": (token(exp=-1), "the token has expired"),
    "nbf: future": (token(nbf=int(NOW) + 61), "the token is not good yet"),
    "jti without email": (token(jti="1"), REFRESH),
    "jti: null, without email": (raw_token(HS, claims(jti=None)), REFRESH),
    "jti with an empty email": (token(jti="1", email=""), REFRESH),
    "jti with a null email": (raw_token(HS, claims(jti="1", email=None)), REFRESH),
    "aud: text": (token(aud="gateway"), AUDIENCE),
    "aud: list": (token(aud=["gateway"]), AUDIENCE),
    "aud: empty list": (token(aud=[]), AUDIENCE),
    "aud: empty": (token(aud=""), AUDIENCE),
    "aud: null": (raw_token(HS, claims(aud=None)), AUDIENCE),
    **{
        f"{name}: {value}": (with_date(name, value), f"the token's {name} is not a number of seconds")
        for name in ("exp", "nbf", "iat")
        for value in ("null", "true", "false", '"1800000600"', "[1800000600]", "{}", "1e999", "-1e999", "1" + "0" * 400)
    },
    **{
        f"{name}: {value}": (with_date(name, value), BAD_CLAIMS)
        for name in ("exp", "nbf", "iat")
        for value in ("NaN", "Infinity", "-Infinity", "01800000600", "+1800000600", "1e9999999999999999999")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_token_is_refused(name: str) -> None:
    bad, reason = REFUSED[name]
    assert refusal(identity_with(HS256), bad) == reason


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_quotes_nothing_of_the_token(name: str, caplog: pytest.LogCaptureFixture) -> None:
    bad, _ = REFUSED[name]
    with pytest.raises(Unauthorised) as refused:
        identity_with(HS256).authenticate(bad)
    said = "".join(traceback.format_exception(refused.value)[-1:]) + caplog.text
    assert len(refused.value.reason) < 80
    assert refused.value.__cause__ is None and (refused.value.__context__ is None or refused.value.__suppress_context__)
    assert "user-1" not in said and HEADER not in said and CLAIMS not in said


@pytest.mark.parametrize("audience", ["other", ["other"], [], [["gateway"]], ["gateway", 5], {"gateway": 1}, None, ...])
def test_audience_is_refused_when_it_is_not_the_expected_one(audience: object) -> None:
    bad = raw_token(HS, claims(aud=audience))
    assert refusal(identity_with(replace(HS256, audience="gateway")), bad) in (AUDIENCE, "the token has no aud")


@pytest.mark.parametrize(
    "issuer", ["https://id.example/", "HTTPS://id.example", "", 5, None, ["https://id.example"], ...]
)
def test_issuer_is_refused_when_it_is_not_the_expected_one(issuer: object) -> None:
    bad = raw_token(HS, claims(iss=issuer))
    identity = identity_with(replace(HS256, issuer="https://id.example"))
    assert refusal(identity, bad) == "the token's iss is not the expected one"


# Whatever is thrown


@pytest.mark.parametrize(
    "error", [RecursionError("user-1"), MemoryError("user-1"), OverflowError("user-1"), KeyError("user-1"), Exception()]
)
def test_any_error_while_reading_is_unauthorised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(_octets: bytes) -> object:
        raise error

    monkeypatch.setattr(core.access.identity, "read_json", fail)
    identity = identity_with(HS256)
    assert [refusal(identity, GOOD_TOKEN) for _ in range(3)] == ["the token cannot be read"] * 3
    assert caplog.messages == [f"reading a token raised {type(error).__name__}"]
    assert "user-1" not in caplog.text


def test_token_is_unauthorised_when_there_is_hardly_any_stack_left() -> None:
    identity = identity_with(HS256)

    def outcome(levels: int, text: str) -> str:
        if levels:
            return outcome(levels - 1, text)
        try:
            identity.authenticate(text)
        except Unauthorised:
            return "refused"
        return "accepted"

    outcomes = []
    for left in range(40, 0, -1):
        text = token(n=left)
        try:
            outcomes.append(outcome(sys.getrecursionlimit() - len(traceback.extract_stack()) - left, text))
        except RecursionError:
            outcomes.append("none left to refuse with")
    assert [kind for kind, _ in groupby(outcomes)] == ["accepted", "refused", "none left to refuse with"]
    assert identity.authenticate(token(n=0)) == GOOD


EVERYTHING = Auth(secret=SECRET, public_key=public_pem(rsa_key()), algorithms=("HS256", "RS256", "ES256"))
GOOD_TOKENS = [GOOD_TOKEN, token(rsa_key()), token(ec_key(), "e")]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture(scope="module")
def everything() -> Identity:
    keys = KeySet(100, Clock())
    keys.update(key_set(jwk_of(rsa_key(), "r"), jwk_of(ec_key(), "e")))
    return identity_with(EVERYTHING, keys)


def is_good(identity: Identity, text: str) -> bool:
    """Anything but Unauthorised fails the test."""
    try:
        identity.authenticate(text)
    except Unauthorised:
        return False
    return True


@st.composite
def changed_tokens(draw: st.DrawFn) -> tuple[str, str]:
    good = draw(st.sampled_from(GOOD_TOKENS))
    changed = good
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(changed)))
        end = min(len(changed), start + draw(st.integers(0, 3)))
        new = draw(st.text(ALPHABET, max_size=3) | st.text(max_size=2) | st.sampled_from([".", "=", " ", "\n"]))
        changed = changed[:start] + new + changed[end:]
    return good, changed


@given(changed_tokens())
@settings(max_examples=examples(300))
def test_changed_token_is_refused(everything: Identity, tokens: tuple[str, str]) -> None:
    good, changed = tokens
    assert is_good(everything, changed) == (changed == good)


@pytest.mark.parametrize("good", GOOD_TOKENS)
def test_token_is_refused_when_any_one_character_is_another(everything: Identity, good: str) -> None:
    chance = random.Random(1)
    for at, character in enumerate(good):
        others = [other for other in ALPHABET if other != character]
        for other in [chance.choice(others), *(others if at == len(good) - 1 else ())]:
            assert not is_good(everything, good[:at] + other + good[at + 1 :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["alg", "kid", "crit", "typ", "sub", "exp", "nbf", "iat", "iss", "aud", "jti", "email"])


@given(st.dictionaries(NAMES, JSON, max_size=5), st.dictionaries(NAMES, JSON, max_size=5))
@example({"alg": "HS256"}, {"exp": float("inf")})
@settings(deadline=None)
def test_any_signed_header_and_claims_are_a_principal_or_unauthorised(
    everything: Identity, header: dict[str, object], more: dict[str, object]
) -> None:
    try:
        principal = everything.authenticate(raw_token({"alg": "HS256"} | header, claims() | more))
    except Unauthorised:
        return
    assert principal.user_id.encode() and principal.expires_at > NOW


@given(st.binary(max_size=60), st.binary(max_size=60))
@settings(deadline=None)
def test_any_signed_bytes_are_unauthorised(everything: Identity, header: bytes, payload: bytes) -> None:
    assert not is_good(everything, raw_token(header, payload))
    assert not is_good(everything, raw_token({"alg": "HS256"}, payload))


@given(st.text(max_size=60) | st.lists(st.text(ALPHABET, max_size=12), min_size=3, max_size=3).map(".".join))
@settings(deadline=None)
def test_any_text_is_unauthorised(everything: Identity, text: str) -> None:
    assert not is_good(everything, text)
