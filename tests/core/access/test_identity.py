from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import core.access.identity
from core.access.identity import LEEWAY_SECONDS, MAX_TOKEN_BYTES, MAX_USER_ID, Identity, KeySet
from core.config.settings import Auth
from core.errors import SettingsError, Unauthorised, UnknownKey
from tests.core.tokens import (
    ALGORITHM,
    ES256,
    GOOD,
    HS256,
    JWKS,
    NOW,
    RS256,
    SECRET,
    WRONG,
    Clock,
    algorithm_of,
    base64url,
    claims,
    ec_key,
    hmac_token,
    identity_with,
    jwk_of,
    key_set,
    private_pem,
    public_pem,
    raw_token,
    refusal,
    rsa_key,
    token,
)

KEEP_SECONDS = 100.0
GOOD_TOKEN = token()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> KeySet:
    keys = KeySet(KEEP_SECONDS, clock)
    keys.update(key_set(jwk_of(rsa_key(), "r"), jwk_of(ec_key(), "e")))
    return keys


def count_reads(identity: Identity) -> list[str]:
    """Grows by each token that is not answered from the cache."""
    read: list[str] = []
    really = identity._read

    def counted(text: str, now: float) -> Any:
        read.append(text)
        return really(text, now)

    identity._read = counted  # type: ignore[method-assign]
    return read


# What is accepted


@pytest.mark.parametrize(("auth", "key"), [(HS256, SECRET), (RS256, rsa_key()), (ES256, ec_key())])
def test_token_of_each_algorithm_is_accepted(auth: Auth, key: Any) -> None:
    assert identity_with(auth).authenticate(token(key)) == GOOD


@pytest.mark.parametrize("key", [rsa_key(), ec_key()])
def test_token_is_accepted_by_the_kid_of_its_key(keys: KeySet, key: Any) -> None:
    kid = "r" if algorithm_of(key) == "RS256" else "e"
    assert identity_with(JWKS, keys).authenticate(token(key, kid)) == GOOD


@pytest.mark.parametrize("key", [rsa_key(), ec_key()])
def test_token_without_kid_is_accepted_when_one_key_has_its_algorithm(keys: KeySet, key: Any) -> None:
    assert identity_with(JWKS, keys).authenticate(token(key)) == GOOD


def test_all_kinds_of_keys_work_together(keys: KeySet) -> None:
    identity = identity_with(
        Auth(secret=SECRET, public_key=public_pem(rsa_key("own")), algorithms=("HS256", "RS256", "ES256")), keys
    )
    for good in (token(), token(rsa_key("own")), token(rsa_key("own"), "any"), token(rsa_key(), "r"), token(ec_key())):
        assert identity.authenticate(good) == GOOD


def test_kid_is_no_matter_where_there_is_only_one_key() -> None:
    assert identity_with(HS256).authenticate(token(SECRET, "any")) == GOOD
    assert identity_with(ES256).authenticate(token(ec_key(), "any")) == GOOD


def test_signature_of_the_standard_is_right() -> None:
    """RFC 7515 appendix A.3; its claims have no sub, which is looked at last."""
    keys = KeySet(KEEP_SECONDS)
    x, y = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    keys.update(key_set({"kty": "EC", "crv": "P-256", "x": x, "y": y}))
    standard = (
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnV"
        "lfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    assert refusal(identity_with(JWKS, keys, 1300819379), standard) == "the token has no sub"
    assert refusal(identity_with(JWKS, keys, 1300819379 + 61), standard) == "the token has expired"


@pytest.mark.parametrize(
    "more",
    [
        {"iat": ...},
        {"iat": NOW + 1e6},
        {"iat": 1.5},
        {"nbf": NOW},
        {"nbf": NOW + 60},
        {"iss": "https://anybody.example"},
        {"iss": 5},
        {"email": "a@b.example", "jti": "1"},
        {"name": "Ärger 😀", "nested": {"deep": [[[1.5e300]]]}},
    ],
)
def test_claims_are_accepted(more: dict[str, object]) -> None:
    assert identity_with(HS256).authenticate(token(**more)) == GOOD


@pytest.mark.parametrize("header", [{"typ": "at+jwt"}, {"typ": None}, {"jku": "https://evil.example"}, {"b64": False}])
def test_header_is_not_looked_at_for_more_than_its_algorithm_and_key(header: dict[str, object]) -> None:
    assert identity_with(HS256).authenticate(raw_token({"alg": "HS256", **header}, claims())) == GOOD


@pytest.mark.parametrize("user_id", ["0", "a b", "auth0|5f7c", "Zoë", "😀", "用户", "x" * MAX_USER_ID])
def test_user_id_is_the_sub_as_it_is(user_id: str) -> None:
    assert identity_with(HS256).authenticate(token(sub=user_id)).user_id == user_id


@pytest.mark.parametrize("audience", ["gateway", ["gateway"], ["other", "gateway"]])
def test_audience_is_accepted_when_it_has_the_expected_one(audience: object) -> None:
    assert identity_with(replace(HS256, audience="gateway")).authenticate(token(aud=audience)) == GOOD


def test_issuer_is_accepted_when_it_is_the_expected_one() -> None:
    issuer = "https://id.example"
    assert identity_with(replace(HS256, issuer=issuer)).authenticate(token(iss=issuer)) == GOOD


def test_token_with_jti_alone_is_no_refresh_token_when_a_public_key_checks_it() -> None:
    """Only the accounts service, with its shared secret, makes refresh tokens like that."""
    assert identity_with(RS256).authenticate(token(rsa_key(), jti="1")) == GOOD


def test_longest_token_is_accepted() -> None:
    def padded(more: int) -> str:
        return raw_token({"alg": "HS256"}, json.dumps(claims()).encode() + b" " * more)

    fitting = max(
        (padded(more) for more in range(2850, 3000)), key=lambda text: (len(text) <= MAX_TOKEN_BYTES, len(text))
    )
    assert len(fitting) in (MAX_TOKEN_BYTES - 1, MAX_TOKEN_BYTES)
    assert identity_with(HS256).authenticate(fitting) == GOOD


# When


@pytest.mark.parametrize(
    ("more", "seconds", "reason"),
    [
        ({"exp": NOW}, 59.999, None),
        ({"exp": NOW}, 60, "the token has expired"),
        ({"exp": NOW + 0.5}, 60.25, None),
        ({"exp": NOW + 0.5}, 60.5, "the token has expired"),
        ({"nbf": NOW}, -60, None),
        ({"nbf": NOW}, -60.001, "the token is not good yet"),
        ({"nbf": NOW + 0.5}, -59.5, None),
        ({"nbf": NOW + 0.5}, -59.501, "the token is not good yet"),
    ],
)
def test_leeway_is_a_minute_on_both_sides(more: dict[str, object], seconds: float, reason: str | None) -> None:
    identity, text = identity_with(HS256, now=NOW + seconds), token(**more)
    assert (refusal(identity, text) if reason else identity.authenticate(text) and None) == reason


def test_principal_ends_with_exp_and_leeway() -> None:
    assert identity_with(HS256).authenticate(token(exp=NOW + 0.25)).expires_at == NOW + 0.25 + LEEWAY_SECONDS


# Keys and algorithms against each other


@pytest.mark.parametrize("key", [rsa_key(), ec_key()])
@pytest.mark.parametrize("secret_too", [False, True])
def test_public_key_is_no_secret(keys: KeySet, key: Any, secret_too: bool) -> None:
    """The classic: HS256, keyed with the bytes of a key that everybody knows."""
    auth = Auth(public_key=public_pem(key), algorithms=("RS256", "ES256"))
    if secret_too:
        auth = replace(auth, secret=SECRET, algorithms=("HS256", "RS256", "ES256"))
    pem = public_pem(key).encode()
    for secret in (pem, pem.strip(), pem.replace(b"\n", b"\\n"), json.dumps(jwk_of(key, "r")).encode(), b""):
        for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": "r"}, {"alg": "HS256", "kid": "e"}):
            assert refusal(identity_with(auth, keys), hmac_token(header, secret)) == (
                WRONG if secret_too else ALGORITHM
            )


@pytest.mark.parametrize(
    ("auth", "key"),
    [
        (HS256, rsa_key()),
        (HS256, ec_key()),
        (RS256, SECRET),
        (ES256, SECRET),
        (replace(RS256, algorithms=("ES256",)), rsa_key()),
        (replace(ES256, algorithms=("RS256",)), ec_key()),
        (replace(HS256, algorithms=()), SECRET),
        (replace(HS256, algorithms=("RS256", "ES256")), SECRET),
        (replace(RS256, algorithms=()), rsa_key()),
        (replace(RS256, algorithms=("HS256",)), rsa_key()),
    ],
)
def test_algorithm_comes_from_the_settings(auth: Auth, key: Any) -> None:
    assert refusal(identity_with(auth), token(key)) in (ALGORITHM, "no key is configured to check tokens with")


def test_algorithm_without_a_key_of_its_type_is_refused() -> None:
    no_key = "there is no key for the token's algorithm"
    assert refusal(identity_with(RS256), token(ec_key())) == no_key
    assert refusal(identity_with(ES256), token(rsa_key())) == no_key
    assert refusal(identity_with(replace(RS256, algorithms=("HS256", "RS256"))), token()) == no_key
    assert refusal(identity_with(replace(HS256, algorithms=("HS256", "RS256"))), token(rsa_key())) == no_key


@pytest.mark.parametrize(("auth", "key"), [(RS256, rsa_key("other")), (ES256, ec_key("other"))])
def test_signature_of_another_key_is_wrong(auth: Auth, key: Any) -> None:
    assert refusal(identity_with(auth), token(key)) == WRONG


def test_signature_in_der_is_wrong() -> None:
    """JWS has the two numbers of ECDSA side by side (RFC 7518 section 3.4)."""
    signed = token(ec_key()).rpartition(".")[0]
    der = ec_key().sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    assert refusal(identity_with(ES256), f"{signed}.{base64url(der)}") == WRONG


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, b"x", b"x" * 63, b"x" * 65, b"x" * 256])
@pytest.mark.parametrize(("auth", "key"), [(RS256, rsa_key()), (ES256, ec_key())])
def test_made_up_signature_is_wrong(auth: Auth, key: Any, signature: bytes) -> None:
    signed = token(key).rpartition(".")[0]
    assert refusal(identity_with(auth), f"{signed}.{base64url(signature)}") == WRONG


def test_key_in_the_header_is_not_used(keys: KeySet) -> None:
    evil = ec_key("evil")
    headers = {
        "alg": "ES256",
        "kid": "e",
        "jwk": jwk_of(evil),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/",
        "x5c": ["AAAA"],
    }
    assert refusal(identity_with(JWKS, keys), raw_token(headers, claims(), evil)) == WRONG
    assert refusal(identity_with(ES256), raw_token(headers, claims(), evil)) == WRONG


@pytest.mark.parametrize(
    "kid",
    ["../../../dev/null", "e' OR '1'='1", "e\0", "E", " e", "e ", "/dev/null", "r\ne", "😀", "https://evil.example"],
)
def test_kid_is_only_looked_up(keys: KeySet, kid: str) -> None:
    with pytest.raises(UnknownKey):
        identity_with(JWKS, keys).authenticate(raw_token({"alg": "ES256", "kid": kid}, claims(), ec_key()))
    with pytest.raises(Unauthorised):
        identity_with(JWKS, keys).authenticate(hmac_token({"alg": "HS256", "kid": kid}, b""))


def test_kid_of_a_key_for_another_algorithm_is_refused_for_good(keys: KeySet) -> None:
    with pytest.raises(Unauthorised) as refused:
        identity_with(JWKS, keys).authenticate(token(ec_key(), "r"))
    assert not isinstance(refused.value, UnknownKey)


def test_wrong_signature_of_a_known_kid_is_refused_for_good(keys: KeySet) -> None:
    with pytest.raises(Unauthorised) as refused:
        identity_with(JWKS, keys).authenticate(token(ec_key("other"), "e"))
    assert not isinstance(refused.value, UnknownKey)


def test_unknown_kid_is_an_unknown_key_when_there_is_a_pem_too(keys: KeySet) -> None:
    with pytest.raises(UnknownKey):
        identity_with(ES256, keys).authenticate(token(ec_key("new"), "new"))


def test_unknown_key_is_nothing_to_ask_for_where_there_is_no_key_set() -> None:
    with pytest.raises(Unauthorised) as refused:
        identity_with(ES256).authenticate(token(ec_key("new"), "new"))
    assert not isinstance(refused.value, UnknownKey)


@pytest.mark.parametrize(
    "auth", [Auth(), Auth(mode="optional"), Auth(algorithms=("HS256", "RS256")), Auth(secret="", algorithms=("HS256",))]
)
@pytest.mark.parametrize("text", ["", "a.b.c", GOOD_TOKEN, token(""), token(rsa_key())])
def test_every_token_is_refused_when_no_key_is_configured(auth: Auth, text: str) -> None:
    assert refusal(identity_with(auth), text) == "no key is configured to check tokens with"


@pytest.mark.parametrize(
    "secret", [public_pem(rsa_key()), private_pem(ec_key()), "ssh-rsa AAAAB3NzaC1yc2E", "lone \udc80 surrogate"]
)
def test_secret_that_is_none_stops_the_start(secret: str) -> None:
    with pytest.raises(SettingsError, match=r"auth\.secret") as refused:
        identity_with(replace(HS256, secret=secret))
    assert secret not in str(refused.value)


@pytest.mark.parametrize("text", [public_pem(rsa_key("short", 1024)), public_pem(ec_key("p384", ec.SECP384R1)), "abc"])
def test_public_key_that_no_token_may_be_checked_with_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match=r"auth\.public_key: expected an RSA key"):
        identity_with(replace(RS256, public_key=text))


def test_public_key_whose_algorithm_is_not_allowed_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    identity_with(replace(RS256, algorithms=("ES256",)))
    assert caplog.messages == ["auth.public_key is not used: RS256 is not in auth.algorithms"]


# The cache


def same_text(text: str) -> str:
    """Equal and not the same object, as the next request has it."""
    return text.encode().decode()


def test_token_seen_before_is_not_read_again(clock: Clock) -> None:
    identity = Identity(HS256, None, clock)
    read = count_reads(identity)
    principals = {identity.authenticate(same_text(GOOD_TOKEN)) for _ in range(3)}
    assert (principals, read) == ({GOOD}, [GOOD_TOKEN])


def test_refused_token_is_read_each_time(clock: Clock) -> None:
    identity = Identity(HS256, None, clock)
    read = count_reads(identity)
    bad = token("another shared secret, long enough")
    assert [refusal(identity, bad) for _ in range(2)] == [WRONG] * 2
    assert len(read) == 2


def test_token_seen_before_is_refused_when_it_has_expired(clock: Clock) -> None:
    identity = Identity(HS256, None, clock)
    clock.now = identity.authenticate(GOOD_TOKEN).expires_at - 0.001
    assert identity.authenticate(GOOD_TOKEN) == GOOD
    clock.now = GOOD.expires_at
    assert refusal(identity, GOOD_TOKEN) == "the token has expired"


def test_token_seen_before_is_refused_when_the_clock_goes_back_before_its_nbf(clock: Clock) -> None:
    identity, text = Identity(HS256, None, clock), token(nbf=NOW)
    identity.authenticate(text)
    clock.now = NOW - 60.001
    assert refusal(identity, text) == "the token is not good yet"
    clock.now = NOW
    assert identity.authenticate(text) == GOOD


def test_token_seen_before_is_refused_when_its_key_ends(keys: KeySet, clock: Clock) -> None:
    """At the moment it does, whether a document comes or not."""
    identity, text = Identity(JWKS, keys, clock), token(ec_key(), "e")
    assert identity.authenticate(text) == GOOD
    keys.update(key_set(jwk_of(ec_key("new"), "new")))
    assert identity.authenticate(text) == GOOD
    clock.now += KEEP_SECONDS - 0.001
    assert identity.authenticate(text) == GOOD
    clock.now = NOW + KEEP_SECONDS
    with pytest.raises(UnknownKey):
        identity.authenticate(text)


def test_token_seen_before_is_refused_at_once_when_keys_are_not_kept(clock: Clock) -> None:
    keys = KeySet(0, clock)
    keys.update(key_set(jwk_of(ec_key(), "e")))
    identity, text = Identity(JWKS, keys, clock), token(ec_key(), "e")
    assert identity.authenticate(text) == GOOD
    keys.update(key_set(jwk_of(ec_key("new"), "e")))
    assert refusal(identity, text) == WRONG


def test_cache_is_dropped_when_the_keys_change_and_only_then(keys: KeySet, clock: Clock) -> None:
    identity, text = Identity(JWKS, keys, clock), token(ec_key(), "e")
    read = count_reads(identity)
    identity.authenticate(text)
    keys.update(key_set(jwk_of(rsa_key(), "r"), jwk_of(ec_key(), "e")))
    identity.authenticate(text)
    assert len(read) == 1
    keys.update(key_set(jwk_of(ec_key(), "e")))
    identity.authenticate(text)
    assert len(read) == 2


def test_old_key_of_a_kid_is_tried_while_it_is_kept(keys: KeySet, clock: Clock) -> None:
    identity = Identity(JWKS, keys, clock)
    keys.update(key_set(jwk_of(ec_key("new"), "e")))
    assert identity.authenticate(token(ec_key("new"), "e")) == GOOD
    assert identity.authenticate(token(ec_key(), "e")) == GOOD
    clock.now += KEEP_SECONDS
    assert identity.authenticate(token(ec_key("new"), "e")) == GOOD
    assert refusal(identity, token(ec_key(), "e")) == WRONG


def test_cache_is_bounded_and_keeps_what_is_asked_for(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(core.access.identity, "_CACHE_BYTES", 10 * (len(GOOD_TOKEN) + 550))
    identity = Identity(HS256, None, clock)
    read = count_reads(identity)
    identity.authenticate(GOOD_TOKEN)
    for number in range(100):
        identity.authenticate(token(sub=f"user-{number:3}".replace(" ", "_")))
        identity.authenticate(GOOD_TOKEN)
    assert read.count(GOOD_TOKEN) == 1
    assert len(identity._young) + len(identity._old) <= 24


def test_tokens_are_told_apart(clock: Clock) -> None:
    identity = Identity(HS256, None, clock)
    users = [identity.authenticate(token(sub=name)).user_id for name in ("a", "b", "a", "A")]
    assert users == ["a", "b", "a", "A"]


def test_principals_of_two_identities_do_not_mix(clock: Clock) -> None:
    Identity(HS256, None, clock).authenticate(GOOD_TOKEN)
    other = Identity(replace(HS256, secret="another secret, also of 32 bytes"), None, clock)
    assert refusal(other, GOOD_TOKEN) == WRONG
