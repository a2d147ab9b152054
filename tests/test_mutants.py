from __future__ import annotations

import tomllib
from pathlib import Path

from tools.mutants import statuses, table

ROOT = Path(__file__).resolve().parent.parent


def test_mutants_are_of_files_and_for_tests_that_are_there() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]
    named = [*settings["only_mutate"], *settings["pytest_add_cli_args_test_selection"], *settings["source_paths"]]
    # A file that is not there has no mutants, and mutmut says no word about it.
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_mutants_are_counted_by_file_and_by_what_became_of_them() -> None:
    results = """
    core.delivery.outbox.xǁOutboxǁoffer__mutmut_1: killed
    core.delivery.outbox.xǁOutboxǁoffer__mutmut_2: survived
    core.orders.index.x__age__mutmut_1: no tests
    core.orders.index.x__age__mutmut_2: segfault
    """
    found = statuses(results)
    assert {file: [*mutants.values()] for file, mutants in found.items()} == {
        "core/delivery/outbox.py": ["killed", "survived"],
        "core/orders/index.py": ["no tests", "segfault"],
    }
    heads, *rows = table(found).splitlines()
    assert heads.split() == ["mutants", "killed", "survived", "no", "tests", "timeout"]
    assert [row.split() for row in rows] == [
        ["core/delivery/outbox.py", "2", "1", "1", "0", "0"],
        ["core/orders/index.py", "2", "0", "0", "1", "0", "1", "segfault"],
    ]
