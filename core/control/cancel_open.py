"""The open orders of a user who was blocked, cancelled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from core.background_tasks import BackgroundTasks
from core.errors import RequestError

log = logging.getLogger("gateway.control")

RETRY_SECONDS: Final = 0.5
# For so long an answer is worth waiting for.
WITHIN_SECONDS: Final = 10.0
# By then every instance has heard of a block, and what it accepted before is on the order topic.
SETTLED_SECONDS: Final = 2.0


class CancelOpen:
    """Cancels, and again once every instance refuses the user's orders: what one had accepted meanwhile is open too."""

    def __init__(
        self,
        cancel_all: Callable[[str], Awaitable[list[str]]],
        is_blocked: Callable[[str], bool],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cancel_all` raises RequestError."""
        self._cancel_all = cancel_all
        self._is_blocked = is_blocked
        self._sleep = sleep
        self._monotonic = monotonic
        self._tasks = BackgroundTasks()

    async def run(self, user_id: str) -> list[str]:
        """Cancel the user's orders; the ids of those that were open. To be called after the block.

        What fails is tried again for `WITHIN_SECONDS`; then it is raised as `OrderEntry.cancel_all` raises it, and goes on
        in the background for as long as the user is blocked and this process lives.
        """
        self._tasks.start(self._again(user_id))
        gives_up_at = self._monotonic() + WITHIN_SECONDS
        while True:
            try:
                cancelled = await self._cancel_all(user_id)
            except RequestError as error:
                if self._monotonic() >= gives_up_at:
                    log.warning("the open orders of user %s are not cancelled yet: %s", user_id, error)
                    raise
                await self._sleep(RETRY_SECONDS)
            else:
                log.warning("user %s: %d open orders are cancelled", user_id, len(cancelled))
                return cancelled

    async def _again(self, user_id: str) -> None:
        await self._sleep(SETTLED_SECONDS)
        while self._is_blocked(user_id):
            try:
                cancelled = await self._cancel_all(user_id)
            except RequestError:
                await self._sleep(RETRY_SECONDS)
            else:
                if cancelled:
                    log.warning(
                        "user %s: %d open orders are cancelled, once blocked everywhere", user_id, len(cancelled)
                    )
                return

    def stop(self) -> None:
        """Cancel no more."""
        self._tasks.stop()
