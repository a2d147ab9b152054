"""Whether what is read has just been written, and whether clocks agree."""

from __future__ import annotations

import logging

import pytest

from core.control.reading import MOST_CATCHING_UP_SECONDS, ON_ITS_WAY_MS, PAUSE_SECONDS, SKEW_MS, Reading

EPOCH_MS = 1_700_000_000_000


class Read:
    """`Reading` on a clock of the test's own."""

    def __init__(self, *, is_read: bool = True) -> None:
        self.now = 0.0
        self.is_read = is_read
        self.reading = Reading(
            lambda: self.is_read, clock=lambda: EPOCH_MS / 1000 + self.now, monotonic=lambda: 5.0 + self.now
        )

    def beat_after(self, seconds: float) -> None:
        self.now += seconds
        self.reading.beat()


def test_topic_that_is_read_to_its_end_is_live() -> None:
    read = Read(is_read=False)
    assert not read.reading.is_live()
    read.is_read = True
    assert read.reading.is_live()


def test_who_stood_still_is_behind_for_as_long_again() -> None:
    read = Read()
    read.beat_after(PAUSE_SECONDS)
    assert read.reading.is_live()
    read.now += 10.0
    assert not read.reading.is_live(), "it takes what came meanwhile"
    read.reading.beat()
    for _ in range(20):
        read.beat_after(0.49)
        assert not read.reading.is_live()
    read.beat_after(0.49)
    assert read.reading.is_live()


def test_who_stood_still_for_long_is_behind_for_a_minute() -> None:
    read = Read()
    read.beat_after(3600.0)
    for _ in range(int(MOST_CATCHING_UP_SECONDS * 2) + 1):
        read.beat_after(0.5)
    assert read.reading.is_live()


@pytest.mark.parametrize(
    ("time_ms", "says"),
    [
        (SKEW_MS, None),
        (SKEW_MS + 1, "1.0 s ahead of this one's"),
        (-ON_ITS_WAY_MS, None),
        (-180_000, "180.0 s behind this one's"),
    ],
)
def test_clocks_that_differ_are_warned_of(time_ms: int, says: str | None, caplog: pytest.LogCaptureFixture) -> None:
    read = Read()
    with caplog.at_level(logging.WARNING):
        read.reading.check_time(EPOCH_MS + time_ms)
        read.reading.check_time(EPOCH_MS + time_ms)
    assert [says in message for message in caplog.messages if says] == ([] if says is None else [True])
    assert len(caplog.messages) == (says is not None)


def test_old_record_says_nothing_of_clocks_where_it_may_have_waited(caplog: pytest.LogCaptureFixture) -> None:
    Read(is_read=False).reading.check_time(EPOCH_MS - 180_000)
    assert not caplog.messages
