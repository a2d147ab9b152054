from __future__ import annotations

import logging

import pytest

from core.errors import PoisonedRecord
from core.log_throttle import QuietLog
from core.telemetry.metrics import KNOWN_EVENTS, Metrics, OrderCounts


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
        ("cancel", "unknown"): 0,
    }


def test_metrics_count_deliveries_and_their_bytes(metrics: Metrics) -> None:
    metrics.delivered(3, 300, 6)
    metrics.delivered(1, 5, 1)
    assert value(metrics, "gateway_deliveries_total") == 4
    assert value(metrics, "gateway_delivered_bytes_total") == 305
    assert value(metrics, "gateway_notifications_total") == 7


def ways(metrics: Metrics) -> tuple[float | None, float | None]:
    """How many ways from record to socket were seen, and how long they were together."""
    name = "gateway_record_to_socket_seconds"
    return value(metrics, f"{name}_count"), value(metrics, f"{name}_sum")


def test_metrics_see_the_way_of_a_record_when_the_last_send_of_it_is_done() -> None:
    metrics = Metrics(lambda: 1700.25)
    metrics.publishing(1_700_000)
    metrics.published(is_everyone_told=False)
    assert ways(metrics) == (0, 0)
    metrics.fanned_out(0.001, True)
    assert ways(metrics) == (1, 0.25)


def test_metrics_see_the_way_of_what_was_said_meanwhile_when_it_was_sent_afterwards() -> None:
    metrics = Metrics(lambda: 1700.25)
    for oldest_ms in (1_700_000, 1_700_150, 1_700_200):
        metrics.publishing(oldest_ms)
        metrics.published(is_everyone_told=False)
    metrics.fanned_out(0.001, False)
    assert ways(metrics) == (1, 0.25)
    metrics.fanned_out(0.001, True)
    assert ways(metrics) == (2, pytest.approx(0.35))


def test_metrics_see_no_way_twice_of_what_went_along_with_what_was_under_way() -> None:
    metrics = Metrics(lambda: 1700.25)
    for oldest_ms in (1_700_000, 1_700_150):
        metrics.publishing(oldest_ms)
        metrics.published(is_everyone_told=False)
    metrics.fanned_out(0.001, True)
    metrics.fanned_out(0.001, True)
    assert ways(metrics) == (1, 0.25)


def test_metrics_see_no_way_where_nothing_was_sent() -> None:
    metrics = Metrics(lambda: 1700.25)
    metrics.publishing(1_700_000)
    metrics.published(is_everyone_told=True)
    metrics.fanned_out(0.001, True)
    assert ways(metrics) == (0, 0)


def test_metrics_see_no_way_of_a_record_without_a_time(metrics: Metrics) -> None:
    metrics.publishing(-1)
    metrics.fanned_out(0.001, True)
    assert ways(metrics) == (0, 0)


def test_metrics_take_a_record_of_the_future_for_one_of_now() -> None:
    metrics = Metrics(lambda: 1700.25)
    metrics.publishing(1_700_900)
    metrics.fanned_out(0.001, True)
    assert ways(metrics) == (1, 0)


def test_metrics_show_the_lag_of_no_partition_that_is_read_elsewhere_by_now(metrics: Metrics) -> None:
    metrics.set_lag("market", {0: 5, 1: 7})
    metrics.set_lag("orders", {0: 9})
    metrics.set_lag("market", {1: 8})
    told = [line for line in metrics.text().decode().splitlines() if line.startswith("gateway_consumer_lag{")]
    assert told == [
        'gateway_consumer_lag{partition="1",topic="market"} 8.0',
        'gateway_consumer_lag{partition="0",topic="orders"} 9.0',
    ]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("gateway_orders_total", {"kind": "place", "outcome": "unknown"}),
        ("gateway_orders_total", {"kind": "cancel", "outcome": "not_written"}),
        ("gateway_slow_closes_total", {"cause": "stuck"}),
        ("gateway_poisoned_records_total", {"reason": "not_json"}),
        ("gateway_poisoned_commands_total", {"reason": "unknown_type"}),
        ("gateway_ownerless_events_total", {"why": "overflow"}),
        ("gateway_reservations_total", {"outcome": "release_failed"}),
        ("gateway_reservations_total", {"outcome": "release_refused"}),
        ("gateway_refusals_total", {"reason": "internal"}),
    ],
)
def test_metrics_begin_at_zero_with_what_wakes_somebody(metrics: Metrics, name: str, labels: dict[str, str]) -> None:
    assert value(metrics, name, **labels) == 0


def test_metrics_have_no_series_that_only_says_since_when_another_is(metrics: Metrics) -> None:
    metrics.count_event("fill")
    metrics.count_order("place", "accepted")
    assert b"_created" not in metrics.text()


@pytest.mark.parametrize("name", ["process_resident_memory_bytes", "process_open_fds", "python_gc_collections_total"])
def test_metrics_tell_of_the_process_too(metrics: Metrics, name: str) -> None:
    assert f"\n# TYPE {name} ".encode() in metrics.text()


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
        counts.event_came_early()
    counts.event_was_nobodys()
    counts.early_events_overflow()
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


def test_time_that_was_not_taken_is_counted_each_time_and_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    for given in (1_795_000_000_000, 1_795_000_000_001):
        metrics.odd_time("ahead", "fill", given)
    metrics.odd_time("microseconds", "record", 1_795_000_000_000_000)
    assert metrics.registry.get_sample_value("gateway_odd_times_total", {"why": "ahead"}) == 2
    assert caplog.messages == [
        "the time of a fill is more than a minute ahead of our clock: 1795000000000",
        "the time of a record is in microseconds: 1795000000000000",
    ]
