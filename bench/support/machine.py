"""What the system knows of processes: their CPU time, and on which cores they may run. Linux only (/proc)."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import tornado

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time that all threads of a process, ended ones too, have taken, in the scheduler's resolution."""
    # The clock's number as clock_getcpuclockid(3) makes it, which Python does not have.
    return time.clock_gettime((~pid << 3) | 2)


def main_thread_cpu_seconds(pid: int) -> float:
    """The same for its main thread alone: of the gateway, all of Python but the calls that it gives to threads.

    Resolution: a clock tick.
    """
    file = Path(f"/proc/{pid}/task/{pid}/stat")
    # Fields 14 and 15 (proc(5)); the name in field 2 is in parentheses and may hold anything.
    fields = file.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def resident_bytes(pid: int) -> int:
    """How much of a process is in memory (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pin(pid: int, cores: set[int]) -> None:
    """Let a process and all its threads run on these cores only; later threads inherit it."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            pass  # the thread has ended


@contextmanager
def started_on(cores: set[int] | None) -> Iterator[None]:
    """What is started meanwhile runs on these cores only, if they are given: what counts its cores (Go) counts right."""
    before = os.sched_getaffinity(0)
    try:
        if cores is not None:
            os.sched_setaffinity(0, cores)  # it is inherited
        yield
    finally:
        os.sched_setaffinity(0, before)


def all_cores() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0)


def split_cores() -> tuple[set[int], set[int]] | None:
    """One core for the server and the others for its load; None where there is only one."""
    first, *others = sorted(all_cores())
    return ({first}, set(others)) if others else None


@contextmanager
def beside_the_load(pid: int | None) -> Iterator[None]:
    """Meanwhile a process that is ours (a broker) runs where the load does, and not on the servers' core."""
    cores = split_cores()
    try:
        if cores is not None and pid is not None:
            pin(pid, cores[1])
        yield
    finally:
        if pid is not None:
            pin(pid, all_cores())


class Neighbours:
    """How much of the machine others took meanwhile: with it grows the noise in every figure of time."""

    def __init__(self, broker_pid: int | None) -> None:
        """From now on. `broker_pid`: the broker that is ours too, though it lives on."""
        self._broker_pid = broker_pid
        self._started = time.monotonic()
        self._all, self._own = self._busy_seconds(), self._own_seconds()

    def share(self) -> float:
        """Percent of all cores that others took until now. Every process of ours but the broker must have ended."""
        others = self._busy_seconds() - self._all - (self._own_seconds() - self._own)
        return max(0.0, others / (time.monotonic() - self._started) / (os.cpu_count() or 1) * 100)

    @staticmethod
    def _busy_seconds() -> float:
        # proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal: what a hypervisor took is taken as well.
        fields = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:9]
        user, nice, system, _idle, _iowait, *rest = map(int, fields)
        return (user + nice + system + sum(rest)) / TICKS_A_SECOND

    def _own_seconds(self) -> float:
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return own + (cpu_seconds(self._broker_pid) if self._broker_pid is not None else 0.0)


def describe() -> list[str]:
    """The class of machine and the versions, for the record; no names."""
    lines = [
        f"{len(all_cores())} cores ({_cpu_model()}), {platform.system()} {platform.release().partition('-')[0]}",
    ]
    lines.append(
        f"Python {platform.python_version()}, Tornado {tornado.version}, "
        f"confluent-kafka {confluent_kafka.version()} (librdkafka {confluent_kafka.libversion()[0]})"
    )
    try:
        told = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
        lines.append(told.partition("\n")[0])
    except (OSError, subprocess.TimeoutExpired):
        pass
    return lines


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
