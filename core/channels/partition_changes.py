"""Partitions come and go: what is on them is shown, is said to be out of date, or goes on where it was left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import ParamSpec

from core.channels.channel import Channel
from core.channels.client_position import Since
from core.channels.first_notification import FirstNotifications
from core.channels.lossless_channels import LosslessChannel
from core.channels.membership import Membership
from core.channels.publishing import Publishing
from core.channels.resume import Resume
from core.channels.slow_consumers import SlowConsumers
from core.channels.stream_status import StreamStatus
from core.channels.subscription import NEW, Behind, Replaying, Subscription, Waiting
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.observer import Observer
from core.delivery.outbox import EXEMPT
from core.market.market import Market
from core.market.partitions import Left
from core.market.symbol_market import News

P = ParamSpec("P")


class PartitionChanges:
    """What is told of a partition's life, it changes in the market, and tells those concerned."""

    def __init__(
        self,
        market: Market,
        members: Membership,
        fanout: Fanout,
        first_notifications: FirstNotifications,
        resume: Resume,
        slow_consumers: SlowConsumers,
        publishing: Publishing,
        status: StreamStatus,
        epoch: Callable[[], str],
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._market = market
        self._partitions = market.partitions
        self._members = members
        self._fanout = fanout
        self._first_notifications = first_notifications
        self._resume = resume
        self._slow_consumers = slow_consumers
        self._publishing = publishing
        self._status = status
        self._epoch = epoch
        self._clock = clock
        self._observer = observer
        # By partition that was lost, those who got what is said on it then.
        self._listened: dict[int, set[Subscription]] = {}

    def begin(self, partition: int, offset: int) -> None:
        """Reading of a partition begins at this offset."""
        self._partitions.begin(partition, offset)

    def serve(self, partitions: list[int]) -> None:
        """These partitions are read to their end: show what is on them to everyone who waits for it.

        They are served from here on, whatever becomes of the telling: a channel that fails keeps no other from it.
        """
        returned = self._partitions.serve(partitions, self._epoch())
        served = frozenset(partitions)
        self._contained("the stream", self._serve_stream, served)
        for channel in tuple(self._members.channels.values()):
            if channel.partitions() & served:
                self._contained(channel.name.text, self._serve_channel, channel, served, returned)
        symbols = self._symbols_on(served)
        self._publishing.touch_overviews(symbols, self._clock(), at_once=True)
        self._publishing.say_in_turns(self._clock())
        for partition in partitions:
            self._listened.pop(partition, None)
        self._fanout.flush()
        self._slow_consumers.send_pulled()
        self._status.tell("live", symbols)

    def _serve_stream(self, served: frozenset[int]) -> None:
        for to_come in self._members.joining_stream.values():
            to_come.update(dict.fromkeys(self._symbols_on(served)))
        books = self._market.known_books(served)
        if books and self._members.stream:
            self._fanout.gather(Bundle([book.snapshot_event() for book in books]), self._members.stream, EXEMPT)

    def _serve_channel(self, channel: Channel, served: frozenset[int], returned: Mapping[int, Left]) -> None:
        now = self._clock()
        channel.next_news_at = now
        channel.restart()
        if isinstance(channel, LosslessChannel):
            self._serve_lossless(channel, served, returned)
        else:
            # What was told may not be what is: a snapshot, not a change, comes next.
            channel.stale = channel.stale or bool(channel.settled)
            channel.dirty = True
        self._publishing.say_soon(channel, now)

    def lose(self, partition: int) -> None:
        """A partition is no longer read: nothing on it is shown until it is served again."""
        symbols = self._symbols_on({partition})
        self._contained(f"partition {partition}", self._tell_lost, partition)
        self._market.forget(partition)
        # Only now is it so that nothing is known of its symbols.
        self._contained("overviews", self._tell_overviews, symbols)
        self._fanout.flush()

    def _tell_lost(self, partition: int) -> None:
        listened = set[Subscription]()
        if partition in self._partitions.served:
            self._listened[partition] = listened
        for channel in self._members.channels.values():
            if isinstance(channel, LosslessChannel) and partition in channel.partitions():
                listened.update(self._members.on(channel, channel.settled))
                for subscription in self._members.on(channel, channel.pulling):
                    if isinstance(subscription.state, Replaying):
                        # The history goes: whoever is on the way back begins again from where it is.
                        subscription.wait(subscription.state.replay.since())
        self._go_stale({partition})

    def _contained(self, place: str, call: Callable[P, object], *arguments: P.args, **named: P.kwargs) -> None:
        """What fails in the telling ends here: how a partition is does not hang on it."""
        try:
            call(*arguments, **named)
        except Exception as error:
            self._observer.fault("channels", error, place)

    def set_unread(self, partitions: Collection[int]) -> None:
        """Of the partitions that should be read, these are not, at the moment."""
        gone, back = self._partitions.set_unread(partitions)
        if gone:
            self._go_stale(gone)
            self._tell_overviews(self._symbols_on(gone))
        if back:
            now = self._clock()
            symbols = self._symbols_on(back)
            for channel in self._channels_of(symbols):
                if channel.stale and self._partitions.are_read(channel.partitions()):
                    channel.dirty = True
                    channel.next_news_at = now
                    self._publishing.say_soon(channel, now)
            self._tell_overviews(symbols)
            self._status.tell("live", symbols)
        self._fanout.flush()

    def mark_read(self, news: list[News]) -> None:
        """What comes from a partition shows that it is read."""
        self._contained("what is read again", self._mark_read, news)

    def _mark_read(self, news: list[News]) -> None:
        unread = self._partitions.unread
        if unread:
            self.set_unread(unread - {item.partition for item in news})
            unread = self._partitions.unread
        self._status.tell("live", [item.event.symbol for item in news if item.partition not in unread])

    def _serve_lossless(self, channel: LosslessChannel, served: frozenset[int], returned: Mapping[int, Left]) -> None:
        """Whoever listened before the partitions were lost gets what came since; the others a snapshot."""
        returned = {partition: left for partition, left in returned.items() if partition in channel.partitions()}
        # Not their union: that would be made of all channels' listeners, for each channel.
        crowds = [self._listened[partition] for partition in returned if partition in self._listened]
        listened = {
            subscription
            for subscription in self._members.on(channel, channel.everyone() if crowds else ())
            if any(subscription in crowd for crowd in crowds)
        }
        present = Since({p: channel.folded(p) for p in channel.partitions()}, self._epoch())
        settled = self._members.on(channel, channel.settled)
        others = [subscription for subscription in settled if subscription not in listened]
        for subscription in settled:
            if subscription in listened:
                self._resume.begin(subscription, self._since_left(subscription, present, returned))
        symbols = channel.symbols_in_parts(served) if others else ()
        for subscription in others:
            self._first_notifications.send_parts(subscription, symbols)
        for subscription in self._members.on(channel, channel.awaiting):
            state = subscription.state
            if state is NEW:
                self._first_notifications.send(subscription)
            elif isinstance(state, Waiting) and subscription in listened and None not in state.since.positions:
                subscription.wait(self._since_left(subscription, state.since, returned), state.lag)
        for subscription in self._members.on(channel, channel.pulling):
            state = subscription.state
            if isinstance(state, Behind):
                self._slow_consumers.to_pull.append(subscription.subscriber)
            elif isinstance(state, Replaying) and subscription in listened and not state.replay.covers(returned):
                # On its way back on other partitions: the one that returned is a part of its way now.
                self._resume.begin(subscription, self._since_left(subscription, state.replay.since(), returned))

    def _since_left(self, subscription: Subscription, since: Since, returned: Mapping[int, Left]) -> Since:
        """Where a subscription stands when partitions return: there where they were left, if it was one of theirs then.

        If they were left in another life of the topic than `since` is of, that life's name remains: no way leads back.
        """
        left = {p: at for p, at in returned.items() if subscription in self._listened.get(p, ())}
        epoch = next((at.epoch for at in left.values() if at.epoch != since.epoch), since.epoch)
        return Since({**since.positions, **{p: at.offset for p, at in left.items()}}, epoch)

    def _go_stale(self, partitions: set[int]) -> None:
        symbols = self._symbols_on(partitions)
        for channel in self._channels_of(symbols):
            if not channel.lossless:
                self._publishing.go_stale(channel)
        self._publishing.say_in_turns(self._clock())
        self._status.tell("stale", symbols)

    def _tell_overviews(self, symbols: Collection[str]) -> None:
        now = self._clock()
        self._publishing.touch_overviews(symbols, now, at_once=True)
        self._publishing.say_in_turns(now)

    def _channels_of(self, symbols: Iterable[str]) -> list[Channel]:
        channels_of = self._members.channels_of
        return [channel for symbol in symbols for channel in channels_of.get(symbol, {}).values()]

    def _symbols_on(self, partitions: Collection[int]) -> list[str]:
        return [market.symbol for market in self._market.on(partitions)]
