from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.errors import PoisonedRecord
from core.messages.events import REASONS, BookDelta, BookSnapshot, Fill, OrderEvent, UnknownEvent, read_event
from core.messages.model import Side, decimal_text

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "events.json").read_text("utf-8"))

FILL: dict[str, Any] = {
    "type": "fill",
    "symbol": "KCN/EUR",
    "buy_order_id": "b",
    "sell_order_id": "s",
    "price": "1.5",
    "quantity": "2",
    "timestamp": 1700000000000,
}
SNAPSHOT: dict[str, Any] = {
    "type": "orderbook_snapshot",
    "symbol": "KCN/EUR",
    "sequence": 1,
    "bids": [{"price": "1", "quantity": "1"}],
    "asks": [{"price": "2", "quantity": "1"}],
}
CHANGE: dict[str, Any] = {"action": "add", "side": "bid", "price": "1", "quantity": "1"}
DELTA: dict[str, Any] = {"type": "orderbook_delta", "symbol": "KCN/EUR", "sequence": 1, "deltas": [CHANGE]}
ACCEPTED: dict[str, Any] = {
    "type": "order_accepted",
    "order_id": "o",
    "side": "bid",
    "order_type": "limit",
    "price": "1",
    "quantity": "1",
}
FILLED: dict[str, Any] = {"type": "order_filled", "order_id": "o"}
CANCELLED: dict[str, Any] = {"type": "order_cancelled", "order_id": "o", "filled_quantity": "0"}
REJECTED: dict[str, Any] = {"type": "order_rejected", "order_id": "o", "reason": "because"}
EVERY_KIND = [FILL, SNAPSHOT, DELTA, ACCEPTED, FILLED, CANCELLED, REJECTED]

MISSING = object()


def encoded(record: dict[str, Any], **changes: object) -> bytes:
    changed = {name: value for name, value in {**record, **changes}.items() if value is not MISSING}
    return json.dumps(changed).encode()


def poison(value: bytes | None) -> PoisonedRecord:
    with pytest.raises(PoisonedRecord) as caught:
        read_event(value)
    return caught.value


def outcome(value: bytes) -> str:
    """The reason why `value` is poisoned, or "read"."""
    try:
        read_event(value)
    except PoisonedRecord as error:
        return error.reason
    return "read"


def plain(value: object) -> object:
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def record_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["record_hex"]) if "record_hex" in vector else vector["record"].encode("utf-8")


_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


def is_rfc8259(text: str) -> bool:
    """A recogniser written down from the grammar of RFC 8259 alone, to hold the real readers against."""

    def space(at: int) -> int:
        while at < len(text) and text[at] in " \t\n\r":
            at += 1
        return at

    def match(pattern: re.Pattern[str], at: int) -> int:
        found = pattern.match(text, at)
        if found is None:
            raise ValueError(at)
        return found.end()

    def member(at: int) -> int:
        at = space(match(_STRING, space(at)))
        if text[at : at + 1] != ":":
            raise ValueError(at)
        return value(at + 1)

    def value(at: int) -> int:
        at = space(at)
        opening = text[at : at + 1]
        if opening not in ("[", "{"):
            return space(match(_STRING if opening == '"' else _SCALAR, at))
        item, closing = (value, "]") if opening == "[" else (member, "}")
        if text[space(at + 1) : space(at + 1) + 1] == closing:
            return space(space(at + 1) + 1)
        at = item(at + 1)
        while text[at : at + 1] == ",":
            at = item(at + 1)
        if text[at : at + 1] != closing:
            raise ValueError(at)
        return space(at + 1)

    try:
        return value(0) == len(text)
    except ValueError:
        return False


JSON_TOKENS = st.sampled_from(
    [
        *'[]{},:"\\ \t\n\r\x0b\x00\u00a0\u0661-+.eE019anu',
        *("true", "false", "null", "NaN", "Infinity", "-Infinity", "01", "1.", "1e5", "-0", "0.10", '""', '"a"'),
        *('"a":', '{"a":1}', "[1]", '"\\ud800"', '"\\u00g0"', '"\\/"', "//", "\ufeff", '"\n"'),
    ]
)
JSON_LIKE = st.lists(JSON_TOKENS, max_size=8).map("".join)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False).map(float),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
def test_read_event_reads_the_golden_records(vector: dict[str, Any]) -> None:
    record = record_of(vector)
    event = read_event(record)
    fields = {name: plain(getattr(event, name)) for name in event.__struct_fields__}
    payload = fields.pop("payload", None)
    assert (type(event).__name__, fields) == (vector["kind"], vector["event"])
    if "payload" in vector:
        assert payload == vector["payload"].encode("utf-8")
    elif not isinstance(event, UnknownEvent):
        assert event.payload is record


@pytest.mark.parametrize("vector", VECTORS["poisoned"], ids=lambda vector: vector["name"])
def test_read_event_refuses_the_golden_poisons(vector: dict[str, Any]) -> None:
    error = poison(record_of(vector))
    assert (error.reason, error.symbol) == (vector["reason"], None)


def test_read_event_calls_a_tombstone_empty() -> None:
    assert poison(None).reason == "empty"


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"type":"fill","x":['])
def test_read_event_calls_endless_nesting_too_deep(opening: str) -> None:
    assert poison((opening * 10_000).encode()).reason == "too_deep"
    assert poison((opening * 100_000).encode()).reason == "too_deep"


def test_read_event_never_crashes_near_the_end_of_the_stack() -> None:
    outcomes = set()
    for depth in range(1, sys.getrecursionlimit() + 50):
        nested = "[" * depth + "]" * depth
        try:
            event = read_event(encoded(FILL, user_id="u")[:-1] + f',"x":{nested}}}'.encode())
        except PoisonedRecord as error:
            outcomes.add(error.reason)
        else:
            assert isinstance(event, Fill)
            assert event.payload.endswith(f'"x":{nested}}}'.encode())
            assert b"user_id" not in event.payload
            outcomes.add("read")
    assert outcomes == {"read", "too_deep"}


@pytest.mark.parametrize(
    "number", ["1" * 5_000, "-" + "1" * 100_000, "1e1000000000000000000", "1e-9999999999999999999"]
)
def test_read_event_calls_a_number_nobody_can_hold_a_bad_number(number: str) -> None:
    assert poison(f'{{"type":"x","a":{number}}}'.encode()).reason == "bad_number"


def test_read_event_takes_a_large_record() -> None:
    record = encoded(FILL, note="x" * 2_000_000)
    event = read_event(record)
    assert isinstance(event, Fill)
    assert event.payload is record


def test_read_event_ignores_numbers_in_unknown_fields_that_would_overflow_a_double() -> None:
    assert isinstance(read_event(encoded(FILLED)[:-1] + b',"x":1e999,"y":' + b"9" * 4_000 + b"}"), OrderEvent)


@pytest.mark.parametrize("record", EVERY_KIND, ids=lambda record: record["type"])
def test_read_event_reads_the_plain_record_of_every_kind(record: dict[str, Any]) -> None:
    event = read_event(encoded(record))
    assert event.type == record["type"]
    assert not isinstance(event, UnknownEvent)
    assert event.user_id is None


BAD_SYMBOLS = [MISSING, "x" * 1000, None, "", "KCN", "KCN.X/EUR", 1, ["KCN/EUR"]]
BAD_IDS = [MISSING, None, "", True, 1.0, "x" * 129, "\ud800", 2**64, -(2**63) - 1, [], {}]
# More digits than an order may have, because a level is the sum of what lies there.
BAD_PRICES = [MISSING, None, "", "x", "0", 0, "-1", -1, "NaN", "1e61", True, [], {}, "1" * 61, "٣", " 1"]
BAD_QUANTITIES = [MISSING, None, "", "x", "-1", -1, "Infinity", True, [], {}, "0." + "1" * 61]
BAD_SEQUENCES = [MISSING, None, "1", 1.0, True, [], 2**64, -(2**63) - 1]


@pytest.mark.parametrize(
    ("record", "field", "bad_values"),
    [
        (FILL, "symbol", BAD_SYMBOLS),
        (FILL, "buy_order_id", BAD_IDS),
        (FILL, "sell_order_id", BAD_IDS),
        (FILL, "price", BAD_PRICES),
        (FILL, "quantity", BAD_QUANTITIES),
        (FILL, "timestamp", [MISSING, None, "1", 1.5, -1, True, 2**64]),
        (SNAPSHOT, "symbol", BAD_SYMBOLS),
        (DELTA, "symbol", BAD_SYMBOLS),
        (ACCEPTED, "order_id", BAD_IDS),
        (ACCEPTED, "side", [MISSING, None, "buy", "BID", 1, ["bid"]]),
        (ACCEPTED, "order_type", [MISSING, None, "stop", 1, ["limit"], {}]),
        (ACCEPTED, "price", BAD_PRICES),
        (ACCEPTED, "quantity", BAD_QUANTITIES),
        ({**ACCEPTED, "order_type": "market"}, "price", ["0", "x", True]),
        (FILLED, "order_id", BAD_IDS),
        (CANCELLED, "order_id", BAD_IDS),
        (CANCELLED, "filled_quantity", BAD_QUANTITIES),
        (REJECTED, "order_id", BAD_IDS),
        (REJECTED, "reason", [MISSING, None, 1, []]),
    ],
)
def test_read_event_names_the_bad_field(record: dict[str, Any], field: str, bad_values: list[object]) -> None:
    for bad_value in bad_values:
        error = poison(encoded(record, **{field: bad_value}))
        assert (error.reason, error.symbol) == ("bad_field", None)
        assert error.detail.startswith(f"{field}: expected ")
        assert error.detail.isascii()
        assert len(error.detail) < 200


@pytest.mark.parametrize(
    ("record", "field", "bad_values"),
    [
        (SNAPSHOT, "sequence", BAD_SEQUENCES),
        (SNAPSHOT, "bids", [MISSING, None, {}, "x", 1]),
        (SNAPSHOT, "asks", [MISSING, None, {}, "x", 1]),
        (SNAPSHOT, "bids", [[1], [None], [["1", "1"]]]),
        (DELTA, "sequence", BAD_SEQUENCES),
        (DELTA, "deltas", [MISSING, None, {}, "x", 1, [1], [None], [[]]]),
    ],
)
def test_read_event_names_the_symbol_of_a_broken_book_event(
    record: dict[str, Any], field: str, bad_values: list[object]
) -> None:
    for bad_value in bad_values:
        error = poison(encoded(record, **{field: bad_value}))
        assert (error.reason, error.symbol) == ("bad_field", "KCN/EUR")
        assert error.detail.startswith(f"{field}: expected ")


@pytest.mark.parametrize(
    ("field", "bad_values"),
    [
        ("action", [MISSING, None, "delete", 1, [], {}]),
        ("side", [MISSING, None, "buy", 1, [], {}]),
        ("price", BAD_PRICES),
        ("quantity", BAD_QUANTITIES),
    ],
)
def test_read_event_names_the_bad_field_of_a_change(field: str, bad_values: list[object]) -> None:
    for bad_value in bad_values:
        change = {name: value for name, value in {**CHANGE, field: bad_value}.items() if value is not MISSING}
        error = poison(encoded(DELTA, deltas=[CHANGE, change]))
        assert (error.reason, error.symbol) == ("bad_field", "KCN/EUR")
        assert error.detail.startswith(f"{field}: expected ")


@pytest.mark.parametrize("field", ["price", "quantity"])
@pytest.mark.parametrize("side", ["bids", "asks"])
def test_read_event_names_the_bad_field_of_a_level(side: str, field: str) -> None:
    for bad_value in BAD_PRICES if field == "price" else BAD_QUANTITIES:
        level = {"price": "1", "quantity": "1", field: bad_value}
        error = poison(encoded(SNAPSHOT, **{side: [{n: v for n, v in level.items() if v is not MISSING}]}))
        assert (error.reason, error.symbol) == ("bad_field", "KCN/EUR")
        assert error.detail.startswith(f"{field}: expected ")


def test_read_event_needs_no_quantity_to_remove_a_level() -> None:
    for quantity in (MISSING, None, "nonsense", "5"):
        change = {"action": "remove", "side": "ask", "price": "1", "quantity": quantity}
        record = encoded(DELTA, deltas=[{n: v for n, v in change.items() if v is not MISSING}])
        event = read_event(record)
        assert isinstance(event, BookDelta)
        assert event.deltas == (("remove", "ask", Decimal(1), Decimal(0)),)


def test_read_event_takes_every_id_in_range() -> None:
    for order_id in ("x" * 128, "17", "\u00e4", 0, -1, 2**64 - 1, -(2**63)):
        event = read_event(encoded(FILLED, order_id=order_id))
        assert isinstance(event, OrderEvent)
        assert event.order_id == str(order_id)


@pytest.mark.parametrize("user_id", [None, "", 7, True, [], {}, "\ud800"])
def test_read_event_takes_a_user_id_that_is_no_text_for_none(user_id: object) -> None:
    for record in EVERY_KIND:
        event = read_event(encoded(record, user_id=user_id))
        assert not isinstance(event, UnknownEvent)
        assert event.user_id is None


def test_read_event_shows_the_user_id_to_nobody_but_the_owner() -> None:
    for record in EVERY_KIND:
        value = encoded({"user_id": "ann", **record})
        event = read_event(value)
        assert isinstance(event, Fill | BookSnapshot | BookDelta | OrderEvent)
        assert event.user_id == "ann"
        if isinstance(event, OrderEvent):
            assert event.payload is value
        else:
            assert json.loads(event.payload) == record


@given(
    members=st.dictionaries(st.text(), JSON_VALUES, max_size=5),
    user_id=JSON_VALUES,
    at=st.integers(0, 12),
    ascii_only=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r")]),
)
def test_read_event_cuts_out_the_user_id_and_nothing_else(
    members: dict[str, Any], user_id: object, at: int, ascii_only: bool, separators: tuple[str, str]
) -> None:
    items = list({**members, **FILL}.items())
    items = [item for item in items if item[0] not in ("user_id", "taker_side")]
    colon = separators[1]

    def written(pairs: list[tuple[str, Any]]) -> str:
        def text(value: object) -> str:
            return json.dumps(value, ensure_ascii=ascii_only, separators=separators)

        return "{" + ",".join(text(name) + colon + text(value) for name, value in pairs) + "}"

    with_user = written([*items[:at], ("user_id", user_id), *items[at:]])
    event = read_event(with_user.encode("utf-8"))
    assert isinstance(event, Fill)
    assert event.payload.decode("utf-8") == written(items)


@given(JSON_LIKE)
@example("[1e5]")
@example('{"a":1,"a":2}')
@example("1 ")
@example("\x0b1")
@example("[01]")
@example("[-]")
@example('"\\ud800"')
def test_read_event_takes_for_json_exactly_what_the_grammar_does(text: str) -> None:
    reason = outcome(text.encode("utf-8"))
    assert (reason in ("not_an_object", "no_type", "bad_number")) == is_rfc8259(text)
    assert reason != "read"  # nothing that these tokens can spell has a type


@given(JSON_VALUES)
def test_read_event_poisons_any_other_json_with_a_reason(value: object) -> None:
    assert poison(json.dumps(value).encode()).reason in ("not_an_object", "no_type")


@given(st.binary())
@example(b"\xff")
@example(b"{}")
def test_read_event_raises_nothing_but_poisoned_record_on_any_bytes(value: bytes) -> None:
    assert outcome(value) in (*REASONS, "read")


@given(st.sampled_from(EVERY_KIND), st.data())
def test_read_event_raises_nothing_but_poisoned_record_on_a_damaged_record(
    record: dict[str, Any], data: st.DataObject
) -> None:
    value = bytearray(encoded(record))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    reason = outcome(bytes(value))
    assert reason in (*REASONS, "read")
    assert reason != "read" or is_rfc8259(value.decode("utf-8"))


@given(st.sampled_from(EVERY_KIND), st.data())
def test_read_event_raises_nothing_but_poisoned_record_on_any_value_in_any_field(
    record: dict[str, Any], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(record)))
    assert outcome(encoded(record, **{field: data.draw(JSON_VALUES)})) in ("read", "no_type", "bad_field")


@given(st.from_regex(r"(0|[1-9][0-9]{0,15})\.[0-9]{1,15}", fullmatch=True))
def test_read_event_keeps_every_digit_of_a_decimal_string_or_number(text: str) -> None:
    for written in (text, f'"{text}"'):
        event = read_event(f'{{"type":"order_cancelled","order_id":1,"filled_quantity":{written}}}'.encode())
        assert isinstance(event, OrderEvent)
        assert event.filled_quantity is not None
        assert decimal_text(event.filled_quantity) == text


def test_events_are_immutable_and_have_no_dictionary() -> None:
    event = read_event(encoded(FILL))
    with pytest.raises(AttributeError, match="immutable type"):
        event.type = "other"  # type: ignore[misc]
    assert not hasattr(event, "__dict__")


def test_level_may_hold_more_than_any_one_order() -> None:
    total = "1" + "9" * 38
    record = b'{"type":"orderbook_delta","symbol":"A/B","sequence":1,"deltas":[{"action":"update","side":"bid","price":"1","quantity":"%s"}]}'
    event = read_event(record % total.encode())
    assert isinstance(event, BookDelta)
    assert event.deltas == (("update", Side.BID, Decimal(1), Decimal(total)),)
