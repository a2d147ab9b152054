"""docs/architecture.md: every file and room that it names is there, and every room and module is named."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

import pytest

from tests.support.gateway import REPOSITORY

TEXT = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOFS = ("core", "handlers", "services", "process", "wiring")
ROWS = {
    row[0]: row[1]
    for row in re.findall(r"^\| `([\w/]+)/` \| [^|]+ \| ([^|]+) \|$", TEXT, re.MULTILINE)
}  # fmt: skip
FILES = sorted(set(re.findall(r"`([\w.-]+(?:/[\w.-]+)*\.(?:py|md|yaml|yml|json|js))`", TEXT)))


def modules(room: str) -> list[str]:
    return sorted(path.stem for path in (REPOSITORY / room).glob("*.py") if path.stem != "__init__")


def line(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def nearest(name: str) -> str:
    """For whoever has just moved or renamed a file."""
    files = [str(path.relative_to(REPOSITORY)) for roof in ROOFS for path in (REPOSITORY / roof).rglob("*.py")]
    same = [file for file in files if Path(file).name == Path(name).name]
    return f"{name}: not there; perhaps {', '.join(same or get_close_matches(name, files)) or 'none'}"


def test_page_names_files_that_there_are() -> None:
    assert len(FILES) > 40
    bare = {"__init__.py"}
    assert [nearest(name) for name in FILES if name not in bare and not (REPOSITORY / name).is_file()] == []


def test_page_names_folders_that_there_are() -> None:
    folders = set(re.findall(r"`([\w-]+(?:/[\w-]+)*)/`", TEXT))
    assert [name for name in sorted(folders) if not (REPOSITORY / name).is_dir()] == []


def test_page_has_every_room() -> None:
    rooms = {
        str(package.parent.relative_to(REPOSITORY))
        for roof in ROOFS
        for package in (REPOSITORY / roof).rglob("__init__.py")
    }
    assert ROWS.keys() == rooms


@pytest.mark.parametrize("room", ROWS)
def test_page_has_every_module_of_a_room_and_no_other(room: str) -> None:
    assert ROWS[room] == line(modules(room)), f"it has {line(modules(room))}"


def test_drawing_shows_rooms_that_there_are() -> None:
    [drawing] = re.findall(r"^```mermaid\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    shown = re.findall(r'\w+\["([\w/.]+)"\]', drawing)
    assert len(shown) > 8
    assert len(shown) == len(set(shown))
    assert [name for name in shown if name not in ROWS and not (REPOSITORY / name).is_file()] == []


@pytest.mark.parametrize("what", ["channel", "order field", "setting", "metric", "event type", "route"])
def test_page_says_where_to_begin(what: str) -> None:
    [told] = re.findall(rf"^\*\*A new {what}\*\*\n\n((?:[-  ].*\n)+)", TEXT, re.MULTILINE)
    assert len([name for name in FILES if f"`{name}`" in told]) >= 4


def test_page_is_found_from_the_front_door() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert "(docs/architecture.md)" in text, name
        assert "(docs/contract.md)" in text, name
