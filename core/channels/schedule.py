"""When each channel has to be looked at next: conflated news, and heartbeats."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Final

from core.channels.channel import Channel

HEARTBEAT_SECONDS: Final = 5.0
# A heartbeat that could not be said when it was due is not tried in every beat.
RETRY_SECONDS: Final = 0.25


class Schedule:
    """Channels by the moment at which they are due; `channel.due` is that moment, or None. Seconds of one clock."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Channel]] = []
        # Of two that are due at once, the first that was scheduled; channels have no order.
        self._ticket = count()

    def schedule(self, channel: Channel, now: float) -> None:
        """Note when there is something to say on it, unless it is due before that already."""
        if not channel.dirty and channel.due is not None:
            return  # a heartbeat that is scheduled already; it finds out by itself when it is due
        moments = []
        if channel.dirty:
            moments.append(channel.next_news_at)
        if channel.heartbeats and not channel.stale:
            moments.append(max(channel.said_at + HEARTBEAT_SECONDS, now + RETRY_SECONDS))
        due = min(moments, default=None)
        if due is not None and (channel.due is None or due < channel.due):
            channel.due = due
            heapq.heappush(self._due, (due, next(self._ticket), channel))

    def take_due(self, now: float) -> Iterator[Channel]:
        """Each that is due and has somebody to be told, off the schedule."""
        while self._due and self._due[0][0] <= now:
            due, _, channel = heapq.heappop(self._due)
            if channel.due == due and channel.has_subscribers():
                channel.due = None
                yield channel
