"""What the system knows of processes: their CPU time, and on which cores they may run. Linux only (/proc)."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import confluent_kafka
import tornado

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time that all threads of a process, ended ones too, have taken. Resolution: a clock tick."""
    return _cpu_seconds(Path(f"/proc/{pid}/stat"))


def main_thread_cpu_seconds(pid: int) -> float:
    """The same for its main thread alone: of the gateway, all of Python but the calls that it gives to threads."""
    return _cpu_seconds(Path(f"/proc/{pid}/task/{pid}/stat"))


def _cpu_seconds(file: Path) -> float:
    # Fields 14 and 15 (proc(5)); the name in field 2 is in parentheses and may hold anything.
    fields = file.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def pin(pid: int, cores: set[int]) -> None:
    """Let a process and all its threads run on these cores only; later threads inherit it."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            pass  # the thread has ended


def all_cores() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0)


def split_cores() -> tuple[set[int], set[int]] | None:
    """One core for the server and the others for its load; None where there is only one."""
    first, *others = sorted(all_cores())
    return ({first}, set(others)) if others else None


def load_average() -> float:
    """Processes that wanted to run, over the last minute."""
    return os.getloadavg()[0]


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
