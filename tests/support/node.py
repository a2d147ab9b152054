"""Node, for tests of the client for JavaScript.

Where it is not installed, or is too old, the tests are skipped with the reason; with REQUIRE_NODE=1 they fail.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.gateway import REPOSITORY

PACKAGE = REPOSITORY / "clients" / "js"
OLDEST = 20
# From here on there is a WebSocket without being asked for.
WITH_WEBSOCKET = 22
SECONDS = 120.0


@functools.cache
def version() -> int:
    """The major version of Node; 0 where there is none."""
    found = shutil.which("node")
    if found is None:
        return 0
    told = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    return int(told.removeprefix("v").partition(".")[0])


def node() -> list[str]:
    """The command that runs a program, as a `pytest.fixture` would give it."""
    if (found := version()) < OLDEST:
        skip(f"Node {OLDEST} is missing (this is {found})" if found else f"Node {OLDEST} is missing")
    return ["node"] if found >= WITH_WEBSOCKET else ["node", "--experimental-websocket", "--no-warnings"]


def npm() -> str:
    """npm, which comes with Node, but not with Debian's."""
    node()
    return shutil.which("npm") or skip("npm is missing")


def tool(path: str) -> Path:
    """What is developed with, by its path among the packages that `make` installs."""
    node()
    file = PACKAGE / "node_modules" / path
    return file if file.exists() else skip(f"{path} is missing: npm ci --prefix clients/js")


def run(*arguments: str, told: str = "", folder: Path | None = None, **environ: str) -> str:
    """What a program prints, which has to succeed; `told` is its standard input."""
    done = subprocess.run(
        arguments,
        input=told,
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def skip(why: str) -> NoReturn:
    """No test; with REQUIRE_NODE=1 a failure."""
    if os.environ.get("REQUIRE_NODE") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)
