from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from core.access.admission import Admission, LocalTaker
from core.access.identity import Principal
from core.access.limits import Bucket, Limiter, Policy
from core.errors import Unauthorised
from tests.core.admission import NEVER, Tokens, admission, taker
from tests.core.fakes import run, turns

ALICE = Principal("alice", NEVER)


def limiter(name: str, rate_per_second: float = 1.0, burst: int = 1) -> Limiter:
    return Limiter(Policy(name, rate_per_second, burst), clock=lambda: 0.0)


# Whose a token is.


@pytest.mark.parametrize("header", ["Bearer good", "bearer good", "BEARER  good", "Bearer good "])
def test_bearer_is_read_whatever_the_case_of_its_scheme(header: str) -> None:
    assert run(admission(Tokens(good="alice")).bearer(header)) == ALICE


def test_bearer_is_nobody_without_a_header() -> None:
    assert run(admission().bearer(None)) is None


@pytest.mark.parametrize(
    "header", ["", " ", "good", "Basic good", "Bearer", "Bearer ", "Bearer bad", "Bearer good good", "Bearer\tgood"]
)
def test_header_that_is_no_good_token_is_refused(header: str) -> None:
    with pytest.raises(Unauthorised):
        run(admission(Tokens(good="alice")).bearer(header))


@pytest.mark.parametrize(
    ("header", "user_id"), [(None, None), ("Bearer good", "alice"), ("Bearer bad", None), ("Basic x", None)]
)
def test_user_of_a_header_is_nobody_where_it_is_no_good(header: str | None, user_id: str | None) -> None:
    assert run(admission(Tokens(good="alice")).user_of(header, "read")) == user_id


def test_keys_are_fetched_for_a_token_that_names_an_unknown_one() -> None:
    async def main() -> None:
        tokens = Tokens()
        tokens.fetched["fresh-1"] = ALICE
        asked = admission(tokens)
        waiting = asyncio.get_running_loop().create_task(asked.whose("fresh-1"))
        await turns()
        assert not waiting.done()
        tokens.may_fetch.set()
        assert await waiting == ALICE
        assert await asked.bearer("Bearer fresh-1") == ALICE
        assert tokens.fetches == 1
        with pytest.raises(Unauthorised):
            await asked.whose("fresh-2")

    run(main())


def test_keys_are_not_fetched_for_a_token_that_is_bad_anyway() -> None:
    tokens = Tokens()
    with pytest.raises(Unauthorised):
        run(admission(tokens).whose("bad"))
    assert tokens.fetches == 0


# How often.


def test_orders_and_cancels_are_limited_per_user_and_apart() -> None:
    async def main() -> None:
        asked = admission(orders=taker("orders", 1.0, 2), cancels=taker("cancels", 1.0, 3))
        for user_id in ("alice", "bob"):
            orders = [await asked.take_order(user_id) for _ in range(3)]
            cancels = [await asked.take_cancel(user_id) for _ in range(4)]
            assert [decision is not None and decision.allowed for decision in orders] == [True, True, False]
            assert [decision is not None and decision.allowed for decision in cancels] == [True, True, True, False]
        refused = await asked.take_order("alice")
        assert refused is not None
        assert refused.policy.name == "orders"
        assert refused.retry_after > 0

    run(main())


def test_nobodys_orders_have_no_limit_of_their_own() -> None:
    async def main() -> None:
        asked = admission(orders=taker("orders", 1.0, 1), cancels=taker("cancels", 1.0, 1))
        for _ in range(3):
            assert await asked.take_order(None) is None
            assert await asked.take_cancel(None) is None

    run(main())


def test_limits_of_an_address_are_its_own_and_of_their_kind() -> None:
    asked = admission(address_requests=limiter("requests"), address_logins=limiter("logins"))
    for address in ("192.0.2.1", "192.0.2.2"):
        assert [asked.take_request(address).allowed for _ in range(2)] == [True, False]
        assert [asked.take_login(address).allowed for _ in range(2)] == [True, False]


def test_addresses_of_one_household_share_their_limits() -> None:
    asked = admission(address_requests=limiter("requests"), address_logins=limiter("logins"))
    assert asked.take_request("2001:db8::1").allowed
    assert not asked.take_request("2001:db8::ffff:2").allowed
    assert asked.take_request("2001:db8:0:1::1").allowed


def test_connect_is_counted_against_its_address_and_then_against_all() -> None:
    asked = admission(
        address_connects=limiter("connects", 2.0, 1), connects=Bucket(Policy("connects", 1.0, 2), lambda: 0.0)
    )
    assert asked.take_connect("192.0.2.1") == 0.0
    assert 0.5 <= asked.take_connect("192.0.2.1") < 0.6, "refused for its own address, it takes nothing of all"
    assert asked.take_connect("192.0.2.2") == 0.0
    assert 1.0 <= asked.take_connect("192.0.2.3") < 1.1


def test_local_limiter_has_no_problem() -> None:
    assert LocalTaker(limiter("orders")).problem is None


# Whose address.


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ([], ["203.0.113.9"], "192.0.2.1"),
        (["192.0.2.0/24"], [], "192.0.2.1"),
        (["192.0.2.0/24"], ["203.0.113.9"], "203.0.113.9"),
        (["192.0.2.0/24"], ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["192.0.2.0/24", "203.0.113.0/24"], ["198.51.100.1", "203.0.113.9"], "198.51.100.1"),
    ],
)
def test_address_is_what_trusted_proxies_say(trusted: list[str], forwarded: list[str], address: str) -> None:
    asked = admission(trusted_proxies=tuple(map(ip_network, trusted)))
    assert asked.address_of("192.0.2.1", forwarded) == address


def test_open_connections_are_counted_by_each_admission_for_itself() -> None:
    first, second = admission(), admission()
    first.connected["192.0.2.1"] += 1
    assert isinstance(first, Admission)
    assert second.connected == {}


# Who has flooded.


@pytest.mark.parametrize("user_id", ["alice", None])
@pytest.mark.parametrize("trusts_addresses", [True, False])
def test_penalty_is_the_users_and_where_addresses_are_trusted_the_addresss(
    user_id: str | None, trusts_addresses: bool
) -> None:
    asked = admission(trusts_addresses=trusts_addresses)
    asked.penalise("2001:db8::1", user_id)
    assert (asked.penalty_of_user("alice") > 0) is (user_id is not None)
    assert asked.penalty_of_user("bob") == 0
    for address, is_same in (("2001:db8::1", True), ("2001:db8::2", True), ("2001:db8:1::1", False), ("alice", False)):
        assert (asked.penalty_of_address(address) > 0) is (trusts_addresses and is_same)
