"""ccxt's classes for what the contract names (docs/contract.md#problems, #codes): one table of problems and codes.

What is raised has more than its class says: `kind`, the problem's name or the code; `certain`, that nothing was done and the same may be sent again; `retry_after`,
seconds or None; `order_status`, what became of an order that is closed, or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccxt.base.errors import (
    AccountSuspended,
    AuthenticationError,
    BadRequest,
    BadSymbol,
    BaseError,
    DuplicateOrderId,
    ExchangeError,
    ExchangeNotAvailable,
    InsufficientFunds,
    InvalidOrder,
    MarketClosed,
    NetworkError,
    NotSupported,
    OnMaintenance,
    OrderNotFound,
    PermissionDenied,
    RateLimitExceeded,
    RequestTimeout,
)

ERRORS: Mapping[int | str, type[BaseError]] = {
    -32700: BadRequest,
    -32600: BadRequest,
    -32601: NotSupported,
    -32602: BadRequest,
    -32603: ExchangeError,
    10000: AuthenticationError,
    10001: InvalidOrder,
    10002: OrderNotFound,
    10003: RateLimitExceeded,
    10004: ExchangeNotAvailable,
    10005: RequestTimeout,
    10006: PermissionDenied,
    "not-json": BadRequest,
    "bad-request": BadRequest,
    "unauthorised": AuthenticationError,
    "forbidden": PermissionDenied,
    "blocked": AccountSuspended,
    "halted": MarketClosed,
    "insufficient_scope": PermissionDenied,
    "not-found": BadSymbol,
    "method-not-allowed": NotSupported,
    "request-timeout": NetworkError,
    "conflict": DuplicateOrderId,
    "too-large": BadRequest,
    "target-too-long": BadRequest,
    "not-json-type": BadRequest,
    "invalid-fields": BadRequest,
    "upgrade-required": BadRequest,
    "too-many-requests": RateLimitExceeded,
    "headers-too-large": BadRequest,
    "internal": ExchangeError,
    "bad-gateway": ExchangeNotAvailable,
    "bus-unavailable": ExchangeNotAvailable,
    "unavailable": ExchangeNotAvailable,
    "outcome-unknown": RequestTimeout,
    "gateway-timeout": RequestTimeout,
}
CERTAIN: frozenset[int | str] = frozenset(
    {10003, 10004, "request-timeout", "too-many-requests", "bus-unavailable", "unavailable"}
)
FAULTS: frozenset[int | str] = frozenset({-32603, 500, "internal"})

# What a problem of a name that is not in the table means: a later gateway may have more, a proxy has none.
_BY_STATUS: Mapping[int, type[BaseError]] = {
    401: AuthenticationError,
    403: PermissionDenied,
    404: BadRequest,
    429: RateLimitExceeded,
    500: ExchangeError,
    503: ExchangeNotAvailable,
    504: RequestTimeout,
}
_URN = "urn:mexchange:problem:"
_ORDERS = "/api/order"


def of_problem(about: str, status: int, path: str, body: object, retry_after: str | None) -> BaseError:
    """The exception for an HTTP answer that is no success; `retry_after` is the header, `about` begins its text."""
    data = dict(body) if isinstance(body, Mapping) else {}
    name = str(data.get("type", "")).removeprefix(_URN)
    kind = ERRORS.get(name) or _BY_STATUS.get(status, ExchangeNotAvailable if status >= 500 else BadRequest)
    if name == "not-found" and path.startswith(_ORDERS):
        kind = OrderNotFound
    elif name == "not-found" and path == "/api/balance":
        kind = NotSupported
    elif name == "conflict" and "order_status" in data:
        kind = OrderNotFound
    elif name == "invalid-fields" and path.startswith(_ORDERS):
        # Without rules that were broken it is the account service that refused, which is about funds.
        kind = _broken_rule(data) if "errors" in data else InsufficientFunds
    elif name == "halted" and data.get("state") == "maintenance":
        kind = OnMaintenance
    if retry_after is not None and retry_after.isdecimal():
        data["retry_after"] = int(retry_after)
    said = str(data.get("detail") or data.get("error") or f"HTTP {status}")
    return _made(kind, f"{about} {said}", name or status, data, data.get("order_status"))


def of_answer(about: str, error: Mapping[str, Any]) -> BaseError:
    """The exception for an `error` member of an answer on the WebSocket."""
    code = error["code"]
    data = error.get("data") or {}
    kind = ERRORS.get(code, ExchangeError)
    if code == -32602 and "errors" in data:
        kind = _broken_rule(data)
    elif data.get("problem") in ("blocked", "halted"):
        kind = OnMaintenance if data.get("state") == "maintenance" else ERRORS[data["problem"]]
    return _made(kind, f"{about} {error.get('message', code)}", code, data, data.get("status"))


def is_certain(error: BaseException) -> bool:
    return getattr(error, "certain", False)


def is_fault(error: BaseException) -> bool:
    """A fault of the gateway's own: nobody said what was done before it."""
    return getattr(error, "kind", None) in FAULTS


def _broken_rule(data: Mapping[str, Any]) -> type[BaseError]:
    return BadSymbol if [one.get("field") for one in data["errors"]] == ["symbol"] else InvalidOrder


def _made(
    kind: type[BaseError], text: str, name: int | str, data: Mapping[str, Any], order_status: object
) -> BaseError:
    error: Any = kind(text)
    error.kind = name
    error.certain = name in CERTAIN
    error.retry_after = data.get("retry_after")
    error.order_status = order_status
    made: BaseError = error
    return made
