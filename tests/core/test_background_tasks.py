from __future__ import annotations

import asyncio
import gc

import pytest

from core.background_tasks import BackgroundTasks
from tests.core.fakes import run, turns


def test_work_goes_on_though_nobody_keeps_it() -> None:
    async def scene() -> None:
        tasks, done = BackgroundTasks(), []

        async def work() -> None:
            # Nobody but this task knows of what it waits for.
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda: future.done() or future.set_result(None))
            await future
            done.append("work")

        tasks.start(work())
        gc.collect()
        await turns(4)
        assert done == ["work"]

    run(scene())


def test_finish_waits_also_for_what_follows() -> None:
    async def scene() -> None:
        tasks, done = BackgroundTasks(), []

        async def work(left: int) -> None:
            await asyncio.sleep(0)
            done.append(left)
            if left:
                tasks.start(work(left - 1))

        tasks.start(work(2))
        await tasks.finish()
        assert done == [2, 1, 0]
        await tasks.finish()  # where there is nothing

    run(scene())


def test_finish_raises_nothing_of_what_failed() -> None:
    async def scene() -> None:
        tasks = BackgroundTasks()

        async def fail() -> None:
            raise ValueError("its own")

        failed = tasks.start(fail())
        await tasks.finish()
        with pytest.raises(ValueError, match="its own"):
            await failed

    run(scene())


def test_stop_gives_up_what_is_under_way() -> None:
    async def scene() -> None:
        tasks = BackgroundTasks()
        endless = tasks.start(asyncio.Event().wait())
        tasks.stop()
        await tasks.finish()
        assert endless.cancelled()

    run(scene())
