"""The orders of connections that have ended, cancelled once their time has come, unless somebody has come back until then.

Whoever cancels reads the topic to its end first, and repeats an attempt until each cancel is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from core.background_tasks import BackgroundTasks
from core.errors import RequestError
from core.log_throttle import QuietLog
from core.messages.control_records import Held

log = logging.getLogger("gateway.control")

RETRY_SECONDS: Final = 0.5
# Connections whose orders are cancelled at the same time.
AT_ONCE: Final = 32
NEVER: Final = float("inf")


class DueCancels:
    """When each connection's orders are to be cancelled. Iterates over the connections' names."""

    def __init__(
        self,
        tasks: BackgroundTasks,
        *,
        over: Callable[[str], Held | None],
        has_heir: Callable[[str], bool],
        to_end: Callable[[], Awaitable[None]],
        cancel: Callable[[str, Held], Awaitable[int]],
        on_cancelled: Callable[[str], None],
        count: Callable[[str], None],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """`over` is what is known of a connection that has ended; None if it has not. `has_heir`: whether somebody has come back.

        `to_end` waits until all is read that is there, `cancel` tells how many orders; both raise RequestError. `on_cancelled` is
        told of a connection whose orders are; `count` counts `cancelled` and `failed` (an attempt).
        """
        self._tasks = tasks
        self._over = over
        self._has_heir = has_heir
        self._to_end = to_end
        self._cancel = cancel
        self._on_cancelled = on_cancelled
        self._count = count
        self._monotonic = monotonic
        self._sleep = sleep
        self._due: dict[str, float] = {}
        self._next_at = NEVER
        self._under_way: set[str] = set()
        self._sweep: asyncio.Task[None] | None = None
        self._at_once = asyncio.Semaphore(AT_ONCE)
        # Whether nobody else would do it later.
        self._is_last = False
        self._quiet_log = QuietLog(log)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._due))

    def is_under_way(self, name: str) -> bool:
        """Whether a connection's orders are being cancelled."""
        return name in self._under_way

    def set(self, name: str, at: float) -> None:
        """Its orders are due then, by the monotonic clock."""
        self._due[name] = at
        self._next_at = min(self._next_at, at)

    def drop(self, name: str) -> None:
        """They are to be cancelled at no moment of their own. Harmless when repeated."""
        self._due.pop(name, None)

    def keep(self, due: dict[str, float]) -> None:
        """Only these are."""
        self._due = due

    def look(self, now: float) -> None:
        """Cancel what is due."""
        if now >= self._next_at:
            due = [name for name, at in self._due.items() if at <= now]
            again = now + RETRY_SECONDS if due else NEVER
            self._next_at = min((at for at in self._due.values() if at > now), default=NEVER)
            self._next_at = min(again, self._next_at)
            self.begin(due)

    def begin(self, names: Iterable[str]) -> None:
        """Cancel the orders of those that have ended, and of which nobody has come back."""
        due = [name for name in names if name not in self._under_way and not self._has_heir(name)]
        if due and self._sweep is None:
            self._sweep = self._tasks.start(self._cancel_due(due))

    def begin_last(self, names: Iterable[str]) -> None:
        """At once, whoever has come back, for nobody is left who would do it later. One attempt each."""
        self._is_last = True
        for name in set(names) - self._under_way:
            self._start(name)

    async def _cancel_due(self, names: list[str]) -> None:
        try:
            await self._to_end()
        except RequestError as error:
            self._quiet_log.warning("due", "orders of %d connections are to be cancelled: %s", len(names), error)
            return
        finally:
            self._sweep = None
        for name in names:
            if name not in self._under_way and self._is_due(name) and not self._has_heir(name):
                self._start(name)

    def _start(self, name: str) -> None:
        self._under_way.add(name)
        self._tasks.start(self._cancel_orders(name))

    def _is_due(self, name: str) -> bool:
        at = self._due.get(name)
        return self._is_last or (self._over(name) is not None if at is None else at <= self._monotonic())

    async def _cancel_orders(self, name: str) -> None:
        try:
            async with self._at_once:
                while (held := self._still_to_cancel(name)) is not None:
                    try:
                        cancelled = await self._cancel(name, held)
                    except RequestError as error:
                        self._quiet_log.warning(name, "cancels of connection %s are tried again: %s", name, error)
                    except Exception as error:
                        self._quiet_log.fault(name, error, "cancels of connection %s are tried again", name)
                    else:
                        self._count("cancelled")
                        log.info(
                            "connection %s of user %s has ended: %d orders cancelled", name, held.user_id, cancelled
                        )
                        self._on_cancelled(name)
                        return
                    self._count("failed")
                    if self._is_last:
                        return
                    await self._sleep(RETRY_SECONDS)
        finally:
            self._under_way.discard(name)

    def _still_to_cancel(self, name: str) -> Held | None:
        if not self._is_due(name) or (not self._is_last and self._has_heir(name)):
            return None
        return self._over(name)
