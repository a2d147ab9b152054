"""What book channels show of a book: ladders, ladders in coarser steps, and what each channel has told so far.

A ladder that somebody looks at notes its changes (`core.market.ladder_changes`), and nothing else is done when a record comes. Only
when a view is asked, it works out what has changed since it told something last: any number of changes in between are
conflated into their net effect, and of views that told the same moment all but the first find most of it done.

- `Ladder`, one side of a book; `GroupedLadders`, both sides summed into steps, one for all views of that grouping, which
  follow the book when one of those is asked;
- `BookView`, one channel's window onto two ladders: the moment and the edge of what it told;
- `BookViews`, the views of one symbol.

Invariant of a view: what a client holds that was given a snapshot and then every list of changes is exactly the
window last told, and each `old` is what that client holds. So what clients hold is not kept one by one; of one that lacks
some lists it is known at which moment it was told all (`Held`), and that is looked up when it is to be told what is gone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from core.market.ladder import Change, Ladder, LevelChange, changes_json, level_text, shortest
from core.market.ladder_changes import LadderChanges, Levels, Moment
from core.messages.model import EXACT, ZERO, Side

# An attribute of an Enum costs 70 ns, as much as the arithmetic it would decide about.
_BID = Side.BID
_ASK = Side.ASK
_ONE = Decimal(1)

# More changes than these and a third of the book are sooner summed anew.
FEW_STEPS: Final = 16

_add = EXACT.add
_subtract = EXACT.subtract
_multiply = EXACT.multiply
_divide_int = EXACT.divide_int


# How much of a ladder was told: when, and as far as which price (None: all). No moment: nothing.
Told = tuple[Moment | None, Decimal | None]


class Held(NamedTuple):
    """The levels that somebody holds of one view, of either side."""

    bids: Told
    asks: Told


NOTHING_HELD: Final = Held((None, None), (None, None))


class GroupedLadders:
    """A book's levels summed into steps, bids rounded down to a multiple of `step`, asks up; sums are exact.

    A step is gone exactly when its last level is: quantities are above 0 and their sum does not drift. They are the book's
    of when it was followed last (`catch_up`). Raises ValueError for a step of 0 or less.
    """

    __slots__ = ("_at", "_book", "asks", "bids", "step")

    def __init__(self, bids: LadderChanges, asks: LadderChanges, step: Decimal) -> None:
        if step <= ZERO:
            raise ValueError(f"step: expected more than 0, got {step}")
        self.step = step
        self._book = bids, asks
        self._at: tuple[Moment, Moment] | None = None
        self.bids = Ladder(_BID)
        self.asks = Ladder(_ASK)

    def catch_up(self) -> None:
        """Follow the book to where it is now."""
        bids, asks = self._book
        now = bids.now(), asks.now()
        if self._at is None:
            self._rebuild()
        elif self._at != now:
            changed = [side.since(moment) for side, moment in zip(self._book, self._at, strict=True)]
            if sum(len(levels.changes) for levels in changed) * 3 > len(bids.ladder) + len(asks.ladder) + FEW_STEPS:
                self._rebuild()
            else:
                for side, levels in zip((_BID, _ASK), changed, strict=True):
                    self.apply([(side, *change) for change in levels.changes])
        self._at = now

    def _rebuild(self) -> None:
        for book, ladder in zip((changes.ladder for changes in self._book), (self.bids, self.asks), strict=True):
            sums: dict[Decimal, Decimal] = {}
            is_bid = book.side is _BID
            # Prices ascend and are above 0, so most need only be compared with where the step of the one before ends.
            at = end = ZERO
            for price in book.prices:
                if price >= end if is_bid else price > end:
                    at = rounded(book.side, price, self.step)
                    end = _add(at, self.step) if is_bid else at
                    sums[at] = book.quantities[price]
                else:
                    sums[at] = _add(sums[at], book.quantities[price])
            ladder.replace((at, shortest(total)) for at, total in sums.items())

    def apply(self, changes: Iterable[Change]) -> None:
        """Follow changes of the book's levels."""
        for side, price, old, new in changes:
            ladder = self.bids if side is _BID else self.asks
            at = rounded(side, price, self.step)
            total = _add(ladder.quantities.get(at, ZERO), _subtract(new, old))
            ladder.put(at, shortest(total))


class _Window:
    """The best `depth` levels of a ladder as they were told: at a moment, as far as an edge, the worst price told.

    The edge is None while the window is not full; the moment, until something is told.
    """

    __slots__ = ("_changes", "_common", "_depth", "_edge", "_ladder", "_moment", "_taken", "part")

    def __init__(self, changes: LadderChanges, depth: int | None) -> None:
        self._changes = changes
        self._ladder = changes.ladder
        self._depth = depth
        self._edge: Decimal | None = None
        self._moment: Moment | None = None
        # Both together.
        self.part: Told = (None, None)
        # What was taken last: the best of what has changed in the ladder, so many of them, and some beyond.
        self._common: Levels | None = None
        self._taken: tuple[int, list[LevelChange]] = 0, []

    def take(self) -> list[LevelChange]:
        now = self._changes.now()
        if self._moment is now:
            self._taken = 0, []
            return []
        edge = self._present_edge()
        if self._moment is None:
            common = self._changes.levels(now)
            count, beyond = common.count(edge), list[LevelChange]()
        else:
            common = self._changes.since(self._moment)
            if edge == self._edge:
                count, beyond = common.count(edge), []
            elif self._is_inside(edge):
                count, beyond = common.count(edge), self._left(common, edge)
            else:
                count, beyond = common.count(self._edge), self._entered(edge)
        self._moment, self._edge = self.part = now, edge
        self._common, self._taken = common, (count, beyond)
        return common.best(count) + beyond if beyond else common.best(count)

    def taken_text(self) -> str:
        """What was taken last, as JSON text."""
        count, beyond = self._taken
        if not beyond:
            return f"[{self._common.text(count)}]" if count and self._common is not None else "[]"
        texts = [level_text(*change) for change in beyond]
        if count and self._common is not None:
            texts.insert(0, self._common.text(count))
        return f"[{','.join(texts)}]"

    def told(self) -> tuple[Levels | None, int]:
        """The levels at the moment that was told, and how many of the best were."""
        if self._moment is None:
            return None, 0
        levels = self._changes.levels(self._moment)
        return levels, levels.count(self._edge)

    def gone(self, held: Told) -> list[LevelChange]:
        """(price, held, 0) of each level that is held and was not told."""
        moment, edge = held
        if moment is None:
            return []
        told, count = self.told()
        there = set() if told is None else {price for price, _, _ in told.best(count)}
        levels = self._changes.levels(moment)
        return [(price, quantity, ZERO) for price, _, quantity in levels.best(levels.count(edge)) if price not in there]

    def _present_edge(self) -> Decimal | None:
        prices, depth = self._ladder.prices, self._depth
        if depth is None or len(prices) < depth:
            return None
        return prices[-depth] if self._ladder.side is _BID else prices[depth - 1]

    def _is_inside(self, edge: Decimal | None) -> bool:
        """Whether an edge is nearer than the one told."""
        told = self._edge
        if edge is None or told is None:
            return edge is not None
        return edge > told if self._ladder.side is _BID else edge < told

    def _left(self, common: Levels, edge: Decimal | None) -> list[LevelChange]:
        """What was told beyond an edge that is nearer than the one told."""
        changed = common.best(common.count(self._edge), common.count(edge))
        there = {price for price, _, _ in changed}
        left = [(price, old, ZERO) for price, old, _ in changed if old]
        quantities = self._ladder.quantities
        left += [(price, quantities[price], ZERO) for price in self._between(edge, self._edge) if price not in there]
        if len(left) > 1:
            left.sort(reverse=self._ladder.side is _BID)
        return left

    def _entered(self, edge: Decimal | None) -> list[LevelChange]:
        """What is there between the edge told and one that is further, best first."""
        quantities = self._ladder.quantities
        entered = [(price, ZERO, quantities[price]) for price in self._between(self._edge, edge)]
        if self._ladder.side is _BID:
            entered.reverse()
        return entered

    def _between(self, nearer: Decimal | None, further: Decimal | None) -> list[Decimal]:
        """The ladder's present prices beyond the one edge and not beyond the other, ascending."""
        prices = self._ladder.prices
        if nearer is None:
            return []
        if self._ladder.side is _BID:
            return prices[0 if further is None else bisect_left(prices, further) : bisect_left(prices, nearer)]
        return prices[bisect_right(prices, nearer) : None if further is None else bisect_right(prices, further)]


class BookView:
    """What one channel has told of two ladders: the best `depth` levels of each (all if None).

    What is not asked costs nothing; a `take` costs as much as changed or crossed the window's edge. Raises ValueError for
    a depth below 1.
    """

    __slots__ = ("_asks", "_bids", "asks", "bids", "grouped", "holds")

    def __init__(
        self, bids: LadderChanges, asks: LadderChanges, depth: int | None, grouped: GroupedLadders | None = None
    ) -> None:
        """`grouped`, whose ladders they are, is made to follow its book."""
        if depth is not None and depth < 1:
            raise ValueError(f"depth: expected 1 or more, got {depth}")
        self.bids = bids.ladder
        self.asks = asks.ladder
        self.grouped = grouped
        self._bids = _Window(bids, depth)
        self._asks = _Window(asks, depth)
        # What somebody holds who was told all that there was to tell.
        self.holds = NOTHING_HELD

    def take(self) -> tuple[list[LevelChange], list[LevelChange]]:
        """Net changes (price, old, new) of bids and asks since the last `take`, best first; now they are told.

        Both lists are empty if in the end nothing changed. The first `take` tells the whole window, from 0.
        """
        if self.grouped is not None:
            self.grouped.catch_up()
        bids, asks = self._bids.take(), self._asks.take()
        if bids or asks:
            self.holds = Held(self._bids.part, self._asks.part)
        return bids, asks

    def taken_texts(self) -> tuple[str, str]:
        """What the last `take` returned, as JSON text."""
        return self._bids.taken_text(), self._asks.taken_text()

    def snapshot(self, held: Held = NOTHING_HELD) -> tuple[list[LevelChange], list[LevelChange]]:
        """What was told last, as changes from 0, best first: what somebody who joins needs to hold.

        Behind them (price, held, 0) for what is `held` and is not there any more.
        """
        bids, asks = [
            ([] if levels is None else levels.best(count)) + window.gone(of_side)
            for window, of_side in ((self._bids, held.bids), (self._asks, held.asks))
            for levels, count in (window.told(),)
        ]
        return bids, asks

    def snapshot_texts(self, held: Held = NOTHING_HELD) -> tuple[str, str]:
        """The same as JSON text."""
        bids, asks = [
            _listed("" if levels is None else levels.text(count), changes_json(window.gone(of_side)))
            for window, of_side in ((self._bids, held.bids), (self._asks, held.asks))
            for levels, count in (window.told(),)
        ]
        return bids, asks


def _listed(levels: str, gone: str) -> str:
    """One list of levels' texts and of another list."""
    if gone == "[]":
        return f"[{levels}]"
    return f"[{levels},{gone[1:]}" if levels else gone


class _Steps:
    """One grouping of a book, and how many views look at it."""

    __slots__ = ("asks", "bids", "grouped", "views")

    def __init__(self, grouped: GroupedLadders) -> None:
        self.grouped = grouped
        self.bids = LadderChanges(grouped.bids)
        self.asks = LadderChanges(grouped.asks)
        self.views = 0


class BookViews:
    """The views of one symbol's book. Levels are summed once for each step, however many views look at the sums."""

    __slots__ = ("_asks", "_bids", "_changes", "_steps", "_views")

    def __init__(self, bids: Ladder, asks: Ladder) -> None:
        self._bids = bids
        self._asks = asks
        # None while nobody looks at the book.
        self._changes: tuple[LadderChanges, LadderChanges] | None = None
        self._steps: dict[Decimal, _Steps] = {}
        self._views = 0

    def __len__(self) -> int:
        return self._views

    def open(self, step: Decimal | None, depth: int | None) -> BookView:
        """A new view of the best `depth` levels (None: all) in steps of `step` (None: the book's own levels).

        Each call makes another view, even with equal arguments, for each remembers what it told.
        """
        if self._changes is None:
            self._changes = LadderChanges(self._bids), LadderChanges(self._asks)
        bids, asks = self._changes
        if step is None:
            view = BookView(bids, asks, depth)
        else:
            steps = self._steps.get(step) or _Steps(GroupedLadders(bids, asks, step))
            view = BookView(steps.bids, steps.asks, depth, steps.grouped)
            self._steps[step] = steps
            steps.views += 1
        self._views += 1
        return view

    def close(self, view: BookView) -> None:
        """Nobody looks at `view` any more, nor asks it; a step or a book that no view is left of costs nothing."""
        self._views -= 1
        if view.grouped is not None:
            steps = self._steps[view.grouped.step]
            steps.views -= 1
            if not steps.views:
                del self._steps[view.grouped.step]
                view.bids.stop_following()
                view.asks.stop_following()
        if not self._views:
            self._changes = None
            self._bids.stop_following()
            self._asks.stop_following()


def rounded(side: Side, price: Decimal, step: Decimal) -> Decimal:
    """The step that a price of this side is summed into: bids are rounded down to a multiple of it, asks up."""
    whole = _divide_int(price, step)
    below = _multiply(whole, step)
    if side is _BID or below == price:
        return below
    return _multiply(_add(whole, _ONE), step)


def step_of(tick: Decimal, grouping: int) -> Decimal:
    """The step of a channel's `grouping`, in ticks. Raises ValueError below 1."""
    if grouping < 1:
        raise ValueError(f"grouping: expected 1 or more, got {grouping}")
    return _multiply(tick, Decimal(grouping))
