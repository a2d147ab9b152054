"""Whose a connection is, and until when: by a wall clock in the test's hands, on a loop in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from core.access.identity import Principal
from core.errors import CloseCode, RequestError, RpcCode
from core.orders.private_feed import ACCOUNT_ORDERS
from core.protocol.connection_identity import AUTH_EXPIRED, MAX_WAIT_SECONDS, ConnectionIdentity
from core.protocol.effects import Reply
from tests.core.fakes import Client, run
from tests.core.sessions import new_session
from tests.core.trading import Trade

NEVER = float("inf")


class Identified:
    """A connection's identity, what it was told, and a wall clock that goes with the loop unless it is set."""

    def __init__(self) -> None:
        self.private = Trade().private
        self.client = new_session()
        self.told: list[Reply] = []
        self.loop = asyncio.get_running_loop()
        self.set_ahead = 0.0
        self.identity = ConnectionIdentity(
            self.client, self.private, Client().subscriber, self, 7, lambda: self.loop.time() + self.set_ahead
        )

    def tell(self, reply: Reply) -> None:
        self.told.append(reply)

    def end(self, code: CloseCode, reason: str) -> None:
        raise AssertionError("a connection whose token has expired stays open")

    def sign_in(self, seconds: float, user_id: str = "alice") -> None:
        """With a token that is good for so long."""
        self.identity.sign_in(Principal(user_id, self.loop.time() + self.set_ahead + seconds))

    @property
    def state(self) -> tuple[str | None, bool, int]:
        """The user, whether the token has expired, and connections that are told of the user's orders."""
        return self.client.user_id, self.client.is_expired, self.private.connections


def test_connection_is_its_users_until_the_token_expires() -> None:
    async def main() -> None:
        one = Identified()
        one.sign_in(10)
        one.client.receive('{"id":1,"method":"private/subscribe","params":{"channels":["account.orders"]}}')
        one.client.receive('{"id":2,"method":"public/subscribe","params":{"channels":["events"]}}')
        assert one.client.subscribed == {ACCOUNT_ORDERS, "events"}
        await asyncio.sleep(9.9)
        assert (one.state, one.told) == (("alice", False, 1), [])
        await asyncio.sleep(0.2)
        assert (one.state, one.told) == (("alice", True, 0), [AUTH_EXPIRED])
        assert one.client.subscribed == {"events"}, "what is public stays"

    run(main())


def test_token_that_has_expired_by_now_is_told_at_once() -> None:
    async def main() -> None:
        one = Identified()
        one.sign_in(0)
        assert (one.state, one.told) == (("alice", True, 0), [AUTH_EXPIRED])

    run(main())


def test_token_is_renewed_before_its_end_and_after_it() -> None:
    async def main() -> None:
        one = Identified()
        one.sign_in(10)
        await asyncio.sleep(5)
        one.sign_in(10)
        await asyncio.sleep(9)
        assert (one.state, one.told) == (("alice", False, 1), []), "the first one's end is none any more"
        await asyncio.sleep(2)
        assert one.told == [AUTH_EXPIRED]
        one.sign_in(10)
        assert one.state == ("alice", False, 1)
        await asyncio.sleep(11)
        assert (one.state, one.told) == (("alice", True, 0), [AUTH_EXPIRED] * 2)

    run(main())


def test_connection_stays_its_first_users_even_when_the_token_has_expired() -> None:
    async def main() -> None:
        one = Identified()
        one.sign_in(10)
        for _ in range(2):
            before = one.state
            with pytest.raises(RequestError) as refused:
                one.sign_in(100, "bob")
            assert refused.value.code is RpcCode.NOT_AUTHORISED
            assert one.state == before
            await asyncio.sleep(20)

    run(main())


def test_expiry_goes_by_the_wall_clock_even_if_that_is_set() -> None:
    async def main() -> None:
        one = Identified()
        one.sign_in(100_000)
        one.set_ahead = 100_001
        await asyncio.sleep(MAX_WAIT_SECONDS + 1)
        assert one.told == [AUTH_EXPIRED]

    run(main())


def test_token_that_never_ends_is_no_trouble() -> None:
    async def main() -> None:
        one = Identified()
        one.sign_in(NEVER)
        await asyncio.sleep(10 * MAX_WAIT_SECONDS)
        assert (one.state, one.told) == (("alice", False, 1), [])

    run(main())


def test_connection_that_has_left_is_nobodys_and_is_told_nothing() -> None:
    async def main() -> None:
        Identified().identity.leave()  # nobody has signed in
        one = Identified()
        one.sign_in(10)
        for _ in range(2):
            one.identity.leave()
            assert one.private.connections == 0
        await asyncio.sleep(20)
        assert (one.told, one.client.is_expired) == ([], False)

    run(main())
