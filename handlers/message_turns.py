"""Whose messages are served when: who sends little at once, and of those who send much one at a time.

What a message costs before it is refused, its client decides: a subscription to hundreds of channels takes milliseconds to be
read. So it is not counted but timed. However many clients send all they can, whoever does not waits for one slice of one of
them at most.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

# What a connection may take of the loop at once, and in the long run, without waiting for its turn.
FREE_SECONDS: Final = 0.001
FREE_SHARE: Final = 0.05
# More than this no message is taken to have cost, unless it is a long one: the process was not running then.
MOST_SECONDS: Final = 0.00025
# What a turn lasts; a message that has begun is served whole.
TURN_SECONDS: Final = 0.002
# A message of so many bytes waits for a turn whoever sends it: it alone may take longer than one.
LONG_BYTES: Final = 1024


class MessageTurns:
    """The queue of the connections that have had their share, one for a process."""

    def __init__(self, schedule: Callable[[Callable[[], None]], object] | None = None) -> None:
        """`schedule` calls what it is given as soon as the loop has nothing else to do; without one, in the next turn."""
        self._schedule = schedule
        self._waiting: deque[asyncio.Future[None]] = deque()

    def next(self) -> asyncio.Future[None]:
        """Done when it is the turn of who asks, after all who asked before."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if len(self._waiting) == 1:
            self._go_on_later()
        return future

    def _go_on_later(self) -> None:
        if self._schedule is None:
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._schedule(self._go_on)

    def _go_on(self) -> None:
        future = self._waiting.popleft()
        if not future.done():  # who has left does not come back for it
            future.set_result(None)
        if self._waiting:
            self._go_on_later()


class MessageShare:
    """What one connection has taken of the loop."""

    __slots__ = ("_clock", "_paid_at", "_turn_ends", "_turns")

    def __init__(self, turns: MessageTurns, clock: Callable[[], float] = time.monotonic) -> None:
        self._turns = turns
        self._clock = clock
        # When all that it has taken is paid for, at its share of the time.
        self._paid_at = 0.0
        self._turn_ends = 0.0

    def turn(self, size: int) -> asyncio.Future[None] | None:
        """What a message of so many bytes has to wait for first, if anything."""
        now = self._clock()
        if now < self._turn_ends or (size < LONG_BYTES and self._paid_at - now <= FREE_SECONDS / FREE_SHARE):
            return None
        return self._turns.next()

    def begin_turn(self) -> None:
        """It has been waited for."""
        self._turn_ends = self._clock() + TURN_SECONDS

    def begin(self) -> float:
        """A message is being served; for `end`."""
        return self._clock()

    def end(self, began: float) -> None:
        """It is served, or under way without the loop."""
        self._paid_at = max(self._paid_at, began) + min(self._clock() - began, MOST_SECONDS) / FREE_SHARE
