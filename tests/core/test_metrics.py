from __future__ import annotations

import logging

import pytest

from core.errors import PoisonedRecord
from core.metrics import KNOWN_EVENTS, Metrics, OrderCounts
from core.quiet_log import QuietLog


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("kind", sorted(KNOWN_EVENTS))
def test_metrics_count_events_by_their_type(metrics: Metrics, kind: str) -> None:
    metrics.count_event(kind)
    metrics.count_event(kind)
    assert value(metrics, "gateway_events_total", type=kind) == 2


def test_metrics_count_types_that_nobody_knows_under_one_name(metrics: Metrics) -> None:
    for number in range(50):
        metrics.count_event(f"made up {number}")
    metrics.count_event("unknown")
    assert value(metrics, "gateway_events_total", type="unknown") == 51
    assert metrics.text().count(b"gateway_events_total{") == 1


def test_metrics_count_orders_by_kind_and_outcome(metrics: Metrics) -> None:
    for kind, outcome in [("place", "accepted"), ("place", "accepted"), ("place", "unknown"), ("cancel", "accepted")]:
        metrics.count_order(kind, outcome)
    counted = {
        (kind, outcome): value(metrics, "gateway_orders_total", kind=kind, outcome=outcome)
        for kind in ("place", "cancel")
        for outcome in ("accepted", "unknown")
    }
    assert counted == {
        ("place", "accepted"): 2,
        ("place", "unknown"): 1,
        ("cancel", "accepted"): 1,
        ("cancel", "unknown"): None,
    }


def test_metrics_count_deliveries_and_their_bytes(metrics: Metrics) -> None:
    metrics.delivered(3, 300)
    metrics.delivered(1, 5)
    assert value(metrics, "gateway_deliveries_total") == 4
    assert value(metrics, "gateway_delivered_bytes_total") == 305


def test_metrics_count_what_becomes_of_slow_readers_and_of_those_who_come_back(metrics: Metrics) -> None:
    metrics.conflated("book")
    metrics.conflated("book")
    metrics.slow_closed("overflow")
    metrics.resumed("history")
    metrics.resumed("not_recovered")
    assert value(metrics, "gateway_conflations_total", kind="book") == 2
    assert value(metrics, "gateway_slow_closes_total", cause="overflow") == 1
    assert value(metrics, "gateway_resumes_total", outcome="history") == 1
    assert value(metrics, "gateway_resumes_total", outcome="not_recovered") == 1
    assert value(metrics, "gateway_resumes_total", outcome="bus") is None


def test_metrics_of_two_gateways_in_one_process_are_apart(metrics: Metrics) -> None:
    other = Metrics()
    other.records.inc()
    assert value(metrics, "gateway_records_total") == 0


def test_metrics_text_is_what_prometheus_reads(metrics: Metrics) -> None:
    metrics.poisoned.labels("not_json").inc()
    lines = metrics.text().decode().splitlines()
    assert "# TYPE gateway_poisoned_records_total counter" in lines
    assert 'gateway_poisoned_records_total{reason="not_json"} 1.0' in lines
    assert 'gateway_order_ack_seconds_bucket{le="0.005"} 0.0' in lines


def test_metrics_count_what_the_order_directory_tells(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    counts = OrderCounts(metrics, QuietLog(logging.getLogger("test"), lambda: 0.0), "commands")
    for _ in range(3):
        counts.parked()
    counts.parked_dropped()
    counts.parking_overflow()
    counts.terminal_dropped(5)
    for offset in (7, 8):
        counts.poisoned_command(2, offset, PoisonedRecord("no_type", "type: expected a string"))
    assert value(metrics, "gateway_parked_events_total") == 3
    assert value(metrics, "gateway_ownerless_events_total", why="unknown") == 1
    assert value(metrics, "gateway_ownerless_events_total", why="overflow") == 1
    assert value(metrics, "gateway_forgotten_orders_total") == 5
    assert value(metrics, "gateway_poisoned_commands_total", reason="no_type") == 2
    [record] = caplog.records
    assert "no_type, topic commands partition 2 offset 7" in record.getMessage()
