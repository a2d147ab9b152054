"""The simulated exchange as a process of its own."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.gateway import DEADLINE_SECONDS
from tests.support.warm_start import REPOSITORY


@contextmanager
def exchange_process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m exchange ARGUMENTS`, ready; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "exchange", "--until-stdin-closes", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None and process.stdin is not None
            readable, _, _ = select.select([process.stdout], [], [], DEADLINE_SECONDS)
            assert readable and "ready" in process.stdout.readline(), "the exchange did not begin"
            yield process
            process.stdin.close()
            process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
