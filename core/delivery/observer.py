"""What the hub tells whoever counts."""

from __future__ import annotations


class Observer:
    """What the hub tells whoever counts. Every method may be overridden."""

    def delivered(self, writes: int, size: int, messages: int) -> None:
        """So many writes, so many bytes and messages in all."""

    def fanned_out(self, seconds: float, is_all: bool) -> None:
        """All connections have been given what was gathered for them; it took so long.

        `is_all` unless more was said meanwhile, which is sent next.
        """

    def conflated(self, kind: str) -> None:
        """A slow reader of a conflatable channel begins to be skipped."""

    def fault(self, where: str, error: Exception, place: str) -> None:
        """Something of ours failed, and was kept from failing more than itself."""

    def slow_closed(self, cause: str) -> None:
        """A connection was closed as a slow consumer."""

    def resumed(self, outcome: str) -> None:
        """A client came back with `since`."""
