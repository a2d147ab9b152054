"""The workers of one gateway telling each other how they are, so that whichever is asked can speak for all.

Each listens on a Unix socket in a folder that only this user may enter, takes one word (`health`, `metrics`) and answers
with JSON; what else one may be asked (`words`) has an argument behind its word. Rejected: prometheus_client's multiprocess mode. There an increment is a write to a mapped file, 1.0
microseconds instead of 0.35 (a histogram 2.1 instead of 0.8); gauges are as old as their last writing, collectors of
one's own are left out, and `/health` would need another way all the same. Here counting costs what it always did.

What a worker was last heard to have counted lies in a file of its slot, written before it is told. So a sum goes on where
a worker is silent or has died: its successor begins there. What it counted after that is lost with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from core.telemetry import merged_metrics as totals
from process.workers import Worker

log = logging.getLogger("gateway.workers")

ANSWER_SECONDS = 0.2
# Of other words, whose answer may take several turns of the loop, and which people ask.
WORD_SECONDS = 2.0

UP = "gateway_worker_up"
RESTARTS = "gateway_worker_restarts_total"

Answer = dict[str, Any]
T = TypeVar("T")

# What else a worker is asked, by its word: the argument in, its answer out.
Words = dict[str, Callable[[str], Awaitable[Answer]]]


class Reports(Protocol):
    """What a gateway says of itself, whatever the number of its processes. `words`: what else each of them answers."""

    words: Words

    async def start(self) -> None:
        """Begin."""

    async def close(self) -> None:
        """End."""

    async def health(self) -> Answer:
        """The body of `/health`."""

    async def metrics(self) -> bytes:
        """The Prometheus text."""

    async def ask(self, word: str, argument: str) -> dict[int, Answer]:
        """What each worker answers to one of the `words`, by its number; who does not answer is left out."""


def build_reports(
    worker: Worker,
    report: Callable[[], Answer],
    registry: CollectorRegistry,
    refresh: Callable[[], None],
    gauge_rules: Mapping[str, str],
) -> Reports:
    """`report` makes this process's own `/health`, `refresh` brings the gauges up to date that nobody keeps meanwhile.

    `gauge_rules` says of gauges what they are of several workers; see `core.telemetry.merged_metrics`.
    """
    if worker.folder is None:
        return SingleProcessReports(report, registry, refresh)
    return WorkerReports(worker, worker.folder, report, registry, refresh, gauge_rules)


class SingleProcessReports:
    """A gateway of one process."""

    def __init__(self, report: Callable[[], Answer], registry: CollectorRegistry, refresh: Callable[[], None]) -> None:
        self.words: Words = {}
        self._report = report
        self._registry = registry
        self._refresh = refresh

    async def ask(self, word: str, argument: str) -> dict[int, Answer]:
        """Its own answer to one of the `words`."""
        return {0: await self.words[word](argument)}

    async def start(self) -> None:
        """Nobody is to be met."""

    async def close(self) -> None:
        """Nor to be left."""

    async def health(self) -> Answer:
        """The body of `/health`."""
        return self._report()

    async def metrics(self) -> bytes:
        """The Prometheus text; in an executor, for it takes milliseconds."""
        self._refresh()
        return await asyncio.get_running_loop().run_in_executor(None, generate_latest, self._registry)


class WorkerReports:
    """One worker's place among them; `start` before asking, `close` at the end."""

    def __init__(
        self,
        worker: Worker,
        folder: Path,
        report: Callable[[], Answer],
        registry: CollectorRegistry,
        refresh: Callable[[], None],
        gauge_rules: Mapping[str, str],
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """See `build_reports`; `folder` is the worker's."""
        self.words: Words = {}
        self._folder = folder
        self._number = worker.number
        self._workers = worker.count
        self._starts = worker.starts
        self._started_at = worker.started_at
        self._report = report
        self._registry = registry
        self._refresh = refresh
        self._gauge_rules = gauge_rules
        self._answer_seconds = answer_seconds
        self._counted_before = self._last_counted(worker.number)
        self._counting = threading.Lock()
        self._pids: dict[int, int] = {}
        self._asking: dict[str, asyncio.Task[Any]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen to the others."""
        path = self._path(self._number)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def close(self) -> None:
        """Be silent from now on, and leave to the successor what was counted."""
        for task in self._asking.values():
            task.cancel()
        if self._server is not None:
            self._server.close()
        try:
            self._path(self._number).unlink(missing_ok=True)
            self._count_and_save()
        except OSError as error:  # the folder went with the parent
            log.debug("nothing is left to a successor: %s", error)

    async def health(self) -> Answer:
        """The body of `/health` for all workers."""
        return await self._once("health", self._health)

    async def metrics(self) -> bytes:
        """The Prometheus text for all workers."""
        return await self._once("metrics", self._metrics)

    async def ask(self, word: str, argument: str) -> dict[int, Answer]:
        """What each worker answers to one of the `words`, by its number; who does not answer is left out."""
        return await self._answers(f"{word} {argument}", WORD_SECONDS)

    # For all.

    async def _once(self, word: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Who asks while an answer is being gathered gets that one: a flood of questions is one question."""
        task = self._asking.get(word)
        if task is None:
            task = self._asking[word] = asyncio.create_task(work())
            task.add_done_callback(lambda _done: self._asking.pop(word, None))
        answer: T = await asyncio.shield(task)
        return answer

    async def _health(self) -> Answer:
        answers = await self._ask("health")
        return merged_health(answers, self._number, self._pids, self._workers, time.monotonic() - self._started_at)

    async def _metrics(self) -> bytes:
        answers = await self._ask("metrics")
        return await asyncio.get_running_loop().run_in_executor(None, self._merged, answers)

    def _merged(self, answers: dict[int, Answer]) -> bytes:
        numbers = range(self._workers)
        live = {number: answer["families"] for number, answer in answers.items()}
        silent = {number: self._last_counted(number) for number in numbers if number not in answers}
        up = {number: float(number in answers) for number in numbers}
        starts = {number: float(answer["starts"]) for number, answer in answers.items()}
        return totals.text(
            [
                *totals.merge(live, silent, self._gauge_rules),
                totals.gauge(UP, "1 for a worker that answers", up),
                totals.gauge(RESTARTS.removesuffix("_total"), "Times a worker was started again", starts, "counter"),
            ]
        )

    async def _ask(self, word: str) -> dict[int, Answer]:
        found = await self._answers(word, self._answer_seconds)
        self._pids |= {number: answer["pid"] for number, answer in found.items()}
        return found

    async def _answers(self, line: str, seconds: float) -> dict[int, Answer]:
        """Everybody's answer; of those who did not give one in time, none."""
        others = [number for number in range(self._workers) if number != self._number]
        own, *theirs = await asyncio.gather(
            self._answer(line), *(self._ask_one(number, line, seconds) for number in others)
        )
        answers = {self._number: own, **dict(zip(others, theirs, strict=True))}
        return {number: answer for number, answer in answers.items() if answer is not None}

    async def _ask_one(self, number: int, line: str, seconds: float) -> Answer | None:
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                try:
                    writer.write(f"{line}\n".encode())
                    answer: Answer = json.loads(await reader.read(-1))
                finally:
                    await _end(writer)
        except (OSError, TimeoutError, ValueError):
            return None  # not there, too busy, or died in the middle of it: that is told as such
        return answer

    # For this one.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._answer_seconds) as ending:
                line = (await reader.readline()).decode().strip()
                if " " in line:
                    ending.reschedule(asyncio.get_running_loop().time() + WORD_SECONDS)
                writer.write(json.dumps(await self._answer(line)).encode())
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            log.debug("a sibling was not answered: %s", error)
        finally:
            await _end(writer)

    async def _answer(self, line: str) -> Answer:
        word, _, argument = line.partition(" ")
        if word in self.words:
            return await self.words[word](argument)
        if word == "health":
            return {"pid": os.getpid(), "report": self._report()}
        if word == "metrics":
            self._refresh()
            counted = await asyncio.get_running_loop().run_in_executor(None, self._count_and_save)
            return {"pid": os.getpid(), "starts": self._starts, "families": counted}
        raise ValueError(f"expected health or metrics, got {word!r}")

    def _count_and_save(self) -> list[totals.Family]:
        # One after the other, so that the file never has less than was told.
        with self._counting:
            counted = totals.add(totals.families(self._registry), self._counted_before)
            draft = self._folder / f"{self._number}.new"
            draft.write_text(json.dumps(counted))
            draft.replace(self._folder / f"{self._number}.json")
        return counted

    def _last_counted(self, number: int) -> list[totals.Family]:
        try:
            found: list[totals.Family] = json.loads((self._folder / f"{number}.json").read_text())
        except FileNotFoundError:
            return []
        return found

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.sock"


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _merged_state(states: list[Answer]) -> Answer:
    """What is kept, by all of them."""
    ages = [state["age_seconds"] for state in states if state["age_seconds"] is not None]
    return {
        "restored": all(state["restored"] for state in states),
        "age_seconds": max(ages, default=None),
        "writer_of": sorted({number for state in states for number in state["writer_of"]}),
    }


def merged_health(
    answers: Mapping[int, Answer], asked: int, pids: Mapping[int, int], workers: int, uptime_seconds: float
) -> Answer:
    """One report of all, with the members of a single one and `workers`; the worst of each where they differ."""
    reports: dict[int, Answer] = {number: answer["report"] for number, answer in answers.items()}
    missing = [number for number in range(workers) if number not in reports]
    problems: list[str] = []
    for report in reports.values():
        problems += [problem for problem in report.get("problems", ()) if problem not in problems]
    problems += [f"worker {number} does not answer" for number in missing]
    bus = [report["kafka"] for report in reports.values()]
    since = [report["known_since"] for report in reports.values()]
    warming_up = next((report["warming_up"] for report in reports.values() if "warming_up" in report), None)
    healthy = not missing and all(report["status"] == "ok" for report in reports.values())
    return {
        **reports[asked],
        "status": "ok" if healthy else "degraded",
        "uptime_seconds": round(uptime_seconds, 3),
        "clients": sum(report["clients"] for report in reports.values()),
        "kafka": {
            **reports[asked]["kafka"],
            "connected": all(one["connected"] for one in bus),
            "partitions": min(one["partitions"] for one in bus),
            "partial": any(one["partial"] for one in bus),
            "lag": max(one["lag"] for one in bus),
        },
        "state": _merged_state([report["state"] for report in reports.values()]),
        "known_since": None if None in since else max(since),
        "workers": [
            {
                "pid": pids.get(number),
                "status": reports[number]["status"] if number in reports else "missing",
                "uptime_seconds": reports[number]["uptime_seconds"] if number in reports else None,
            }
            for number in range(workers)
        ],
        **({"warming_up": warming_up} if warming_up is not None else {}),
        **({"problems": problems} if problems else {}),
    }
