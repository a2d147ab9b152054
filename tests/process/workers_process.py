"""`python -m tests.process.workers_process PLAN`: a parent with two workers that do as the plan says. Told on standard output.

A process of its own, because a parent has to be without threads, and pytest is not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import Any

from core.config.settings import Bind, Settings
from process.logs import set_up_logging
from process.sockets import listen
from process.workers import Parent, Worker, follow_parent

GRACE_SECONDS = 0.5  # where one is to be killed
FIRST_PAUSE_SECONDS = 0.05
LIMIT_SECONDS = 60


def tell(*words: object) -> None:
    """One line, whole."""
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


class ControlledServer:
    """Tells what it is told."""

    def __init__(self, worker: Worker, plan: str) -> None:
        self._worker = worker
        self._plan = plan

    def accept_on(self, slot: int) -> None:
        tell("worker", self._worker.number, "accepts on", slot)

    def stop_accepting_on(self, slot: int) -> None:
        tell("worker", self._worker.number, "releases", slot)

    def stop_listening(self) -> None:
        tell("worker", self._worker.number, "stops listening")

    async def ready(self) -> None:
        if self._plan == "slow" and self._worker.starts:
            await asyncio.Event().wait()


async def serve(worker: Worker, plan: str) -> int:
    """Until it is told to stop, and then as the plan has it."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    if plan == "unable":
        tell("worker", worker.number, "is unable")
        return 3
    if plan == "dies at once" and worker.number == 1:
        return 9
    tell("worker", worker.number, "serves", os.getpid(), worker.starts, threading.active_count())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    following = asyncio.create_task(follow_parent(worker, ControlledServer(worker, plan), stop, hurry))
    await stop.wait()
    tell("worker", worker.number, "stops")
    worker.tell_parent("draining")
    if plan == "stuck" and worker.number == 1:
        await asyncio.Event().wait()
    if plan == "long":
        await hurry.wait()
        tell("worker", worker.number, "hurries")
    following.cancel()
    return 5 if plan == "ends badly" and worker.number == 1 else 0


def main(plan: str) -> int:
    """Run it."""
    signal.alarm(LIMIT_SECONDS)
    set_up_logging("info")
    settings: Any = replace(Settings(), bind=Bind("127.0.0.1", 0))

    def work(worker: Worker) -> int:
        signal.alarm(LIMIT_SECONDS)
        if plan == "raises":
            raise RuntimeError("a fault of ours")
        return asyncio.run(serve(worker, plan))

    grace = GRACE_SECONDS if plan == "stuck" else LIMIT_SECONDS
    parent = Parent(work, listen(settings, 2), grace_seconds=grace, first_pause_seconds=FIRST_PAUSE_SECONDS)
    code = parent.run()
    tell("parent ends with", code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
