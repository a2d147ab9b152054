"""What book channels show of a book: ladders, ladders in coarser steps, and what each channel has told so far.

The book reports each level it changed as (side, price, old quantity, new quantity). That one list feeds everything
here, so a record costs as much as it changes, whatever the depth of the book or of the views:

- `Ladder`, one side of a book; `GroupedLadders`, both sides summed into steps, one for all views of that grouping;
- `BookView`, one channel's window onto two ladders. It notes which prices changed, and only when it is asked compares
  them with what it told before: any number of changes in between are conflated into their net effect;
- `BookViews`, the views of one symbol, which hands the changes round.

Invariant of a view: what a client holds that was given a snapshot and then every list of changes is exactly the
window last told, and each `old` is what that client holds. So what clients hold is not kept one by one; of one that lacks
some lists a `Position` is kept, from which its `Held` is worked out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import chain
from typing import NamedTuple

from core.market.ladder import Change, Ladder, LevelChange, shortest
from core.messages.model import EXACT, ZERO, Side

# An attribute of an Enum costs 70 ns, as much as the arithmetic it would decide about.
_BID = Side.BID
_ASK = Side.ASK
_ONE = Decimal(1)
_add = EXACT.add
_subtract = EXACT.subtract
_multiply = EXACT.multiply
_divide_int = EXACT.divide_int


class Held(NamedTuple):
    """The levels that somebody holds: of each side price, quantity, price, quantity, ... (a dict takes four times as much)."""

    bids: tuple[Decimal, ...]
    asks: tuple[Decimal, ...]


NOTHING_HELD = Held((), ())


class Position:
    """A moment in what a view tells: the changes that it told next lead on to another one, as long as somebody keeps it."""

    __slots__ = ("changes", "next")

    changes: tuple[list[LevelChange], list[LevelChange]]

    def __init__(self) -> None:
        self.next: Position | None = None


class GroupedLadders:
    """A book's levels summed into steps, bids rounded down to a multiple of `step`, asks up; sums are exact.

    A step is gone exactly when its last level is: quantities are above 0 and their sum does not drift.
    Raises ValueError for a step of 0 or less.
    """

    __slots__ = ("_book_asks", "_book_bids", "asks", "bids", "step")

    def __init__(self, bids: Ladder, asks: Ladder, step: Decimal) -> None:
        if step <= ZERO:
            raise ValueError(f"step: expected more than 0, got {step}")
        self.step = step
        self._book_bids = bids
        self._book_asks = asks
        self.bids = Ladder(_BID)
        self.asks = Ladder(_ASK)
        self.rebuild()

    def rebuild(self) -> None:
        """Sum the book anew, after it was replaced."""
        for book, ladder in ((self._book_bids, self.bids), (self._book_asks, self.asks)):
            sums: dict[Decimal, Decimal] = {}
            is_bid = book.side is _BID
            # Prices ascend and are above 0, so most need only be compared with where the step of the one before ends.
            at = end = ZERO
            for price in book.prices:
                if price >= end if is_bid else price > end:
                    at = self._rounded(book.side, price)
                    end = _add(at, self.step) if is_bid else at
                    sums[at] = book.quantities[price]
                else:
                    sums[at] = _add(sums[at], book.quantities[price])
            ladder.replace((at, shortest(total)) for at, total in sums.items())

    def apply(self, changes: Iterable[Change]) -> list[Change]:
        """Follow changes of the book's levels; return the changes of steps, in order (a step may occur repeatedly)."""
        changed: list[Change] = []
        for side, price, old, new in changes:
            ladder = self.bids if side is _BID else self.asks
            at = self._rounded(side, price)
            old_sum = ladder.quantities.get(at, ZERO)
            new_sum = shortest(_add(old_sum, _subtract(new, old)))
            ladder.put(at, new_sum)
            changed.append((side, at, old_sum, new_sum))
        return changed

    def _rounded(self, side: Side, price: Decimal) -> Decimal:
        whole = _divide_int(price, self.step)
        below = _multiply(whole, self.step)
        if side is _BID or below == price:
            return below
        return _multiply(_add(whole, _ONE), self.step)


class _Window:
    """The best `depth` levels of a ladder as they were told. `edge` is the worst price told, None while not full.

    Nothing beyond the edge needs to be noted when it changes: it was not told, and if the window is to reach it, it is
    found in the ladder.
    """

    __slots__ = ("_depth", "_ladder", "_told", "edge", "everything", "marked")

    def __init__(self, ladder: Ladder, depth: int | None) -> None:
        self._ladder = ladder
        self._depth = depth
        self._told: dict[Decimal, Decimal] = {}
        self.edge: Decimal | None = None
        self.marked: set[Decimal] = set()
        self.everything = True

    def told(self, held: tuple[Decimal, ...]) -> list[LevelChange]:
        told, is_bid = self._told, self._ladder.side is _BID
        levels = [(price, ZERO, quantity) for price, quantity in sorted(told.items(), reverse=is_bid)]
        gone = [(price, old, ZERO) for price, old in zip(held[::2], held[1::2], strict=True) if price not in told]
        return levels + sorted(gone, reverse=is_bid) if gone else levels

    def held(self, since: list[list[LevelChange]]) -> tuple[Decimal, ...]:
        levels = self._told.copy()
        for changes in reversed(since):
            for price, old, _ in changes:
                if old:
                    levels[price] = old
                else:
                    levels.pop(price, None)
        return tuple(chain.from_iterable(levels.items()))

    def take(self) -> list[LevelChange]:
        if self.everything:
            changes = self._compare_everything()
        elif self.marked:
            changes = self._compare_marked()
        else:
            return []
        self.marked.clear()
        if len(changes) > 1:
            changes.sort(reverse=self._ladder.side is _BID)
        return changes

    def _present_edge(self) -> Decimal | None:
        prices, depth = self._ladder.prices, self._depth
        if depth is None or len(prices) < depth:
            return None
        return prices[-depth] if self._ladder.side is _BID else prices[depth - 1]

    def _compare_everything(self) -> list[LevelChange]:
        told = self._told
        present = dict(self._ladder.levels(self._depth))
        changes = [(price, told.get(price, ZERO), new) for price, new in present.items() if told.get(price) != new]
        changes += [(price, old, ZERO) for price, old in told.items() if price not in present]
        self._told = present
        self.edge = self._present_edge()
        self.everything = False
        return changes

    def _compare_marked(self) -> list[LevelChange]:
        told, quantities = self._told, self._ladder.quantities
        is_bid = self._ladder.side is _BID
        edge = self._present_edge()
        changes: list[LevelChange] = []
        for price in self.marked:
            old = told.get(price, ZERO)
            new = quantities.get(price, ZERO)
            if new and edge is not None and (price < edge if is_bid else price > edge):
                new = ZERO
            if new != old:
                changes.append((price, old, new))
                if new:
                    told[price] = new
                else:
                    del told[price]
        if edge != self.edge:
            self._shift(edge, changes)
        return changes

    def _shift(self, edge: Decimal | None, changes: list[LevelChange]) -> None:
        """Move the edge: the levels between the old and the new one, and no others, left the window or entered it."""
        told, prices, quantities = self._told, self._ladder.prices, self._ladder.quantities
        inside = self._places_told()
        outside = len(prices) if self._depth is None else min(self._depth, len(prices))
        self.edge = edge
        first, last = min(inside, outside), max(inside, outside)
        is_bid = self._ladder.side is _BID
        for price in prices[len(prices) - last : len(prices) - first] if is_bid else prices[first:last]:
            if inside < outside:
                told[price] = new = quantities[price]
                changes.append((price, ZERO, new))
            elif (old := told.pop(price, None)) is not None:  # else it came and is beyond the edge: never told
                changes.append((price, old, ZERO))

    def _places_told(self) -> int:
        """How many of the ladder's present levels are not worse than the edge as it was told."""
        prices, edge = self._ladder.prices, self.edge
        if edge is None:
            return len(prices)
        return len(prices) - bisect_left(prices, edge) if self._ladder.side is _BID else bisect_right(prices, edge)


class BookView:
    """What one channel has told of two ladders: the best `depth` levels of each (all if None).

    `mark` what changed, then `take` the net changes. Marking costs a comparison or two a change, taking as much as
    changed or crossed the window's edge. Raises ValueError for a depth below 1.
    """

    __slots__ = ("_asks", "_bids", "asks", "bids", "depth", "position")

    def __init__(self, bids: Ladder, asks: Ladder, depth: int | None) -> None:
        if depth is not None and depth < 1:
            raise ValueError(f"depth: expected 1 or more, got {depth}")
        self.bids = bids
        self.asks = asks
        self.depth = depth
        self._bids = _Window(bids, depth)
        self._asks = _Window(asks, depth)
        self.position = Position()

    def mark(self, changes: Iterable[Change]) -> None:
        """The ladders have changed so since the last `take`."""
        bids, asks = self._bids, self._asks
        bid_edge, ask_edge = bids.edge, asks.edge
        for side, price, _, _ in changes:
            if side is _BID:
                if bid_edge is None or price >= bid_edge:
                    bids.marked.add(price)
            elif ask_edge is None or price <= ask_edge:
                asks.marked.add(price)

    def mark_all(self) -> None:
        """The ladders were replaced: compare every level at the next `take`."""
        self._bids.everything = self._asks.everything = True

    def take(self) -> tuple[list[LevelChange], list[LevelChange]]:
        """Net changes (price, old, new) of bids and asks since the last `take`, best first; now they are told.

        Both lists are empty if in the end nothing changed. The first `take` tells the whole window, from 0.
        """
        bids, asks = self._bids.take(), self._asks.take()
        if bids or asks:
            told = self.position
            told.changes = bids, asks
            told.next = self.position = Position()
        return bids, asks

    def snapshot(self, held: Held = NOTHING_HELD) -> tuple[list[LevelChange], list[LevelChange]]:
        """What was told last, as changes from 0, best first: what somebody who joins needs to hold.

        Behind them (price, held, 0) for what is `held` and is not there any more.
        """
        return self._bids.told(held.bids), self._asks.told(held.asks)

    def held(self, at: Position) -> Held:
        """What somebody holds who was told all that there was to tell until a position, and nothing since."""
        bids, asks = list[list[LevelChange]](), list[list[LevelChange]]()
        while at.next is not None:
            bids.append(at.changes[0])
            asks.append(at.changes[1])
            at = at.next
        return Held(self._bids.held(bids), self._asks.held(asks))


class BookViews:
    """The views of one symbol's book. Levels are summed once for each step, however many views look at the sums."""

    __slots__ = ("_asks", "_bids", "_grouped", "_plain")

    def __init__(self, bids: Ladder, asks: Ladder) -> None:
        self._bids = bids
        self._asks = asks
        self._plain: list[BookView] = []
        self._grouped: dict[Decimal, tuple[GroupedLadders, list[BookView]]] = {}

    def __len__(self) -> int:
        return len(self._plain) + sum(len(views) for _, views in self._grouped.values())

    def open(self, step: Decimal | None, depth: int | None) -> BookView:
        """A new view of the best `depth` levels (None: all) in steps of `step` (None: the book's own levels).

        Each call makes another view, even with equal arguments, for each remembers what it told.
        """
        if step is None:
            view = BookView(self._bids, self._asks, depth)
            self._plain.append(view)
            return view
        grouped, views = self._grouped.get(step) or (GroupedLadders(self._bids, self._asks, step), [])
        view = BookView(grouped.bids, grouped.asks, depth)
        views.append(view)
        self._grouped[step] = grouped, views
        return view

    def close(self, view: BookView) -> None:
        """Nobody looks at `view` any more; a step that no view is left of costs nothing."""
        self._plain = [other for other in self._plain if other is not view]
        for step, (_, views) in list(self._grouped.items()):
            views[:] = [other for other in views if other is not view]
            if not views:
                del self._grouped[step]

    def apply(self, changes: Sequence[Change]) -> None:
        """The book's ladders have changed so."""
        for view in self._plain:
            view.mark(changes)
        for grouped, views in self._grouped.values():
            changed = grouped.apply(changes)
            for view in views:
                view.mark(changed)

    def replaced(self) -> None:
        """The book's ladders were replaced, or changes of them were not handed on for a while."""
        for view in self._plain:
            view.mark_all()
        for grouped, views in self._grouped.values():
            grouped.rebuild()
            for view in views:
                view.mark_all()


def step_of(tick: Decimal, grouping: int) -> Decimal:
    """The step of a channel's `grouping`, in ticks. Raises ValueError below 1."""
    if grouping < 1:
        raise ValueError(f"grouping: expected 1 or more, got {grouping}")
    return _multiply(tick, Decimal(grouping))
