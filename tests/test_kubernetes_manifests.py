"""deploy/kubernetes.yaml: Kubernetes takes it, and it fits the gateway."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from core.config.settings import load_settings
from core.telemetry.metrics import Metrics
from tests.support.gateway import REPOSITORY

MANIFESTS: dict[str, dict[str, Any]] = {
    one["kind"]: one
    for one in yaml.safe_load_all((REPOSITORY / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8"))
}
SCHEMAS = json.loads((REPOSITORY / "tests" / "vectors" / "kubernetes.json").read_text(encoding="utf-8"))
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]


def wrong_with(manifest: dict[str, Any]) -> list[str]:
    schema = {**SCHEMAS["kinds"][manifest["kind"]], "definitions": SCHEMAS["definitions"]}
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(manifest)]


@pytest.mark.parametrize("kind", SCHEMAS["kinds"])
def test_manifest_is_one_of_kubernetes(kind: str) -> None:
    assert wrong_with(MANIFESTS[kind]) == []


def test_manifest_with_a_slip_is_noticed() -> None:
    slipped = copy.deepcopy(MANIFESTS["Deployment"])
    slipped["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    [told] = wrong_with(slipped)
    assert "livenessProb" in told


def test_settings_in_the_config_map_are_the_gateways(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(MANIFESTS["ConfigMap"]["data"]["gateway.yaml"])
    environ = {one["name"]: one["value"] for one in CONTAINER["env"]} | {"JWT_SECRET": "s" * 32}
    settings, warnings = load_settings(str(file), environ)
    assert warnings == []
    assert settings.kafka.consume == "broadcast"
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert settings.metrics.bind is not None
    assert ports == {"http": settings.bind.port, "metrics": settings.metrics.bind.port}
    # What has to be over before the kubelet kills.
    stop = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = stop + settings.drain_seconds + settings.orders.ack_timeout_seconds + 5
    assert POD["terminationGracePeriodSeconds"] > needed


def test_probes_ask_what_there_is() -> None:
    paths = {name: CONTAINER[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}


def test_everything_is_about_the_same_pods() -> None:
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "gateway"
    assert POD["volumes"][0]["configMap"]["name"] == MANIFESTS["ConfigMap"]["metadata"]["name"]


def test_autoscaler_goes_by_a_metric_of_the_gateway() -> None:
    [metric] = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in {family.name for family in Metrics().registry.collect()}
