from __future__ import annotations

import pytest

from core.errors import (
    CODES,
    PROBLEM_OF_STATUS,
    PROBLEMS,
    AccountsUnavailable,
    BalancesUnavailable,
    Blocked,
    BusUnavailable,
    CloseCode,
    ControlUnavailable,
    ControlUnknown,
    FieldError,
    FundsRefused,
    GatewayFault,
    Halted,
    InsufficientScope,
    InvalidFields,
    LimitExceeded,
    NoAmends,
    NoSuchOrder,
    NotAllowed,
    NothingSent,
    NotJson,
    OrderClosed,
    OrderConflict,
    OutcomeUnknown,
    RequestError,
    RpcCode,
    RpcError,
    StillBehind,
    StillStarting,
    TokenNeeded,
    TooManyRequests,
    Unauthorised,
    UnknownKey,
)
from core.telemetry.metrics import ORDER_OUTCOMES


def test_codes_table_has_every_code_once() -> None:
    codes = [meaning.code for meaning in CODES]
    assert len(set(codes)) == len(codes)
    assert set(codes) >= {int(code) for code in RpcCode}
    assert len({meaning.name for meaning in CODES}) == len(CODES)


@pytest.mark.parametrize("code", CloseCode)
def test_codes_table_has_every_close_code(code: CloseCode) -> None:
    assert int(code) in {meaning.code for meaning in CODES}


@pytest.mark.parametrize("slug", PROBLEMS)
def test_problem_has_a_type_of_its_own_and_a_status_that_is_an_error(slug: str) -> None:
    problem = PROBLEMS[slug]
    assert problem.slug == slug
    assert problem.type == f"urn:mexchange:problem:{slug}"
    assert 400 <= problem.status < 600


@pytest.mark.parametrize("status", [400, 401, 404, 405, 409, 413, 415, 422, 429, 503, 504])
def test_problem_stands_for_every_status_of_the_contract(status: int) -> None:
    assert PROBLEM_OF_STATUS[status].status == status


# One row an error: its problem and status over REST, what else that says, its code over WebSocket, what else that says,
# and as what an order that it befell is counted.
ROWS: list[tuple[RequestError, str, int, dict[str, object], RpcCode, dict[str, object] | None, str]] = [
    (NotJson("a"), "not-json", 400, {}, RpcCode.NOT_JSON, None, "refused"),
    (TokenNeeded("no"), "unauthorised", 401, {}, RpcCode.NOT_AUTHORISED, None, "refused"),
    (Unauthorised("no"), "unauthorised", 401, {}, RpcCode.NOT_AUTHORISED, None, "refused"),
    (UnknownKey("no"), "unauthorised", 401, {}, RpcCode.NOT_AUTHORISED, None, "refused"),
    (OrderConflict("o", "c"), "conflict", 409, {"client_order_id": "c"}, RpcCode.ORDER_REFUSED, None, "refused"),
    (FundsRefused("insufficient funds"), "invalid-fields", 422, {}, RpcCode.ORDER_REFUSED, None, "refused"),
    (NoSuchOrder(), "not-found", 404, {}, RpcCode.CANCEL_FAILED, None, "refused"),
    (
        OrderClosed("o", "filled"),
        "conflict",
        409,
        {"order_id": "o", "order_status": "filled"},
        RpcCode.CANCEL_FAILED,
        {"status": "filled"},
        "refused",
    ),
    (
        InvalidFields([FieldError("symbol", "another")]),
        "invalid-fields",
        422,
        {"errors": [{"field": "symbol", "message": "another"}]},
        RpcCode.BAD_PARAMS,
        {"errors": [{"field": "symbol", "message": "another"}]},
        "refused",
    ),
    (
        LimitExceeded("max_quantity", [FieldError("quantity", "too much")]),
        "invalid-fields",
        422,
        {"errors": [{"field": "quantity", "message": "too much"}]},
        RpcCode.BAD_PARAMS,
        {"errors": [{"field": "quantity", "message": "too much"}]},
        "max_quantity",
    ),
    (
        OutcomeUnknown("o", "who knows"),
        "outcome-unknown",
        504,
        {"order_id": "o"},
        RpcCode.OUTCOME_UNKNOWN,
        {"order_id": "o"},
        "unknown",
    ),
    (BusUnavailable("away"), "bus-unavailable", 503, {}, RpcCode.BUS_UNAVAILABLE, None, "not_written"),
    (AccountsUnavailable("away"), "unavailable", 503, {}, RpcCode.BUS_UNAVAILABLE, None, "not_written"),
    (ControlUnavailable("none"), "unavailable", 503, {}, RpcCode.BUS_UNAVAILABLE, None, "not_written"),
    (ControlUnknown("late"), "outcome-unknown", 504, {}, RpcCode.OUTCOME_UNKNOWN, None, "unknown"),
    (BalancesUnavailable(), "unavailable", 503, {}, RpcCode.BUS_UNAVAILABLE, None, "refused"),
    (StillBehind("late"), "unavailable", 503, {}, RpcCode.BUS_UNAVAILABLE, None, "not_written"),
    (StillStarting(), "unavailable", 503, {}, RpcCode.BUS_UNAVAILABLE, None, "not_written"),
    (
        Blocked("why"),
        "blocked",
        403,
        {},
        RpcCode.ORDER_REFUSED,
        {"problem": "blocked"},
        "blocked",
    ),
    (
        Halted("KCN/EUR", "maintenance", None),
        "halted",
        403,
        {"symbol": "KCN/EUR", "state": "maintenance"},
        RpcCode.ORDER_REFUSED,
        {"problem": "halted", "symbol": "KCN/EUR", "state": "maintenance"},
        "halted",
    ),
    (NoAmends("not here"), "not-found", 404, {}, RpcCode.NO_SUCH_METHOD, None, "refused"),
    (InsufficientScope("read trade"), "insufficient_scope", 403, {}, RpcCode.INSUFFICIENT_SCOPE, None, "refused"),
    (GatewayFault(), "internal", 500, {}, RpcCode.INTERNAL, None, "refused"),
    (
        TooManyRequests("orders", 1.5),
        "too-many-requests",
        429,
        {},
        RpcCode.TOO_MANY_REQUESTS,
        {"retry_after": 2},
        "refused",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row[0]).__name__)
def test_error_has_its_row(row: tuple[RequestError, str, int, object, RpcCode, object, str]) -> None:
    error, problem, status, members, code, data, outcome = row
    assert (error.problem, PROBLEMS[error.problem].status, error.members) == (problem, status, members)
    assert (error.code, error.data, error.counted_as) == (code, data, outcome)
    assert error.counted_as in ORDER_OUTCOMES
    assert error.detail and error.message


def test_every_error_of_a_request_has_a_row() -> None:
    def below(one: type[RequestError]) -> set[type[RequestError]]:
        return {one}.union(*map(below, one.__subclasses__()))

    without = {RequestError, NothingSent, NotAllowed, RpcError}  # roots, and what is given its code
    assert below(RequestError) - without == {type(row[0]) for row in ROWS}


@pytest.mark.parametrize(
    ("error", "detail", "message"),
    [
        (NotJson("not UTF-8 at byte 1"), "the body is not JSON: not UTF-8 at byte 1", "not JSON: not UTF-8 at byte 1"),
        (FundsRefused("insufficient funds"), "insufficient funds", "insufficient funds"),
        (OrderClosed("o", "filled"), "order o is filled", "the order is filled"),
        (BusUnavailable("away"), "not sent: away", "not sent: away"),
        (AccountsUnavailable("away"), "not sent: away", "not sent: away"),
        (
            OutcomeUnknown("o", "away"),
            "it is not known whether the command was written: away",
            "it is not known whether it was written: away",
        ),
        (TooManyRequests("orders", 0.2), "too many orders; wait", "too many orders; wait"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_error_is_told_in_a_sentence_at_each_edge(error: RequestError, detail: str, message: str) -> None:
    assert (error.detail, error.message) == (detail, message)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row[0]).__name__)
def test_errors_that_say_when_to_try_again_are_those_of_what_is_away(row: tuple[RequestError, ...]) -> None:
    assert (row[0].retry_after_seconds is not None) is isinstance(row[0], NothingSent | BalancesUnavailable)
