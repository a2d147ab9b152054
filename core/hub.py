"""Who gets what: one global set of subscribers, and per channel the bytes that all of them get.

A tick's events become one run of frames per channel, built once however many read it, and each connection gets it in
one write. Joining a channel and being sent what is said on it happen in the same loop turn as the fold of the records,
so a snapshot and the events after it meet without a gap or a repeat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from core.channels import Channel
from core.errors import CloseCode
from core.frames import text_frame
from core.market import Market, PublicEvent
from core.order_book import OrderBook
from core.outbox import Offer, Outbox


class News(NamedTuple):
    """One public event and where on the topic it stands."""

    event: PublicEvent
    partition: int
    offset: int


class Subscriber:
    """One connection as the hub sees it: where its frames go and what it listens to."""

    __slots__ = ("channels", "end", "on_stream", "outbox")

    def __init__(self, outbox: Outbox, end: Callable[[CloseCode, str], None]) -> None:
        """`end` closes the connection with a code and a reason."""
        self.outbox = outbox
        self.end = end
        self.on_stream = False
        self.channels: set[str] = set()


class _Listeners:
    """A channel's subscribers; the new ones have not had their first notification yet, which names the epoch.

    A new one's value says whether it also has to be told that nothing was recovered.
    """

    __slots__ = ("channel", "new", "settled")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.settled: set[Subscriber] = set()
        self.new: dict[Subscriber, bool] = {}

    def __bool__(self) -> bool:
        return bool(self.settled or self.new)


class Hub:
    """The subscriber set and the channels that have subscribers."""

    def __init__(self, market: Market, epoch: Callable[[], str], on_sent: Callable[[int, int], None]) -> None:
        """`on_sent` is told how many deliveries, and how many bytes in all, a piece of news made."""
        self._market = market
        self._epoch = epoch
        self._on_sent = on_sent
        self.subscribers: set[Subscriber] = set()
        self._stream: set[Subscriber] = set()
        self._channels: dict[str, _Listeners] = {}
        self._served: set[int] = set()

    # Membership.

    def add(self, subscriber: Subscriber, stream: bool) -> None:
        """A connection opened; on the market-data stream it gets a snapshot of every known book at once."""
        self.subscribers.add(subscriber)
        if stream:
            subscriber.on_stream = True
            self._stream.add(subscriber)
            frames = b"".join(text_frame(book.snapshot_event()) for book in self._shown())
            if frames:
                self._deliver(frames, (subscriber,), exempt=True)

    def remove(self, subscriber: Subscriber) -> None:
        """A connection is gone. Harmless when it has been removed already."""
        self.subscribers.discard(subscriber)
        self._stream.discard(subscriber)
        for name in tuple(subscriber.channels):
            self._leave(subscriber, name)

    def subscribe(
        self, subscriber: Subscriber, channels: Iterable[Channel], since: Mapping[str, object] | None = None
    ) -> None:
        """Add channels and send each one's snapshot. The first time, the market-data stream ends for good."""
        self.end_stream(subscriber)
        for channel in channels:
            listeners = self._channels.get(channel.name)
            if listeners is None:
                listeners = self._channels[channel.name] = _Listeners(channel)
            subscriber.channels.add(channel.name)
            listeners.settled.discard(subscriber)
            # No history is kept to resume from, so a client that asks for it is told so.
            listeners.new[subscriber] = since is not None and channel.name in since
            self._send_snapshots(listeners, self._shown(), (subscriber,))

    def end_stream(self, subscriber: Subscriber) -> None:
        """Narrow a connection to its channels."""
        subscriber.on_stream = False
        self._stream.discard(subscriber)

    def unsubscribe(self, subscriber: Subscriber, names: Iterable[str]) -> list[str]:
        """Drop channels; return those that were subscribed, in the order given."""
        dropped = [name for name in names if name in subscriber.channels]
        for name in dropped:
            self._leave(subscriber, name)
        return dropped

    def _leave(self, subscriber: Subscriber, name: str) -> None:
        subscriber.channels.discard(name)
        listeners = self._channels.get(name)
        if listeners is None:
            return
        listeners.settled.discard(subscriber)
        listeners.new.pop(subscriber, None)
        if not listeners:
            del self._channels[name]

    # What is said.

    def tell(self, subscriber: Subscriber, frame: bytes) -> None:
        """An answer to one subscriber, in its place among what it is sent."""
        self._deliver(frame, (subscriber,))

    def publish(self, news: list[News]) -> None:
        """Say what one drain brought, to everybody concerned, in the order of the records."""
        if self._stream:
            self._deliver(b"".join([text_frame(item.event.payload) for item in news]), self._stream)
        if not self._channels:
            return
        by_symbol: dict[str, list[News]] = {}
        for item in news:
            by_symbol.setdefault(item.event.symbol, []).append(item)
        for symbol, items in by_symbol.items():
            listeners = self._channels.get(f"events.{symbol}")
            if listeners:
                self._say(listeners, items)
        listeners = self._channels.get("events")
        if listeners:
            self._say(listeners, news)

    def serve(self, partitions: list[int]) -> None:
        """These partitions are read to their end: show their books to everyone who waits for them."""
        self._served.update(partitions)
        books = self._market.known_books(partitions)
        if not books:
            return
        if self._stream:
            self._deliver(b"".join([text_frame(book.snapshot_event()) for book in books]), self._stream, exempt=True)
        for listeners in tuple(self._channels.values()):
            self._send_snapshots(listeners, books, (*listeners.settled, *listeners.new))

    def forget(self, partition: int) -> None:
        """A partition is no longer read: its books are not shown until it is served again."""
        self._served.discard(partition)

    def _shown(self) -> list[OrderBook]:
        return self._market.known_books(self._served)

    def _say(self, listeners: _Listeners, items: list[News]) -> None:
        texts = [self._notification(listeners, item.partition, item.offset, item.event.payload) for item in items]
        if listeners.settled:
            self._deliver(b"".join([text_frame(b"{" + text) for text in texts]), listeners.settled)
        self._greet(listeners, texts, tuple(listeners.new))

    def _send_snapshots(self, listeners: _Listeners, books: list[OrderBook], audience: tuple[Subscriber, ...]) -> None:
        symbol = listeners.channel.symbol
        texts = []
        for book in books:
            if symbol is None or book.symbol == symbol:
                partition = self._market.partition_of[book.symbol]
                # The partition's last offset, not the symbol's: a sequence that many symbols share may not go back.
                offset = self._market.folded[partition]
                texts.append(self._notification(listeners, partition, offset, book.snapshot_event(), snapshot=True))
        if not texts:
            return
        known = [subscriber for subscriber in audience if subscriber not in listeners.new]
        if known:
            self._deliver(b"".join([text_frame(b"{" + text) for text in texts]), known, exempt=True)
        self._greet(listeners, texts, tuple(s for s in audience if s in listeners.new), exempt=True)

    def _greet(
        self, listeners: _Listeners, texts: list[bytes], audience: tuple[Subscriber, ...], exempt: bool = False
    ) -> None:
        """Say it to new subscribers: the same, but their first notification names the epoch."""
        for unrecovered in (False, True):
            concerned = [subscriber for subscriber in audience if listeners.new.get(subscriber) is unrecovered]
            if concerned:
                head = b'{"epoch":' + json.dumps(self._epoch()).encode() + b","
                if unrecovered:
                    head += b'"recovered":false,'
                frames = [text_frame(head + texts[0]), *(text_frame(b"{" + text) for text in texts[1:])]
                self._deliver(b"".join(frames), concerned, exempt)
        for subscriber in audience:
            if listeners.new.pop(subscriber, None) is not None and subscriber in self.subscribers:
                listeners.settled.add(subscriber)

    @staticmethod
    def _notification(
        listeners: _Listeners, partition: int, offset: int, payload: bytes, snapshot: bool = False
    ) -> bytes:
        """A notification's text without its opening brace, so that other members can be put before it."""
        spans = b"" if listeners.channel.symbol is not None else b'"partition":%d,' % partition
        return b'"channel_name":"%b","seq":%d,%b"notification":{"event":%b%b}}' % (
            listeners.channel.name.encode(),
            offset,
            spans,
            payload,
            b',"snapshot":true' if snapshot else b"",
        )

    def _deliver(self, frames: bytes, audience: Iterable[Subscriber], exempt: bool = False) -> None:
        lost: list[Subscriber] = []
        count = 0
        for subscriber in audience:
            outcome = subscriber.outbox.offer(frames, exempt)
            if outcome is Offer.ACCEPTED:
                count += 1
            else:
                lost.append(subscriber)
        self._on_sent(count, count * len(frames))
        for subscriber in lost:
            self.remove(subscriber)
            if not subscriber.outbox.closed:
                subscriber.end(CloseCode.SLOW_CONSUMER, "slow consumer")
