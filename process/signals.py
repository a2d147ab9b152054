"""What signals mean to a process that serves: SIGTERM and SIGINT end it in good order, SIGHUP has its certificate read again."""

from __future__ import annotations

import asyncio
import signal

from process.certificate import reload_beside_loop, reloads_on_hangup
from process.workers import Worker


def hear_signals(worker: Worker, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """Set `stop` at the first that ends the process, and `hurry` at the next. To be called on the loop."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        # Of a worker the parent decides what is a second signal; see process/workers.py.
        (hurry if stop.is_set() and worker.channel is None else stop).set()

    def tell_loop(_number: int, _frame: object) -> None:
        try:
            loop.call_soon_threadsafe(on_signal)
        except RuntimeError:
            pass  # it is closed: the process is at its end

    for number in (signal.SIGTERM, signal.SIGINT):
        # Not by the loop's own `add_signal_handler`: what it installs goes with the loop, some moments before the process.
        signal.signal(number, tell_loop)
    certificate = worker.listeners.certificate
    if worker.channel is None and reloads_on_hangup(certificate):
        loop.add_signal_handler(signal.SIGHUP, reload_beside_loop, certificate)
