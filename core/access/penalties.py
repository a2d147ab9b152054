"""Who was thrown out for flooding, and for how long it stays out (docs/contract.md#limits)."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

MAX_KEYS = 100_000


class Penalties:
    """Penalties of one length, by key: a user, an address. 0 seconds: there are none.

    Memory is bounded: beyond `max_keys` the one that ends first is forgotten, in the caller's favour.
    """

    __slots__ = ("_clock", "_max_keys", "_until", "seconds")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS) -> None:
        self.seconds = seconds
        self._clock = clock
        self._max_keys = max_keys
        # All are of one length, so they end in the order in which they were put here.
        self._until: dict[Hashable, float] = {}

    def __len__(self) -> int:
        """How many are remembered; those that are over are among them until the next is given."""
        return len(self._until)

    def give(self, key: Hashable) -> None:
        """From now on, anew if there is one."""
        if not self.seconds:
            return
        now = self._clock()
        self._until.pop(key, None)
        while self._until and (len(self._until) >= self._max_keys or self._until[next(iter(self._until))] <= now):
            del self._until[next(iter(self._until))]
        self._until[key] = now + self.seconds

    def left(self, key: Hashable) -> float:
        """Seconds that are left of the key's; 0.0 if it has none."""
        until = self._until.get(key)
        return 0.0 if until is None else max(0.0, until - self._clock())
