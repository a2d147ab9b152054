"""Instances of two versions on one control topic: `tests/vectors/control.json` has what this one writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.messages.control_records import (
    Announcement,
    Fired,
    Held,
    Restriction,
    Timer,
    TradingState,
    control_key,
    read_announcement,
    read_control_key,
    read_fired,
    read_held,
    read_restriction,
    read_timer,
    write_control,
    write_disconnect,
)
from tests.core.control.control_topic import Instance as Operators
from tests.core.control.control_topic import Topic
from tests.core.control.timer_world import EPOCH, world_of
from tests.core.fakes import run

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "control.json").read_text())
RECORDS: list[tuple[str, str | None]] = [(one["key"], one["value"]) for one in VECTORS["records"]]
VALUES = [(key, value) for key, value in RECORDS if value is not None]

MS = 1_700_000_000_000
ME = "0f1e2d3c4b5a6978"
Record = Timer | Fired | Held | Restriction | Announcement
# As the vectors have them; of a disconnect its moment.
MEANT: list[Record | int] = [
    Timer(MS + 5_000, 5_000, 1_000, ME),
    Fired(7, MS + 5_000),
    Restriction(MS, "too many cancels"),
    Restriction(MS, None),
    Restriction(MS, "odd prices"),
    Restriction(MS, None),
    Announcement(TradingState.MAINTENANCE, ("KCN/EUR",), "an upgrade", MS, MS + 600_000),
    Announcement(TradingState.CANCEL_ONLY, None, None, None, None),
    Held("alice", ME),
    Held(None, ME, ("0b9b9d8e-8f0c-5a4e-9b9b-9d8e8f0c4a4e",), 12, 15),
    MS,
    MS,
]
BOTH = list(zip(VALUES, MEANT, strict=True))
READ: dict[str, Callable[[bytes], Record]] = {
    "timer": read_timer,
    "fired": read_fired,
    "block": read_restriction,
    "halt": read_restriction,
    "announcement": read_announcement,
    "connection": read_held,
}
# Of a later version.
MORE = '"until":{"deep":[1,null]},"by_whom":"x","0":1.5'


@pytest.mark.parametrize(("record", "meant"), BOTH)
def test_record_is_written_as_earlier_instances_read_it(record: tuple[str, str], meant: Record | int) -> None:
    key, value = record
    assert control_key(*read_control_key(key.encode())) == key
    written = write_disconnect(meant) if isinstance(meant, int) else write_control(meant)
    assert written.decode() == value


@pytest.mark.parametrize(("record", "meant"), [both for both in BOTH if both[1] != MS])
def test_record_is_read_whatever_a_later_version_says_more(record: tuple[str, str], meant: Record) -> None:
    key, value = record
    read = READ[read_control_key(key.encode())[0]]
    assert read(value.encode()) == meant
    assert read(f"{{{MORE},{value[1:]}".encode()) == meant
    assert read(f"{value[:-1]},{MORE}}}".encode()) == meant


@pytest.mark.parametrize("value", [None, b"{}", b"\xff not JSON"])
def test_kind_of_a_later_version_changes_nothing_and_keeps_nothing_from_being_read(value: bytes | None) -> None:
    async def scene() -> None:
        topic = Topic()
        operators = Operators(topic)
        world, (instance,) = world_of("a")
        for key, known in RECORDS:
            record = (key.encode(), None if known is None else known.encode())
            topic.records += [(b"purse/alice", value), record]
            world.topic += [(EPOCH, b"purse/alice", value), (EPOCH, *record)]
        operators.read()
        instance.read()
        assert set(operators.restrictions.blocked()) == {"bob", "carol/ü"}
        assert set(operators.restrictions.halted()) == {"KCN/EUR", None}
        assert operators.announcements.current == MEANT[7]
        assert (len(instance.timers), len(instance.disconnects)) == (0, 2)  # the timer was fired
        assert instance.living.last_offset(ME) == 2 * len(RECORDS) - 1
        assert {error.reason for error in instance.poisoned} == {"unknown_kind"}

    run(scene())


def test_announcement_of_a_state_of_a_later_version_leaves_the_one_before() -> None:
    async def scene() -> None:
        topic = Topic()
        operators = Operators(topic)
        known = b'{"state":"halted"}'
        topic.records += [(b"announcement/*", known), (b"announcement/*", b'{"state":"auction"}')]
        operators.read()
        assert operators.announcements.current == read_announcement(known)
        assert operators.poisoned == ["bad_field"]

    run(scene())


def test_timer_of_the_first_version_has_no_slack() -> None:
    assert read_timer(b'{"trigger_ms":1700000005000,"timeout_ms":5000,"by":"a"}') == Timer(MS + 5_000, 5_000, 0, "a")


@pytest.mark.parametrize("dropped", ["orders", "set_at", "ended", "user_id"])
def test_held_connection_is_read_without_what_an_earlier_version_did_not_say(dropped: str) -> None:
    members: dict[str, Any] = {"user_id": "alice", "by": ME, "orders": [], "set_at": None, "ended": None}
    del members[dropped]
    expected = Held(None if dropped == "user_id" else "alice", ME)
    assert read_held(json.dumps(members).encode()) == expected
