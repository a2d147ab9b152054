"""The periodic callback whose period follows the pump's, and beats out of turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tornado.ioloop import IOLoop, PeriodicCallback


class Beating(Protocol):
    """What beats."""

    period_ms: float
    """How soon it is to beat again."""

    @property
    def is_idle(self) -> bool:
        """Whether that is longer than it can be."""

    def beat(self) -> None:
        """Once."""

    def hurry(self) -> None:
        """Take the short period again."""


class _Timer(PeriodicCallback):
    """Tornado's, without a coroutine and a task for each call: the callback is neither, and tells of its faults itself."""

    def _run(self) -> None:  # type: ignore[override]  # whoever calls it takes either
        if self._running:
            try:
                self.callback()
            finally:
                self._schedule_next()


class Beats:
    """Calls `beat` again and again. A beat that fails is told to `on_fault`, and the next one comes all the same."""

    def __init__(self, on_fault: Callable[[Exception], object]) -> None:
        self._on_fault = on_fault
        self._pump: Beating | None = None
        self._timer: PeriodicCallback | None = None

    def start(self, pump: Beating) -> None:
        """On the loop that runs."""
        self._pump = pump
        self._timer = _Timer(self._beat, pump.period_ms)
        self._timer.start()

    def stop(self) -> None:
        """Nothing brings about another one."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def again(self) -> None:
        """Once more, as soon as the loop has looked after its other work."""
        IOLoop.current().add_callback(self._beat)

    def hurry(self) -> None:
        """Something is awaited: do not sit out the rest of an idle period."""
        if self._timer is not None and self._pump is not None and self._pump.is_idle:
            self._pump.hurry()
            self._timer.callback_time = self._pump.period_ms
            self._restart()

    def _restart(self) -> None:
        assert self._timer is not None
        self._timer.stop()
        self._timer.start()

    def now(self) -> None:
        """Something has come: look, and go on by what it was."""
        if self._timer is None:
            return
        period_ms = self._timer.callback_time
        self._beat()
        if self._timer is not None and self._timer.callback_time < period_ms:
            self._restart()

    def _beat(self) -> None:
        if self._timer is None or self._pump is None:
            return
        try:
            self._pump.beat()
        except Exception as error:
            self._on_fault(error)
        if self._timer is not None:
            self._timer.callback_time = self._pump.period_ms
