"""The candles of one interval: the one that is under way, and those that have ended, in blocks.

What has ended is kept as lines of text, `BLOCK` of them packed: it is asked for as text, and has every digit. Each block has a
page of its own where the state is kept.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Final

import msgspec

from core.market.ladder import number_text, shortest
from core.messages.model import EXACT, ZERO

# Of each interval that have ended, and the most rows that are asked for at once.
MOST_CANDLES: Final = 1_500
BLOCK: Final = 200
# No block but the last has fewer than `BLOCK` candles, and all but the first together fewer than `MOST_CANDLES`.
PAGES_AN_INTERVAL: Final = MOST_CANDLES // BLOCK + 3
_PACK_LEVEL: Final = 6
# Before whatever a time can be.
_NEVER_MS: Final = -(1 << 64)

_add = EXACT.add


class Candle(msgspec.Struct, array_like=True, gc=False):
    """What was traded in one period. Without `trades` the rest says nothing. `first_ms` and `last_ms` are when the fills were
    made that gave it its open and its close, counted from the period's start. Volume in base, value in quote.
    """

    start_ms: int
    open: Decimal = ZERO
    high: Decimal = ZERO
    low: Decimal = ZERO
    close: Decimal = ZERO
    volume: Decimal = ZERO
    value: Decimal = ZERO
    trades: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def fold(self, price: Decimal, quantity: Decimal, value: Decimal, time_ms: int) -> None:
        """One fill of the period."""
        at_ms = time_ms - self.start_ms
        self.absorb(Candle(self.start_ms, price, price, price, price, quantity, value, 1, at_ms, at_ms))

    def absorb(self, other: Candle) -> None:
        """What comes later on the topic in a part of the period: another candle's fills."""
        if not other.trades:
            return
        shift_ms = other.start_ms - self.start_ms
        first_ms, last_ms = other.first_ms + shift_ms, other.last_ms + shift_ms
        if not self.trades:
            self.open, self.high, self.low, self.close = other.open, other.high, other.low, other.close
            self.first_ms, self.last_ms = first_ms, last_ms
        else:
            if first_ms < self.first_ms:
                self.open, self.first_ms = other.open, first_ms
            if last_ms >= self.last_ms:
                self.close, self.last_ms = other.close, last_ms
            if other.high > self.high:
                self.high = other.high
            if other.low < self.low:
                self.low = other.low
        self.volume = _add(self.volume, other.volume)
        self.value = _add(self.value, other.value)
        self.trades += other.trades

    def line(self) -> str:
        """As it is kept: the members of an array of JSON."""
        prices = [number_text(price) for price in (self.open, self.high, self.low, self.close)]
        sums = [number_text(shortest(total)) for total in (self.volume, self.value)]
        decimals = '","'.join(prices + sums)
        return f'{self.start_ms},"{decimals}",{self.trades},{self.first_ms},{self.last_ms}'

    def is_whole(self, width_ms: int) -> bool:
        """Whether it can be one of a period of `width_ms`."""
        decimals = (self.open, self.high, self.low, self.close, self.volume, self.value)
        return (
            self.start_ms % width_ms == 0
            and self.trades >= 0
            and 0 <= self.first_ms <= self.last_ms < width_ms
            and all(one.is_finite() for one in decimals)
        )


class CandlePage(msgspec.Struct, frozen=True):
    """A block as it is kept: how many candles, where the first one starts, and their lines, packed (zlib, base64)."""

    count: int
    first_ms: int
    lines: str


_read_line = msgspec.json.Decoder(Candle).decode


def line_start(line: str) -> int:
    return int(line[: line.index(",")])


class _Block:
    """Candles in a row that have ended, oldest first, and the page that they are kept on."""

    __slots__ = ("_lines", "_packed", "count", "first_ms", "is_changed", "page")

    def __init__(self, page: int, first_ms: int, lines: list[str] | None, packed: bytes = b"", count: int = 0) -> None:
        self.page = page
        self.first_ms = first_ms
        self._lines = lines
        self._packed = packed
        self.count = count if lines is None else len(lines)
        self.is_changed = lines is not None

    def lines(self) -> list[str]:
        """For reading."""
        return zlib.decompress(self._packed).decode().split("\n") if self._lines is None else self._lines

    def replace(self, lines: list[str]) -> None:
        """They are others now; the list may go on being changed until they are packed, each time with another call."""
        self._lines, self.count, self.first_ms, self.is_changed = lines, len(lines), line_start(lines[0]), True

    def packed(self) -> bytes:
        """The same, packed."""
        lines = self._lines
        return self._packed if lines is None else zlib.compress("\n".join(lines).encode(), _PACK_LEVEL)

    def pack(self) -> None:
        """Need no more memory than it has to."""
        self._packed, self._lines = self.packed(), None


class CandleSeries:
    """The candles of one interval. `under_way` lacks what the smaller intervals' ones that are under way have.

    `changed`: the starts of those that ended or were changed afterwards, for who follows it (None: nobody).
    """

    __slots__ = ("_blocks", "_freed", "_loose", "_oldest_ms", "changed", "count", "under_way", "width_ms")

    def __init__(self, width_ms: int) -> None:
        self.width_ms = width_ms
        self.under_way = Candle(_NEVER_MS)
        self.changed: dict[int, None] | None = None
        # How many candles the blocks have: of these the first are not told if they are more than `MOST_CANDLES`.
        self.count = 0
        self._blocks: list[_Block] = []
        # The one besides the last that is not packed; and pages whose blocks are gone.
        self._loose: _Block | None = None
        self._freed: set[int] = set()
        # None until it is asked for.
        self._oldest_ms: int | None = None

    def end(self, next_ms: int) -> None:
        """What is under way has ended, for the next one starts."""
        ended, self.under_way = self.under_way, Candle(next_ms)
        if not ended.trades:
            return
        self._note(ended.start_ms)
        blocks = self._blocks
        if blocks and blocks[-1].count < BLOCK:
            blocks[-1].replace([*blocks[-1].lines(), ended.line()])
        else:
            if blocks:
                blocks[-1].pack()
            blocks.append(_Block(self._free_page(), ended.start_ms, [ended.line()]))
        self.count += 1
        self._drop_oldest()

    def add_late(self, price: Decimal, quantity: Decimal, value: Decimal, time_ms: int) -> None:
        """A fill of a period that has ended. What is older than all that is kept is left out."""
        start_ms = time_ms - time_ms % self.width_ms
        blocks = self._blocks
        number = max(self._block_of(start_ms), 0)
        lines = list(blocks[number].lines()) if blocks else []
        place = bisect_left(lines, start_ms, key=line_start)
        is_there = place < len(lines) and line_start(lines[place]) == start_ms
        if number == 0 and self.count >= MOST_CANDLES and place + is_there <= self.count - MOST_CANDLES:
            return
        self._note(start_ms)
        candle = _read_line(f"[{lines[place]}]") if is_there else Candle(start_ms)
        candle.fold(price, quantity, value, time_ms)
        lines[place : place + is_there] = [candle.line()]
        if not blocks:
            blocks.append(_Block(self._free_page(), start_ms, lines))
        else:
            self._loosen(blocks[number])
            blocks[number].replace(lines)
        self.count += not is_there
        if len(lines) > 2 * BLOCK:
            blocks[number].replace(lines[:BLOCK])
            rest = _Block(self._free_page(), line_start(lines[BLOCK]), lines[BLOCK:])
            blocks.insert(number + 1, rest)
            self._loosen(rest)
        self._drop_oldest()

    def _note(self, start_ms: int) -> None:
        self._oldest_ms = None
        if self.changed is not None:
            self.changed[start_ms] = None

    def _block_of(self, start_ms: int) -> int:
        """The number of the last block that starts no later than this; -1 if none does."""
        return bisect_right(self._blocks, start_ms, key=lambda block: block.first_ms) - 1

    def _loosen(self, block: _Block) -> None:
        """It is about to be changed: the one before it has been."""
        before, last = self._loose, self._blocks[-1]
        if before is not None and before is not block and before is not last:
            before.pack()
        self._loose = block

    def _free_page(self) -> int:
        taken = {block.page for block in self._blocks}
        page = next(page for page in range(PAGES_AN_INTERVAL) if page not in taken)
        self._freed.discard(page)
        return page

    def _drop_oldest(self) -> None:
        while self.count - self._blocks[0].count >= MOST_CANDLES:
            oldest = self._blocks.pop(0)
            self.count -= oldest.count
            self._freed.add(oldest.page)

    # What is told.

    def oldest_ms(self) -> int:
        """Where the oldest one starts that is told, under way or not."""
        if not self._blocks:
            return self.under_way.start_ms
        if self._oldest_ms is None:
            oldest, hidden = self._blocks[0], self.count - MOST_CANDLES
            self._oldest_ms = oldest.first_ms if hidden <= 0 else line_start(oldest.lines()[hidden])
        return self._oldest_ms

    def lines_between(self, first_ms: int, last_ms: int) -> list[str]:
        """Of those that have ended: those that start there, behind the last one before unless one starts right at the first."""
        found: list[str] = []
        number = self._block_of(first_ms)
        if number >= 0:
            lines = self._blocks[number].lines()
            place = bisect_left(lines, first_ms, key=line_start)
            found = lines[max(place - 1, 0) :]
        for block in self._blocks[number + 1 :]:
            if block.first_ms > last_ms:
                break
            found += block.lines()
        del found[bisect_right(found, last_ms, key=line_start) :]
        return found

    def lines_at(self, starts: Iterable[int]) -> list[str]:
        """Of those that have ended and are kept: those that start at these, which ascend."""
        found: list[str] = []
        number, lines = -1, list[str]()
        for start_ms in starts:
            at = self._block_of(start_ms)
            if at < 0:
                continue
            if at != number:
                number, lines = at, self._blocks[at].lines()
            place = bisect_left(lines, start_ms, key=line_start)
            if place < len(lines) and line_start(lines[place]) == start_ms:
                found.append(lines[place])
        return found

    # What is kept.

    def take_pages(self, everything: bool) -> dict[int, CandlePage | None]:
        """The pages that changed since they were taken last; None for one with nothing on it."""
        pages: dict[int, CandlePage | None] = dict.fromkeys(range(PAGES_AN_INTERVAL) if everything else self._freed)
        self._freed.clear()
        for block in self._blocks:
            if block.is_changed or everything:
                lines = b64encode(block.packed()).decode()
                pages[block.page] = CandlePage(block.count, block.first_ms, lines)
                block.is_changed = False
        return pages

    def restore(self, pages: Mapping[int, CandlePage], under_way: Candle) -> None:
        """Of a new one: be the one that these pages were taken of. Raises ValueError for what cannot be."""
        if not under_way.is_whole(self.width_ms):
            raise ValueError(f"a candle of {self.width_ms} ms cannot be {under_way}")
        for page, one in sorted(pages.items(), key=lambda item: item[1].first_ms):
            self._blocks.append(_Block(page, one.first_ms, None, b64decode(one.lines, validate=True), one.count))
        ends: list[tuple[int, int]] = []
        for block in self._blocks:
            lines = _checked(block)
            ends.append((block.first_ms, line_start(lines[-1])))
            self.count += block.count
        after = [(under_way.start_ms, under_way.start_ms)]
        if not all(first_ms <= last_ms < next_ms for (first_ms, last_ms), (next_ms, _) in pairwise(ends + after)):
            raise ValueError("candles: expected each to start after the one before it")
        if any(block.count < BLOCK for block in self._blocks[:-1]) or self._has_too_many():
            raise ValueError("candles: pages that are not of one moment")
        self.under_way = under_way
        if self._blocks and self._blocks[-1].count < BLOCK:
            self._blocks[-1].replace(self._blocks[-1].lines())
            self._blocks[-1].is_changed = False

    def _has_too_many(self) -> bool:
        return bool(self._blocks) and self.count - self._blocks[0].count >= MOST_CANDLES


def _checked(block: _Block) -> list[str]:
    try:
        lines = block.lines()
    except zlib.error as error:
        raise ValueError(f"lines: {error}") from error
    if len(lines) != block.count or line_start(lines[0]) != block.first_ms:
        raise ValueError(f"lines: expected {block.count}, the first at {block.first_ms}")
    return lines
