"""The metrics of several workers as one: counters summed, also over a worker's deaths, gauges by what each is about.

Families go from worker to worker as JSON: `{name, documentation, type, samples: [[name, labels, value]]}`. A worker's
counters begin with what its predecessor was last heard to have (`add`), so a sum that was told once never goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

Family = dict[str, Any]
Rule = Callable[[float, float], float]
Key = tuple[str, tuple[tuple[str, str], ...]]

COUNTED = frozenset({"counter", "histogram", "summary"})
RULES: Mapping[str, Rule] = {"sum": lambda one, other: one + other, "min": min, "max": max}


def families(registry: CollectorRegistry) -> list[Family]:
    """Everything in a registry, as it is now."""
    return [
        {
            "name": metric.name,
            "documentation": metric.documentation,
            "type": metric.type,
            "samples": [[sample.name, dict(sample.labels), sample.value] for sample in metric.samples],
        }
        for metric in registry.collect()
    ]


def add(own: list[Family], before: Iterable[Family]) -> list[Family]:
    """`own` with the counters of a predecessor added; its gauges died with it."""
    return _folded([own, [family for family in before if family["type"] in COUNTED]], {})


def merge(
    live: Mapping[int, list[Family]], silent: Mapping[int, list[Family]], gauge_rules: Mapping[str, str]
) -> list[Family]:
    """All workers' families as one; of the `silent`, the last that was heard, only what was counted.

    A gauge goes by its rule (`sum`, `min`, `max`); one without gets the label `worker`.
    """
    told: list[list[Family]] = [
        [_labelled(family, number) if _is_apart(family, gauge_rules) else family for family in found]
        for number, found in sorted(live.items())
    ]
    told += [[family for family in found if family["type"] in COUNTED] for _, found in sorted(silent.items())]
    return _folded(told, gauge_rules)


def gauge(name: str, documentation: str, values: Mapping[int, float], kind: str = "gauge") -> Family:
    """A family with one sample a worker."""
    suffix = "_total" if kind == "counter" else ""
    samples = [[name + suffix, {"worker": str(number)}, value] for number, value in sorted(values.items())]
    return {"name": name, "documentation": documentation, "type": kind, "samples": samples}


def text(merged: Iterable[Family]) -> bytes:
    """The Prometheus text format, version 0.0.4."""
    return generate_latest(_Collected(merged))


class _Collected:
    """As much of a registry as is written out."""

    def __init__(self, merged: Iterable[Family]) -> None:
        self._merged = merged

    def collect(self) -> Iterator[Metric]:
        for family in self._merged:
            metric = Metric(family["name"], family["documentation"], family["type"])
            for name, labels, value in family["samples"]:
                metric.add_sample(name, labels, value)
            yield metric


def _is_apart(family: Family, gauge_rules: Mapping[str, str]) -> bool:
    return family["type"] not in COUNTED and family["name"] not in gauge_rules


def _labelled(family: Family, number: int) -> Family:
    samples = [[name, {**labels, "worker": str(number)}, value] for name, labels, value in family["samples"]]
    return {**family, "samples": samples}


def _folded(told: Iterable[Iterable[Family]], gauge_rules: Mapping[str, str]) -> list[Family]:
    found: dict[str, Family] = {}
    values: dict[str, dict[Key, float]] = {}
    for family in (family for one in told for family in one):
        name = family["name"]
        found.setdefault(name, family)
        known = values.setdefault(name, {})
        rule = "sum" if family["type"] in COUNTED else gauge_rules.get(name, "sum")
        for sample, labels, value in family["samples"]:
            key = (sample, tuple(sorted(labels.items())))
            # When counting began is no count: the first one's.
            fold = min if sample.endswith("_created") else RULES[rule]
            known[key] = fold(known[key], value) if key in known else value
    return [
        {**family, "samples": [[sample, dict(labels), value] for (sample, labels), value in values[name].items()]}
        for name, family in found.items()
    ]
