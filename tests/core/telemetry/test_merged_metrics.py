from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.telemetry import merged_metrics as totals
from core.telemetry.metrics import ACROSS_WORKERS, Metrics

RULES = {"clients": "sum", "ready": "min", "lag": "max"}


class Worker:
    """One process's metrics: a counter, a histogram, and a gauge of each kind."""

    def __init__(self, before: list[totals.Family] | None = None) -> None:
        self.registry = CollectorRegistry()
        self.orders = Counter("orders", "Orders", ["outcome"], registry=self.registry)
        self.seconds = Histogram("seconds", "Time", buckets=(1.0, 2.0), registry=self.registry)
        self.gauges = {name: Gauge(name, name, registry=self.registry) for name in ("clients", "ready", "lag", "bytes")}
        self.before = before or []

    def told(self) -> list[totals.Family]:
        """As another worker gets it."""
        told: list[totals.Family] = json.loads(json.dumps(totals.add(totals.families(self.registry), self.before)))
        return told


def values(merged: list[totals.Family]) -> dict[str, float]:
    """By the name and labels of the text."""
    lines = totals.text(merged).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        if "_created" not in name
    }


def test_totals_sum_counters_and_histograms_by_their_labels() -> None:
    one, other = Worker(), Worker()
    one.orders.labels("accepted").inc(2)
    other.orders.labels("accepted").inc(3)
    other.orders.labels("unknown").inc()
    one.seconds.observe(0.5)
    other.seconds.observe(1.5)
    found = values(totals.merge({0: one.told(), 1: other.told()}, {}, RULES))
    assert found['orders_total{outcome="accepted"}'] == 5
    assert found['orders_total{outcome="unknown"}'] == 1
    assert found['seconds_bucket{le="1.0"}'] == 1
    assert found['seconds_bucket{le="+Inf"}'] == found["seconds_count"] == 2
    assert found["seconds_sum"] == 2


def test_totals_treat_each_gauge_by_its_rule() -> None:
    one, other = Worker(), Worker()
    for worker, value in ((one, 3), (other, 5)):
        for gauge in worker.gauges.values():
            gauge.set(value)
    found = values(totals.merge({0: one.told(), 1: other.told()}, {}, RULES))
    assert (found["clients"], found["ready"], found["lag"]) == (8, 3, 5)
    assert {name: found[name] for name in found if name.startswith("bytes")} == {
        'bytes{worker="0"}': 3,
        'bytes{worker="1"}': 5,
    }


def test_totals_go_on_after_a_workers_death() -> None:
    first = Worker()
    first.orders.labels("accepted").inc(7)
    first.gauges["clients"].set(100)
    successor = Worker(first.told())
    assert values(totals.merge({0: successor.told()}, {}, RULES))['orders_total{outcome="accepted"}'] == 7
    successor.orders.labels("accepted").inc()
    third = Worker(successor.told())
    found = values(totals.merge({0: third.told()}, {}, RULES))
    assert found['orders_total{outcome="accepted"}'] == 8
    assert found["clients"] == 0


def test_totals_keep_what_a_silent_worker_had_counted_and_not_its_gauges() -> None:
    silent, live = Worker(), Worker()
    silent.orders.labels("accepted").inc(7)
    silent.gauges["clients"].set(100)
    live.gauges["clients"].set(1)
    found = values(totals.merge({1: live.told()}, {0: silent.told()}, RULES))
    assert found['orders_total{outcome="accepted"}'] == 7
    assert found["clients"] == 1
    assert 'bytes{worker="0"}' not in found


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["count", "die", "scrape"])), max_size=60))
def test_totals_never_go_back_whatever_happens(steps: list[tuple[int, str]]) -> None:
    workers = [Worker(), Worker(), Worker()]
    heard: list[list[totals.Family]] = [[], [], []]
    seen = 0.0
    for number, step in steps:
        if step == "count":
            workers[number].orders.labels("accepted").inc()
        elif step == "die":
            workers[number] = Worker(heard[number])
        else:
            # One worker is silent at each scrape.
            live = {other: workers[other].told() for other in range(3) if other != number}
            for other, told in live.items():
                heard[other] = told
            found = values(totals.merge(live, {number: heard[number]}, RULES))
            now = found.get('orders_total{outcome="accepted"}', 0.0)
            assert now >= seen
            seen = now


def test_totals_tell_when_counting_began_by_the_first() -> None:
    one, other = Worker(), Worker()
    one.seconds.observe(1)
    began = {
        number: value
        for number, worker in enumerate((one, other))
        for family in worker.told()
        for name, _, value in family["samples"]
        if name == "seconds_created"
    }
    merged = totals.merge({0: one.told(), 1: other.told()}, {}, RULES)
    [value] = [value for family in merged for name, _, value in family["samples"] if name == "seconds_created"]
    assert value == min(began.values())


def test_totals_text_of_one_worker_is_what_the_registry_itself_says() -> None:
    metrics = Metrics()
    metrics.clients.set(3)
    metrics.count_order("place", "accepted")
    metrics.order_ack_seconds.observe(0.003)
    rules = dict.fromkeys((family["name"] for family in totals.families(metrics.registry)), "sum")
    merged = totals.merge({0: totals.families(metrics.registry)}, {}, rules)
    # What the process says of itself is another number at each look.
    mine, all_of_it = (
        [line for line in text.splitlines() if not line.startswith((b"process_", b"python_"))]
        for text in (totals.text(merged), metrics.text())
    )
    assert mine == all_of_it


@pytest.mark.parametrize("name", sorted(ACROSS_WORKERS))
def test_rules_are_of_gauges_that_there_are(name: str) -> None:
    kinds = {family["name"]: family["type"] for family in totals.families(Metrics().registry)}
    assert kinds[name] == "gauge"
    assert ACROSS_WORKERS[name] in totals.RULES


def test_worker_gauge_has_a_sample_for_each() -> None:
    found = values(
        [totals.gauge("up", "Up", {1: 0.0, 0: 1.0}), totals.gauge("restarts", "Restarts", {0: 2.0}, "counter")]
    )
    assert found == {'up{worker="0"}': 1, 'up{worker="1"}': 0, 'restarts_total{worker="0"}': 2}
