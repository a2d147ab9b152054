"""A thread that waits for what a client has, while it is let, and tells the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

# Seconds that one wait takes at most: so long it may take until the loop has the client back, or the thread ends.
WAIT_SECONDS: Final = 0.1


class WaitingThread:
    """Made and closed on the loop; whoever derives from it starts `_thread`, which waits while `_may_wait` is set."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._may_wait = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=run, name=name, daemon=True)

    def _tell_loop(self, call: Callable[[], object]) -> bool:
        """Have this called on the loop; False if that is closed: the process is at its end."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            return False
        return True

    def close(self) -> None:
        """Wait for no more; the thread ends within `WAIT_SECONDS`."""
        self._closed = True
        self._may_wait.set()

    def join(self, timeout_seconds: float) -> None:
        """Blocking: until the thread has ended. Raises TimeoutError."""
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            raise TimeoutError
