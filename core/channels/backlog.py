"""Who is served next of the conflatable channels that have something to say, when there is no time for all of them."""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final

from core.channels.channel import Channel
from core.delivery.subscriber import Subscriber

# Of a channel with more subscribers than these nobody has to wait for his others; more than so many count as so many.
FEW_SUBSCRIBERS: Final = 16
MOST_SUBSCRIBERS: Final = 32
# So many subscribers' places are kept before those that are past are looked for.
MOST_PLACES: Final = 1024


class Backlog:
    """Channels by turns of their clients, so that a client that asks for a thousand is not served a thousand times before
    one that asks for one.

    A channel is placed one turn behind what its subscriber waits for already; the turn is shared by its subscribers, and it
    gets the best place that one of them has: so what many want goes first. Of one client what has waited longest goes first.
    Nobody starves: a place stays as it is, and whatever is added later is placed behind what is being served then, by a
    `MOST_SUBSCRIBERS`th of a turn at least.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Channel]] = []
        # Of two at one place, the first that came; channels have no order.
        self._ticket = count()
        # The place of what was served last, and of the last that each subscriber waits for.
        self._served = 0.0
        self._places: dict[Subscriber, float] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, channel: Channel) -> None:
        """A channel is due, unless it waits already."""
        if channel.waits:
            return
        channel.waits = True
        heapq.heappush(self._waiting, (self._place(channel), next(self._ticket), channel))

    def _place(self, channel: Channel) -> float:
        crowds = (channel.settled, channel.awaiting, channel.pulling)
        subscribers = sum(map(len, crowds))
        served = self._served
        if not 0 < subscribers <= FEW_SUBSCRIBERS:
            return served + 1 / min(max(subscribers, 1), MOST_SUBSCRIBERS)
        places = self._places
        share = 1 / subscribers
        everyone = [one for crowd in crowds for one in crowd]
        best = min(max(served, places.get(one, 0.0)) for one in everyone) + share
        for one in everyone:
            # Nobody pays more for it than its place: else who shares what is served often would wait ever longer for the rest.
            places[one] = max(best, places.get(one, 0.0))
        if len(places) > MOST_PLACES:
            self._places = {one: place for one, place in places.items() if place > served}
        return best

    def pop(self) -> Channel:
        """The next one; it waits no more."""
        self._served, _, channel = heapq.heappop(self._waiting)
        channel.waits = False
        if not self._waiting:
            self._served = 0.0
            self._places.clear()
        return channel
