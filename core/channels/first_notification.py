"""A subscription's first notification: a snapshot, or that there is none, with the name of the epoch in front."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from core.channels.channel import Channel
from core.channels.lossless_channels import LosslessChannel
from core.channels.subscription import NEW, SETTLED, New, Subscription, ToldStale
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, Conflatable
from core.delivery.subscriber import Subscriber
from core.market.partitions import Partitions


class FirstNotifications:
    """Sends them, once there is something to send."""

    def __init__(self, partitions: Partitions, fanout: Fanout, epoch: Callable[[], str]) -> None:
        self._partitions = partitions
        self._fanout = fanout
        self._epoch = epoch
        # Has pieces of work done for one, in turns with that of others and not at once.
        self.do_in_pieces: Callable[[Subscriber, Iterator[None]], object] = lambda _subscriber, _pieces: None
        # Somebody's socket is full: it is owed whole what these tags are of.
        self.mark_behind: Callable[[Subscriber, Iterable[Conflatable]], None] = lambda _subscriber, _tags: None

    def send(self, subscription: Subscription) -> None:
        """To one that is new, if there is something to show yet; else it stays new."""
        channel = subscription.channel
        subscription.has_had_turn = True
        if channel.stale:
            bundle = Bundle([self._head() + channel.stale_text()], private=True)
            subscription.tell_stale()
            self._fanout.send(bundle, (subscription.subscriber,))
        elif channel.is_known() and (channel.is_overview or self._partitions.are_served(channel.partitions())):
            texts = subscription.opening_texts()
            if texts:
                self._send_or_owe(subscription, texts, self._head() if subscription.state is NEW else b"{")

    def send_to_all(self, channel: Channel, subscriptions: Iterable[Subscription]) -> None:
        """To those that are new, or have been told that nothing can be trusted, right after a `take`."""
        new, told_stale, belated = list[Subscription](), list[Subscription](), list[Subscription]()
        for subscription in subscriptions:
            crowd = {New: new, ToldStale: told_stale}.get(type(subscription.state))
            if crowd is None:
                continue
            if isinstance(channel, LosslessChannel) and not subscription.has_had_turn:
                belated.append(subscription)
                continue
            is_as_others = subscription.begins and channel.name.text not in subscription.listener.held
            if channel.lossless or is_as_others:
                crowd.append(subscription)
            else:
                self.send(subscription)
        for crowd, head in ((new, self._head()), (told_stale, b"{")):
            texts = channel.first_texts() if crowd else []
            if texts:
                self._settle(texts, crowd, head)
        if belated and isinstance(channel, LosslessChannel):
            texts = channel.belated_texts()
            if texts:
                self._settle(texts, belated, self._head())
                symbols = channel.symbols_in_parts(channel.partitions())
                for subscription in belated:
                    self.send_parts(subscription, symbols)

    def send_unrecovered(self, subscription: Subscription) -> None:
        """What it missed cannot be had: the whole state, and that it is not the same as what was missed."""
        texts = subscription.opening_texts() or [subscription.channel.empty_text()]
        self._send_or_owe(subscription, texts, self._head(b'"recovered":false,'))

    def send_parts(self, subscription: Subscription, symbols: Iterable[str]) -> None:
        """To one who gets what is said: of these symbols, too, a part of the snapshot."""
        subscription.to_come = {**(subscription.to_come or {}), **dict.fromkeys(symbols)}
        self.go_on(subscription)

    def go_on(self, subscription: Subscription) -> None:
        """It gets what is said: the parts that are to come follow when there is time, each behind what was said before it."""
        if subscription.to_come and not subscription.is_sent_parts:
            subscription.is_sent_parts = True
            self.do_in_pieces(subscription.subscriber, self._parts(subscription))

    def _parts(self, subscription: Subscription) -> Iterator[None]:
        channel, subscriber = subscription.channel, subscription.subscriber
        # Who has to go back to where a partition was left gets the others when it has come from there.
        while subscription.state is SETTLED and subscription.to_come:
            if subscriber.outbox.waiting_bytes and not channel.lossless:
                self.mark_behind(subscriber, (Conflatable(channel),))
                break
            # Written now: one from before this turn would undo what was said meanwhile.
            texts = channel.next_part(subscription.to_come)
            if not texts:
                break
            self._fanout.send(Bundle([b"{" + text for text in texts], private=True), (subscriber,), EXEMPT)
            yield
        subscription.is_sent_parts = False

    def _settle(self, texts: list[bytes], subscriptions: Sequence[Subscription], head: bytes) -> None:
        """A first notification and what comes with it; from now on they get what is said."""
        bundle = Bundle([head + texts[0], *(b"{" + text for text in texts[1:])], private=True)
        for subscription in subscriptions:
            subscription.settle()
        subscribers = [subscription.subscriber for subscription in subscriptions]
        if len(subscribers) == 1:
            self._fanout.send(bundle, subscribers, EXEMPT)
        else:
            self._fanout.gather(bundle, subscribers, EXEMPT)
        for subscription in subscriptions:
            self.go_on(subscription)

    def _send_or_owe(self, subscription: Subscription, texts: list[bytes], head: bytes) -> None:
        """Snapshots must not pile up before a full socket: there they are owed."""
        if subscription.subscriber.outbox.waiting_bytes:
            subscription.fall_behind(head)
        else:
            self._settle(texts, (subscription,), head)

    def _head(self, recovered: bytes = b"") -> bytes:
        return b'{"epoch":' + json.dumps(self._epoch()).encode() + b"," + recovered
