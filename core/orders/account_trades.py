"""`account.trades`: a user's own fills as they come, and those that were missed (docs/contract.md#own-fills)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

import ujson

from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS, Tag
from core.delivery.subscriber import Subscriber
from core.orders.ahead import AccountPosition, Ahead
from core.orders.fills import KnownFill, OwnFills

ACCOUNT_TRADES: Final = "account.trades"
# Of a snapshot, as of the trades of a symbol.
SNAPSHOT_FILLS: Final = 100

Deliver = Callable[[Bundle, Iterable[Subscriber], Tag], None]


class AccountTrades:
    """Who is subscribed, and what they are to be told at the end of the beat."""

    def __init__(
        self,
        deliver: Deliver,
        fills: OwnFills,
        seq: Callable[[], Mapping[int, int]],
        epoch: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        *,
        waiting_fills: Callable[[], Set[tuple[int, int]]] = frozenset,
    ) -> None:
        """`deliver` is the hub's; `seq`: by partition of the market topic, up to where all fills are known; `epoch` names that
        topic's life; `clock`: seconds. `waiting_fills`: partition and offset of those of which it is not known yet whose they are.
        """
        self._waiting_fills = waiting_fills
        self._deliver = deliver
        self._fills = fills
        self.seq = seq
        self.epoch = epoch
        self.clock = clock
        self._ahead = Ahead(seq, epoch, clock)
        self._listeners: dict[str, set[Subscriber]] = {}
        self._news: dict[str, list[KnownFill]] = {}

    @property
    def listeners(self) -> int:
        """Connections that are subscribed."""
        return sum(map(len, self._listeners.values()))

    def subscribe(self, user_id: str, subscriber: Subscriber, since: AccountPosition | None = None) -> None:
        """From now on it is told of the user's fills: first the last ones, or those behind `since` if all of them are known.

        One that is ahead of this instance is told nothing before that has come as far. Harmless when repeated: it begins anew.
        """
        if self._ahead.waits(subscriber, since, lambda: self._begin(user_id, subscriber, since)):
            self._remove(user_id, subscriber)
        else:
            self._begin(user_id, subscriber, since)

    def _begin(self, user_id: str, subscriber: Subscriber, since: AccountPosition | None) -> None:
        self._tell(user_id, self._news.pop(user_id, []))  # what others are told yet is in what is known already
        seq = self.seq()
        head = b'{"epoch":' + json.dumps(self.epoch()).encode()
        if since is not None and self._is_known(user_id, since, seq):
            missed, head, tail = self._fills.since(user_id, since.positions), head + b',"recovered":true,', b"}}"
        else:
            missed, tail = self._fills.of(user_id)[-SNAPSHOT_FILLS:], b',"snapshot":true}}'
            head += b"," if since is None else b',"recovered":false,'
        self._listeners.setdefault(user_id, set()).add(subscriber)
        self._deliver(Bundle([head + _text(seq, missed, tail)], private=True), (subscriber,), EXEMPT)

    def _is_known(self, user_id: str, since: AccountPosition, seq: Mapping[int, int]) -> bool:
        positions = since.positions
        if since.epoch not in (None, self.epoch()):
            return False
        is_ahead = any(at > seq.get(partition, -1) for partition, at in positions.items())
        return not is_ahead and self._fills.has_all_since(user_id, positions, seq)

    def unsubscribe(self, user_id: str, subscriber: Subscriber) -> None:
        """It is told no more. Harmless when repeated."""
        self._ahead.forget(subscriber)
        self._remove(user_id, subscriber)

    def _remove(self, user_id: str, subscriber: Subscriber) -> None:
        listeners = self._listeners.get(user_id)
        if listeners is not None:
            listeners.discard(subscriber)
            if not listeners:
                del self._listeners[user_id]
                self._news.pop(user_id, None)

    def on_fill(self, user_id: str, fill: KnownFill) -> None:
        """There is another fill of the user's."""
        if user_id in self._listeners:
            self._news.setdefault(user_id, []).append(fill)

    def flush(self) -> None:
        """Say what came since the last call.

        But for fills whose other side may yet turn out to be the user's: `seq` counts a record once it is told whole.
        """
        self._ahead.look()
        if not self._news:
            return
        waiting = self._waiting_fills()
        later: dict[str, list[KnownFill]] = {}
        try:
            while self._news:  # one by one: where one fails the others are still to be told
                user_id, news = self._news.popitem()
                if waiting and (held := [fill for fill in news if fill.key[:2] in waiting]):
                    later[user_id] = held
                    news = [fill for fill in news if fill.key[:2] not in waiting]
                self._tell(user_id, news)
        finally:
            self._news |= later

    def _tell(self, user_id: str, news: Sequence[KnownFill]) -> None:
        if news:
            text = b"{" + _text(self.seq(), news, b"}}")
            self._deliver(Bundle([text], private=True), tuple(self._listeners[user_id]), LOSSLESS)


def seq_text(seq: Mapping[int, int]) -> str:
    """Partition to offset, as JSON text."""
    return json.dumps({str(partition): seq[partition] for partition in sorted(seq)}, separators=(",", ":"))


def fills_text(fills: Iterable[KnownFill]) -> str:
    """Fills as their owner is shown them, as JSON text with commas between."""
    text: str = ujson.dumps([one.shown() for one in fills], escape_forward_slashes=False, ensure_ascii=False)
    return text[1:-1]


def _text(seq: Mapping[int, int], fills: Iterable[KnownFill], tail: bytes) -> bytes:
    head = f'"channel_name":"{ACCOUNT_TRADES}","seq":{seq_text(seq)},"notification":{{"trades":['
    return f"{head}{fills_text(fills)}]".encode() + tail
