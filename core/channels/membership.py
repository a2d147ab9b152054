"""Who is there: connections, the market-data stream, and who is subscribed to which channel. Nothing is sent from here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from core.channels.channel import Channel
from core.channels.kinds import make_channel
from core.channels.lossless_channels import LosslessChannel
from core.channels.names import ChannelName
from core.channels.schedule import Schedule
from core.channels.subscription import Listener, Subscription
from core.delivery.subscriber import Crowd, Subscriber
from core.market.market import Market

# A connection that is gone leaves so few channels at once, and more of them one by one (`close_next`).
LEFT_AT_ONCE: Final = 64

Key = TypeVar("Key")
Value = TypeVar("Value")


class Membership:
    """A subscription is remembered once, and a channel exists while somebody is subscribed to it.

    `subscribers` are all connections, `stream` those on the market-data stream; `channels` are all channels, and
    `channels_of` those of a symbol (or, None, of all symbols), `lossless_of` those of them that leave nothing out. `unmarked`
    are conflatable channels of a symbol that its next event makes dirty; those of them that are so already may be left out.
    `overviews` are the conflatable ones of all symbols.
    """

    def __init__(self, market: Market, schedule: Schedule, clock: Callable[[], float]) -> None:
        self._market = market
        self._schedule = schedule
        self._clock = clock
        self._listeners: dict[Subscriber, Listener] = {}
        self._counts: Counter[str] = Counter()
        self.subscribers: set[Subscriber] = set()
        self.stream = Crowd()
        # Who is about to join the stream, and the symbols of which it has not been sent the book yet.
        self.joining_stream: dict[Subscriber, dict[str, None]] = {}
        self.channels: dict[ChannelName, Channel] = {}
        self.channels_of: dict[str | None, dict[ChannelName, Channel]] = {}
        self.lossless_of: dict[str | None, dict[ChannelName, LosslessChannel]] = {}
        # Those of connections that are gone which have many subscriptions left.
        self._gone: dict[Listener, None] = {}
        # Channels that are over, and hold what is not let go of in a moment.
        self.unheard: deque[Channel] = deque()
        self.unmarked: dict[str | None, dict[Channel, None]] = {}
        self.overviews: dict[ChannelName, Channel] = {}

    def remove(self, subscriber: Subscriber) -> None:
        """A connection is gone. Harmless when it has been removed already."""
        self.subscribers.discard(subscriber)
        self.end_stream(subscriber)
        listener = self._listeners.get(subscriber)
        if listener is None or listener in self._gone:
            return
        if len(listener.subscriptions) > LEFT_AT_ONCE:
            self._gone[listener] = None
            return
        for subscription in tuple(listener.subscriptions.values()):
            self._leave(subscription)
        del self._listeners[subscriber]

    def end_stream(self, subscriber: Subscriber) -> None:
        """It gets its channels, and no more than those."""
        self.stream.discard(subscriber)
        self.joining_stream.pop(subscriber, None)

    def listener(self, subscriber: Subscriber) -> Listener | None:
        """A connection's subscriptions; None if it has none."""
        return self._listeners.get(subscriber)

    def subscription(self, subscriber: Subscriber, text: str) -> Subscription | None:
        """A connection's subscription to a channel, by the text of its name."""
        listener = self._listeners.get(subscriber)
        return listener.subscriptions.get(text) if listener is not None else None

    def on(self, channel: Channel, crowd: Iterable[Subscriber]) -> list[Subscription]:
        """The subscriptions of some who listen to a channel."""
        text = channel.name.text
        return [self._listeners[subscriber].subscriptions[text] for subscriber in crowd]

    def counts(self) -> dict[str, int]:
        """How many subscriptions there are of each kind of channel, and of the market-data stream."""
        return {**self._counts, "stream": len(self.stream) + len(self.joining_stream)}

    def await_news(self, channel: Channel) -> None:
        """The next event of a conflatable channel's symbol makes it dirty. An overview is touched instead."""
        if channel.is_overview:
            return
        unmarked = self.unmarked.get(channel.name.symbol)
        if unmarked is None:
            unmarked = self.unmarked[channel.name.symbol] = {}
        unmarked[channel] = None

    def join(self, subscriber: Subscriber, name: ChannelName) -> Subscription:
        """A new subscription; one to a channel of the same text, in whichever shape of trades, ends."""
        channel = self._open(name)
        listener = self._listeners.get(subscriber)
        if listener is None:
            listener = self._listeners[subscriber] = Listener(subscriber)
        before = listener.subscriptions.get(name.text)
        if before is not None:
            self._leave(before, keep=channel)
        self._counts[name.kind] += 1
        subscription = Subscription(listener, channel)
        subscription.begins = before is None or before.begins
        return subscription

    def leave(self, subscriber: Subscriber, texts: Iterable[str]) -> list[str]:
        """End subscriptions by the text of their channels' names; return those that there were, in the order given."""
        listener = self._listeners.get(subscriber)
        if listener is None:
            return []
        dropped = [text for text in texts if text in listener.subscriptions]
        for text in dropped:
            self._leave(listener.subscriptions[text])
        if not listener.subscriptions and not listener.held:
            del self._listeners[subscriber]
        return dropped

    def _open(self, name: ChannelName) -> Channel:
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = make_channel(name, self._market)
            self.channels_of.setdefault(name.symbol, {})[name] = channel
            if isinstance(channel, LosslessChannel):
                self.lossless_of.setdefault(name.symbol, {})[name] = channel
            else:
                self.await_news(channel)
            if channel.is_overview:
                self.overviews[name] = channel
            is_unread = not self._market.partitions.unread.isdisjoint(channel.partitions())
            channel.stale = not channel.lossless and (not channel.is_fresh() or is_unread)
            channel.said_at = self._clock()
            self._schedule.schedule(channel, channel.said_at)
        return channel

    def _leave(self, subscription: Subscription, keep: Channel | None = None) -> None:
        subscription.leave()
        channel = subscription.channel
        name = channel.name
        self._counts[name.kind] -= 1
        if channel is not keep and not channel.has_subscribers():
            del self.channels[name]
            _take_out(self.channels_of, name.symbol, name)
            _take_out(self.lossless_of, name.symbol, name)
            _take_out(self.unmarked, name.symbol, channel)
            self.overviews.pop(name, None)
            self.unheard.append(channel)

    def close_next(self) -> bool:
        """Let go of one of the channels that nobody listens to any more, or of one that a connection that is gone listened
        to; False if there is none.
        """
        if self.unheard:
            self.unheard.popleft().close()
            return True
        for listener in self._gone:
            for subscription in listener.subscriptions.values():
                self._leave(subscription)
                return True
            del self._gone[listener], self._listeners[listener.subscriber]
            return True
        return False

    @property
    def has_to_close(self) -> bool:
        """Whether `close_next` has something to do."""
        return bool(self.unheard or self._gone)


def _take_out(of_symbol: dict[str | None, dict[Key, Value]], symbol: str | None, key: Key) -> None:
    of_one = of_symbol.get(symbol)
    if of_one is not None and key in of_one:
        del of_one[key]
        if not of_one:
            del of_symbol[symbol]
