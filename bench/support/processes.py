"""The processes of a bench: started here, ended here by their handles, and by the kernel should the bench be killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
STOP_SECONDS = 20.0

# Becomes the program by exec, after asking the kernel to end it with its parent.
_TIED_TO_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[2], sys.argv[2:])\n"
)

_listening = re.compile(r"listening on http://[^ ]*:(\d+)").search


class BenchError(Exception):
    """A bench cannot give a figure, and why: one line."""


def tied(program: str, *arguments: str) -> list[str]:
    """The command that runs a program, named by its whole path, tied to this process."""
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), program, *arguments]


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter, tied to this process."""
    return tied(sys.executable, *arguments)


class Part:
    """One program of this package: it says `ready`, waits for `go`, works, and tells its result as one line of JSON."""

    def __init__(
        self, name: str, *arguments: object, cores: set[int] | None = None, interpreter: tuple[str, ...] = ()
    ) -> None:
        """Start `python INTERPRETER -m bench.NAME ARGUMENTS`, on `cores` only if they are given."""
        self.name = name
        self.first: Any = None
        self._process = subprocess.Popen(
            python(*interpreter, "-m", f"bench.{name}", *map(str, arguments)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            # Ctrl-C is for the bench, which then ends its parts.
            start_new_session=True,
        )
        if cores is not None:
            os.sched_setaffinity(self._process.pid, cores)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        """Wait for its first line, kept in `first`."""
        try:
            self.first = self.read(READY_SECONDS)
        except BaseException:
            end(self._process)
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        end(self._process)

    def go(self) -> None:
        """Let it work."""
        self._write(b"go\n")

    def say(self, value: object) -> None:
        """Tell it something: one line of JSON."""
        self._write(json.dumps(value).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self.name} ended with code {self._process.wait(STOP_SECONDS)}") from None

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def read(self, timeout_seconds: float) -> Any:
        """The next line it tells, decoded. Raises BenchError if it ends, or tells nothing in time."""
        assert self._process.stdout is not None
        # Lines are told one at a time, each in one write, and each is read before the next is asked for.
        if not select.select([self._process.stdout], [], [], timeout_seconds)[0]:
            raise BenchError(f"{self.name} told nothing within {timeout_seconds:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self.name} ended with code {self._process.wait(STOP_SECONDS)}")
        return json.loads(line)


def tell(value: object) -> None:
    """In a part: tell the bench one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def await_go() -> None:
    """In a part: say that it is ready, and wait."""
    tell("ready")
    if not sys.stdin.readline():
        sys.exit(0)


def end(process: subprocess.Popen[bytes]) -> None:
    """End one process in order, or else at once."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


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

    def answers(self, path: str) -> bool:
        """Whether `GET path` answers 200."""
        return answers(self.port, path)

    def wait_ready(self) -> None:
        """Until `/ready` answers 200. Raises BenchError."""
        self.wait_for("/ready", READY_SECONDS)

    def wait_for(self, path: str, timeout_seconds: float) -> None:
        """Until `GET path` answers 200. Raises BenchError."""
        deadline = time.monotonic() + timeout_seconds
        while not self.answers(path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the gateway does not serve {path}; its log ends: {self.log_end()}")
            time.sleep(0.01)  # between questions: another process's readiness can only be asked for

    def log_end(self) -> str:
        """The last lines of its log, in one."""
        return " / ".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])


def answers(port: int, path: str) -> bool:
    """Whether `GET path` on a port of loopback answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def gateway(
    environment: Mapping[str, str], config: str = "conf/gateway.yaml", interpreter: tuple[str, ...] = ()
) -> Iterator[Gateway]:
    """`gateway.py` with these variables over the file, from when it listens; `interpreter`: arguments to Python."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "gateway.log"
        file: IO[bytes]
        with log.open("wb") as file:
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
