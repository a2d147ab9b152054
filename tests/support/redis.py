"""A real Redis for the tests: Debian's redis-server, in memory alone, on a free port of 127.0.0.1.

Where it is not installed the tests are skipped with the reason; with REQUIRE_REDIS=1 they fail.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.ports import free_port
from tools import paused_process
from tools.tied import tied

PROGRAM = "redis-server"
DEADLINE_SECONDS = 10.0


class RedisServer:
    """One redis-server, a child of the tests. What is frozen is thawed before it is ended.

    Attributes:
        port: the same after another `start`; what it held is gone then.
        password: needed from its clients, if there is one.
    """

    def __init__(self, password: str | None = None) -> None:
        self.port = free_port()
        self.password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For `limits.storage`."""
        password = f":{self.password}@" if self.password else ""
        return f"redis://{password}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it and waits until it answers; AssertionError if it does not."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if self.password:
            options += ["--requirepass", self.password]
        self._process = subprocess.Popen(
            tied([PROGRAM, *options]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"{PROGRAM} ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"{PROGRAM} does not answer after {DEADLINE_SECONDS:g} s"
            time.sleep(0.005)

    def ask(self, *words: str) -> bytes:
        """What it answers to one command, as it comes over the wire (RESP2), up to 64 KiB."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS) as connection:
            if self.password:
                connection.sendall(_command("AUTH", self.password))
                connection.recv(65536)
            connection.sendall(_command(*words))
            return connection.recv(65536)

    def kill(self) -> None:
        """As kill -9 does; it is gone when this returns."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Standing still: connections stay open, and new ones are still taken by the kernel."""
        assert self._process is not None
        with paused_process.stopped(self._process):
            yield

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith(b"+PONG")
        except OSError:
            return False


def _command(*words: str) -> bytes:
    return b"".join(
        [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)]
    )


@contextmanager
def redis_or_skip(password: str | None = None) -> Iterator[RedisServer]:
    """A running Redis; where there is no redis-server the test is skipped, or fails if REQUIRE_REDIS is 1."""
    if shutil.which(PROGRAM) is None:
        if os.environ.get("REQUIRE_REDIS") == "1":
            pytest.fail(f"no real Redis: {PROGRAM} is not installed", pytrace=False)
        pytest.skip(f"no real Redis: {PROGRAM} is not installed")
    server = RedisServer(password)
    try:
        server.start()
        yield server
    finally:
        server.kill()
