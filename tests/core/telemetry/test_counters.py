"""Counters and histograms of plain numbers show what the library's own would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.registry import Collector

from core.telemetry.counters import Counter, Counters, Timing

BOUNDS = (0.001, 0.25, 1.0, 10.0)


def text(*collectors: Collector) -> list[str]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry).decode().splitlines()


def test_counter_shows_what_was_added() -> None:
    counter = Counter("gateway_records", "Records")
    counter.inc()
    counter.inc(41)
    assert text(counter) == [
        "# HELP gateway_records_total Records",
        "# TYPE gateway_records_total counter",
        "gateway_records_total 42.0",
    ]


def test_counters_show_one_number_for_each_of_their_labels_values() -> None:
    counters = Counters("orders", "Orders", ("kind", "outcome"))
    counters.labels("place", "accepted").inc(2)
    counters.labels("cancel", "accepted").inc()
    counters.labels("place", "accepted").inc()
    assert text(counters)[2:] == [
        'orders_total{kind="place",outcome="accepted"} 3.0',
        'orders_total{kind="cancel",outcome="accepted"} 1.0',
    ]


def test_counters_without_a_value_say_only_that_they_are_there() -> None:
    assert text(Counters("orders", "Orders", ("kind",))) == [
        "# HELP orders_total Orders",
        "# TYPE orders_total counter",
    ]


def test_counters_give_the_same_tally_for_the_same_values() -> None:
    counters = Counters("orders", "Orders", ("kind",))
    assert counters.labels("place") is counters.labels("place")


@pytest.mark.parametrize("values", [(), ("place", "accepted", "more")])
def test_counters_refuse_another_number_of_values_than_they_have_labels(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="outcome"):
        Counters("orders", "Orders", ("kind", "outcome")).labels(*values)


@given(st.lists(st.sampled_from((*BOUNDS, 0.0, 0.5, 11.0)) | st.floats(0, 100)))
def test_timing_shows_what_the_librarys_histogram_shows(observed: list[float]) -> None:
    timing = Timing("tick_seconds", "Ticks", BOUNDS)
    reference = Histogram("tick_seconds", "Ticks", buckets=BOUNDS, registry=None)
    for seconds in observed:
        timing.observe(seconds)
        reference.observe(seconds)
    assert text(timing) == [line for line in text(reference) if "_created" not in line]
