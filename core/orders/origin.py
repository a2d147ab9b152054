"""The request that commands come from, on their way to the topic."""

from __future__ import annotations


class Origin:
    """A request that commands come from: how long Kafka took for them."""

    __slots__ = ("bus_seconds",)

    def __init__(self) -> None:
        # From handing a command over to its acknowledgement, of several the longest; None before there is one.
        self.bus_seconds: float | None = None

    def acknowledged(self, seconds: float) -> None:
        """One of its commands was acknowledged, so long after it was handed over."""
        if self.bus_seconds is None or seconds > self.bus_seconds:
            self.bus_seconds = seconds
