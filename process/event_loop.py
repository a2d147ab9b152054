"""asyncio's loop with a bound on what one turn takes in.

asyncio asks the kernel for all sockets that are ready and serves each before it looks at its timers: when 15,000 clients left
at once, that was one turn of three seconds, in which no record and no order went out. What is left over comes with the
next turn; the kernel hands out by turns who waits (epoll(7)).
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable

EVENTS_PER_TURN = 64


class _FewAtATime:
    """An epoll that tells of a few sockets at a time."""

    def __init__(self) -> None:
        epoll = select.epoll()
        self._poll = epoll.poll
        self.register = epoll.register
        self.modify = epoll.modify
        self.unregister = epoll.unregister
        self.fileno = epoll.fileno
        self.close = epoll.close

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """Descriptors and what they are ready for."""
        return self._poll(timeout, min(most, EVENTS_PER_TURN))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """For `asyncio.Runner`; None: its own loop will do."""
    # Where the standard library has come to build its selector in another way, it is left alone.
    if not hasattr(select, "epoll") or not hasattr(selectors.EpollSelector, "_selector_cls"):
        return None

    class Selector(selectors.EpollSelector):
        _selector_cls = _FewAtATime

    return lambda: asyncio.SelectorEventLoop(Selector())
