"""One client as the protocol knows it: who it is, what it is subscribed to, and what that lets it do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from core.channels.names import ChannelName, parse_channel
from core.errors import RpcCode, RpcError
from core.messages.commands import OrderRules
from core.orders.private_feed import ACCOUNT_ORDERS


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What a session decides by.

    `open_views` are the channels that somebody listens to. `allows_anonymous` is false where orders need a
    token.
    """

    max_subscriptions: int
    max_views: int
    instruments: Callable[[], Mapping[str, object]]
    is_listed: Callable[[str], bool]
    has_tick: Callable[[str], bool]
    open_views: Callable[[], Collection[ChannelName]]
    orders: OrderRules
    allows_anonymous: bool = False


class Client:
    """What a connection's requests are decided by. Every refusal is an `RpcError`.

    Who the client is, the handler tells (`user_id`, `is_expired`): a token is checked outside, because its key may have to
    be fetched first. Which channels it is subscribed to, whoever performs the subscriptions remembers (`channels`, by the
    text of their names), but for `account.orders`.
    """

    __slots__ = ("channels", "hears_orders", "is_expired", "rules", "user_id")

    def __init__(self, rules: SessionRules, channels: Callable[[], Collection[str]] = lambda: ()) -> None:
        self.rules = rules
        self.channels = channels
        self.hears_orders = False
        self.user_id: str | None = None
        self.is_expired = False

    # Subscriptions.

    def admit(self, names: list[str], trades_as_objects: bool = False) -> tuple[ChannelName, ...]:
        """Check all of a request's channels."""
        rules = self.rules
        channels = tuple(self._read_channel(name, trades_as_objects) for name in names)
        self.check_room_for(names)
        views = rules.open_views()
        if len(views) + sum(channel not in views for channel in channels) > rules.max_views:
            raise RpcError(
                RpcCode.TOO_MANY_REQUESTS, f"at most {rules.max_views} distinct views are kept", {"retry_after": 5}
            )
        return channels

    def check_room_for(self, names: list[str]) -> None:
        """Whether so many more subscriptions are within the bound."""
        more = sum(not self._is_subscribed(name) for name in names)
        if len(self.channels()) + self.hears_orders + more > self.rules.max_subscriptions:
            raise RpcError(
                RpcCode.TOO_MANY_REQUESTS,
                f"a connection has at most {self.rules.max_subscriptions} subscriptions; unsubscribe first",
                {"retry_after": 1},
            )

    def _read_channel(self, name: str, trades_as_objects: bool) -> ChannelName:
        if name.startswith("account."):
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name[:80]!r}: account channels need private/subscribe")
        try:
            channel = parse_channel(name, trades_as_objects)
        except ValueError as error:
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {error}") from error
        if channel.symbol is not None and not self.rules.is_listed(channel.symbol):
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name!r}: the symbol is not listed")
        if channel.grouping is not None and channel.symbol is not None and not self.rules.has_tick(channel.symbol):
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name!r}: no tick is configured to group by; use none")
        return channel

    def drop(self, names: list[str]) -> tuple[str, ...]:
        """Those of them that it is subscribed to, and is no longer."""
        dropped = tuple(name for name in names if self._is_subscribed(name))
        if ACCOUNT_ORDERS in dropped:
            self.hears_orders = False
        return dropped

    def _is_subscribed(self, name: str) -> bool:
        return self.hears_orders if name == ACCOUNT_ORDERS else name in self.channels()

    # Who, and orders.

    def check_user(self) -> None:
        """Whether somebody is signed in."""
        if self.is_expired:
            raise RpcError(RpcCode.NOT_AUTHORISED, "the token has expired; send public/auth with another one")
        if self.user_id is None:
            raise RpcError(RpcCode.NOT_AUTHORISED, "send public/auth first")

    def check_trader(self) -> None:
        """Whether this connection may order: a user, or anybody where orders need no token."""
        if self.is_expired or not self.rules.allows_anonymous:
            self.check_user()
