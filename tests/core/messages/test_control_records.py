from __future__ import annotations

import pytest

from core.errors import PoisonedRecord
from core.messages.control_records import (
    REASONS,
    Fired,
    Held,
    Timer,
    control_key,
    read_control_key,
    read_fired,
    read_held,
    read_timer,
    write_control,
)

TIMER = Timer(1_700_000_005_000, 5_000, 1_000, "a")


def test_what_is_written_is_read() -> None:
    assert read_timer(write_control(TIMER)) == TIMER
    assert write_control(TIMER) == b'{"trigger_ms":1700000005000,"timeout_ms":5000,"slack_ms":1000,"by":"a"}'
    assert read_fired(write_control(Fired(7, 5))) == Fired(7, 5)
    assert read_control_key(control_key("timer", "a/b ü").encode()) == ("timer", "a/b ü")


@pytest.mark.parametrize(("after", "covers"), [(-1, False), (0, True), (1_000, True), (1_001, False)])
def test_timer_covers_moments_within_its_slack(after: int, covers: bool) -> None:
    assert TIMER.covers(TIMER.trigger_ms + after) is covers


def test_member_that_is_not_known_is_passed_over() -> None:
    assert read_fired(b'{"offset":7,"trigger_ms":5,"more":[]}') == Fired(7, 5)


@pytest.mark.parametrize("key", [None, b"", b"/", b"timer", b"timer/", b"/alice", b"timer/\xff"])
def test_key_that_cannot_be_read_is_refused(key: bytes | None) -> None:
    with pytest.raises(PoisonedRecord) as refused:
        read_control_key(key)
    assert refused.value.reason == "bad_key"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"{", "not_json"),
        (b"[]", "not_an_object"),
        (b"{}", "bad_field"),
        (b'{"trigger_ms":1,"timeout_ms":1,"slack_ms":0,"by":2}', "bad_field"),
        (b'{"trigger_ms":1,"timeout_ms":1,"slack_ms":null,"by":"a"}', "bad_field"),
        (b'{"trigger_ms":1,"timeout_ms":1,"slack_ms":0,"by":null}', "bad_field"),
        (b'{"trigger_ms":1.5,"timeout_ms":1,"slack_ms":0,"by":"a"}', "bad_field"),
        (b'{"trigger_ms":true,"timeout_ms":1,"slack_ms":0,"by":"a"}', "bad_field"),
        (b'{"trigger_ms":-1,"timeout_ms":1,"slack_ms":0,"by":"a"}', "bad_field"),
        (b'{"trigger_ms":1,"timeout_ms":"1","slack_ms":0,"by":"a"}', "bad_field"),
    ],
)
def test_timer_that_cannot_be_read_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(PoisonedRecord) as refused:
        read_timer(value)
    assert refused.value.reason == reason
    assert reason in REASONS


@pytest.mark.parametrize("value", [b"{}", b'{"offset":1}', b'{"offset":"1","trigger_ms":1}'])
def test_fired_record_that_cannot_be_read_is_refused(value: bytes) -> None:
    with pytest.raises(PoisonedRecord):
        read_fired(value)


@pytest.mark.parametrize(
    "held", [Held(None, "a"), Held("alice", "a", ("o-1", "o-2"), 7, 9)], ids=["nobody's", "with all there is"]
)
def test_held_connection_is_read_as_it_was_written(held: Held) -> None:
    assert read_held(write_control(held)) == held


@pytest.mark.parametrize(
    "value",
    [
        b"{}",
        b'{"by":null}',
        b'{"by":"a","user_id":7}',
        b'{"by":"a","orders":"o-1"}',
        b'{"by":"a","orders":[7]}',
        b'{"by":"a","ended":-1}',
    ],
)
def test_held_connection_that_cannot_be_read_is_refused(value: bytes) -> None:
    with pytest.raises(PoisonedRecord):
        read_held(value)
