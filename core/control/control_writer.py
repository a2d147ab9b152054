"""What the operators set, on its way to the control topic: refused while there is none, and known here once it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from core.control.writing import Write, known
from core.errors import ControlUnavailable, FieldError, InvalidFields, StillBehind

MOST_CHARACTERS: Final = 500


class ControlWriter:
    """Writes records one by one."""

    def __init__(
        self, write: Write, *, why_not: Callable[[], str | None], to_end: Callable[[], Awaitable[None]]
    ) -> None:
        """`why_not` says why nothing can be set now; None: it can. `to_end` waits until all is read that is on the topic;
        raises StillBehind.
        """
        self._write = write
        self._why_not = why_not
        self._to_end = to_end

    async def put(self, key: str, value: bytes | None) -> None:
        """Until it is on the topic, and read here, unless that takes too long.

        Raises BusUnavailable and ControlUnavailable where what was said before holds, ControlUnknown where either may.
        """
        reason = self._why_not()
        if reason is not None:
            raise ControlUnavailable(reason)
        # Its fate does not hang on whether who asked for it waits.
        await known(asyncio.shield(self._write(key, value)))
        with suppress(StillBehind):
            await self._to_end()


def check_text(field: str, text: str | None) -> None:
    """What is told to people, or None. Raises InvalidFields."""
    if text is not None and (not text.strip() or len(text) > MOST_CHARACTERS or not text.isprintable()):
        raise InvalidFields([FieldError(field, f"expected up to {MOST_CHARACTERS} characters in one line")])
