"""How what is said on the control topic gets there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from core.errors import ControlUnknown, OutcomeUnknown

# Writes a value, or a tombstone, under a key; the future ends once it is there. Raises BusUnavailable; the future that, or
# OutcomeUnknown.
Write = Callable[[str, bytes | None], asyncio.Future[Any]]


async def known(written: Awaitable[object]) -> None:
    """Wait for a record to be there. Raises BusUnavailable if it certainly is not, else ControlUnknown."""
    try:
        await written
    except OutcomeUnknown as error:
        raise ControlUnknown(error.reason) from error
