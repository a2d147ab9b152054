from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from process.sockets import Listeners
from process.workers import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    WELL_AFTER_SECONDS,
    Backoff,
    LineReader,
    Parent,
    assign_slots,
    worker_count,
)
from tests.process.workers_process import GRACE_SECONDS
from tests.support.gateway import REPOSITORY

DEADLINE_SECONDS = 30.0


class WorkersProcess:
    """A parent process and what it and its workers say."""

    def __init__(self, plan: str) -> None:
        self._lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.workers_process", plan],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> WorkersProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE_SECONDS)
        assert not self._reader.is_alive(), "workers have outlived their parent"

    @property
    def text(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, times: int = 1) -> list[re.Match[str]]:
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self._news:
            while len(found := list(re.finditer(pattern, "".join(self._lines)))) < times:
                left = deadline - time.monotonic()
                assert left > 0, f"not there: {pattern}\n{''.join(self._lines)}"
                self._news.wait(left)
        return found

    def pid_of(self, worker: int, starts: int = 0) -> int:
        return int(self.wait_for(rf"worker {worker} serves (\d+) {starts} ")[0][1])

    def wait_serving(self) -> None:
        for worker in (0, 1):
            self.pid_of(worker)
            self.wait_for(f"worker {worker} accepts on {worker}")

    def end(self) -> int:
        code = self.process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()


# The parent and its workers.


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_parent_passes_a_signal_on_and_waits_for_all(number: signal.Signals) -> None:
    with WorkersProcess("well") as parent:
        parent.wait_serving()
        parent.process.send_signal(number)
        assert parent.end() == 0
        assert parent.text.count(" stops\n") == 2
        assert parent.text.endswith("parent ends with 0\n")


@pytest.mark.system
def test_workers_are_forked_where_there_is_no_thread() -> None:
    with WorkersProcess("well") as parent:
        parent.wait_serving()
        assert [match[1] for match in parent.wait_for(r"serves \d+ 0 (\d+)", 2)] == ["1", "1"]


@pytest.mark.system
def test_signal_to_the_whole_group_is_passed_on_once() -> None:
    with WorkersProcess("long") as parent:
        parent.wait_serving()
        os.killpg(parent.process.pid, signal.SIGINT)
        parent.wait_for(r"worker \d stops", 2)
        parent.process.send_signal(signal.SIGTERM)
        assert parent.end() == 0
        text = parent.text
        assert text.count(" stops\n") == text.count(" hurries\n") == 2


@pytest.mark.system
def test_worker_that_dies_is_followed_by_another_and_the_other_takes_its_connections_meanwhile() -> None:
    with WorkersProcess("well") as parent:
        parent.wait_serving()
        first = parent.pid_of(1)
        parent.wait_for("worker 0 releases 1")
        os.kill(first, signal.SIGKILL)
        parent.wait_for(r"worker 0 accepts on 1\n", 2)
        parent.wait_for(rf"worker 1 \(process {first}\) was ended by SIGKILL; starting it again in 0\.05 s")
        assert parent.pid_of(1, starts=1) != first
        parent.wait_for(r"worker 1 accepts on 1\n", 2)
        parent.wait_for(r"worker 0 releases 1\n", 2)
        parent.process.terminate()
        assert parent.end() == 0


@pytest.mark.system
def test_successor_that_is_not_ready_yet_takes_no_connections() -> None:
    with WorkersProcess("slow") as parent:
        parent.wait_serving()
        os.kill(parent.pid_of(0), signal.SIGKILL)
        parent.pid_of(0, starts=1)
        parent.wait_for("worker 1 accepts on 0")
        os.kill(parent.pid_of(1), signal.SIGKILL)
        # Now there is nobody who is ready: it takes all that comes.
        parent.wait_for(r"worker 0 accepts on 0\n", 2)
        parent.wait_for(r"worker 0 accepts on 1\n")
        parent.process.terminate()
        assert parent.end() == 0


@pytest.mark.system
def test_worker_that_keeps_dying_is_started_less_and_less_often() -> None:
    with WorkersProcess("dies at once") as parent:
        parent.pid_of(0)
        parent.wait_for(r"ended with code 9; starting it again in 0\.2 s")
        pauses = re.findall(r"starting it again in ([\d.]+) s", parent.text)
        assert pauses[:3] == ["0.05", "0.1", "0.2"]
        parent.process.terminate()
        assert parent.end() == 0


@pytest.mark.system
@pytest.mark.parametrize(("plan", "code"), [("unable", 3), ("raises", 1)])
def test_first_worker_that_cannot_start_ends_all_with_its_code(plan: str, code: int) -> None:
    with WorkersProcess(plan) as parent:
        assert parent.end() == code
        assert len(re.findall(r"worker \d \(process \d+\) started", parent.text)) == 1
        assert "starting it again" not in parent.text
        assert parent.text.count("RuntimeError: a fault of ours") == (1 if plan == "raises" else 0)


@pytest.mark.system
def test_worker_that_does_not_drain_in_time_is_killed_and_the_code_says_so() -> None:
    with WorkersProcess("stuck") as parent:
        parent.wait_serving()
        stuck = parent.pid_of(1)
        began = time.monotonic()
        parent.process.terminate()
        assert parent.end() == 1
        assert GRACE_SECONDS <= time.monotonic() - began < GRACE_SECONDS + 15
        assert f"worker 1 (process {stuck}) has not drained in time: killing it" in parent.text
        assert not Path(f"/proc/{stuck}").exists()


@pytest.mark.system
def test_worker_that_ends_badly_gives_the_parent_its_fault() -> None:
    with WorkersProcess("ends badly") as parent:
        parent.wait_serving()
        parent.process.terminate()
        assert parent.end() == 1


@pytest.mark.system
def test_worker_that_ends_by_itself_is_started_again() -> None:
    with WorkersProcess("well") as parent:
        parent.wait_serving()
        os.kill(parent.pid_of(0), signal.SIGTERM)
        parent.wait_for(r"worker 0 \(process \d+\) ended with code 0; starting it again")
        parent.pid_of(0, starts=1)
        parent.process.terminate()
        assert parent.end() == 0


@pytest.mark.system
def test_workers_end_when_their_parent_is_killed() -> None:
    with WorkersProcess("well") as parent:
        parent.wait_serving()
        parent.process.kill()
        parent.end()
        for worker in (0, 1):
            assert f"worker {worker} stops listening\n" in parent.text
            assert f"worker {worker} stops\n" in parent.text


@pytest.mark.system
def test_parent_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with WorkersProcess("well") as parent:
        parent.wait_serving()
        [folder] = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        parent.process.terminate()
        assert parent.end() == 0
    assert list(tmp_path.iterdir()) == []


def test_parent_without_a_temporary_folder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    assert Parent(lambda _worker: 0, Listeners(((),)), grace_seconds=1).run() == 1


# Its parts.


def test_backoff_doubles_up_to_its_bound_and_begins_anew_after_a_good_life() -> None:
    backoff = Backoff()
    pauses = [backoff.pause_after(1) for _ in range(9)]
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE_SECONDS
    assert backoff.pause_after(WELL_AFTER_SECONDS) == FIRST_PAUSE_SECONDS
    assert backoff.pause_after(1) == 2 * FIRST_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("running", "assigned"),
    [
        ({}, {}),
        ({0: False}, {0: 0, 1: 0, 2: 0}),
        ({0: False, 1: False, 2: False}, {0: 0, 1: 1, 2: 2}),
        ({0: True, 1: True, 2: True}, {0: 0, 1: 1, 2: 2}),
        ({0: True, 1: False, 2: True}, {0: 0, 1: 2, 2: 2}),
        ({0: True, 2: True}, {0: 0, 1: 2, 2: 2}),
        ({1: True}, {0: 1, 1: 1, 2: 1}),
        ({1: True, 2: False}, {0: 1, 1: 1, 2: 1}),
    ],
)
def test_slots_are_assigned_to_their_own_workers_or_else_to_one_who_is_ready(
    running: dict[int, bool], assigned: dict[int, int]
) -> None:
    assert assign_slots(running, 3) == assigned


@given(st.dictionaries(st.integers(0, 7), st.booleans()))
def test_assignment_leaves_no_slot_to_nobody_and_none_to_one_who_is_not_ready_if_another_is(
    running: dict[int, bool],
) -> None:
    assigned = assign_slots(running, 8)
    assert set(assigned) == (set(range(8)) if running else set())
    assert set(assigned.values()) <= set(running)
    if any(running.values()):
        assert all(running[worker] for worker in assigned.values())
    assert all(assigned[number] == number for number, is_ready in running.items() if is_ready)


@given(st.lists(st.text("abc 019", min_size=1), max_size=5), st.data())
def test_lines_are_whole_wherever_they_are_split(lines: list[str], data: st.DataObject) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    near, far = socket.socketpair()
    with near, far:
        reader = LineReader(near)
        found: list[str] = []
        for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            far.sendall(text[begin:end])
            found += reader.read() or []
        assert found == lines
        assert reader.read() == []
        far.close()
        assert reader.read() is None


def test_lines_end_with_a_connection_that_is_broken() -> None:
    near, far = socket.socketpair()
    with near:
        reader = LineReader(near)
        near.send(b"unread")
        far.close()
        assert reader.read() is None


def test_count_is_the_setting_or_one_for_each_core() -> None:
    assert worker_count(3) == 3
    assert 1 <= worker_count(0) <= len(os.sched_getaffinity(0))
