"""Child processes that end with the process that started them, even where that is killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Becomes the program by exec, so that the process handle is the program's. The parent may have died before prctl.
_PROGRAM = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def tied(command: Sequence[str]) -> list[str]:
    """The command of a process that is killed when the thread that starts it ends, prctl(2); on Linux alone."""
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid()), *command]
