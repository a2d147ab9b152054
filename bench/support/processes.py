"""The processes of a bench: started here, ended here by their handles, and by the kernel should the bench be killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from bench.support import machine
from tools import paused_process

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
STOP_SECONDS = 20.0

# Becomes the program by exec, after asking the kernel to end it with its parent.
_TIED_TO_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[2], sys.argv[2:])\n"
)


class BenchError(Exception):
    """A bench cannot give a figure, and why: one line."""


def tied(program: str, *arguments: str) -> list[str]:
    """The command that runs a program, named by its whole path, tied to this process."""
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), program, *arguments]


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter, tied to this process."""
    return tied(sys.executable, *arguments)


class Child:
    """A process that tells lines of JSON, the first one as soon as it is ready, and is told lines."""

    def __init__(self, name: str, command: Sequence[str], cores: set[int] | None = None) -> None:
        """Start it, on `cores` only, if they are given, from its first instruction on."""
        self.name = name
        self.first: Any = None
        with machine.started_on(cores):
            self._process = subprocess.Popen(
                tied(*command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                # Ctrl-C is for the bench, which then ends its children.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def __enter__(self) -> Self:
        """Wait for its first line, kept in `first`."""
        try:
            self.first = self.read(READY_SECONDS)
        except BaseException:
            end(self._process)
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.resume()
        end(self._process)

    def say(self, line: str) -> None:
        """Tell it one line. Raises BenchError if it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self.name} ended with code {self._process.wait(STOP_SECONDS)}") from None

    def go(self) -> None:
        """Let it work, or end its work."""
        self.say("go")

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

    def pause(self) -> None:
        """Stop it until `resume`: for a server that spins while it has nothing to do."""
        paused_process.stop(self._process)

    def resume(self) -> None:
        """Let it go on."""
        paused_process.go_on(self._process)


def part(name: str, *arguments: object, cores: set[int] | None = None, interpreter: tuple[str, ...] = ()) -> Child:
    """One program of this package: `python INTERPRETER -m bench.NAME ARGUMENTS`."""
    return Child(name, (sys.executable, *interpreter, "-m", f"bench.{name}", *map(str, arguments)), cores)


def tell(value: object) -> None:
    """In a part: tell the bench one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def await_go() -> None:
    """In a part: say that it is ready, and wait."""
    tell("ready")
    if not sys.stdin.readline():
        sys.exit(0)


def is_told(wait_seconds: float = 0.0) -> bool:
    """In a part: whether the bench has told it a line; waits for one at most so long."""
    return bool(select.select([sys.stdin], [], [], wait_seconds)[0])


def interruptible() -> None:
    """From now on SIGTERM is a KeyboardInterrupt as SIGINT is, even if this process was started to ignore that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


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
