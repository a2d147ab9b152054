"""One line for each act of an operator: who, what, and what came of it.

A line is a message and fields, which `process/logs.py` writes in the form of the log (docs/operators.md#audit). Lines of one turn
of the loop go out together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from core.errors import RequestError

# Lines that wait for a log that takes none: beyond these they are left out.
_MOST_WAITING: Final = 10_000
_RETRY_SECONDS: Final = 0.1


class Line(NamedTuple):
    """One line of the audit: its time in seconds since the Unix epoch, what it is about, and its fields, none of them None."""

    time: float
    message: str
    fields: Mapping[str, object]


# Writes lines; gives back how many it could take.
Write = Callable[[list[Line]], int]
Later = Callable[[float, Callable[[], None]], object]


def write_nothing(lines: list[Line]) -> int:
    """Where there is no log."""
    return len(lines)


class Audit:
    """Where what operators do is told of."""

    def __init__(
        self, write: Write = write_nothing, later: Later | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: seconds since the Unix epoch. `later` is the loop's `call_later`; where there is none, each line is written
        at once.
        """
        self._write = write
        self._later = later
        self._clock = clock
        self._waiting: list[Line] = []
        self._left_out = 0

    def act(self, action: str, **fields: object) -> None:
        """Something that an operator has done, or tried to. Fields that are None are left out. `outcome`: what came of it."""
        outcome = fields.get("outcome")
        given = {name: value for name, value in fields.items() if value is not None}
        self._add(action if outcome is None else f"{action} {outcome}", {"action": action, **given})

    def flush(self) -> None:
        """Write what waits; what the log does not take is tried again a moment later."""
        lines, self._waiting = self._waiting, []
        rest = lines[self._write(lines) :]
        if rest and self._later is not None:
            self._left_out += len(rest[_MOST_WAITING:])
            self._waiting = rest[:_MOST_WAITING]
            self._later(_RETRY_SECONDS, self.flush)
        elif self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._add("lines left out", {"lines": left_out})

    def close(self) -> None:
        """Write what waits: the end."""
        self.flush()

    def _add(self, message: str, fields: Mapping[str, object]) -> None:
        is_first = not self._waiting
        self._waiting.append(Line(self._clock(), message, fields))
        if self._later is None:
            self.flush()
        elif is_first:
            self._later(0, self.flush)


def outcome_of(error: RequestError) -> str:
    """`refused`; or `not_written`, or `unknown`, of what was to go to the bus."""
    return error.counted_as if error.counted_as in ("not_written", "unknown") else "refused"
