"""Coming back with `since`: what was missed is had from the history or the bus, or cannot be had, or is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from core.channels.channel import Channel
from core.channels.client_position import Since
from core.channels.first_notification import FirstNotifications
from core.channels.lossless_channels import LosslessChannel
from core.channels.membership import Membership
from core.channels.replay import Gaps, Replay
from core.channels.slow_consumers import SlowConsumers
from core.channels.subscription import Subscription, Waiting
from core.delivery.observer import Observer
from core.market.history import Entry
from core.market.lag import MAX_AHEAD_RECORDS, Lag
from core.market.partitions import Partitions

FETCH_ROUNDS = 3


class Source(Enum):
    """Where what was missed can be had."""

    HISTORY = "history"
    BUS = "bus"
    AHEAD = "ahead"
    NOWHERE = "nowhere"


def source_of_missed(replay: Replay) -> Source:
    """Where what was missed can be had. Of another life: nowhere.

    One that is ahead of this instance, in the same life, may have come from another that is a little faster.
    """
    if not replay.is_same_life:
        return Source.NOWHERE
    lacking = replay.lacking()
    if lacking:
        return Source.AHEAD if replay.has_epoch and lacking <= MAX_AHEAD_RECORDS else Source.NOWHERE
    return Source.BUS if replay.missing() else Source.HISTORY


class Resume:
    """How each subscription that comes back goes on."""

    def __init__(
        self,
        members: Membership,
        partitions: Partitions,
        first_notifications: FirstNotifications,
        slow_consumers: SlowConsumers,
        epoch: Callable[[], str],
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._members = members
        self._partitions = partitions
        self._first_notifications = first_notifications
        self._slow_consumers = slow_consumers
        self._epoch = epoch
        self._clock = clock
        self._observer = observer
        # Those that are ahead of this instance, or were.
        self._ahead: dict[Subscription, None] = {}
        # Fetches gaps from the bus and calls `on_missed_records`; False if it will not.
        self.missed_records: Callable[[Replay, Gaps], bool] | None = None
        slow_consumers.fetch = self._fetch

    def begin(self, subscription: Subscription, since: Since) -> None:
        """Tell what was missed since, as soon as the channel's partitions are served."""
        if not self._is_served(subscription.channel):
            subscription.wait(since)
            return
        replay = self._replay(subscription, since)
        source = source_of_missed(replay)
        if source is Source.AHEAD:
            self._wait(subscription, since, replay.lacking())
        elif source is Source.HISTORY or (source is Source.BUS and self._fetch(replay)):
            subscription.replay(replay)
            if source is Source.HISTORY:
                self._observer.resumed("history")
                self._slow_consumers.to_pull.append(subscription.subscriber)
        else:
            self._give_up(subscription)

    def begin_waiting(self, channel: Channel) -> None:
        """Something was said on a channel: those who wait may be able to go on."""
        if channel.lossless and self._is_served(channel):
            for subscription in self._members.on(channel, channel.awaiting):
                if isinstance(subscription.state, Waiting):
                    self.begin(subscription, subscription.state.since)

    def look_after_ahead(self, now: float) -> None:
        """Those who were ahead go on as soon as this instance has come as far; it is told if it has not come in time."""
        for subscription in tuple(self._ahead):
            state = subscription.state
            if isinstance(state, Waiting) and state.lag is not None:
                if self._is_served(subscription.channel):
                    self.begin(subscription, state.since)
                else:
                    subscription.wait(state.since)  # for its partition first, and then anew
                state = subscription.state
            if not isinstance(state, Waiting) or state.lag is None:
                del self._ahead[subscription]
            elif now >= state.lag.gives_up_at:
                del self._ahead[subscription]
                self._give_up(subscription)

    def on_missed_records(self, replay: Replay, found: dict[int, list[Entry]] | None) -> None:
        """What was asked of the bus has come (or, None, has not)."""
        if replay.cancelled:
            return
        [subscription] = self._members.on(replay.channel, (replay.subscriber,))
        if found is not None:
            replay.add_backlog(found)
            if not replay.is_stranded():
                if not replay.has_begun:
                    self._observer.resumed("bus")
                replay.ready = True
                self._slow_consumers.to_pull.append(replay.subscriber)
                self._slow_consumers.send_pulled()
                return
            if replay.rounds < FETCH_ROUNDS and self._fetch(replay):
                return
        if replay.has_begun:
            self._slow_consumers.end(replay.subscriber, "history")
        else:
            self._give_up(subscription)

    def _wait(self, subscription: Subscription, since: Since, lacking: int) -> None:
        """Another instance was a little further. If this one comes no nearer, it is the future."""
        now = self._clock()
        lag = subscription.state.lag if isinstance(subscription.state, Waiting) else None
        if lag is None:
            subscription.wait(since, Lag.begin(lacking, now))
            self._ahead[subscription] = None
        elif lacking < lag.records:
            subscription.wait(since, lag.come_to(lacking, now))

    def _fetch(self, replay: Replay) -> bool:
        """Ask for what the history no longer has; False if it will not be fetched."""
        replay.ready = False
        return self.missed_records is not None and self.missed_records(replay, replay.ask())

    def _give_up(self, subscription: Subscription) -> None:
        self._observer.resumed("not_recovered")
        self._first_notifications.send_unrecovered(subscription)

    def _replay(self, subscription: Subscription, since: Since) -> Replay:
        assert isinstance(subscription.channel, LosslessChannel)
        return Replay(subscription.channel, subscription.subscriber, since, self._epoch())

    def _is_served(self, channel: Channel) -> bool:
        return self._partitions.are_served(channel.partitions())
