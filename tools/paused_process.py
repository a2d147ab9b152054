"""Processes that stand still for a while: what they hold stays open, and nothing of them answers.

A stop signal is only the beginning of it. The other threads go on until each has come by the kernel, which took a JVM
up to 30 ms here: long enough to answer one more request.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def stop(process: subprocess.Popen[Any]) -> None:
    """Stops a child of this process (SIGSTOP); when this returns no thread of it runs any more, or it has ended."""
    process.send_signal(signal.SIGSTOP)  # which looks first whether it has ended
    if process.returncode is None and sys.platform == "linux":  # not every Python elsewhere has waitid
        # WNOWAIT: the end of the process stays for its handle to find.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def go_on(process: subprocess.Popen[Any]) -> None:
    """Lets a stopped process go on; one that has ended is left alone."""
    process.send_signal(signal.SIGCONT)


@contextmanager
def stopped(*processes: subprocess.Popen[Any]) -> Iterator[None]:
    """Held up together, as a busy machine does."""
    try:
        for process in processes:
            stop(process)
        yield
    finally:
        for process in processes:
            go_on(process)
