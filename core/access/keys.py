"""Public keys that tokens are checked with: from PEM text, or from a JWK Set that rotates (RFC 7517).

Here it is decided what a key is good for, once and by its type: an RSA key is for RS256, a P-256 key for ES256, an
Ed25519 key for EdDSA, and nothing else gets in. So a token can choose between keys by `kid`, and never how one of them is used.
"""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from core.access.scopes import EVERYTHING, read_scope
from core.errors import GatewayError, NotJson, Unauthorised, UnknownKey
from core.messages.body_json import read_json

MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100
MAX_KID: Final = 256
# Keys that left: an issuer that makes a new one at every answer is not to fill the memory until they end.
MAX_KEPT: Final = 100
# Keys tried for one token: a kid has one, and a few where it was given to new keys; a forged token is to stay cheap.
MAX_TRIED: Final = 8
MIN_RSA_BITS: Final = 2048  # RFC 7518 section 3.3
_P256_BYTES: Final = 32
_ED25519_BYTES: Final = 32

# What a key of each type signs by (RFC 7518 section 3.1, RFC 8037 section 3.1).
ED25519_ALGORITHM: Final = "EdDSA"
_ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256", "OKP": ED25519_ALGORITHM}

# Of private keys (RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037 section 2): who can read the document could sign with such a key.
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})

_is_base64url = re.compile(r"[A-Za-z0-9_-]+").fullmatch


EXPECTED_PEM: Final = f"expected an RSA key of at least {MIN_RSA_BITS} bits, an EC key on P-256 or an Ed25519 key"


class UnusableKey(GatewayError):
    """A key that no token is checked with; `reason` says what is wrong with it, or that it is for something else."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class BadKeySet(GatewayError):
    """A document that is not a JWK Set (RFC 7517 section 5), or is beyond any use; `reason` does not quote it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A checked key, as SubjectPublicKeyInfo in PEM, and the one algorithm that it is used with.

    One with a `user_id` is that user's own, and no token of anybody else's is checked with it; none of its tokens allows more than
    `allowed`.
    """

    algorithm: str
    pem: bytes
    user_id: str | None = None
    allowed: frozenset[str] = EVERYTHING

    @property
    def octets(self) -> bytes:
        """The key of an Ed25519 signature, 32 bytes (RFC 8032 section 5.1.5)."""
        key = load_pem_public_key(self.pem)
        assert isinstance(key, ed25519.Ed25519PublicKey)
        return key.public_bytes_raw()


def decode_base64url(text: str) -> bytes:
    """The octets of unpadded base64url (RFC 7515 section 2); ValueError for anything else.

    Only the one canonical text is taken: the spare bits of a last character would let several texts mean the same.
    """
    if not _is_base64url(text):
        raise ValueError("not base64url")
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != text.encode("ascii"):
        raise ValueError("not canonical base64url")
    return octets


def read_pem(text: str) -> PublicKey:
    """The key of a PEM text: a public key, or a certificate, whose dates and issuer are not looked at.

    Raises UnusableKey.
    """
    try:
        if "-----BEGIN CERTIFICATE-----" in text:
            return _checked(x509.load_pem_x509_certificate(text.encode()).public_key())
        return _checked(load_pem_public_key(text.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey("it cannot be read") from error


def problem_of_pem(text: str) -> str | None:
    """What is wrong with a PEM text that is to be a key, fit for one line that never quotes it; None if it is one."""
    try:
        read_pem(text)
    except UnusableKey as error:
        return f"{EXPECTED_PEM}: {error.reason}"
    return None


def read_jwk(jwk: Mapping[str, object]) -> PublicKey:
    """The key of one JWK (RFC 7517 section 4), which may say whose own it is (`sub`) and what it allows at most (`scope`).

    Raises UnusableKey for what is not a good public key.
    """
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _ALGORITHMS:
        raise UnusableKey("kty is neither RSA, EC nor OKP")
    if "use" in jwk and jwk["use"] != "sig":
        raise UnusableKey("use is not sig")
    if "key_ops" in jwk:
        operations = jwk["key_ops"]
        if not isinstance(operations, list) or "verify" not in operations:
            raise UnusableKey("key_ops has no verify")
    if "alg" in jwk and jwk["alg"] != _ALGORITHMS[kind]:
        raise UnusableKey(f"alg is not {_ALGORITHMS[kind]}, which an {kind} key is for")
    if not _PRIVATE.isdisjoint(jwk):
        raise UnusableKey("it is a private key, and everybody who can read the document has it")
    return replace(_read_numbers(jwk, kind), user_id=_owner(jwk), allowed=_scope(jwk))


def _read_numbers(jwk: Mapping[str, object], kind: str) -> PublicKey:
    try:
        if kind == "OKP":
            if jwk.get("crv") != "Ed25519":
                raise UnusableKey("crv is not Ed25519")
            octets = _octets(jwk, "x")
            if len(octets) != _ED25519_BYTES:
                raise UnusableKey("x is not 32 bytes")
            return _checked(ed25519.Ed25519PublicKey.from_public_bytes(octets))
        if kind == "RSA":
            exponent, modulus = (int.from_bytes(_octets(jwk, name), "big") for name in ("e", "n"))
            return _checked(rsa.RSAPublicNumbers(exponent, modulus).public_key())
        if jwk.get("crv") != "P-256":
            raise UnusableKey("crv is not P-256")
        x, y = _octets(jwk, "x"), _octets(jwk, "y")
        if len(x) != _P256_BYTES or len(y) != _P256_BYTES:  # RFC 7518 section 6.2.1.2
            raise UnusableKey("x and y are not 32 bytes")
        return _checked(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y))
    except (ValueError, OverflowError, UnsupportedAlgorithm) as error:
        raise UnusableKey("its numbers make no key") from error


def _owner(jwk: Mapping[str, object]) -> str | None:
    # One that cannot be read must not become a key of everybody's.
    if "sub" in jwk and (not isinstance(jwk["sub"], str) or not jwk["sub"]):
        raise UnusableKey("sub is not a text")
    owner = jwk.get("sub")
    return owner if isinstance(owner, str) else None


def _scope(jwk: Mapping[str, object]) -> frozenset[str]:
    if "scope" not in jwk:
        return EVERYTHING
    try:
        return read_scope(jwk["scope"])
    except Unauthorised as error:
        raise UnusableKey("scope is not a text") from error


def _octets(jwk: Mapping[str, object], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise UnusableKey(f"{name} is missing")
    try:
        return decode_base64url(value)
    except ValueError as error:
        raise UnusableKey(f"{name} is not base64url") from error


def _checked(key: object) -> PublicKey:
    if isinstance(key, rsa.RSAPublicKey):
        algorithm = "RS256"
        if key.key_size < MIN_RSA_BITS:
            raise UnusableKey(f"an RSA key of {key.key_size} bits; at least {MIN_RSA_BITS} are expected")
        if key.public_numbers().e < 3:  # with 1 every message is its own signature
            raise UnusableKey("an RSA key whose exponent is under 3")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        algorithm = "ES256"
        if not isinstance(key.curve, ec.SECP256R1):
            raise UnusableKey("an EC key that is not on P-256")
    elif isinstance(key, ed25519.Ed25519PublicKey):
        algorithm = ED25519_ALGORITHM
    else:
        raise UnusableKey("neither an RSA, an EC nor an Ed25519 key")
    return PublicKey(algorithm, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key of a JWK Set, and the `kid` that it goes by, if any."""

    kid: str | None
    key: PublicKey


def read_key_set(document: bytes) -> tuple[list[KnownKey], list[str]]:
    """The usable keys of a JWK Set, and a line for each that is not, named by kid (RFC 7517 section 5: ignore those).

    Raises BadKeySet for a document that is no JWK Set.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise BadKeySet(f"the document is over {MAX_DOCUMENT_BYTES} bytes")
    try:
        value = read_json(document)
    except NotJson as error:
        raise BadKeySet("the document is not JSON") from error
    entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadKeySet("the document is not a JWK Set")
    if len(entries) > MAX_KEYS:
        raise BadKeySet(f"the document has over {MAX_KEYS} keys")
    known: list[KnownKey] = []
    problems: list[str] = []
    for number, entry in enumerate(entries):
        kid = entry.get("kid")
        name = f"kid {kid[:64]!a}" if isinstance(kid, str) else f"keys[{number}]"
        try:
            if kid is not None and (not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID):
                raise UnusableKey(f"kid is not a text of 1 to {MAX_KID} characters")
            known.append(KnownKey(kid, read_jwk(entry)))
        except UnusableKey as error:
            problems.append(f"{name}: {error.reason}")
    return known, problems


class KeySet:
    """The keys of a JWK Set through its rotations.

    Those of the last good document are good for as long as there is no other one. One that left is good for
    `keep_seconds` more, counted from the last document that had it, and so is the old key of a kid that was given to a
    new one. `clock` is in seconds since the epoch, and has to be that of whoever compares with what `get` returns.
    """

    def __init__(self, keep_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._good_until: dict[KnownKey, float] = {}
        self._seen_at = -math.inf
        self.generation = 0
        """Another number whenever a key came, left, or its end was set: what was concluded before is to be forgotten."""

    @property
    def is_empty(self) -> bool:
        """Whether no token can be checked with any of the keys now."""
        now = self._clock()
        return not any(until > now for until in self._good_until.values())

    @property
    def has_current(self) -> bool:
        """Whether the last good document had a usable key."""
        return math.inf in self._good_until.values()

    def update(self, document: bytes | str) -> list[str]:
        """Take in a JWK Set as it is now; returns a line for each key that is not used.

        Raises BadKeySet for a document that is none; then everything stays as it was. One without a usable key is a
        good document: that is how an issuer takes keys back.
        """
        known, problems = read_key_set(
            document.encode("utf-8", "surrogatepass") if isinstance(document, str) else document
        )
        now = self._clock()
        good_until = dict.fromkeys(known, math.inf)
        kept = [
            (min(until, self._seen_at + self._keep_seconds), key)
            for key, until in self._good_until.items()
            if key not in good_until
        ]
        kept = sorted((pair for pair in kept if pair[0] > now), key=lambda pair: pair[0], reverse=True)
        if len(kept) > MAX_KEPT:
            problems.append(f"{len(kept) - MAX_KEPT} keys that left end early: more than {MAX_KEPT} are not kept")
        good_until.update((key, until) for until, key in kept[:MAX_KEPT])
        self._seen_at = now
        if good_until != self._good_until:
            self._good_until = good_until
            self.generation += 1
        return problems

    def get(self, kid: str | None, algorithm: str) -> list[tuple[PublicKey, float]]:
        """The keys to try for a token, the newest first, and until when each is good (infinity: it is in the document).

        Without `kid` they are those of the algorithm, if the document has only one. Raises UnknownKey where there is
        none, and Unauthorised where it is not clear which, or the named key is for another algorithm.
        """
        now = self._clock()
        named = [
            (known.key, until)
            for known, until in self._good_until.items()
            if until > now and (kid is None or known.kid == kid)
        ]
        found = [(key, until) for key, until in named if key.algorithm == algorithm]
        if not found and named and kid is not None:
            raise Unauthorised("the token names a key that is for another algorithm")
        if not found:
            raise UnknownKey("the token's key is not known")
        if kid is None and sum(until == math.inf for _, until in found) > 1:
            raise Unauthorised("the token names no key, and there are several")
        return sorted(found, key=lambda pair: pair[1], reverse=True)[:MAX_TRIED]
