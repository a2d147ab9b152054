"""glibc's heaps in a process of their own: how many there are is settled with the first thread."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

CHOSEN = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
THREADS = """
import ctypes, sys, threading
from process.allocator import keep_few_arenas
if "few" in sys.argv:
    keep_few_arenas()
together = threading.Barrier(8)
def work():
    together.wait()
    held = [bytearray(5000) for _ in range(100)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads: one.start()
for one in threads: one.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def heaps(*arguments: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    ran = subprocess.run(
        [sys.executable, "-c", THREADS, *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout.count("<heap nr=")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="not glibc")
def test_threads_share_a_heap() -> None:
    assert heaps() > 2
    assert heaps("few") == 2


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="not glibc")
@pytest.mark.parametrize("chosen", [{"MALLOC_ARENA_MAX": "3"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}])
def test_an_operators_own_number_of_heaps_stays(chosen: dict[str, str]) -> None:
    assert heaps("few", **chosen) == 3
