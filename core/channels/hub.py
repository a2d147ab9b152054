"""Who gets what: connections come and go, and everything that is said on the way to their sockets goes through here.

Joining a channel and being sent what is said on it happen in the same loop turn as the fold of the records, so a snapshot
and what follows meet without a gap or a repeat. Each part tells a story of its own:

    membership           who is there, and subscribed to what
    first_notification   how a subscription begins
    resume               how one goes on that comes back with `since`
    publishing           how news goes out
    slow_consumers       what becomes of those whose sockets are full
    partition_changes    what is told when partitions are served, lost, unread

How far each subscriber of a channel has come is its `Subscription`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from core.channels.client_position import Since
from core.channels.first_notification import FirstNotifications
from core.channels.membership import Membership
from core.channels.names import ChannelName
from core.channels.partition_changes import PartitionChanges
from core.channels.publishing import Publishing
from core.channels.resume import Resume
from core.channels.schedule import Schedule
from core.channels.slow_consumers import SlowConsumers
from core.channels.stream_status import StreamStatus
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.observer import Observer
from core.delivery.outbox import EXEMPT
from core.delivery.subscriber import Subscriber
from core.market.market import Market
from core.market.symbol_market import News


class Hub:
    """The connections, and the channels that somebody listens to."""

    def __init__(
        self, market: Market, epoch: Callable[[], str], clock: Callable[[], float], observer: Observer | None = None
    ) -> None:
        """`epoch` names the present life of the topic; `clock` is monotonic, in seconds."""
        observer = observer or Observer()
        partitions, schedule = market.partitions, Schedule()
        self._market = market
        self._clock = clock
        self._observer = observer
        self.fanout = Fanout(clock, observer, lambda *refused: self._slow_consumers.did_not_take(*refused))
        self._members = Membership(market, schedule, clock)
        self._slow_consumers = SlowConsumers(self._members, partitions, self.fanout, clock, observer)
        self._first_notifications = FirstNotifications(partitions, self.fanout, epoch)
        self.resume = Resume(
            self._members, partitions, self._first_notifications, self._slow_consumers, epoch, clock, observer
        )
        self.publishing = Publishing(
            market,
            self._members,
            partitions,
            self.fanout,
            self._first_notifications,
            self.resume,
            self._slow_consumers,
            schedule,
            clock,
            observer,
        )
        self._status = StreamStatus(self._members, self.fanout)
        self.partition_changes = PartitionChanges(
            market,
            self._members,
            self.fanout,
            self._first_notifications,
            self.resume,
            self._slow_consumers,
            self.publishing,
            self._status,
            epoch,
            clock,
            observer,
        )
        # In this order, what a beat does.
        self._beaten: tuple[Callable[[float], object], ...] = (
            self.publishing.say_what_is_due,
            self.resume.look_after_ahead,
            self._slow_consumers.sweep,
            lambda _now: self.fanout.flush(),
            lambda _now: self._slow_consumers.send_pulled(),
        )

    # Connections.

    @property
    def subscribers(self) -> Collection[Subscriber]:
        """All connections."""
        return self._members.subscribers

    def add(self, subscriber: Subscriber, stream: bool) -> None:
        """A connection opened; on the market-data stream it gets a snapshot of every known book at once."""
        self._members.subscribers.add(subscriber)
        subscriber.outbox.pull = lambda: self._slow_consumers.pull(subscriber)
        subscriber.outbox.on_dropped = lambda tags: self._slow_consumers.mark_behind(subscriber, tags)
        if stream:
            self._members.stream.add(subscriber)
            books = self._market.known_books(self._market.partitions.served)
            self.fanout.send(Bundle([book.snapshot_event() for book in books], private=True), (subscriber,), EXEMPT)
            self._status.tell_newcomer(subscriber, None)

    def remove(self, subscriber: Subscriber) -> None:
        """A connection is gone. Harmless when it has been removed already."""
        self._members.remove(subscriber)

    def end_stream(self, subscriber: Subscriber) -> None:
        """Narrow a connection to its channels."""
        self._members.stream.discard(subscriber)

    def tell(self, subscriber: Subscriber, text: bytes) -> None:
        """An answer to one subscriber, in its place among what it is sent."""
        self.fanout.send(Bundle((text,), private=True), (subscriber,))

    # Subscriptions.

    def subscribe(
        self, subscriber: Subscriber, names: Iterable[ChannelName], since: Mapping[str, Since] | None = None
    ) -> None:
        """Add channels and send each one's snapshot, or what was missed `since`. The market-data stream ends for good.

        A channel that is subscribed already begins anew, also in the other shape of trades.
        """
        self.end_stream(subscriber)
        for name in names:
            if subscriber not in self._members.subscribers:
                return  # its connection ended meanwhile
            self._withdraw(subscriber, name.text)
            subscription = self._members.join(subscriber, name)
            is_lossless = subscription.channel.lossless
            position = since.get(name.text) if since and is_lossless else None
            if position is not None:
                self.resume.begin(subscription, position)
                self._slow_consumers.send_pulled()
            else:
                self._first_notifications.send(subscription)
            if is_lossless:
                self._status.tell_newcomer(subscriber, name.symbol)

    def unsubscribe(self, subscriber: Subscriber, texts: Iterable[str]) -> list[str]:
        """Drop channels by the text of their names; return those that were subscribed, in the order given."""
        dropped = list(texts)
        for text in dropped:
            self._withdraw(subscriber, text)
        return self._members.leave(subscriber, dropped)

    def _withdraw(self, subscriber: Subscriber, text: str) -> None:
        subscription = self._members.subscription(subscriber, text)
        if subscription is not None:
            self._slow_consumers.withdraw(subscription)

    def channels_of(self, subscriber: Subscriber) -> Collection[str]:
        """The channels that a connection is subscribed to, by the text of their names."""
        listener = self._members.listener(subscriber)
        return listener.subscriptions.keys() if listener is not None else ()

    def open_views(self) -> Collection[ChannelName]:
        """The channels that somebody listens to."""
        return self._members.channels.keys()

    # News, and time.

    def publish(self, news: list[News]) -> None:
        """Say what one drain brought, to everybody concerned, in the order of the records."""
        if self._market.partitions.unread or self._status.stale:
            self.partition_changes.mark_read(news)
        self.publishing.publish(news)

    def beat(self) -> None:
        """Say what has become due since, and look after those who wait or do not read."""
        now = self._clock()
        for part in self._beaten:
            try:
                part(now)
            except Exception as error:
                # Whatever one of them cannot do now, the others go on with theirs.
                self._observer.fault("channels", error, "in the beat")

    # For who counts.

    def subscriptions(self) -> dict[str, int]:
        """How many there are of each kind of channel, and of the market-data stream."""
        return self._members.counts()

    def waiting_bytes(self) -> int:
        """What waits in all outboxes together. Looks at each: not for every tick."""
        return sum([subscriber.outbox.waiting_bytes for subscriber in self._members.subscribers])
