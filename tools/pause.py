"""Pauses between looks for something that is waited for."""

from __future__ import annotations

import threading

SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 0.05


class Pause:
    """Short at first, and longer where the waiting is long: each look takes time from what is waited for."""

    def __init__(self) -> None:
        self._seconds = SHORTEST_SECONDS
        self._never = threading.Event()

    def wait(self) -> None:
        """Until the next look."""
        self._never.wait(self._seconds)
        self._seconds = min(1.5 * self._seconds, LONGEST_SECONDS)
