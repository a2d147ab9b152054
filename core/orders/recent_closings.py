"""Orders that closed lately, for who comes back to `account.orders`: the snapshot of the open ones has them no more.

Of each beat's it is known how far the market topic had been read by its end. Who had been told up to there was told of them;
who had not is told, and perhaps once too often.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from core.orders.order import Order

MOST_CLOSINGS: Final = 10_000


class RecentClosings:
    """The last ones of all users."""

    def __init__(
        self,
        folded_to: Callable[[], Mapping[int, int]],
        read_back_to: Callable[[], Mapping[int, int]],
        seq: Callable[[], Mapping[int, int]],
        most: int = MOST_CLOSINGS,
    ) -> None:
        """By partition of the market topic, the last event of an order that was folded in, the last one that was no news, and
        up to where all is known.
        """
        self._folded_to = folded_to
        self._read_back_to = read_back_to
        self._seq = seq
        self._most = most
        self._count = 0
        self._now: list[Order] = []
        self._beats: deque[tuple[Mapping[int, int], list[Order]]] = deque()
        # Those of before this are not known.
        self._dropped_to: Mapping[int, int] = {}

    def note(self, order: Order) -> None:
        """An order's state changed."""
        if order.is_closed and order.user_id is not None:
            self._now.append(order)

    def end_beat(self) -> None:
        """What has been read is folded in."""
        if not self._now:
            return
        self._beats.append((dict(self._folded_to()), self._now))
        self._count += len(self._now)
        self._now = []
        while self._count > self._most:
            self._dropped_to, dropped = self._beats.popleft()
            self._count -= len(dropped)

    def since(self, user_id: str, positions: Mapping[int, int]) -> list[Order] | None:
        """A user's orders that closed behind these offsets, in that order; None where some may be missing, or if those are ahead."""
        self.end_beat()
        seq = self._seq()
        is_ahead = any(at > seq.get(partition, -1) for partition, at in positions.items())
        if is_ahead or not (_are_past(positions, self._dropped_to) and _are_past(positions, self._read_back_to())):
            return None
        return [
            order
            for told_to, orders in self._beats
            if not _are_past(positions, told_to)
            for order in orders
            if order.user_id == user_id
        ]


def _are_past(positions: Mapping[int, int], others: Mapping[int, int]) -> bool:
    return all(positions.get(partition, -1) >= offset for partition, offset in others.items())
