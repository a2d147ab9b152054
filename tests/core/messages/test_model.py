from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.messages.model import EXACT, MAX_DIGITS, OrderType, Side, TimeInForce, decimal_text, is_symbol, read_decimal

WIDE = Context(prec=1000)


@pytest.mark.parametrize(
    "symbol",
    ["KCN/EUR", "a/b", "A-1_x/0", "A" * 32 + "/" + "B" * 32],
)
def test_is_symbol_accepts_base_and_quote(symbol: str) -> None:
    assert is_symbol(symbol)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "/",
        "KCNEUR",
        "KCN/",
        "/EUR",
        "KCN/EUR/X",
        "KCN.X/EUR",
        "KCN /EUR",
        "KCN/EUR\n",
        "KÇN/EUR",
        "KCN/EU\u0661",
        "A" * 33 + "/EUR",
        "KCN/" + "A" * 33,
        None,
        7,
        ["KCN/EUR"],
        b"KCN/EUR",
    ],
)
def test_is_symbol_refuses_anything_else(value: object) -> None:
    assert not is_symbol(value)


def test_enums_print_as_their_wire_text() -> None:
    assert f"{Side.BID} {Side.ASK} {OrderType.LIMIT} {OrderType.MARKET}" == "bid ask limit market"
    assert [str(time_in_force) for time_in_force in TimeInForce] == ["GTC", "IOC", "FOK"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.10", "0.10"),
        ("0", "0"),
        ("-0", "0"),
        ("-0.00", "0.00"),
        ("-0e-2", "0.00"),
        ("-1.5", "-1.5"),
        ("1e3", "1000"),
        ("1.50E+1", "15.0"),
        ("1e-7", "0.0000001"),
        ("0e5", "0"),
        (Decimal("1.10"), "1.10"),
        (Decimal("-0.0"), "0.0"),
        (Decimal("1E-7"), "0.0000001"),
        (0, "0"),
        (-12, "-12"),
        (10**37, "1" + "0" * 37),
        ("9" * 38, "9" * 38),
        ("-" + "9" * 38, "-" + "9" * 38),
        ("9" * 19 + "." + "9" * 19, "9" * 19 + "." + "9" * 19),
        ("0." + "9" * 38, "0." + "9" * 38),
        ("0." + "0" * 37 + "1", "0." + "0" * 37 + "1"),
        ("1e-38", "0." + "0" * 37 + "1"),
        ("1e37", "1" + "0" * 37),
        ("1e+" + "0" * 38 + "2", "100"),
    ],
)
def test_read_decimal_keeps_every_digit(value: object, text: str) -> None:
    assert decimal_text(read_decimal(value)) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "-",
        "1e",
        "1e+",
        "1_000",
        "1,5",
        "0x1",
        "NaN",
        "sNaN",
        "Infinity",
        "-Infinity",
        "inf",
        "\u0661",
        "1" * 129,
        None,
        True,
        False,
        1.5,
        b"1",
        [],
        {},
    ],
)
def test_read_decimal_refuses_what_is_no_json_number(value: object) -> None:
    with pytest.raises(ValueError, match=r'expected a decimal number, such as "0\.10"'):
        read_decimal(value)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity")])
def test_read_decimal_refuses_what_is_not_finite(value: Decimal) -> None:
    with pytest.raises(ValueError, match="finite"):
        read_decimal(value)


@pytest.mark.parametrize(
    "value",
    [
        "1" * 39,
        "0." + "0" * 38 + "1",
        "1." + "0" * 38,
        "9" * 20 + "." + "9" * 19,
        "1e38",
        "1e-39",
        "0e99",
        "1e999999999",
        "1e-999999999",
        "1e99999999999999999999",
        Decimal("1e38"),
        Decimal("1e-39"),
        10**38,
        -(10**38),
        10**4000,
    ],
)
def test_read_decimal_refuses_more_than_38_digits(value: object) -> None:
    with pytest.raises(ValueError, match="at most 38 digits"):
        read_decimal(value)


NUMBER_TEXTS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(NUMBER_TEXTS)
@example("-0")
@example("0E+37")
@example("0E+40")
def test_read_decimal_agrees_with_exact_fractions(text: str) -> None:
    mantissa, _, exponent_text = text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    exponent = int(exponent_text or 0) - len(fraction)
    digits = len((whole + fraction).lstrip("0")) or 1
    legal = digits <= MAX_DIGITS and exponent >= -MAX_DIGITS and digits + exponent <= MAX_DIGITS
    try:
        number = read_decimal(text)
    except ValueError:
        assert not legal
    else:
        assert legal
        shown = decimal_text(number)
        assert Fraction(shown) == Fraction(text)
        assert len(shown.partition(".")[2]) == max(0, -exponent)


@given(NUMBER_TEXTS)
def test_read_decimal_treats_a_json_number_as_it_treats_a_string(text: str) -> None:
    def outcome(value: object) -> str:
        try:
            return decimal_text(read_decimal(value))
        except ValueError as error:
            return str(error)

    assert outcome(WIDE.create_decimal(text)) == outcome(text)


@given(st.integers())
def test_read_decimal_takes_integers_of_up_to_38_digits(value: int) -> None:
    if len(str(abs(value))) <= MAX_DIGITS:
        assert decimal_text(read_decimal(value)) == str(value)
    else:
        with pytest.raises(ValueError, match="at most 38 digits"):
            read_decimal(value)


@given(st.one_of(st.text(), st.text(alphabet="0123456789.eE+-_ \n\u0660", max_size=6)))
@example("1\n")
def test_read_decimal_takes_no_text_but_json_numbers(text: str) -> None:
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        with pytest.raises(ValueError, match="expected a decimal number"):
            read_decimal(text)


@given(NUMBER_TEXTS)
def test_decimal_text_reads_back_as_the_same_digits(text: str) -> None:
    try:
        number = read_decimal(text)
    except ValueError:
        return
    again = read_decimal(decimal_text(number))
    assert again == number
    assert decimal_text(again) == decimal_text(number)


def test_exact_context_holds_the_widest_remainder_product_and_sum() -> None:
    large, small = Decimal("9" * 38), Decimal("1e-38")
    assert EXACT.remainder(large, small) == 0
    assert EXACT.multiply(large, Decimal("0." + "9" * 38)) == Fraction(10**38 - 1) * Fraction(10**38 - 1, 10**38)
    assert EXACT.subtract(EXACT.add(large, small), large) == small


def test_exact_context_raises_rather_than_lose_a_digit() -> None:
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))
