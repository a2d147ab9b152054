from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages.events import read_event
from core.messages.order_ids import integer_of, order_id_for, order_id_json, read_order_id
from core.messages.order_records import read_order_record
from core.messages.order_rules import check_cancel
from tests.core.messages.order_bodies import ANY, LIMIT
from tests.core.order_ids import ORDER_IDS, naive, spellings

SOME_UUID = "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"


@pytest.mark.parametrize(
    ("given_id", "order_id", "written"),
    [
        (SOME_UUID.upper(), SOME_UUID, f'"{SOME_UUID}"'),
        (17, "17", "17"),
        ("17", "17", "17"),
        (-5, "-5", "-5"),
        ("-5", "-5", "-5"),
        (0, "0", "0"),
        ("-0", "-0", '"-0"'),
        ("007", "007", '"007"'),
        ("ord-17", "ord-17", '"ord-17"'),
        ("ORD-17", "ORD-17", '"ORD-17"'),
        (SOME_UUID.upper()[:-1], SOME_UUID.upper()[:-1], f'"{SOME_UUID.upper()[:-1]}"'),
        ("{" + SOME_UUID.upper() + "}", "{" + SOME_UUID.upper() + "}", '"{' + SOME_UUID.upper() + '}"'),
        (2**64 - 1, str(2**64 - 1), str(2**64 - 1)),
        (str(2**64), str(2**64), f'"{2**64}"'),
        (str(-(2**63) - 1), str(-(2**63) - 1), f'"{-(2**63) - 1}"'),
        ("٣", "٣", '"\\u0663"'),
        ('"\n', '"\n', '"\\"\\n"'),
        ("x" * 128, "x" * 128, '"' + "x" * 128 + '"'),
    ],
)
def test_order_id_has_one_spelling_inside_and_one_on_the_way_out(
    given_id: str | int, order_id: str, written: str
) -> None:
    assert read_order_id(given_id) == order_id
    assert order_id_json(order_id) == written


@pytest.mark.parametrize("value", ["", "x" * 129, "\ud800", 2**64, -(2**63) - 1, True, None, 1.0, [], {}])
def test_order_id_is_not_read_from_anything_else(value: object) -> None:
    assert read_order_id(value) is None


@given(st.one_of(st.text(), st.uuids().map(str), st.uuids().map(lambda one: str(one).upper()), st.integers()))
def test_order_id_is_read_as_a_naive_reader_does(value: str | int) -> None:
    assert read_order_id(value) == naive(value)


@given(ORDER_IDS)
def test_order_id_is_the_same_again_after_the_way_out_and_in(order_id: str) -> None:
    assert read_order_id(order_id) == order_id
    assert read_order_id(json.loads(order_id_json(order_id))) == order_id
    assert order_id_json(order_id).isascii()


@given(st.integers())
def test_order_id_is_an_integer_where_one_of_64_bits_is_written_so(number: int) -> None:
    assert integer_of(str(number)) == (number if -(2**63) <= number < 2**64 else None)


@given(st.data(), ORDER_IDS)
def test_order_id_is_read_alike_at_every_edge(data: st.DataObject, order_id: str) -> None:
    def spelt(fields: dict[str, Any], *names: str) -> bytes:
        return json.dumps(fields | {name: data.draw(spellings(order_id)) for name in names}).encode()

    terms = {**LIMIT, "type": "place_order", "symbol": "KCN/EUR"}
    trade = {"symbol": "KCN/EUR", "price": "1", "quantity": "1", "timestamp": 1}
    placed = read_order_record(spelt(terms, "order_id"))
    filled = read_event(spelt({"type": "fill", **trade}, "buy_order_id", "sell_order_id"))
    closed = read_event(spelt({"type": "order_filled"}, "order_id"))
    cancel = check_cancel({"order_id": data.draw(spellings(order_id))}, ANY)
    assert placed is not None
    read = {placed.order_id, cancel.order_id, filled.buy_order_id, filled.sell_order_id, closed.order_id}  # type: ignore[union-attr]
    assert read == {order_id}


def test_order_id_of_a_uuid_is_the_one_that_the_standard_library_writes() -> None:
    assert read_order_id(SOME_UUID.upper()) == str(UUID(SOME_UUID))


NAMESPACE = UUID("0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11")
CLIENT_ORDER_IDS = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)


def uuid5_by_the_rfc(namespace: UUID, name: str) -> str:
    """RFC 9562 section 5.5: SHA-1 over namespace and name, cut to 128 bits, with version 5 and variant 10x."""
    octets = bytearray(hashlib.sha1(namespace.bytes + name.encode("utf-8")).digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x50
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def test_reference_gives_the_example_of_the_rfc() -> None:
    dns = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562 appendix A.4
    assert uuid5_by_the_rfc(dns, "www.example.com") == "2ed6657d-e927-568b-95e1-2665a8aea6a2"


@pytest.mark.parametrize(
    ("user_id", "client_order_id", "name"),
    [
        (None, "my-1", '[null,"my-1"]'),
        ("alice", "my-1", '["alice","my-1"]'),
        ("a", "null", '["a","null"]'),
        ('quo"te', "A.b_c:d-9", '["quo\\"te","A.b_c:d-9"]'),
        ("gr\u00f6\u00dfe", "x", '["gr\\u00f6\\u00dfe","x"]'),
        ("\U0001f600", "x", '["\\ud83d\\ude00","x"]'),
    ],
)
def test_order_id_is_uuid5_of_the_json_array(user_id: str | None, client_order_id: str, name: str) -> None:
    assert json.loads(name) == [user_id, client_order_id]
    assert order_id_for(NAMESPACE, user_id, client_order_id) == uuid5_by_the_rfc(NAMESPACE, name)


@settings(deadline=None)  # a busy machine is no defect
@given(st.none() | st.text(min_size=1), CLIENT_ORDER_IDS, st.uuids())
def test_order_id_of_a_repeat_is_that_of_the_first_attempt(
    user_id: str | None, client_order_id: str, namespace: UUID
) -> None:
    order_id = order_id_for(namespace, user_id, client_order_id)
    assert order_id_for(namespace, user_id, client_order_id) == order_id
    assert str(UUID(order_id)) == order_id
    assert UUID(order_id).version == 5
    assert order_id_for(UUID(int=namespace.int ^ 1), user_id, client_order_id) != order_id


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(st.tuples(st.none() | st.text(max_size=3), CLIENT_ORDER_IDS), unique=True, max_size=20))
def test_order_ids_of_different_orders_differ(orders: list[tuple[str | None, str]]) -> None:
    assert len({order_id_for(NAMESPACE, *order) for order in orders}) == len(orders)


def test_order_id_without_a_client_order_id_is_a_new_random_one() -> None:
    order_ids = {order_id_for(NAMESPACE, user_id, None) for user_id in (None, "alice") for _ in range(100)}
    assert len(order_ids) == 200
    assert {UUID(order_id).version for order_id in order_ids} == {4}
