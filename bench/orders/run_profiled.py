"""Runs a program that can be profiled: `python -m bench.orders.run_profiled FILE (SCRIPT | -m MODULE) ARGUMENTS`

SIGUSR1 begins, SIGUSR2 ends and writes FILE: so the start does not count, and however the program ends does not matter.
The clock is the wall's: that of CPU time is a system call, which would weigh more than what it measures.
"""

from __future__ import annotations

import cProfile
import os
import runpy
import signal
import sys
from types import FrameType


def main() -> None:
    """Run it to its end."""
    file, program, *arguments = sys.argv[1:]
    profile = cProfile.Profile()

    def begin(_number: int, _frame: FrameType | None) -> None:
        profile.enable()

    def save(_number: int, _frame: FrameType | None) -> None:
        profile.disable()
        profile.dump_stats(file + ".new")
        os.rename(file + ".new", file)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, save)
    if program == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
