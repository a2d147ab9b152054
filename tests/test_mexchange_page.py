"""docs/mexchange.md: its settings, routes and messages are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from core.config.settings import load_settings, setting_fields
from core.protocol.dialects import ANSWERED, UNANSWERED
from handlers.passthrough import PATHS
from tests.support.gateway import REPOSITORY

DOCS = REPOSITORY / "docs"
TEXT = (DOCS / "mexchange.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", TEXT)
SETTINGS = {name: field.default for name, field in setting_fields()}


def test_page_names_settings_that_there_are_or_that_are_promised() -> None:
    sections = {name.partition(".")[0] for name in SETTINGS if "." in name}
    told = {text for text in CODE if re.fullmatch(rf"(?:{'|'.join(sections)})\.\w+", text)}
    _, _, promised = (DOCS / "contract.md").read_text(encoding="utf-8").partition("\n## Promised, not yet built\n")
    assert told - {name for name in told if f"`{name}`" in promised} <= SETTINGS.keys()
    assert {"auth.secret", "accounts.url", "http.allowed_origins", "orders.default_symbol"} <= told
    assert SETTINGS["accounts.timeout_seconds"] == 2
    assert (SETTINGS["kafka.topic"], SETTINGS["kafka.order_topic"]) == ("market-events", "order-commands")


def test_settings_that_the_page_shows_are_taken(tmp_path: Path) -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    file = tmp_path / "gateway.yaml"
    file.write_text(block, encoding="utf-8")
    settings, warnings = load_settings(str(file), {"JWT_SECRET": "a secret of thirty-two bytes or so"})
    assert warnings == []
    assert settings.accounts.url == "http://accounts:3001"


def test_page_tells_which_routes_are_passed_on() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| frontend |")).partition("are passed")[0]
    told = [route.removesuffix("/*") for route in re.findall(r"`(/[^`]+)`", row)]
    assert all(re.fullmatch(PATHS, f"{route}/x") for route in told)
    assert set(re.findall(r"\w+", PATHS)) == {part for route in told for part in route[1:].split("/")}


def test_page_tells_every_message_of_the_older_dialects() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| `type` |"))
    assert set(re.findall(r"`(\w+)`", row)) == {"type", *ANSWERED, *UNANSWERED}
