"""Who comes back to one of an account's channels ahead of this instance is kept waiting while that comes nearer.

It may have come from another one that is a little faster. See `core.market.lag` for how long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from core.delivery.subscriber import Subscriber
from core.market.lag import MAX_AHEAD_RECORDS, Lag


class AccountPosition(NamedTuple):
    """Where who comes back stopped: the last offset of each partition of the market topic, and the life of it, if that was said."""

    positions: Mapping[int, int]
    epoch: str | None = None


class _Waiting(NamedTuple):
    since: AccountPosition
    lag: Lag
    go_on: Callable[[], object]


class Ahead:
    """Those who wait, of one channel."""

    def __init__(
        self, seq: Callable[[], Mapping[int, int]], epoch: Callable[[], str], clock: Callable[[], float]
    ) -> None:
        """`seq`: by partition of the market topic, how far this instance is; `epoch` names that topic's life; `clock`: seconds."""
        self._seq = seq
        self._epoch = epoch
        self._clock = clock
        self._waiting: dict[Subscriber, _Waiting] = {}

    def waits(self, subscriber: Subscriber, since: AccountPosition | None, go_on: Callable[[], object]) -> bool:
        """Whether it has to wait; then `go_on` is called once it can be told, or need not wait any longer."""
        self._waiting.pop(subscriber, None)
        # Of a seq alone nobody knows whether it is of this life.
        if since is None or since.epoch is None or since.epoch != self._epoch():
            return False
        lacking = self._lacking(since)
        if not 0 < lacking <= MAX_AHEAD_RECORDS:
            return False
        self._waiting[subscriber] = _Waiting(since, Lag.begin(lacking, self._clock()), go_on)
        return True

    def forget(self, subscriber: Subscriber) -> None:
        """It waits no more. Harmless when repeated."""
        self._waiting.pop(subscriber, None)

    def look(self) -> None:
        """Whether this instance has come as far as one of them, or has not come nearer for too long."""
        for subscriber, (since, lag, go_on) in tuple(self._waiting.items()):
            lacking, now = self._lacking(since), self._clock()
            lag = lag.come_to(lacking, now)
            if lacking and since.epoch == self._epoch() and now < lag.gives_up_at:
                self._waiting[subscriber] = _Waiting(since, lag, go_on)
            else:
                self.forget(subscriber)
                go_on()

    def _lacking(self, since: AccountPosition) -> int:
        seq = self._seq()
        return sum(max(0, at - seq.get(partition, -1)) for partition, at in since.positions.items())
