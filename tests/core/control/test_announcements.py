from __future__ import annotations

from typing import Any

import pytest

from core.errors import ControlUnavailable, InvalidFields
from core.messages.control_records import Announcement, TradingState
from tests.core.control.control_topic import Instance, Topic
from tests.core.fakes import run

NOW_MS = 1_800_000_000_000
TIMES = NOW_MS + 1000, NOW_MS + 2000


def test_announcement_is_known_everywhere_until_another_or_none() -> None:
    async def scene() -> None:
        topic = Topic()
        here, there = Instance(topic), Instance(topic)
        await here.announcements.announce("maintenance", ["KCN/EUR", "KCN/EUR"], "an upgrade", *TIMES)
        there.read()
        told = Announcement(TradingState.MAINTENANCE, ("KCN/EUR",), "an upgrade", *TIMES)
        assert here.announcements.current == there.announcements.current == told
        await there.announcements.announce("online")
        here.read()
        assert here.announcements.current == Announcement(TradingState.ONLINE, None, None, None, None)
        await here.announcements.withdraw()
        there.read()
        assert here.announcements.current is there.announcements.current is None

    run(scene())


def test_announcement_outlives_a_restart_and_goes_with_the_topic() -> None:
    async def scene() -> None:
        topic = Topic()
        await Instance(topic).announcements.announce("cancel_only")
        after = Instance(topic)
        after.read()
        assert after.announcements.current is not None
        after.forget(0)
        assert after.announcements.current is None

    run(scene())


def test_announcement_is_refused_with_what_is_wrong_with_the_topic() -> None:
    instance = Instance(Topic())
    instance.reason = "there is none"
    for setting in (instance.announcements.announce("online"), instance.announcements.withdraw()):
        with pytest.raises(ControlUnavailable, match="there is none"):
            run(setting)


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"state": "closed"}, ["state"]),
        ({"symbols": []}, ["symbols"]),
        ({"symbols": ["KCN"]}, ["symbols"]),
        ({"symbols": ["KCN/EUR"] * 1001}, ["symbols"]),
        ({"from_ms": -1}, ["from_ms"]),
        ({"until_ms": 2**64}, ["until_ms"]),
        ({"from_ms": NOW_MS + 2, "until_ms": NOW_MS + 2}, ["until_ms"]),
        ({"until_ms": NOW_MS}, ["until_ms"]),
        ({"from_ms": 0, "until_ms": NOW_MS - 1}, ["until_ms"]),
        ({"from_ms": NOW_MS // 1000}, ["from_ms"]),
        ({"until_ms": NOW_MS // 1000}, ["until_ms"]),
        ({"state": "", "from_ms": -1}, ["state", "from_ms"]),
        ({"state": "", "until_ms": NOW_MS}, ["state", "until_ms"]),
        ({"message": ""}, ["message"]),
        ({"message": "a\nb"}, ["message"]),
    ],
)
def test_announcement_that_breaks_a_rule_is_refused(given: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(InvalidFields) as refused:
        run(Instance(Topic()).announcements.announce(**{"state": "online", **given}))
    assert [error.field for error in refused.value.errors] == fields


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"announcement/x", b'{"state":"online"}', "bad_key"),
        (b"announcement/*", b"[]", "not_an_object"),
        (b"announcement/*", b'{"state":"closed"}', "bad_field"),
        (b"announcement/*", b'{"state":[]}', "bad_field"),
        (b"announcement/*", b'{"state":"online","symbols":["KCN"]}', "bad_field"),
        (b"announcement/*", b'{"state":"online","symbols":{}}', "bad_field"),
        (b"announcement/*", b'{"state":"online","message":1}', "bad_field"),
        (b"announcement/*", b'{"state":"online","from_ms":"1"}', "bad_field"),
    ],
)
def test_bad_record_is_skipped(key: bytes, value: bytes, reason: str) -> None:
    topic = Topic()
    instance = Instance(topic)
    topic.records.append((key, value))
    instance.read()
    assert instance.poisoned == [reason]
    assert instance.announcements.current is None
