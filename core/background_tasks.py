"""Work that nobody waits for: kept until it is done, for the loop itself keeps only weak references."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundTasks:
    """What somebody has begun, and has to end with him."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin it with the loop's next turn."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self) -> None:
        """Wait for what is under way, and for what follows from it. Raises nothing of theirs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def stop(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
