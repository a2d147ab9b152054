from __future__ import annotations

import datetime
import json
import math
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from core.access.keys import (
    MAX_DOCUMENT_BYTES,
    MAX_KEPT,
    MAX_KEYS,
    MAX_TRIED,
    BadKeySet,
    KeySet,
    PublicKey,
    UnusableKey,
    decode_base64url,
    read_jwk,
    read_pem,
)
from core.errors import Unauthorised, UnknownKey
from tests.core.tokens import Clock, base64url, ec_key, jwk_of, key_set, private_pem, public_pem, rsa_key

KEEP_SECONDS = 100.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> KeySet:
    return KeySet(KEEP_SECONDS, clock)


def pems(keys: KeySet, kid: str | None, algorithm: str = "ES256") -> list[bytes]:
    return [key.pem for key, _ in keys.get(kid, algorithm)]


def pem_of(name: str) -> bytes:
    return public_pem(ec_key(name)).encode()


# base64url


@given(st.binary(min_size=1, max_size=40))
@settings(deadline=None)
def test_base64url_is_read_back(octets: bytes) -> None:
    assert decode_base64url(base64url(octets)) == octets


@pytest.mark.parametrize("text", ["", "A", "AA==", "AB", "AAB", "A+/A", "AA A", "AAAA\n", "ÄAAA", "AAAA.", "٣AAA"])
def test_base64url_refuses_what_is_not_its_one_text(text: str) -> None:
    with pytest.raises(ValueError):
        decode_base64url(text)


# PEM


@pytest.mark.parametrize(("key", "algorithm"), [(rsa_key(), "RS256"), (ec_key(), "ES256")])
def test_pem_is_good_for_the_algorithm_of_its_type(key: Any, algorithm: str) -> None:
    assert read_pem(public_pem(key)) == PublicKey(algorithm, public_pem(key).encode())


def test_pem_of_pkcs1_is_read() -> None:
    text = rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    assert read_pem(text).pem == public_pem(rsa_key()).encode()


@pytest.mark.parametrize("key", [rsa_key(), ec_key()])
def test_pem_of_a_certificate_gives_its_key(key: Any) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    made = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(made)
        .not_valid_after(made + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    assert read_pem(certificate.public_bytes(Encoding.PEM).decode()).pem == public_pem(key).encode()


BAD_PEMS = {
    "short RSA": public_pem(rsa_key("short", 1024)),
    "P-384": public_pem(ec_key("p384", ec.SECP384R1)),
    "secp256k1": public_pem(ec_key("k1", ec.SECP256K1)),
    "Ed448": ed448.Ed448PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode(),
    "private": private_pem(rsa_key()),
    "garbage": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "garbage certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD_PEMS)
def test_pem_is_refused_when_no_token_may_be_checked_with_it(name: str) -> None:
    with pytest.raises(UnusableKey):
        read_pem(BAD_PEMS[name])


# JWK


@pytest.mark.parametrize("key", [rsa_key(), ec_key()])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"alg": ...},
        {"use": ...},
        {"key_ops": ["verify"]},
        {"key_ops": ["sign", "verify"]},
        {"x5t": "AAAA", "nobody knows": {"deep": [1]}},
    ],
)
def test_jwk_is_read(key: Any, more: dict[str, object]) -> None:
    assert read_jwk(jwk_of(key, **more)).pem == public_pem(key).encode()


def test_jwk_is_read_when_its_modulus_begins_with_a_zero() -> None:
    """Some encoders add one (RFC 7518 section 6.3.1.1)."""
    n = decode_base64url(jwk_of(rsa_key())["n"])
    assert read_jwk(jwk_of(rsa_key(), n=base64url(b"\0" + n))).pem == public_pem(rsa_key()).encode()


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        ({}, "kty"),
        ({"kty": "oct", "k": base64url(b"x" * 32), "alg": "HS256"}, "kty"),
        ({"kty": "oct", "k": base64url(b"x" * 32), "alg": "RS256", "use": "sig"}, "kty"),
        ({"kty": "OKP", "crv": "Ed448", "x": base64url(b"x" * 57)}, "crv"),
        ({"kty": ["RSA"]}, "kty"),
        (jwk_of(rsa_key(), kty="EC"), "alg"),
        (jwk_of(rsa_key(), kty="EC", alg=...), "crv"),
        (jwk_of(ec_key(), kty="RSA", alg=...), "e is missing"),
        (jwk_of(rsa_key(), use="enc"), "use"),
        (jwk_of(rsa_key(), use=None), "use"),
        (jwk_of(rsa_key(), use=["sig"]), "use"),
        (jwk_of(rsa_key(), key_ops=["encrypt"]), "key_ops"),
        (jwk_of(rsa_key(), key_ops="verify"), "key_ops"),
        (jwk_of(rsa_key(), key_ops=[]), "key_ops"),
        (jwk_of(rsa_key(), alg="RS512"), "alg"),
        (jwk_of(rsa_key(), alg="PS256"), "alg"),
        (jwk_of(rsa_key(), alg="ES256"), "alg"),
        (jwk_of(rsa_key(), alg="HS256"), "alg"),
        (jwk_of(rsa_key(), alg=None), "alg"),
        (jwk_of(ec_key(), alg="RS256"), "alg"),
        (jwk_of(rsa_key(), d="AAAA"), "private"),
        (jwk_of(ec_key(), d="AAAA"), "private"),
        (jwk_of(rsa_key(), n=...), "n is missing"),
        (jwk_of(rsa_key(), e=5), "e is missing"),
        (jwk_of(rsa_key(), n="A"), "n is not base64url"),
        (jwk_of(rsa_key(), n=""), "n is not base64url"),
        (jwk_of(rsa_key(), e="AQAB=="), "e is not base64url"),
        (jwk_of(rsa_key(), e="AQ"), "no key"),
        (jwk_of(rsa_key(), e="AA"), "no key"),
        (jwk_of(rsa_key(), n="AA"), "no key"),
        (jwk_of(rsa_key("short", 1024)), "1024 bits"),
        (jwk_of(ec_key(), crv="P-384"), "crv"),
        (jwk_of(ec_key(), crv=...), "crv"),
        (jwk_of(ec_key("p384", ec.SECP384R1)), "32 bytes"),
        (jwk_of(ec_key(), x=base64url(b"\0" * 32)), "no key"),
        (jwk_of(ec_key(), x=base64url(b"\0" * 33)), "32 bytes"),
        (jwk_of(ec_key(), y=...), "y is missing"),
        (jwk_of(ec_key(), y=jwk_of(ec_key("other"))["y"]), "no key"),
    ],
)
def test_jwk_is_refused(jwk: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableKey, match=reason):
        read_jwk(jwk)


# JWK Sets


def test_keys_are_found_by_kid_and_algorithm(keys: KeySet) -> None:
    assert keys.update(key_set(jwk_of(rsa_key(), "r"), jwk_of(ec_key(), "e"))) == []
    assert keys.get("r", "RS256") == [(read_pem(public_pem(rsa_key())), math.inf)]
    assert keys.get("e", "ES256") == [(read_pem(public_pem(ec_key())), math.inf)]


def test_keys_are_taken_from_text_too(keys: KeySet) -> None:
    keys.update(key_set(jwk_of(ec_key(), "e")).decode())
    assert pems(keys, "e") == [pem_of("first")]


def test_unknown_kid_is_told_from_one_that_is_for_another_algorithm(keys: KeySet) -> None:
    keys.update(key_set(jwk_of(rsa_key(), "r")))
    with pytest.raises(UnknownKey):
        keys.get("x", "RS256")
    with pytest.raises(Unauthorised) as refused:
        keys.get("r", "ES256")
    assert not isinstance(refused.value, UnknownKey)


def test_key_without_kid_is_not_found_by_one(keys: KeySet) -> None:
    keys.update(key_set(jwk_of(ec_key())))
    with pytest.raises(UnknownKey):
        keys.get("e", "ES256")
    assert pems(keys, None) == [pem_of("first")]


def test_no_kid_means_the_only_key_of_the_algorithm(keys: KeySet) -> None:
    keys.update(key_set(jwk_of(ec_key(), "e"), jwk_of(rsa_key(), "r")))
    assert pems(keys, None) == [pem_of("first")]
    keys.update(key_set(jwk_of(ec_key(), "e"), jwk_of(ec_key("second"), "f")))
    with pytest.raises(Unauthorised, match="several"):
        keys.get(None, "ES256")


def test_no_kid_is_an_unknown_key_when_there_is_none_of_the_algorithm(keys: KeySet) -> None:
    with pytest.raises(UnknownKey):
        keys.get(None, "ES256")
    keys.update(key_set(jwk_of(rsa_key(), "r")))
    with pytest.raises(UnknownKey):
        keys.get(None, "ES256")


def test_no_kid_still_works_when_the_only_key_was_rotated(keys: KeySet) -> None:
    keys.update(key_set(jwk_of(ec_key("old"))))
    keys.update(key_set(jwk_of(ec_key("new"))))
    assert pems(keys, None) == [pem_of("new"), pem_of("old")]


def test_key_that_left_is_kept_from_when_it_was_last_seen(keys: KeySet, clock: Clock) -> None:
    keys.update(key_set(jwk_of(ec_key("old"), "old")))
    clock.now += 50
    keys.update(key_set(jwk_of(ec_key("old"), "old")))
    seen_at = clock.now
    clock.now += 60
    keys.update(key_set(jwk_of(ec_key("new"), "new")))
    assert [until for _, until in keys.get("old", "ES256")] == [seen_at + KEEP_SECONDS]
    clock.now = seen_at + KEEP_SECONDS - 0.001
    keys.update(key_set(jwk_of(ec_key("new"), "new")))
    assert pems(keys, "old") == [pem_of("old")]
    clock.now = seen_at + KEEP_SECONDS
    with pytest.raises(UnknownKey):
        keys.get("old", "ES256")
    keys.update(key_set(jwk_of(ec_key("new"), "new")))
    with pytest.raises(UnknownKey):
        keys.get("old", "ES256")


def test_key_of_the_last_document_lives_for_as_long_as_there_is_no_other(keys: KeySet, clock: Clock) -> None:
    keys.update(key_set(jwk_of(ec_key(), "e")))
    clock.now += 100 * KEEP_SECONDS
    assert pems(keys, "e") == [pem_of("first")]
    assert not keys.is_empty


def test_key_that_came_back_is_in_the_document_again(keys: KeySet) -> None:
    old, new = key_set(jwk_of(ec_key("old"), "old")), key_set(jwk_of(ec_key("new"), "new"))
    for document in (old, new, old):
        keys.update(document)
    assert [until for _, until in keys.get("old", "ES256")] == [math.inf]


def test_new_key_of_a_kid_wins_and_its_old_one_is_kept(keys: KeySet, clock: Clock) -> None:
    for name in ("first", "second", "third"):
        keys.update(key_set(jwk_of(ec_key(name), "e")))
        clock.now += 30
    assert pems(keys, "e") == [pem_of("third"), pem_of("second"), pem_of("first")]
    clock.now += 30
    assert pems(keys, "e") == [pem_of("third"), pem_of("second")]


def test_keys_are_not_kept_when_none_is_to_be(clock: Clock) -> None:
    keys = KeySet(0, clock)
    keys.update(key_set(jwk_of(ec_key("old"), "old")))
    keys.update(key_set(jwk_of(ec_key("new"), "new")))
    with pytest.raises(UnknownKey):
        keys.get("old", "ES256")


def test_tried_keys_are_bounded_when_a_kid_has_many(keys: KeySet, clock: Clock) -> None:
    for number in range(MAX_TRIED + 2):
        keys.update(key_set(jwk_of(ec_key(f"many {number}"), "e")))
        clock.now += 1
    assert pems(keys, "e") == [pem_of(f"many {number}") for number in range(MAX_TRIED + 1, 1, -1)]


def test_kept_keys_are_bounded(keys: KeySet, clock: Clock) -> None:
    for generation in range(3):
        problems = keys.update(
            key_set(*(jwk_of(ec_key(), f"{generation} {number}") for number in range(MAX_KEPT // 2 + 1)))
        )
        clock.now += 1
    assert problems == [f"2 keys that left end early: more than {MAX_KEPT} are not kept"]
    assert pems(keys, "1 0") == [pem_of("first")]


def test_bad_key_is_skipped_and_named(keys: KeySet) -> None:
    problems = keys.update(
        key_set(
            jwk_of(ec_key(), "e"),
            jwk_of(rsa_key(), "enc", use="enc"),
            jwk_of(rsa_key("short", 1024), "short"),
            jwk_of(rsa_key(), "\u001b[31m" + "x" * 100),
            jwk_of(rsa_key(), "\u001b[31m" + "x" * 100, n="A"),
            jwk_of(ec_key("nameless"), crv="P-384"),
            jwk_of(ec_key("number")) | {"kid": 5},
            jwk_of(ec_key("empty"), ""),
            jwk_of(ec_key("long"), "x" * 257),
        )
    )
    assert problems == [
        "kid 'enc': use is not sig",
        "kid 'short': an RSA key of 1024 bits; at least 2048 are expected",
        f"kid '\\x1b[31m{'x' * 59}': n is not base64url",
        "keys[5]: crv is not P-256",
        "keys[6]: kid is not a text of 1 to 256 characters",
        "kid '': kid is not a text of 1 to 256 characters",
        f"kid '{'x' * 64}': kid is not a text of 1 to 256 characters",
    ]
    assert pems(keys, "e") == [pem_of("first")]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"\xef\xbb\xbf" + key_set(jwk_of(ec_key("new"), "new")),
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [1]}',
        b'{"keys": [{}, null]}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [{"kid": "a", "kid": "b"}]}',
        b'{"keys": [NaN]}',
        b'{"keys": ' + b"[" * 100_000,
        b'{"keys": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"keys": [' + b"9" * 5000 + b"]}",
        b'{"keys": []}' + b" " * MAX_DOCUMENT_BYTES,
        key_set(*[{}] * (MAX_KEYS + 1)),
        b"<html>under maintenance</html>",
        '{"keys": [], "a": "\udc80"}',
        '{"keys": [], "a": "\\udc80"}',
    ],
    ids=range(21),
)
def test_unusable_document_leaves_everything_as_it_was(keys: KeySet, clock: Clock, document: bytes | str) -> None:
    keys.update(key_set(jwk_of(ec_key(), "e")))
    generation = keys.generation
    with pytest.raises(BadKeySet) as refused:
        keys.update(document)
    assert refused.value.reason.startswith("the document ")
    clock.now += 2 * KEEP_SECONDS
    assert pems(keys, "e") == [pem_of("first")]
    assert keys.generation == generation


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps))
@settings(deadline=None)
def test_any_document_is_taken_or_a_bad_key_set(document: bytes | str) -> None:
    try:
        KeySet(1).update(document)
    except BadKeySet:
        pass


@given(
    st.dictionaries(
        st.sampled_from(["kty", "use", "alg", "key_ops", "kid", "n", "e", "crv", "x", "y", "d"]),
        st.sampled_from(["RSA", "EC", "sig", "RS256", "ES256", "P-256", "AQAB", "A" * 43, "A" * 342, "", 5, None, []]),
    )
)
@settings(deadline=None)
def test_any_jwk_is_a_key_or_a_problem(jwk: dict[str, object]) -> None:
    keys = KeySet(1)
    assert len(keys.update(key_set(jwk))) + keys.has_current == 1


def test_document_without_a_usable_key_takes_all_keys_back(keys: KeySet, clock: Clock) -> None:
    keys.update(key_set(jwk_of(ec_key(), "e")))
    keys.update(b'{"keys": []}')
    assert (keys.has_current, keys.is_empty) == (False, False)
    assert pems(keys, "e") == [pem_of("first")]
    clock.now += KEEP_SECONDS
    assert keys.is_empty
    with pytest.raises(UnknownKey):
        keys.get("e", "ES256")


def test_generation_changes_when_the_keys_or_their_ends_do_and_only_then(keys: KeySet, clock: Clock) -> None:
    seen = [keys.generation]
    for names in (["a"], ["a"], ["a", "b"], ["b", "a"], ["b"], ["b"]):
        clock.now += 1
        keys.update(key_set(*(jwk_of(ec_key(name), name) for name in names)))
        seen.append(keys.generation)
    clock.now += KEEP_SECONDS
    keys.update(key_set(jwk_of(ec_key("b"), "b")))
    seen.append(keys.generation)
    assert [after != before for before, after in pairwise(seen)] == [
        True,
        False,
        True,
        False,
        True,
        False,
        True,
    ]
