"""Autobahn's testsuite against the frame layer: `python -m tools.autobahn [case ...]`, such as `1.*` or `6.4.1`; all without.

The suite runs on Python 2.7 alone, and comes from PyPI. Its report is in .autobahn/report/index.html.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import IO

from tornado.netutil import bind_sockets

from handlers.acceptor import Listener
from handlers.http_connection import Server
from tools.autobahn.echo import application
from tools.tied import tied

SUITE = "autobahntestsuite==0.8.2"
# Those of sections 8 and 11 were never written.
CASES = [f"{section}.*" for section in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13)]
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
FOLDER = Path(".autobahn")
REPORT = FOLDER / "report"
AGENT = "gateway"
# Not PYTHONPATH: the suite's packages have .pth files.
RUN = "import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite.wstest import run; run()"


def python_2() -> str | None:
    """A Python 2.7, by name or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in ["python2.7", "python2", *map(str, pyenv.glob("versions/2.7*/bin/python"))]:
        if shutil.which(python):
            asked = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True)
            if asked.stdout.strip() == b"(2, 7)":
                return python
    return None


def install(python: str, packages: Path) -> None:
    """Raises `CalledProcessError`."""
    if not packages.exists():
        print(f"installing {SUITE} into {packages} ...", flush=True)
        making = packages.with_suffix(".new")
        shutil.rmtree(making, ignore_errors=True)
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
            str(making),
            SUITE,
        ]
        subprocess.run(command, check=True, capture_output=True, text=True)
        making.rename(packages)


async def run(python: str, packages: Path, cases: list[str], log: IO[bytes]) -> None:
    """Serve, and let the suite write its report."""
    [listening] = bind_sockets(0, "127.0.0.1")
    server = Server(application(), max_body_size=0)
    listener = Listener(server, most=1000, clients=lambda: 0)
    listener.accept_on([listening])
    spec = {
        "outdir": str(REPORT),
        "servers": [{"agent": AGENT, "url": f"ws://127.0.0.1:{listening.getsockname()[1]}/"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (FOLDER / "spec.json").write_text(json.dumps(spec))
    command = [python, "-c", RUN, str(packages), "-m", "fuzzingclient", "-s", str(FOLDER / "spec.json")]
    suite = await asyncio.create_subprocess_exec(*tied(command), stdout=log, stderr=log)
    await suite.wait()
    listener.close()


def told(report: dict[str, dict[str, str]]) -> str | None:
    """Print what the suite found, by case; what is wrong is given back, in a line."""
    ways: Counter[str] = Counter()
    for case, result in sorted(report.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        found, close = result["behavior"], result["behaviorClose"]
        passed = found in PASSED and close in PASSED
        ways["passed" if passed else "failed"] += 1
        ways[found] += 1
        if not passed:
            print(f"{case}: {found}, close {close}")
    kinds = ", ".join(f"{ways[way]} {way.lower()}" for way in PASSED)
    print(f"autobahn: {ways['passed']} of {len(report)} cases passed ({kinds})")
    return f"autobahn: {ways['failed']} failed; see {REPORT}/index.html" if ways["failed"] else None


def main(cases: list[str]) -> str | None:
    """What is wrong is given back, in a line."""
    python = python_2()
    if python is None:
        return "autobahn: the suite needs Python 2.7, and there is none (python2.7 on the PATH, or in pyenv)"
    packages = FOLDER / "packages"
    FOLDER.mkdir(exist_ok=True)
    shutil.rmtree(REPORT, ignore_errors=True)
    try:
        install(python, packages)
        with open(FOLDER / "log", "wb") as log:
            asyncio.run(run(python, packages, cases or CASES, log))
        return told(json.loads((REPORT / "index.json").read_text())[AGENT])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["pip failed"])[-1]
        return f"autobahn: {SUITE} cannot be installed: {reason}"
    except FileNotFoundError:
        return f"autobahn: the suite did not come to its end; see {FOLDER}/log"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
