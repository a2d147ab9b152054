"""Whose a connection is, and until when."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from core.access.identity import Principal
from core.access.scopes import READ, no_scope
from core.delivery.subscriber import Subscriber
from core.errors import RpcCode, RpcError
from core.orders.private_feed import PrivateFeed
from core.protocol.client_state import ClientState
from core.protocol.effects import Connection, Reply

log = logging.getLogger("gateway.ws")

AUTH_EXPIRED = Reply(b'{"type":"auth_status","status":"expired"}')
MAX_WAIT_SECONDS = 3600.0


class ConnectionIdentity:
    """Who signed in. A connection stays its first user's, whose token may expire and be renewed."""

    __slots__ = ("_client", "_clock", "_connection", "_number", "_principal", "_private", "_subscriber", "_timer")

    def __init__(
        self,
        client: ClientState,
        private: PrivateFeed,
        subscriber: Subscriber,
        connection: Connection,
        number: int,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is the time in seconds since the Unix epoch, `number` the connection's, for the log."""
        self._client = client
        self._private = private
        self._subscriber = subscriber
        # None once it has left.
        self._connection: Connection | None = connection
        self._number = number
        self._clock = clock
        self._principal: Principal | None = None
        self._timer: asyncio.TimerHandle | None = None

    def sign_in(self, principal: Principal) -> None:
        """From now on it is this user's, and may what this token allows.

        Raises RpcError if it is another's, InsufficientScope if the token allows nothing.
        """
        user_id = principal.user_id
        if self._principal is not None and user_id != self._principal.user_id:
            raise RpcError(RpcCode.NOT_AUTHORISED, "this connection is another user's; open one of your own")
        if not principal.allowed:
            raise no_scope()
        self._principal = principal
        self._client.user_id = user_id
        self._client.allowed = principal.allowed
        self._client.is_expired = False
        if READ in principal.allowed:
            self._private.join(user_id, self._subscriber)
        else:
            self._end_private(user_id)
        self._stop_waiting()
        self._wait_for_expiry()

    def leave(self) -> None:
        """The connection is over. Harmless when repeated."""
        self._connection = None
        self._stop_waiting()
        if self._principal is not None:
            self._private.leave(self._principal.user_id, self._subscriber)

    def _end_private(self, user_id: str) -> None:
        """A token that does not allow to read ends what an earlier one had subscribed to, and the client is told."""
        ended = sorted(self._client.account_channels)
        self._client.account_channels.clear()
        self._private.leave(user_id, self._subscriber)
        if ended and self._connection is not None:
            told = {"type": "auth_status", "status": "narrowed", "channels": ended}
            self._connection.tell(Reply(json.dumps(told, separators=(",", ":")).encode()))

    def _wait_for_expiry(self) -> None:
        assert self._principal is not None
        # By the wall clock, which may be set: not further ahead than an hour, and then looked at again.
        seconds = self._principal.expires_at - self._clock()
        if seconds <= 0:
            self._expire(self._principal.user_id)
            return
        later = asyncio.get_running_loop().call_later
        self._timer = later(min(seconds, MAX_WAIT_SECONDS), self._wait_for_expiry)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, user_id: str) -> None:
        """What is private ends, and the client is told; what is public stays, and so does cancel on disconnect."""
        self._client.is_expired = True
        self._client.account_channels.clear()
        self._private.leave(user_id, self._subscriber)
        if self._connection is not None:
            self._connection.tell(AUTH_EXPIRED)
        log.info("client %d: its token has expired", self._number)
