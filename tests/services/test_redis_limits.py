from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from core.access.limits import Decision, Policy, rate_limit_headers
from core.errors import SettingsError
from services.redis_limits import TIMEOUT_SECONDS, RedisCounts, SharedLimiter
from tests.support import redis as support
from tests.support.deadlines import deadlines
from tests.support.redis import RedisServer, redis_or_skip

# Slow enough that nothing comes back while a test runs.
SLOW = Policy("orders", 0.01, 10)
PAUSE_SECONDS = 0.05
# What a machine shared with others may need for what is due at once.
DEADLINE_SECONDS = 10.0
PATIENT_SECONDS = 15.0


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_or_skip() as server:
        yield server


@asynccontextmanager
async def counts_of(url: str) -> AsyncIterator[RedisCounts]:
    """Counts that are patient with a busy machine."""
    counts = RedisCounts(url, timeout_seconds=PATIENT_SECONDS, pause_seconds=PAUSE_SECONDS)
    try:
        yield counts
    finally:
        await counts.close()


@contextmanager
def in_haste(counts: RedisCounts) -> Iterator[None]:
    """What is asked meanwhile is waited for only as long as the product does."""
    counts._timeout_seconds = TIMEOUT_SECONDS
    try:
        yield
    finally:
        counts._timeout_seconds = PATIENT_SECONDS


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 (what Redis and the probe do has no event here)
            await asyncio.sleep(0.005)


async def take_until_refused(limiter: SharedLimiter, key: str, most: int = 100) -> list[Decision]:
    taken: list[Decision] = []
    while len(taken) < most:
        taken.append(await limiter.take(key))
        if not taken[-1].allowed:
            break
    return taken


@pytest.mark.gen_test
async def test_shared_limiters_of_two_instances_share_a_quota(redis: RedisServer) -> None:
    async with counts_of(redis.url) as here, counts_of(redis.url) as there:
        limiters = [SharedLimiter(SLOW, 1.0, counts) for counts in (here, there)]
        allowed = [(await limiters[turn % 2].take("alice")).allowed for turn in range(20)]
        assert allowed == [True] * 10 + [False] * 10
        assert (await limiters[0].take("bob")).allowed
        assert here.problem is None and there.problem is None


@pytest.mark.gen_test
async def test_shared_limiter_takes_nothing_at_once_while_there_is_redis_to_be_asked() -> None:
    async with counts_of("redis://127.0.0.1:1/0") as counts:
        limiter = SharedLimiter(Policy("orders", 0.01, 1), 1.0, counts)
        assert limiter.take_now("alice") is None
        assert (await limiter.take("alice")).allowed, "by this process's own limit, as nobody answers"
        assert not counts.available
        refused = limiter.take_now("alice")
        assert refused is not None and not refused.allowed


@pytest.mark.gen_test
async def test_shared_limiter_counts_each_policy_by_itself(redis: RedisServer) -> None:
    async with counts_of(redis.url) as counts:
        orders, cancels = (SharedLimiter(Policy(name, 0.01, 1), 1.0, counts) for name in ("orders", "cancels"))
        assert (await orders.take("alice")).allowed
        assert (await cancels.take("alice")).allowed
        assert not (await orders.take("alice")).allowed


@pytest.mark.gen_test
async def test_shared_limiter_takes_the_cost_from_the_common_quota(redis: RedisServer) -> None:
    async with counts_of(redis.url) as here, counts_of(redis.url) as there:
        assert (await SharedLimiter(SLOW, 1.0, here).take("alice", 7)).allowed
        other = SharedLimiter(SLOW, 1.0, there)
        assert not (await other.take("alice", 4)).allowed
        assert (await SharedLimiter(SLOW, 1.0, there).take("bob", 1000)).allowed


@pytest.mark.gen_test
async def test_shared_limiter_of_no_rate_allows_everything_and_asks_nobody() -> None:
    async with counts_of("redis://127.0.0.1:1/0") as counts:
        limiter = SharedLimiter(Policy("orders", 0, 1), 1.0, counts)
        decisions = [await limiter.take("alice") for _ in range(50)]
        assert all(decision.allowed and rate_limit_headers(decision) == {} for decision in decisions)
        assert counts.available


@pytest.mark.gen_test
async def test_shared_limiter_tells_what_it_knows_in_headers(redis: RedisServer) -> None:
    async with counts_of(redis.url) as counts:
        limiter = SharedLimiter(Policy("orders", 20, 20), 1.0, counts)
        assert rate_limit_headers(await limiter.take("alice")) == {
            "RateLimit-Policy": '"orders";q=20;w=1',
            "RateLimit": '"orders";r=19;t=1',
        }


@pytest.mark.parametrize(
    ("rate_per_second", "burst", "shared"),
    [
        (20, 20, (20, 20)),
        (100, 200, (100, 200)),
        (20, 30, (20, 40)),
        (100, 20, (100, 100)),
        (0.3, 1, (0.25, 1)),
        (0, 5, (0, 5)),
    ],
)
@pytest.mark.gen_test
async def test_shared_policy_is_whole_seconds_never_over_the_rate_or_under_the_burst(
    rate_per_second: float, burst: int, shared: tuple[float, int]
) -> None:
    async with counts_of("redis://127.0.0.1:1/0") as counts:
        policy = SharedLimiter(Policy("orders", rate_per_second, burst), 1.0, counts).policy
        assert (policy.rate_per_second, policy.burst) == shared


@pytest.mark.gen_test
async def test_shared_limiters_allow_no_more_than_burst_and_rate_and_one(redis: RedisServer) -> None:
    policy = Policy("orders", 20, 20)
    async with counts_of(redis.url) as here, counts_of(redis.url) as there:
        limiters = [SharedLimiter(policy, 1.0, counts) for counts in (here, there)]
        begun = time.monotonic()
        allowed_at = []
        turn = 0
        # What was spent comes back: the burst, and twice as many after it.
        while len(allowed_at) < 60:
            turn += 1
            if (await limiters[turn % 2].take("alice")).allowed:
                allowed_at.append(time.monotonic() - begun)
            await asyncio.sleep(0.001)
        # One for the counter's rounding, one for the time between Redis's answer and the clock here.
        for first, start in enumerate(allowed_at):
            for count, end in enumerate(allowed_at[first:], 1):
                assert count <= policy.burst + policy.rate_per_second * (end - start) + 2
        assert here.available and there.available


@pytest.mark.gen_test
async def test_refused_client_is_allowed_after_the_told_wait(redis: RedisServer) -> None:
    policy = Policy("orders", 5, 5)
    async with counts_of(redis.url) as here, counts_of(redis.url) as there:
        await take_until_refused(SharedLimiter(policy, 1.0, here), "alice")
        for _ in range(3):
            # However much has come back meanwhile; each limiter is a new one, so that it is Redis who refuses.
            other = SharedLimiter(policy, 1.0, there)
            while (refused := await other.take("alice")).allowed:
                other = SharedLimiter(policy, 1.0, there)
            assert 0 < refused.retry_after <= 1.1
            await asyncio.sleep(refused.retry_after)  # by Redis's clock, which nobody can set
            assert (await other.take("alice")).allowed


@pytest.mark.gen_test
async def test_one_instance_alone_tells_a_wait_that_is_long_enough(redis: RedisServer) -> None:
    # Its own bucket would have a token again after 20 seconds, and Redis has none before the window of 200 ends.
    policy = Policy("orders", 0.05, 10)
    async with counts_of(redis.url) as counts:
        limiter = SharedLimiter(policy, 1.0, counts)
        decisions = [await limiter.take("alice") for _ in range(12)]
        assert [(one.allowed, one.remaining) for one in decisions] == [
            *((True, left) for left in range(9, -1, -1)), (False, 0), (False, 0)
        ]  # fmt: skip
        assert {one.policy.header for one in decisions} == {policy.header}
        names = redis.ask("KEYS", "*orders*").split(b"\r\n")[2::2]
        # The key outlives its window by another one, of which it is the past.
        left = int(redis.ask("PTTL", names[0].decode()).strip(b":\r\n")) / 1000 - policy.window_seconds
        for refused in decisions[10:]:
            assert refused.retry_after > left


@pytest.mark.gen_test
async def test_refused_client_that_goes_on_does_not_get_as_far_as_redis(redis: RedisServer) -> None:
    async with counts_of(redis.url) as here, counts_of(redis.url) as there:
        await take_until_refused(SharedLimiter(SLOW, 1.0, here), "alice")
        other = SharedLimiter(SLOW, 1.0, there)
        assert not (await other.take("alice")).allowed
        redis.ask("CONFIG", "RESETSTAT")
        for _ in range(50):
            assert not (await other.take("alice")).allowed
        assert b"cmdstat_evalsha" not in redis.ask("INFO", "commandstats")


@pytest.mark.gen_test
async def test_many_at_once_wait_for_few_connections_and_are_all_counted(redis: RedisServer) -> None:
    async with counts_of(redis.url) as counts:
        limiter = SharedLimiter(Policy("orders", 0.01, 150), 1.0, counts)
        decisions = await asyncio.gather(*(limiter.take("alice") for _ in range(200)))
        assert sum(decision.allowed for decision in decisions) == 150
        assert int(redis.ask("INFO", "clients").partition(b"connected_clients:")[2].split()[0]) <= 9


@pytest.mark.gen_test
async def test_limits_are_local_while_redis_is_killed_and_shared_again_when_it_is_back(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.limits")
    async with counts_of(redis.url) as here, counts_of(redis.url) as there:
        limiters = [SharedLimiter(SLOW, 0.5, counts) for counts in (here, there)]
        for limiter in limiters:
            assert (await limiter.take("alice")).allowed
        redis.kill()
        for limiter in limiters:
            taken = await take_until_refused(limiter, "bob")
            # Two workers share what one instance may allow alone.
            assert len(taken) == 6 and taken[-1].policy.burst == 5
        await until(lambda: here.problem is not None and there.problem is not None)
        assert limiters[0].problem == "Redis is away (ConnectionError): limits are counted by each process alone"
        redis.start()
        await until(lambda: here.problem is None and there.problem is None)
        allowed = [(await limiters[turn % 2].take("carol")).allowed for turn in range(20)]
        assert allowed == [True] * 10 + [False] * 10
    levels = [(record.levelname, record.getMessage().partition(":")[0]) for record in caplog.records]
    assert levels.count(("WARNING", "Redis is away (ConnectionError)")) == 2
    assert levels.count(("INFO", "Redis is back")) == 2
    assert len(levels) == 4


@pytest.mark.gen_test
async def test_first_failure_asks_nobody_else_to_wait(redis: RedisServer) -> None:
    async with counts_of(redis.url) as counts:
        limiter = SharedLimiter(Policy("orders", 1000, 1000), 1.0, counts)
        await counts.start()
        with redis.frozen(), in_haste(counts), deadlines() as begun:
            waiting = [asyncio.ensure_future(limiter.take(f"user {number}")) for number in range(64)]
            await asyncio.sleep(0)
            assert len(begun) == 64, "all of them wait at the same time"
            assert all(decision.allowed for decision in await asyncio.gather(*waiting))
            assert not counts.available
            await until(lambda: counts.problem is not None)
            begun.clear()
            for _ in range(100):
                assert (await limiter.take("alice")).allowed
            assert begun == []
            assert counts.problem == "Redis is away (TimeoutError): limits are counted by each process alone"
        await until(lambda: counts.problem is None)
        assert counts.available


@pytest.mark.gen_test
async def test_answers_that_came_too_late_are_nobody_elses(redis: RedisServer) -> None:
    async with counts_of(redis.url) as here, counts_of(redis.url) as there:
        limiter = SharedLimiter(SLOW, 1.0, here)
        await take_until_refused(limiter, "alice")
        with redis.frozen(), in_haste(here):
            # Each connection is left with the answer to somebody's question under way.
            await asyncio.gather(*(limiter.take(f"user {number}") for number in range(32)))
        await until(lambda: here.available)
        other = SharedLimiter(SLOW, 1.0, there)
        assert not (await other.take("alice")).allowed
        fresh = [(await SharedLimiter(SLOW, 1.0, here).take("dora")).allowed for _ in range(12)]
        assert fresh == [True] * 10 + [False] * 2


@pytest.mark.gen_test
async def test_hiccup_of_this_process_alone_is_not_announced(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.limits")
    async with counts_of(redis.url) as counts:
        limiter = SharedLimiter(SLOW, 1.0, counts)
        await counts.start()
        with in_haste(counts):
            taking = asyncio.ensure_future(limiter.take("alice"))
            await asyncio.sleep(0)
        time.sleep(2 * TIMEOUT_SECONDS)  # noqa: ASYNC251 (holding the loop up is the point)
        assert (await taking).allowed
        await until(lambda: counts.available)
        assert counts.problem is None
    assert caplog.records == []


@pytest.mark.gen_test
async def test_fault_of_the_client_is_logged_once_with_its_traceback_and_does_not_end_the_probing(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = 0

    async def hit(*_: object, **__: object) -> bool:
        nonlocal raised
        raised += 1
        raise TimeoutError if raised == 1 else LookupError("a fault of the client's")

    async with counts_of(redis.url) as counts:
        with monkeypatch.context() as patched:
            patched.setattr(SlidingWindowCounterRateLimiter, "hit", hit)
            assert (await SharedLimiter(SLOW, 1.0, counts).take("alice")).allowed
            await until(lambda: raised > 3)
            assert counts.problem == "Redis is away (LookupError): limits are counted by each process alone"
        await until(lambda: counts.problem is None)
    [record] = caplog.records
    assert record.exc_info is not None


@pytest.mark.gen_test
async def test_start_says_at_once_that_redis_is_away() -> None:
    async with counts_of("redis://:hunter2secret@127.0.0.1:1/0") as counts:
        await counts.start()
        assert counts.problem == "Redis is away (ConnectionError): limits are counted by each process alone"
        assert (await SharedLimiter(SLOW, 1.0, counts).take("alice")).allowed


@pytest.mark.gen_test
async def test_redis_that_answers_but_does_not_count_is_away(redis: RedisServer) -> None:
    async with counts_of(redis.url) as counts:
        await counts.start()
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        assert (await SharedLimiter(SLOW, 1.0, counts).take("alice")).allowed
        await until(lambda: counts.problem is not None)
        assert counts.problem is not None and "OutOfMemoryError" in counts.problem
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: counts.problem is None)


@pytest.mark.gen_test
async def test_scripts_that_redis_forgot_are_loaded_again(redis: RedisServer) -> None:
    async with counts_of(redis.url) as counts:
        limiter = SharedLimiter(SLOW, 1.0, counts)
        await limiter.take("alice")
        redis.ask("SCRIPT", "FLUSH")
        assert (await limiter.take("alice")).allowed
        assert counts.available


@pytest.mark.system
@pytest.mark.gen_test
async def test_password_is_used_and_never_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with redis_or_skip("hunter2secret") as server:
        async with counts_of(server.url) as counts:
            await counts.start()
            assert counts.problem is None
            assert (await SharedLimiter(SLOW, 1.0, counts).take("alice")).allowed
        async with counts_of(server.url.replace("hunter2secret", "hunter3secret")) as counts:
            await counts.start()
            assert counts.problem == "Redis is away (AuthenticationError): limits are counted by each process alone"
            assert "secret" not in repr(counts) + counts.problem
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "url", ["redis://:hunter2secret/x@host:6379", "redis://host:hunter2secret", "redis://[hunter2secret"]
)
def test_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RedisCounts(url)
    assert refused.value.key == "limits.storage"
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("key", [None, "a/b{c}", "\ud800", ("alice", 1), "x" * 5000, ""])
@pytest.mark.gen_test
async def test_shared_limiter_counts_any_key_under_a_short_name(redis: RedisServer, key: object) -> None:
    async with counts_of(redis.url) as counts:
        limiter = SharedLimiter(Policy("orders", 0.01, 1), 1.0, counts)
        assert [(await limiter.take(key)).allowed for _ in range(2)] == [True, False]
        assert counts.available
    names = redis.ask("KEYS", "*orders*")
    assert b"gateway:limits:" in names and len(names) < 100


@pytest.mark.gen_test
async def test_quota_is_forgotten_by_redis_when_it_is_full_again(redis: RedisServer) -> None:
    async with counts_of(redis.url) as counts:
        await SharedLimiter(SLOW, 1.0, counts).take("alice")
        names = redis.ask("KEYS", "*orders*").split(b"\r\n")[2::2]
        assert len(names) == 1
        left_ms = int(redis.ask("PTTL", names[0].decode()).strip(b":\r\n"))
        assert 0 < left_ms <= 2 * SLOW.window_seconds * 1000


@pytest.mark.gen_test
async def test_close_ends_while_redis_is_frozen_and_leaves_local_limits(redis: RedisServer) -> None:
    counts = RedisCounts(redis.url, pause_seconds=PAUSE_SECONDS)
    limiter = SharedLimiter(SLOW, 1.0, counts)
    await limiter.take("alice")
    with redis.frozen():
        await limiter.take("alice")
        async with asyncio.timeout(DEADLINE_SECONDS):
            await counts.close()
        assert (await limiter.take("alice")).allowed


def test_redis_that_is_not_installed_skips_the_test_and_fails_it_where_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(support, "PROGRAM", "redis-server-that-is-not-there")
    monkeypatch.setitem(os.environ, "REQUIRE_REDIS", "1")
    with pytest.raises(pytest.fail.Exception, match="no real Redis"), redis_or_skip():
        pass
    monkeypatch.delitem(os.environ, "REQUIRE_REDIS")
    with pytest.raises(pytest.skip.Exception, match="no real Redis"), redis_or_skip():
        pass
