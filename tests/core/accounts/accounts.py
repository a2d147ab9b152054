"""What is known of accounts, with the topic in a test's hands."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from core.accounts.account_balances import AccountBalances, Deliver
from core.accounts.balances import KnownBalances
from core.delivery.frames import Bundle
from core.errors import PoisonedRecord
from core.messages.feed_record import KeyedRecord
from core.messages.times import Times
from tests.core.fakes import Client

NOW_MS = 1_700_000_000_000


def record(user_id: str = "alice", timestamp: int | None = NOW_MS, **balances: tuple[str, str]) -> bytes:
    """Currencies with what is available and what is reserved."""
    told = {currency: {"available": one[0], "reserved": one[1]} for currency, one in balances.items()}
    return json.dumps({"user_id": user_id, "balances": told, "timestamp": timestamp}).encode()


class Accounts:
    """Four partitions, of which a test says which are `unread`; and the channel."""

    def __init__(self, deliver: Deliver | None = None) -> None:
        """`deliver` is a hub's; None: to each at once."""
        self.unread: set[int] = set()
        self.poisoned: list[tuple[str, int, int]] = []
        self.odd_times: list[tuple[str, str, int]] = []
        self.known = KnownBalances(
            Times(lambda: NOW_MS / 1000, lambda *odd: self.odd_times.append(odd)),
            is_read=lambda partition: not (self.unread if partition is None else {partition} & self.unread),
            on_change=lambda user_id: self.channel.on_change(user_id),
            on_poisoned=self._on_poisoned,
        )
        self.fails: set[object] = set()
        # What happens when these are told something.
        self.ends: dict[object, Callable[[], None]] = {}
        self.channel = AccountBalances(deliver or self._deliver, self.known.of)
        self._offset = 0

    def _on_poisoned(self, error: PoisonedRecord, partition: int, offset: int) -> None:
        self.poisoned.append((error.reason, partition, offset))

    def _deliver(self, bundle: Bundle, subscribers: Any, tag: Any) -> None:
        for subscriber in subscribers:
            if subscriber in self.fails:
                raise RuntimeError("a fault of ours")
            self.ends.get(subscriber, lambda: None)()
            subscriber.outbox.offer(bundle.plain, tag)

    def say(self, value: bytes | None, key: bytes | None = b"alice", partition: int = 0, time_ms: int = NOW_MS) -> None:
        self.known.take(KeyedRecord(partition, self._offset, time_ms, value, True).with_key(key))
        self._offset += 1

    def has(self, user_id: str = "alice") -> dict[str, tuple[str, str]]:
        return {currency: tuple(one) for currency, one in self.known.of(user_id).balances.items()}

    def listen(self, user_id: str = "alice") -> Client:
        client = Client()
        self.channel.subscribe(user_id, client.subscriber)
        return client
