"""Rate limits of a whole fleet, counted in Redis (`limits.storage`), and by each process alone while Redis is away.

The invariant: no request waits for Redis longer than `TIMEOUT_SECONDS`, and after one that did, or met an error,
none asks it at all until a probe in the background was answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable
from dataclasses import replace
from hashlib import blake2b

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from core.access.limits import Decision, Limiter, Policy
from core.errors import SettingsError

log = logging.getLogger("gateway.limits")

TIMEOUT_SECONDS = 0.08
PAUSE_SECONDS = 1.0
CLOSE_SECONDS = 1.0

# Opening one costs this process 0.7 ms: few, so that opening all of them at once is done well within the time-out.
# More bring nothing, since it is this process's CPU that bounds what goes through them.
MAX_CONNECTIONS = 8

KEY_PREFIX = "gateway:limits"

# Redis counts in milliseconds: a wait ends when the next one has begun.
_TICK_SECONDS = 0.001

_FAILURES = (RedisError, OSError, TimeoutError)
_PROBE = RateLimitItemPerSecond(1_000_000, namespace="probe")


class RedisCounts:
    """One Redis, asked by all shared limits of this process; `close` it at the end.

    The strategy is the sliding window counter of `limits`. Of its three it is closest to a token bucket: a spent quota
    comes back evenly, so even over a window's edge no more than burst + rate * t (and one) pass, where a fixed window
    lets twice the burst through. It needs two counters a key, where a moving window keeps a list of every hit, and it
    goes by Redis's clock, not by those of the instances. A hit is one script call, 0.15 ms.

    Attributes:
        problem: for /health: what keeps limits from being shared; None if nothing does.

    Raises SettingsError for a URL that cannot be used. The URL may hold a password: it is in no message.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self.problem: str | None = None
        self._timeout_seconds = timeout_seconds
        self._pause_seconds = pause_seconds
        self._available = True
        self._closed = False
        self._probing: asyncio.Task[None] | None = None
        # First come, first served: the client's blocking pool lets who just finished in before those who wait.
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        try:
            self._pool = ConnectionPool.from_url(
                url,
                socket_timeout=None,  # our own time-out is over all of it
                retry=Retry(NoBackoff(), 0),  # the client's own ten retries would take seconds
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        except (ValueError, TypeError):  # the text of these may quote any part of the URL
            expected = "expected redis://host:port or rediss://host:port (the value is not shown)"
            raise SettingsError("configuration", "limits.storage", expected) from None
        # Annotated with another client's pool; with this `implementation` it takes ours.
        storage = RedisStorage("redis://", implementation="redispy", key_prefix=KEY_PREFIX, connection_pool=self._pool)  # type: ignore[arg-type]
        self._strategy = SlidingWindowCounterRateLimiter(storage)

    @property
    def available(self) -> bool:
        """Whether it is worth asking: nothing failed since Redis last answered."""
        return self._available

    async def start(self) -> None:
        """Looks whether Redis is there, so that log and /health know before the first request does."""
        try:
            await self._hit(_PROBE, "probe", 1)
        except _FAILURES as error:
            self._announce(error)
            self._suspect()

    async def take(self, item: RateLimitItem, key: str, cost: int) -> float | None:
        """Seconds to wait before trying again, 0.0 if it was counted and allowed, None if Redis did not say."""
        if not self._available:
            return None
        try:
            return await self._hit(item, key, cost)
        except _FAILURES:
            self._suspect()
            return None

    async def close(self) -> None:
        """Lets go of Redis; whoever still asks counts alone."""
        self._closed = True
        self._available = False
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pool.disconnect()
        except _FAILURES as error:
            log.info("the connections to Redis did not end well (%s)", type(error).__name__)

    async def _hit(self, item: RateLimitItem, key: str, cost: int) -> float:
        async with asyncio.timeout(self._timeout_seconds), self._connections:
            if await self._strategy.hit(item, key, cost=cost):
                return 0.0
            stats = await self._strategy.get_window_stats(item, key)
        return max(0.0, stats.reset_time - time.time()) + _TICK_SECONDS

    def _suspect(self) -> None:
        # Nothing is said yet. It may have been this process that was held up, and then the probe knows better at once.
        self._available = False
        if self._probing is None and not self._closed:
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        while not await self._answers():  # noqa: ASYNC110 (nobody would tell an event that Redis is back)
            await asyncio.sleep(self._pause_seconds)
        self._probing = None
        self._available = True
        if self.problem is not None:
            self.problem = None
            log.info("Redis is back: limits are shared again")

    async def _answers(self) -> bool:
        # A real hit: a Redis that is full, read-only or wants a password may well answer a PING.
        try:
            await self._hit(_PROBE, "probe", 1)
        except _FAILURES as error:
            self._announce(error)
        except Exception as error:  # a fault of the client's or of ours; it must not end the probing
            self._announce(error, with_traceback=True)
        else:
            return True
        return False

    def _announce(self, error: Exception, with_traceback: bool = False) -> None:
        # By its type alone: what clients write into their errors is not ours to vouch for.
        said_before = self.problem is not None
        self.problem = f"Redis is away ({type(error).__name__}): limits are counted by each process alone"
        if not said_before:
            log.warning("%s", self.problem, exc_info=error if with_traceback else None)


class SharedLimiter:
    """One policy for the whole fleet. `share` is 1 / workers, for the limits of this process while Redis is away.

    Redis counts whole seconds, so the policy is rounded to a whole window: never over the rate, never under the burst
    (100/s with a burst of 200 is 200 in 2 s; 20/s with a burst of 30 becomes 40 in 2 s).

    In front of Redis stands a bucket of this process's own, with the shared policy and one token more. So the first
    refusal is Redis's, whose window gives nothing back before its end, where a bucket would say that the next token is
    a moment away; it exhausts the bucket, and what that refuses then is refused by all, so a flood never gets as far
    as Redis. `remaining` and `reset` of what was allowed are the bucket's word: what this process knows of, an upper
    bound where a caller uses several. The exact ones cost a second call, which takes more CPU (0.15 ms of 0.25) than
    all the rest; it is made only for a refusal, whose wait has to be right.
    """

    def __init__(self, policy: Policy, share: float, counts: RedisCounts) -> None:
        self._counts = counts
        self._local = Limiter(policy, share)
        window_seconds = policy.window_seconds
        if policy.rate_per_second:
            amount = max(policy.burst, int(policy.rate_per_second * window_seconds + 1e-6))
            policy = Policy(policy.name, amount / window_seconds, amount)
        self.policy = policy
        self._seen = Limiter(replace(policy, burst=policy.burst + 1))
        self._item = RateLimitItemPerSecond(policy.burst, window_seconds, policy.name)

    @property
    def problem(self) -> str | None:
        """For /health: what keeps this limit from being shared; None if nothing does."""
        return self._counts.problem

    async def take(self, key: Hashable, cost: int = 1) -> Decision:
        """Takes `cost` tokens of the key's quota if they are there. The key's repr has to be its name on all instances.

        Falls back to this process's own limits where Redis does not answer in time.
        """
        if self._counts.available:
            cost = min(cost, self.policy.burst)
            seen = self._seen.take(key, cost)
            if not seen.allowed or not self.policy.rate_per_second:
                return self._told(seen)
            wait = await self._counts.take(self._item, _name(key), cost)
            if wait is not None:
                return self._told(self._seen.exhaust(key, wait) if wait else seen)
        return self._local.take(key, cost)

    def take_now(self, key: Hashable) -> Decision | None:
        """Takes one token only where there is no Redis to be asked."""
        return None if self._counts.available else self._local.take(key)

    def _told(self, seen: Decision) -> Decision:
        return seen._replace(policy=self.policy, remaining=max(0, seen.remaining - 1))


def _name(key: Hashable) -> str:
    # A digest, because a user id may be long, hold anything, and is none of Redis's business.
    return blake2b(repr(key).encode(), digest_size=16).hexdigest()
