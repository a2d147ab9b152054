"""The client for JavaScript in Node: the scenes that every client plays, its types, and the package as others install it, with
what its README shows on a gateway with its simulated exchange.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.served_scenes import CHANGES, NAMES, all_scenes, scene, served
from tests.core.tokens import SECRET
from tests.integration.processes import Gateway
from tests.integration.trading import fresh_user, pass_of
from tests.support.gateway import REPOSITORY
from tests.support.node import PACKAGE, node, npm, run, tool

PLAYER = REPOSITORY / "tests" / "clients" / "scene_player.mjs"
# Whatever implements a WebSocket has to do for these: all that can happen to a connection.
OF_CONNECTIONS = ("book_stale", "order_message_too_big", "ticker_conflated", "token_ends", "trades_resume_after_1001")


def played(scenes: dict[str, dict[str, Any]], *modules: Path) -> dict[str, list[str]]:
    """What was not as each scene wants it, of all of them in one process."""
    with served(scenes) as gateways:
        out = run(*node(), str(PLAYER), *map(str, modules), told=json.dumps(gateways.wanted()))
        return gateways.verdicts(json.loads(out))


@pytest.fixture(scope="module")
def verdicts() -> dict[str, list[str]]:
    return played(all_scenes(), PACKAGE / "lib" / "index.js")


@pytest.mark.parametrize("name", NAMES)
def test_program_sees_what_the_scene_says(verdicts: dict[str, list[str]], name: str) -> None:
    assert verdicts[name] == []


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_scene_notices_what_is_not_so(verdicts: dict[str, list[str]], number: int) -> None:
    assert verdicts[str(number)] != []


def test_another_websocket_will_do() -> None:
    module = tool("ws/wrapper.mjs")
    verdicts = played({name: scene(name) for name in OF_CONNECTIONS}, PACKAGE / "lib" / "index.js", module)
    assert verdicts == {name: [] for name in OF_CONNECTIONS}


def test_client_says_where_there_is_no_websocket() -> None:
    program = """
      delete globalThis.WebSocket;
      const { Exchange } = await import(process.argv[1]);
      try { new Exchange("http://localhost:1"); } catch (error) { console.log(error.message); }
    """
    out = run(*node(), "--input-type=module", "-e", program, (PACKAGE / "lib" / "index.js").as_uri())
    assert out == "there is no WebSocket here (Node before 22): give one as an option\n"


def test_types_hold_for_the_code_and_for_programs() -> None:
    compiler = tool(".bin/tsc")
    assert run(str(compiler), "-p", str(REPOSITORY / "tests" / "clients" / "typescript")) == ""


# As others install it


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of somebody who has installed it."""
    folder = tmp_path_factory.mktemp("installed")
    quiet = {"npm_config_cache": str(folder / "cache"), "npm_config_update_notifier": "false"}
    [packed] = json.loads(run(npm(), "pack", "--json", "--pack-destination", str(folder), folder=PACKAGE, **quiet))
    files = {file["path"] for file in packed["files"]}
    assert files == {"README.md", "package.json", *(f"lib/{path.name}" for path in (PACKAGE / "lib").iterdir())}
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    run(npm(), "install", "--offline", "--no-audit", "--no-fund", packed["filename"], folder=folder, **quiet)
    return folder


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """What `make run` starts, with the tests' secret."""
    settings: dict[str, Any] = yaml.safe_load((REPOSITORY / "conf" / "demo.yaml").read_text("utf-8"))
    settings |= {"bind": "127.0.0.1:0", "demo": {"exchange": True}, "auth": {"secret": SECRET}, "admin": {}}
    with Gateway.on(None, settings) as gateway:
        gateway.wait_until(lambda: gateway.get("/api/book?symbol=KCN/EUR").status == 200, "a book")
        yield gateway


def shown(gateway: Gateway) -> list[str]:
    """The programs of the README, for that gateway."""
    programs = re.findall(r"^```js\n(.*?)^```$", (PACKAGE / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [program.replace("http://localhost:3000", gateway.address) for program in programs]


def test_program_that_the_readme_shows_streams(gateway: Gateway, installed: Path) -> None:
    stream, _ = shown(gateway)
    assert len(stream.strip().splitlines()) <= 10
    (installed / "stream.js").write_text(
        stream.replace("\n}\n", "\n  break;\n}\nexchange.close();\n"), encoding="utf-8"
    )
    out = run(*node(), "stream.js", folder=installed)
    assert re.match(r"\{ price: '\d+\.\d+', quantity: '\d+\.\d+' \} \{ price: '\d+\.\d+', quantity: '\d+\.\d+' \}", out)


def test_program_that_the_readme_shows_trades(gateway: Gateway, installed: Path) -> None:
    _, trade = shown(gateway)
    assert len(trade.strip().splitlines()) <= 10
    (installed / "trade.js").write_text(trade, encoding="utf-8")
    out = run(*node(), "trade.js", folder=installed, TOKEN=pass_of(fresh_user()))
    assert re.search(r"order_id: '\S+'", out) and "quantity: '1.5'" in out
