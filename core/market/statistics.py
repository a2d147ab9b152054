"""A symbol's last 24 hours of trades, and which side of a trade was the aggressor.

The window is kept in buckets, because a busy symbol has millions of trades a day. As long as its trades fall into at
most `MAX_BUCKETS` different milliseconds a bucket is one millisecond and the window exact. Beyond that all buckets are
made wider, step by step up to a minute, as far as needed, and stay so until the window is empty: a bucket leaves when
the last instant it covers does, so the window is then too long by less than one bucket and never too short. A minute is
also how Binance cuts its rolling windows ("no more than 59999ms from the requested windowSize"), and 1,441 of them
cover the day. A bucket holds about half a kilobyte: a symbol needs at most 1.5 MB, and a quiet one next to nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from operator import attrgetter, ge, itemgetter, le
from typing import Final, Literal

import msgspec

from core.market.ladder import shortest
from core.messages.events import Fill
from core.messages.model import EXACT, ZERO, Side
from core.messages.order_ids import integer_of

Aggressor = Literal["buy", "sell"]

WINDOW_MS: Final = 86_400_000
# Each divides the next, so that whole buckets merge. The widest leaves a day well under MAX_BUCKETS.
WIDTHS_MS: Final = (1, 10, 100, 1_000, 10_000, 60_000)
MAX_BUCKETS: Final = 2_880
# What is kept of the day is kept in pages of buckets: page `start_ms // PAGE_MS % PAGES`. A page is as long as many of the widest
# buckets, so that none changes its page when it is made wider, and all of them together are longer than the window.
PAGE_MS: Final = 900_000
PAGES: Final = 100
_ALL_BUT_ONE_MS = (PAGES - 1) * PAGE_MS

_BUY: Final = "buy"
_SELL: Final = "sell"
_TWO = Decimal(2)
_start_ms = attrgetter("start_ms")
_add = EXACT.add
_subtract = EXACT.subtract
_multiply = EXACT.multiply


class Bucket(msgspec.Struct, array_like=True, gc=False):
    """Trades of [start_ms, start_ms + width). `open` is the price of the earliest of them, made at `first_ms`."""

    start_ms: int
    first_ms: int
    open: Decimal
    volume: Decimal
    value: Decimal


class DayPage(msgspec.Struct):
    """Some buckets, and what of them may yet be the highest or lowest price: (bucket's start, price). Starts ascend."""

    buckets: list[Bucket]
    highs: list[tuple[int, Decimal]]
    lows: list[tuple[int, Decimal]]


class _Extreme:
    """The highest (or lowest) price of the window, by a monotonic queue of (bucket's start, price).

    Only prices that may yet become the extreme are kept: starts ascend, and each price beats all behind it.
    """

    __slots__ = ("_beats", "_queue")

    def __init__(self, beats: Callable[[Decimal, Decimal], bool]) -> None:
        self._beats = beats
        self._queue: deque[tuple[int, Decimal]] = deque()

    @property
    def price(self) -> Decimal | None:
        return self._queue[0][1] if self._queue else None

    def restore(self, entries: Iterable[tuple[int, Decimal]], newest_ms: int) -> None:
        """Be what these entries make, the newest of which has to be of this bucket. Raises ValueError if it is not."""
        for start_ms, price in sorted(entries, key=itemgetter(0)):
            if not price.is_finite():
                raise ValueError(f"highs, lows: expected a number, got {price}")
            self.add(start_ms, price)
        if not self._queue or self._queue[-1][0] != newest_ms:
            raise ValueError(f"highs, lows: expected one that starts at {newest_ms}")

    def since(self, start_ms: int) -> list[tuple[int, Decimal]]:
        """The entries of this bucket and later ones, in order."""
        entries = []
        for entry in reversed(self._queue):
            if entry[0] < start_ms:
                break
            entries.append(entry)
        entries.reverse()
        return entries

    def add(self, start_ms: int, price: Decimal) -> None:
        queue, beats = self._queue, self._beats
        if queue and queue[-1][0] > start_ms:
            later = [queue.pop()]
            while queue and queue[-1][0] > start_ms:
                later.append(queue.pop())
            if not beats(later[-1][1], price):
                self.add(start_ms, price)
            queue.extend(reversed(later))
            return
        while queue and beats(price, queue[-1][1]):
            queue.pop()
        if not queue or queue[-1][0] < start_ms:
            queue.append((start_ms, price))

    def drop(self, start_ms: int) -> None:
        """Forget the bucket, which has to be the oldest."""
        if self._queue[0][0] == start_ms:
            self._queue.popleft()

    def widen(self, width_ms: int) -> None:
        widened: deque[tuple[int, Decimal]] = deque()
        for narrow_start_ms, price in self._queue:
            start_ms = narrow_start_ms - narrow_start_ms % width_ms
            if not widened or widened[-1][0] < start_ms:  # the first of a bucket beats the others of it
                widened.append((start_ms, price))
        self._queue = widened


class Statistics:
    """Rolling 24 h statistics of one symbol, by the trades' own timestamps; exact sums, amortised O(1) a trade.

    A trade is in the window while its time is after `now_ms` - 24 h (see the module about buckets of busy symbols);
    the window moves only by `expire`. Trades may come late: each step of lateness costs one bucket.
    Prices are in quote per base; all properties are None, or 0 for sums, while the window is empty, but `last_price`
    is that of the trade that came last, however long ago.
    """

    __slots__ = (
        "_buckets",
        "_changed",
        "_expired_ms",
        "_high",
        "_low",
        "_max_buckets",
        "_value",
        "_volume",
        "_window_ms",
        "last_price",
        "width_ms",
    )

    def __init__(self, window_ms: int = WINDOW_MS, max_buckets: int = MAX_BUCKETS) -> None:
        self.last_price: Decimal | None = None
        # How wide a bucket is: the window is too long by less than this.
        self.width_ms = WIDTHS_MS[0]
        self._window_ms = window_ms
        self._max_buckets = max_buckets
        self._buckets: deque[Bucket] = deque()
        # The newest time that is out of the window.
        self._expired_ms = -1
        self._high = _Extreme(ge)
        self._low = _Extreme(le)
        self._volume = ZERO
        self._value = ZERO
        # Of which times, in PAGE_MS, something changed since the pages were taken; None: all is to be taken.
        self._changed: set[int] | None = None

    def __len__(self) -> int:
        """How many buckets are held."""
        return len(self._buckets)

    @property
    def high(self) -> Decimal | None:
        """The highest price in the window."""
        return self._high.price

    @property
    def low(self) -> Decimal | None:
        """The lowest price in the window."""
        return self._low.price

    @property
    def open(self) -> Decimal | None:
        """The price of the oldest trade in the window; of several in its millisecond the one that came first."""
        return self._buckets[0].open if self._buckets else None

    @property
    def volume(self) -> Decimal:
        """What was traded in the window, in base."""
        return shortest(self._volume)

    @property
    def value(self) -> Decimal:
        """What was traded in the window, in quote: the sum of price times quantity."""
        return shortest(self._value)

    @property
    def change(self) -> Decimal:
        """`last_price` less `open`; 0 while the window is empty."""
        if self.last_price is None or not self._buckets:
            return ZERO
        return _subtract(self.last_price, self._buckets[0].open)

    def add(self, price: Decimal, quantity: Decimal, value: Decimal, timestamp_ms: int) -> None:
        """Count one trade, of price times quantity as its `value`. One that is already out of the window only sets `last_price`."""
        self.last_price = price
        if timestamp_ms <= self._expired_ms:
            return
        self._volume = _add(self._volume, quantity)
        self._value = _add(self._value, value)
        buckets = self._buckets
        start_ms = timestamp_ms - timestamp_ms % self.width_ms
        later: list[Bucket] | None = None
        if buckets and buckets[-1].start_ms > start_ms:
            later = [buckets.pop()]
            while buckets and buckets[-1].start_ms > start_ms:
                later.append(buckets.pop())
        if buckets and buckets[-1].start_ms == start_ms:
            bucket = buckets[-1]
            bucket.volume = _add(bucket.volume, quantity)
            bucket.value = _add(bucket.value, value)
            if timestamp_ms < bucket.first_ms:
                bucket.first_ms = timestamp_ms
                bucket.open = price
        else:
            if not buckets:
                # The oldest by now: what has left may be later than this, and is still on pages that were taken.
                self._changed = None
            buckets.append(Bucket(start_ms, timestamp_ms, price, quantity, value))
        if later:
            buckets.extend(reversed(later))
        if self._changed is not None:
            self._changed.add(start_ms // PAGE_MS)
        self._high.add(start_ms, price)
        self._low.add(start_ms, price)
        if len(buckets) > self._max_buckets:
            self._widen()

    def expire(self, now_ms: int) -> bool:
        """Move the window to end at `now_ms`; whether a trade left it.

        It may move back, as a clock does that was ahead: what has left is gone, what comes counts again.
        """
        self._expired_ms = now_ms - self._window_ms
        newest_start_ms = self._expired_ms - self.width_ms + 1
        buckets = self._buckets
        if not buckets or buckets[0].start_ms > newest_start_ms:
            return False
        while buckets and buckets[0].start_ms <= newest_start_ms:
            self._drop_oldest()
        if not buckets:
            self.width_ms = WIDTHS_MS[0]
        return True

    @property
    def since_ms(self) -> int | None:
        """Where the oldest bucket starts. A page may have older ones, which have left the window: it is not told of those."""
        return self._buckets[0].start_ms if self._buckets else None

    def take_pages(self, everything: bool = False) -> dict[int, DayPage | None]:
        """The pages that changed since they were taken last, by number; None for one with nothing on it. To be written at
        once: the buckets are the statistics' own.

        A page is not said to have changed when the oldest on it leaves the window, nor when what may have become an extreme
        no longer may: `restore` sees both.
        """
        changed, buckets = self._changed, self._buckets
        self._changed = set()
        since_ms = 0
        # Longer than all pages is only what a clock has made that was far ahead.
        if everything or changed is None or (buckets and buckets[-1].start_ms - buckets[0].start_ms >= _ALL_BUT_ONE_MS):
            numbers: Iterable[int] = range(PAGES)
        elif changed:
            since_ms = min(changed) * PAGE_MS
            numbers = {number % PAGES for number in changed}
        else:
            return {}
        pages = {number: DayPage([], [], []) for number in numbers}
        for bucket in reversed(buckets):
            if bucket.start_ms < since_ms:
                break
            if page := pages.get(bucket.start_ms // PAGE_MS % PAGES):
                page.buckets.append(bucket)
        for entry in self._high.since(since_ms):
            if page := pages.get(entry[0] // PAGE_MS % PAGES):
                page.highs.append(entry)
        for entry in self._low.since(since_ms):
            if page := pages.get(entry[0] // PAGE_MS % PAGES):
                page.lows.append(entry)
        for page in pages.values():
            page.buckets.reverse()
        return {number: page if page.buckets else None for number, page in pages.items()}

    def restore(
        self, pages: Collection[DayPage], since_ms: int | None, width_ms: int, last_price: Decimal | None
    ) -> None:
        """Of new ones: be those that these pages were taken of, in any order. Raises ValueError for what cannot be."""
        if width_ms not in WIDTHS_MS:
            raise ValueError(f"width_ms: expected one of {WIDTHS_MS}, got {width_ms}")
        self.last_price = last_price
        self.width_ms = width_ms
        if since_ms is None:
            return
        buckets = sorted((b for page in pages for b in page.buckets if b.start_ms >= since_ms), key=_start_ms)
        if not buckets or buckets[0].start_ms != since_ms:
            raise ValueError(f"buckets: expected the oldest to start at {since_ms}")
        before_ms = -1
        for bucket in buckets:
            if bucket.start_ms == before_ms or bucket.start_ms % width_ms:
                raise ValueError(f"buckets: one of {width_ms} ms cannot start at {bucket.start_ms}")
            if not bucket.open.is_finite():
                raise ValueError(f"open: expected a number, got {bucket.open}")
            before_ms = bucket.start_ms
            self._volume = _add(self._volume, bucket.volume)
            self._value = _add(self._value, bucket.value)
        if not (self._volume.is_finite() and self._value.is_finite()):
            raise ValueError("volume, value: expected numbers")
        self._buckets.extend(buckets)
        highs = [entry for page in pages for entry in page.highs if entry[0] >= since_ms]
        lows = [entry for page in pages for entry in page.lows if entry[0] >= since_ms]
        if not {bucket.start_ms for bucket in buckets}.issuperset(start_ms for start_ms, _ in highs + lows):
            raise ValueError("highs, lows: expected only such as start with a bucket")
        self._high.restore(highs, before_ms)
        self._low.restore(lows, before_ms)

    def _drop_oldest(self) -> None:
        bucket = self._buckets.popleft()
        self._volume = _subtract(self._volume, bucket.volume)
        self._value = _subtract(self._value, bucket.value)
        self._high.drop(bucket.start_ms)
        self._low.drop(bucket.start_ms)

    def _widen(self) -> None:
        """Merge buckets until there are at most half of `max_buckets`: then it is long until the next time.

        A window of buckets of a minute is full only if nobody has called `expire` for a day, or if trades come from the
        future; then the oldest are dropped.
        """
        for width_ms in WIDTHS_MS:
            if width_ms > self.width_ms and len(self._buckets) > self._max_buckets // 2:
                self._merge(width_ms)
        while len(self._buckets) > self._max_buckets:
            self._drop_oldest()

    def _merge(self, width_ms: int) -> None:
        self.width_ms = width_ms
        self._changed = None
        self._high.widen(width_ms)
        self._low.widen(width_ms)
        merged: deque[Bucket] = deque()
        for bucket in self._buckets:
            bucket.start_ms -= bucket.start_ms % width_ms
            if merged and merged[-1].start_ms == bucket.start_ms:
                merged[-1].volume = _add(merged[-1].volume, bucket.volume)
                merged[-1].value = _add(merged[-1].value, bucket.value)
            else:
                merged.append(bucket)
        self._buckets = merged


class AggressorRule:
    """Which side of each trade of one symbol was the aggressor: Lee and Ready, "Inferring Trade Direction from Intraday
    Data", Journal of Finance 46(2), 1991, with the engine's own word before it.

    Trades have to be given in the order of the topic, with the best prices of the book as it was before the trade: the
    engine publishes a fill before the delta it causes, so that is the book as folded so far. Of one order's fills at
    several prices the later ones lie beyond that quote, on the side it took from, and are told right too.
    """

    __slots__ = ("_price", "tick")

    def __init__(self, price: Decimal | None = None, tick: Aggressor | None = None) -> None:
        """`price` is that of the trade before the next, `tick` where the last different price before it moved to."""
        self._price = price
        self.tick = tick

    def side(self, fill: Fill, best_bid: Decimal | None, best_ask: Decimal | None) -> Aggressor:
        """The aggressor of `fill`, which becomes the trade before the next. No quotes (None) while a book is stale."""
        side = aggressor(fill, best_bid, best_ask, self._price, self.tick)
        if self._price is None:
            # Until a price differs there is no tick; what is known of the first trade stands in for it.
            self.tick = side
        elif fill.price != self._price:
            self.tick = _BUY if fill.price > self._price else _SELL
        self._price = fill.price
        return side


def aggressor(
    fill: Fill,
    best_bid: Decimal | None,
    best_ask: Decimal | None,
    previous_price: Decimal | None,
    previous_tick: Aggressor | None,
) -> Aggressor:
    """The aggressor of one trade, by the first of these that can tell; `previous_tick` is where the last different
    price before `previous_price` moved to (up is "buy").

    1. `taker_side`, where the engine gives it.
    2. The quote rule: at or above the ask a buy, at or below the bid a sell; between them by the nearer. With one side
       of the book empty, a trade away from the other did not take from it: below the only ask it is a sell, above
       the only bid a buy.
    3. The tick rule, at the midpoint, without quotes or with crossed ones: above the previous price a buy, below it a
       sell, at it as `previous_tick`.
    4. For a first trade with none of these: the younger order took. That is the larger of integer ids, and of strings
       the one that sorts last, which is right for ids that begin with a time (UUIDv7); for random ids it is the toss
       of a coin that every instance sees fall the same way, and at least leans to neither side.
    """
    price = fill.price
    if fill.taker_side is not None:
        return _BUY if fill.taker_side is Side.BID else _SELL
    takes_ask = best_ask is not None and price >= best_ask
    takes_bid = best_bid is not None and price <= best_bid
    if takes_ask != takes_bid:
        return _BUY if takes_ask else _SELL
    if not takes_ask:
        if best_bid is not None and best_ask is not None:
            twice, twice_the_middle = _multiply(price, _TWO), _add(best_bid, best_ask)
            if twice != twice_the_middle:
                return _BUY if twice > twice_the_middle else _SELL
        elif best_bid is not None or best_ask is not None:
            return _BUY if best_ask is None else _SELL
    if previous_price is not None:
        if price != previous_price:
            return _BUY if price > previous_price else _SELL
        if previous_tick is not None:
            return previous_tick
    buyer, seller = integer_of(fill.buy_order_id), integer_of(fill.sell_order_id)
    if buyer is not None and seller is not None:
        return _BUY if buyer > seller else _SELL
    return _BUY if fill.buy_order_id > fill.sell_order_id else _SELL
