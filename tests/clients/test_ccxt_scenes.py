"""The exchange class for ccxt in the scenes that every client plays (clients/conformance)."""

from __future__ import annotations

import json

import pytest

from tests.clients.ccxt_player import play
from tests.clients.served_scenes import NAMES, changed, scene
from tests.support.gateway import REPOSITORY

pytestmark = pytest.mark.gen_test

NOT_APPLICABLE = json.loads((REPOSITORY / "clients" / "conformance" / "not_applicable.json").read_text("utf-8"))["ccxt"]
PLAYED = [name for name in NAMES if name not in NOT_APPLICABLE]


@pytest.mark.parametrize("name", PLAYED)
async def test_program_of_ccxt_sees_what_the_scene_says(name: str) -> None:
    await play(scene(name))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("trades_resume", '"is": {"price": "10.12", "trade_id": "0-14"}', '"is": {"price": "10.13"}'),
        ("trades_resume", '"seq": 12}}}', '"seq": 11}}}'),
        ("trades_gap", '"is": {"gap": true}', '"is": {"price": "10.12"}'),
        ("order_refused", '"raises": "bad_params"', '"raises": "order_refused"'),
        ("token_ends", '"token": "t2"', '"token": "t3"'),
    ],
)
async def test_scene_notices_what_is_not_so_of_ccxt(name: str, old: str, new: str) -> None:
    with pytest.raises(AssertionError):
        await play(changed(scene(name), old, new))


def test_scene_that_ccxt_does_not_play_is_there_and_has_a_reason() -> None:
    assert {*NOT_APPLICABLE} < {*NAMES}
    assert all(NOT_APPLICABLE.values())
