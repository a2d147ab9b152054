"""Tests compiled once in a fresh clone, by as many processes as there are cores, before the processes of a run begin.

Those all import all tests at the same moment, and would each compile them: 54 s of CPU for six, and 41 with this. And each
would make hypothesis' table of all characters, which it keeps in `.hypothesis`: 2 s of CPU.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis.strategies import text

TESTS = Path(__file__).resolve().parents[1]


def compile_tests() -> None:
    """Import, in forks of this process, what pytest has never written the code of; what fails is for pytest to tell."""
    files = [file for file in sorted(TESTS.rglob("test_*.py")) if not _is_compiled(file)]
    cores = os.cpu_count() or 1
    if sys.dont_write_bytecode or len(files) < cores:
        return
    forks = [os.fork() or _import_and_end(files[part::cores], part == 0) for part in range(cores)]
    for fork in forks:
        os.waitpid(fork, 0)


def _is_compiled(file: Path) -> bool:
    return any((file.parent / "__pycache__").glob(f"{file.stem}.*pytest*.pyc"))


def _import_and_end(files: list[Path], wants_characters: bool) -> int:
    # Of what is slow, and of the libraries: who runs the tests is told when they are run.
    warnings.simplefilter("ignore")
    try:
        if wants_characters:
            text().validate()
        for file in files:
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))
    finally:
        os._exit(0)
