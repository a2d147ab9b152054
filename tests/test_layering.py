"""Who may use whom. The table here is the law of the house; a new room is put into it before it is used."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "handlers", "services", "wiring", "exchange", "tools", "bench", "tests")
FILES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "gateway.py", *chain(*((ROOT / room).rglob("*.py") for room in ROOMS))]
)
PRODUCT = [file for file in FILES if file.startswith(("gateway.py", "wiring/", "core/", "handlers/", "services/"))]
PAGE = ROOT / "console" / "index.html"


@dataclass(frozen=True)
class Rule:
    """Files that begin with one of `who`, and with none of `but`, import nothing of `nothing_of`, save `save`."""

    who: tuple[str, ...]
    nothing_of: tuple[str, ...]
    but: tuple[str, ...] = ()
    save: tuple[str, ...] = ()

    def broken_by(self, file: str, names: Iterable[str]) -> list[str]:
        if not file.startswith(self.who) or (self.but and file.startswith(self.but)):
            return []
        return [name for name in names if is_of(name, self.nothing_of) and not is_of(name, self.save)]


AROUND = ("tests", "bench")
RULES = (
    # gateway -> handlers -> core, and the workshop around it is used by none of them.
    Rule(("core/",), ("tornado", "handlers", "services", "wiring", "gateway", "tools", *AROUND)),
    # services: clients of what stands beside the gateway (accounts, JWKS, Redis), and what it is to the system (sockets,
    # processes, descriptors); put together by wiring/ alone.
    Rule(("handlers/",), ("services", "wiring", "gateway", "tools", *AROUND)),
    Rule(("services/",), ("handlers", "wiring", "gateway", "tools", *AROUND)),
    Rule(("wiring/",), ("gateway", "confluent_kafka", "tools", *AROUND)),
    Rule(("gateway.py",), ("tools", *AROUND)),
    Rule(("core/", "handlers/", "services/"), ("core.kafka", "confluent_kafka"), but=("core/kafka/",)),
    Rule(("gateway.py",), ("confluent_kafka",), save=("confluent_kafka.KafkaException",)),
    # The market of the demo is told apart from the product, in both directions.
    Rule(("",), ("exchange",), but=("exchange/", "tests/", "bench/")),
    Rule(("exchange/",), ("core", "handlers", "gateway", "tornado", "tools", *AROUND)),
    Rule(("tools/",), ("core", "handlers", "gateway", "tornado", *AROUND)),
    # One user each, so that what is careful about them is in one place.
    Rule(("",), ("yaml",), but=("core/yaml_document.py", "tests/", "bench/")),
    Rule(("",), ("jose",), but=("core/identity.py", "tests/", "bench/")),
    # ujson turns a number into a double and takes NaN: nothing that comes in is read with it.
    Rule(("core/", "handlers/", "services/", "gateway.py"), ("ujson.loads", "ujson.load", "ujson.decode")),
)

# core from the bottom up; what is not named stands in the middle.
BOTTOM, MIDDLE, TOP, BUS = range(4)
LEVELS = {
    **dict.fromkeys(("errors", "model", "strict_json", "events", "frames"), BOTTOM),
    **dict.fromkeys(("session", "hub", "order_entry", "connection_orders", "order_reader", "pump"), TOP),
    "kafka": BUS,
}


def is_of(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def used(source: str) -> Iterator[str]:
    """Dotted names of what a module imports, and of what it uses of modules that it imported by their own name."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute: they say where things live"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def imported(source: str) -> set[str]:
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return set(used(ast.unparse(ast.Module(list(imports), []))))


def broken_rules(file: str, source: str) -> list[str]:
    names = imported(source) | {name for name in used(source) if is_of(name, ("ujson",))}
    return [name for rule in RULES for name in rule.broken_by(file, names)]


def level_of(name: str) -> int:
    return LEVELS.get(name.split(".")[1], MIDDLE)


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def modules_in(names: Iterable[str], modules: set[str]) -> set[str]:
    """Which of our modules these names are, or are in."""
    return {name if name in modules else name.rpartition(".")[0] for name in names} & modules


def upward_imports(file: str, source: str) -> list[str]:
    own = level_of(module_of(file))
    return [name for name in imported(source) if name.startswith("core.") and level_of(name) > own]


def text_of(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


@pytest.mark.parametrize("file", FILES)
def test_module_uses_only_what_it_may(file: str) -> None:
    assert broken_rules(file, text_of(file)) == []


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("core/") and file != "core/__init__.py"])
def test_module_of_core_uses_nothing_above_it(file: str) -> None:
    assert upward_imports(file, text_of(file)) == []


def test_modules_of_the_product_import_each_other_in_no_circle() -> None:
    modules = {module_of(file) for file in PRODUCT}
    assert {"gateway", "handlers.stream", "core.hub", "core.kafka.feed"} <= modules
    graph = {module_of(file): modules_in(imported(text_of(file)), modules) - {module_of(file)} for file in PRODUCT}
    assert "core.kafka.feed" in graph["wiring.bus"]
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/hub.py", "import tornado.web"),
        ("core/hub.py", "def late():\n    from tornado import gen"),
        ("core/kafka/feed.py", "from handlers.base import Context"),
        ("core/hub.py", "import gateway"),
        ("core/hub.py", "import exchange.matching"),
        ("core/hub.py", "from core.kafka.feed import Feed"),
        ("core/hub.py", "from core import kafka"),
        ("core/hub.py", "import confluent_kafka"),
        ("core/hub.py", "import yaml"),
        ("core/hub.py", "import ujson\nujson.loads('1')"),
        ("core/session.py", "from ujson import loads"),
        ("core/session.py", "from jose import jwt"),
        ("core/settings.py", "import tests.core.fakes"),
        ("handlers/stream.py", "from core.kafka.clients import Calls"),
        ("handlers/stream.py", "from confluent_kafka import KafkaException"),
        ("handlers/stream.py", "from gateway import Gateway"),
        ("gateway.py", "from confluent_kafka import KafkaException, Producer"),
        ("gateway.py", "import exchange"),
        ("gateway.py", "from tools.kafka import cluster"),
        ("exchange/bus.py", "from core.model import Side"),
        ("tools/kafka/cluster.py", "from exchange.bus import Bus"),
    ],
)
def test_rules_notice_what_is_not_allowed(file: str, source: str) -> None:
    assert len(broken_rules(file, source)) >= 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/hub.py", "import json\nfrom core.frames import text_frame\nimport tornadoes"),
        ("core/kafka/feed.py", "from confluent_kafka import Consumer\nfrom core.kafka.clients import Calls"),
        ("core/yaml_document.py", "import yaml"),
        ("core/identity.py", "from jose import jwt"),
        ("core/session.py", "import ujson\nujson.dumps(1)"),
        ("gateway.py", "from confluent_kafka import KafkaException\nfrom core.kafka.feed import Feed"),
        ("exchange/bus.py", "from confluent_kafka import Producer\nimport exchange.book"),
        ("bench/latency/idle.py", "import exchange, core.kafka.feed, handlers.stream, gateway, yaml"),
    ],
)
def test_rules_leave_alone_what_is_allowed(file: str, source: str) -> None:
    assert broken_rules(file, source) == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("core/errors.py", "core.settings"),
        ("core/model.py", "core.order_book"),
        ("core/order_book.py", "core.hub"),
        ("core/channel_names.py", "core.hub"),
        ("core/market.py", "core.kafka.feed"),
    ],
)
def test_levels_notice_what_is_upside_down(file: str, name: str) -> None:
    assert upward_imports(file, f"import {name}") == [name]
    package, _, module = name.rpartition(".")
    assert upward_imports(file, f"from {package} import {module}") == [name]


# The page, whose Content-Security-Policy lets nothing run or style that is not a file of its own.


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.faults: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "style" or "style" in given:
            self.faults.append(f"<{tag}> with a style of its own")
        if tag == "script" and not given.get("src"):
            self.faults.append("a script in the page")
        self.faults += [f"<{tag} {name}>" for name in given if name.startswith("on")]
        links = [given.get(name) or "" for name in ("src", "href", "action", "formaction") if name in given]
        self.faults += [f"<{tag}> to {link}" for link in links if ":" in link or link.startswith("//")]
        if tag in ("script", "link", "img"):
            self.sources += links

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and data.strip():
            self.faults.append("a script in the page")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def page(html: str) -> _Page:
    parser = _Page()
    parser.feed(html)
    parser.close()
    return parser


def test_page_has_no_script_style_or_handler_in_it_and_asks_only_its_own_server() -> None:
    found = page(PAGE.read_text("utf-8"))
    assert found.faults == []
    assert any(source.endswith(".js") for source in found.sources)


def test_page_names_only_files_that_are_there() -> None:
    for source in page(PAGE.read_text("utf-8")).sources:
        assert source.lstrip("/").startswith("console/"), source
        assert (ROOT / source.lstrip("/")).is_file(), source


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        "<script src='a.js'>alert(1)</script>",
        "<script type=module>import 'x'</script>",
        "<button onclick='f()'>x</button>",
        "<a href='javascript:f()'>x</a>",
        "<script src='https://elsewhere.example/a.js'></script>",
        "<link rel=stylesheet href='//elsewhere.example/a.css'>",
        "<style>p {}</style>",
        "<p style='color: red'>x</p>",
    ],
)
def test_page_check_notices_what_the_policy_forbids(html: str) -> None:
    assert len(page(html).faults) >= 1
