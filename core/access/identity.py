"""Whose token this is: a JWT (RFC 7519, RFC 7515) in, a principal out, or `Unauthorised` (docs/contract.md#identity).

The invariant: a token counts only if one of the configured keys signed it by the algorithm that this key is for. What
the token says of itself chooses among those keys and nothing else. Header and claims are read here, strictly, and
python-jose is asked one question, whether a signature is right: it ignores `crit` and `kid`, takes a text as `exp`, and
lets deep headers out as RecursionError.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jose import jwk, jwt
from jose.backends.base import Key
from jose.exceptions import JOSEError

from core.access.keys import (
    ED25519_ALGORITHM,
    EXPECTED_PEM,
    MAX_KID,
    BadKeySet,
    KeySet,
    PublicKey,
    UnusableKey,
    decode_base64url,
    read_pem,
)
from core.access.scopes import EVERYTHING, NOTHING, read_scope
from core.config.settings import HMAC_ALGORITHM, Auth
from core.errors import NotJson, SettingsError, Unauthorised
from core.log_throttle import QuietLog
from core.messages.body_json import read_json

__all__ = [
    "LEEWAY_SECONDS",
    "MAX_TOKEN_BYTES",
    "MAX_USER_ID",
    "BadKeySet",
    "Identity",
    "KeySet",
    "Principal",
    "demo_token",
]

log = logging.getLogger("gateway.identity")

MAX_TOKEN_BYTES: Final = 4096
LEEWAY_SECONDS: Final = 60.0
MAX_USER_ID: Final = 256

# Of each half of the cache, the tokens in it and what keeping one costs besides: 16,000 tokens of 500 bytes.
_CACHE_BYTES: Final = 16 * 1024 * 1024
_ENTRY_BYTES: Final = 512

# Not in a user id: control characters and line ends, which would split what it is written into, and halves of
# surrogate pairs, which nothing can be written with.
_unfit = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search

_WRONG_SIGNATURE: Final = "the token's signature is wrong"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a token, when it ends, in seconds since the epoch, the leeway in it already, and what it allows."""

    user_id: str
    expires_at: float
    # The words of `core.access.scopes`.
    allowed: frozenset[str] = EVERYTHING


@dataclass(frozen=True, slots=True)
class _Seen:
    """A token that was found good, and between when it is: the dates of its claims, and the end of its key."""

    good_from: float
    good_until: float
    principal: Principal


class Ed25519Key:
    """Checks EdDSA signatures (RFC 8037 section 3.1), which python-jose does not know, as its keys check others."""

    def __init__(self, octets: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(octets)

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Whether the signature is right; one of another length than 64 bytes is not."""
        try:
            self._key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


class Identity:
    """Checks tokens with the keys of `auth`: the shared secret, the PEM, and `keys`, the JWK Set of `auth.jwks_url`.

    `clock` is in seconds since the epoch, and the same one as that of `keys`. Raises SettingsError for a secret or a
    PEM that no token could be checked with.
    """

    def __init__(self, auth: Auth, keys: KeySet | None, clock: Callable[[], float] = time.time) -> None:
        self._issuer = auth.issuer
        self._audience = auth.audience
        self._without_scope = NOTHING if auth.require_scope else EVERYTHING
        self._algorithms = frozenset(auth.algorithms)
        self._keys = keys
        self._clock = clock
        self._quiet_log = QuietLog(log)
        self._secret = _secret(auth.secret) if auth.secret and HMAC_ALGORITHM in self._algorithms else None
        self._public_key = _public_key(auth.public_key) if auth.public_key else None
        if self._public_key is not None and self._public_key.algorithm not in self._algorithms:
            log.warning("auth.public_key is not used: %s is not in auth.algorithms", self._public_key.algorithm)
            self._public_key = None
        has_key = self._secret is not None or self._public_key is not None
        self._is_keyless = not has_key and (keys is None or not self._algorithms - {HMAC_ALGORITHM})

        # A cache of two halves: what is asked for moves to the young one, and when that is full the old one is
        # forgotten. That keeps about the latest tokens, as an LRU does, and costs a hit nothing.
        self._young: dict[str, _Seen] = {}
        self._old: dict[str, _Seen] = {}
        self._young_bytes = 0
        self._built: dict[PublicKey, Key | Ed25519Key] = {}
        self._generation = keys.generation if keys is not None else 0

    def authenticate(self, token: str) -> Principal:
        """Who sent this token. One that was seen before costs half a microsecond.

        Raises Unauthorised, whatever the token is made of; UnknownKey where it names a key that `keys` does not have.
        """
        if not isinstance(token, str):
            raise Unauthorised("the token is not text")
        if len(token) > MAX_TOKEN_BYTES:  # what is not ASCII has fewer characters than bytes, and is refused anyway
            raise Unauthorised(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        keys = self._keys
        if keys is not None and keys.generation != self._generation:
            self._forget(keys.generation)
        now = self._clock()
        seen = self._young.get(token)
        if seen is None:
            seen = self._old.pop(token, None)
            if seen is not None:
                self._remember(token, seen)
        if seen is not None and seen.good_from <= now < seen.good_until:
            return seen.principal
        try:
            seen = self._read(token, now)
        except Unauthorised:
            raise
        except Exception as error:
            # Whatever a token's library raises is a 401, never a 500.
            # Neither the answer nor the log has the error's text, which may quote what was read. Where there is no
            # stack to read with there may be none to log with.
            try:
                self._quiet_log.warning(type(error).__name__, "reading a token raised %s", type(error).__name__)
            finally:
                raise Unauthorised("the token cannot be read") from None
        self._remember(token, seen)
        return seen.principal

    def _remember(self, token: str, seen: _Seen) -> None:
        if self._young_bytes > _CACHE_BYTES:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[token] = seen
        self._young_bytes += len(token) + _ENTRY_BYTES

    def _forget(self, generation: int) -> None:
        self._young, self._old, self._young_bytes = {}, {}, 0
        self._built = {}
        self._generation = generation

    def _read(self, token: str, now: float) -> _Seen:
        if self._is_keyless:
            raise Unauthorised("no key is configured to check tokens with")
        parts = token.split(".")
        if len(parts) != 3:
            raise Unauthorised("the token is not a JWT of three parts")
        header_octets, claims_octets, signature = (_octets(part) for part in parts)
        algorithm, kid = self._header(_json_object(header_octets, "header"))
        signed = token[: token.rindex(".")].encode("ascii")
        # Before the claims are looked at, so that nobody learns anything about a token they did not get from the issuer.
        key, key_until = self._check_signature(algorithm, kid, signed, signature)
        claims = _json_object(claims_octets, "claims")
        good_from, expires_at = _dates(claims, now)
        self._check_party(claims)
        if algorithm == HMAC_ALGORITHM and "jti" in claims and not claims.get("email"):
            raise Unauthorised("the token is a refresh token")
        allowed = read_scope(claims["scope"]) if "scope" in claims else self._without_scope
        user_id = _user_id(claims)
        if key is not None:
            if key.user_id not in (None, user_id):
                raise Unauthorised("the token's key is another user's own")
            allowed &= key.allowed
        principal = Principal(user_id, expires_at, allowed)
        return _Seen(good_from, min(expires_at, key_until), principal)

    def _header(self, header: Mapping[str, object]) -> tuple[str, str | None]:
        if "crit" in header:  # RFC 7515 section 4.1.11: extensions that must be understood; none is
            raise Unauthorised("the token's header has crit")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Unauthorised("the token's algorithm is not one of those allowed")
        kid = header.get("kid")
        if "kid" in header and (not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID):
            raise Unauthorised("the token's kid is not a short text")
        return algorithm, kid if isinstance(kid, str) else None

    def _check_signature(
        self, algorithm: str, kid: str | None, signed: bytes, signature: bytes
    ) -> tuple[PublicKey | None, float]:
        """The public key that signed, and until when it is good, in seconds since the epoch, perhaps infinity."""
        if algorithm == HMAC_ALGORITHM:
            if self._secret is None:
                raise Unauthorised("there is no key for the token's algorithm")
            if not self._secret.verify(signed, signature):
                raise Unauthorised(_WRONG_SIGNATURE)
            return None, math.inf
        # A PEM goes by no kid: it is tried for every token of its algorithm.
        own = self._public_key
        has_own = own is not None and own.algorithm == algorithm
        if own is not None and has_own and self._key(own).verify(signed, signature):
            return own, math.inf
        if self._keys is None:
            raise Unauthorised(_WRONG_SIGNATURE if has_own else "there is no key for the token's algorithm")
        for key, good_until in self._keys.get(kid, algorithm):
            if self._key(key).verify(signed, signature):
                return key, good_until
        raise Unauthorised(_WRONG_SIGNATURE)

    def _key(self, key: PublicKey) -> Key | Ed25519Key:
        built = self._built.get(key)
        if built is None:
            is_ed25519 = key.algorithm == ED25519_ALGORITHM
            built = Ed25519Key(key.octets) if is_ed25519 else jwk.construct(key.pem, key.algorithm)
            self._built[key] = built
        return built

    def _check_party(self, claims: Mapping[str, object]) -> None:
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise Unauthorised("the token's iss is not the expected one")
        # RFC 7519 section 4.1.3: who does not find themselves in an aud that is there MUST reject the token.
        if "aud" not in claims:
            if self._audience is not None:
                raise Unauthorised("the token has no aud")
            return
        audience = claims["aud"]
        audiences = audience if isinstance(audience, list) else [audience]
        if not all(isinstance(name, str) for name in audiences) or self._audience not in audiences:
            raise Unauthorised("the token is for another audience")


def _secret(secret: str) -> Key:
    try:
        return jwk.construct(secret.encode(), HMAC_ALGORITHM)
    except (JOSEError, UnicodeError):
        expected = "expected a shared secret, not a key of another kind (the value is not shown)"
        raise SettingsError("settings", "auth.secret", expected) from None


def _public_key(text: str) -> PublicKey:
    try:
        return read_pem(text)
    except UnusableKey as error:
        raise SettingsError("settings", "auth.public_key", f"{EXPECTED_PEM}: {error.reason}") from error


def _octets(part: str) -> bytes:
    try:
        return decode_base64url(part)
    except ValueError:
        raise Unauthorised("the token is not a JWT in base64url") from None


def _json_object(octets: bytes, part: str) -> Mapping[str, object]:
    try:
        value = read_json(octets)
    except NotJson:  # its detail quotes what was read
        raise Unauthorised(f"the token's {part} cannot be read as JSON") from None
    if not isinstance(value, dict):
        raise Unauthorised(f"the token's {part} is not an object")
    return value


def _dates(claims: Mapping[str, object], now: float) -> tuple[float, float]:
    """From and until when the claims are good, leeway included; refuses if that is not now.

    `iat` only has to be a number: RFC 7519 section 4.1.6 makes nothing depend on it.
    """
    if "exp" not in claims:
        raise Unauthorised("the token has no exp")
    expires_at = _seconds(claims, "exp") + LEEWAY_SECONDS
    good_from = _seconds(claims, "nbf") - LEEWAY_SECONDS if "nbf" in claims else -math.inf
    if "iat" in claims:
        _seconds(claims, "iat")
    if now >= expires_at:
        raise Unauthorised("the token has expired")
    if now < good_from:
        raise Unauthorised("the token is not good yet")
    return good_from, expires_at


def _seconds(claims: Mapping[str, object], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        _refuse_seconds(name)
    try:
        seconds = float(value)
    except OverflowError:
        _refuse_seconds(name)
    if not math.isfinite(seconds):
        _refuse_seconds(name)
    return seconds


def _refuse_seconds(name: str) -> NoReturn:
    raise Unauthorised(f"the token's {name} is not a number of seconds") from None


def _user_id(claims: Mapping[str, object]) -> str:
    user_id = claims.get("sub")
    if not isinstance(user_id, str) or not user_id:
        raise Unauthorised("the token has no sub")
    # Spaces at its ends get lost in an X-User-Id header, and then it would be somebody else's.
    if len(user_id) > MAX_USER_ID or _unfit(user_id) or user_id != user_id.strip():
        raise Unauthorised("the token's sub cannot be a user id")
    return user_id


def demo_token(secret: str, user_id: str, expires_at: float) -> str:
    """A token for the demo, where the gateway has made the secret itself. Nothing mints tokens over the network."""
    token: str = jwt.encode({"sub": user_id, "exp": int(expires_at)}, secret, HMAC_ALGORITHM)
    return token
