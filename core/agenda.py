"""When each channel has to be looked at next: conflated news, and heartbeats."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Final

from core.lines import Line

HEARTBEAT_SECONDS: Final = 5.0
# A heartbeat that could not be said when it was due is not tried in every beat.
RETRY_SECONDS: Final = 0.25


class Agenda:
    """Channels by the moment at which they are due; `line.due` is that moment, or None. Seconds of one clock."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Line]] = []
        # Of two that are due at once, the first that was scheduled; lines have no order.
        self._ticket = count()

    def schedule(self, line: Line, now: float) -> None:
        """Note when there is something to say on it, unless it is due before that already."""
        if not line.dirty and line.due is not None:
            return  # a heartbeat that is scheduled already; it finds out by itself when it is due
        moments = []
        if line.dirty:
            moments.append(line.next_news_at)
        if line.heartbeats and not line.stale:
            moments.append(max(line.said_at + HEARTBEAT_SECONDS, now + RETRY_SECONDS))
        due = min(moments, default=None)
        if due is not None and (line.due is None or due < line.due):
            line.due = due
            heapq.heappush(self._due, (due, next(self._ticket), line))

    def take_due(self, now: float) -> Iterator[Line]:
        """Each that is due and has somebody to be told, off the agenda."""
        while self._due and self._due[0][0] <= now:
            due, _, line = heapq.heappop(self._due)
            if line.due == due and line.has_subscribers():
                line.due = None
                yield line
