"""Who is served next of the conflatable channels that have something to say, when there is no time for all of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

from core.channels.channel import Channel

# How long the only channel of one client stands back for those that are due later, and how long at most any channel does.
LENIENCY_SECONDS: Final = 0.001
MOST_LENIENCY_SECONDS: Final = 1.0


class Backlog:
    """Channels in the order of the moment since which each is due, put off by a millisecond for a weight of 1, and the longer the
    less it weighs, but by no more than a second.

    The weight is the number of subscribers, each divided by the number of channels that it asks for: so what many want goes
    first, then what has waited longest, and a client that asks for a thousand channels is not served a thousand times
    before one that asks for one. Nobody starves: all that is due later than a second after some channel comes behind it.
    """

    def __init__(self, weight: Callable[[Channel], float]) -> None:
        self._weight = weight
        self._waiting: list[tuple[float, int, Channel]] = []
        # Of two with the same moment, the first that came; channels have no order.
        self._ticket = count()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, channel: Channel, due: float) -> None:
        """A channel is due since then, unless it waits already."""
        if channel.waits:
            return
        channel.waits = True
        weight = self._weight(channel)
        leniency = LENIENCY_SECONDS / weight if weight else MOST_LENIENCY_SECONDS
        heapq.heappush(self._waiting, (due + min(leniency, MOST_LENIENCY_SECONDS), next(self._ticket), channel))

    def pop(self) -> Channel:
        """The next one; it waits no more."""
        channel = heapq.heappop(self._waiting)[2]
        channel.waits = False
        return channel
