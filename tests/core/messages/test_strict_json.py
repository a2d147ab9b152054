from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import PoisonedRecord
from core.messages.events import read_event
from core.messages.order_records import read_order_record
from core.messages.strict_json import REASONS, _scanned, is_encodable, read_json, scan, shown, trimmed
from tests.core.messages.test_events import JSON_LIKE, JSON_VALUES, is_rfc8259


def poison(value: bytes | None, read: Callable[[bytes | None], object] = read_json) -> PoisonedRecord:
    with pytest.raises(PoisonedRecord) as caught:
        read(value)
    return caught.value


REFUSED = [
    (None, "empty", "the record has no value"),
    (b"", "empty", "the record has no value"),
    (b"\xff", "not_utf8", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    (b'"\xed\xa0\x80"', "not_utf8", "'utf-8' codec can't decode byte 0xed in position 1: invalid continuation byte"),
    ("{}".encode("utf-16"), "not_utf8", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    (b" \t\r\n", "not_json", "Expecting value: line 1 column 1 (char 0)"),
    (b"\xef\xbb\xbf{}", "not_json", "Expecting value: line 1 column 1 (char 0)"),
    (b"\x0b1", "not_json", "Expecting value: line 1 column 1 (char 0)"),
    (b'{"a":\n}', "not_json", "Expecting value: line 2 column 1 (char 6)"),
    (b"{'a':1}", "not_json", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b'{"a":NaN}', "not_json", "NaN is not JSON: line 1 column 1 (char 0)"),
    (b"[-Infinity]", "not_json", "-Infinity is not JSON: line 1 column 1 (char 0)"),
    (b"[01]", "not_json", "Expecting ',' delimiter: line 1 column 3 (char 2)"),
    (b'"\n"', "not_json", "Invalid control character at: line 1 column 2 (char 1)"),
    (b" {} {}", "not_json", "something follows the value at character 2"),
    (b"1.", "not_json", "something follows the value at character 1"),
    (b"[" * 100_000, "too_deep", "nested deeper than the interpreter's stack"),
    (b'{"a":' * 100_000, "too_deep", "nested deeper than the interpreter's stack"),
    (b"1e1000000000000000000", "bad_number", "[<class 'decimal.InvalidOperation'>]"),
]


@pytest.mark.parametrize(("value", "reason", "detail"), REFUSED)
@pytest.mark.parametrize("read", [read_json, read_event, read_order_record])
def test_read_json_refuses_with_the_same_words_for_both_topics(
    read: Callable[[bytes | None], object], value: bytes | None, reason: str, detail: str
) -> None:
    error = poison(value, read)
    assert (error.reason, error.detail, error.symbol) == (reason, detail, None)


def test_read_json_refuses_an_integer_of_more_digits_than_can_be_read() -> None:
    assert read_json(b"9" * 4_300) == int("9" * 4_300)
    assert poison(b"9" * 4_301).reason == "bad_number"
    assert poison(b"-" + b"9" * 100_000).reason == "bad_number"


def test_read_json_names_no_reason_that_is_not_in_its_table() -> None:
    assert {reason for _, reason, _ in REFUSED} == set(REASONS)


@pytest.mark.parametrize("error_type", [json.JSONDecodeError, UnicodeDecodeError, RecursionError])
def test_read_json_keeps_what_stood_in_its_way_as_the_cause(error_type: type[Exception]) -> None:
    value = {json.JSONDecodeError: b"", UnicodeDecodeError: b"\xff", RecursionError: b"[" * 100_000}[error_type]
    assert type(poison(b" " + value).__cause__) is error_type


def test_trimmed_is_the_text_without_the_white_space_around_it() -> None:
    value = b' \t\r\n{"a": [1 ]}\n'
    assert trimmed(value) == '{"a": [1 ]}'
    assert read_json(value) == {"a": [1]}


@pytest.mark.parametrize("text", ["0.10", "1E-7", "-0.0", "1e999", "123456789012345678901234567890.123456789"])
def test_read_json_keeps_every_digit_of_a_number_with_a_point_or_exponent(text: str) -> None:
    number = read_json(text.encode())
    assert isinstance(number, Decimal)
    assert str(number) == str(Decimal(text))


def test_read_json_takes_the_last_of_repeated_keys() -> None:
    assert read_json(b'{"a":1,"a":2}') == {"a": 2}


def test_read_json_leaves_lone_surrogates_to_those_who_write_on() -> None:
    found = read_json(b'"\\ud800"')
    assert found == "\ud800"
    assert not is_encodable(found)


@given(JSON_LIKE)
def test_read_json_takes_exactly_what_the_grammar_does(text: str) -> None:
    try:
        read_json(text.encode())
    except PoisonedRecord as error:
        assert error.reason == "bad_number" or not is_rfc8259(text)
    else:
        assert is_rfc8259(text)


@given(st.one_of(JSON_LIKE.map(str.encode).filter(bool), st.binary(max_size=12).map(lambda part: b'["%b"]' % part)))
def test_read_json_takes_what_the_scanner_does_and_refuses_the_rest_with_its_words(value: bytes) -> None:
    def outcome(read: Callable[[bytes], object]) -> str:
        try:
            return repr(read(value))
        except PoisonedRecord as error:
            return f"{error.reason}: {error.detail}"

    assert outcome(read_json) == outcome(_scanned)


@given(JSON_VALUES)
def test_read_json_reads_as_the_standard_library_does(value: object) -> None:
    text = json.dumps(value)
    assert read_json(text.encode()) == json.loads(text, parse_float=Decimal)


def test_scan_tells_where_the_value_ends() -> None:
    assert scan('[1, {"a": 2}]', 4) == ({"a": 2}, 12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", True), ("abc", True), ("\u00e4\U0001f600", True), ("\ud800", False), ("\u00e4\udfff", False)],
)
def test_is_encodable_tells_text_that_utf_8_has_no_bytes_for(text: str, expected: bool) -> None:
    assert is_encodable(text) is expected


@given(st.text(alphabet=st.characters()))
def test_is_encodable_agrees_with_the_encoder(text: str) -> None:
    assert is_encodable(text) is (text.encode("utf-8", "ignore").decode("utf-8") == text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        ("a\u00e4\n\ud800", r"'a\xe4\n\ud800'"),
        ("x" * 1_000, "'" + "x" * 40 + "'"),
        ([[1]], "an array"),
        ({"a": 1}, "an object"),
        (17, "17"),
        (10**4_000, "1" + "0" * 39),
        (Decimal("0.10"), "0.10"),
    ],
)
def test_shown_is_a_short_description(value: object, text: str) -> None:
    assert shown(value) == text


@given(JSON_VALUES)
def test_shown_is_short_and_ascii_for_any_value(value: object) -> None:
    assert shown(value).isascii()
    assert len(shown(value)) <= 40 * len("\\U0010ffff") + 2
