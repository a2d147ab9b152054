"""The control topic: keys and values of its records, in and out (docs/contract.md#control-topic).

A key is `kind/name`. The reading is that of `core.messages.strict_json`; a member that is not known is passed over, so that a
later version can say more.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from core.errors import PoisonedRecord
from core.messages.events import BAD_FIELD, NOT_AN_OBJECT
from core.messages.model import is_symbol
from core.messages.strict_json import MAX_INTEGER, read_json, shown
from core.messages.strict_json import REASONS as JSON_REASONS

BAD_KEY: Final = "bad_key"
UNKNOWN_KIND: Final = "unknown_kind"
REASONS: Final = (*JSON_REASONS, NOT_AN_OBJECT, BAD_FIELD, BAD_KEY, UNKNOWN_KIND)

TIMER: Final = "timer"
FIRED: Final = "fired"
BLOCK: Final = "block"
HALT: Final = "halt"
ANNOUNCEMENT: Final = "announcement"
DISCONNECT_USER: Final = "disconnect_user"
DISCONNECT_CLIENT: Final = "disconnect_client"
# The name of a halt of all symbols, and of the announcement, of which there is one.
ALL: Final = "*"
CONNECTION: Final = "connection"
ALIVE: Final = "alive"
LEAVING: Final = "leaving"


class Timer(NamedTuple):
    """An armed timer of a user. `trigger_ms`: Unix epoch, by the clock of the instance that took it; `timeout_ms`: so long
    after it was taken; `slack_ms`: so much later the taker may have been asked for, and others have to wait; `by`: a
    name of that process.
    """

    trigger_ms: int
    timeout_ms: int
    slack_ms: int
    by: str

    def covers(self, trigger_ms: int) -> bool:
        """Whether nothing more has to be written for this moment."""
        return 0 <= trigger_ms - self.trigger_ms <= self.slack_ms


class Fired(NamedTuple):
    """A user's timer whose time has come, and whose orders were cancelled: by the offset of its record, and its trigger."""

    offset: int
    trigger_ms: int


class TradingState(StrEnum):
    """What may be done, from all to least."""

    ONLINE = "online"
    CANCEL_ONLY = "cancel_only"
    HALTED = "halted"
    MAINTENANCE = "maintenance"

    @property
    def rank(self) -> int:
        """The higher of two holds."""
        return _RANKS[self]


_RANKS: Final = {state: rank for rank, state in enumerate(TradingState)}


class Restriction(NamedTuple):
    """A block of a user, or a halt. `since_ms`: Unix epoch, by the clock of the instance that wrote it; `reason`: told to
    whom it concerns.
    """

    since_ms: int
    reason: str | None


class Announcement(NamedTuple):
    """What the operators tell: that `state` holds from `from_ms` (None: now) until `until_ms` (None: it is withdrawn), Unix
    epoch, for `symbols` (None: all).
    """

    state: TradingState
    symbols: tuple[str, ...] | None
    message: str | None
    from_ms: int | None
    until_ms: int | None


class Held(NamedTuple):
    """A connection whose orders are cancelled with it. `user_id`: None of nobody's; `by`: a name of the process that it is at, or
    that of the connection which took it over; `orders`: those of its orders that do not name it themselves.

    Offsets of the topic: `set_at`, that of the record by which it was set last, None: this one; `ended`: up to where the topic was when
    its client was last seen, None while it is there.
    """

    user_id: str | None
    by: str
    orders: tuple[str, ...] = ()
    set_at: int | None = None
    ended: int | None = None


def control_key(kind: str, name: str) -> str:
    """The key of what is said of this kind about this name."""
    return f"{kind}/{name}"


def read_control_key(key: bytes | None) -> tuple[str, str]:
    """Kind and name. Raises PoisonedRecord (`BAD_KEY`)."""
    try:
        kind, slash, name = (key or b"").decode().partition("/")
    except UnicodeDecodeError as error:
        raise PoisonedRecord(BAD_KEY, str(error)) from error
    if not (kind and slash and name):
        raise PoisonedRecord(BAD_KEY, f"expected kind/name, got {shown(kind + slash + name)}")
    return kind, name


def write_control(record: Timer | Fired | Held | Restriction | Announcement) -> bytes:
    """The value that says this."""
    return msgspec.json.encode(record._asdict())


def write_disconnect(at_ms: int) -> bytes:
    """The value that says that connections are to be closed; `at_ms`: Unix epoch, for who reads the topic."""
    return msgspec.json.encode({"at_ms": at_ms})


def read_timer(value: bytes) -> Timer:
    """Raises PoisonedRecord."""
    members = _members(value)
    return Timer(
        _whole(members, "trigger_ms"),
        _whole(members, "timeout_ms"),
        _whole(members, "slack_ms") if "slack_ms" in members else 0,
        _name(members, "by"),
    )


def read_fired(value: bytes) -> Fired:
    """Raises PoisonedRecord."""
    members = _members(value)
    return Fired(_whole(members, "offset"), _whole(members, "trigger_ms"))


def halt_name(symbol: str | None) -> str:
    """The name in the key of a halt; None: of all symbols."""
    return ALL if symbol is None else symbol


def read_halt_name(name: str) -> str | None:
    """Of which symbol, None: of all. Raises PoisonedRecord."""
    if name == ALL:
        return None
    if not is_symbol(name):
        raise PoisonedRecord(BAD_KEY, f"expected a symbol or {ALL}, got {shown(name)}")
    return name


def read_restriction(value: bytes) -> Restriction:
    """Raises PoisonedRecord."""
    members = _members(value)
    return Restriction(_whole(members, "since_ms"), _text(members, "reason"))


def read_announcement(value: bytes) -> Announcement:
    """Raises PoisonedRecord."""
    members = _members(value)
    state, symbols = members.get("state"), members.get("symbols")
    if type(state) is not str or state not in _RANKS:
        raise PoisonedRecord(BAD_FIELD, f"state: expected one of {', '.join(TradingState)}, got {shown(state)}")
    if symbols is not None:
        if type(symbols) is not list or not all(is_symbol(symbol) for symbol in symbols):
            raise PoisonedRecord(BAD_FIELD, f"symbols: expected a list of symbols, got {shown(symbols)}")
        symbols = tuple(symbols)
    from_ms, until_ms = (
        None if members.get(name) is None else _whole(members, name) for name in ("from_ms", "until_ms")
    )
    return Announcement(TradingState(state), symbols, _text(members, "message"), from_ms, until_ms)


def read_held(value: bytes) -> Held:
    """Raises PoisonedRecord."""
    members = _members(value)
    orders = members.get("orders", [])
    if type(orders) is not list or not all(type(order_id) is str for order_id in orders):
        raise PoisonedRecord(BAD_FIELD, f"orders: expected a list of order ids, got {shown(orders)}")
    set_at, ended = (None if members.get(name) is None else _whole(members, name) for name in ("set_at", "ended"))
    return Held(_text(members, "user_id"), _name(members, "by"), tuple(orders), set_at, ended)


def _members(value: bytes) -> dict[str, object]:
    record = read_json(value)
    if type(record) is not dict:
        raise PoisonedRecord(NOT_AN_OBJECT, f"expected an object, got {shown(record)}")
    return record


def _whole(members: dict[str, object], name: str) -> int:
    value = members.get(name)
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise PoisonedRecord(BAD_FIELD, f"{name}: expected a whole number, got {shown(value)}")
    return value


def _name(members: dict[str, object], name: str) -> str:
    text = _text(members, name)
    if text is None:
        raise PoisonedRecord(BAD_FIELD, f"{name}: expected a string, got null")
    return text


def _text(members: dict[str, object], name: str) -> str | None:
    value = members.get(name)
    if value is not None and type(value) is not str:
        raise PoisonedRecord(BAD_FIELD, f"{name}: expected a string, got {shown(value)}")
    return value
