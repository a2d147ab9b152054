"""A log that says the same thing at most once a minute, and then how often it was not said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

QUIET_SECONDS = 60.0


class QuietLog:
    """Warnings by kind; `kind` has to come from a bounded set."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warning(self, kind: str, text: str, *arguments: object) -> None:
        """Log it, unless this kind was logged within the last minute."""
        now = self._clock()
        said_at = self._said_at.get(kind)
        if said_at is not None and now - said_at < QUIET_SECONDS:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said_at[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        if unsaid:
            text += f" (and {unsaid} more like it)"
        self._log.warning(text, *arguments)
