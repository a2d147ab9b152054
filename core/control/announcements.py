"""What the operators announce: one announcement at a time, known to every instance and kept over restarts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from core.control.control_table import Place
from core.control.control_writer import ControlWriter, check_text
from core.errors import FieldError, InvalidFields, PoisonedRecord
from core.messages.control_records import (
    ALL,
    ANNOUNCEMENT,
    BAD_KEY,
    Announcement,
    TradingState,
    control_key,
    read_announcement,
    write_control,
)
from core.messages.model import is_symbol
from core.messages.strict_json import MAX_INTEGER

log = logging.getLogger("gateway.control")

MOST_SYMBOLS: Final = 1000
# September 2001 in milliseconds; in seconds it is the year 33658. What is less is taken for seconds, but for 0.
LEAST_MS: Final = 10**12
_KEY: Final = control_key(ANNOUNCEMENT, ALL)


class Announcements:
    """`current` is what is announced, in force, over or yet to come; None: nothing. Whoever sets it raises as
    `ControlWriter.put`.
    """

    def __init__(
        self,
        writer: ControlWriter,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is called once another one is known than before; `clock` is in seconds since the Unix epoch."""
        self._writer = writer
        self._clock = clock
        self._on_change = on_change
        self.current: Announcement | None = None

    async def announce(
        self,
        state: str,
        symbols: Sequence[str] | None = None,
        message: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        """Announce this instead of what was announced before; see `Announcement`. Raises InvalidFields as well."""
        errors = []
        if state not in tuple(TradingState):
            errors.append(FieldError("state", f"expected one of {', '.join(TradingState)}"))
        if symbols is not None and not (0 < len(symbols) <= MOST_SYMBOLS and all(map(is_symbol, symbols))):
            errors.append(FieldError("symbols", f"expected 1 to {MOST_SYMBOLS} symbols, or null for all"))
        no_times = [
            FieldError(field, "expected milliseconds since the Unix epoch")
            for field, moment_ms in (("from_ms", from_ms), ("until_ms", until_ms))
            if moment_ms is not None and moment_ms != 0 and not LEAST_MS <= moment_ms <= MAX_INTEGER
        ]
        errors += no_times
        if until_ms is not None and not no_times:
            if from_ms is not None and from_ms >= until_ms:
                errors.append(FieldError("until_ms", "expected a time after from_ms"))
            elif until_ms <= self._clock() * 1000:
                errors.append(FieldError("until_ms", "expected a time that is still to come"))
        if errors:
            raise InvalidFields(errors)
        check_text("message", message)
        told = Announcement(
            TradingState(state), None if symbols is None else tuple(dict.fromkeys(symbols)), message, from_ms, until_ms
        )
        await self._writer.put(_KEY, write_control(told))
        log.warning("announced: %s", told)

    async def withdraw(self) -> None:
        """There is nothing to announce any more; harmless where there was nothing."""
        await self._writer.put(_KEY, None)
        log.warning("the announcement is withdrawn")

    # What the topic says.

    def take(self, _place: Place, name: str, value: bytes | None) -> None:
        """Something was announced, or with None withdrawn. Raises PoisonedRecord."""
        if name != ALL:
            raise PoisonedRecord(BAD_KEY, f"expected {_KEY}")
        self.current = None if value is None else read_announcement(value)
        self._on_change()

    def forget(self, _partition: int) -> None:
        """What the topic said, which has one partition, is not known any more."""
        self.current = None
        self._on_change()
