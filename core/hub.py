"""Who gets what: one global set of subscribers, and per channel the bytes that all of them get.

What a drain brought becomes one run of frames per channel, built once however many read it. Joining a channel
and being sent what is said on it happen in the same loop turn as the fold of the records, so a snapshot and what follows
meet without a gap or a repeat.

How far each subscriber of a channel has come is its `Subscription`'s to say.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

from core.channel import Channel
from core.channel_kinds import make_channel
from core.channel_names import ChannelName
from core.errors import CloseCode
from core.fanout import Fanout
from core.frames import Bundle
from core.history import Entry
from core.lossless_channels import AllEventsChannel, LosslessChannel
from core.market import Market
from core.observer import Observer
from core.outbox import EXEMPT, LOSSLESS, Offer
from core.partitions import Left
from core.replay import Gaps, Reach, Replay
from core.schedule import HEARTBEAT_SECONDS, Schedule
from core.since import Since
from core.stream_status import StreamStatus, concerned_by, status_text
from core.subscriber import Crowd, Subscriber
from core.subscription import NEW, Behind, Listener, Replaying, Subscription, Waiting
from core.symbol_market import News

STUCK_SECONDS = 30.0
SWEEP_SECONDS = 5.0
READ_BACK_ROUNDS = 3
# How long a client may be ahead of this instance.
PATIENCE_SECONDS = 3.0


class Hub:
    """The subscriber set and the channels that have subscribers."""

    def __init__(
        self, market: Market, epoch: Callable[[], str], clock: Callable[[], float], observer: Observer | None = None
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._market = market
        self._epoch = epoch
        self._clock = clock
        self._observer = observer or Observer()
        self.fanout = Fanout(clock, self._observer, self._on_trouble)
        self.subscribers: set[Subscriber] = set()
        self._stream = Crowd()
        self._subscribed: Counter[str] = Counter()
        self._channels: dict[ChannelName, Channel] = {}
        self._channels_of: dict[str | None, dict[ChannelName, Channel]] = {}
        self._listeners: dict[Subscriber, Listener] = {}
        self._partitions = market.partitions
        # By partition that was lost, those who got what is said on it then.
        self._listened: dict[int, set[Subscription]] = {}
        self._status = StreamStatus()
        self._schedule = Schedule()
        self._next_sweep = clock() + SWEEP_SECONDS
        self._distrusted: set[str] = set()
        self._is_publishing = False
        self._to_fetch: list[Subscriber] = []
        # Those that are ahead of this instance, and have been for a while.
        self._ahead: dict[Subscription, None] = {}
        # Fetches gaps from the bus and calls `read_back_done`; False if it will not.
        self.read_back: Callable[[Replay, Gaps], bool] | None = None

    # Membership.

    def add(self, subscriber: Subscriber, stream: bool) -> None:
        """A connection opened; on the market-data stream it gets a snapshot of every known book at once."""
        self.subscribers.add(subscriber)
        subscriber.outbox.pull = lambda: self._pull(subscriber)
        subscriber.outbox.on_dropped = lambda tags: self._fall_behind(subscriber, tags)
        if stream:
            self._stream.add(subscriber)
            books = self._market.known_books(self._partitions.served)
            self.deliver(Bundle([book.snapshot_event() for book in books], private=True), (subscriber,), EXEMPT)
            self._send_status("stale", self._status.stale_of(None), subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """A connection is gone. Harmless when it has been removed already."""
        self.subscribers.discard(subscriber)
        self._stream.discard(subscriber)
        listener = self._listeners.pop(subscriber, None)
        if listener is not None:
            for subscription in tuple(listener.subscriptions.values()):
                self._leave(subscription)

    def end_stream(self, subscriber: Subscriber) -> None:
        """Narrow a connection to its channels."""
        self._stream.discard(subscriber)

    def subscriptions(self) -> dict[str, int]:
        """How many there are of each kind of channel, and of the market-data stream."""
        return {**self._subscribed, "stream": len(self._stream)}

    def waiting_bytes(self) -> int:
        """What waits in all outboxes together. Looks at each: not for every tick."""
        return sum([subscriber.outbox.waiting_bytes for subscriber in self.subscribers])

    def open_views(self) -> Collection[ChannelName]:
        """The channels that somebody listens to."""
        return self._channels.keys()

    def channels_of(self, subscriber: Subscriber) -> Collection[str]:
        """The channels that a connection listens to, by the text of their names."""
        listener = self._listeners.get(subscriber)
        return listener.subscriptions.keys() if listener is not None else ()

    def subscribe(
        self, subscriber: Subscriber, names: Iterable[ChannelName], since: Mapping[str, Since] | None = None
    ) -> None:
        """Add channels and send each one's snapshot, or what was missed `since`. The market-data stream ends for good.

        A channel that is subscribed already begins anew, also in the other shape of trades.
        """
        self.end_stream(subscriber)
        for name in names:
            if subscriber not in self.subscribers:
                return  # its connection ended meanwhile
            channel = self._channel(name)
            listener = self._listeners.get(subscriber)
            if listener is None:
                listener = self._listeners[subscriber] = Listener(subscriber)
            elif name.text in listener.subscriptions:
                self._leave(listener.subscriptions[name.text], keep=channel)
            self._subscribed[name.kind] += 1
            self._welcome(Subscription(listener, channel), since.get(name.text) if since else None)
            if channel.lossless:
                self._send_status("stale", self._status.stale_of(name.symbol), subscriber)

    def unsubscribe(self, subscriber: Subscriber, names: Iterable[str]) -> list[str]:
        """Drop channels; return those that were subscribed, in the order given."""
        listener = self._listeners.get(subscriber)
        if listener is None:
            return []
        dropped = [name for name in names if name in listener.subscriptions]
        for name in dropped:
            self._leave(listener.subscriptions[name])
        if not listener.subscriptions:
            del self._listeners[subscriber]
        return dropped

    def _channel(self, name: ChannelName) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = make_channel(name, self._market)
            self._channels_of.setdefault(name.symbol, {})[name] = channel
            channel.stale = not channel.lossless and (
                not channel.is_fresh() or bool(channel.partitions() & self._partitions.unread)
            )
            channel.said_at = self._clock()
            self._schedule.schedule(channel, channel.said_at)
        return channel

    def _leave(self, subscription: Subscription, keep: Channel | None = None) -> None:
        subscription.leave()
        channel = subscription.channel
        self._subscribed[channel.name.kind] -= 1
        if channel is not keep and not channel.has_subscribers():
            del self._channels[channel.name]
            symbol = channel.name.symbol
            del self._channels_of[symbol][channel.name]
            if not self._channels_of[symbol]:
                del self._channels_of[symbol]
            channel.close()

    def _on(self, channel: Channel, crowd: Iterable[Subscriber]) -> list[Subscription]:
        """The subscriptions of some who listen to a channel."""
        return [self._listeners[subscriber].subscriptions[channel.name.text] for subscriber in crowd]

    # Joining.

    def _welcome(self, subscription: Subscription, since: Since | None) -> None:
        """Send the first notification, if there is one to send yet."""
        channel = subscription.channel
        if since is not None and isinstance(channel, LosslessChannel):
            if self._is_served(channel):
                self._resume(subscription, since)
            else:
                subscription.wait(since)
        elif channel.stale:
            self._greet(channel, [channel.stale_text()], (subscription,))
        elif self._is_served(channel) and channel.is_known():
            self._introduce(subscription, channel.snapshot_texts(), self._head())

    def _introduce(self, subscription: Subscription, texts: list[bytes], head: bytes) -> None:
        """Send a snapshot to a newcomer, or owe it to one whose socket is full: snapshots must not pile up there."""
        if not texts:
            return
        if subscription.subscriber.outbox.waiting_bytes:
            subscription.fall_behind(head)
        else:
            self._greet(subscription.channel, texts, (subscription,), EXEMPT, head)

    def _head(self, recovered: bytes = b"") -> bytes:
        """How a first notification begins: it names the epoch."""
        return b'{"epoch":' + json.dumps(self._epoch()).encode() + b"," + recovered

    def _is_served(self, channel: Channel) -> bool:
        return self._partitions.are_served(channel.partitions())

    def _resume(self, subscription: Subscription, since: Since) -> None:
        """Serve what was missed from the history, from the bus, or say that it cannot be had."""
        replay = Replay(lossless(subscription), subscription.subscriber, since, self._epoch())
        reach = replay.reach()
        if reach is Reach.AHEAD:
            # Another instance was a little further. If this one does not get there soon, it is the future.
            gives_up_at = subscription.state.gives_up_at if isinstance(subscription.state, Waiting) else None
            subscription.wait(since, self._clock() + PATIENCE_SECONDS if gives_up_at is None else gives_up_at)
            self._ahead[subscription] = None
        elif reach is Reach.HISTORY or (reach is Reach.BUS and self._fetch(replay)):
            subscription.replay(replay)
            if reach is Reach.HISTORY:
                self._observer.resumed("history")
                self._fetch_soon(subscription.subscriber)
        else:
            self._unrecovered(subscription)

    def _fetch_soon(self, subscriber: Subscriber) -> None:
        """Pull now, or at the end of the present publication.

        In the middle of one the history already has what some channels have yet to say: whoever caught up there would get
        it twice.
        """
        if self._is_publishing:
            self._to_fetch.append(subscriber)
        else:
            subscriber.outbox.fetch()

    def _end_publishing(self) -> None:
        self._is_publishing = False
        self.fanout.flush()
        while self._to_fetch:
            self._to_fetch.pop().outbox.fetch()

    def _fetch(self, replay: Replay) -> bool:
        """Ask for what the history no longer has; False if it will not be fetched."""
        replay.ready = False
        return self.read_back is not None and self.read_back(replay, replay.ask())

    def read_back_done(self, replay: Replay, found: dict[int, list[Entry]] | None) -> None:
        """What was asked of the bus has come (or, None, has not)."""
        if replay.cancelled:
            return
        [subscription] = self._on(replay.channel, (replay.subscriber,))
        if found is not None:
            replay.add_backlog(found)
            if not replay.missing():
                self._observer.resumed("bus")
                replay.ready = True
                self._fetch_soon(replay.subscriber)
                return
            if replay.rounds < READ_BACK_ROUNDS and self._fetch(replay):
                return
        self._unrecovered(subscription)

    def _unrecovered(self, subscription: Subscription) -> None:
        self._observer.resumed("not_recovered")
        channel = subscription.channel
        texts = channel.snapshot_texts() or [channel.empty_text()]
        self._introduce(subscription, texts, self._head(b'"recovered":false,'))

    def _greet(
        self,
        channel: Channel,
        texts: list[bytes],
        subscriptions: Sequence[Subscription],
        tag: Hashable = LOSSLESS,
        head: bytes | None = None,
    ) -> None:
        """A first notification and what comes with it."""
        bundle = Bundle([(head or self._head()) + texts[0], *(b"{" + text for text in texts[1:])], private=True)
        for subscription in subscriptions:
            subscription.settle()
        welcomed = [subscription.subscriber for subscription in subscriptions]
        if len(welcomed) == 1:
            self.deliver(bundle, welcomed, tag)
        else:
            self.fanout.gather(bundle, welcomed, tag)

    def _pull(self, subscriber: Subscriber) -> bytes | None:
        """The next frames of what a subscriber fetches as its socket drains, behind what it was told before."""
        self.fanout.catch_up(subscriber)
        listener = self._listeners.get(subscriber)
        if listener is None:
            return None
        fetching = tuple(listener.fetching)
        for subscription in fetching:
            if isinstance(subscription.state, Behind):
                texts = self._catch_up(subscription, subscription.state.head)
                if texts:
                    return self._pulled(texts)
        for subscription in fetching:
            if isinstance(subscription.state, Replaying):
                replay = subscription.state.replay
                texts = replay.pull()
                if replay.lost:
                    self._end_slow(subscriber, "history")
                    return None
                if replay.done:
                    subscription.settle()
                if texts:
                    return self._pulled(texts)
        return None

    def _catch_up(self, subscription: Subscription, head: bytes | None) -> list[bytes]:
        """The snapshot that one is owed who fell behind; from then on it gets what is said."""
        channel = subscription.channel
        if channel.lossless and not self._is_served(channel):
            return []  # nothing is known to make a snapshot of; it is owed until there is
        subscription.settle()
        is_first = head is not None
        texts = [channel.stale_text()] if channel.stale else channel.snapshot_texts(conflated=not is_first)
        if not texts and is_first:
            texts = [channel.empty_text()]
        return [(head or b"{") + texts[0], *(b"{" + text for text in texts[1:])] if texts else []

    def _pulled(self, texts: list[bytes]) -> bytes:
        frames = Bundle(texts, private=True).plain
        self._observer.delivered(1, len(frames), len(texts))
        return frames

    def _fall_behind(self, subscriber: Subscriber, channels: Iterable[Hashable]) -> None:
        for channel in channels:
            assert isinstance(channel, Channel)
            self.fanout.drop(subscriber, channel)  # the snapshot that it is owed now has all of that
            if (
                subscriber in channel.settled
            ):  # else it left the channel, or joined it anew, after the frame was offered
                [subscription] = self._on(channel, (subscriber,))
                subscription.fall_behind()
                self._observer.conflated(channel.name.kind)

    # What is said.

    def tell(self, subscriber: Subscriber, text: bytes) -> None:
        """An answer to one subscriber, in its place among what it is sent."""
        self.deliver(Bundle((text,), private=True), (subscriber,))

    def deliver(self, bundle: Bundle, subscribers: Iterable[Subscriber], tag: Hashable = LOSSLESS) -> None:
        """Frames for one or a few, in their place among what they are sent."""
        self.fanout.send(bundle, subscribers, tag)

    def publish(self, news: list[News]) -> None:
        """Say what one drain brought, to everybody concerned, in the order of the records."""
        unread = self._partitions.unread
        if unread:
            self.set_unread(unread - {item.partition for item in news})
        if self._status:
            unread = self._partitions.unread
            self._tell_status("live", [item.event.symbol for item in news if item.partition not in unread])
        if self._stream:
            self.fanout.gather(Bundle([item.event.payload for item in news]), self._stream)
        if not self._channels:
            self.fanout.flush()
            return
        touched: dict[Channel, None] = {}
        everything = self._channels_of.get(None)
        for item in news:
            for channel in self._channels_of.get(item.event.symbol, {}).values():
                channel.note(item)
                touched[channel] = None
            if everything:
                for channel in everything.values():
                    channel.note(item)
                    touched[channel] = None
        now = self._clock()
        self._is_publishing = True
        for channel in touched:
            self._say_when_due(channel, now)
        self._end_publishing()

    def distrust(self, symbol: str) -> None:
        """A symbol's book cannot be trusted any more; told at the next beat, unless it was healed by then."""
        self._distrusted.add(symbol)

    def beat(self) -> None:
        """Say what has become due since: conflated news, heartbeats; and look after those who do not read."""
        now = self._clock()
        while self._distrusted:
            for channel in self._channels_of.get(self._distrusted.pop(), {}).values():
                if not channel.lossless and not channel.is_fresh():
                    self._mark_stale(channel)
        for subscription in tuple(self._ahead):
            self._look_after(subscription, now)
        for channel in self._schedule.take_due(now):
            self._say_when_due(channel, now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            for subscriber in tuple(self.subscribers):
                if subscriber.outbox.is_stuck(now, STUCK_SECONDS):
                    self._end_slow(subscriber, "stuck")
        self.fanout.flush()

    def _look_after(self, subscription: Subscription, now: float) -> None:
        """Resume one who was ahead as soon as this instance has come as far; if it is late, tell it that it cannot."""
        state = subscription.state
        if not isinstance(state, Waiting) or state.gives_up_at is None:
            del self._ahead[subscription]
            return
        channel = lossless(subscription)
        if not self._is_served(channel):
            # It waits for its partition first, and then anew.
            del self._ahead[subscription]
            subscription.wait(state.since)
            return
        replay = Replay(channel, subscription.subscriber, state.since, self._epoch())
        is_ahead = replay.reach() is Reach.AHEAD
        if is_ahead and now < state.gives_up_at:
            return
        del self._ahead[subscription]
        if is_ahead:
            self._unrecovered(subscription)
        else:
            self._resume(subscription, state.since)

    def _say_when_due(self, channel: Channel, now: float) -> None:
        if channel.dirty and now >= channel.next_news_at:
            self._say(channel, now)
        elif (
            channel.heartbeats
            and not channel.stale
            and now >= channel.said_at + HEARTBEAT_SECONDS
            and self._is_told(channel)
        ):
            self._broadcast(channel, channel.heartbeat_texts)
            channel.said_at = now
        # Only now: the history they are served from has what was just said.
        if channel.awaiting and channel.lossless and self._is_served(channel):
            for subscription in self._on(channel, channel.awaiting):
                if isinstance(subscription.state, Waiting):
                    self._resume(subscription, subscription.state.since)
        self._schedule.schedule(channel, now)

    def _say(self, channel: Channel, now: float) -> None:
        channel.dirty = False
        if not channel.is_known() or not (channel.lossless or self._is_read(channel)):
            return
        if not channel.is_fresh():
            self._mark_stale(channel)
            return
        healed, channel.stale = channel.stale, False
        said = channel.take(anew=healed)
        if healed:
            self._broadcast(channel, channel.snapshot_texts, EXEMPT)
        elif said:
            self._broadcast(channel, channel.news_texts)
        if healed or said:
            channel.said_at = now
            channel.next_news_at = now + channel.interval_seconds
        if channel.awaiting:
            newcomers = [one for one in self._on(channel, channel.awaiting) if one.state is NEW]
            texts = channel.first_texts() if newcomers else []
            if texts:
                self._greet(channel, texts, newcomers, EXEMPT)

    def _broadcast(self, channel: Channel, texts_for: Callable[[], list[bytes]], tag: Hashable | None = None) -> None:
        """The same bytes to everyone settled."""
        if channel.settled:
            bundle = Bundle([b"{" + text for text in texts_for()])
            self.fanout.gather(bundle, channel.settled, tag or (LOSSLESS if channel.lossless else channel))

    def _is_told(self, channel: Channel) -> bool:
        """Whether there is a told state that still holds, as a heartbeat says."""
        return channel.is_known() and channel.is_fresh() and self._is_read(channel)

    def _is_read(self, channel: Channel) -> bool:
        return self._partitions.are_read(channel.partitions())

    # Partitions come and go.

    def serve(self, partitions: list[int]) -> None:
        """These partitions are read to their end: show what is on them to everyone who waits for it."""
        returned = self._partitions.serve(partitions, self._epoch())
        concerned = frozenset(partitions)
        books = self._market.known_books(concerned)
        if books and self._stream:
            self.fanout.gather(Bundle([book.snapshot_event() for book in books]), self._stream, EXEMPT)
        now = self._clock()
        self._is_publishing = True
        for channel in tuple(self._channels.values()):
            if channel.partitions() & concerned:
                channel.next_news_at = now
                if isinstance(channel, LosslessChannel):
                    self._serve_lossless(channel, concerned, returned)
                else:
                    # What was told may not be what is: a snapshot, not a change, comes next.
                    channel.stale = channel.stale or bool(channel.settled)
                    channel.restart()
                    channel.dirty = True
                self._say_when_due(channel, now)
        for partition in partitions:
            self._listened.pop(partition, None)
        self._end_publishing()
        self._tell_status("live", self._symbols_on(concerned))

    def _serve_lossless(
        self, channel: LosslessChannel, partitions: frozenset[int], returned: Mapping[int, Left]
    ) -> None:
        """Whoever listened before the partitions were lost gets what came since; the others a snapshot."""
        channel.restart()
        returned = {partition: left for partition, left in returned.items() if partition in channel.partitions()}
        listeners = set[Subscription]().union(*(self._listened.get(partition, ()) for partition in returned))
        present = Since({p: channel.folded(p) for p in channel.partitions()}, self._epoch())
        settled = self._on(channel, channel.settled)
        others = [subscription.subscriber for subscription in settled if subscription not in listeners]
        for subscription in settled:
            if subscription in listeners:
                self._resume(subscription, self._since_left(subscription, present, returned))
        if others and isinstance(channel, AllEventsChannel):
            self.fanout.gather(Bundle([b"{" + text for text in channel.snapshot_of(partitions)]), others, EXEMPT)
        for subscription in self._on(channel, channel.awaiting):
            state = subscription.state
            if state is NEW:
                self._welcome(subscription, None)
            elif isinstance(state, Waiting) and subscription in listeners and None not in state.since.positions:
                subscription.wait(self._since_left(subscription, state.since, returned), state.gives_up_at)
        for subscription in self._on(channel, channel.fetching):
            state = subscription.state
            if isinstance(state, Behind):
                self._fetch_soon(subscription.subscriber)
            elif isinstance(state, Replaying) and subscription in listeners and not state.replay.covers(returned):
                # On its way back on other partitions: the one that returned is a part of its way now.
                self._resume(subscription, self._since_left(subscription, state.replay.since(), returned))

    def _since_left(self, subscription: Subscription, since: Since, returned: Mapping[int, Left]) -> Since:
        """Where a subscription stands when partitions return: there where they were left, if it was one of theirs then.

        If they were left in another life of the topic than `since` is of, that life's name remains: no way leads back.
        """
        left = {p: at for p, at in returned.items() if subscription in self._listened.get(p, ())}
        epoch = next((at.epoch for at in left.values() if at.epoch != since.epoch), since.epoch)
        return Since({**since.positions, **{p: at.offset for p, at in left.items()}}, epoch)

    def forget(self, partition: int) -> None:
        """A partition is no longer read: nothing on it is shown until it is served again."""
        listeners = self._listened[partition] = set()
        for channel in self._channels.values():
            if isinstance(channel, LosslessChannel) and partition in channel.partitions():
                listeners.update(self._on(channel, channel.settled))
                for subscription in self._on(channel, channel.fetching):
                    if isinstance(subscription.state, Replaying):
                        # The history goes: whoever is on the way back begins again from where it is.
                        subscription.wait(subscription.state.replay.since())
        self._go_stale({partition})
        self.fanout.flush()

    def set_unread(self, partitions: set[int]) -> None:
        """Of the partitions that should be read, these are not, at the moment."""
        gone, back = self._partitions.set_unread(partitions)
        if gone:
            self._go_stale(gone)
        if back:
            now = self._clock()
            for channel in tuple(self._channels.values()):
                if channel.partitions() & back and channel.stale and self._is_read(channel):
                    channel.dirty = True
                    channel.next_news_at = now
                    self._say_when_due(channel, now)
            self._tell_status("live", self._symbols_on(back))
        self.fanout.flush()

    def _go_stale(self, partitions: set[int]) -> None:
        for channel in tuple(self._channels.values()):
            if not channel.lossless and channel.partitions() & partitions:
                self._mark_stale(channel)
        self._tell_status("stale", self._symbols_on(partitions))

    def _mark_stale(self, channel: Channel) -> None:
        if not channel.stale:
            channel.stale = True
            self._broadcast(channel, lambda: [channel.stale_text()], EXEMPT)

    def _symbols_on(self, partitions: Collection[int]) -> list[str]:
        return [market.symbol for market in self._market.on(partitions)]

    def _tell_status(self, status: str, symbols: Iterable[str]) -> None:
        """Tell the lossless listeners, who would otherwise take silence for quiet."""
        changed = self._status.change(status, symbols)
        if changed:
            for subscriber, told in concerned_by(changed, self._stream, self._channels.values()).items():
                self._send_status(status, told, subscriber)

    def _send_status(self, status: str, symbols: list[str], subscriber: Subscriber) -> None:
        if symbols:
            self.deliver(Bundle((status_text(status, symbols),), private=True), (subscriber,), EXEMPT)

    # Delivery.

    def _on_trouble(self, subscriber: Subscriber, outcome: Offer, tag: Hashable) -> None:
        if outcome is Offer.CONFLATED:
            self._fall_behind(subscriber, (tag,))
        elif outcome is Offer.OVERFLOW:
            self._end_slow(subscriber, "overflow")
        else:
            self.remove(subscriber)

    def _end_slow(self, subscriber: Subscriber, cause: str) -> None:
        self._observer.slow_closed(cause)
        self.remove(subscriber)
        subscriber.end(CloseCode.SLOW_CONSUMER, "slow consumer")


def lossless(subscription: Subscription) -> LosslessChannel:
    """Its channel, if that leaves nothing out."""
    assert isinstance(subscription.channel, LosslessChannel)
    return subscription.channel
