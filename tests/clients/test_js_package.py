"""The package of the client for JavaScript, as far as it can be seen without Node: tests/integration/test_js_client.py installs it."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from mexchange.errors import ERRORS

from tests.support import node
from tests.support.gateway import REPOSITORY

PACKAGE = REPOSITORY / "clients" / "js"
LIB = PACKAGE / "lib"
MANIFEST = json.loads((PACKAGE / "package.json").read_text("utf-8"))


def text(name: str) -> str:
    return (LIB / name).read_text("utf-8")


def exported(source: str) -> set[str]:
    """Names that a module exports: those of its own, and those that it passes on."""
    own = re.findall(r"^export (?:class|const|function|namespace) (\w+)", source, re.MULTILINE)
    passed_on = re.findall(r"^export \{([^}]*)\}", source, re.MULTILINE)
    spaces = re.findall(r"^export \* as (\w+)", source, re.MULTILINE)
    return {*own, *spaces, *re.findall(r"\w+", " ".join(passed_on))}


def test_every_error_of_the_contract_has_the_type_that_it_has_in_python() -> None:
    table = re.findall(
        r'^  \[(?:(-?\d+)|"([\w-]+)"), (\w+)\],$', text("errors.js").partition("BY_STATUS")[0], re.MULTILINE
    )
    found = {int(code) if code else name: kind for code, name, kind in table}
    assert found == {key: kind.__name__ for key, kind in ERRORS.items()}


def test_types_name_what_can_be_imported() -> None:
    values = exported(text("index.js"))
    assert "Exchange" in values
    assert exported(text("index.d.ts")) == values
    namespace = text("index.d.ts").partition("export namespace decimal {")[2].partition("\n}\n")[0]
    assert {*re.findall(r"^  (?:function|const) (\w+)", namespace, re.MULTILINE)} == exported(text("decimal.js"))


def test_modules_import_only_each_other() -> None:
    for path in LIB.glob("*.js"):
        for name in re.findall(r'(?:from|import\()\s*"([^"]+)"', path.read_text("utf-8")):
            assert (LIB / name.removeprefix("./")).is_file(), (path.name, name)


def test_manifest_names_files_that_are_packed_and_needs_nothing_to_run() -> None:
    assert MANIFEST["files"] == ["lib"]
    for file in (MANIFEST["types"], *MANIFEST["exports"]["."].values()):
        assert file.startswith("./lib/") and (PACKAGE / file).is_file()
    assert "dependencies" not in MANIFEST and "scripts" not in MANIFEST
    assert MANIFEST["engines"] == {"node": ">=20"}


def test_clients_have_one_version() -> None:
    python = tomllib.loads((REPOSITORY / "clients" / "python" / "pyproject.toml").read_text("utf-8"))
    assert MANIFEST["version"] == python["project"]["version"]


@pytest.mark.parametrize(("found", "why"), [(0, "Node 20 is missing"), (18, "Node 20 is missing (this is 18)")])
def test_tests_without_node_are_skipped_or_fail_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, found: int, why: str
) -> None:
    monkeypatch.setattr(node, "version", lambda: found)
    monkeypatch.delenv("REQUIRE_NODE", raising=False)
    with pytest.raises(pytest.skip.Exception, match=re.escape(why)):
        node.node()
    monkeypatch.setenv("REQUIRE_NODE", "1")
    with pytest.raises(pytest.fail.Exception, match=re.escape(why)):
        node.node()
