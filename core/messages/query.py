"""A request's query: each parameter is read and checked by itself, and whatever is wrong is told together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from core.errors import FieldError, InvalidFields
from core.messages.model import is_symbol

T = TypeVar("T")
Default = TypeVar("Default")

# In every answer and each cursor: milliseconds of the next 30,000 years, and as many digits as a double keeps.
MAX_WHOLE_DIGITS: Final = 15


class Query:
    """The parameters of one request. What was read of them is good once `check` has raised nothing.

    Parameters that nobody asks for are passed over, as caches and trackers add their own.
    """

    __slots__ = ("_errors", "_given")

    def __init__(self, given: Mapping[str, Sequence[bytes]]) -> None:
        """`given` has each parameter's values, percent-decoded."""
        self._given = given
        self._errors: list[FieldError] = []

    def __contains__(self, name: str) -> bool:
        """Whether it was given, if only as nothing."""
        return name in self._given

    def take(self, name: str, read: Callable[[str], T], default: Default) -> T | Default:
        """A parameter that may be left out. `read` raises ValueError, with what was expected; it is not to quote what came."""
        if name not in self._given:
            return default
        [value, *more] = self._given[name]
        if more:
            self.refuse(name, "given more than once")
            return default
        try:
            return read(value.decode("utf-8", "replace"))
        except ValueError as error:
            self.refuse(name, str(error))
            return default

    def need(self, name: str, read: Callable[[str], T]) -> T:
        """A parameter that has to be there. Nothing of use where it is not: `check` raises then."""
        if name not in self._given:
            self.refuse(name, "required")
        nothing: Any = None
        return cast(T, self.take(name, read, nothing))

    def refuse(self, name: str, message: str) -> None:
        """A parameter breaks a rule."""
        self._errors.append(FieldError(name, message))

    def take_range(self, read: Callable[[str], int]) -> tuple[int | None, int | None]:
        """`from` and `to`, which may each be left out, and be equal."""
        start, end = self.take("from", read, None), self.take("to", read, None)
        if start is not None and end is not None and start > end:
            self.refuse("from", "expected to be no more than to")
        return start, end

    def check(self) -> None:
        """Raises InvalidFields with every rule that is broken."""
        if self._errors:
            raise InvalidFields(self._errors)


def read_symbol(text: str) -> str:
    """A symbol. Raises ValueError."""
    if not is_symbol(text):
        raise ValueError("expected BASE/QUOTE")
    return text


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """What reads a whole number from `least` (0 or more) to `most`, in decimal digits. It raises ValueError."""

    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) <= MAX_WHOLE_DIGITS and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"expected a whole number from {least} to {most}")

    return read


def one_of(choices: Mapping[str, T]) -> Callable[[str], T]:
    """What reads one of these words. It raises ValueError."""

    def read(text: str) -> T:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return choices[text]

    return read
