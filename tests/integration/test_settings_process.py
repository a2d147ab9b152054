"""`python gateway.py` before it serves: --check, refusals in one line, the port (docs/contract.md#settings)."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.processes import Gateway
from tests.integration.waiting import DEADLINE_SECONDS
from tests.support.gateway import REPOSITORY
from tests.support.ports import free_port


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "gateway.py", *arguments],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("name", ["gateway.yaml", "demo.yaml", "paas.yaml"])
def test_check_accepts_the_files_that_come_with_it_and_starts_nothing(name: str) -> None:
    done = run("--config", f"conf/{name}", "--check", BIND_ADDR="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, "gateway: the settings are in order\n")
    assert "listening" not in done.stderr


# One of each place that a refusal can name; which values are refused: tests/core/config/test_settings_refusals.py.
REFUSED = [
    ("kafka:\n  brokerz: a:1", {}, "FILE:2", "kafka.brokerz"),
    ("kafka:\n  topic: same\n  order_topic: same", {}, "FILE:", "kafka.order_topic"),
    ("a: [", {}, "FILE", ""),
    ("", {"PORT": "http"}, "PORT", "bind"),
    ("", {"JWT_SECRET": "short-and-secret"}, "JWT_SECRET", "auth.secret"),
]


@pytest.mark.parametrize(("text", "environ", "source", "key"), REFUSED)
def test_settings_that_are_refused_stop_the_start_with_one_line(
    tmp_path: Path, text: str, environ: dict[str, str], source: str, key: str
) -> None:
    file = tmp_path / "given.yaml"
    file.write_text(text, encoding="utf-8")
    # What --check refuses stops a start as well: some of these each.
    done = run("--config", str(file), *(["--check"] if environ else []), **environ)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"gateway: {source.replace('FILE', str(file))}"), line
    assert key in line
    assert "short-and-secret" not in line


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = run("--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_unknown_variable_is_only_warned_of() -> None:
    done = run("--check", GATEWAY_SERVICE_HOST="10.0.0.1", GATEWAY_PORT_3000_TCP="tcp://10.0.0.1:3000")
    assert done.returncode == 0
    assert done.stderr.count("not a setting") == 2


@pytest.mark.parametrize("variable", ["BIND_ADDR", "PORT"])
def test_taken_port_is_one_line_that_says_what_to_do(variable: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        value = str(port) if variable == "PORT" else f"127.0.0.1:{port}"
        done = run(**{variable: value}, GATEWAY_AUTH_MODE="optional", GATEWAY_ORDERS_ID_SECRET=str(UUID))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert re.fullmatch(rf"gateway: .*:{port}: .*in use.*BIND_ADDR.*", line), line


UUID = "7e6f3c52-7d0a-4c8e-9d52-0b6f2c0f4a11"


@pytest.mark.parametrize("checks", [(), ("--check",)], ids=["start", "check"])
@pytest.mark.parametrize(
    ("client", "properties", "named"),
    [
        ("consumer", "{no.such.property: 1}", "no.such.property"),
        ("producer", "{batch.size: soon}", "batch.size"),
        ("producer", "{sasl.password: a-secret, security.protocol: sasl}", "security.protocol"),
    ],
)
def test_broken_kafka_property_is_one_line(
    client: str, properties: str, named: str, checks: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "given.yaml"
    file.write_text(f"kafka:\n  {client}: {properties}\nauth: {{mode: optional}}\n", encoding="utf-8")
    done = run(*checks, "--config", str(file), BIND_ADDR="127.0.0.1:0", GATEWAY_ORDERS_ID_SECRET=UUID)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"gateway: {file}:2: kafka.{client}: ") and named in line
    assert "a-secret" not in line


def test_port_alone_binds_every_address(tmp_path: Path) -> None:
    port = free_port()
    with Gateway.on(None, {}, {"PORT": str(port), "KAFKA_BROKERS": f"127.0.0.1:{free_port()}"}, wait=False) as gateway:
        assert gateway.address == f"http://127.0.0.1:{port}"
        assert f"bound to 0.0.0.0:{port}" in gateway.log
        assert gateway.get("/health").status == 200


def test_secrets_are_in_no_log_and_no_answer() -> None:
    secret = "a-very-secret-value-of-some-length-0123456789"
    broker = f"127.0.0.1:{free_port()}"
    login = {"sasl.mechanism": "PLAIN", "sasl.username": "gateway", "sasl.password": secret}
    settings = {
        "auth": {"secret": secret},
        "kafka": {"producer": {"security.protocol": "sasl_plaintext", **login}},
    }
    with Gateway.on(None, settings, {"KAFKA_BROKERS": broker}, wait=False) as gateway:
        told = gateway.get("/health").body + gateway.get("/metrics").body
        assert gateway.terminate() == 0
        assert secret not in gateway.log + told.decode()


def test_start_loads_no_client_of_redis_that_nobody_asked_for() -> None:
    loaded = "import sys, gateway; print({'redis', 'limits'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"
