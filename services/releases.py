"""Has the account service release what ended orders left reserved: tried until it is confirmed, and by who leads alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from core.log_throttle import QuietLog
from core.messages.kept_state import Cursor
from core.orders.releases import Due, OrderOf, Releases
from services.accounts import Reservations

log = logging.getLogger("gateway.accounts")

# And a quarter of the connections at most: the rest is for orders.
AT_ONCE: Final = 8
TICK_SECONDS: Final = 0.25
# Between two looks at what others have written.
LOOK_SECONDS: Final = 30.0
# Who has stood still for so long may lead no more, and hears of that within the other time, if Kafka answers.
FROZEN_SECONDS: Final = 3.0
THAW_SECONDS: Final = 10.0
LONG_SECONDS: Final = 60.0
_MOST_NAMED: Final = 50


async def _nothing_known(_partition: int) -> Cursor | None:
    return None


class ReleaseWorker:
    """`run` for as long as the process serves, then `finish`.

    is_alone: whether nobody leads, as far as can be known here. last_cursor: what whoever leads a partition wrote last, None
    if that is not known.
    """

    def __init__(
        self,
        releases: Releases,
        order_of: OrderOf,
        reservations: Reservations,
        *,
        max_connections: int,
        count: Callable[[str, int], None],
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_connections` of the account service; `count(outcome, orders)`: `released`, `release_refused` or `release_failed`."""
        self.is_alone: Callable[[], bool] = lambda: True
        self.last_cursor: Callable[[int], Awaitable[Cursor | None]] = _nothing_known
        self._releases = releases
        self._order_of = order_of
        self._reservations = reservations
        self._at_once = min(AT_ONCE, max(1, max_connections // 4))
        self._count = count
        self._now_ms = now_ms
        self._clock = clock
        self._quiet_log = QuietLog(log, clock)
        self._woken = asyncio.Event()
        self._is_stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._look_at = 0.0
        self._stepped_at: float | None = None
        self._resume_at = 0.0
        # Orders whose refusal was told.
        self._refused: set[str] = set()
        releases.wake = self._woken.set

    @property
    def problem(self) -> str | None:
        """What is wrong with the account service, for `/health`; None while all is well."""
        if self._reservations.problem is not None:
            return self._reservations.problem
        oldest_ms = self._releases.oldest_ms()
        seconds = 0.0 if oldest_ms is None else (self._now_ms() - oldest_ms) / 1000
        if seconds <= LONG_SECONDS:
            return None
        return f"the account service has not released {self._releases.ours} ended orders, the first for {seconds:.0f} s"

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                self.step()
            except Exception as error:
                self._quiet_log.fault("step", error, "what ended orders left reserved could not be looked after")
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    def step(self) -> None:
        """Begin what can be begun now."""
        now = self._clock()
        if self._stepped_at is not None and now - self._stepped_at > FROZEN_SECONDS:
            self._resume_at = now + THAW_SECONDS
        self._stepped_at = now
        self._releases.act_alone(self.is_alone())
        if self._is_stopped or now < self._resume_at:
            return
        while len(self._tasks) < self._at_once and (due := self._releases.next(now, self._order_of)) is not None:
            if not self._reservations.may_try():
                break
            self._releases.begin(due)
            task = asyncio.get_running_loop().create_task(self._release(due))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if now >= self._look_at and self._looking is None:
            self._look_at = now + LOOK_SECONDS
            if partitions := self._releases.behind(self._now_ms()):
                self._looking = asyncio.get_running_loop().create_task(self._look(partitions))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._woken.set()

    async def _release(self, due: Due) -> None:
        order_id = due.order_id
        try:
            tried = await self._reservations.try_release(order_id, due.user_id, is_first=due.tries == 0)
        except Exception:
            log.exception("releasing what order %s left reserved failed", order_id)
            self._releases.failed(order_id, self._clock())
            return
        if tried.reason is None:
            self._refused.discard(order_id)
            self._releases.confirm(order_id)
            self._count("released", 1)
            return
        self._releases.failed(order_id, self._clock(), is_refused=tried.is_refused)
        if not tried.is_refused:
            self._quiet_log.warning("failed", "order %s is still to be released: %s", order_id, tried.reason)
            return
        self._count("release_refused", 1)
        if order_id not in self._refused:
            self._refused.add(order_id)
            log.error(
                "the account service refuses to release order %s, which has ended (%s): it is asked again each minute",
                order_id,
                tried.reason,
            )

    async def _look(self, partitions: list[int]) -> None:
        try:
            for partition in partitions:
                cursor = await self.last_cursor(partition)
                if cursor is not None:
                    self._releases.seen(partition, cursor)
        finally:
            self._looking = None

    async def finish(self, timeout_seconds: float) -> None:
        """Begin no more, and wait so long for what is under way. What is left is kept for whoever leads next.

        Where nothing is kept, it is an alarm: nobody knows of it any more. Raises nothing.
        """
        self._is_stopped = True
        if self._looking is not None:
            self._looking.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        left = self._releases.ours
        if left and self._releases.is_alone:
            named = ", ".join(islice(self._releases.our_ids(), _MOST_NAMED))
            log.error(
                "%d ended orders could not be released before the gateway ended: their funds stay reserved: %s%s",
                left,
                named,
                ", ..." if left > _MOST_NAMED else "",
            )
            self._count("release_failed", left)
