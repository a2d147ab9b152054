"""Rate limits: token buckets, what they decided, and how clients are told (docs/contract.md#limits).

A bucket is one number: the time at which it is full again, in tokens since the clock's zero. Taking adds whole tokens
to it, and that does not add up roundings, however high the rate and however long the uptime. The invariant: of one
key, no more than burst + rate * t tokens are taken in any t seconds, unless its bucket was forgotten (see `Limiter`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from math import ceil
from typing import NamedTuple

MAX_KEYS = 100_000
# Of a message, for one token.
BYTES_A_TOKEN = 1024

# A wait is told this much longer, so that who waits exactly as told is not a rounding of the clock too early.
_ROUNDING_SECONDS = 1e-6

# RFC 9651 section 3.3.1: an Integer of structured fields has at most 15 digits.
_MAX_INTEGER = 999_999_999_999_999

# Decision(...) goes through a function of namedtuple's own: 0.24 microseconds instead of 0.09.
_new = tuple.__new__


def _whole_up(number: float) -> int:
    # What is whole but for a rounding (of a division, of the microsecond above) stays what it is.
    return ceil(round(number, 5)) if number < _MAX_INTEGER else _MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Policy:
    """So many tokens a second, and so many at once. A rate of 0 is no limit. The name is told to clients, in quotes."""

    name: str
    rate_per_second: float
    burst: int
    header: str = field(init=False, repr=False, compare=False)
    """The value of `RateLimit-Policy`: made once, as it is sent with each answer."""

    def __post_init__(self) -> None:
        # RFC 9651 section 3.3.3: a String holds printable ASCII; these two would have to be escaped.
        if not (self.name.isascii() and self.name.isprintable()) or '"' in self.name or "\\" in self.name:
            raise ValueError("expected a name of printable ASCII without quotes and backslashes")
        if not (0 <= self.rate_per_second < float("inf") and self.burst >= 1):
            raise ValueError("expected a rate of 0 or more and a burst of 1 or more")
        object.__setattr__(self, "header", f'"{self.name}";q={self.burst};w={self.window_seconds}')

    @classmethod
    def of_rate(cls, name: str, rate_per_second: float) -> Policy:
        """The policy of a setting that has no burst of its own: a second's tokens at once."""
        return cls(name, rate_per_second, max(1, _whole_up(rate_per_second)))

    @property
    def window_seconds(self) -> int:
        """Whole seconds, rounded up and at least 1, in which an empty bucket fills; 1 where there is no limit."""
        return max(1, _whole_up(self.burst / self.rate_per_second)) if self.rate_per_second else 1

    def shared_by(self, share: float) -> Policy:
        """What one of several workers may allow for all to keep this policy; a burst is at least 1 and rounded up.

        Raises ValueError unless 0 < share <= 1.
        """
        if not 0 < share <= 1:
            raise ValueError("expected a share above 0 and up to 1")
        return Policy(self.name, self.rate_per_second * share, max(1, _whole_up(self.burst * share)))


class Decision(NamedTuple):
    """What a bucket said. A tuple, because one is made for each order: a frozen dataclass takes 0.62 microseconds.

    Attributes:
        allowed: the token was taken; of a refusal nothing was.
        policy: by which it was decided (a worker's share of the configured one).
        remaining: whole tokens that are left.
        retry_after: seconds until the same cost is allowed; 0 if it just was.
        reset: seconds until the bucket is full.
    """

    allowed: bool
    policy: Policy
    remaining: int
    retry_after: float
    reset: float


def rate_limit_headers(decision: Decision) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers-08 to -10; nothing without a limit.

    A refusal has `Retry-After` too (RFC 9110 section 10.2.3), in whole seconds, rounded up and at least 1. Then `t`
    is the same number, not the time until the bucket is full: the draft wants both to name one moment.
    """
    policy = decision.policy
    if not policy.rate_per_second:
        return {}
    headers = {"RateLimit-Policy": policy.header}
    if decision.allowed:
        seconds = _whole_up(decision.reset)
    else:
        seconds = max(1, _whole_up(decision.retry_after))
        headers["Retry-After"] = str(seconds)
    headers["RateLimit"] = f'"{policy.name}";r={decision.remaining};t={seconds}'
    return headers


class Bucket:
    """One token bucket, for what has only one: a connection, a process."""

    __slots__ = ("_burst", "_clock", "_full_at", "_rate")

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = policy.rate_per_second
        self._burst = policy.burst
        self._clock = clock
        self._full_at = float("-inf")

    def take(self, cost: int = 1) -> float:
        """Takes `cost` tokens if they are there: 0.0, or the seconds until they are. More than a whole bucket counts as that."""
        level = self._clock() * self._rate
        full_at = self._full_at
        if cost > self._burst:
            cost = self._burst
        if full_at <= level or not self._rate:
            self._full_at = level + cost
            return 0.0
        full_at += cost
        missing = full_at - level - self._burst
        if missing <= 0:
            self._full_at = full_at
            return 0.0
        return missing / self._rate + _ROUNDING_SECONDS


class Limiter:
    """Token buckets of one policy, by key: a user, an address. `share` is 1 / workers.

    Memory is bounded. A bucket that is full again says nothing and is forgotten. Beyond `max_keys` buckets the older
    half is forgotten, full or not: then a key that has rested while that many others came begins with a full bucket
    early. It is in the caller's favour and can be: who is able to make up that many keys has all their bursts anyway,
    and neither refusing new keys nor a common bucket for them would leave honest callers in peace.
    """

    __slots__ = ("_burst", "_clock", "_max_young", "_old", "_rate", "_turn_at", "_turn_seconds", "_young", "policy")

    def __init__(
        self,
        policy: Policy,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self.policy = policy.shared_by(share)
        self._rate = self.policy.rate_per_second
        self._burst = self.policy.burst
        self._clock = clock
        # Two generations. What was last touched a whole refill ago is full, so a generation that old goes at once,
        # without being looked through: no sweep, and no order that waits for one.
        self._young: dict[Hashable, float] = {}
        self._old: dict[Hashable, float] = {}
        self._max_young = max(1, max_keys // 2)
        self._turn_seconds = self._burst / self._rate if self._rate else 0.0
        self._turn_at = float("-inf")

    def __len__(self) -> int:
        """How many buckets are held, at most `max_keys` (one in both generations counts twice)."""
        return len(self._young) + len(self._old)

    def take(self, key: Hashable, cost: int = 1) -> Decision:
        """Takes `cost` tokens of the key's bucket if they are there; more than a whole bucket counts as that."""
        rate = self._rate
        policy = self.policy
        burst = self._burst
        if not rate:
            return _new(Decision, (True, policy, burst, 0.0, 0.0))
        now = self._clock()
        level = now * rate
        full_at = self._young.get(key)
        if full_at is None:
            full_at = self._old.get(key, level)
        if cost > burst:
            cost = burst
        missing: float
        if full_at <= level:
            after = level + cost
            missing = cost - burst
        else:
            after = full_at + cost
            missing = after - level - burst
        if missing > 0:
            wait = missing / rate + _ROUNDING_SECONDS
            return _new(Decision, (False, policy, int(burst - (full_at - level)), wait, (full_at - level) / rate))
        self._young[key] = after
        if now >= self._turn_at or len(self._young) >= self._max_young:
            self._turn(now)
        return _new(Decision, (True, policy, int(-missing), 0.0, (after - level) / rate))

    def exhaust(self, key: Hashable, seconds: float) -> Decision:
        """Leaves the key nothing until `seconds` have passed, because somebody who knows more refused it."""
        rate = self._rate
        if not rate:
            return _new(Decision, (True, self.policy, self._burst, 0.0, 0.0))
        now = self._clock()
        level = now * rate
        known = self._young.get(key) or self._old.get(key, level)
        full_at = max(known, level + self._burst - 1 + seconds * rate)
        self._young[key] = full_at
        if now >= self._turn_at or len(self._young) >= self._max_young:
            self._turn(now)
        wait = (full_at + 1 - level - self._burst) / rate + _ROUNDING_SECONDS
        return _new(Decision, (False, self.policy, 0, wait, (full_at - level) / rate))

    def _turn(self, now: float) -> None:
        # Early, when the young are too many: then the old are not all full yet (see the class).
        self._old, self._young = self._young, {}
        self._turn_at = now + self._turn_seconds


class Verdict(Enum):
    """What becomes of a message: it is served; answered 10003 with `retry_after`; or its connection is closed, 1008."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    FLOOD = "flood"


class ConnectionLimits:
    """The messages of one WebSocket connection (`limits.requests_per_second`, `limits.requests_burst`).

    Each takes a token, and one more for each whole KiB, for that is what it costs; one that gets none is
    refused, and takes as much of a second bucket, of the same policy, for refusals. When that is empty too it is a flood: as
    many again as the burst at once, or for long more than twice the rate. A client that waits `retry_after` is allowed; one
    that is a little too fast is told so and never closed.

    Attributes:
        retry_after: seconds until a message is allowed again, as of the last one; 0 if that was allowed.
    """

    __slots__ = ("_allowances", "_flooded", "_refusals", "retry_after")

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowances = Bucket(policy, clock)
        self._refusals = Bucket(policy, clock)
        self._flooded = False
        self.retry_after = 0.0

    def take(self, size: int = 0) -> Verdict:
        """Judges one message of so many bytes. Once it is a flood it stays one: nothing that still comes is served."""
        if self._flooded:
            return Verdict.FLOOD
        cost = 1 + size // BYTES_A_TOKEN
        self.retry_after = self._allowances.take(cost)
        if not self.retry_after:
            return Verdict.ALLOWED
        if not self._refusals.take(cost):
            return Verdict.REFUSED
        self._flooded = True
        return Verdict.FLOOD
