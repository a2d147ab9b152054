"""Deadlines that a test counts, and meets when it likes: no clock decides what came in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def deadlines() -> Iterator[list[asyncio.Timeout]]:
    """What `asyncio.timeout` begins meanwhile, one after the other."""
    begun: list[asyncio.Timeout] = []
    timeout = asyncio.timeout

    def begin(seconds: float | None) -> asyncio.Timeout:
        begun.append(timeout(seconds))
        return begun[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asyncio, "timeout", begin)
        yield begun


def meet(deadline: asyncio.Timeout) -> None:
    """Its time is over."""
    deadline.reschedule(0)
