"""Gateways as forks of a process that has imported all that one imports: a third of a second of a core less a start.

A fork runs gateway.py from its first line, as `python gateway.py` does, with the modules already there. It is a child of
the process that asks for it, which waits for it and signals it as one of its own; and it is killed when that ends. Linux
alone can do that.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]
# prctl(2), linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LONGEST_REQUEST = 1 << 17


class ForkedProcess:
    """Of `subprocess.Popen`, by the same names, what the tests ask of a gateway. `stdout` is its error output, too."""

    def __init__(self, pid: int, stdout: int) -> None:
        self.pid = pid
        self.stdout = os.fdopen(stdout, errors="replace")
        self.returncode: int | None = None
        self._lock = threading.Lock()  # a number that was waited for may be another process's

    def poll(self) -> int | None:
        """The exit code, as `subprocess` has it, or None while it runs."""
        with self._lock:
            if self.returncode is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; raises subprocess.TimeoutExpired after so many seconds."""
        if self.poll() is None:
            end = os.pidfd_open(self.pid)
            try:
                if not select.select([end], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("gateway.py", timeout or 0)
            finally:
                os.close(end)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class WarmGateway:
    """The process that is forked, as who asks it for forks has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(other.fileno())],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )

    def start(self, arguments: Sequence[str], environ: Mapping[str, str]) -> ForkedProcess:
        """`python gateway.py ARGUMENTS` in this environment and the repository's folder."""
        # It is one, and a unit test may not have it (tests/conftest.py).
        sys.audit("subprocess.Popen", "gateway.py", arguments, REPOSITORY, environ)
        request = json.dumps({"arguments": [*arguments], "environ": {**environ}, "parent": os.getpid()}).encode()
        assert len(request) <= LONGEST_REQUEST
        read_end, write_end = os.pipe()
        with self._lock:
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
            try:
                socket.send_fds(self._channel, [request], [write_end])
                pid = self._channel.recv(64)
            finally:
                # For no longer: what else is orphaned here is none of ours.
                _prctl(PR_SET_CHILD_SUBREAPER, 0)
                os.close(write_end)
        assert pid, "the process that gateways are forked from has ended"
        return ForkedProcess(int(pid), read_end)

    def close(self) -> None:
        """Let it end; its forks go on."""
        self._channel.close()
        self._process.wait()


@functools.cache
def warm_gateway() -> WarmGateway:
    """The one of this process."""
    made = WarmGateway()
    atexit.register(made.close)
    return made


def main(channel: socket.socket) -> None:
    """Import, and fork for each request until nobody can ask any more."""
    # A terminal's Ctrl-C is for those who are served.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = _load()
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, LONGEST_REQUEST, 1)
        if not request:
            return
        [output] = descriptors
        if _is_orphaned_fork():
            break
        os.close(output)
    signal.signal(signal.SIGINT, interrupt)
    asked = json.loads(request)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asked["parent"]:
        os._exit(1)  # it has ended before prctl
    channel.send(str(os.getpid()).encode())
    channel.close()
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv = ["gateway.py", *asked["arguments"]]
    program = ModuleType("__main__")
    program.__file__ = code.co_filename
    sys.modules["__main__"] = program
    exec(code, vars(program))


def _load() -> CodeType:
    """Have all modules of a gateway imported, and give the program to be run."""
    gateway = importlib.import_module("gateway")
    del sys.modules["gateway"]
    code = gateway.__spec__.loader.get_code("gateway")
    # No fork looks through what all of them share, and so none makes a copy of it.
    gc.collect()
    gc.freeze()
    return code


def _is_orphaned_fork() -> bool:
    """Whether this is the fork, which by now is a child of the nearest process above that takes in orphans."""
    waiting, end = os.pipe()
    between = os.fork()
    if between:
        os.close(waiting)
        os.waitpid(between, 0)
        os.close(end)
        return False
    if os.fork():
        os._exit(0)
    os.close(end)
    os.read(waiting, 1)  # until the process between has ended
    os.close(waiting)
    return True


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
