"""Simulated traders: makers who keep a ladder of levels around a slowly moving price, and takers who cross to it.

Each symbol has a fair price, an Ornstein-Uhlenbeck walk that returns to where it began. Makers quote `levels` prices a
side, at least `half_spread_ticks` from it; takers send market orders into the best price of either side. What makes it
bearable to trade against:

- Between the makers' best prices there is room for a person's order, and takers prefer the side where such an order
  stands, so it trades within seconds.
- Where somebody else's order stands in the way of a quote, an arbitrageur takes it, however large it is: no order can
  hold the price somewhere for long, or keep the makers from refilling the side that it emptied.
- All that stands is bounded: `levels` a side and `MAX_QUOTES_A_SIDE` orders of the makers' own.

Everything that happens follows from the random generator and from what others do to the book; no clock is read.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from exchange.book import Level
from exchange.commands import CancelOrder, Instrument, OrderId, OrderType, PlaceOrder, Side, TimeInForce
from exchange.decimals import EXACT
from exchange.events import PUBLIC_EVENTS, Event
from exchange.matching import Engine

LEVELS: Final = 16
MAX_QUOTES_A_SIDE: Final = 30
# A quote this much nearer to the fair price than it was placed is withdrawn: one tick, so that a price which trembles
# on a tick's edge does not make its makers flicker.
_SLACK_TICKS: Final = 1
# However rarely the traders act, the fair price moves no further between two acts than in this time.
_MAX_STEP_SECONDS: Final = 0.25
_REVERSION_SECONDS: Final = 300.0
# Of a symbol's acts, about 30 a second at the default rate: a person shall see an order rest before it trades.
_TAKE_PROBABILITY: Final = 0.06


@dataclass(frozen=True, slots=True)
class Market:
    """How one symbol is traded. Sizes are multiples of `clip`, `typical_clips` the median; `share` of all acts."""

    instrument: Instrument
    price: Decimal
    half_spread_ticks: int
    gap_ticks: int
    ticks_per_root_second: float
    clip: Decimal
    typical_clips: int
    share: float


def _market(
    symbol: str, tick: str, lot: str, price: str, half: int, gap: int, pace: float, clip: str, clips: int, share: float
) -> Market:
    instrument = Instrument(symbol, Decimal(tick), Decimal(lot), Decimal(lot))
    return Market(instrument, Decimal(price), half, gap, pace, Decimal(clip), clips, share)


MARKETS: Final = (
    _market("KCN/EUR", "0.01", "0.001", "25.00", 6, 2, 1.2, "0.1", 120, 0.4),
    _market("BTC/EUR", "0.5", "0.0001", "64000.0", 5, 4, 5.0, "0.001", 60, 0.3),
    _market("ETH/EUR", "0.05", "0.001", "3200.00", 4, 3, 3.0, "0.01", 90, 0.3),
)


class _Desk:
    """One symbol's makers: the fair price in ticks and, a side, the price in ticks of each quote believed open."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.symbol = market.instrument.symbol
        self.anchor = float(EXACT.divide(market.price, market.instrument.tick))
        self.fair = self.anchor
        self.quotes: dict[Side, dict[OrderId, int]] = {Side.BID: {}, Side.ASK: {}}

    def drift(self, seconds: float, noise: float) -> None:
        seconds = min(seconds, _MAX_STEP_SECONDS)
        self.fair += (self.anchor - self.fair) * seconds / _REVERSION_SECONDS
        self.fair += self.market.ticks_per_root_second * math.sqrt(seconds) * noise
        self.fair = min(max(self.fair, 0.5 * self.anchor), 1.5 * self.anchor)

    def slots(self, side: Side) -> list[int]:
        """The prices to quote, in ticks, best first: fixed multiples of the gap, so a small drift moves none."""
        half, gap = self.market.half_spread_ticks, self.market.gap_ticks
        if side is Side.BID:
            first = math.floor((self.fair - half) / gap) * gap
            return [first - gap * step for step in range(LEVELS)]
        first = math.ceil((self.fair + half) / gap) * gap
        return [first + gap * step for step in range(LEVELS)]

    def distance(self, side: Side, ticks: int) -> float:
        return self.fair - ticks if side is Side.BID else ticks - self.fair

    def price(self, ticks: int) -> Decimal:
        return EXACT.multiply(self.market.instrument.tick, Decimal(ticks))


class Traders:
    """`rate` is how many public events a second (fills and deltas) they cause among themselves, all symbols together.

    `due_seconds` tells when they next want to act, on a time that begins at 0 with them.
    """

    def __init__(self, engine: Engine, random_source: random.Random, rate: float, markets: Sequence[Market]) -> None:
        self._engine = engine
        self._random = random_source
        self._rate = rate
        self._desks = [_Desk(market) for market in markets]
        self._shares = [market.share for market in markets]
        self._moved_at = dict.fromkeys((desk.symbol for desk in self._desks), 0.0)
        # Unguessable, because who could trade under this name could cancel the makers' quotes.
        self.user_id = f"simulated-{self._new_id()}"
        self.due_seconds = 0.0

    def open(self) -> None:
        """Quote both sides of every symbol at once; what this changes is for a snapshot to show."""
        for desk in self._desks:
            for side in Side:
                for ticks in desk.slots(side):
                    self._quote(desk, side, ticks)

    def act(self) -> list[Event]:
        """Do one thing (or, where others are in the way, nothing) and decide when to do the next.

        Returns the public events alone: nobody outside owns these orders.
        """
        [desk] = self._random.choices(self._desks, self._shares)
        now = self.due_seconds
        desk.drift(now - self._moved_at[desk.symbol], self._random.gauss(0.0, 1.0))
        self._moved_at[desk.symbol] = now
        happened = self.without_own(self._choose(desk))
        self.due_seconds = now + self._random.expovariate(1.0) * max(len(happened), 1) / self._rate
        return happened

    def skip_to(self, seconds: float) -> None:
        """Leave out what would have been done before `seconds` (after a pause)."""
        self.due_seconds = max(self.due_seconds, seconds)

    def without_own(self, events: list[Event]) -> list[Event]:
        """`events` less the order events of the traders' own orders, which nobody waits for."""
        return [event for event in events if event["type"] in PUBLIC_EVENTS or event.get("user_id") != self.user_id]

    def _choose(self, desk: _Desk) -> list[Event]:
        invited = [side for side in Side if self._is_foreign(self._engine.book(desk.symbol).best(side))]
        if self._random.random() < _TAKE_PROBABILITY:
            events = self._take(desk, self._random.choice(invited or list(Side)))
            if events:
                return events
        return self._make(desk)

    def _arbitrage(self, desk: _Desk, side: Side) -> list[Event]:
        """Take all that others offer on `side` at better than the fair price."""
        level = self._engine.book(desk.symbol).best(side)
        if level is None or not self._is_foreign(level):
            return []
        limit = desk.price(math.ceil(desk.fair) if side is Side.BID else math.floor(desk.fair))
        quantity = self._engine.book(desk.symbol).available(side, limit)
        if not quantity:
            return []
        return self._engine.place(self._order(desk, side.opposite, limit, quantity, TimeInForce.IOC))

    def _take(self, desk: _Desk, side: Side) -> list[Event]:
        """A market order into `side`: a usual size, or two fifths of a stranger's order where that is more."""
        book = self._engine.book(desk.symbol)
        level = book.best(side)
        if level is None:
            return []
        quantity = self._size(desk, spread=0.8)
        if self._is_foreign(level):
            instrument = desk.market.instrument
            lots = EXACT.divide_int(EXACT.multiply(level.total, Decimal("0.4")), instrument.lot)
            quantity = min(max(quantity, EXACT.multiply(lots, instrument.lot)), level.total)
        return self._engine.place(self._order(desk, side.opposite, None, quantity, TimeInForce.IOC))

    def _make(self, desk: _Desk) -> list[Event]:
        """Withdraw what has come too near to the fair price, else restore the ladder, else turn it over."""
        for side in Side:
            self._forget_closed(desk, side)
        nearest = min(
            (
                (desk.distance(side, ticks), side.value, order_id)
                for side in Side
                for order_id, ticks in desk.quotes[side].items()
            ),
            default=None,
        )
        if nearest is not None and nearest[0] < desk.market.half_spread_ticks - _SLACK_TICKS:
            return self._withdraw(desk, Side(nearest[1]), nearest[2])
        side = self._random.choice(list(Side))
        return self._restore(desk, side) or self._restore(desk, side.opposite) or self._turn_over(desk, side)

    def _restore(self, desk: _Desk, side: Side) -> list[Event]:
        quotes, slots = desk.quotes[side], desk.slots(side)
        outermost = desk.distance(side, slots[-1]) + 2 * desk.market.gap_ticks
        for order_id, ticks in quotes.items():
            if desk.distance(side, ticks) > outermost:
                return self._withdraw(desk, side, order_id)
        quoted = set(quotes.values())
        missing = [ticks for ticks in slots if ticks not in quoted]
        if not missing:
            return []
        return self._quote(desk, side, missing[0] if self._random.random() < 0.7 else self._random.choice(missing))

    def _turn_over(self, desk: _Desk, side: Side) -> list[Event]:
        quotes = desk.quotes[side]
        if len(quotes) > LEVELS and self._random.random() < 0.5:
            return self._withdraw(desk, side, self._random.choice(list(quotes)))
        # Near the best price more happens.
        step = min(int(self._random.expovariate(0.25)), LEVELS - 1)
        return self._quote(desk, side, desk.slots(side)[step])

    def _quote(self, desk: _Desk, side: Side, ticks: int) -> list[Event]:
        quotes = desk.quotes[side]
        if len(quotes) >= MAX_QUOTES_A_SIDE:
            return self._withdraw(desk, side, self._random.choice(list(quotes)))
        price = desk.price(ticks)
        opposite = self._engine.book(desk.symbol).best(side.opposite)
        if opposite is not None and (opposite.price <= price if side is Side.BID else opposite.price >= price):
            return self._arbitrage(desk, side.opposite)
        order = self._order(desk, side, price, self._size(desk, spread=0.6), TimeInForce.GTC)
        events = self._engine.place(order)
        if self._engine.order(order.order_id) is not None:
            quotes[order.order_id] = ticks
        return events

    def _withdraw(self, desk: _Desk, side: Side, order_id: OrderId) -> list[Event]:
        del desk.quotes[side][order_id]
        return self._engine.cancel(CancelOrder(order_id, desk.symbol, self.user_id))

    def _forget_closed(self, desk: _Desk, side: Side) -> None:
        for order_id in [order_id for order_id in desk.quotes[side] if self._engine.order(order_id) is None]:
            del desk.quotes[side][order_id]

    def _order(
        self, desk: _Desk, side: Side, price: Decimal | None, quantity: Decimal, time_in_force: TimeInForce
    ) -> PlaceOrder:
        order_type = OrderType.MARKET if price is None else OrderType.LIMIT
        return PlaceOrder(self._new_id(), desk.symbol, side, order_type, price, quantity, time_in_force, self.user_id)

    def _size(self, desk: _Desk, spread: float) -> Decimal:
        clips = desk.market.typical_clips * self._random.lognormvariate(0.0, spread)
        bounded = min(max(round(clips), 1), 5 * desk.market.typical_clips)
        return EXACT.multiply(desk.market.clip, Decimal(bounded))

    def _is_foreign(self, level: Level | None) -> bool:
        return level is not None and level.first.user_id != self.user_id

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))
