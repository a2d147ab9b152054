from __future__ import annotations

import hashlib
import json
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.orders import order_id_for

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
