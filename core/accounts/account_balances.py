"""`account.balances`: what a user has, and then what has changed of it (docs/contract.md#balances).

What connections of a user were told last is remembered, and what is told next is the difference. So it does not matter what
was the cause: a record, a partition that is lost, read anew or read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from core.accounts.balances import Known, balances_text, changed
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS, Tag
from core.delivery.subscriber import Subscriber
from core.errors import BalancesUnavailable
from core.messages.account_records import Balances

ACCOUNT_BALANCES: Final = "account.balances"
# Users that are told in a beat: a partition that is lost concerns all at once.
USERS_A_BEAT: Final = 100

Deliver = Callable[[Bundle, Iterable[Subscriber], Tag], None]

_HEAD: Final = b'{"channel_name":"account.balances","notification":{"balances":'
_STALE: Final = _HEAD + b'{},"time":null,"stale":true}}'


class AccountBalances:
    """Who is subscribed, and what they hold."""

    def __init__(self, deliver: Deliver, known: Callable[[str], Known]) -> None:
        """`deliver` is the hub's; `known` is what a user has now, and raises BalancesUnavailable."""
        self._deliver = deliver
        self._known = known
        self._listeners: dict[str, set[Subscriber]] = {}
        # Of each user that somebody listens for; None: that it cannot be told.
        self._told: dict[str, Balances | None] = {}
        self._to_tell: dict[str, None] = {}

    @property
    def listeners(self) -> int:
        """Connections that are subscribed."""
        return sum(map(len, self._listeners.values()))

    def subscribe(self, user_id: str, subscriber: Subscriber) -> None:
        """From now on it is told of the user's balances: first all of them. Harmless when repeated: it begins anew."""
        if user_id in self._told:
            self._tell(user_id)  # what others are told yet is in what it begins with
        known = self._now(user_id)
        self._told[user_id] = None if known is None else known.balances
        self._listeners.setdefault(user_id, set()).add(subscriber)
        self._send(_snapshot(known), (subscriber,), EXEMPT)

    def unsubscribe(self, user_id: str, subscriber: Subscriber) -> None:
        """It is told no more. Harmless when repeated."""
        listeners = self._listeners.get(user_id)
        if listeners is not None:
            listeners.discard(subscriber)
            if not listeners:
                del self._listeners[user_id], self._told[user_id]
                self._to_tell.pop(user_id, None)

    def on_change(self, user_id: str) -> None:
        """There is news of the user's."""
        if user_id in self._told:
            self._to_tell[user_id] = None

    def look_at_all(self) -> None:
        """What can be told may be another now."""
        self._to_tell |= dict.fromkeys(self._told)

    def flush(self) -> bool:
        """Say what has changed since the last call, to some at a time; whether there are more."""
        for user_id in tuple(islice(self._to_tell, USERS_A_BEAT)):
            if user_id in self._to_tell:  # to tell one may end the connection of another
                del self._to_tell[user_id]  # one by one: where one fails the others are still to be told
                self._tell(user_id)
        return bool(self._to_tell)

    def _now(self, user_id: str) -> Known | None:
        try:
            return self._known(user_id)
        except BalancesUnavailable:
            return None

    def _tell(self, user_id: str) -> None:
        known, before = self._now(user_id), self._told[user_id]
        self._told[user_id] = None if known is None else known.balances
        if known is None or before is None:
            if known is not None or before is not None:
                self._send(_snapshot(known), tuple(self._listeners[user_id]), LOSSLESS)
            return
        news = changed(before, known.balances)
        if news:
            self._send(_text(news, known.time_ms, b"}}"), tuple(self._listeners[user_id]), LOSSLESS)

    def _send(self, text: bytes, subscribers: Iterable[Subscriber], tag: Tag) -> None:
        self._deliver(Bundle([text], private=True), subscribers, tag)


def _snapshot(known: Known | None) -> bytes:
    return _STALE if known is None else _text(known.balances, known.time_ms, b',"snapshot":true}}')


def _text(balances: Balances, time_ms: int | None, tail: bytes) -> bytes:
    time_text = "null" if time_ms is None else repr(time_ms / 1000)
    return _HEAD + f'{balances_text(balances)},"time":{time_text}'.encode() + tail
