from __future__ import annotations

import logging

import pytest

from core.log_throttle import QUIET_SECONDS, FirstWordFilter, QuietLog, Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_throttle_admits_a_kind_once_a_minute(clock: Clock) -> None:
    throttle = Throttle(clock)
    assert throttle.admit("a") == ""
    clock.now += QUIET_SECONDS - 0.001
    assert throttle.admit("a") is None
    clock.now += 0.001
    assert throttle.admit("a") == " (and 1 more like it)"
    assert throttle.admit("a") is None


def test_throttle_tells_how_often_it_held_back_and_then_counts_anew(clock: Clock) -> None:
    throttle = Throttle(clock)
    said = []
    for _ in range(3):
        said += [throttle.admit("a") for _ in range(4)]
        clock.now += QUIET_SECONDS
    said.append(throttle.admit("a"))
    clock.now += QUIET_SECONDS
    more = " (and 3 more like it)"
    assert said == ["", *[None] * 3, more, *[None] * 3, more, *[None] * 3, more]
    assert throttle.admit("a") == ""


def test_throttle_keeps_kinds_apart(clock: Clock) -> None:
    throttle = Throttle(clock)
    assert [throttle.admit(kind) for kind in "abab"] == ["", "", None, None]


def test_quiet_log_says_the_same_kind_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog(logging.getLogger("quiet"), clock)
    for number in range(3):
        log.warning("a", "trouble %d of %s", number, "100%")
    log.warning("b", "other trouble")
    clock.now += QUIET_SECONDS
    log.warning("a", "trouble %d of %s", 9, "100%")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "trouble 0 of 100%"),
        ("WARNING", "other trouble"),
        ("WARNING", "trouble 9 of 100% (and 2 more like it)"),
    ]


def test_first_word_filter_lets_through_one_message_a_minute_for_each_first_word(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("theirs")
    throttled = FirstWordFilter(clock)
    log.addFilter(throttled)
    try:
        log.error("%s [%s] %s", "FAIL", "client-1", "refused")
        log.error("%s [%s] %s", "FAIL", "client-2", "timed out")
        log.error("%s [%s] %s", "PARTCNT", "client-1", "has 4")
        log.error("word")
        clock.now += QUIET_SECONDS
        log.error("%s [%s] %s", "FAIL", "client-3", "refused")
    finally:
        log.removeFilter(throttled)
    assert [record.getMessage() for record in caplog.records] == [
        "FAIL [client-1] refused",
        "PARTCNT [client-1] has 4",
        "word",
        "FAIL [client-3] refused (and 1 more like it)",
    ]
