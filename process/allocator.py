"""glibc's malloc, kept from giving every thread a heap of its own.

It makes up to eight of them a core, and librdkafka's threads are many and end with each replay: what one of them freed in
its heap is of no use to the next. In 15 minutes of the soak these heaps grew by 1.2 MiB, and with two in all by nothing.
"""

from __future__ import annotations

import ctypes
import os

# malloc.h.
M_ARENA_MAX = -8
# The main thread's, and one for everybody else.
ARENAS = 2


def keep_few_arenas() -> None:
    """Before the first thread. An operator's own number of them (mallopt(3)) stays; another libc is left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    is_chosen = "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", "")
    if mallopt is not None and not is_chosen:
        mallopt(M_ARENA_MAX, ARENAS)
