"""What is wrong with the market's records: counted each time, and logged as seldom as is bearable."""

from __future__ import annotations

from core.errors import PoisonedRecord
from core.log_throttle import QuietLog
from core.telemetry.metrics import Metrics


class MarketFaults:
    """Told by the market of what it could not use."""

    def __init__(self, metrics: Metrics, quiet_log: QuietLog, topic: str) -> None:
        self._metrics = metrics
        self._quiet_log = quiet_log
        self._topic = topic

    def on_poisoned(self, poison: PoisonedRecord, partition: int, offset: int) -> None:
        """A record was skipped."""
        self._metrics.poisoned.labels(poison.reason).inc()
        self._quiet_log.warning(
            f"poisoned {poison.reason}",
            "poisoned record skipped: %s, topic %s partition %d offset %d (%s)",
            poison.reason, self._topic, partition, offset, poison.detail,
        )  # fmt: skip

    def on_failed(self, error: Exception, partition: int, offset: int) -> None:
        """A record met a fault of ours."""
        self._metrics.fault("market", error, f"topic {self._topic} partition {partition} offset {offset}")

    def on_stale(self, symbol: str, cause: str) -> None:
        """A book waits for a snapshot."""
        self._metrics.stale_books.labels(cause).inc()
        self._quiet_log.warning(
            f"stale {symbol}", "the book of %s cannot be trusted until its next snapshot: %s delta", symbol, cause
        )
