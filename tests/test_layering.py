"""Who may import whom: one table, which a new room is put into before it is used."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache, lru_cache
from graphlib import TopologicalSorter
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "core", "handlers", "services", "process", "wiring", "exchange", "tools", "clients", "examples", "bench", "tests",
)  # fmt: skip
FILES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "gateway.py", *chain(*((ROOT / folder).rglob("*.py") for folder in FOLDERS))]
)
PAGE = ROOT / "console" / "index.html"

# Who may import whom: each room, and the rooms that it uses, from the ground up. A room uses itself, and nothing that
# stands below it in this table. (What a room is for stands at the head of its __init__.py.)
GROUND = ("core.errors", "core.log_throttle", "core.background_tasks")
KNOWLEDGE = ("core.messages", "core.delivery", "core.config", "core.market", "core.accounts", "core.orders", *GROUND)
EDGES = ("core.channels", "core.access", "core.telemetry", *KNOWLEDGE)
MAY_USE = {
    "core.errors": (),
    "core.log_throttle": (),
    "core.background_tasks": (),
    "core.messages": GROUND,
    "core.delivery": GROUND,
    "core.config": ("core.messages", *GROUND),
    "core.market": ("core.messages", *GROUND),
    "core.accounts": ("core.messages", "core.delivery", *GROUND),
    "core.control": ("core.messages", "core.delivery", *GROUND),
    "core.orders": ("core.accounts", "core.market", "core.messages", "core.delivery", *GROUND),
    "core.channels": ("core.market", "core.messages", "core.delivery", *GROUND),
    "core.access": ("core.config", "core.messages", *GROUND),
    "core.telemetry": ("core.orders", "core.messages", "core.delivery", *GROUND),
    "core.protocol": (
        "core.channels",
        "core.accounts",
        "core.control",
        "core.orders",
        "core.access",
        "core.telemetry",
        "core.messages",
        "core.delivery",
        *GROUND,
    ),
    "core.pump": ("core.channels", "core.market", "core.messages", "core.telemetry", *GROUND),
    "core.health": ("core.channels", "core.config", "core.accounts", "core.orders", "core.telemetry", *GROUND),
    "core.kafka": ("core.channels", "core.market", "core.messages", *GROUND),
    "handlers": ("core.protocol", "core.control", *EDGES),
    "services": EDGES,
    "process": EDGES,
    "wiring": ("core", "handlers", "services", "process"),
    "gateway": ("core", "handlers", "services", "process", "wiring"),
    # Beside the product. The market of the demo is told apart from it, in both directions.
    "exchange": (),
    "tools": (),
    # What traders install knows nothing of what it talks to.
    "clients": (),
    "examples": (),
    # Serves by the gateway's own frame layer.
    "tools.autobahn": ("core", "handlers", "tools"),
    # Reads what the gateway has written, and so has to fold as it does.
    "tools.state": ("core",),
    "bench": ("core", "handlers", "services", "process", "wiring", "gateway", "exchange", "tools"),
    "tests": ("core", "handlers", "services", "process", "wiring", "gateway", "exchange", "tools", "clients", "bench"),
}
OURS = frozenset(room.partition(".")[0] for room in MAY_USE)

# Libraries that not everybody may use, and who may. What is careful about one stands in one place.
USERS = {
    "confluent_kafka": ("core.kafka", "exchange", "tools", "bench", "tests"),
    "confluent_kafka.KafkaException": ("gateway",),
    "tornado": ("handlers", "services", "process", "gateway", "tools.autobahn", "bench", "tests"),
    "yaml": ("core.config.yaml_document", "bench", "tests"),
    "jose": ("core.access.identity", "bench", "tests"),
    # ujson turns a number into a double and takes NaN: nothing that comes in is read with it.
    "ujson.load": ("exchange", "tools", "bench", "tests"),
    "ujson.loads": ("exchange", "tools", "bench", "tests"),
    "ujson.decode": ("exchange", "tools", "bench", "tests"),
}


def is_of(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@lru_cache(maxsize=1)  # all rules of one module, and then those of the next
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def imported(source: str) -> set[str]:
    """Dotted names of what a module imports, its functions as well."""
    names: set[str] = set()
    for node in statements(parsed(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute: they say where things live"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def statements(tree: ast.Module) -> list[ast.AST]:
    """All statements, and what they stand in. The expressions, which are most of a module, are left alone."""
    found: list[ast.AST] = [tree]
    for node in found:
        for part in ("body", "orelse", "handlers", "finalbody", "cases"):
            found += getattr(node, part, ())
    return found


def used_of(library: str, source: str) -> set[str]:
    """Dotted names of what a module uses of one that it imported by its own name."""
    return {
        f"{library}.{node.attr}"
        for node in (ast.walk(parsed(source)) if library in source else ())
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == library
    }


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str | None:
    """The room that a module, or a name in it, is in; None for what is not ours."""
    rooms = [room for room in MAY_USE if is_of(module, (room,))]
    return max(rooms, key=len) if rooms else None


def broken_rules(file: str, source: str) -> list[str]:
    """What a file imports, and must not."""
    own = room_of(module_of(file)) or "core"
    broken = []
    imports = imported(source)
    for name in imports:
        if name.partition(".")[0] in OURS:
            allowed = ("core",) if own == "core" else (own, *MAY_USE[own])
            if not is_of(room_of(name) or name, allowed):
                broken.append(name)
    for name in imports | used_of("ujson", source):
        rules = [library for library in USERS if is_of(name, (library,))]
        if rules and not any(is_of(module_of(file), USERS[library]) for library in rules):
            broken.append(name)
    return broken


def modules_in(names: Iterable[str], modules: set[str]) -> set[str]:
    """Which of our modules these names are, or are in."""
    return {name if name in modules else name.rpartition(".")[0] for name in names} & modules


def text_of(file: str) -> str:
    return (ROOT / file).read_text("utf-8")


def test_modules_use_only_what_they_may() -> None:
    assert {file: broken for file in FILES if (broken := broken_rules(file, text_of(file)))} == {}


def test_modules_of_core_are_in_a_room() -> None:
    modules = [module_of(file) for file in FILES if file.startswith("core/") and file != "core/__init__.py"]
    assert [module for module in modules if room_of(module) is None] == []
    assert len(modules) > 100


def test_room_uses_only_what_stands_above_it_in_the_table() -> None:
    rooms = list(MAY_USE)
    for number, (room, others) in enumerate(MAY_USE.items()):
        for other in others:
            assert any(is_of(known, (other,)) for known in rooms[:number]), (room, other)


def test_room_tells_at_its_head_what_it_is_for() -> None:
    rooms = [
        ROOT / room.replace(".", "/")
        for room in MAY_USE
        if room.partition(".")[0] not in ("tests", "bench", "tools", "clients", "examples")
    ]
    for room in filter(Path.is_dir, rooms):
        story = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
        named = {name.name.removesuffix(".py") for name in room.glob("*.py")} - {"__init__"}
        if room.parent == ROOT / "core":
            assert {name for name in named if name not in story} == set(), room
            assert "In: " in story and "Out: " in story and "Uses " in story, room


def test_modules_of_the_product_import_each_other_in_no_circle() -> None:
    product = [
        file
        for file in FILES
        if not file.startswith(("exchange/", "tools/", "clients/", "examples/", "bench/", "tests/"))
    ]
    modules = {module_of(file) for file in product}
    assert {"gateway", "handlers.websocket", "core.channels.hub", "core.kafka.feed"} <= modules
    graph = {module_of(file): modules_in(imported(text_of(file)), modules) - {module_of(file)} for file in product}
    assert "core.kafka.feed" in graph["wiring.bus"]
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/channels/hub.py", "import tornado.web"),
        ("core/channels/hub.py", "def late():\n    from tornado import gen"),
        ("core/kafka/feed.py", "from handlers.problems import Context"),
        ("core/channels/hub.py", "import gateway"),
        ("core/channels/hub.py", "import exchange.matching"),
        ("core/channels/hub.py", "from core.kafka.feed import Feed"),
        ("core/channels/hub.py", "from core import kafka"),
        ("core/channels/hub.py", "from core.orders.directory import OrderDirectory"),
        ("core/channels/hub.py", "import confluent_kafka"),
        ("core/channels/hub.py", "import yaml"),
        ("core/channels/hub.py", "import ujson\nujson.loads('1')"),
        ("core/config/settings.py", "from core.access.keys import read_pem"),
        ("core/delivery/subscriber.py", "from core.channels.subscription import Subscription"),
        ("core/errors.py", "import core.config.settings"),
        ("core/market/book.py", "import core.channels.hub"),
        ("core/messages/model.py", "from core.market import book"),
        ("core/protocol/session.py", "from ujson import loads"),
        ("core/protocol/session.py", "from jose import jwt"),
        ("core/config/settings.py", "import tests.core.fakes"),
        ("handlers/websocket.py", "from core.kafka.clients import Calls"),
        ("handlers/websocket.py", "from confluent_kafka import KafkaException"),
        ("handlers/websocket.py", "from gateway import Gateway"),
        ("handlers/websocket.py", "import services.accounts"),
        ("services/accounts.py", "from wiring.bus import Bus"),
        ("gateway.py", "from confluent_kafka import KafkaException, Producer"),
        ("gateway.py", "import exchange"),
        ("gateway.py", "from tools.kafka import cluster"),
        ("exchange/bus.py", "from core.messages.model import Side"),
        ("tools/kafka/cluster.py", "from exchange.bus import Bus"),
        ("clients/python/mexchange/book.py", "from core.errors import BusUnavailable"),
    ],
)
def test_table_notices_what_is_not_allowed(file: str, source: str) -> None:
    assert len(broken_rules(file, source)) >= 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/channels/hub.py", "import json\nfrom core.delivery.frames import text_frame\nimport tornadoes"),
        ("core/kafka/feed.py", "from confluent_kafka import Consumer\nfrom core.kafka.clients import Calls"),
        ("core/config/yaml_document.py", "import yaml"),
        ("core/access/identity.py", "from jose import jwt"),
        ("core/protocol/session.py", "import ujson\nujson.dumps(1)"),
        ("gateway.py", "from confluent_kafka import KafkaException\nfrom core.kafka.feed import Feed"),
        ("exchange/bus.py", "from confluent_kafka import Producer\nimport exchange.book"),
        ("bench/latency/idle.py", "import exchange, core.kafka.feed, handlers.websocket, gateway, yaml"),
    ],
)
def test_table_leaves_alone_what_is_allowed(file: str, source: str) -> None:
    assert broken_rules(file, source) == []


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
        # Where somebody may go by a click is not asked for anything, if it is not told from where.
        if tag == "a" and given.get("rel") == "noopener noreferrer" and given.get("target") == "_blank":
            links = [link.removeprefix("https://") for link in links]
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
        "<a href='javascript:f()' target='_blank' rel='noopener noreferrer'>x</a>",
        "<a href='https://elsewhere.example/'>x</a>",
        "<script src='https://elsewhere.example/a.js'></script>",
        "<link rel=stylesheet href='//elsewhere.example/a.css'>",
        "<style>p {}</style>",
        "<p style='color: red'>x</p>",
    ],
)
def test_page_check_notices_what_the_policy_forbids(html: str) -> None:
    assert len(page(html).faults) >= 1
