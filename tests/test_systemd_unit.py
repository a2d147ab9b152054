"""deploy/gateway.service: systemd takes it, and it fits the gateway."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.config.settings import Settings
from tests.support.gateway import REPOSITORY

UNIT = (REPOSITORY / "deploy" / "gateway.service").read_text(encoding="utf-8")
# Of 100, as `systemd-analyze security` counts it; what is left is the network, and what Python may call.
MOST_EXPOSURE = 20
PROGRAM = shutil.which("systemd-analyze")


def value(name: str) -> str:
    [found] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(found)


@pytest.mark.system
@pytest.mark.skipif(PROGRAM is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    "check", [["verify", "--man=no"], ["security", "--offline=true", f"--threshold={MOST_EXPOSURE}"]]
)
def test_unit_is_understood_and_hardened(tmp_path: Path, check: list[str]) -> None:
    assert PROGRAM is not None
    unit = tmp_path / "gateway.service"
    # Programs have to be there.
    unit.write_text(UNIT.replace("/opt/gateway/.venv/bin/python", sys.executable))
    told = subprocess.run([PROGRAM, *check, str(unit)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr
    assert "gateway.service" not in told.stderr


def test_unit_gives_the_drain_its_time() -> None:
    settings = Settings()
    assert int(value("TimeoutStopSec")) > settings.drain_seconds + settings.orders.ack_timeout_seconds + 5


def test_unit_reloads_by_the_signal_that_the_gateway_reads_its_certificate_at() -> None:
    assert value("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert value("ExecStart").split()[1:] == ["gateway.py", "--config", "/etc/gateway/gateway.yaml"]
