"""What the fan-out bench needs besides the gateway: C programs, and the peers, each had from its own package client.

Everything goes to `.bench/`; `make clean` removes it. Versions are exact: bench/peers/requirements.txt, and the go.mod of
centrifuge. What cannot be had is `Missing`, with the reason, and the bench goes on without it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.support.processes import ROOT, BenchError

CACHE = ROOT / ".bench"
PEERS = ROOT / "bench" / "peers"
INSTALL_SECONDS = 600


class Missing(Exception):
    """A peer that cannot be had here, and why: one line."""


def compiled(source: Path) -> Path:
    """The program made of one C file. Raises BenchError, as without the load generator there is no figure."""
    program = CACHE / source.stem
    text = source.read_bytes()
    stamp = CACHE / f"{source.stem}.sha256"
    digest = hashlib.sha256(text).hexdigest()
    if program.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return program
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise BenchError(
            "the load generator is written in C: install a compiler (Debian: apt-get install gcc libc6-dev)"
        )
    CACHE.mkdir(exist_ok=True)
    try:
        _call([compiler, "-O2", "-Wall", "-o", str(program), str(source)])
    except Missing as failure:
        raise BenchError(f"{source.name} could not be compiled: {failure}") from failure
    stamp.write_text(digest, encoding="ascii")
    return program


def python_peer(package: str) -> Path:
    """The interpreter of a virtual environment that has this package. Raises Missing."""
    line = next(
        found.partition("#")[0].strip()
        for found in (PEERS / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if found.startswith(f"{package}==")
    )
    python = CACHE / "venv" / "bin" / "python"
    stamp = CACHE / "venv" / f"{package}.stamp"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == line:
        return python
    if not python.exists():
        CACHE.mkdir(exist_ok=True)
        _call([sys.executable, "-m", "venv", str(CACHE / "venv")])
    _say(f"installing {line}")
    _call([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", line])
    stamp.write_text(line, encoding="utf-8")
    return python


def go_peer(name: str) -> Path:
    """A peer written in Go, from its folder of this name, built. Raises Missing."""
    source = PEERS / name
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir()))).hexdigest()
    program, stamp = CACHE / name, CACHE / f"{name}.sha256"
    if not program.exists() or not stamp.exists() or stamp.read_text(encoding="ascii") != digest:
        _say(f"building the Go peer {name}, which takes a minute or two")
        CACHE.mkdir(exist_ok=True)
        _call([str(_found("go")), "build", "-o", str(program), "."], _go_environment(), source)
        stamp.write_text(digest, encoding="ascii")
    return program


def _go_environment() -> dict[str, str]:
    flags = f"{os.environ.get('GOFLAGS', '')} -modcacherw -buildvcs=false".strip()
    # A toolchain is not fetched: what is here has to do.
    return {
        "GOPATH": str(CACHE / "go"),
        "GOCACHE": str(CACHE / "go" / "build"),
        "GOFLAGS": flags,
        "GOTOOLCHAIN": "local",
    }


def _found(program: str) -> Path:
    path = shutil.which(program)
    if path is None:
        raise Missing(f"there is no {program} here")
    return Path(path)


def _call(command: list[str], more: Mapping[str, str] | None = None, folder: Path = ROOT) -> None:
    """Run one command to its end. Raises Missing with what it said."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{Path(command[0]).name}: {error}") from error
    if done.returncode:
        raise Missing(f"{Path(command[0]).name}: {_reason(done.stderr or done.stdout)}")


def _reason(text: str) -> str:
    """One line of what a tool said, without the addresses it asked."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|40[34]|forbidden|not available|no matching", line, re.I)]
    line = (telling or lines or ["it failed and said nothing"])[-1]
    return re.sub(r"\s*\w+://\S+", "", line)[:160]


def _say(text: str) -> None:
    print(f"bench: {text} ...", file=sys.stderr, flush=True)
