"""The gateway as its own process, started and stopped the way an operator does it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.support.warm_start import REPOSITORY, ForkedProcess, warm_gateway
from tools.pause import Pause
from tools.tied import tied

DEADLINE_SECONDS = 30.0
# Variables that mean something to the gateway and may be set on the machine that runs the tests.
_ITS_VARIABLES = re.compile(r"(KAFKA_|GATEWAY_).*|BIND_ADDR|PORT|JWT_SECRET")
_LISTENING = re.compile(r"listening on (https?://127\.0\.0\.1:(\d+))")


@dataclass(frozen=True)
class Answer:
    """One HTTP response, its body whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """The body's JSON, fractions as their text, so that digits can be compared."""
        return json.loads(self.body, parse_float=str)


class GatewayProcess:
    """`python gateway.py --config FILE` on a free port of the loopback, as a context manager.

    Leaving it ends the process (SIGTERM), and asserts that nothing in its log is a traceback. It does not outlive
    this process.

    Args:
        settings: as in conf/gateway.yaml; unless given, `bind` is a free port of the loopback and the drain is short.
        environ: variables on top of this process's own, less those the gateway reads.
        bus: whose brokers and topics are used (see tests.support.kafka); no state topic unless the settings name one.
        arguments: command line instead of `--config FILE`.
        files: how many it may have open, which it cannot raise.
        cold: Python is started for it, and loads all modules; what follows is the same.

    Attributes:
        trusting: what requests are made with where it speaks TLS.
    """

    trusting: ssl.SSLContext | None = None

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        bus: Any = None,
        arguments: list[str] | None = None,
        files: int | None = None,
        cold: bool = False,
    ) -> None:
        self._is_cold = cold or files is not None or sys.platform != "linux"
        self._prefix = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files is not None else []
        self._settings: dict[str, Any] = {"bind": "127.0.0.1:0", "drain_seconds": 0.1, **(settings or {})}
        if bus is not None:
            kafka = {
                "brokers": bus.bootstrap,
                "topic": bus.topic,
                "order_topic": bus.order_topic,
                "state_topic": "",
                "control_topic": "",
            }
            self._settings["kafka"] = kafka | dict(self._settings.get("kafka") or {})
        self._environ = {name: value for name, value in os.environ.items() if not _ITS_VARIABLES.fullmatch(name)}
        self._environ |= environ or {}
        self._arguments = arguments
        self._file: Path | None = None
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader: threading.Thread | None = None
        self._process: subprocess.Popen[str] | ForkedProcess | None = None
        self.url = ""

    def __enter__(self) -> GatewayProcess:
        self.start()
        try:
            self.wait_listening()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.running:
                self.terminate()
        finally:
            self.kill()
        if error is None:
            assert "Traceback" not in self.log, self.log

    @property
    def process(self) -> subprocess.Popen[str] | ForkedProcess:
        """The started process."""
        assert self._process is not None, "the gateway was not started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        with self._news:
            return "".join(self._lines)

    @property
    def ws_url(self) -> str:
        """The address of its stream."""
        return self.url.replace("http", "ws", 1) + "/ws"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def start(self) -> None:
        """Starts it and returns at once."""
        if self._arguments is None:
            with tempfile.NamedTemporaryFile("w", prefix="gateway-", suffix=".yaml", delete=False) as file:
                yaml.safe_dump(self._settings, file)
            self._file = Path(file.name)
        arguments = ["--config", str(self._file)] if self._arguments is None else self._arguments
        if self._is_cold:
            self._process = subprocess.Popen(
                tied([*self._prefix, sys.executable, "gateway.py", *arguments]),
                cwd=REPOSITORY,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        else:
            self._process = warm_gateway().start(arguments, self._environ)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def wait_listening(self, timeout_seconds: float = DEADLINE_SECONDS) -> str:
        """Waits for the log line that names its address, and returns that."""
        self.url = self.wait_log(_LISTENING, timeout_seconds).group(1)
        return self.url

    def wait_log(self, pattern: str | re.Pattern[str], timeout_seconds: float = DEADLINE_SECONDS) -> re.Match[str]:
        """Waits until its log has `pattern`; AssertionError with the log if it ends or time is up before that."""
        deadline = time.monotonic() + timeout_seconds
        with self._news:
            while (found := re.search(pattern, text := "".join(self._lines))) is None:
                left = deadline - time.monotonic()
                assert left > 0, f"not in the log within {timeout_seconds:g} s: {pattern}\n{text}"
                assert not self._ended, f"ended without {pattern} in its log:\n{text}"
                self._news.wait(left)
        return found

    def wait_ready(self, timeout_seconds: float = DEADLINE_SECONDS) -> None:
        """Waits until /ready answers 200. Not asked before the log says so, where it does: each question takes time from the start."""
        began = time.monotonic()
        if self._arguments is None and self._settings.get("log", {}).get("level", "info") in ("info", "debug"):
            self.wait_log(r"\bready [0-9.]+ s after the start", timeout_seconds)
        self.wait_status("/ready", 200, began + timeout_seconds - time.monotonic())

    def wait_status(self, path: str, status: int, timeout_seconds: float = DEADLINE_SECONDS) -> Answer:
        """Asks `path` until it answers with `status`, and returns that answer."""
        deadline = time.monotonic() + timeout_seconds
        answer: Answer | None = None
        pause = Pause()
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = self.get(path)
                if answer.status == status:
                    return answer
            assert self.running, f"the gateway ended:\n{self.log}"
            assert time.monotonic() < deadline, (
                f"{path} is not {status} within {timeout_seconds:g} s: {answer}\n{self.log}"
            )
            pause.wait()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET on a connection of its own."""
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        """POST of a JSON body; bytes go out as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, {"Content-Type": "application/json", **(headers or {})})

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
            if self.trusting is None
            else http.client.HTTPSConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS, context=self.trusting)
        )
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.msg, response.read())
        finally:
            connection.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it still runs."""
        self.process.send_signal(number)

    def wait(self, timeout_seconds: float = DEADLINE_SECONDS) -> int:
        """Waits for its end; returns the exit code."""
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_seconds:g} s:\n{self.log}") from None
        assert self._reader is not None
        self._reader.join(timeout_seconds)
        return code

    def terminate(self, timeout_seconds: float = DEADLINE_SECONDS) -> int:
        """Asks it to end (SIGTERM) and returns its exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def kill(self) -> None:
        """Ends it at once if it still runs, and cleans up; may be called again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._reader is not None
            self._reader.join(DEADLINE_SECONDS)
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _read(self, process: subprocess.Popen[str] | ForkedProcess) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
