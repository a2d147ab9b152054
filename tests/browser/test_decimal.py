"""The console's decimals, against Python's."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page

EXACT = Context(prec=200)
decimals = st.builds(
    lambda digits, scale: Decimal(digits).scaleb(-scale, context=EXACT),
    st.integers(-(10**38) + 1, 10**38 - 1),
    st.integers(0, 20),
)
# One trip to the browser for a whole list, not one for each number.
several = st.lists(st.tuples(decimals, decimals), min_size=20, max_size=40)
in_browser = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])

COMPUTE = """async (pairs) => {
  const d = await import("/console/client/decimal.js");
  return pairs.map(([left, right]) => {
    const a = d.parse(left), b = d.parse(right);
    return {
      same: d.format(a), sum: d.format(d.add(a, b)), difference: d.format(d.subtract(a, b)),
      product: d.format(d.multiply(a, b)), order: d.compare(a, b), equalKeys: d.keyOf(a) === d.keyOf(b),
      quotient: d.isZero(b) ? null : d.format(d.divide(a, b, 6)),
      multiple: d.isZero(b) ? null : d.isMultipleOf(a, b),
    };
  });
}"""


def plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.removeprefix("-") if value.is_zero() else text


@in_browser
@given(several)
def test_decimal_computes_exactly(modules: Page, pairs: list[tuple[Decimal, Decimal]]) -> None:
    results = modules.evaluate(COMPUTE, [[format(a, "f"), format(b, "f")] for a, b in pairs])
    for (a, b), result in zip(pairs, results, strict=True):
        assert result["same"] == plain(a)
        assert Decimal(result["sum"]) == EXACT.add(a, b)
        assert Decimal(result["difference"]) == EXACT.subtract(a, b)
        assert Decimal(result["product"]) == EXACT.multiply(a, b)
        assert result["order"] == int(a.compare(b))
        assert result["equalKeys"] == (a == b)
        if b:
            rounded = EXACT.divide(a, b).quantize(Decimal("1e-6"), rounding=ROUND_HALF_UP, context=EXACT)
            assert Decimal(result["quotient"]) == rounded
            assert result["multiple"] == (EXACT.remainder(a, b) == 0 if abs(a) >= abs(b) else a == 0)


@pytest.mark.parametrize(
    ("text", "scale", "shown"),
    [
        ("0.10", 0, "0.10"),
        ("25", 2, "25.00"),
        ("1.23456", 2, "1.23456"),
        ("-0.5", 3, "-0.500"),
        ("1e-7", 0, "0.0000001"),
    ],
)
def test_decimal_pads_and_never_cuts(modules: Page, text: str, scale: int, shown: str) -> None:
    script = "async ([text, scale]) => { const d = await import('/console/client/decimal.js'); return d.padded(d.parse(text), scale); }"
    assert modules.evaluate(script, [text, scale]) == shown


@pytest.mark.parametrize(
    "text", ["", " 1", "1,5", "01", ".5", "5.", "+1", "0x10", "NaN", "Infinity", "1e999", "1e-999", "9" * 500]
)
def test_decimal_refuses_what_is_none(modules: Page, text: str) -> None:
    script = "async (text) => (await import('/console/client/decimal.js')).isDecimal(text)"
    assert modules.evaluate(script, text) is False


def read_exact(page: Page, text: str) -> Any:
    script = "async (text) => (await import('/console/client/decimal.js')).readExactJson(text)"
    return page.evaluate(script, text)


@in_browser
@given(st.lists(decimals, min_size=5, max_size=30))
def test_exact_json_keeps_every_digit(modules: Page, values: list[Decimal]) -> None:
    written = [format(value, "f") for value in values]
    text = f'{{"changes": [{", ".join(written)}], "name": "0.10 and \\"1.50\\""}}'
    # As text in the browser: on its way here a number would take Python's notation.
    script = """async (text) => {
      const { changes, name } = (await import("/console/client/decimal.js")).readExactJson(text);
      return [changes.map(String), name];
    }"""
    assert modules.evaluate(script, text) == [written, '0.10 and "1.50"']


def test_exact_json_leaves_plain_numbers_alone(modules: Page) -> None:
    assert read_exact(modules, '{"seq": 12, "ratio": 0.5, "text": "0.10"}') == {"seq": 12, "ratio": 0.5, "text": "0.10"}


def test_exact_json_refuses_what_is_not_json(modules: Page) -> None:
    script = """async () => {
      const { readExactJson } = await import("/console/client/decimal.js");
      return ["[1.5.2]", "[01.50]", "[1.50", "{1.50: 2}", "[-.50]"].map((text) => {
        try { readExactJson(text); return "read"; } catch (error) { return error.name; }
      });
    }"""
    assert modules.evaluate(script) == ["SyntaxError"] * 5
