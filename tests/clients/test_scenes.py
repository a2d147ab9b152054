"""The client for Python in the scenes that every client plays (clients/conformance)."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from clients.conformance.server import load
from tests.clients.scene_player import agrees, play
from tests.support.gateway import REPOSITORY

pytestmark = pytest.mark.gen_test

SCENES = sorted((REPOSITORY / "clients" / "conformance" / "scenes").glob("*.json"))


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
async def test_program_sees_what_the_scene_says(path: Any) -> None:
    await play(load(path))


def scene(name: str) -> dict[str, Any]:
    return load(next(path for path in SCENES if path.stem == name))


def changed(value: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The scene with one thing in it that is not so."""
    text = json.dumps(value)
    assert old in text
    found: dict[str, Any] = json.loads(text.replace(old, new))
    return found


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("trades_resume", '"is": {"price": "10.12", "trade_id": "0-14"}', '"is": {"price": "10.13"}'),
        ("trades_resume", '"seq": 12}}}', '"seq": 11}}}'),
        ("trades_filled_over_rest", "after=0-10", "after=0-9"),
        ("order_refused", '"raises": "bad_params"', '"raises": "order_refused"'),
        ("order_accepted", '"duplicate": false', '"duplicate": true'),
        ("token_ends", '"token": "t2"', '"token": "t3"'),
    ],
)
async def test_scene_notices_what_is_not_so(name: str, old: str, new: str) -> None:
    with pytest.raises(AssertionError):
        await play(changed(scene(name), old, new))


def test_items_agree_by_value_and_not_by_spelling() -> None:
    assert agrees({"price": "1.50"}, {"price": Decimal("1.5"), "more": 1})
    assert not agrees({"price": "1.51"}, {"price": Decimal("1.5")})
    assert not agrees({"flag": 1}, {"flag": True})
    assert not agrees({"price": "1.5"}, {})
