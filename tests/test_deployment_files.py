"""The files that no test machine without a container engine can run, read as such an engine would read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.kafka import jars
from tools.kafka.__main__ import MARKET_TOPIC, ORDER_TOPIC, ORDER_TOPIC_CONFIG, PARTITIONS

ROOT = Path(__file__).resolve().parents[1]


def instructions(name: str = "Dockerfile") -> list[tuple[str, str]]:
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def copied() -> list[str]:
    return [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    parsed = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert parsed.keys() == {"services", "volumes"}
    return dict(parsed["services"])


def test_image_runs_as_a_number_that_is_not_root() -> None:
    users = [rest for word, rest in instructions() if word == "USER"]
    assert len(users) == 1
    assert int(users[0]) > 0


def test_image_starts_the_gateway_without_a_shell_that_would_keep_its_signals() -> None:
    command = json.loads(next(rest for word, rest in instructions() if word == "CMD"))
    assert command[:2] == ["python", "gateway.py"]
    assert (ROOT / command[-1]).is_file()


@pytest.mark.system
def test_image_has_all_that_the_gateway_needs(tmp_path: Path) -> None:
    for source in copied():
        target = tmp_path / source
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    commands = [["gateway.py", "--check", "--config", f"conf/{name}.yaml"] for name in ("gateway", "demo", "paas")]
    for command in [*commands, ["-m", "exchange", "--help"]]:
        told = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr


def test_engine_is_sent_what_the_image_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert {line[1:] for line in patterns if line.startswith("!")} == set(copied())


class Health(BaseHTTPRequestHandler):
    """Answers /health with what its server was told to."""

    def do_GET(self) -> None:
        self.send_response(self.server.answer if self.path == "/health" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the output of the tests clean."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.system
@pytest.mark.parametrize("variable", ["BIND_ADDR", "PORT"])
@pytest.mark.parametrize(("answer", "healthy"), [(200, True), (500, False)])
def test_health_check_of_the_image_asks_the_gateway(
    server: HTTPServer, variable: str, answer: int, healthy: bool
) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    check = next(rest for word, rest in instructions() if word == "HEALTHCHECK").partition("CMD ")[2]
    command = json.loads(check)
    assert command[0] == "python"
    environ = {name: value for name, value in os.environ.items() if name not in ("BIND_ADDR", "PORT")}
    environ[variable] = f"0.0.0.0:{server.server_port}" if variable == "BIND_ADDR" else str(server.server_port)
    told = subprocess.run([sys.executable, *command[1:]], env=environ, capture_output=True, check=False)
    assert (told.returncode == 0) is healthy, told.stderr


def test_compose_starts_the_gateway_behind_kafka_and_its_topics(services: dict[str, Any]) -> None:
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for name in ("gateway", "exchange"):
        assert services[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert services["kafka"]["healthcheck"]["test"][0] == "CMD"
    assert "/ready" in services["gateway"]["healthcheck"]["test"][-1]


def test_compose_runs_the_kafka_that_the_tests_run(services: dict[str, Any]) -> None:
    images = {services[name]["image"] for name in ("kafka", "topics")}
    assert images == {f"apache/kafka:{jars.version()}"}


def test_compose_gives_every_program_an_address_of_kafka_that_is_advertised_to_it(services: dict[str, Any]) -> None:
    kafka = services["kafka"]["environment"]
    advertised = dict(part.split("://") for part in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listeners = dict(part.split("://") for part in kafka["KAFKA_LISTENERS"].split(","))
    protocols = dict(part.split(":") for part in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert listeners.keys() == protocols.keys() == advertised.keys() | {kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    for name, address in advertised.items():
        assert address.rpartition(":")[2] == listeners[name].rpartition(":")[2]
    inside = advertised[kafka["KAFKA_INTER_BROKER_LISTENER_NAME"]]
    assert services["gateway"]["environment"]["KAFKA_BROKERS"] == inside
    assert services["exchange"]["command"][-1] == inside
    assert inside in services["topics"]["command"][0]
    assert f"127.0.0.1:{advertised['HOST'].rpartition(':')[2]}:" in services["kafka"]["ports"][0]


@pytest.mark.system
def test_compose_makes_the_topics_that_the_gateway_checks_for(services: dict[str, Any]) -> None:
    script = services["topics"]["command"][0].replace("$$", "$")
    subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)
    assert f"--partitions {PARTITIONS}" in script
    assert f"--topic {MARKET_TOPIC}\n" in script
    config = " ".join(f"--config {name}={value}" for name, value in ORDER_TOPIC_CONFIG.items())
    assert f"--topic {ORDER_TOPIC} {config}" in script


def test_compose_lets_the_gateway_drain(services: dict[str, Any]) -> None:
    settings = yaml.safe_load(
        re.sub(r"^( *)#(\w+:)", r"\1\2", (ROOT / "conf/gateway.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    needed = settings["drain_seconds"] + settings["orders"]["ack_timeout_seconds"] + 5
    assert int(services["gateway"]["stop_grace_period"].removesuffix("s")) >= needed


def test_procfile_starts_the_web_process() -> None:
    name, _, command = (ROOT / "Procfile").read_text(encoding="utf-8").strip().partition(": ")
    assert (name, command) == ("web", "python gateway.py --config conf/paas.yaml")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-mutants.txt"])
def test_requirements_are_exact(name: str) -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line and not line.startswith(("-r ", "-c "))]
    assert wanted
    assert [line for line in wanted if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


@pytest.mark.system
def test_makefile_explains_every_target_that_is_meant_to_be_called() -> None:
    told = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make (\w+)", told, re.MULTILINE) == [
        "run",
        "unit",
        "test",
        "check",
        "kafka",
        "bench",
        "docs",
        "fuzz",
        "autobahn",
        "mutants",
        "clean",
    ]
