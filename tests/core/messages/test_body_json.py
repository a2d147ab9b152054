from __future__ import annotations

import json
import sys
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.errors import NotJson
from core.messages.body_json import read_json, read_request
from core.messages.model import decimal_text
from tests.core.messages.test_events import JSON_LIKE, JSON_VALUES, is_rfc8259


def not_json(body: bytes) -> str:
    with pytest.raises(NotJson) as caught:
        read_json(body)
    return caught.value.reason


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (
            b' \r\n\t[1, -0, 1.50, 1e5, "a", true, false, null]\n',
            [1, 0, Decimal("1.50"), Decimal("1e5"), "a", True, False, None],
        ),
        ('"ä\\u00e4\\ud83d\\ude00"'.encode(), "ää\U0001f600"),
        (b'"\\\\ud800 \\\\\\\\udc00 \\u005cud800"', "\\ud800 \\\\udc00 \\ud800"),
        (b'{"":{"a":1},"a":{"a":1}}', {"": {"a": 1}, "a": {"a": 1}}),
    ],
)
def test_read_json_reads(body: bytes, value: object) -> None:
    assert read_json(body) == value


def test_read_json_keeps_every_digit_of_a_number() -> None:
    number = read_json(b"0.10000000000000000000000000000000000010")
    assert isinstance(number, Decimal)
    assert decimal_text(number) == "0.10000000000000000000000000000000000010"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "character 0"),
        (b"{", "character 1"),
        (b"{}{}", "character 2"),
        (b"[01]", "character 2"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'"\n"', "character 1"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "character 0"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        ('"a"'.encode("utf-16-le"), "character"),
        ('"a"'.encode("utf-32-be"), "character 0"),
        (b'{"a":1,"a":1}', "the key 'a' is given twice"),
        (b'[{"b":{"x":1,"\\u0078":2}}]', "the key 'x' is given twice"),
        ('{"ä":1,"ä":2}'.encode(), "the key '\\xe4' is given twice"),
        (b"1" * 5_000, "a number is too long"),
        (b"[1e99999999999999999999]", "a number is too long"),
    ],
)
def test_read_json_refuses(body: bytes, detail: str) -> None:
    assert detail in not_json(body)


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud800"',
        '"\\uDFFF"',
        '["\\udc00\\ud800"]',
        '{"\\ud83d":1}',
        '{"a":{"b":["\\ud83d\\u0041"]}}',
        '"\\ud83d\\\\ude00"',
        '"\\ud83d \\ude00"',
        '"\\ud83d\\ude00\\ude00"',
        '"\\\\\\ud800"',
        '"\\n\\ud83d\\ud83d\\ude00"',
    ],
)
def test_read_json_refuses_half_a_surrogate_pair(text: str) -> None:
    assert not_json(text.encode()) == "a string holds half of a surrogate pair"


@given(st.lists(st.sampled_from(["\\ud800", "\\uDBFF", "\\uDC00", "\\udfff", "\\\\", "\\n", "u", "d800", "\\u0041"])))
def test_read_json_refuses_exactly_the_strings_that_utf8_cannot_hold(parts: list[str]) -> None:
    text = '"' + "".join(parts) + '"'
    try:
        json.loads(text).encode("utf-8")
    except UnicodeEncodeError:
        assert not_json(text.encode()) == "a string holds half of a surrogate pair"
    else:
        assert read_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_read_json_refuses_endless_nesting(opening: bytes, depth: int) -> None:
    assert not_json(opening * depth) == "nested too deeply"


def test_read_json_never_crashes_near_the_end_of_the_stack() -> None:
    outcomes = set()
    for depth in range(1, sys.getrecursionlimit() + 50, 7):
        try:
            read_json(b'{"a":' * depth + b"1" + b"}" * depth)
        except NotJson as error:
            outcomes.add(error.reason)
        else:
            outcomes.add("read")
    assert outcomes == {"read", "nested too deeply"}


def outcome(body: bytes) -> str:
    try:
        read_json(body)
    except NotJson as error:
        return error.reason
    return "read"


@given(JSON_LIKE)
@example('{"a":1,"a":2}')
@example('"\\ud800"')
@example("[01]")
def test_read_json_takes_exactly_the_grammar_without_what_is_ambiguous(text: str) -> None:
    detail = outcome(text.encode("utf-8"))
    ambiguous = detail.endswith(("given twice", "half of a surrogate pair", "too long"))
    # A key that is given twice is found before the end is seen, which may be cut off.
    assert ambiguous or (detail == "read") == is_rfc8259(text)


@given(st.binary())
def test_read_json_raises_nothing_but_not_json(body: bytes) -> None:
    outcome(body)


@given(JSON_VALUES)
def test_read_json_agrees_with_the_standard_library(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert read_json(text.encode("utf-8")) == json.loads(text, parse_float=Decimal)


def test_read_request_leaves_out_members_that_are_null_at_any_depth() -> None:
    body = b'{"a":null,"b":[null,{"c":null,"d":0}],"e":{"f":{"g":null}},"h":"null"}'
    assert read_request(body) == {"b": [None, {"d": 0}], "e": {"f": {}}, "h": "null"}
    assert read_request(b"null") is None


def test_read_request_refuses_a_key_that_is_given_twice_though_it_is_null() -> None:
    with pytest.raises(NotJson):
        read_request(b'{"a":null,"a":1}')
