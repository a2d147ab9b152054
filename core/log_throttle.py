"""A log that says the same thing at most once a minute, and then how often it was not said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

QUIET_SECONDS = 60.0


class Throttle:
    """Lets each kind through at most once a minute, and counts what it held back. Kinds have to be a bounded set."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def admit(self, kind: str) -> str | None:
        """What to add to the line (perhaps nothing), or None: do not say it."""
        now = self._clock()
        passed_at = self._passed_at.get(kind)
        if passed_at is not None and now - passed_at < QUIET_SECONDS:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return None
        self._passed_at[kind] = now
        held_back = self._held_back.pop(kind, 0)
        return f" (and {held_back} more like it)" if held_back else ""


class QuietLog:
    """Warnings and faults by kind; `kind` has to come from a bounded set."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._throttle = Throttle(clock)

    def warning(self, kind: str, text: str, *arguments: object) -> None:
        """Log it, unless this kind was logged within the last minute."""
        more = self._throttle.admit(kind)
        if more is not None:
            self._log.warning(text + more, *arguments)

    def fault(self, kind: str, error: Exception, text: str, *arguments: object) -> None:
        """Log a fault of ours with its traceback, as an error, unless this kind was logged within the last minute."""
        more = self._throttle.admit(kind)
        if more is not None:
            self._log.error(text + more, *arguments, exc_info=error)


class FirstWordFilter(logging.Filter):
    """For a log that is not ours: of messages that begin with the same word, one a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._throttle = Throttle(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this message is let through."""
        more = self._throttle.admit(record.getMessage().partition(" ")[0])
        if more is None:
            return False
        record.msg = f"{record.msg}{more}"
        return True
