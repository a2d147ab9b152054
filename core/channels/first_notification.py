"""A subscription's first notification: a snapshot, or that there is none, with the name of the epoch in front."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence

from core.channels.channel import Channel
from core.channels.subscription import Subscription
from core.delivery.fanout import Fanout
from core.delivery.frames import Bundle
from core.delivery.outbox import EXEMPT, LOSSLESS
from core.market.partitions import Partitions


class FirstNotifications:
    """Sends them, once there is something to send."""

    def __init__(self, partitions: Partitions, fanout: Fanout, epoch: Callable[[], str]) -> None:
        self._partitions = partitions
        self._fanout = fanout
        self._epoch = epoch

    def send(self, subscription: Subscription) -> None:
        """To one that is new, if there is something to show yet; else it stays new."""
        channel = subscription.channel
        if channel.stale:
            self.settle(channel, [channel.stale_text()], (subscription,))
        elif channel.is_known() and self._partitions.are_served(channel.partitions()):
            texts = channel.snapshot_texts()
            if texts:
                self._send_or_owe(subscription, texts, self._head())

    def send_unrecovered(self, subscription: Subscription) -> None:
        """What it missed cannot be had: the whole state, and that it is not the same as what was missed."""
        channel = subscription.channel
        texts = channel.snapshot_texts() or [channel.empty_text()]
        self._send_or_owe(subscription, texts, self._head(b'"recovered":false,'))

    def settle(
        self,
        channel: Channel,
        texts: list[bytes],
        subscriptions: Sequence[Subscription],
        tag: Hashable = LOSSLESS,
        head: bytes | None = None,
    ) -> None:
        """A first notification and what comes with it; from now on they get what is said."""
        bundle = Bundle([(head or self._head()) + texts[0], *(b"{" + text for text in texts[1:])], private=True)
        for subscription in subscriptions:
            subscription.settle()
        subscribers = [subscription.subscriber for subscription in subscriptions]
        if len(subscribers) == 1:
            self._fanout.send(bundle, subscribers, tag)
        else:
            self._fanout.gather(bundle, subscribers, tag)

    def _send_or_owe(self, subscription: Subscription, texts: list[bytes], head: bytes) -> None:
        """Snapshots must not pile up before a full socket: there they are owed."""
        if subscription.subscriber.outbox.waiting_bytes:
            subscription.fall_behind(head)
        else:
            self.settle(subscription.channel, texts, (subscription,), EXEMPT, head)

    def _head(self, recovered: bytes = b"") -> bytes:
        return b'{"epoch":' + json.dumps(self._epoch()).encode() + b"," + recovered
