"""What an outbox writes to in a bench without Tornado: a socket that takes everything."""

from __future__ import annotations

from collections.abc import Callable


class Transport:
    """Its stream's buffer is always empty; `send` is the kernel's, or what stands for it."""

    def __init__(self, send: Callable[[bytes], int]) -> None:
        self.send = send

    def sender(self) -> Callable[[bytes], int]:
        """What the fan-out calls."""
        return self.send

    def is_empty(self) -> bool:
        """Nothing waits."""
        return True

    def spill(self, data: bytes | memoryview) -> None:
        """Nobody is to come here."""
        raise AssertionError("the kernel did not take all: the bench reads too seldom")

    def moved(self) -> int:
        """Nothing went through a buffer."""
        return 0
