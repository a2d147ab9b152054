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

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from core.channels.channel import PART_BYTES
from core.channels.client_position import Since
from core.channels.first_notification import FirstNotifications
from core.channels.kinds import KINDS
from core.channels.membership import Membership
from core.channels.names import ChannelName
from core.channels.partition_changes import PartitionChanges
from core.channels.publishing import Publishing
from core.channels.requests import Promises, Request, Requests
from core.channels.resume import Resume
from core.channels.schedule import Schedule
from core.channels.slices import Slices
from core.channels.slow_consumers import SlowConsumers
from core.channels.stream_status import StreamStatus
from core.channels.subscription import NEW, Subscription, Waiting
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle, text_frame
from core.delivery.observer import Observer
from core.delivery.outbox import EXEMPT
from core.delivery.subscriber import Subscriber
from core.errors import CloseCode
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
        self._requests = Requests()
        self._promises = Promises(self._join_lossless)
        # By connection, the last of what it asked for that is not done yet.
        self._pending: dict[Subscriber, Request] = {}
        self.slices = Slices(
            (self._say_next, self._requests.go_on, self._members.close_next), lambda: self.publishing.end_turn(), clock
        )
        self._first_notifications.do_in_pieces = lambda subscriber, pieces: self._requests.add(
            self._in_order(subscriber, pieces, None)
        )
        self._first_notifications.mark_behind = self._slow_consumers.mark_behind
        self._slow_consumers.on_settled = self._first_notifications.go_on
        self.publishing = Publishing(
            market,
            self._members,
            partitions,
            self.fanout,
            self._first_notifications,
            self.resume,
            self._slow_consumers,
            schedule,
            self.slices,
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
            self._let_go,
            lambda _now: self.fanout.flush(),
            lambda _now: self._slow_consumers.send_pulled(),
        )

    # Connections.

    @property
    def subscribers(self) -> Collection[Subscriber]:
        """All connections."""
        return self._members.subscribers

    def add(self, subscriber: Subscriber, stream: bool) -> None:
        """A connection opened; on the market-data stream it gets a snapshot of every known book, and of each what follows."""
        self._members.subscribers.add(subscriber)
        subscriber.outbox.pull = lambda: self._slow_consumers.pull(subscriber)
        subscriber.outbox.on_dropped = lambda tags: self._slow_consumers.mark_behind(subscriber, tags)
        if stream:
            books = self._market.known_books(self._market.partitions.served)
            self._members.joining_stream[subscriber] = dict.fromkeys(book.symbol for book in books)
            self._begin(subscriber, self._join_stream(subscriber))

    def _join_stream(self, subscriber: Subscriber) -> Iterator[None]:
        """Each book with what follows on it; as many at once as make a send worth its while."""
        to_come = self._members.joining_stream[subscriber]
        while subscriber in self._members.joining_stream:
            books, size = list[bytes](), 0
            while to_come and size < PART_BYTES:
                symbol = next(iter(to_come))
                del to_come[symbol]
                market = self._market.find(symbol)
                if market is not None and market.book.live and market.partition in self._market.partitions.served:
                    books.append(market.book.snapshot_event())
                    size += len(books[-1])
            self.fanout.send(Bundle(books, private=True), (subscriber,), EXEMPT)
            if not to_come and subscriber in self._members.joining_stream:
                del self._members.joining_stream[subscriber]
                self._members.stream.add(subscriber)
                self._status.tell_newcomer(subscriber, None)
            yield

    def remove(self, subscriber: Subscriber) -> None:
        """A connection is gone. Harmless when it has been removed already."""
        began = self._clock()
        self._members.remove(subscriber)
        if self._members.has_to_close:
            self.slices.go_on(self._clock() - began)

    def end_stream(self, subscriber: Subscriber) -> None:
        """Narrow a connection to its channels."""
        self._members.end_stream(subscriber)

    def tell(self, subscriber: Subscriber, text: bytes, frame: bytes | memoryview | None = None) -> None:
        """An answer to one subscriber, in its place among what it is sent; in place of its text, perhaps, its frame."""
        self.fanout.tell(text_frame(text) if frame is None else frame, subscriber)

    # Subscriptions.

    def subscribe(
        self, subscriber: Subscriber, names: Iterable[ChannelName], since: Mapping[str, Since] | None = None
    ) -> None:
        """Add channels and send each one's snapshot, or what was missed `since`; as far as there is time, and the rest as
        soon as there is (`pending`). Nothing is left out on `trades` and `events` from here on. The market-data stream ends
        for good.

        A channel that is subscribed already begins anew, also in the other shape of trades.
        """
        self.end_stream(subscriber)
        asked, since = list(names), since or {}
        self._requests.announce(asked)
        lossless = {name: since.get(name.text) for name in asked if KINDS[name.kind].lossless}
        # Here, and not with the first piece, which waits for what else is being done for this connection.
        self._promises.add(subscriber, lossless)
        self._begin(subscriber, self._join(subscriber, asked, lossless))

    def _join(
        self, subscriber: Subscriber, names: list[ChannelName], lossless: Collection[ChannelName]
    ) -> Iterator[None]:
        done = 0
        try:
            at_once_until = self._clock() + self.slices.slice_seconds
            for name in names:
                if done and self._clock() >= at_once_until:
                    yield
                if subscriber not in self._members.subscribers:
                    return  # its connection ended meanwhile
                self._requests.has_joined((name,))
                done += 1
                if name in lossless:
                    self._promises.keep_one(subscriber, name)
                    subscription = self._members.subscription(subscriber, name.text)
                    assert subscription is not None
                    self._begin_lossless(subscription)
                else:
                    self._withdraw(subscriber, name.text)
                    subscription = self._members.join(subscriber, name)
                    self._first_notifications.send(subscription)
        finally:
            self._promises.drop(subscriber, names[done:])
            self._requests.has_joined(names[done:])

    def _join_lossless(self, subscriber: Subscriber, name: ChannelName, since: Since | None) -> None:
        """From now on nothing is missed: what is said before its turn comes begins it (`belated_texts`)."""
        if subscriber in self._members.subscribers:
            self._withdraw(subscriber, name.text)
            subscription = self._members.join(subscriber, name)
            if since is not None:
                subscription.wait(since)

    def _begin_lossless(self, subscription: Subscription) -> None:
        state = subscription.state
        if state is NEW:
            self._first_notifications.send(subscription)
        elif isinstance(state, Waiting) and state.lag is None:
            self.resume.begin(subscription, state.since)
            self._slow_consumers.send_pulled()
        self._status.tell_newcomer(subscription.subscriber, subscription.channel.name.symbol)

    def unsubscribe(self, subscriber: Subscriber, texts: Iterable[str]) -> list[str]:
        """Drop channels by the text of their names; return those that were subscribed, in the order given."""
        subscribed = self.channels_of(subscriber)
        dropped = [text for text in texts if text in subscribed]
        self._begin(subscriber, self._leave(subscriber, dropped))
        return dropped

    def _leave(self, subscriber: Subscriber, texts: list[str]) -> Iterator[None]:
        for text in texts:
            self._withdraw(subscriber, text)
            self._members.leave(subscriber, (text,))
            yield

    def pending(self, subscriber: Subscriber) -> Request | None:
        """What a connection asked for, as long as it is not done: what it asks for next has to wait for that."""
        return self._pending.get(subscriber)

    def _begin(self, subscriber: Subscriber, pieces: Iterator[None]) -> None:
        began = self._clock()
        before = self._pending.get(subscriber)
        pieces = self._in_order(subscriber, pieces, before)
        if before is None:
            next(pieces, None)  # the first piece does not wait for its turn
        request = self._requests.add(pieces)
        self.slices.go_on(self._clock() - began)
        if not request.is_done:
            self._pending[subscriber] = request
            request.when_done(lambda: self._end(subscriber, request))

    def _in_order(self, subscriber: Subscriber, pieces: Iterator[None], before: Request | None) -> Iterator[None]:
        while before is not None and not before.is_done:
            yield
        try:
            yield from pieces
        except Exception as error:
            # A fault in what one asked for ends that connection, and nobody else's turn.
            self._observer.fault("channels", error, "in what a connection asked for")
            subscriber.end(CloseCode.INTERNAL, "internal error")

    def _end(self, subscriber: Subscriber, request: Request) -> None:
        if self._pending.get(subscriber) is request:
            del self._pending[subscriber]

    def _let_go(self, _now: float) -> None:
        if self._members.has_to_close or self._requests:
            self.slices.go_on()

    def _say_next(self) -> bool:
        return self.publishing.say_next()

    def _withdraw(self, subscriber: Subscriber, text: str) -> None:
        subscription = self._members.subscription(subscriber, text)
        if subscription is not None:
            self._slow_consumers.withdraw(subscription)

    def channels_of(self, subscriber: Subscriber) -> Collection[str]:
        """The channels that a connection is subscribed to, by the text of their names."""
        listener = self._members.listener(subscriber)
        return listener.subscriptions.keys() if listener is not None else ()

    def open_views(self) -> Collection[ChannelName]:
        """The channels that somebody listens to, or is about to."""
        return self._requests.with_announced(self._members.channels.keys())

    # News, and time.

    def publish(self, news: list[News]) -> None:
        """Say what one drain brought, to everybody concerned, in the order of the records."""
        if self._market.partitions.unread or self._status.stale:
            self.partition_changes.mark_read(news)
        if self._promises:
            self._promises.keep({item.event.symbol for item in news})
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
