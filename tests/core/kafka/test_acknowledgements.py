from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from core.kafka.acknowledgements import CALM_SECONDS, AcknowledgementThread

DEADLINE_SECONDS = 20.0


class FakeReports:
    """Reports that come when a test says so, to the thread that waits for them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.under_way = 0
        self.settled = 0
        self.took: list[int] = []
        self.threads: set[int] = set()
        self.waits = 0
        self.has_settled = asyncio.Event()
        self._come = threading.Condition()
        self._reports = 0

    def report(self, count: int = 1) -> None:
        with self._come:
            self._reports += count
            self._come.notify_all()

    def serve(self, timeout_seconds: float) -> bool:
        with self._come:
            self.threads.add(threading.get_ident())
            self.waits += 1
            self._come.notify_all()
            return self._come.wait_for(lambda: self._reports > 0, timeout_seconds)

    def settle(self) -> None:
        with self._come:
            self.took.append(self._reports)
            self.settled += self._reports
            self.under_way -= self._reports
            self._reports = 0
        self.has_settled.set()

    def wait_for_waits(self, count: int) -> None:
        with self._come:
            assert self._come.wait_for(lambda: self.waits >= count, DEADLINE_SECONDS)


def watched(test: Callable[[FakeReports, AcknowledgementThread], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run the test with a thread of its own, which has to end."""

    def tested() -> None:
        async def main() -> None:
            reports = FakeReports()
            watch = AcknowledgementThread(reports, most_awaited=2, clock=lambda: reports.now)
            try:
                await test(reports, watch)
            finally:
                watch.close()
                await asyncio.to_thread(watch.join, DEADLINE_SECONDS)
            assert threading.get_ident() not in reports.threads

        asyncio.run(asyncio.wait_for(main(), DEADLINE_SECONDS))

    tested.__name__ = test.__name__
    return tested


@watched
async def test_acknowledgements_are_settled_on_the_loop_as_they_come(
    reports: FakeReports, watch: AcknowledgementThread
) -> None:
    for _ in range(3):
        reports.under_way += 1
        watch.expect()
        reports.report()
        await reports.has_settled.wait()
        reports.has_settled.clear()
    assert (reports.settled, reports.under_way) == (3, 0)


@watched
async def test_acknowledgements_that_come_together_are_looked_at_together(
    reports: FakeReports, watch: AcknowledgementThread
) -> None:
    reports.under_way = 2
    watch.expect()
    reports.wait_for_waits(1)
    # The loop is busy: it looks at nothing meanwhile.
    reports.report()
    reports.wait_for_waits(2)
    reports.report()
    await reports.has_settled.wait()
    assert reports.took[0] == 2, "the first look takes all that came meanwhile"


@watched
async def test_acknowledgements_of_many_are_left_to_the_beat(
    reports: FakeReports, watch: AcknowledgementThread
) -> None:
    reports.under_way = 3
    assert watch.is_busy
    watch.expect()
    assert not watch.waits
    reports.under_way = 2
    reports.now += CALM_SECONDS / 2
    watch.expect()
    assert not watch.waits, "more may come soon"
    assert watch.is_busy
    reports.now += CALM_SECONDS / 2
    assert not watch.is_busy
    watch.expect()
    reports.report(2)
    await reports.has_settled.wait()
    assert not watch.waits, "nothing is under way"


@watched
async def test_acknowledgements_are_awaited_after_a_wait_in_vain(
    reports: FakeReports, watch: AcknowledgementThread
) -> None:
    reports.under_way = 1
    watch.expect()
    await asyncio.to_thread(reports.wait_for_waits, 3)
    reports.report()
    await reports.has_settled.wait()
    assert reports.settled == 1


def test_acknowledgements_end_with_their_loop() -> None:
    async def main() -> tuple[FakeReports, AcknowledgementThread]:
        reports = FakeReports()
        watch = AcknowledgementThread(reports)
        reports.under_way = 1
        watch.expect()
        return reports, watch

    reports, watch = asyncio.run(main())
    reports.report()
    watch.join(DEADLINE_SECONDS)


def test_acknowledgements_tell_who_waits_too_short_for_their_end() -> None:
    async def main() -> None:
        reports = FakeReports()
        watch = AcknowledgementThread(reports)
        with pytest.raises(TimeoutError):
            watch.join(0)
        reports.under_way = 1
        watch.expect()
        watch.expect()
        assert watch.waits
        watch.close()
        await asyncio.to_thread(watch.join, DEADLINE_SECONDS)

    asyncio.run(main())


@watched
async def test_acknowledgements_that_are_looked_at_after_the_close_do_not_keep_the_thread(
    reports: FakeReports, watch: AcknowledgementThread
) -> None:
    reports.under_way = 1
    watch.expect()
    await asyncio.to_thread(reports.wait_for_waits, 1)
    watch.close()
    reports.report()
    await reports.has_settled.wait()
    reports.under_way = 3
    watch.expect()
    assert watch.waits
