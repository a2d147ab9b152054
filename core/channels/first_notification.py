"""A subscription's first notification: a snapshot, or that there is none, with the name of the epoch in front."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from core.channels.channel import Channel
from core.channels.lossless_channels import AllEventsChannel, LosslessChannel
from core.channels.subscription import NEW, SETTLED, New, Subscription, ToldStale
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT
from core.delivery.subscriber import Subscriber
from core.market.partitions import Partitions

# The books of the stream, and of `events`, are sent to who joins in pieces of this size, or of one book.
SENT_AT_ONCE_BYTES: Final = 32_768
BOOKS_AT_ONCE: Final = 64


class FirstNotifications:
    """Sends them, once there is something to send."""

    def __init__(self, partitions: Partitions, fanout: Fanout, epoch: Callable[[], str]) -> None:
        self._partitions = partitions
        self._fanout = fanout
        self._epoch = epoch
        # Has pieces of work done for one, in turns with that of others and not at once.
        self.do_in_pieces: Callable[[Subscriber, Iterator[None]], object] = lambda _subscriber, _pieces: None

    def send(self, subscription: Subscription) -> None:
        """To one that is new, if there is something to show yet; else it stays new."""
        channel = subscription.channel
        subscription.has_had_turn = True
        if channel.stale:
            bundle = Bundle([self._head() + channel.stale_text()], private=True)
            subscription.tell_stale()
            self._fanout.send(bundle, (subscription.subscriber,))
        elif isinstance(channel, AllEventsChannel):
            self._begin_with_books(subscription, channel, self._head())
        elif channel.is_known() and (channel.is_overview or self._partitions.are_served(channel.partitions())):
            texts = channel.opening_texts() if channel.is_overview else subscription.snapshot_texts()
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
                if isinstance(channel, AllEventsChannel):
                    for subscription in belated:
                        self.send_books(subscription, channel.books_of(channel.partitions()))

    def send_unrecovered(self, subscription: Subscription) -> None:
        """What it missed cannot be had: the whole state, and that it is not the same as what was missed."""
        channel = subscription.channel
        head = self._head(b'"recovered":false,')
        if not isinstance(channel, AllEventsChannel):
            self._send_or_owe(subscription, channel.snapshot_texts() or [channel.empty_text()], head)
        elif not self._begin_with_books(subscription, channel, head):
            self._settle([channel.empty_text()], (subscription,), head)

    def _begin_with_books(self, subscription: Subscription, channel: AllEventsChannel, head: bytes) -> bool:
        """The first of the books at once, the others when there is time; False if there is none."""
        if subscription.subscriber.outbox.waiting_bytes:
            subscription.fall_behind(head)
            return True
        texts = self.first_book(subscription, channel)
        if texts:
            self._settle(texts, (subscription,), head)
        return bool(texts)

    def first_book(self, subscription: Subscription, channel: AllEventsChannel) -> list[bytes]:
        """The snapshot to begin with, if there is one; the others follow once it gets what is said."""
        symbols = channel.books_of(channel.partitions())
        subscription.books_to_come = dict.fromkeys(symbols[1:])
        self.go_on(subscription)
        return channel.book_texts(symbols[0]) if symbols else []

    def send_books(self, subscription: Subscription, symbols: Iterable[str]) -> None:
        """To one who gets what is said on `events`: books in pieces, each behind what was said before it."""
        subscription.books_to_come = {**(subscription.books_to_come or {}), **dict.fromkeys(symbols)}
        self.go_on(subscription)

    def go_on(self, subscription: Subscription) -> None:
        """It gets what is said, or will by the next turn: the books that are to come follow."""
        if subscription.books_to_come and not subscription.is_sent_books:
            subscription.is_sent_books = True
            self.do_in_pieces(subscription.subscriber, self._books(subscription))

    def _books(self, subscription: Subscription) -> Iterator[None]:
        channel = subscription.channel
        assert isinstance(channel, AllEventsChannel)
        # Who has to go back to where a partition was left gets the others when it has come from there.
        while subscription.state is SETTLED:
            to_come = subscription.books_to_come or {}
            texts, size = list[bytes](), 0
            for symbol in list(islice(filter(channel.is_served, to_come), BOOKS_AT_ONCE)):
                del to_come[symbol]
                for text in channel.book_texts(symbol):
                    texts.append(b"{" + text)
                    size += len(text)
                if size >= SENT_AT_ONCE_BYTES:
                    break
            if not texts:
                break
            self._fanout.send(Bundle(texts, private=True), (subscription.subscriber,), EXEMPT)
            yield
        subscription.is_sent_books = False

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

    def _send_or_owe(self, subscription: Subscription, texts: list[bytes], head: bytes) -> None:
        """Snapshots must not pile up before a full socket: there they are owed."""
        if subscription.subscriber.outbox.waiting_bytes:
            subscription.fall_behind(head)
        else:
            self._settle(texts, (subscription,), head)

    def _head(self, recovered: bytes = b"") -> bytes:
        return b'{"epoch":' + json.dumps(self._epoch()).encode() + b"," + recovered
