"""Admission in a test's hands: tokens that are good because the test says so, and limits that are off."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from core.access.admission import Admission, LocalTaker
from core.access.identity import Principal
from core.access.limits import Bucket, Limiter, Policy
from core.access.penalties import Penalties
from core.errors import Unauthorised, UnknownKey

NEVER = float("inf")


class Tokens:
    """An authenticator. A token of `fetched` is good once its key has been fetched, which a test lets happen."""

    def __init__(self, **user_ids: str) -> None:
        """`token="user"`: good for ever."""
        self.good = {token: Principal(user_id, NEVER) for token, user_id in user_ids.items()}
        self.fetched: dict[str, Principal] = {}
        self.fetches = 0
        self.may_fetch = asyncio.Event()

    def authenticate(self, token: str) -> Principal:
        principal = self.good.get(token)
        if principal is not None:
            return principal
        if token.startswith("fresh"):
            raise UnknownKey("the token's key is not known")
        raise Unauthorised("the token is no good")

    async def authenticate_fresh(self, token: str) -> Principal:
        self.fetches += 1
        await self.may_fetch.wait()
        if token not in self.fetched:
            raise Unauthorised("the token's key is not known")
        self.good[token] = self.fetched[token]
        return self.good[token]


def unlimited(name: str) -> Policy:
    """A policy that limits nothing."""
    return Policy(name, 0, 1)


def taker(name: str, rate_per_second: float, burst: int, now: float = 0.0) -> LocalTaker:
    """So many tokens, and a clock that stands still."""
    return LocalTaker(Limiter(Policy(name, rate_per_second, burst), clock=lambda: now))


def admission(tokens: Tokens | None = None, **more: Any) -> Admission:
    """An admission by which everybody may, as often as they like; `more` are attributes that differ."""
    made = Admission(
        authenticator=tokens or Tokens(),
        allows_anonymous=True,
        orders=LocalTaker(Limiter(unlimited("orders"))),
        cancels=LocalTaker(Limiter(unlimited("cancels"))),
        connects=Bucket(unlimited("connects")),
        address_connects=Limiter(unlimited("connects")),
        address_requests=Limiter(unlimited("requests")),
        address_logins=Limiter(unlimited("logins")),
        messages=unlimited("requests"),
        penalties=Penalties(30),
        trusts_addresses=False,
        trusted_proxies=(),
    )
    return replace(made, **more)
