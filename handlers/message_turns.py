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
# What a turn lasts, which is as long as some 16 KiB of orders take; a message that has begun is served whole.
TURN_SECONDS: Final = 0.003
# A message of so many bytes waits for a turn whoever sends it: it alone may take longer than one.
LONG_BYTES: Final = 1024


class MessageTurns:
    """The queue of the connections that have had their share, one for a process."""

    def __init__(self, schedule: Callable[[Callable[[], None]], object] | None = None) -> None:
        """`schedule` calls what it is given when the loop has nothing else to do; without one, in the next turn of the loop.

        Who is alone is given the next turn of the loop anyway: between two of its own everybody else has one.
        """
        self._schedule = schedule
        self._waiting: deque[asyncio.Future[None]] = deque()

    def next(self) -> asyncio.Future[None]:
        """Done when it is the turn of who asks, after all who asked before."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._go_on)
        return future

    def _go_on(self) -> None:
        future = self._waiting.popleft()
        if not future.done():  # who has left does not come back for it
            future.set_result(None)
        if self._waiting:
            (self._schedule or asyncio.get_running_loop().call_soon)(self._go_on)


class MessageShare:
    """What one connection has taken of the loop."""

    __slots__ = ("_paid_at", "_turns", "clock", "turn_left")

    def __init__(self, turns: MessageTurns, clock: Callable[[], float] = time.monotonic) -> None:
        self._turns = turns
        self.clock = clock
        # When all that it has taken is paid for, at its share of the time.
        self._paid_at = 0.0
        self.turn_left = 0.0

    def turn(self, size: int, now: float) -> asyncio.Future[None] | None:
        """What a message of so many bytes has to wait for first, if anything. `now` is by `clock`."""
        if self.turn_left > 0 or (size < LONG_BYTES and self._paid_at - now <= FREE_SECONDS / FREE_SHARE):
            return None
        return self._turns.next()

    def begin_turn(self) -> None:
        """It has been waited for."""
        self.turn_left = TURN_SECONDS

    def end_turn(self) -> None:
        """There is nothing more to be served now."""
        self.turn_left = 0.0

    def end(self, began: float, size: int) -> None:
        """It is served, or under way without the loop; `began` is by `clock`."""
        took = self.clock() - began
        if took > MOST_SECONDS and size < LONG_BYTES:
            took = MOST_SECONDS
        self.turn_left -= took
        self._paid_at = max(self._paid_at, began) + took / FREE_SHARE
