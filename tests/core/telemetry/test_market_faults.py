from __future__ import annotations

import logging

import pytest

from core.errors import PoisonedRecord
from core.log_throttle import QuietLog
from core.telemetry.market_faults import MarketFaults
from core.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def faults(metrics: Metrics) -> MarketFaults:
    return MarketFaults(metrics, QuietLog(logging.getLogger("gateway")), "market-events")


def test_record_that_was_skipped_is_counted_each_time_and_logged_once_with_its_place(
    faults: MarketFaults, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    for offset in (41, 42):
        faults.on_poisoned(PoisonedRecord("not_json", "it ends early"), 3, offset)
    assert metrics.registry.get_sample_value("gateway_poisoned_records_total", {"reason": "not_json"}) == 2
    [record] = caplog.records
    place = "topic market-events partition 3 offset 41"
    assert record.getMessage() == f"poisoned record skipped: not_json, {place} (it ends early)"


def test_book_that_waits_for_a_snapshot_is_counted_and_logged_by_its_symbol(
    faults: MarketFaults, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    for symbol in ("KCN/EUR", "KCN/EUR", "ABC/EUR"):
        faults.on_stale(symbol, "crossed")
    assert metrics.registry.get_sample_value("gateway_stale_books_total", {"cause": "crossed"}) == 3
    sentence = "the book of {} cannot be trusted until its next snapshot: crossed delta"
    assert [record.getMessage() for record in caplog.records] == [
        sentence.format("KCN/EUR"),
        sentence.format("ABC/EUR"),
    ]


def test_record_that_met_a_fault_of_ours_is_counted_each_time_and_logged_once_with_its_place_and_traceback(
    faults: MarketFaults, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    for offset in (41, 42):
        faults.on_failed(ValueError("ours"), 3, offset)
    assert metrics.registry.get_sample_value("gateway_faults_total", {"where": "market"}) == 2
    [record] = caplog.records
    place = "topic market-events partition 3 offset 41"
    assert record.getMessage() == f"a fault in the market was contained: {place}"
    assert record.exc_info is not None
