"""Who may, and how often, built from the settings: keys, and limits of this process or of a whole fleet."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.access.admission import Admission, LocalTaker, Taker
from core.access.identity import Identity, KeySet
from core.access.limits import Bucket, Limiter, Policy
from core.access.penalties import Penalties
from core.config.settings import Settings
from services.jwks import Authenticator, KeyFetcher, jwks_client

if TYPE_CHECKING:
    from services.redis_limits import RedisCounts


@dataclass(frozen=True, slots=True)
class Access:
    """The admission, and what it needs that has a life of its own."""

    admission: Admission
    key_fetcher: KeyFetcher | None
    redis: RedisCounts | None

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What has to run beside everything else, until it is cancelled."""
        if self.key_fetcher is not None:
            yield self.key_fetcher.run()
        if self.redis is not None:
            yield self.redis.start()

    async def close(self) -> None:
        """Give up connections."""
        if self.redis is not None:
            await self.redis.close()


def build_access(settings: Settings, share: float) -> Access:
    """`share` is 1 / workers: this process's part of every limit that is not one connection's and not in Redis.

    Raises SettingsError.
    """
    auth, limits = settings.auth, settings.limits
    keys = key_fetcher = None
    if auth.jwks_url is not None:
        keys = KeySet(auth.jwks_keep_seconds)
        key_fetcher = KeyFetcher(jwks_client(auth.jwks_url), keys, refresh_seconds=auth.jwks_refresh_seconds)
    redis: RedisCounts | None = None

    def taker(name: str, rate: float, burst: int) -> Taker:
        return LocalTaker(Limiter(Policy(name, rate, burst), share))

    if limits.storage != "memory":
        # Only here: to load a client of Redis is a quarter of what the whole start costs.
        from services.redis_limits import RedisCounts, SharedLimiter

        redis = counts = RedisCounts(limits.storage)

        def taker(name: str, rate: float, burst: int) -> Taker:
            return SharedLimiter(Policy(name, rate, burst), share, counts)

    def by_address(name: str, rate: float) -> Limiter:
        return Limiter(Policy.of_rate(name, rate), share)

    admission = Admission(
        authenticator=Authenticator(Identity(auth, keys), key_fetcher),
        allows_anonymous=auth.mode == "optional",
        orders=taker("orders", limits.orders_per_second, limits.orders_burst),
        cancels=taker("cancels", limits.cancels_per_second, limits.cancels_burst),
        connects=Bucket(Policy.of_rate("connects", limits.connects_per_second).shared_by(share)),
        address_connects=by_address("connects", limits.address_connects_per_second),
        address_requests=by_address("requests", limits.address_requests_per_second),
        # The burst is not divided: who signs in does so by one connection, at one worker.
        address_logins=Limiter(Policy("logins", limits.address_logins_per_second * share, limits.address_logins_burst)),
        messages=Policy("requests", limits.requests_per_second, limits.requests_burst),
        penalties=Penalties(limits.penalty_seconds),
        trusts_addresses=bool(
            settings.http.trusted_proxies
            or limits.address_connects_per_second
            or limits.address_requests_per_second
            or settings.websocket.max_connections_per_address
        ),
        trusted_proxies=settings.http.trusted_proxies,
    )
    return Access(admission, key_fetcher, redis)
