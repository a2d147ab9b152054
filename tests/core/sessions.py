"""Sessions as tests need them: whose they are, a message in, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from decimal import Decimal
from typing import Any

from core.channels.names import STATUS, parse_channel
from core.errors import CODES
from core.messages.model import Instrument
from core.messages.order_rules import OrderRules
from core.protocol.client_state import SessionRules
from core.protocol.effects import Effect, Reply, StampedId, Subscribe, SubscribeAccount, Unsubscribe
from core.protocol.session import Session

INSTRUMENTS = {"instruments": [{"symbol": "KCN/EUR", "tick": "0.01", "lot": None}]}
MAX_SUBSCRIPTIONS = 3
SESSION_ID = "0123456789ab"
NOW_US = 1_700_000_000_000_000
DOCUMENTED = {meaning.code for meaning in CODES}


ORDER_RULES = OrderRules((Instrument("KCN/EUR", Decimal("0.01"), Decimal("0.1"), Decimal("0.1")),), None, amends=True)


NO_AMENDS = replace(ORDER_RULES, amends=False)


class PerformedSession(Session):
    """A session whose subscriptions are performed at once, as the handler does."""

    def __init__(self, rules: SessionRules) -> None:
        self.performed: set[str] = set()
        super().__init__(rules, lambda: self.performed)

    @property
    def subscribed(self) -> set[str]:
        return self.performed | self.account_channels | ({STATUS} if self.hears_status else set())

    def receive(self, message: str | bytes) -> list[Effect]:
        effects = super().receive(message)
        for effect in effects:
            if isinstance(effect, Subscribe):
                self.performed.update(channel.text for channel in effect.channels)
                self.hears_status = self.hears_status or effect.status
            elif isinstance(effect, SubscribeAccount):
                self.account_channels.update(effect.names)
            elif isinstance(effect, Unsubscribe):
                self.performed.difference_update(effect.names)
        return effects


def now_us() -> int:
    return NOW_US


def stamped(request_id: object) -> StampedId:
    """The id of a request for orders that has just come."""
    return StampedId(request_id, NOW_US, now_us)


def new_session(
    views: Collection[str] = (), max_views: int = 1000, allows_anonymous: bool = True, orders: OrderRules = ORDER_RULES
) -> PerformedSession:
    """`views` are listened to by others; where no anonymous orders are allowed, orders need a token."""
    listened = {parse_channel(view) for view in views}
    rules = SessionRules(
        max_subscriptions=MAX_SUBSCRIPTIONS,
        max_views=max_views,
        instruments=lambda: INSTRUMENTS,
        is_listed=lambda symbol: not symbol.startswith("UNLISTED"),
        has_tick=lambda symbol: not symbol.startswith("NOTICK"),
        open_views=lambda: listened,
        orders=orders,
        allows_anonymous=allows_anonymous,
        new_session_id=lambda: SESSION_ID,
        now_us=now_us,
    )
    return PerformedSession(rules)


def ask(session: Session, method: object, params: object = None, request_id: object = 1) -> list[Effect]:
    return session.receive(json.dumps({"id": request_id, "method": method, "params": params}))


def only_reply(effects: list[Effect]) -> dict[str, Any]:
    [reply] = [effect for effect in effects if isinstance(effect, Reply)]
    message: dict[str, Any] = json.loads(reply.text, parse_float=Decimal)
    assert reply.is_refusal is ("error" in message)
    stamps = [message.pop(name) for name in ("usIn", "usOut") if name in message]
    assert stamps in ([], [NOW_US, NOW_US])
    assert set(message) in ({"id", "result"}, {"id", "error"})
    return message


def error_of(effects: list[Effect]) -> tuple[int, str]:
    assert len(effects) == 1, "a refusal changes nothing"
    error = only_reply(effects)["error"]
    return error["code"], error["message"]


LIMIT = {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0", "client_order_id": "my-1"}
ORDER_ID = "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"

# Orders may be anybody's, or need a token, which may be there or may have expired.
ANYBODY, STRANGER, USER, EXPIRED, EXPIRED_ANYBODY = "anybody", "stranger", "user", "expired", "expired, anybody"


def session_of(who: str, orders: OrderRules = ORDER_RULES) -> PerformedSession:
    session = new_session(allows_anonymous=who in (ANYBODY, EXPIRED_ANYBODY), orders=orders)
    if who not in (ANYBODY, STRANGER):
        session.user_id = "alice"
        session.is_expired = who in (EXPIRED, EXPIRED_ANYBODY)
    return session


PRIVATE: list[tuple[str, dict[str, Any]]] = [
    ("private/subscribe", {"channels": ["account.orders"]}),
    ("private/place_order", LIMIT),
    ("private/cancel_order", {"order_id": ORDER_ID}),
    ("private/amend_order", {"order_id": ORDER_ID, "price": "1"}),
    ("private/batch", {"requests": [{"method": "place", "params": LIMIT}]}),
    ("private/cancel_all", {}),
    ("private/set_cancel_on_disconnect", {"enabled": True}),
]


def older_reply(effects: list[Effect]) -> dict[str, Any]:
    [reply] = effects
    assert isinstance(reply, Reply)
    message: dict[str, Any] = json.loads(reply.text)
    assert reply.is_refusal is not message["success"]
    return message
