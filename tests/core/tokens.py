"""Keys and tokens of the tests: good ones as python-jose makes them, and bad ones byte by byte."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jose import jwk, jwt

from core.access.identity import Identity, KeySet, Principal
from core.config.settings import Auth
from core.errors import Unauthorised

NOW = 1_800_000_000.0
SECRET = "a shared secret of the tests, 32 bytes and more"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Clock:
    """Seconds since the epoch, as the test has them."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def rsa_key(name: str = "first", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same name."""
    return _rsa_key(name, bits)


def ec_key(name: str = "first", curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """The same key for the same name."""
    return _ec_key(name, curve)


@cache
def _rsa_key(_name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def _ec_key(_name: str, curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def public_pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def jwk_of(key: PrivateKey, kid: str | None = None, **more: object) -> dict[str, Any]:
    """The public JWK of a key, with `use` and `alg` as issuers have them."""
    numbers = key.public_key().public_numbers()
    members: dict[str, Any]
    if isinstance(numbers, rsa.RSAPublicNumbers):
        octets = {"n": numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"), "e": numbers.e.to_bytes(3, "big")}
        members = {"kty": "RSA", "alg": "RS256"}
    else:
        size = (key.key_size + 7) // 8
        octets = {"x": numbers.x.to_bytes(size, "big"), "y": numbers.y.to_bytes(size, "big")}
        members = {"kty": "EC", "alg": "ES256", "crv": "P-256"}
    members |= {"use": "sig"} | {name: base64url(value) for name, value in octets.items()}
    if kid is not None:
        members["kid"] = kid
    members |= more
    return {name: value for name, value in members.items() if value is not ...}


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**more: object) -> dict[str, Any]:
    """Good claims, changed; a claim that is given as `...` is left out."""
    good: dict[str, Any] = {"sub": "user-1", "exp": int(NOW) + 600, "iat": int(NOW) - 60} | more
    return {name: value for name, value in good.items() if value is not ...}


def token(key: PrivateKey | str = SECRET, kid: str | None = None, **more: object) -> str:
    """A token as python-jose makes it, by the algorithm of the key's type."""
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(claims(**more), _material(key), algorithm=algorithm_of(key), headers=headers)


def algorithm_of(key: PrivateKey | str) -> str:
    if isinstance(key, str):
        return "HS256"
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"


def _material(key: PrivateKey | str) -> str:
    return key if isinstance(key, str) else private_pem(key)


def raw_token(header: object, payload: object, key: PrivateKey | str = SECRET) -> str:
    """A token of any bytes, or of any JSON, rightly signed by `key`."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(base64url(part) for part in parts)
    signature = jwk.construct(_material(key), algorithm_of(key)).sign(signed.encode())
    return f"{signed}.{base64url(signature)}"


def hmac_token(header: dict[str, Any], secret: bytes) -> str:
    """HS256 by hand: python-jose does not sign with what looks like a public key."""
    signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims()))
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signed.encode())
    return f"{signed}.{base64url(mac.finalize())}"


# Of the good claims above.
GOOD = Principal("user-1", NOW + 660)

HS256 = Auth(secret=SECRET, algorithms=("HS256",))
RS256 = Auth(public_key=public_pem(rsa_key()), algorithms=("RS256", "ES256"))
ES256 = Auth(public_key=public_pem(ec_key()), algorithms=("RS256", "ES256"))
JWKS = Auth(jwks_url="https://id.example/keys", algorithms=("RS256", "ES256"))


def identity_with(auth: Auth, keys: KeySet | None = None, now: float = NOW) -> Identity:
    return Identity(auth, keys, Clock(now))


def refusal(identity: Identity, bad: Any) -> str:
    """The reason for which a token is refused; one that is accepted, or raises anything else, fails the test."""
    with pytest.raises(Unauthorised) as refused:
        identity.authenticate(bad)
    return refused.value.reason


# Reasons that several tests expect.
ALGORITHM = "the token's algorithm is not one of those allowed"
AUDIENCE = "the token is for another audience"
NO_SUB = "the token has no sub"
WRONG = "the token's signature is wrong"
