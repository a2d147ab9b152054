"""A process that is told to stand still does: no thread of it answers one more request."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import paused_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what each thread does")

# Sixty threads that are now here, now there, as a JVM's are.
BUSY = """
import threading, time
def go():
    while True:
        time.sleep(0.001)
for _ in range(60):
    threading.Thread(target=go).start()
print("up", flush=True)
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.kill()


def states(process: subprocess.Popen[bytes]) -> set[str]:
    """What its threads do, a letter each (proc(5)): T is stopped."""
    lines = (file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/stat"))
    return {line.rpartition(")")[2].split()[0] for line in lines}


def test_every_thread_stands_still_when_stop_returns(busy: subprocess.Popen[bytes]) -> None:
    for _ in range(50):
        with paused_process.stopped(busy):
            assert states(busy) == {"T"}
    assert states(busy) != {"T"}


def test_process_that_stands_still_can_be_stopped_again_and_ended(busy: subprocess.Popen[bytes]) -> None:
    paused_process.stop(busy)
    with paused_process.stopped(busy):
        assert states(busy) == {"T"}
        busy.kill()
    assert busy.wait() == -9


def test_process_that_has_ended_is_left_alone_and_its_code_is_still_there() -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()  # until its end
        with paused_process.stopped(process):
            pass
        assert process.wait() == 7
