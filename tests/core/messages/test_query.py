"""Query parameters: what is read of them, and what is said of those that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import FieldError, InvalidFields
from core.messages.query import Query, one_of, read_symbol, whole_number


def errors_of(query: Query) -> dict[str, str]:
    with pytest.raises(InvalidFields) as refused:
        query.check()
    return {error.field: error.message for error in refused.value.errors}


def test_query_reads_what_is_there_and_takes_the_default_where_nothing_is() -> None:
    query = Query({"symbol": [b"KCN/EUR"], "limit": [b"07"], "utm_source": [b"x", b"y"]})
    assert query.need("symbol", read_symbol) == "KCN/EUR"
    assert query.take("limit", whole_number(1, 10), 5) == 7
    assert query.take("depth", whole_number(1, 10), 5) == 5
    assert ("limit" in query, "depth" in query) == (True, False)
    query.check()


def test_query_names_every_parameter_that_breaks_a_rule() -> None:
    query = Query({"limit": [b"11"], "depth": [b"1", b"1"], "interval": [b"2m"]})
    query.need("symbol", read_symbol)
    query.take("limit", whole_number(1, 10), 5)
    query.take("depth", whole_number(1, 10), 5)
    query.take("interval", one_of({"1m": 1, "5m": 5}), 1)
    query.refuse("before", "give either before or after")
    with pytest.raises(InvalidFields) as refused:
        query.check()
    assert refused.value.errors == (
        FieldError("symbol", "required"),
        FieldError("limit", "expected a whole number from 1 to 10"),
        FieldError("depth", "given more than once"),
        FieldError("interval", "expected one of 1m, 5m"),
        FieldError("before", "give either before or after"),
    )


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b" 1", b"1.0", b"1e1", b"\xff", "\u0661".encode(), b"1" * 16, b"11"]
)
def test_whole_number_is_digits_within_bounds_and_nothing_else(value: bytes) -> None:
    query = Query({"limit": [value]})
    query.take("limit", whole_number(0, 10), 5)
    assert errors_of(query) == {"limit": "expected a whole number from 0 to 10"}


@pytest.mark.parametrize("value", [b"", b"KCN", b"KCN/EUR\n", b"KCN.EUR", b"\xff/EUR", b"K" * 33 + b"/EUR"])
def test_symbol_is_checked_and_not_quoted(value: bytes) -> None:
    query = Query({"symbol": [value]})
    query.need("symbol", read_symbol)
    assert errors_of(query) == {"symbol": "expected BASE/QUOTE"}


def test_word_is_one_of_those_that_there_are() -> None:
    read: Any = one_of({"1m": 60_000})
    assert read("1m") == 60_000
    with pytest.raises(ValueError, match="expected one of 1m"):
        read("1M")
