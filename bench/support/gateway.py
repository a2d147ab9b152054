"""The gateway under a bench: the real one, as its own process, and what a bench asks it for."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jose import jwt

from bench.support import machine
from bench.support.bus import PARTITIONS, Bus
from bench.support.processes import READY_SECONDS, ROOT, BenchError, end, python

TOKEN_SECONDS = 86_400

_listening = re.compile(r"listening on http://[^ ]*:(\d+)").search


class Gateway:
    """The real gateway, as its own process on a free port of loopback."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def answers(self, path: str) -> bool:
        """Whether `GET path` answers 200."""
        try:
            return get(self.port, path)[0] == 200
        except OSError:
            return False

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Until `/ready` answers 200. Raises BenchError."""
        self.wait_for("/ready", timeout_seconds)

    def wait_for(self, path: str, timeout_seconds: float) -> None:
        """Until `GET path` answers 200. Raises BenchError."""
        deadline = time.monotonic() + timeout_seconds
        while not self.answers(path):
            if not self.is_running or time.monotonic() > deadline:
                raise BenchError(f"the gateway does not serve {path}; its log ends: {self.log_end()}")
            time.sleep(0.01)  # between questions: another process's readiness can only be asked for

    def log_end(self) -> str:
        """The last lines of its log, in one."""
        return " / ".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])


@contextmanager
def gateway(
    environment: Mapping[str, str],
    config: str = "conf/gateway.yaml",
    interpreter: tuple[str, ...] = (),
    cores: set[int] | None = None,
) -> Iterator[Gateway]:
    """`gateway.py` with these variables over the file, from when it listens; `interpreter`: arguments to Python.

    On `cores` only, if they are given, from its first instruction on.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "gateway.log"
        with log.open("wb") as file, machine.started_on(cores):
            process = subprocess.Popen(
                python(*interpreter, str(ROOT / "gateway.py"), "--config", str(ROOT / config)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=ROOT,
                start_new_session=True,
                env={**_plain_environment(), "BIND_ADDR": "127.0.0.1:0", "GATEWAY_DRAIN_SECONDS": "0", **environment},
            )
        try:
            yield Gateway(process, _await_port(process, log), log)
        finally:
            end(process)


def _await_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        told = _listening(log.read_text(encoding="utf-8", errors="replace"))
        if told is not None:
            return int(told[1])
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError("the gateway did not start: " + log.read_text(encoding="utf-8", errors="replace")[-500:])
        time.sleep(0.005)  # between looks into its log


def _plain_environment() -> dict[str, str]:
    """This process's variables without those that set the gateway."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "KAFKA_")) and name not in ("BIND_ADDR", "PORT", "JWT_SECRET")
    }


def environment(bus: Bus, name: str, partitions: int = PARTITIONS) -> dict[str, str]:
    """The variables for a gateway on new topics of this bus, without limits, as they are not what is measured."""
    suffix = secrets.token_hex(4)
    return {
        "KAFKA_BROKERS": bus.bootstrap,
        "KAFKA_TOPIC": bus.create_topic(f"{name}-{suffix}", partitions),
        "KAFKA_ORDER_TOPIC": bus.create_topic(f"{name}-orders-{suffix}", partitions),
        "GATEWAY_KAFKA_STATE_TOPIC": f"{name}-state-{suffix}",
        "GATEWAY_KAFKA_CONTROL_TOPIC": f"{name}-control-{suffix}",
        "KAFKA_CONSUME": "broadcast",
        "GATEWAY_AUTH_MODE": "optional",
        "GATEWAY_LIMITS_ORDERS_PER_SECOND": "0",
        "GATEWAY_LIMITS_REQUESTS_PER_SECOND": "0",
    }


def tokens(*users: str) -> tuple[dict[str, str], list[str]]:
    """The variables of a gateway that wants a token, and one for each of these users, good for a day."""
    secret, expiry = secrets.token_urlsafe(32), int(time.time()) + TOKEN_SECONDS
    made: list[str] = [jwt.encode({"sub": user, "exp": expiry}, secret, "HS256") for user in users]
    return {"GATEWAY_AUTH_MODE": "required", "JWT_SECRET": secret}, made


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of `GET path` on a port of loopback. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metrics(port: int, *names: str) -> list[float]:
    """What `/metrics` tells under each of these names, all labels together."""
    lines = get(port, "/metrics")[1].splitlines()
    return [
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        for name in names
    ]
