"""`status`: the state of the exchange, each change of it, and to each connection when it is going to be closed
(docs/contract.md#status).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from core.control.exchange_status import ExchangeStatus
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS, Tag
from core.delivery.subscriber import Subscriber

Deliver = Callable[[Bundle, Iterable[Subscriber], Tag], None]

_HEAD: Final = b'{"channel_name":"status","notification":'


class StatusChannel:
    """Who is subscribed. `status` is what they are told."""

    def __init__(self, deliver: Deliver, status: ExchangeStatus) -> None:
        """`deliver` is the hub's."""
        self._deliver = deliver
        self.status = status
        self._listeners: dict[Subscriber, None] = {}
        self._body = status.body
        self._told = status.text()

    @property
    def listeners(self) -> int:
        """Connections that are subscribed."""
        return len(self._listeners)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell it of the state now, and of what it becomes. Harmless when repeated: it begins anew."""
        self._listeners[subscriber] = None
        self._send(self._told, (subscriber,), EXEMPT)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """It is told no more. Harmless when repeated."""
        self._listeners.pop(subscriber, None)

    def flush(self) -> None:
        """Say what the state has become since the last call."""
        self.status.look()
        if self.status.body is self._body:
            return
        self._body, before, self._told = self.status.body, self._told, self.status.text()
        if self._told != before and self._listeners:
            self._send(self._told, tuple(self._listeners), LOSSLESS)

    def tell_closing(self, subscriber: Subscriber, in_seconds: float) -> None:
        """It is going to be closed in about so long; told if it is subscribed."""
        if subscriber in self._listeners:
            self._send(b'{"closing_in_ms":%d}' % max(0, round(in_seconds * 1000)), (subscriber,), LOSSLESS)

    def _send(self, notification: bytes, subscribers: Iterable[Subscriber], tag: Tag) -> None:
        self._deliver(Bundle([_HEAD + notification + b"}"]), subscribers, tag)
