"""One side of an order book in exact decimals, and its numbers as text."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from decimal import Decimal
from functools import reduce
from operator import itemgetter

from core.messages.events import Level
from core.messages.model import EXACT, ZERO, Side, decimal_text

# Side, price, old quantity, new quantity; a quantity of 0 is a level that is not there.
Change = tuple[Side, Decimal, Decimal, Decimal]
LevelChange = tuple[Decimal, Decimal, Decimal]

# So many changes of a ladder that is followed are noted one by one, or as many as half of its levels, and as many more before
# the first of them are let go: to note when they begin costs as much as all levels.
MOST_FOLLOWED = 64

# More changed levels than these and a quarter of the side are not noted one by one.
FEW_CHANGES = 64

# An attribute of an Enum costs 70 ns, as much as the arithmetic it would decide about.
_BID = Side.BID
_ASK = Side.ASK
_add = EXACT.add
_subtract = EXACT.subtract
_normalize = EXACT.normalize


def number_text(value: Decimal) -> str:
    """`value` as a JSON number in plain notation with every digit it has; 0, however many decimals it has, is `0`."""
    if not value:
        return "0"
    text = str(value)  # a third of the cost of format(value, "f"), and the same but for very small or rounded ones
    return decimal_text(value) if "E" in text else text


def level_text(price: Decimal, old: Decimal, new: Decimal) -> str:
    """`[price,old,new]`: one level's change as JSON text, ASCII, numbers as in `number_text`."""
    return f"[{number_text(price)},{number_text(old)},{number_text(new)}]"


def level_texts(changes: Iterable[LevelChange]) -> list[str]:
    """Each as `level_text` has it, if quantities of 0 are `ZERO`: one look at all numbers takes half of the time."""
    texts = [f"[{price or ZERO!s},{old!s},{new!s}]" for price, old, new in changes]
    if "E" in "".join(texts):
        return [level_text(*change) for change in changes]
    return texts


def changes_json(changes: Iterable[LevelChange]) -> str:
    """`[[price,old,new],...]`: level changes as JSON text."""
    return f"[{','.join([level_text(*change) for change in changes])}]"


def shortest(total: Decimal) -> Decimal:
    """A running sum without trailing zeros and without a positive exponent.

    A sum keeps the decimals of whatever was once in it; so two instances with different pasts would write the same
    amount differently. Adding 0 brings `1E+2` back to `100`.
    """
    return _add(_normalize(total), ZERO)


class Segment:
    """A run of a ladder's changes, and the levels behind the last once it has ended.

    `changes` are price, quantity before, quantity after, price, ... (0: no level): a tuple for each would be one more object to
    keep, and lists of their own two more places in memory to go to.
    """

    __slots__ = ("changes", "end", "most")

    def __init__(self, most: int) -> None:
        """It ends before it has more than `most` changes."""
        self.changes: list[Decimal] = []
        self.most = 3 * most
        self.end: dict[Decimal, Decimal] | None = None


class Ladder:
    """One side of a book. `prices` ascend on both sides, and are exactly the keys of `quantities`, none of them 0.

    Both are for reading; they change through `put` and `replace` and stay the same objects.
    """

    __slots__ = (
        "_shortest",
        "_summed",
        "_total",
        "changed",
        "earlier_segment",
        "prices",
        "quantities",
        "segment",
        "side",
    )

    def __init__(self, side: Side, levels: Iterable[Level] = ()) -> None:
        self.side = side
        self.prices: list[Decimal] = []
        self.quantities: dict[Decimal, Decimal] = {}
        # Prices whose levels changed since `note_changes`. None: nobody asked, or so much changed that all is sooner told.
        self.changed: set[Decimal] | None = None
        # The changes since some moment, for who follows them (None: nobody); and those that led there, if any did.
        self.segment: Segment | None = None
        self.earlier_segment: Segment | None = None
        self._total = ZERO
        # Of which sum `total` was told last, and what it was.
        self._summed = self._shortest = ZERO
        self.replace(levels)

    def __len__(self) -> int:
        return len(self.prices)

    @property
    def total(self) -> Decimal:
        """The exact sum of all quantities of this side."""
        if self._summed is not self._total:
            self._summed = self._total
            self._shortest = shortest(self._total)
        return self._shortest

    def replace(self, levels: Iterable[Level]) -> None:
        """Replace every level with these (price, quantity), in any order; the last of equal prices counts."""
        given = dict(levels)
        if not all(given.values()):
            given = {price: quantity for price, quantity in given.items() if quantity}
        self._end_segment()
        self.quantities.clear()
        self.quantities.update(given)
        self.prices[:] = sorted(given)
        self._total = reduce(_add, given.values(), ZERO)
        self.changed = None

    def become(self, other: Ladder) -> None:
        """Replace every level with those of another ladder of this side."""
        self._end_segment()
        self.prices[:] = other.prices
        self.quantities.clear()
        self.quantities.update(other.quantities)
        self._total = other._total
        self.changed = None

    def put(self, price: Decimal, quantity: Decimal) -> Decimal:
        """Set the quantity at a price, 0 to remove the level; return what was there before, 0 if nothing was."""
        quantities = self.quantities
        changed = self.changed
        if changed is not None:
            changed.add(price)
            if len(changed) > len(quantities) // 4 + FEW_CHANGES:
                self.changed = None
        old = quantities.get(price)
        segment = self.segment
        if segment is not None:
            if len(segment.changes) >= segment.most:
                segment = self._next_segment(segment)
            segment.changes.extend((price, old or ZERO, quantity or ZERO))
        if quantity:
            quantities[price] = quantity
            if old is None:
                insort(self.prices, price)
                self._total = _add(self._total, quantity)
                return ZERO
            self._total = _add(self._total, _subtract(quantity, old))
            return old
        if old is None:
            return ZERO
        del quantities[price]
        del self.prices[bisect_left(self.prices, price)]
        self._total = _subtract(self._total, old)
        return old

    def follow(self) -> None:
        """Note changes one by one from now on."""
        if self.segment is None:
            self.segment = self._new_segment()

    def stop_following(self) -> None:
        """Nobody asks for them any more; what was has an end."""
        self._end_segment()
        self.segment = self.earlier_segment = None

    def _new_segment(self) -> Segment:
        return Segment(max(MOST_FOLLOWED, len(self.quantities) // 2))

    def _next_segment(self, ended: Segment) -> Segment:
        ended.end = self.quantities.copy()
        self.earlier_segment, self.segment = ended, self._new_segment()
        return self.segment

    def _end_segment(self) -> None:
        """The levels are about to be replaced: no changes lead on from here."""
        if self.segment is not None:
            self._next_segment(self.segment)
            self.earlier_segment = None

    def note_changes(self) -> None:
        """Note from now on which levels change."""
        self.changed = set()

    def changed_levels(self) -> list[Level]:
        """(price, quantity) of each level of `changed`, 0 for one that is gone, prices ascending as they are written now."""
        quantities, prices, changed = self.quantities, self.prices, self.changed or ()
        if len(changed) * 25 > len(prices):  # then to look at each price is cheaper than to look each of them up
            levels = [(price, quantities[price]) for price in prices if price in changed]
            if len(levels) < len(changed):
                levels += [(price, ZERO) for price in changed if price not in quantities]
                levels.sort(key=itemgetter(0))
            return levels
        return self.levels_at(sorted(changed))

    def levels_at(self, asked: Iterable[Decimal]) -> list[Level]:
        """(price, quantity) at each of these prices as they are written now, in their order; 0 where there is no level."""
        prices, quantities = self.prices, self.quantities
        levels = []
        for price in asked:
            quantity = quantities.get(price)
            if quantity is None:
                levels.append((price, ZERO))
            else:  # 1.0 may have gone, and come again as 1.00
                levels.append((prices[bisect_left(prices, price)], quantity))
        return levels

    def best(self) -> Level | None:
        """(price, quantity) of the highest bid or lowest ask; None if the side is empty."""
        if not self.prices:
            return None
        price = self.prices[-1 if self.side is _BID else 0]
        return price, self.quantities[price]

    def levels(self, depth: int | None = None) -> list[Level]:
        """(price, quantity) of the best `depth` levels (all if None), best first."""
        quantities = self.quantities
        if self.side is _ASK:
            return [(price, quantities[price]) for price in self.prices[:depth]]
        best_first = self.prices[::-1] if depth is None else self.prices[: -depth - 1 : -1]
        return [(price, quantities[price]) for price in best_first]
