"""docs/protocol.md: it names codes that there are, its examples are messages that asyncapi.json has, its code runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from core.channels.names import FORMS, INTERVALS_MS
from core.errors import CODES
from tests.support.asyncapi import MESSAGES, REPLIES, SENT, faults, validator
from tests.support.gateway import REPOSITORY

TEXT = (REPOSITORY / "docs" / "protocol.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def documented() -> Iterator[Any]:
    """Every message in a block of JSON, one a line, in their order."""
    for block in blocks("json"):
        for line in block.splitlines():
            yield json.loads(line, parse_float=Decimal)


def test_guide_names_codes_that_there_are() -> None:
    """docs/contract.md has them all."""
    told = set(
        re.findall(
            r"(?<![\w.])(?:-32\d{3}|1000\d|10[01]\d|4\d{3})(?![\w.])", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
        )
    )
    others = {"1000"}  # the greatest depth, and where codes that close begin
    assert told - others - {"4999"} <= {str(code.code) for code in CODES}
    assert {"10003", "10004", "10005", "1008", "1009", "4008"} <= told


@pytest.mark.parametrize("message", list(documented()), ids=lambda message: json.dumps(message, default=str)[:60])
def test_guide_shows_messages_that_are_documented(message: object) -> None:
    matching = [name for name in MESSAGES if validator(name).is_valid(message)]
    assert matching, {name: faults(name, message)[:2] for name in MESSAGES}


def test_guide_shows_every_kind_of_request_and_of_channel() -> None:
    for name in REPLIES:
        members = MESSAGES[name]["payload"]["properties"]
        wanted = next(members[member]["const"] for member in ("method", "type", "action") if member in members)
        assert re.search(rf'["`]{wanted}["`]', TEXT), wanted
    for kind in FORMS:
        assert re.search(rf"^\| `{kind}\.\{{(symbol|interval)\}}", TEXT, re.MULTILINE), kind
    for interval in INTERVALS_MS:
        assert f"`{interval}`" in TEXT
    shown = {name for message in documented() for name in SENT if validator(name).is_valid(message)}
    assert shown >= set(SENT) - {"bookChangeOlder"}


def test_guides_code_follows_the_guides_book() -> None:
    [code] = [block for block in blocks("python") if "def apply(" in block]
    space: dict[str, Any] = {}
    exec(code, space)
    book: dict[str, Any] = {"bid": {}, "ask": {}}
    told = [m["notification"] for m in documented() if str(m.get("channel_name", "")).startswith("book.")]
    assert len(told) == 4
    for notification in told[:3]:
        space["apply"](book, notification)
    assert (sum(book["bid"].values()), sum(book["ask"].values())) == (
        told[2]["total_bid_amount"],
        told[2]["total_ask_amount"],
    )
    space["apply"](book, {"stale": True})
    assert book["is_stale"]
    space["apply"](book, told[3])
    assert (book["bid"], book["ask"], book["is_stale"]) == ({Decimal("10.05"): Decimal("1.500")}, {}, False)
    only_applied: dict[str, Any] = {"bid": {}, "ask": {}}
    for side, levels in only_applied.items():
        for price, _, new in [change for notification in told for change in notification[f"{side}_changes"]]:
            levels[price] = new
    assert {side: {p: q for p, q in levels.items() if q} for side, levels in only_applied.items()} == {
        side: book[side] for side in ("bid", "ask")
    }
    with pytest.raises(AssertionError):
        space["apply"](book, {"bid_changes": [[Decimal("10.05"), 1, 0]], "ask_changes": []})


def test_guide_is_short_enough_to_be_read() -> None:
    assert len(TEXT.splitlines()) < 400
