"""Blocks of users and halts of symbols, as the operators set them: known to every instance, and kept over restarts.

A halt of all symbols and one of a symbol are two: each holds until it is taken back itself.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from core.control.control_table import Place
from core.control.control_writer import ControlWriter, check_text
from core.errors import FieldError, InvalidFields
from core.messages.control_records import (
    BLOCK,
    HALT,
    Restriction,
    control_key,
    halt_name,
    read_halt_name,
    read_restriction,
    write_control,
)
from core.messages.model import is_symbol

log = logging.getLogger("gateway.control")

MOST_USER_CHARACTERS: Final = 256
# No token names such a user (docs/contract.md#identity).
_unfit = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search


class Restrictions:
    """Who may not order, and what is not ordered. Whoever sets one raises as `ControlWriter.put`, or InvalidFields."""

    def __init__(
        self,
        writer: ControlWriter,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is called once another halt is known than before."""
        self._writer = writer
        self._on_change = on_change
        self._clock = clock
        self._blocked: dict[str, Restriction] = {}
        self._halted: dict[str | None, Restriction] = {}

    async def block(self, user_id: str, reason: str | None = None) -> None:
        """Refuse the user's orders and amends, on every instance; what is open stays open."""
        check_user(user_id)
        await self._put(control_key(BLOCK, user_id), reason)
        log.warning("user %s is blocked: %s", user_id, reason or "no reason given")

    async def unblock(self, user_id: str) -> None:
        """The user may order again; harmless where that was so."""
        check_user(user_id)
        await self._writer.put(control_key(BLOCK, user_id), None)
        log.warning("user %s is no longer blocked", user_id)

    async def halt(self, symbol: str | None, reason: str | None = None) -> None:
        """Refuse orders and amends of the symbol, on every instance; None: of all symbols."""
        _check_symbol(symbol)
        await self._put(control_key(HALT, halt_name(symbol)), reason)
        log.warning("%s halted: %s", _subject(symbol), reason or "no reason given")

    async def resume(self, symbol: str | None) -> None:
        """Take back the halt of the symbol; None: that of all, but of no symbol that is halted itself. Harmless where
        there was none.
        """
        _check_symbol(symbol)
        await self._writer.put(control_key(HALT, halt_name(symbol)), None)
        log.warning("%s no longer halted", _subject(symbol))

    async def _put(self, key: str, reason: str | None) -> None:
        check_text("reason", reason)
        await self._writer.put(key, write_control(Restriction(int(self._clock() * 1000), reason)))

    def is_blocked(self, user_id: str | None) -> bool:
        """Whether the user's orders are refused. Nobody's are never."""
        return user_id in self._blocked

    def is_halted(self, symbol: str) -> bool:
        """Whether orders of the symbol are refused: it is halted, or all are."""
        return symbol in self._halted or None in self._halted

    def blocked(self) -> Mapping[str, Restriction]:
        """By user."""
        return self._blocked

    def halted(self) -> Mapping[str | None, Restriction]:
        """By symbol; None: all symbols."""
        return self._halted

    # What the topic says.

    def take_block(self, _place: Place, user_id: str, value: bytes | None) -> None:
        """A user was blocked, or with None no longer is. Raises PoisonedRecord."""
        if value is None:
            self._blocked.pop(user_id, None)
        else:
            self._blocked[user_id] = read_restriction(value)

    def take_halt(self, _place: Place, name: str, value: bytes | None) -> None:
        """A symbol, or all, was halted, or with None no longer is. Raises PoisonedRecord."""
        symbol = read_halt_name(name)
        if value is None:
            self._halted.pop(symbol, None)
        else:
            self._halted[symbol] = read_restriction(value)
        self._on_change()

    def forget(self, _partition: int) -> None:
        """What the topic said, which has one partition, is not known any more."""
        if self._blocked or self._halted:
            log.error(
                "the control topic is gone or was made again: %d blocks and %d halts are forgotten",
                len(self._blocked), len(self._halted),
            )  # fmt: skip
        self._blocked.clear()
        self._halted.clear()
        self._on_change()


def check_user(user_id: str) -> None:
    """Whether there can be such a user. Raises InvalidFields."""
    if not user_id or len(user_id) > MOST_USER_CHARACTERS or _unfit(user_id) or user_id != user_id.strip():
        expected = f"expected 1 to {MOST_USER_CHARACTERS} characters, in one line and without a space at its ends"
        raise InvalidFields([FieldError("user_id", expected)])


def _check_symbol(symbol: str | None) -> None:
    if symbol is not None and not is_symbol(symbol):
        raise InvalidFields([FieldError("symbol", "expected BASE/QUOTE, or null for all")])


def _subject(symbol: str | None) -> str:
    return "all symbols are" if symbol is None else f"{symbol} is"
