"""Who may, and how often: what REST and WebSocket ask before they do anything (docs/contract.md#limits, #identity).

Orders and cancels are limited per user. An anonymous caller has no user; it is limited, as everybody else, by its address
where `limits.address_*` say so, which they do not by default: behind a platform's router everyone is one address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from core.access.addresses import address_key, client_address
from core.access.identity import Principal
from core.access.limits import Bucket, Decision, Limiter, Policy
from core.access.penalties import Penalties
from core.access.scopes import EVERYTHING, check_scope
from core.errors import Unauthorised, UnknownKey


class Authenticator(Protocol):
    """Tells whose a token is."""

    def authenticate(self, token: str) -> Principal:
        """With the keys that there are. Raises Unauthorised; UnknownKey where fetching the keys may help."""

    async def authenticate_fresh(self, token: str) -> Principal:
        """Fetches the keys once more if need be. Raises Unauthorised."""


class Taker(Protocol):
    """A limiter, perhaps one that a whole fleet shares."""

    @property
    def problem(self) -> str | None:
        """What is wrong with it, for `/health`."""

    async def take(self, key: Hashable) -> Decision:
        """Take one token of the key's."""

    def take_now(self, key: Hashable) -> Decision | None:
        """The same where nobody else has to be asked; else None, and nothing is taken."""


class LocalTaker:
    """A limiter of this process alone."""

    problem: str | None = None

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def take(self, key: Hashable) -> Decision:
        """Take one token of the key's; does not wait for anything."""
        return self._limiter.take(key)

    def take_now(self, key: Hashable) -> Decision | None:
        """Take one token of the key's."""
        return self._limiter.take(key)


@dataclass(frozen=True, slots=True)
class Admission:
    """Everything that is asked before a request is served."""

    authenticator: Authenticator
    allows_anonymous: bool
    orders: Taker
    cancels: Taker
    connects: Bucket
    address_connects: Limiter
    address_requests: Limiter
    address_logins: Limiter
    messages: Policy
    penalties: Penalties
    # Whether an address tells clients apart: else all behind one proxy would be thrown out for one of them.
    trusts_addresses: bool
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    # Open WebSocket connections by `address_key`.
    connected: Counter[str] = field(default_factory=Counter)

    def address_of(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The client's address: the peer's, or what trusted proxies say of it."""
        return client_address(peer, forwarded_for, self.trusted_proxies)

    def take_request(self, address: str) -> Decision:
        """One request from this address."""
        return self.address_requests.take(address_key(address))

    def take_login(self, address: str) -> Decision:
        """One request from this address to the part of the accounts service that passwords are tried at."""
        return self.address_logins.take(address_key(address))

    def take_connect(self, address: str) -> float:
        """One new WebSocket connection from this address: 0.0, or the seconds until one is taken."""
        decision = self.address_connects.take(address_key(address))
        return decision.retry_after if not decision.allowed else self.connects.take()

    def penalise(self, address: str, user_id: str | None) -> None:
        """Whoever this was has flooded: for a while it gets no connection."""
        if user_id is not None:
            self.penalties.give(("user", user_id))
        if self.trusts_addresses:
            self.penalties.give(("address", address_key(address)))

    def penalty_of_address(self, address: str) -> float:
        """Seconds for which this address gets no connection."""
        return self.penalties.left(("address", address_key(address))) if self.trusts_addresses else 0.0

    def penalty_of_user(self, user_id: str) -> float:
        """Seconds for which this user gets no connection."""
        return self.penalties.left(("user", user_id))

    async def take_order(self, user_id: str | None) -> Decision | None:
        """One order of this user's; None: nobody's, which has no limit of its own."""
        return None if user_id is None else await self.orders.take(user_id)

    async def take_cancel(self, user_id: str | None) -> Decision | None:
        """One cancel of this user's; None: nobody's."""
        return None if user_id is None else await self.cancels.take(user_id)

    async def bearer(self, authorization: str | None) -> Principal | None:
        """Who an `Authorization` header says that it is; None without one. Raises Unauthorised (RFC 6750 section 2.1)."""
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorised("expected a Bearer token")
        return await self.whose(token.strip(" "))

    async def user_of(self, authorization: str | None, needed: str | None) -> str | None:
        """The user of a good token; None without one, for a bad one, and where no word of a scope suffices (`needed` is None).

        Raises InsufficientScope.
        """
        try:
            principal = await self.bearer(authorization)
        except Unauthorised:
            return None
        if principal is None or (needed is None and principal.allowed != EVERYTHING):
            return None
        if needed is not None:
            check_scope(principal.allowed, needed)
        return principal.user_id

    async def whose(self, token: str) -> Principal:
        """The principal of a token. Raises Unauthorised."""
        try:
            return self.authenticator.authenticate(token)
        except UnknownKey:
            return await self.authenticator.authenticate_fresh(token)
