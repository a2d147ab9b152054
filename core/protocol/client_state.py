"""One client as the protocol knows it: who it is, what it is subscribed to, and what that lets it do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from core.access.scopes import EVERYTHING, check_scope
from core.channels.names import STATUS, ChannelName, parse_channel
from core.errors import NoAmends, RpcCode, RpcError
from core.messages.order_rules import OrderRules
from core.orders.order import Order


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What a session decides by.

    `open_views` are the channels that somebody listens to. `allows_anonymous` is false where orders need a
    token, `has_balances` where there is no account topic. `ticker` and `top_of_book` are JSON texts, None of a symbol of which nothing is known. `new_session_id` makes 12
    hexadecimal digits that no other session has. `now_us` is the time in microseconds since the Unix epoch.
    """

    max_subscriptions: int
    max_views: int
    instruments: Callable[[], Mapping[str, object]]
    is_listed: Callable[[str], bool]
    has_tick: Callable[[str], bool]
    open_views: Callable[[], Collection[ChannelName]]
    orders: OrderRules
    allows_anonymous: bool = False
    has_balances: bool = False
    find_order: Callable[[str], Order | None] = lambda _order_id: None
    ticker: Callable[[str], str | None] = lambda _symbol: None
    top_of_book: Callable[[str], str | None] = lambda _symbol: None
    messages_per_second: int = 0
    new_session_id: Callable[[], str] = lambda: secrets.token_hex(6)
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000


class ClientState:
    """What a connection's requests are decided by. Every refusal is an `RpcError`.

    Who the client is, the handler tells (`user_id`, `is_expired`): a token is checked outside, because its key may have to
    be fetched first. Which channels it is subscribed to, whoever performs the subscriptions remembers (`channels`, by the
    text of their names), but for those of the account (`account_channels`) and that of the exchange's status (`hears_status`).
    """

    __slots__ = (
        "_session_id",
        "account_channels",
        "allowed",
        "cancels_on_disconnect",
        "channels",
        "hears_status",
        "is_expired",
        "rules",
        "user_id",
    )

    def __init__(self, rules: SessionRules, channels: Callable[[], Collection[str]] = lambda: ()) -> None:
        self.rules = rules
        self.channels = channels
        self.account_channels: set[str] = set()
        self.hears_status = False
        self.user_id: str | None = None
        # What its token allows.
        self.allowed = EVERYTHING
        self.is_expired = False
        self.cancels_on_disconnect = False
        self._session_id: str | None = None

    @property
    def session_id(self) -> str:
        """What tells this session's own names of things from another's: 12 hexadecimal digits."""
        if self._session_id is None:
            self._session_id = self.rules.new_session_id()
        return self._session_id

    # Subscriptions.

    def check_channels(self, names: list[str], trades_as_objects: bool = False) -> tuple[ChannelName, ...]:
        """Check all of a request's channels; those that the market's hub is asked for."""
        rules = self.rules
        channels = tuple(self._read_channel(name, trades_as_objects) for name in names if name != STATUS)
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
        if self.subscription_count + more > self.rules.max_subscriptions:
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

    def unsubscribe(self, names: list[str]) -> tuple[str, ...]:
        """Those of them that it was subscribed to. The handler takes it off the channels; of its orders it hears no more."""
        dropped = tuple(name for name in names if self._is_subscribed(name))
        self.account_channels.difference_update(dropped)
        if STATUS in dropped:
            self.hears_status = False
        return dropped

    @property
    def subscription_count(self) -> int:
        """To how many channels it is subscribed."""
        return len(self.channels()) + len(self.account_channels) + self.hears_status

    def subscriptions(self) -> Iterator[str]:
        """Everything that it is subscribed to."""
        return chain(self.channels(), self.account_channels, (STATUS,) if self.hears_status else ())

    def _is_subscribed(self, name: str) -> bool:
        return name in self.account_channels or name in self.channels() or (self.hears_status and name == STATUS)

    # Who, and orders.

    def check_user(self, needed: str) -> None:
        """Whether somebody is signed in whose token allows what needs this word of a scope."""
        self._check_signed_in()
        check_scope(self.allowed, needed)

    def _check_signed_in(self) -> None:
        if self.is_expired:
            raise RpcError(RpcCode.NOT_AUTHORISED, "the token has expired; send public/auth with another one")
        if self.user_id is None:
            raise RpcError(RpcCode.NOT_AUTHORISED, "send public/auth first")

    def check_amends(self) -> None:
        """Whether orders can be amended here at all."""
        reason = self.rules.orders.why_no_amends()
        if reason is not None:
            raise NoAmends(reason)

    def check_trader(self, needed: str) -> None:
        """Whether this connection may do what needs this word: a user, or anybody where orders need no token."""
        self.check_orders()
        check_scope(self.allowed, needed)

    def check_orders(self) -> None:
        """Whether this connection may order at all, whatever its token allows."""
        if self.is_expired or not self.rules.allows_anonymous:
            self._check_signed_in()
