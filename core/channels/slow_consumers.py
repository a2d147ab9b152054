"""Those whose sockets are full: what is told of states is skipped, and pulled as the socket drains; who never reads is ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from core.channels.channel import Channel
from core.channels.membership import Membership
from core.channels.replay import Replay
from core.channels.subscription import Behind, Replaying, Subscription
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.observer import Observer
from core.delivery.outbox import Conflatable, Offer, Tag
from core.delivery.subscriber import Subscriber
from core.errors import CloseCode
from core.market.partitions import Partitions

STUCK_SECONDS = 30.0
SWEEP_SECONDS = 5.0


class SlowConsumers:
    """What is pulled: snapshots by those who fell behind, and replays. See `Behind` and `Replaying`."""

    def __init__(
        self,
        members: Membership,
        partitions: Partitions,
        fanout: Fanout,
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._members = members
        self._partitions = partitions
        self._fanout = fanout
        self._clock = clock
        self._observer = observer
        self._next_sweep = clock() + SWEEP_SECONDS
        # Who has something to pull from now on: whoever is done with saying things calls `send_pulled`.
        self.to_pull: list[Subscriber] = []
        # Is told who gets what is said from now on.
        self.on_settled: Callable[[Subscription], None] = lambda _subscription: None
        # Has what a replay lacks fetched from the bus; False if it will not be.
        self.fetch: Callable[[Replay], bool] = lambda _replay: False

    def did_not_take(self, subscriber: Subscriber, outcome: Offer, tag: Tag) -> None:
        """Somebody was sent what this tag says, and did not take it."""
        if outcome is Offer.CONFLATED:
            assert isinstance(tag, Conflatable)
            self.mark_behind(subscriber, (tag,))
        elif outcome is Offer.OVERFLOW:
            self.end(subscriber, "overflow")
        else:
            self._members.remove(subscriber)

    def mark_behind(self, subscriber: Subscriber, refused: Iterable[Conflatable]) -> None:
        """What channels said with these tags did not reach a connection, or had to make room in its outbox."""
        for tag in refused:
            channel = tag.source
            assert isinstance(channel, Channel)
            if subscriber in channel.settled:
                [subscription] = self._members.on(channel, (subscriber,))
                self.withdraw(subscription, tag)  # the snapshot that it is owed now has all of that
                subscription.fall_behind()
                self._observer.conflated(channel.name.kind)

    def withdraw(self, subscription: Subscription, refused: Conflatable | None = None) -> None:
        """What its channel said and has not gone out does not reach it any more; it is known what its client holds instead.

        So only whoever is settled has something of a conflatable channel waiting, and all of that is behind its last snapshot.
        """
        if not subscription.channel.lossless:
            subscription.lack(self._fanout.drop(subscription.subscriber, subscription.channel, refused))

    def end(self, subscriber: Subscriber, cause: str) -> None:
        """Close the connection."""
        self._observer.slow_closed(cause)
        self._members.remove(subscriber)
        subscriber.end(CloseCode.SLOW_CONSUMER, "slow consumer")

    def sweep(self, now: float) -> None:
        """From time to time, end those to whom nothing has gone for long."""
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            for subscriber in tuple(self._members.subscribers):
                if subscriber.outbox.is_stuck(now, STUCK_SECONDS):
                    self.end(subscriber, "stuck")

    # Pulling.

    def send_pulled(self) -> None:
        """Let those pull who have something to pull since, as far as their sockets take it.

        Not in the middle of a publication: the history already has what some channels have yet to say, and whoever caught
        up there would get it twice.
        """
        while self.to_pull:
            self.to_pull.pop().outbox.send_pulled()

    def pull(self, subscriber: Subscriber) -> bytes | None:
        """The next frames of what a connection pulls as its socket drains, behind what it was told before."""
        self._fanout.catch_up(subscriber)
        listener = self._members.listener(subscriber)
        if listener is None:
            return None
        for subscription in tuple(listener.behind):
            if isinstance(subscription.state, Behind):
                texts = self._snapshot(subscription, subscription.state.head)
                if texts:
                    return self._frames(texts)
        for subscription in tuple(listener.pulling):
            if isinstance(subscription.state, Replaying):
                texts = self._replayed(subscription, subscription.state.replay)
                if texts:
                    return self._frames(texts)
        return None

    def _snapshot(self, subscription: Subscription, head: bytes | None) -> list[bytes]:
        """What one is owed who fell behind; from then on it gets what is said."""
        channel = subscription.channel
        if channel.lossless and not self._partitions.are_served(channel.partitions()):
            return []  # nothing is known to make a snapshot of; it is owed until there is
        is_first = head is not None
        if channel.stale:
            texts = [channel.stale_text()]
            subscription.tell_stale()
        else:
            # A state is owed whole: a slow reader would fall behind again before it had all parts, and again.
            texts = subscription.opening_texts() if channel.lossless else subscription.snapshot_texts(not is_first)
            subscription.settle()
            self.on_settled(subscription)
        if not texts and is_first:
            texts = [channel.empty_text()]
        return [(head or b"{") + texts[0], *(b"{" + text for text in texts[1:])] if texts else []

    def _replayed(self, subscription: Subscription, replay: Replay) -> list[bytes]:
        if replay.ready and replay.is_stranded() and not self.fetch(replay):
            self.end(subscription.subscriber, "history")
        texts = replay.pull()
        if replay.done:
            subscription.settle()
            self.on_settled(subscription)
        return texts

    def _frames(self, texts: list[bytes]) -> bytes:
        frames = Bundle(texts, private=True).plain
        self._observer.delivered(1, len(frames), len(texts))
        return frames
