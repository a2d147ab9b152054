"""Long work on many orders, a piece at a time: in between the loop looks after its other work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from heapq import merge
from itertools import islice
from mmap import mmap
from typing import Any, Final, TypeVar

from core.delivery.frames import frame_head

T = TypeVar("T")

GiveWay = Callable[[], Awaitable[None]]

# Half a millisecond to two of publishing or writing; whoever has fewer orders than these waits for nobody.
PIECE: Final = 100
# What is only compared costs a tenth of that.
COMPARED: Final = 1000
# Pieces of text, each of so many orders, that are copied at once.
JOINED: Final = 10


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


async def framed(before: bytes, texts: Sequence[bytes], behind: bytes, give_way: GiveWay) -> memoryview:
    """One text frame of these, with commas between the `texts`.

    It is filled a piece at a time: to join or to copy 30 MB takes 17 ms, each time anew, and so does a `bytearray` of that
    size, which is set to 0 before it is filled.
    """
    size = len(before) + sum(map(len, texts)) + max(0, len(texts) - 1) + len(behind)
    start = frame_head(size) + before
    frame = memoryview(mmap(-1, len(start) + size - len(before)))
    frame[: len(start)] = start
    at = len(start)
    async for piece in in_pieces(texts, give_way, JOINED):
        joined = b",".join(piece)
        frame[at : at + len(joined)] = joined
        at += len(joined)
        if at + len(behind) < len(frame):
            frame[at : at + 1] = b","
            at += 1
    frame[at:] = behind
    return frame


async def sort_in_pieces(
    items: Iterable[T], key: Callable[[T], Any], give_way: GiveWay, size: int = COMPARED
) -> list[T]:
    """As `sorted`; `size`: of as many the keys are made at once."""
    runs = [sorted(piece, key=key) async for piece in in_pieces(items, give_way, size)]
    if len(runs) < 2:
        return runs[0] if runs else []
    return [item async for piece in in_pieces(merge(*runs, key=key), give_way, size) for item in piece]
