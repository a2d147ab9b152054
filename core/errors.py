"""Every way in which something can be refused: one public table.

Exceptions carry fields and build their text from them. What a client did wrong (`NotJson`, `InvalidFields`, `RpcError`),
what the engine sent wrong (`PoisonedRecord`) and what the bus could not do (`BusUnavailable`, `OutcomeUnknown`) are
different types, because different people have to act on them. What a request is refused with says itself how: the same
row is read where REST answers and where WebSocket does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import ceil
from typing import NamedTuple


class GatewayError(Exception):
    """Root of everything the gateway raises on purpose."""


class SettingsError(GatewayError):
    """A setting that stops the start. `source` is the file or the variable, `key` the dotted setting."""

    def __init__(self, source: str, key: str, expected: str) -> None:
        self.source = source
        self.key = key
        self.expected = expected
        super().__init__(f"{source}: {key}: {expected}" if key else f"{source}: {expected}")


class PoisonedRecord(GatewayError):
    """A Kafka record that is not one of the contract's messages.

    `reason` is a short slug of a closed set (it becomes a metric label), `detail` is for the log, and `symbol` is
    set where the record is an order book event whose book can no longer be trusted because of it.
    """

    def __init__(self, reason: str, detail: str, symbol: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.symbol = symbol
        super().__init__(f"{reason}: {detail}")


class RpcCode(IntEnum):
    """Codes of WebSocket error answers; -32xxx as in JSON-RPC 2.0 section 5.1."""

    NOT_JSON = -32700
    NOT_A_REQUEST = -32600
    NO_SUCH_METHOD = -32601
    BAD_PARAMS = -32602
    INTERNAL = -32603
    NOT_AUTHORISED = 10000
    ORDER_REFUSED = 10001
    CANCEL_FAILED = 10002
    TOO_MANY_REQUESTS = 10003
    BUS_UNAVAILABLE = 10004
    OUTCOME_UNKNOWN = 10005
    INSUFFICIENT_SCOPE = 10006


class RequestError(GatewayError):
    """What a request is refused with: a problem over REST, an error over WebSocket. One row an error.

    `problem` is the slug of the one (see `PROBLEMS`), `code` is of the other (see `CODES`). `counted_as` is one of
    `core.telemetry.metrics.ORDER_OUTCOMES`; `retry_after_seconds` is when to try again, if that is not up to the client.
    """

    problem: str
    code: RpcCode
    counted_as = "refused"
    retry_after_seconds: int | None = None

    @property
    def detail(self) -> str:
        """The problem's sentence."""
        return str(self)

    @property
    def members(self) -> dict[str, object]:
        """What the problem has besides."""
        return {}

    @property
    def message(self) -> str:
        """The error's sentence."""
        return self.detail

    @property
    def data(self) -> dict[str, object] | None:
        """What the error has besides."""
        return None


_PROBLEM_OF_CODE: Mapping[RpcCode, str] = {
    RpcCode.NOT_JSON: "not-json",
    RpcCode.NO_SUCH_METHOD: "not-found",
    RpcCode.BAD_PARAMS: "invalid-fields",
    RpcCode.INTERNAL: "internal",
    RpcCode.NOT_AUTHORISED: "unauthorised",
    RpcCode.TOO_MANY_REQUESTS: "too-many-requests",
}


class RpcError(RequestError):
    """A WebSocket request that is answered with an error of no class of its own."""

    def __init__(self, code: RpcCode, message: str, data: dict[str, object] | None = None) -> None:
        self.code = code
        self.problem = _PROBLEM_OF_CODE.get(code, "bad-request")
        self._message = message
        self._data = data
        super().__init__(f"{int(code)} {message}")

    @property
    def detail(self) -> str:
        """The message as it was given."""
        return self._message

    @property
    def data(self) -> dict[str, object] | None:
        """As it was given."""
        return self._data


class TooManyRequests(RpcError):
    """A request over a limit; `what` there are too many of, and in how many seconds it may be sent again."""

    def __init__(self, what: str, retry_after_seconds: float) -> None:
        wait = max(1, ceil(retry_after_seconds))
        super().__init__(RpcCode.TOO_MANY_REQUESTS, f"too many {what}; wait", {"retry_after": wait})


class NotJson(RequestError):
    """A client's body or message that is not RFC 8259 JSON (duplicate keys, NaN and bad UTF-8 included)."""

    problem, code = "not-json", RpcCode.NOT_JSON

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    @property
    def detail(self) -> str:
        """Where it is not."""
        return f"the body is not JSON: {self.reason}"

    @property
    def message(self) -> str:
        """Where it is not."""
        return f"not JSON: {self.reason}"


class FieldError(NamedTuple):
    """One rule that one field of a request breaks."""

    field: str
    message: str


class InvalidFields(RequestError):
    """JSON that breaks the rules of a request; carries every broken rule, not only the first."""

    problem, code = "invalid-fields", RpcCode.BAD_PARAMS

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in self.errors))

    @property
    def members(self) -> dict[str, object]:
        """Every broken rule."""
        return {"errors": [{"field": error.field, "message": error.message} for error in self.errors]}

    @property
    def data(self) -> dict[str, object]:
        """Every broken rule."""
        return self.members


class LimitExceeded(InvalidFields):
    """An order or amend beyond what one may be here; it is counted by the first limit that it is beyond."""

    def __init__(self, limit: str, errors: Sequence[FieldError]) -> None:
        self.counted_as = limit
        super().__init__(errors)


class BalancesUnavailable(RequestError):
    """What a user has cannot be told now."""

    problem, code, retry_after_seconds = "unavailable", RpcCode.BUS_UNAVAILABLE, 1

    def __init__(self) -> None:
        super().__init__("balances cannot be read at the moment")


class NothingSent(RequestError):
    """Certainly nothing was published, and the same request may be sent again."""

    code, counted_as, retry_after_seconds = RpcCode.BUS_UNAVAILABLE, "not_written", 1

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    @property
    def detail(self) -> str:
        """That it was not, and why."""
        return f"not sent: {self.reason}"


class BusUnavailable(NothingSent):
    """The command was certainly not written to Kafka."""

    problem = "bus-unavailable"


class ControlUnavailable(NothingSent):
    """There is no control topic that can be used, so nothing was written to it."""

    problem = "unavailable"


class ControlUnknown(RequestError):
    """What was to be set may or may not have been written to the control topic."""

    problem, code, counted_as = "outcome-unknown", RpcCode.OUTCOME_UNKNOWN, "unknown"

    def __init__(self, reason: str) -> None:
        super().__init__(f"it is not known whether it was set: {reason}")


class AccountsUnavailable(NothingSent):
    """The accounts service certainly reserved nothing, so nothing was published either."""

    problem = "unavailable"


class StillStarting(NothingSent):
    """The order topic has not been read back yet, so nothing was done."""

    problem = "unavailable"

    def __init__(self) -> None:
        super().__init__("the gateway is still reading back the order topic")


class StillBehind(NothingSent):
    """What others have accepted could not be read in time, so nothing was done."""

    problem = "unavailable"


class OutcomeUnknown(RequestError):
    """The command may or may not have been written to Kafka."""

    problem, code, counted_as = "outcome-unknown", RpcCode.OUTCOME_UNKNOWN, "unknown"

    def __init__(self, order_id: str, reason: str) -> None:
        self.order_id = order_id
        self.reason = reason
        super().__init__(f"{order_id}: {reason}")

    @property
    def detail(self) -> str:
        """Why it is not known."""
        return f"it is not known whether the command was written: {self.reason}"

    @property
    def members(self) -> dict[str, object]:
        """Of which order."""
        return {"order_id": self.order_id}

    @property
    def message(self) -> str:
        """Why it is not known."""
        return f"it is not known whether it was written: {self.reason}"

    @property
    def data(self) -> dict[str, object]:
        """Of which order."""
        return self.members


class Unauthorised(RequestError):
    """No token, or one that is not accepted. The reason never quotes the token."""

    problem, code = "unauthorised", RpcCode.NOT_AUTHORISED

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class TokenNeeded(Unauthorised):
    """There is no token where one is needed."""


class UnknownKey(Unauthorised):
    """A token that names a key which is not known, or not yet: fetching the keys once more may help."""


class InsufficientScope(RequestError):
    """A good token that does not allow what was asked for; `needed` are the words of which one is needed."""

    problem, code = "insufficient_scope", RpcCode.INSUFFICIENT_SCOPE

    def __init__(self, needed: str) -> None:
        self.needed = needed
        super().__init__(f"the token's scope has no {' or '.join(needed.split())}")


class NoSuchOrder(RequestError):
    """There is no such order of the caller's: unknown, or somebody else's, which is the same to those who ask."""

    problem, code = "not-found", RpcCode.CANCEL_FAILED

    def __init__(self) -> None:
        super().__init__("there is no such order")


class OrderClosed(RequestError):
    """The order can no longer be cancelled or amended; `status` is how it ended."""

    problem, code = "conflict", RpcCode.CANCEL_FAILED

    def __init__(self, order_id: str, status: str) -> None:
        self.order_id = order_id
        self.status = status
        super().__init__(f"order {order_id} is {status}")

    @property
    def members(self) -> dict[str, object]:
        """Which order, and how it ended."""
        return {"order_id": self.order_id, "order_status": self.status}

    @property
    def message(self) -> str:
        """How it ended."""
        return f"the order is {self.status}"

    @property
    def data(self) -> dict[str, object]:
        """How it ended."""
        return {"status": self.status}


class NotAllowed(RequestError):
    """An order or amend that the operators have closed the way of; nothing was done."""

    code = RpcCode.ORDER_REFUSED

    @property
    def data(self) -> dict[str, object]:
        """Which of the problems it is, for they share a code."""
        return {"problem": self.problem, **self.members}


class Blocked(NotAllowed):
    """The user may not order."""

    problem, counted_as = "blocked", "blocked"

    def __init__(self, reason: str | None) -> None:
        self.reason = reason
        super().__init__("orders of this user are refused" + (f": {reason}" if reason else ""))


class Halted(NotAllowed):
    """No orders are taken of the symbol; `state` is what it is in."""

    problem, counted_as = "halted", "halted"

    def __init__(self, symbol: str, state: str, reason: str | None) -> None:
        self.symbol = symbol
        self.state = state
        self.reason = reason
        super().__init__(f"{symbol} takes no orders now ({state})" + (f": {reason}" if reason else ""))

    @property
    def members(self) -> dict[str, object]:
        """The symbol and its state."""
        return {"symbol": self.symbol, "state": self.state}


class NoAmends(RequestError):
    """Orders are not amended here."""

    problem, code = "not-found", RpcCode.NO_SUCH_METHOD


class GatewayFault(RequestError):
    """A fault of the gateway's own in one of several requests; it is logged where it is caught."""

    problem, code = "internal", RpcCode.INTERNAL

    def __init__(self) -> None:
        super().__init__("a fault of the gateway's own; it was logged")


class OrderConflict(RequestError):
    """A client_order_id that the caller has used for an order with other terms."""

    problem, code = "conflict", RpcCode.ORDER_REFUSED

    def __init__(self, order_id: str, client_order_id: str) -> None:
        self.order_id = order_id
        self.client_order_id = client_order_id
        super().__init__(f"client_order_id {client_order_id} was used for an order with other terms")

    @property
    def members(self) -> dict[str, object]:
        """By which name."""
        return {"client_order_id": self.client_order_id}


class FundsRefused(RequestError):
    """The accounts service refused to reserve an order's funds; `error` is its own word."""

    problem, code = "invalid-fields", RpcCode.ORDER_REFUSED

    def __init__(self, error: str) -> None:
        self.error = error
        super().__init__(error)


class CloseCode(IntEnum):
    """WebSocket close codes the gateway uses (RFC 6455 section 7.4; 4xxx are ours)."""

    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    BAD_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    SLOW_CONSUMER = 4008
    PING_TIMEOUT = 4009


@dataclass(frozen=True, slots=True)
class CodeMeaning:
    """One row of the public table: what a code means, and whether the same message may be sent again."""

    code: int
    name: str
    meaning: str
    retry: str


CODES: tuple[CodeMeaning, ...] = (
    CodeMeaning(-32700, "not_json", "the message is not JSON, or a binary frame", "no"),
    CodeMeaning(-32600, "not_a_request", "JSON, but not a request object with id, method and params", "no"),
    CodeMeaning(-32601, "no_such_method", "the method is unknown", "no"),
    CodeMeaning(-32602, "bad_params", "the params break a rule; data.errors names the fields of an order", "no"),
    CodeMeaning(-32603, "internal", "a fault of the gateway's own; it is logged", "later"),
    CodeMeaning(10000, "not_authorised", "no token, or one that is not accepted", "after authenticating"),
    CodeMeaning(10001, "order_refused", "the order was understood and refused", "no"),
    CodeMeaning(10002, "cancel_failed", "there is nothing of the caller's to cancel or amend", "no"),
    CodeMeaning(10003, "too_many_requests", "a limit was reached", "after data.retry_after seconds"),
    CodeMeaning(10004, "bus_unavailable", "the command was certainly not sent", "yes"),
    CodeMeaning(10005, "outcome_unknown", "the command may have been sent", "with the same client_order_id"),
    CodeMeaning(10006, "insufficient_scope", "the token's scope does not allow it", "with another token"),
    CodeMeaning(1001, "going_away", "the instance is draining (reason: reconnect)", "at once"),
    CodeMeaning(1002, "protocol_error", "a frame that breaks RFC 6455", "no"),
    CodeMeaning(1007, "bad_data", "text that is not UTF-8, or a compressed message that cannot be read", "no"),
    CodeMeaning(1008, "policy", "the client floods, or an operator closed the connection", "later"),
    CodeMeaning(1009, "too_big", "a message over websocket.max_message_bytes", "no"),
    CodeMeaning(1011, "internal_error", "a fault of the gateway's own; it is logged", "at once"),
    CodeMeaning(
        4008,
        "slow_consumer",
        "lossless data overflowed the bound, fell off the history, or was not read for 30 s",
        "at once, with since",
    ),
    CodeMeaning(4009, "ping_timeout", "no ping was answered, and nothing else came or was read", "at once, with since"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """An RFC 9457 problem type: its slug, its title, and the HTTP status it goes with."""

    slug: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """The problem's `type` member, a URN (RFC 9457 section 3.1.1)."""
        return f"urn:mexchange:problem:{self.slug}"


PROBLEMS: dict[str, Problem] = {
    problem.slug: problem
    for problem in (
        Problem("not-json", 400, "The body is not JSON"),
        Problem("bad-request", 400, "The request is not well formed"),
        Problem("unauthorised", 401, "A valid token is needed"),
        Problem("forbidden", 403, "Not allowed"),
        Problem("blocked", 403, "The user may not order"),
        Problem("halted", 403, "No orders are taken of the symbol"),
        Problem("insufficient_scope", 403, "The token's scope does not allow it"),
        Problem("not-found", 404, "There is nothing here"),
        Problem("method-not-allowed", 405, "The resource does not take this method"),
        Problem("request-timeout", 408, "The body did not come in time"),
        Problem("conflict", 409, "The state of the resource forbids it"),
        Problem("too-large", 413, "The body is too large"),
        Problem("target-too-long", 414, "The request's target is too long"),
        Problem("not-json-type", 415, "The content type is not JSON"),
        Problem("invalid-fields", 422, "The request breaks a rule"),
        Problem("upgrade-required", 426, "The resource is a WebSocket"),
        Problem("too-many-requests", 429, "A limit was reached"),
        Problem("headers-too-large", 431, "The request's head is too large"),
        Problem("internal", 500, "A fault of the gateway's own"),
        Problem("bus-unavailable", 503, "The bus is unavailable; nothing was sent"),
        Problem("unavailable", 503, "The gateway takes no new work now"),
        Problem("outcome-unknown", 504, "The command may or may not have been sent"),
        Problem("bad-gateway", 502, "The account service gave no usable answer"),
        Problem("gateway-timeout", 504, "The account service did not answer in time"),
    )
}

PROBLEM_OF_STATUS: dict[int, Problem] = {}
for _problem in PROBLEMS.values():
    PROBLEM_OF_STATUS.setdefault(_problem.status, _problem)
