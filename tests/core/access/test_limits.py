from __future__ import annotations

import random
import re
from collections.abc import Iterable
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.access.limits import (
    Bucket,
    ConnectionLimits,
    Decision,
    Limiter,
    Policy,
    Verdict,
    rate_limit_headers,
)

ORDERS = Policy("orders", 20, 20)
# RFC 9651, as far as these fields use it: a String with Integer parameters.
FIELD = re.compile(r'"[ !#-\[\]-~]*"(?:;[a-z]=[0-9]{1,15})+')

RATES = st.floats(0.001, 1_000_000)
BURSTS = st.integers(1, 1000)
# Uptimes up to a year, with all the digits a clock can have.
UPTIMES = st.floats(0, 31_536_000)


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class NaiveBucket:
    """Tokens that are poured in before each look, in exact arithmetic; no more than the burst."""

    def __init__(self, policy: Policy) -> None:
        self.rate = Fraction(policy.rate_per_second)
        self.burst = policy.burst
        self.tokens = Fraction(policy.burst)
        self.at: Fraction | None = None

    def look(self, now: float) -> Fraction:
        if self.at is not None:
            self.tokens = min(Fraction(self.burst), self.tokens + (Fraction(now) - self.at) * self.rate)
        self.at = Fraction(now)
        return self.tokens

    def take(self, now: float, cost: int = 1) -> bool:
        cost = min(cost, self.burst)
        if self.look(now) < cost:
            return False
        self.tokens -= cost
        return True


def headers_of(decisions: Iterable[Decision]) -> list[dict[str, str]]:
    return [rate_limit_headers(decision) for decision in decisions]


# One bucket.


@settings(deadline=None)  # a busy machine is no defect
@given(RATES, BURSTS, UPTIMES, st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=60))
def test_limiter_decides_as_a_naive_bucket_does(
    rate: float, burst: int, uptime: float, takes: list[tuple[float, int]]
) -> None:
    clock = Clock(uptime)
    policy = Policy("p", rate, burst)
    limiter = Limiter(policy, clock=clock)
    naive = NaiveBucket(policy)
    rounding = 1e-15 * (uptime + 200) * rate * 4 + 1e-9
    for gaps, cost in takes:
        clock.now += gaps * burst / rate / 2
        tokens = naive.look(clock.now)
        decision = limiter.take("key", cost)
        if abs(tokens - min(cost, burst)) > rounding:
            assert decision.allowed == (tokens >= min(cost, burst))
        if decision.allowed:
            naive.tokens -= min(cost, burst)
        assert decision.remaining <= burst
        assert abs(decision.remaining - naive.tokens) < 1 + rounding
        assert decision.reset == pytest.approx(float((burst - naive.tokens) / Fraction(rate)), rel=1e-6, abs=1e-6)


@settings(deadline=None)  # a busy machine is no defect
@given(RATES, BURSTS, UPTIMES, st.lists(st.floats(0, 3), max_size=100))
def test_limiter_allows_no_more_than_burst_and_rate_in_any_time(
    rate: float, burst: int, uptime: float, gaps: list[float]
) -> None:
    clock = Clock(uptime)
    limiter = Limiter(Policy("p", rate, burst), clock=clock)
    allowed_at: list[float] = []
    for gap in gaps:
        clock.now += gap / rate
        allowed_at += [clock.now for _ in range(burst // 50 + 1) if limiter.take("key").allowed]
    for first, begun in enumerate(allowed_at):
        for count, ended in enumerate(allowed_at[first:], 1):
            assert count <= burst + rate * (ended - begun) + 1e-15 * clock.now * rate * 4 + 1e-9


@settings(deadline=None)  # a busy machine is no defect
@given(RATES, BURSTS, UPTIMES, st.integers(1, 1200))
def test_client_that_waits_as_told_is_allowed(rate: float, burst: int, uptime: float, cost: int) -> None:
    clock = Clock(uptime)
    limiter = Limiter(Policy("p", rate, burst), clock=clock)
    while limiter.take("key").allowed:
        pass
    for _ in range(20):
        refused = limiter.take("key", cost)
        assert not refused.allowed
        assert 0 < refused.retry_after <= burst / rate + 1e-5
        clock.now += refused.retry_after
        assert limiter.take("key", cost).allowed
        while limiter.take("key").allowed:
            pass


def test_limiter_takes_nothing_from_who_is_refused() -> None:
    clock = Clock()
    limiter = Limiter(Policy("p", 1, 3), clock=clock)
    assert [limiter.take("key").allowed for _ in range(9)] == [True] * 3 + [False] * 6
    clock.now += 1.001
    assert [limiter.take("key").allowed for _ in range(2)] == [True, False]


def test_limiter_is_exact_after_years_at_a_high_rate() -> None:
    clock = Clock(100_000_000.0)
    limiter = Limiter(Policy("p", 1_000_000, 1000), clock=clock)
    assert sum(limiter.take("key").allowed for _ in range(2000)) == 1000


def test_limiter_keeps_keys_apart() -> None:
    limiter = Limiter(Policy("p", 0.1, 1), clock=Clock())
    assert limiter.take("alice").allowed
    assert limiter.take(None).allowed
    assert not limiter.take("alice").allowed


def test_limiter_counts_a_cost_over_the_burst_as_a_whole_bucket() -> None:
    clock = Clock()
    limiter = Limiter(Policy("p", 1, 5), clock=clock)
    assert limiter.take("key", 100).allowed
    refused = limiter.take("key", 100)
    assert refused.retry_after == pytest.approx(5)
    clock.now += refused.retry_after
    assert limiter.take("key", 100).allowed


def test_limiter_without_a_rate_allows_everything_and_keeps_nothing() -> None:
    limiter = Limiter(Policy("p", 0, 1), clock=Clock())
    decisions = [limiter.take("key", cost) for cost in range(100)]
    assert all(decision.allowed for decision in decisions)
    assert headers_of(decisions) == [{}] * 100
    assert limiter.exhaust("key", 5).allowed
    assert len(limiter) == 0


def test_exhausted_key_gets_nothing_until_its_time() -> None:
    clock = Clock()
    limiter = Limiter(Policy("p", 2, 4), clock=clock)
    told = limiter.exhaust("key", 0.7)
    assert not told.allowed and told.remaining == 0
    assert told.retry_after == pytest.approx(0.7, abs=1e-5)
    clock.now += 0.69
    assert limiter.take("key").retry_after == pytest.approx(0.01, abs=1e-5)
    clock.now += 0.011
    assert [limiter.take("key").allowed for _ in range(2)] == [True, False]


def test_exhausting_shortens_no_wait() -> None:
    limiter = Limiter(Policy("p", 0.1, 1), clock=Clock())
    limiter.take("key")
    assert limiter.exhaust("key", 0.001).retry_after == pytest.approx(10)


# Workers.


@pytest.mark.parametrize(
    ("policy", "workers", "rate", "burst"),
    [
        (ORDERS, 1, 20, 20),
        (ORDERS, 2, 10, 10),
        (ORDERS, 8, 2.5, 3),
        (ORDERS, 256, 20 / 256, 1),
        (Policy("p", 0, 5), 4, 0, 2),
    ],
)
def test_workers_share_a_policy(policy: Policy, workers: int, rate: float, burst: int) -> None:
    share = Limiter(policy, 1 / workers).policy
    assert (share.name, share.rate_per_second, share.burst) == (policy.name, pytest.approx(rate), burst)


@given(st.integers(1, 1_000_000), st.integers(1, 256))
def test_share_of_a_burst_is_rounded_up_but_not_for_a_rounding(burst: int, workers: int) -> None:
    assert Policy("p", 1, burst).shared_by(1 / workers).burst == ceil(Fraction(burst, workers))


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError):
        Limiter(ORDERS, share)


# Memory.


def test_limiter_forgets_buckets_that_are_full_again() -> None:
    clock = Clock()
    limiter = Limiter(ORDERS, clock=clock)
    for number in range(1000):
        limiter.take(number)
    assert len(limiter) == 1000
    for _ in range(2):
        clock.now += 1.0
        limiter.take("somebody")
    clock.now += 1.0
    limiter.take("somebody")
    assert len(limiter) <= 2


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 7.0])), max_size=200),
)
def test_limiter_forgets_no_bucket_that_is_not_full(burst: int, takes: list[tuple[int, float]]) -> None:
    clock = Clock(1024.0)
    policy = Policy("p", 1, burst)
    limiter = Limiter(policy, clock=clock)
    naive: dict[int, NaiveBucket] = {}
    for key, gap in takes:
        clock.now += gap
        tokens = naive.setdefault(key, NaiveBucket(policy)).look(clock.now)
        allowed = limiter.take(key).allowed
        assert allowed == (tokens >= 1) or abs(tokens - 1) < 1e-9
        if allowed:
            naive[key].tokens -= 1


@given(st.integers(1, 20), st.lists(st.integers(0, 40), max_size=300))
def test_limiter_never_holds_more_keys_than_it_may(max_keys: int, keys: list[int]) -> None:
    limiter = Limiter(Policy("p", 0.001, 1), clock=Clock(), max_keys=max_keys)
    for key in keys:
        limiter.take(key)
        limiter.exhaust(key + 100, 1)
        assert len(limiter) <= max_keys


def test_made_up_keys_get_nobody_refused_and_only_the_longest_unseen_forgotten() -> None:
    limiter = Limiter(Policy("p", 0.001, 2), clock=Clock(), max_keys=100)
    assert [limiter.take("busy").allowed for _ in range(3)] == [True, True, False]
    for number in range(10_000):
        assert limiter.take(f"made up {number}").allowed
        if number < 49:
            assert not limiter.take("busy").allowed
    assert limiter.take("honest").allowed
    assert len(limiter) <= 100


def test_limiter_holds_a_key_that_comes_again_however_many_come_between() -> None:
    clock = Clock()
    policy = Policy("p", 0.5, 10)
    limiter = Limiter(policy, clock=clock, max_keys=20)
    naive = NaiveBucket(policy)
    for number in range(500):
        clock.now += 0.25
        limiter.take(f"made up {number}")
        assert limiter.take("steady").allowed == naive.take(clock.now)


# Headers.


def test_headers_of_the_defaults_are_those_of_the_contract() -> None:
    limiter = Limiter(ORDERS, clock=Clock())
    assert headers_of(limiter.take("alice") for _ in range(17))[-1] == {
        "RateLimit-Policy": '"orders";q=20;w=1',
        "RateLimit": '"orders";r=3;t=1',
    }


def test_refusal_tells_when_to_come_again_in_whole_seconds() -> None:
    limiter = Limiter(ORDERS, clock=Clock())
    assert headers_of(limiter.take("alice") for _ in range(21))[-1] == {
        "RateLimit-Policy": '"orders";q=20;w=1',
        "RateLimit": '"orders";r=0;t=1',
        "Retry-After": "1",
    }


@pytest.mark.parametrize(
    ("rate_per_second", "burst", "window_seconds"),
    [(20, 20, 1), (100, 200, 2), (1000, 1, 1), (0.1, 6, 60), (0.3, 3, 10), (3, 10, 4), (0.7, 7, 10), (0, 9, 1)],
)
def test_window_is_the_time_in_which_the_quota_comes_back(
    rate_per_second: float, burst: int, window_seconds: int
) -> None:
    assert Policy("p", rate_per_second, burst).window_seconds == window_seconds


@settings(deadline=None)  # a busy machine is no defect
@given(st.floats(1e-300, 1_000_000), st.integers(1, 1_000_000), st.integers(1, 40))
def test_headers_are_structured_fields_whatever_the_policy(rate: float, burst: int, takes: int) -> None:
    limiter = Limiter(Policy("per address", rate, burst), clock=Clock())
    for cost in (1, *[burst] * takes):
        decision = limiter.take("key", cost)
        headers = rate_limit_headers(decision)
        assert FIELD.fullmatch(headers["RateLimit-Policy"]) and FIELD.fullmatch(headers["RateLimit"])
        assert ("Retry-After" in headers) == (not decision.allowed)
        if not decision.allowed:
            assert int(headers["Retry-After"]) >= max(1, min(decision.retry_after - 1e-5, 999_999_999_999_999))
            assert headers["RateLimit"].endswith(f";t={headers['Retry-After']}")


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "größe", "line\n", "\x7f"])
def test_policy_name_that_would_need_escaping_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        Policy(name, 1, 1)


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0)])
def test_policy_that_is_impossible_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError):
        Policy("p", rate, burst)


@pytest.mark.parametrize(("rate", "burst"), [(1000, 1000), (0.5, 1), (2.5, 3), (0, 1)])
def test_policy_of_a_rate_alone_allows_a_second_of_it_at_once(rate: float, burst: int) -> None:
    assert Policy.of_rate("connects", rate) == Policy("connects", rate, burst)


# Connections.


@settings(deadline=None)  # a busy machine is no defect
@given(RATES, st.integers(1, 30), UPTIMES, st.lists(st.floats(0, 3), max_size=100))
def test_bucket_decides_as_limiter_does(rate: float, burst: int, uptime: float, gaps: list[float]) -> None:
    clock = Clock(uptime)
    policy = Policy("p", rate, burst)
    bucket = Bucket(policy, clock)
    limiter = Limiter(policy, clock=clock)
    for gap in gaps:
        clock.now += gap / rate
        assert bucket.take() == limiter.take("key").retry_after


def test_bucket_without_a_rate_allows_everything() -> None:
    bucket = Bucket(Policy("p", 0, 1), Clock())
    assert [bucket.take() for _ in range(50)] == [0.0] * 50


def test_connection_that_sends_all_at_once_is_refused_and_then_a_flood() -> None:
    limits = ConnectionLimits(Policy("requests", 100, 200), Clock())
    verdicts = [limits.take() for _ in range(402)]
    assert verdicts == [Verdict.ALLOWED] * 200 + [Verdict.REFUSED] * 200 + [Verdict.FLOOD] * 2


def test_flood_stays_one_however_long_it_pauses() -> None:
    clock = Clock()
    limits = ConnectionLimits(Policy("requests", 1, 1), clock)
    assert [limits.take() for _ in range(3)][-1] is Verdict.FLOOD
    clock.now += 1000
    assert limits.take() is Verdict.FLOOD


def test_connection_that_waits_as_told_is_allowed_and_never_a_flood() -> None:
    clock = Clock()
    limits = ConnectionLimits(Policy("requests", 100, 200), clock)
    refused = 0
    for _ in range(5000):
        while limits.take() is Verdict.REFUSED:
            refused += 1
            assert 0 < limits.retry_after <= 0.011
            clock.now += limits.retry_after
        assert limits.retry_after == 0.0
    assert refused >= 4700  # one refusal for each message, and no flood


@pytest.mark.parametrize(("per_second", "floods"), [(50, False), (150, False), (190, False), (220, True), (2000, True)])
def test_flood_is_more_than_twice_the_rate_for_long(per_second: int, floods: bool) -> None:
    clock = Clock()
    limits = ConnectionLimits(Policy("requests", 100, 200), clock)
    verdicts = []
    for _ in range(60 * per_second):
        clock.now += 1 / per_second
        verdicts.append(limits.take())
    assert (Verdict.FLOOD in verdicts) == floods
    assert (Verdict.REFUSED in verdicts) == (per_second > 100)


def test_connection_without_a_limit_is_never_refused() -> None:
    limits = ConnectionLimits(Policy("requests", 0, 1), Clock())
    assert {limits.take() for _ in range(1000)} == {Verdict.ALLOWED}


def test_limiter_forgets_while_many_keys_come_and_go() -> None:
    clock = Clock()
    limiter = Limiter(ORDERS, clock=clock)
    order = random.Random(7)
    held = []
    for _ in range(200_000):
        clock.now += 0.0001
        limiter.take(order.randrange(1_000_000))
        held.append(len(limiter))
    # Two refills' worth of keys, at 10,000 a second.
    assert max(held) <= 20_001


# Long messages.


def test_long_message_costs_a_token_for_each_kib_that_it_begins() -> None:
    limits = ConnectionLimits(Policy("requests", 0.001, 10), lambda: 0.0)
    assert [limits.take(size) for size in (1023, 1024, 3 * 1024, 2 * 1024)] == [Verdict.ALLOWED] * 4  # 1 + 2 + 4 + 3
    assert limits.take(0) is Verdict.REFUSED
    assert limits.take(8 * 1024) is Verdict.REFUSED  # 1 + 9 of the refusals
    assert limits.take(0) is Verdict.FLOOD


def test_message_longer_than_a_burst_takes_a_whole_one() -> None:
    now = [0.0]
    limits = ConnectionLimits(Policy("requests", 1.0, 3), lambda: now[0])
    assert limits.take(1 << 20) is Verdict.ALLOWED
    assert limits.take(0) is Verdict.REFUSED
    now[0] = 3.0
    assert limits.take(1 << 20) is Verdict.ALLOWED
