"""Order ids of every kind, the ways to spell one, and a naive reading of them."""

from __future__ import annotations

from uuid import UUID

from hypothesis import strategies as st

MOST = 128


def naive(value: str | int) -> str | None:
    """What the contract says an id is, the slow way."""
    if isinstance(value, int):
        return str(value) if -(2**63) <= value < 2**64 else None
    try:
        value.encode()
        uuid: str | None = str(UUID(value))
    except ValueError:
        uuid = None
    if uuid == value.lower():
        return uuid
    is_utf8 = not any(0xD800 <= ord(letter) < 0xE000 for letter in value)
    return value if 1 <= len(value) <= MOST and is_utf8 else None


ORDER_IDS = st.one_of(
    st.uuids().map(str),
    st.integers(-(2**63), 2**64 - 1).map(str),
    st.integers(0, 99).map(lambda number: f"00{number}"),
    st.sampled_from(["ord-17", "ORD-17", "-0", "+1", "1.0", "1e3", " 1", "true", "null", "a/b", "%41", "ü", "cancel"]),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=MOST),
).filter(lambda text: naive(text) == text)


@st.composite
def spellings(draw: st.DrawFn, order_id: str) -> str | int:
    """One of the ways in which a JSON value can name this id."""
    ways: list[str | int] = [order_id]
    try:
        if str(UUID(order_id)) == order_id:
            capitals = draw(st.lists(st.booleans(), min_size=36, max_size=36))
            ways.append(
                "".join(
                    letter.upper() if capital else letter for letter, capital in zip(order_id, capitals, strict=True)
                )
            )
    except ValueError:
        pass
    try:
        number = int(order_id)
        if str(number) == order_id and naive(number) == order_id:
            ways.append(number)
    except ValueError:
        pass
    return draw(st.sampled_from(ways))
