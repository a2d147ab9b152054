"""The client for Python in the scenes that every client plays (clients/conformance)."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.clients.scene_player import agrees, play
from tests.clients.served_scenes import CHANGES, NAMES, changed, scene

pytestmark = pytest.mark.gen_test


@pytest.mark.parametrize("name", NAMES)
async def test_program_sees_what_the_scene_says(name: str) -> None:
    await play(scene(name))


@pytest.mark.parametrize(("name", "old", "new"), CHANGES)
async def test_scene_notices_what_is_not_so(name: str, old: str, new: str) -> None:
    with pytest.raises(AssertionError):
        await play(changed(scene(name), old, new))


def test_items_agree_by_value_and_not_by_spelling() -> None:
    assert agrees({"price": "1.50"}, {"price": Decimal("1.5"), "more": 1})
    assert not agrees({"price": "1.51"}, {"price": Decimal("1.5")})
    assert not agrees({"flag": 1}, {"flag": True})
    assert not agrees({"price": "1.5"}, {})
