"""Waiting for a condition, with a deadline, and never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tools.pause import Pause

# Generous: the machine may be busy, and who waits for a condition does not pay for it.
DEADLINE_SECONDS = 60.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """What `condition` returns once it is true; AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    pause = Pause()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        pause.wait()
    return found
