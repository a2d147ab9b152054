from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.delivery.frames import text_frame
from core.orders.pieces import COMPARED, JOINED, PIECE, framed, in_pieces, nobody_else, sort_in_pieces
from tests.core.fakes import run


class Turns:
    """How often way was given."""

    def __init__(self) -> None:
        self.count = 0

    async def give_way(self) -> None:
        self.count += 1


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (PIECE, [PIECE]), (PIECE + 1, [PIECE, 1]), (3 * PIECE, [PIECE] * 3)]
)
def test_pieces_have_all_in_their_order_and_give_way_in_between(count: int, sizes: list[int]) -> None:
    turns = Turns()

    async def main() -> list[list[int]]:
        return [piece async for piece in in_pieces(range(count), turns.give_way)]

    pieces = run(main())
    assert [len(piece) for piece in pieces] == sizes
    assert [item for piece in pieces for item in piece] == list(range(count))
    assert turns.count == max(0, len(sizes) - 1)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 300))
def test_pieces_are_sorted_as_a_whole(some: list[int], times: int) -> None:
    items = [(number, place) for place, number in enumerate(some * times)]
    assert run(sort_in_pieces(items, lambda item: item[0], nobody_else)) == sorted(items)


def test_pieces_give_way_while_many_are_sorted() -> None:
    turns = Turns()
    run(sort_in_pieces(range(3 * COMPARED), lambda item: -item, turns.give_way))
    assert turns.count == 2 + 2


@pytest.mark.parametrize("size", [0, 1, 100, 3_000])
@pytest.mark.parametrize("count", [0, 1, 2, JOINED, JOINED + 1, 3 * JOINED])
def test_pieces_become_the_frame_that_they_were_at_once(count: int, size: int) -> None:
    texts = [b"%d" % number + b"x" * size for number in range(count)]
    for before, behind in ((b"[", b"]"), (b"{", b"")):
        frame = run(framed(before, texts, behind, nobody_else))
        assert bytes(frame) == text_frame(before + b",".join(texts) + behind)
