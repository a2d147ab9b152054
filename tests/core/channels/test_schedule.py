from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from core.channels.schedule import HEARTBEAT_SECONDS, RETRY_SECONDS, Schedule


@dataclass(eq=False)
class Channel:
    """What the schedule looks at of one."""

    dirty: bool = False
    next_news_at: float = 0.0
    heartbeats: bool = False
    said_at: float = 0.0
    stale: bool = False
    due: float | None = None
    is_listened_to: bool = True

    def has_subscribers(self) -> bool:
        return self.is_listened_to


class Scheduled:
    """A schedule, and channels in it."""

    def __init__(self, *channels: Channel, now: float = 100.0) -> None:
        self.by_moment = Schedule()
        for channel in channels:
            self.schedule(channel, now)

    def schedule(self, channel: Channel, now: float) -> None:
        self.by_moment.schedule(cast(Any, channel), now)

    def due(self, now: float) -> list[Any]:
        return list(self.by_moment.take_due(now))


def test_schedule_gives_a_channel_with_news_at_its_moment_and_once() -> None:
    channel = Channel(dirty=True, next_news_at=101.0)
    scheduled = Scheduled(channel)
    assert scheduled.due(100.9) == []
    assert scheduled.due(101.0) == [channel]
    assert channel.due is None
    assert scheduled.due(102.0) == []


def test_schedule_has_a_heartbeat_five_seconds_after_the_last_word() -> None:
    channel = Channel(heartbeats=True, said_at=99.0)
    Scheduled(channel, now=100.0)
    assert channel.due == 99.0 + HEARTBEAT_SECONDS


def test_schedule_tries_a_heartbeat_that_could_not_be_said_a_little_later() -> None:
    channel = Channel(heartbeats=True, said_at=10.0)
    Scheduled(channel, now=100.0)
    assert channel.due == 100.0 + RETRY_SECONDS


@pytest.mark.parametrize(("heartbeats", "stale"), [(False, False), (False, True), (True, True)])
def test_schedule_has_nothing_of_a_channel_without_news_and_heartbeats(heartbeats: bool, stale: bool) -> None:
    channel = Channel(heartbeats=heartbeats, stale=stale)
    assert Scheduled(channel).due(1000.0) == []
    assert channel.due is None


def test_schedule_gives_a_channel_with_a_heartbeat_to_come_sooner_when_there_is_news() -> None:
    channel = Channel(heartbeats=True, said_at=100.0)
    scheduled = Scheduled(channel)
    channel.dirty, channel.next_news_at = True, 101.0
    scheduled.schedule(channel, 100.5)
    assert scheduled.due(101.0) == [channel]
    assert scheduled.due(100.0 + HEARTBEAT_SECONDS) == [], "it has been looked at since"


def test_schedule_leaves_a_heartbeat_where_it_is_when_there_is_no_news() -> None:
    channel = Channel(heartbeats=True, said_at=100.0)
    scheduled = Scheduled(channel)
    channel.said_at = 103.0
    scheduled.schedule(channel, 103.0)
    assert scheduled.due(100.0 + HEARTBEAT_SECONDS) == [channel], "it finds out by itself that this is too soon"


def test_schedule_passes_over_a_channel_that_nobody_listens_to_any_more() -> None:
    channel = Channel(dirty=True, next_news_at=101.0)
    scheduled = Scheduled(channel)
    channel.is_listened_to = False
    assert scheduled.due(101.0) == []


def test_schedule_gives_channels_by_their_moments_and_those_of_one_moment_as_they_came() -> None:
    late, first, second = (Channel(dirty=True, next_news_at=moment) for moment in (102.0, 101.0, 101.0))
    assert Scheduled(late, first, second).due(103.0) == [first, second, late]
