"""Long work on many orders, a piece at a time: in between the loop looks after its other work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from heapq import merge
from itertools import islice
from typing import Any, Final, TypeVar

T = TypeVar("T")

GiveWay = Callable[[], Awaitable[None]]

# Half a millisecond to two of publishing or writing; whoever has fewer orders than these waits for nobody.
PIECE: Final = 100
# What is only compared costs a tenth of that.
COMPARED: Final = 1000


async def nobody_else() -> None:
    """For where there is no other work."""


async def in_pieces(items: Iterable[T], give_way: GiveWay, size: int = PIECE) -> AsyncIterator[list[T]]:
    """Some at a time; `give_way` ends when the loop has looked after its other work, and is called before each piece but the first."""
    left = iter(items)
    piece = list(islice(left, size))
    while piece:
        yield piece
        piece = list(islice(left, size))
        if piece:
            await give_way()


async def sort_in_pieces(items: Iterable[T], key: Callable[[T], Any], give_way: GiveWay) -> list[T]:
    """As `sorted`."""
    runs = [sorted(piece, key=key) async for piece in in_pieces(items, give_way, COMPARED)]
    if len(runs) < 2:
        return runs[0] if runs else []
    return [item async for piece in in_pieces(merge(*runs, key=key), give_way, COMPARED) for item in piece]
