"""One line for each order command, accepted or refused, and for each act of an operator: who, what, and why not.

A line is a message and fields, which `process/logs.py` writes in the form of the log (docs/operators.md#audit). Lines of one turn
of the loop go out together, which is what makes them cheap. Lines of orders are bounded, so that no flood fills a disk: what is left
out is counted, and told once it is over. Whoever floods with refused orders leaves the lines of others alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from core.errors import InvalidFields, LimitExceeded, RequestError
from core.messages.batch_rules import Batch
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.orders.batch import Done
from core.orders.order import Order

# How long what is left out is counted before it is told.
WINDOW_SECONDS: Final = 1.0
# Of a window's lines so many may be of refusals of one user.
_SHARE_OF_A_USER: Final = 10
# What is told by name of what somebody has made up, or of what was left out.
_MOST_NAMED: Final = 10
_MOST_CHARACTERS: Final = 200
# Lines that wait for a log that takes none: beyond these they are left out.
_MOST_WAITING: Final = 10_000

_NAMES: Final = ("order_id", "client_order_id", "symbol")
_MOST_OF_A_NAME: Final = 128
_IDS_OF_A_LINE: Final = 50
_METHODS: Final = ("place", "cancel", "amend")

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"


class Line(NamedTuple):
    """One line of the audit: its time in seconds since the Unix epoch, what it is about, and its fields, none of them None."""

    time: float
    message: str
    fields: Mapping[str, object]


class Asker(NamedTuple):
    """Who asks: the request, or of a connection its handshake and number in the log; `user_id` is None for nobody."""

    request_id: str
    user_id: str | None
    client: int | None = None


# Writes lines; gives back how many it could take.
Write = Callable[[list[Line]], int]
Later = Callable[[float, Callable[[], None]], object]


def write_nothing(lines: list[Line]) -> int:
    """Where there is no log."""
    return len(lines)


class Audit:
    """Where order commands, and what operators do, are told of."""

    def __init__(
        self,
        write: Write = write_nothing,
        later: Later | None = None,
        *,
        orders: str = "none",
        lines_per_second: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`orders`: which of their commands have a line, `all`, `refused` or `none`. `lines_per_second` of accepted ones, and so
        many of refused ones; 0: no bound. `clock`: seconds since the Unix epoch. `later` is the loop's `call_later`; where there is
        none, each line is written at once.
        """
        self._write = write
        self._later = later
        self.tells_accepted = orders == "all"
        self.tells_refused = orders != "none"
        self._lines_per_second = lines_per_second
        self._clock = clock
        self._waiting: list[Line] = []
        self._told: Counter[str] = Counter()
        self._refused: Counter[str | None] = Counter()
        self._left_out: Counter[str] = Counter()
        self._left_out_of: Counter[str] = Counter()
        self._window_end = -1.0

    def act(self, action: str, **fields: object) -> None:
        """Something that an operator, or the gateway itself, has done: it is always told. Fields that are None are left out. `outcome`: what came of it."""
        outcome = fields.get("outcome")
        self._add(action if outcome is None else f"{action} {outcome}", {"action": action, **_given(fields)})

    def accepted(self, command: str, asker: Asker, *, outcome: str = ACCEPTED, **fields: object) -> None:
        """A command is with the bus (`outcome` says so in another word where nothing was produced)."""
        if self.tells_accepted and self._admits(ACCEPTED, command, outcome, asker.user_id):
            self._add(f"{command} {outcome}", _fields(command, outcome, asker, fields))

    def refused(self, command: str, asker: Asker, error: RequestError, **fields: object) -> None:
        """A command was refused, was certainly not written, or nobody knows whether it was."""
        if not self.tells_refused:
            return
        if order_id := getattr(error, "order_id", None):
            fields["order_id"] = order_id
        self.refused_for(command, asker, reason_of(error), error.message, outcome=outcome_of(error),
                         field=field_of(error), **fields)  # fmt: skip

    def refused_for(
        self, command: str, asker: Asker, reason: str, detail: str, *, outcome: str = REFUSED, **fields: object
    ) -> None:
        """As `refused`, for a reason that is a name of the contract's problems or limits."""
        if self.tells_refused and self._admits(REFUSED, command, reason, asker.user_id):
            told = _fields(command, outcome, asker, fields)
            self._add(f"{command} {outcome}", {**told, "reason": reason, "detail": detail[:_MOST_CHARACTERS]})

    def told(
        self, command: str, asker: Asker, outcome: Mapping[str, object] | RequestError, names: Mapping[str, str]
    ) -> None:
        """What became of a command: the body of its answer, or what it is refused with. `names`: see `names_in`."""
        if isinstance(outcome, RequestError):
            self.refused(command, asker, outcome, **names)
        elif self.tells_accepted:
            word = "valid" if "valid" in outcome else "duplicate" if "duplicate" in outcome else ACCEPTED
            if "order_ids" in outcome:
                self._cancelled(command, asker, outcome["order_ids"], names)
            elif "order_id" in outcome:
                # As `accepted`, without its copies: it is each order's.
                if self._admits(ACCEPTED, command, word, asker.user_id):
                    self._add(f"{command} {word}", _whole(command, word, asker, names, outcome["order_id"]))
            else:
                self.accepted(command, asker, outcome=word, **names, trigger_time_ms=outcome.get("trigger_time_ms"))

    def batch(self, asker: Asker, batch: Batch, outcomes: Sequence[Done | RequestError]) -> None:
        """What became of each request of a batch."""
        if not self.tells_refused:
            return
        for request, outcome in zip(batch.given, outcomes, strict=True):
            method = request.get("method") if isinstance(request, dict) else None
            command = method if method in _METHODS else "batch"
            names = names_in(request.get("params")) if isinstance(request, dict) else {}
            if isinstance(outcome, str):
                self.told(command, asker, {"order_id": outcome}, names)
            else:
                self.told(command, asker, outcome if isinstance(outcome, RequestError) else outcome.body(), names)

    def cancelled_on_disconnect(self, asker: Asker, order: Order, error: Exception | None) -> None:
        """What became of the cancel of an order whose connection has ended."""
        names = {"order_id": order.order_id, "symbol": order.symbol}
        if isinstance(error, RequestError):
            self.refused("cancel_on_disconnect", asker, error, **names)
        elif error is None:
            self.accepted("cancel_on_disconnect", asker, **names)

    def _cancelled(self, command: str, asker: Asker, order_ids: Any, names: Mapping[str, str]) -> None:
        for first in range(0, max(1, len(order_ids)), _IDS_OF_A_LINE):
            self.accepted(command, asker, **names, order_ids=order_ids[first : first + _IDS_OF_A_LINE])

    def flush(self) -> None:
        """Write what waits; what the log does not take is tried again a moment later."""
        lines, self._waiting = self._waiting, []
        rest = lines[self._write(lines) :]
        if not rest or self._later is None:
            return
        for line in rest[_MOST_WAITING:]:
            self._count_left_out(line.message, "the log takes no more", None)
        self._waiting = rest[:_MOST_WAITING]
        self._later(0.1, self.flush)

    def close(self) -> None:
        """Write what waits, and what was left out: the end."""
        self._end_window()
        self.flush()

    def _add(self, message: str, fields: Mapping[str, object]) -> None:
        is_first = not self._waiting
        self._waiting.append(Line(self._clock(), message, fields))
        if self._later is None:
            self.flush()
        elif is_first:
            self._later(0, self.flush)

    def _admits(self, kind: str, command: str, reason: str, user_id: str | None) -> bool:
        """Whether there is room for one more line of this kind in this window."""
        most = self._lines_per_second
        if not most:
            return True
        now = self._clock()
        if now >= self._window_end or now < self._window_end - WINDOW_SECONDS:
            self._end_window()
            self._window_end = now + WINDOW_SECONDS
        if kind == REFUSED:
            self._refused[user_id] += 1
            if user_id is not None and self._refused[user_id] > max(1, most // _SHARE_OF_A_USER):
                self._count_left_out(command, reason, user_id)
                return False
        if self._told[kind] >= most:
            self._count_left_out(command, reason, user_id)
            return False
        self._told[kind] += 1
        return True

    def _count_left_out(self, command: str, reason: str, user_id: str | None) -> None:
        if not self._left_out and self._later is not None:
            self._later(WINDOW_SECONDS, self._end_window)
        self._left_out[f"{command} {reason}"] += 1
        if user_id is not None:
            self._left_out_of[user_id] += 1

    def _end_window(self) -> None:
        """Tell what was left out, and begin to count anew."""
        left_out, users = self._left_out, self._left_out_of
        self._told, self._refused, self._left_out, self._left_out_of = Counter(), Counter(), Counter(), Counter()
        if left_out:
            fields: dict[str, object] = {"lines": left_out.total(), "of": dict(left_out.most_common(_MOST_NAMED))}
            if users:
                fields["user_ids"] = dict(users.most_common(_MOST_NAMED))
            self._add("lines left out", fields)


def names_in(body: object) -> dict[str, str]:
    """Which order a body, or a message's params, is about, as its client says: only what is a short text."""
    if not isinstance(body, dict):
        return {}
    names: dict[str, str] = {}
    for name in _NAMES:
        value = body.get(name)
        if isinstance(value, str):
            names[name] = value[:_MOST_OF_A_NAME]
    return names


def names_of(command: PlaceOrder | CancelOrder | AmendOrder) -> dict[str, str]:
    """The same of one that was checked."""
    named = command.order if isinstance(command, AmendOrder) else command
    order_id = named.order_id if isinstance(named, CancelOrder) else None
    names: dict[str, str] = {} if order_id is None else {"order_id": order_id}
    if named.client_order_id is not None:
        names["client_order_id"] = named.client_order_id
    if named.symbol is not None:
        names["symbol"] = named.symbol
    return names


def reason_of(error: RequestError) -> str:
    """The name of a refusal's problem; of a limit on orders, that limit's."""
    return error.counted_as if isinstance(error, LimitExceeded) else error.problem


def outcome_of(error: RequestError) -> str:
    """`refused`; or `not_written`, or `unknown`, of what was to go to the bus."""
    return error.counted_as if error.counted_as in ("not_written", "unknown") else REFUSED


def field_of(error: RequestError) -> str | None:
    """The fields that break a rule, by name; None where that is not why."""
    if not isinstance(error, InvalidFields):
        return None
    return ",".join(one.field[:_MOST_CHARACTERS] for one in error.errors[:_MOST_NAMED])


def _fields(command: str, outcome: str, asker: Asker, fields: Mapping[str, object]) -> dict[str, object]:
    return _whole(command, outcome, asker, _given(fields))


def _whole(
    command: str, outcome: str, asker: Asker, fields: Mapping[str, object], order_id: object = None
) -> dict[str, object]:
    told: dict[str, object] = {"command": command, "outcome": outcome}
    if asker.user_id is not None:
        told["user_id"] = asker.user_id
    told.update(fields)
    if order_id is not None:
        told["order_id"] = order_id
    told["request_id"] = asker.request_id
    if asker.client is not None:
        told["client"] = asker.client
    return told


def _given(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
