"""The control topic: keys and values of its records, in and out (docs/contract.md#control-topic).

A key is `kind/name`. The reading is that of `core.messages.strict_json`; a member that is not known is passed over, so that a
later version can say more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from core.errors import PoisonedRecord
from core.messages.events import BAD_FIELD, NOT_AN_OBJECT
from core.messages.strict_json import MAX_INTEGER, read_json, shown
from core.messages.strict_json import REASONS as JSON_REASONS

BAD_KEY: Final = "bad_key"
UNKNOWN_KIND: Final = "unknown_kind"
REASONS: Final = (*JSON_REASONS, NOT_AN_OBJECT, BAD_FIELD, BAD_KEY, UNKNOWN_KIND)

TIMER: Final = "timer"
FIRED: Final = "fired"
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


def write_control(record: Timer | Fired | Held) -> bytes:
    """The value that says this."""
    return msgspec.json.encode(record._asdict())


def read_timer(value: bytes) -> Timer:
    """Raises PoisonedRecord."""
    members = _members(value)
    by = _text(members, "by")
    return Timer(_whole(members, "trigger_ms"), _whole(members, "timeout_ms"), _whole(members, "slack_ms"), by)


def read_fired(value: bytes) -> Fired:
    """Raises PoisonedRecord."""
    members = _members(value)
    return Fired(_whole(members, "offset"), _whole(members, "trigger_ms"))


def read_held(value: bytes) -> Held:
    """Raises PoisonedRecord."""
    members = _members(value)
    user_id = None if members.get("user_id") is None else _text(members, "user_id")
    orders = members.get("orders", [])
    if type(orders) is not list or not all(type(order_id) is str for order_id in orders):
        raise PoisonedRecord(BAD_FIELD, f"orders: expected a list of order ids, got {shown(orders)}")
    set_at, ended = (None if members.get(name) is None else _whole(members, name) for name in ("set_at", "ended"))
    return Held(user_id, _text(members, "by"), tuple(orders), set_at, ended)


def _text(members: dict[str, object], name: str) -> str:
    value = members.get(name)
    if type(value) is not str or not value:
        raise PoisonedRecord(BAD_FIELD, f"{name}: expected a string, got {shown(value)}")
    return value


def _members(value: bytes) -> dict[str, object]:
    record, _ = read_json(value)
    if type(record) is not dict:
        raise PoisonedRecord(NOT_AN_OBJECT, f"expected an object, got {shown(record)}")
    return record


def _whole(members: dict[str, object], name: str) -> int:
    value = members.get(name)
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise PoisonedRecord(BAD_FIELD, f"{name}: expected a whole number, got {shown(value)}")
    return value
