"""Past its deadline a command is wanted by nobody any more, and is not produced (docs/contract.md#deadlines).

What the bus holds for longer the engine sees by the deadline in the command. Of a repeat the deadline counts only if it is
to be produced: else it is told what became of the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from core.errors import FieldError, InvalidFields

SOONEST_MS: Final = 500
LATEST_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Valid:
    """The answer to what was only to be checked."""

    def body(self) -> dict[str, object]:
        """What a client is told."""
        return {"valid": True}


VALID: Final = Valid()


def passed() -> InvalidFields:
    """The refusal of what is too late."""
    return InvalidFields([FieldError("deadline", "passed")])


def check_deadline(deadline_ms: int | None, now_ms: int) -> None:
    """Whether what comes now may have this deadline, both in milliseconds since the Unix epoch. Raises InvalidFields."""
    if deadline_ms is None or SOONEST_MS <= deadline_ms - now_ms <= LATEST_MS:
        return
    if deadline_ms <= now_ms:
        raise passed()
    expected = f"expected {SOONEST_MS} ms to {LATEST_MS // 1000} s ahead of now, {now_ms}"
    raise InvalidFields([FieldError("deadline_ms", expected)])


def is_past(deadline_ms: int | None, now_ms: int) -> bool:
    """Whether it is too late by now."""
    return deadline_ms is not None and deadline_ms <= now_ms
