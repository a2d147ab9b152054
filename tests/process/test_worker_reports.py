from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from process.sockets import Listeners
from process.worker_reports import WorkerReports, build_reports, merged_health
from process.workers import Worker

pytestmark = pytest.mark.gen_test
NOBODY = Listeners(((), ()))
RULES = {"clients": "sum"}


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def report(clients: int = 0, **more: Any) -> dict[str, Any]:
    kafka = {"connected": True, "group": "g", "consume": "broadcast", "partitions": 4, "partial": False, "lag": 0}
    return {
        "status": "ok",
        "version": "1",
        "uptime_seconds": 1.0,
        "clients": clients,
        "kafka": {**kafka, **more.pop("kafka", {})},
        "known_since": 10.0,
        "state": {"restored": True, "age_seconds": None, "writer_of": []},
        **more,
    }


class FakeWorker:
    """A worker's metrics and report."""

    def __init__(self, folder: Path, number: int, *, starts: int = 0, answer_seconds: float = 5) -> None:
        self.registry = CollectorRegistry()
        self.orders = Counter("orders", "Orders", registry=self.registry)
        self.gauge = Gauge("clients", "Clients", registry=self.registry)
        self.report = report()
        self.times_asked = 0
        worker = Worker(NOBODY, number, 2, starts, None, folder, started_at=time.monotonic() - 100)
        self.reports = WorkerReports(
            worker, folder, self._report, self.registry, lambda: self.gauge.set(number + 1), RULES, answer_seconds
        )

    def _report(self) -> dict[str, Any]:
        self.times_asked += 1
        return self.report

    async def text(self) -> dict[str, float]:
        lines = (await self.reports.metrics()).decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


@asynccontextmanager
async def two_workers(folder: Path, answer_seconds: float = 5) -> AsyncIterator[tuple[FakeWorker, FakeWorker]]:
    both = FakeWorker(folder, 0, answer_seconds=answer_seconds), FakeWorker(folder, 1, answer_seconds=answer_seconds)
    for one in both:
        await one.reports.start()
    try:
        yield both
    finally:
        for one in both:
            await one.reports.close()


async def test_siblings_speak_for_all_whoever_is_asked(folder: Path) -> None:
    async with two_workers(folder) as (first, second):
        first.orders.inc(2)
        second.orders.inc(3)
        first.report, second.report = report(3), report(4)
        for one in (first, second):
            found = await one.text()
            assert (found["orders_total"], found["clients"]) == (5, 3)
            assert found['gateway_worker_up{worker="0"}'] == found['gateway_worker_up{worker="1"}'] == 1
            told = await one.reports.health()
            assert (told["status"], told["clients"]) == ("ok", 7)
            assert 99 < told["uptime_seconds"] < 200
            assert [worker["pid"] for worker in told["workers"]] == [os.getpid()] * 2


async def test_sibling_that_is_gone_is_missing_and_its_counts_are_kept(folder: Path) -> None:
    async with two_workers(folder) as (first, second):
        second.orders.inc(3)
        await first.reports.health()
        await second.reports.close()
        found = await first.text()
        assert (found["orders_total"], found["clients"]) == (3, 1)
        assert found['gateway_worker_up{worker="1"}'] == 0
        told = await first.reports.health()
        assert told["status"] == "degraded"
        assert told["problems"] == ["worker 1 does not answer"]
        assert told["workers"][1] == {"pid": os.getpid(), "status": "missing", "uptime_seconds": None}


async def test_sibling_that_does_not_answer_holds_nobody_up(folder: Path) -> None:
    first = FakeWorker(folder, 0, answer_seconds=0.2)
    await first.reports.start()
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = await reader.read()
        writer.close()
        await writer.wait_closed()
        heard.put_nowait(word)

    async with await asyncio.start_unix_server(silent, folder / "1.sock"):
        word = b""
        while not word:  # on a busy machine it may have given up before it had asked
            began = time.monotonic()
            told = await first.reports.health()
            assert 0.2 <= time.monotonic() - began < 5
            assert [worker["status"] for worker in told["workers"]] == ["ok", "missing"]
            word = await heard.get()
        assert word == b"health\n"
    await first.reports.close()


async def test_sibling_that_talks_nonsense_is_missing(folder: Path) -> None:
    first = FakeWorker(folder, 0)
    await first.reports.start()

    async def mad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"half')
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(mad, folder / "1.sock"):
        assert (await first.reports.health())["workers"][1]["status"] == "missing"
    await first.reports.close()


async def test_successor_counts_on_from_what_was_heard_last(folder: Path) -> None:
    async with two_workers(folder) as (first, second):
        second.orders.inc(3)
        assert (await first.text())["orders_total"] == 3
        second.orders.inc(100)  # and it is killed: nobody has heard of these
        successor = FakeWorker(folder, 1, starts=1)
        await successor.reports.start()
        successor.orders.inc()
        for one in (first, successor):
            found = await one.text()
            assert found["orders_total"] == 4
            assert found['gateway_worker_restarts_total{worker="1"}'] == 1
        await successor.reports.close()


async def test_worker_that_ends_in_order_leaves_all_its_counts(folder: Path) -> None:
    async with two_workers(folder) as (first, second):
        second.orders.inc(3)
        await second.reports.close()
        assert (await first.text())["orders_total"] == 3


async def test_many_questions_at_once_are_one(folder: Path) -> None:
    async with two_workers(folder) as (first, second):
        answers = await asyncio.gather(*(first.reports.health() for _ in range(50)))
        assert second.times_asked == 1
        assert all(answer == answers[0] for answer in answers)
        await first.reports.health()
        assert second.times_asked == 2


async def test_unknown_word_is_not_answered(folder: Path) -> None:
    async with two_workers(folder):
        reader, writer = await asyncio.open_unix_connection(folder / "0.sock")
        writer.write(b"secrets\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_socket_left_by_a_dead_predecessor_is_no_hindrance(folder: Path) -> None:
    (folder / "0.sock").touch()
    async with two_workers(folder) as (first, _):
        assert stat.S_ISSOCK((folder / "0.sock").stat().st_mode)
        assert (await first.reports.health())["status"] == "ok"


async def test_gateway_of_one_process_speaks_for_itself() -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders", registry=registry).inc(2)
    refreshed: list[bool] = []
    reports = build_reports(Worker(NOBODY), lambda: report(5), registry, lambda: refreshed.append(True), RULES)
    await reports.start()
    assert await reports.health() == report(5)
    assert b"orders_total 2.0" in await reports.metrics()
    assert refreshed == [True]
    await reports.close()


async def test_health_of_all_is_the_worst_of_each() -> None:
    answers = {
        0: {"pid": 1, "report": report(2, kafka={"lag": 5, "partitions": 3}, known_since=20.0)},
        1: {"pid": 2, "report": report(3, kafka={"partial": True}, status="degraded", problems=["a", "b"])},
        2: {"pid": 3, "report": report(4, problems=["b"])},
    }
    told = merged_health(answers, 0, {0: 1, 1: 2, 2: 3}, 3, 7.0001)
    assert told["status"] == "degraded"
    assert (told["clients"], told["uptime_seconds"], told["known_since"]) == (9, 7.0, 20.0)
    assert told["problems"] == ["a", "b"]
    assert told["kafka"] == {
        "connected": True, "group": "g", "consume": "broadcast", "partitions": 3, "partial": True, "lag": 5,
    }  # fmt: skip
    assert [one["status"] for one in told["workers"]] == ["ok", "degraded", "ok"]


async def test_health_of_all_knows_nothing_while_one_knows_nothing() -> None:
    answers = {
        number: {"pid": 1, "report": report(known_since=since, status="degraded")}
        for number, since in ((0, 5.0), (1, None))
    }
    assert merged_health(answers, 0, {}, 2, 1)["known_since"] is None


async def test_health_of_workers_has_what_each_of_them_keeps() -> None:
    kept = [
        {"restored": True, "age_seconds": 1.5, "writer_of": [2, 0]},
        {"restored": False, "age_seconds": None, "writer_of": [1]},
    ]
    answers = {number: {"pid": number, "report": report(state=state)} for number, state in enumerate(kept)}
    told = merged_health(answers, 0, {}, 2, 1)
    assert told["state"] == {"restored": False, "age_seconds": 1.5, "writer_of": [0, 1, 2]}


async def test_health_of_workers_tells_of_one_that_still_warms_up_whoever_is_asked() -> None:
    warming_up = {"phase": "orders", "done": 1, "of": 5}
    answers = {
        0: {"pid": 1, "report": report()},
        1: {"pid": 2, "report": report(status="degraded", warming_up=warming_up)},
    }
    assert merged_health(answers, 0, {}, 2, 1)["warming_up"] == warming_up
    assert "warming_up" not in merged_health({0: answers[0], 1: answers[0]}, 0, {}, 2, 1)
