"""Links: whoever follows one, in a page or in a comment, finds the chapter, and nothing refers to what is not here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.gateway import REPOSITORY

DOCS = REPOSITORY / "docs"
# Whose pages have chapters that others link to.
FOLDERS = (DOCS, REPOSITORY / "bench")
WITH_LINKS = (".py", ".md", ".yaml", ".yml", ".js", ".json", ".toml")


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> list[str]:
    return [anchor(heading) for heading in re.findall(r"^##+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)]


def linking() -> Iterator[Path]:
    """Every file of ours that may link to a chapter."""
    for top in sorted(REPOSITORY.iterdir()):
        if top.name.startswith((".", "node_modules")):
            continue
        files = top.rglob("*") if top.is_dir() else [top]
        yield from (
            file
            for file in files
            if file.is_file() and file.suffix in WITH_LINKS and not {"node_modules", "vendor"} & {*file.parts}
        )


def broken_links(text: str, own: Path | None = None) -> list[str]:
    """Links to chapters of pages in docs/ and bench/ that are not there; `own` is the page itself, if it is in docs/.

    A comment names several chapters as in `docs/contract.md#limits, #identity`.
    """
    broken = []
    for name, first, others in re.findall(r"([\w-]+\.md)#([\w-]+)((?:, #[\w-]+)*)", text):
        page = next((folder / name for folder in FOLDERS if (folder / name).is_file()), None)
        if page is not None:
            targets = [first, *re.findall(r"[\w-]+", others)]
            broken += [f"{name}#{target}" for target in targets if target not in anchors(page)]
        elif not (REPOSITORY / name).is_file():
            broken.append(name)
    if own is not None:
        broken += [f"#{target}" for target in re.findall(r"\(#([\w-]+)\)", text) if target not in anchors(own)]
    return broken


def test_every_link_to_a_chapter_finds_one() -> None:
    files = list(linking())
    assert len(files) > 300
    assert {
        str(file.relative_to(REPOSITORY)): broken
        for file in files
        if file != Path(__file__)
        and (
            broken := broken_links(
                file.read_text(encoding="utf-8"), file if file.suffix == ".md" and file.parent == DOCS else None
            )
        )
    } == {}


def test_links_are_noticed_that_find_nothing() -> None:
    page = DOCS / "contract.md"
    assert broken_links("see docs/contract.md#retries, #cancels and [x](#resume)", page) == []
    assert broken_links("see docs/contract.md#retries, #nothing") == ["contract.md#nothing"]
    assert broken_links("see docs/contract.md#nothing", page) == ["contract.md#nothing"]
    assert broken_links("[x](#nothing)", page) == ["#nothing"]
    assert broken_links("docs/nothing.md#retries") == ["nothing.md"]
    assert broken_links("bench/RESULTS.md#soak, bench/RESULTS.md#nothing") == ["RESULTS.md#nothing"]


def test_pages_link_to_files_that_there_are() -> None:
    pages = [*DOCS.glob("*.md"), *REPOSITORY.glob("*.md")]
    link = re.compile(r"""(?:\]\(|\bsrc(?:set)?=")([^)"#\s]+)""")
    links = [(page, found) for page in pages for found in link.findall(page.read_text(encoding="utf-8"))]
    local = [(page, link) for page, link in links if not re.match(r"https?:", link)]
    assert len(local) > 40
    assert [(page.name, link) for page, link in local if not (page.parent / link).exists()] == []


def test_no_two_chapters_have_one_anchor() -> None:
    for page in DOCS.glob("*.md"):
        assert len(anchors(page)) == len(set(anchors(page))), page.name


# References by number, as in (contract, section 2): here a link to a chapter is written instead.
ELSEWHERE = re.compile(r"\bcontract, (?:sections? )?\d|\bissues? \d", re.IGNORECASE)


def references_elsewhere(text: str, pages: set[str]) -> list[str]:
    """What in a text refers to an issue, to a section by its number, or to a page that is none of `pages`."""
    return [found[0] for found in ELSEWHERE.finditer(text)] + sorted(set(re.findall(r"[\w-]+\.md\b", text)) - pages)


def test_nothing_refers_to_a_page_or_an_issue_that_is_not_here() -> None:
    files = list(linking())
    pages = {file.name for file in files if file.suffix == ".md"}
    found = {
        str(file.relative_to(REPOSITORY)): references_elsewhere(file.read_text(encoding="utf-8"), pages)
        for file in files
        if file != Path(__file__)
    }
    assert {name: told for name, told in found.items() if told} == {}


def test_references_elsewhere_are_noticed() -> None:
    pages = {"contract.md"}
    assert references_elsewhere("(contract, section 2), (Contract, 1 and 2), issue 4, point 8; HOUSE.md", pages) == [
        "contract, section 2",
        "Contract, 1",
        "issue 4",
        "HOUSE.md",
    ]
    assert references_elsewhere("docs/contract.md#retries; RFC 9110 section 10.2.3; the contract", pages) == []


PATH = re.compile(
    r"(?<![\w/.-])(?:core|handlers|services|process|wiring|exchange|tests|bench|tools|console|docs|conf)"
    r"/[\w/.-]+\.(?:py|md|yaml|yml|json|js|css|html)\b"
)
MODULE = re.compile(r"(?<![\w/.-])core(?:\.[a-z_]+)+\b")


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or package of ours, or something in one."""
    parts = name.split(".")
    paths = [REPOSITORY.joinpath(*parts[:length]) for length in range(2, len(parts) + 1)]
    return any(path.with_suffix(".py").is_file() for path in paths) or paths[-1].is_dir()


def test_files_and_modules_that_comments_and_pages_name_are_there() -> None:
    missing = set()
    for file in linking():
        # These two make up names to see that they are noticed.
        if file.name in (Path(__file__).name, "test_layering.py"):
            continue
        text = file.read_text(encoding="utf-8")
        names = {name for name in PATH.findall(text) if not (REPOSITORY / name).is_file()}
        names |= {name for name in MODULE.findall(text) if not is_module(name)}
        missing |= {f"{file.relative_to(REPOSITORY)}: {name}" for name in names}
    assert sorted(missing) == []


def test_names_of_what_is_not_there_are_noticed() -> None:
    assert is_module("core.errors.CloseCode") and is_module("core.kafka") and is_module("core.kafka.feed")
    assert not is_module("core.nothing") and not is_module("core.kafka.nothing")
    assert PATH.findall("see docs/nothing.md, `core/kafka/feed.py`") == ["docs/nothing.md", "core/kafka/feed.py"]
