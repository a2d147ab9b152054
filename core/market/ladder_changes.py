"""What many windows onto one ladder have in common: its levels as text, and what has changed in it since some moment.

A ladder that is followed notes its changes one by one (`Ladder.segment`). A `Moment` is a place among them, and whatever was
told then is worked out from there: from the present levels and what has changed since, or, once too much has, from
the levels behind its segment. So nothing is done for anybody when a level changes, and what one works out serves all who
ask with the same moment in mind, whatever part of the ladder they look at: parts begin with the best level.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from decimal import Decimal
from operator import itemgetter
from typing import Final

from core.market.ladder import Ladder, LevelChange, Segment, level_text, level_texts
from core.messages.events import Level
from core.messages.model import ZERO, Side

_BID = Side.BID
_price = itemgetter(0)

# Texts of so many changes are kept as one; longer ones are put together for each that asks.
MOST_JOINED: Final = 32


class Moment:
    """A moment in a ladder's life: a segment, and how much of its `changes` is before it.

    What has changed `since` is kept with it, as far as `until_size` of the segment `until`.
    """

    __slots__ = ("segment", "since", "size", "until", "until_size")

    def __init__(self, segment: Segment, size: int) -> None:
        self.segment = segment
        self.size = size
        self.since: Levels | None = None
        self.until: Segment | None = None
        self.until_size = 0


class Levels:
    """Changes of levels, a price once each, with their texts; kept by price, given best first."""

    __slots__ = ("_is_bid", "_joined", "_texts", "changes")

    def __init__(self, is_bid: bool, changes: list[LevelChange], texts: list[str] | None = None) -> None:
        """`changes` by ascending price; their texts if they are known."""
        self._is_bid = is_bid
        self.changes = changes
        self._texts = texts
        self._joined: dict[int, str] | None = None

    def count(self, edge: Decimal | None) -> int:
        """How many of them are not worse than a price (None: all)."""
        changes = self.changes
        count = len(changes)
        if edge is None or not count:
            return count
        if self._is_bid:
            return count if changes[0][0] >= edge else count - bisect_left(changes, edge, key=_price)
        return count if changes[-1][0] <= edge else bisect_right(changes, edge, key=_price)

    def best(self, count: int, beyond: int = 0) -> list[LevelChange]:
        """The best `count` without the first `beyond` of them, best first."""
        changes = self.changes
        if self._is_bid:
            end = len(changes)
            some = changes[end - count : end - beyond]
            some.reverse()
            return some
        return changes[beyond:count]

    def text(self, count: int) -> str:
        """The best `count` as JSON text, best first, without brackets."""
        texts = self._texts
        if texts is None:
            texts = self._texts = level_texts(self.changes)
        if count == 1:
            return texts[-1] if self._is_bid else texts[0]
        if self._joined is None:
            self._joined = {}
        joined = self._joined.get(count)
        if joined is None:
            joined = ",".join(texts[len(texts) - count :][::-1] if self._is_bid else texts[:count])
            if count <= MOST_JOINED:
                self._joined[count] = joined
        return joined

    def with_levels(self, levels: Iterable[Level]) -> Levels:
        """The same with other quantities, as changes from 0, at some prices; without those of which the quantity is 0."""
        changes = self.changes.copy()
        texts = level_texts(changes) if self._texts is None else self._texts.copy()
        for price, quantity in levels:
            place = bisect_left(changes, price, key=_price)
            if place < len(changes) and changes[place][0] == price:
                del changes[place], texts[place]
            if quantity:
                changes.insert(place, (price, ZERO, quantity))
                texts.insert(place, level_text(price, ZERO, quantity))
        return Levels(self._is_bid, changes, texts)


def _net(changes: list[Decimal]) -> list[LevelChange]:
    """What changes as a `Segment` has them come to, by ascending price."""
    net = [(changes[at], changes[at + 1], changes[at + 2]) for at in range(0, len(changes), 3)]
    if len(net) > 1:
        net.sort(key=_price)
        for at in range(len(net) - 1, 0, -1):
            if net[at][0] == net[at - 1][0]:
                net[at - 1] = (*net[at - 1][:2], net[at][2])
                del net[at]
    return [change for change in net if change[1] != change[2]]


class LadderChanges:
    """What has changed in one ladder, and what is in it, for all who look at it."""

    __slots__ = ("_levels", "_levels_at", "_moment", "ladder")

    def __init__(self, ladder: Ladder) -> None:
        """The ladder is followed from now on."""
        ladder.follow()
        self.ladder = ladder
        self._moment: Moment | None = None
        self._levels: Levels | None = None
        self._levels_at: Moment | None = None

    def now(self) -> Moment:
        """The present moment, one and the same object until the ladder changes."""
        segment, moment = self.ladder.segment, self._moment
        assert segment is not None, "it is not followed any more"
        size = len(segment.changes)
        if moment is None or moment.size != size or moment.segment is not segment:
            moment = self._moment = Moment(segment, size)
        return moment

    def since(self, moment: Moment) -> Levels:
        """The net changes from a moment to now."""
        segment = self.ladder.segment
        assert segment is not None, "it is not followed any more"
        size = len(segment.changes)
        changed = moment.since
        if changed is None or moment.until_size != size or moment.until is not segment:
            changed = moment.since = Levels(self.ladder.side is _BID, self._compare(moment))
            moment.until, moment.until_size = segment, size
        return changed

    def _compare(self, moment: Moment) -> list[LevelChange]:
        changes = self._changes_since(moment)
        if changes is None:
            present, told = self.ladder.quantities, self._at(moment)
            net = [(price, told.get(price, ZERO), new) for price, new in present.items() if told.get(price) != new]
            net += [(price, old, ZERO) for price, old in told.items() if price not in present]
            net.sort(key=_price)
            return net
        if len(changes) == 3:  # as most often for who is told of each record
            price, old, new = changes
            return [] if old == new else [(price, old, new)]
        return _net(changes)

    def _changes_since(self, moment: Moment) -> list[Decimal] | None:
        """As a `Segment` has them; None if so much has changed that all levels are sooner compared."""
        segment, size = moment.segment, moment.size
        ladder = self.ladder
        if segment is ladder.segment:
            return segment.changes[size:]
        if segment is ladder.earlier_segment and ladder.segment is not None:
            return segment.changes[size:] + ladder.segment.changes
        return None

    def _at(self, moment: Moment) -> dict[Decimal, Decimal]:
        """All levels as they were."""
        segment = moment.segment
        changes = segment.changes[moment.size :]
        levels = (self.ladder.quantities if segment.end is None else segment.end).copy()
        for price, old in zip(reversed(changes[::3]), reversed(changes[1::3]), strict=True):
            if old:
                levels[price] = old
            else:
                levels.pop(price, None)
        return levels

    def levels(self, moment: Moment) -> Levels:
        """All levels as they were, as changes from 0."""
        changes = self._changes_since(moment)
        if changes is None:
            at = self._at(moment)
            return Levels(self.ladder.side is _BID, [(price, ZERO, at[price]) for price in sorted(at)])
        present = self._present()
        return present.with_levels([(price, old) for price, old, _ in _net(changes)]) if changes else present

    def _present(self) -> Levels:
        now, quantities = self.now(), self.ladder.quantities
        if self._levels is None or self._levels_at is not now:
            changes = None if self._levels_at is None else self._changes_since(self._levels_at)
            if self._levels is None or changes is None or len(changes) > len(quantities):
                self._levels = Levels(
                    self.ladder.side is _BID, [(price, ZERO, quantities[price]) for price in self.ladder.prices]
                )
            else:
                self._levels = self._levels.with_levels(self.ladder.levels_at(set(changes[::3])))
            self._levels_at = now
        return self._levels
