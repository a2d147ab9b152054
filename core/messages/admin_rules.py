"""What an operator asks for, checked field by field (docs/contract.md#operators): a body in, what is to be done out.

What a value may be says whoever does it (`core.control`); here is which fields there are, and of what type.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from core.errors import FieldError, InvalidFields
from core.messages.order_rules import check_object, check_unknown

T = TypeVar("T")

_TEXT: Final = (str, "text")
_FLAG: Final = (bool, "true or false")
_WHOLE: Final = (int, "a whole number")
_LIST: Final = (list, "a list")


class Disconnect(NamedTuple):
    """Whose connections are to be closed, or which one: the other is None."""

    user_id: str | None
    client: str | None


class Block(NamedTuple):
    """A user whose orders are to be refused; `cancel_open`: and the open ones cancelled."""

    user_id: str
    reason: str | None
    cancel_open: bool


class Halt(NamedTuple):
    """A symbol that is to be halted, or None: all."""

    symbol: str | None
    reason: str | None


class Announce(NamedTuple):
    """What is to be announced; see `core.control.announcements`."""

    state: str
    symbols: list[str] | None
    message: str | None
    from_ms: int | None
    until_ms: int | None


class _Members:
    """A body's members; a null counts as left out. `check` raises InvalidFields with every rule that is broken."""

    def __init__(self, body: object) -> None:
        self._members = check_object(body)
        self._errors: list[FieldError] = []

    def take(self, name: str, kind: tuple[type[T], str]) -> T | None:
        value = self._members.get(name)
        if value is None or type(value) is kind[0]:
            return value
        self.refuse(name, f"expected {kind[1]}")
        return None

    def need(self, name: str, kind: tuple[type[T], str]) -> T | None:
        if self._members.get(name) is None:
            self.refuse(name, "required")
        return self.take(name, kind)

    def is_given(self, name: str) -> bool:
        """Whether it is there, if only as null."""
        return name in self._members

    def refuse(self, name: str, message: str) -> None:
        self._errors.append(FieldError(name, message))

    def check(self, *known: str) -> None:
        check_unknown(self._members, set(known), self._errors)
        if self._errors:
            raise InvalidFields(self._errors)


def check_disconnect(body: object) -> Disconnect:
    """Raises InvalidFields with every rule that is broken, as all of these."""
    members = _Members(body)
    wanted = Disconnect(members.take("user_id", _TEXT), members.take("client", _TEXT))
    if members.is_given("user_id") == members.is_given("client"):
        members.refuse("user_id", "expected either user_id or client")
    elif not (wanted.user_id or wanted.client):
        members.refuse("user_id" if members.is_given("user_id") else "client", "required")
    members.check("user_id", "client")
    return wanted


def check_block(body: object) -> Block:
    """Whom to block, why, and what becomes of open orders."""
    members = _Members(body)
    user_id, reason = members.need("user_id", _TEXT), members.take("reason", _TEXT)
    cancel_open = members.take("cancel_open", _FLAG)
    members.check("user_id", "reason", "cancel_open")
    assert user_id is not None
    return Block(user_id, reason, bool(cancel_open))


def check_unblock(body: object) -> str:
    """Whom to unblock."""
    members = _Members(body)
    user_id = members.need("user_id", _TEXT)
    members.check("user_id")
    assert user_id is not None
    return user_id


def check_halt(body: object) -> Halt:
    """What to halt, and why. All of it only where that is said: a body without a symbol is a slip."""
    members = _Members(body)
    halt = Halt(_symbol(members), members.take("reason", _TEXT))
    members.check("symbol", "reason")
    return halt


def check_resume(body: object) -> str | None:
    """What to resume; None: what was halted as all."""
    members = _Members(body)
    symbol = _symbol(members)
    members.check("symbol")
    return symbol


def _symbol(members: _Members) -> str | None:
    if not members.is_given("symbol"):
        members.refuse("symbol", "required; null for all")
    return members.take("symbol", _TEXT)


def check_announce(body: object) -> Announce:
    """What to announce."""
    members = _Members(body)
    state, symbols, message = (
        members.need("state", _TEXT),
        members.take("symbols", _LIST),
        members.take("message", _TEXT),
    )
    from_ms, until_ms = members.take("from_ms", _WHOLE), members.take("until_ms", _WHOLE)
    if symbols is not None and not all(isinstance(symbol, str) for symbol in symbols):
        members.refuse("symbols", "expected a list of texts")
    members.check("state", "symbols", "message", "from_ms", "until_ms")
    assert state is not None
    return Announce(state, symbols, message, from_ms, until_ms)


def check_nothing(body: object) -> None:
    """A body that has nothing to say: `{}`."""
    _Members(body).check()
