"""What a process takes of memory, descriptors, threads and its core, sample by sample, and whether its memory grows."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.support import machine

# Until then caches fill, and the slow readers have been slow for the first time.
SETTLED_SECONDS = 120.0
HEAD = "|      s |  RSS MiB | files | threads | loop % |\n|-------:|---------:|------:|--------:|-------:|"


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway at one moment; the share of a core that its main thread took since the last one."""

    seconds: float
    resident_bytes: int
    files: int
    threads: int
    loop_share: float

    def line(self) -> str:
        """As a row of the table."""
        return (
            f"| {self.seconds:6.0f} | {self.resident_bytes / 1048576:8.1f} | {self.files:5} | {self.threads:7} "
            f"| {self.loop_share * 100:6.1f} |"
        )


class Usage:
    """Of a process, from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._started = self._last = time.monotonic()
        self._cpu = machine.main_thread_cpu_seconds(pid)
        self.samples: list[Sample] = []

    def sample(self) -> Sample:
        """One sample, kept."""
        now, cpu = time.monotonic(), machine.main_thread_cpu_seconds(self._pid)
        share = (cpu - self._cpu) / max(0.001, now - self._last)
        self._last, self._cpu = now, cpu
        taken = Sample(now - self._started, machine.resident_bytes(self._pid), self.files(), self.threads(), share)
        self.samples.append(taken)
        return taken

    def files(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def threads(self) -> int:
        """Threads."""
        return len(os.listdir(f"/proc/{self._pid}/task"))

    def growth(self) -> float:
        """Of RSS between the first samples after two minutes and the last ones, as a share; medians of three."""
        settled = [one for one in self.samples if one.seconds >= SETTLED_SECONDS] or self.samples[-1:]
        first = median(one.resident_bytes for one in settled[:3])
        return median(one.resident_bytes for one in settled[-3:]) / first - 1

    def kinds_of_files(self) -> dict[str, int]:
        """What they are, for who looks for the leak."""
        kinds: dict[str, int] = {}
        for entry in Path(f"/proc/{self._pid}/fd").iterdir():
            try:
                kind = os.readlink(entry).partition(":")[0]
            except OSError:
                continue
            kinds[kind] = kinds.get(kind, 0) + 1
        return kinds
