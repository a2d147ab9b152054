"""EdDSA tokens: which key they are checked with, and all that is near and not one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.access.identity import Ed25519Key, Identity, KeySet
from core.access.keys import UnusableKey, decode_base64url, problem_of_pem, read_jwk, read_key_set, read_pem
from core.access.scopes import CANCEL, EVERYTHING, READ
from core.config.settings import Auth
from tests.core.tokens import (
    ALGORITHM,
    GOOD,
    NOW,
    SECRET,
    WRONG,
    Clock,
    base64url,
    claims,
    ec_key,
    hmac_token,
    identity_with,
    jwk_of,
    key_set,
    refusal,
    rsa_key,
)
from tests.core.tokens import token as token_of

OWN = ed25519.Ed25519PrivateKey.from_private_bytes(b"1" * 32)
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(b"2" * 32)
ALL = ("RS256", "ES256", "EdDSA")


def pem(key: ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def okp(key: ed25519.Ed25519PrivateKey = OWN, **more: object) -> dict[str, Any]:
    members: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().public_bytes_raw())}
    members |= {"use": "sig", "alg": "EdDSA", "kid": "own"} | more
    return {name: value for name, value in members.items() if value is not ...}


def signed(key: ed25519.Ed25519PrivateKey = OWN, header: dict[str, Any] | None = None, **more: object) -> str:
    head = {"alg": "EdDSA", **(header or {})}
    text = ".".join(base64url(json.dumps(part).encode()) for part in (head, claims(**more)))
    return f"{text}.{base64url(key.sign(text.encode()))}"


PEM = Auth(public_key=pem(OWN), algorithms=ALL)
JWKS = Auth(jwks_url="https://id.example/keys", algorithms=ALL)


def identity_of(*keys: dict[str, Any], auth: Auth = JWKS) -> Identity:
    known = KeySet(3600, Clock())
    assert known.update(key_set(*keys)) == []
    return identity_with(auth, known)


def test_token_of_the_rfc_is_checked() -> None:
    # RFC 8037, appendix A.2 and A.4.
    key = read_jwk({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    text, signature = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc", (
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )  # fmt: skip
    octets = decode_base64url(signature)
    assert Ed25519Key(key.octets).verify(text.encode(), octets)
    assert not Ed25519Key(key.octets).verify(text.encode() + b"x", octets)


def test_token_is_checked_with_the_pem() -> None:
    assert read_pem(pem(OWN)).algorithm == "EdDSA"
    assert identity_with(PEM).authenticate(signed()) == GOOD
    assert refusal(identity_with(PEM), signed(OTHER)) == WRONG


def test_token_is_checked_with_the_key_that_its_kid_names() -> None:
    identity = identity_of(okp(OWN, kid="a"), okp(OTHER, kid="b"), jwk_of(rsa_key(), "r"))
    assert identity.authenticate(signed(OWN, {"kid": "a"})) == GOOD
    assert identity.authenticate(signed(OTHER, {"kid": "b"})) == GOOD
    assert refusal(identity, signed(OWN, {"kid": "b"})) == WRONG
    assert refusal(identity, signed(OWN, {"kid": "c"})) == "the token's key is not known"
    assert refusal(identity, signed(OWN)) == "the token names no key, and there are several"


def test_key_is_for_the_algorithm_of_its_type_alone() -> None:
    identity = identity_of(okp(OWN, kid="e"), jwk_of(rsa_key(), "r"), jwk_of(ec_key(), "c"))
    for kid in ("r", "c"):
        assert refusal(identity, signed(OWN, {"kid": kid})) == "the token names a key that is for another algorithm"
    for key in (rsa_key(), ec_key()):
        assert refusal(identity, token_of(key, "e")) == "the token names a key that is for another algorithm"
    for algorithm in ("RS256", "ES256"):
        text = signed(OWN, {"kid": "e", "alg": algorithm})
        assert refusal(identity, text) == "the token names a key that is for another algorithm"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "Ed25519", "eddsa", "EdDSA ", "ES256K", ""])
def test_token_of_another_algorithm_is_refused(algorithm: str) -> None:
    assert refusal(identity_with(PEM), signed(OWN, {"alg": algorithm})) == ALGORITHM


def test_public_key_is_no_shared_secret() -> None:
    both = Auth(secret=SECRET, public_key=pem(OWN), algorithms=("HS256", *ALL))
    for secret in (pem(OWN).encode(), OWN.public_key().public_bytes_raw()):
        assert refusal(identity_with(both), hmac_token({"alg": "HS256"}, secret)) == WRONG


def test_eddsa_that_is_not_allowed_is_refused() -> None:
    auth = Auth(jwks_url="https://id.example/keys", algorithms=("RS256", "ES256"))
    assert refusal(identity_of(okp(), auth=auth), signed(OWN, {"kid": "own"})) == ALGORITHM


@pytest.mark.parametrize("size", [0, 1, 32, 63, 65, 128])
def test_signature_of_another_length_is_wrong(size: int) -> None:
    text, _, signature = signed().rpartition(".")
    octets = (b"\0" * 200)[:size]
    reason = refusal(identity_with(PEM), f"{text}.{base64url(octets)}")
    assert reason == (WRONG if size else "the token is not a JWT in base64url")
    assert signature


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"crv": "Ed448"}, "crv is not Ed25519"),
        ({"crv": "X25519"}, "crv is not Ed25519"),
        ({"crv": ...}, "crv is not Ed25519"),
        ({"crv": ["Ed25519"]}, "crv is not Ed25519"),
        ({"x": base64url(b"1" * 31)}, "x is not 32 bytes"),
        ({"x": base64url(b"1" * 33)}, "x is not 32 bytes"),
        ({"x": ...}, "x is missing"),
        ({"x": "?"}, "x is not base64url"),
        ({"alg": "ES256"}, "alg is not EdDSA, which an OKP key is for"),
        ({"alg": "Ed25519"}, "alg is not EdDSA, which an OKP key is for"),
        ({"kty": "oct"}, "kty is neither RSA, EC nor OKP"),
        ({"kty": ["OKP"]}, "kty is neither RSA, EC nor OKP"),
        ({"use": "enc"}, "use is not sig"),
        ({"d": base64url(b"1" * 32)}, "it is a private key, and everybody who can read the document has it"),
        ({"sub": 17}, "sub is not a text"),
        ({"sub": ""}, "sub is not a text"),
        ({"scope": ["read"]}, "scope is not a text"),
    ],
)
def test_key_that_is_not_usable_is_left_out_with_a_line(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(UnusableKey) as unusable:
        read_jwk(okp(**changed))
    assert unusable.value.reason == reason
    known, problems = read_key_set(key_set(okp(**changed), okp(OTHER, kid="b")))
    assert ([one.kid for one in known], problems) == (["b"], [f"kid 'own': {reason}"])


def test_key_may_lack_what_is_optional() -> None:
    assert read_jwk(okp(alg=..., use=..., kid=...)) == read_jwk(okp())


def test_pem_of_another_curve_is_refused() -> None:
    assert problem_of_pem(pem(OWN)) is None
    for key in (ed448.Ed448PrivateKey.generate(), x25519.X25519PrivateKey.generate()):
        problem = problem_of_pem(pem(key))  # type: ignore[arg-type]
        assert problem is not None
        assert problem.endswith("an Ed25519 key: neither an RSA, an EC nor an Ed25519 key")


def test_key_of_a_user_signs_for_that_user_alone() -> None:
    identity = identity_of(okp(OWN, sub="user-1"), okp(OTHER, kid="issuer"))
    assert identity.authenticate(signed(OWN, {"kid": "own"})) == GOOD
    assert refusal(identity, signed(OWN, {"kid": "own"}, sub="user-2")) == "the token's key is another user's own"
    assert identity.authenticate(signed(OTHER, {"kid": "issuer"}, sub="user-2")).user_id == "user-2"


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [(..., {READ, CANCEL}), ("read", {READ}), ("read trade cancel", {READ, CANCEL}), ("trade", {CANCEL}), ("", set())],
)
def test_token_allows_no_more_than_its_key(scope: object, allowed: set[str]) -> None:
    identity = identity_of(okp(OWN, scope="read cancel"))
    assert identity.authenticate(signed(OWN, {"kid": "own"}, scope=scope)).allowed == allowed


def test_key_that_was_given_to_another_user_is_good_for_the_new_one() -> None:
    clock = Clock(NOW)
    keys = KeySet(0, clock)
    identity = Identity(JWKS, keys, clock)
    keys.update(key_set(okp(OWN, sub="user-1")))
    text = signed(OWN, {"kid": "own"})
    assert identity.authenticate(text) == GOOD
    clock.now += 1
    keys.update(key_set(okp(OWN, sub="user-2")))
    assert refusal(identity, text) == "the token's key is another user's own"


def test_key_without_a_scope_allows_everything() -> None:
    assert read_jwk(okp()).allowed == EVERYTHING
