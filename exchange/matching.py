"""The matching engine: commands in, market events out. No input or output, no clock of its own.

Price-time priority: the best price first, at one price the oldest order first; every fill is at the resting order's
price. What a reader may not expect:

- Two orders of one user do trade with each other, unless the one that comes says what is to be cancelled instead (`stp`), at
  whichever it meets. A fill-or-kill order that is refused for that cancels nothing.
- A post-only order that would trade when it comes is rejected, and so is an amend by which it would; also with an own order.
- A market order never rests: GTC on it means IOC. On an empty side it is rejected; what it cannot fill is cancelled.
- A cancel or an amend of an order that is unknown, closed, in another symbol or another user's has no answer, so that
  nobody can find out whose an order is. An order without a user can be cancelled by whoever knows its id.
- An amended order keeps its id, always, and its place in the queue if it only gets less; else it comes anew, and trades
  where its new price crosses. With a total at or below what is filled it is cancelled with that.
- What is past its deadline is refused.
- An order id counts once. Ids are remembered while their order is open, and beyond that the last
  `REMEMBERED_ORDER_IDS` that came through `execute`, rejected ones included; older ones could be placed again.
- `sequence` counts commands and snapshots of a symbol, so it also steps where nothing is published. It begins at the
  clock's milliseconds: a restarted engine goes on above where the one before it stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

from exchange import events
from exchange.accounts import Accounts
from exchange.book import Book, Order, is_within
from exchange.commands import (
    AmendOrder,
    CancelOrder,
    Instrument,
    OrderId,
    OrderType,
    PlaceOrder,
    Refused,
    SelfTrade,
    Side,
    TimeInForce,
    read_command,
)
from exchange.decimals import EXACT, ZERO, decimal_text, is_multiple, written_like
from exchange.events import Event

REMEMBERED_ORDER_IDS: Final = 100_000
# Bounds on what strangers can make the engine hold. A snapshot of two full sides of the longest decimals stays under
# Kafka's default limit of 1 MB for a record.
MAX_LEVELS_A_SIDE: Final = 2_000
MAX_OPEN_ORDERS: Final = 50_000
MAX_SYMBOLS: Final = 1_000
LATE: Final = "deadline_ms: has passed"
WOULD_TRADE: Final = "post_only: would trade at once"


class Engine:
    """All books. `rules` are the traded symbols, None where a symbol has neither tick nor lot.

    With `open_symbols` any other well-formed symbol is traded too, without rules: its book comes into being with its
    first accepted order, whose events then begin with a snapshot. `clock` gives integer milliseconds. Without
    `accounts` everybody can pay for everything.
    """

    def __init__(
        self,
        rules: Iterable[tuple[str, Instrument | None]],
        clock: Callable[[], int],
        *,
        open_symbols: bool = False,
        remembered_order_ids: int = REMEMBERED_ORDER_IDS,
        accounts: Accounts | None = None,
    ) -> None:
        self._clock = clock
        self._accounts = accounts
        self._rules = dict(rules)
        self._open_symbols = open_symbols
        self._books = {symbol: Book(symbol) for symbol in self._rules}
        self._sequences = {symbol: clock() for symbol in self._rules}
        self._orders: dict[OrderId, Order] = {}
        self._seen: set[OrderId] = set()
        self._seen_in_order: deque[OrderId] = deque()
        self._remembered_order_ids = remembered_order_ids

    @property
    def symbols(self) -> list[str]:
        return list(self._books)

    def book(self, symbol: str) -> Book:
        return self._books[symbol]

    def order(self, order_id: OrderId) -> Order | None:
        """The open order of that id."""
        return self._orders.get(order_id)

    def execute(self, command: object) -> list[Event]:
        """Carry out one command as read from JSON; events in the order in which they happened.

        That is: accepted (or amended), every fill, the orders this closed (resting ones first), and one delta with the net change
        of the book. Raises commands.Malformed for what cannot even be rejected.
        """
        try:
            checked = read_command(command)
        except Refused as refusal:
            if not self._is_first(refusal.order_id):
                return []
            return [
                events.order_rejected(refusal.order_id, refusal.symbol, refusal.user_id, refusal.reason, self._clock())
            ]
        if isinstance(checked, CancelOrder):
            return self.cancel(checked)
        if isinstance(checked, AmendOrder):
            return self.amend(checked)
        if not self._is_first(checked.order_id):
            self._step(checked.symbol)
            return []
        return self.place(checked)

    def place(self, command: PlaceOrder) -> list[Event]:
        """As `execute`, for the simulation's own traders: does not remember the id once the order is closed."""
        if command.order_id in self._orders:
            return []
        reason = self._refusal(command)
        book = self._books.get(command.symbol)
        if book is None:
            book = Book(command.symbol)
        if reason is None:
            reason = _lack_of_liquidity(book, command)
        if reason is None and command.post_only and _would_trade(book, command.side, command.price):
            reason = WOULD_TRADE
        if reason is None and self._accounts is not None:
            buys_at_market = command.order_type is OrderType.MARKET and command.side is Side.BID
            reason = self._accounts.reserve(command, _market_cost(book, command) if buys_at_market else ZERO)
        if reason is not None:
            self._step(command.symbol)
            return [events.order_rejected(command.order_id, command.symbol, command.user_id, reason, self._clock())]
        published: list[Event] = []
        if command.symbol not in self._books:
            self._books[command.symbol] = book
            self._sequences[command.symbol] = self._clock()
            published.append(self.snapshot(command.symbol))
        published.extend(self._match(book, self._normalised(command)))
        return published

    def cancel(self, command: CancelOrder) -> list[Event]:
        self._step(command.symbol)
        order = self._find(command)
        return [] if order is None else self._cancel(order)

    def _find(self, command: CancelOrder | AmendOrder) -> Order | None:
        """The open order that this user may cancel or amend."""
        order = self._orders.get(command.order_id)
        if order is None or order.symbol != command.symbol or order.user_id not in (None, command.user_id):
            return None
        return order

    def _cancel(self, order: Order) -> list[Event]:
        del self._orders[order.order_id]
        book = self._books[order.symbol]
        book.remove(order)
        self._release(order)
        timestamp_ms = self._clock()
        return [
            events.order_cancelled(order, timestamp_ms),
            events.orderbook_delta(order.symbol, self._sequences[order.symbol], book.take_changes(), timestamp_ms),
        ]

    def amend(self, command: AmendOrder) -> list[Event]:
        self._step(command.symbol)
        order = self._find(command)
        if order is None:
            return []
        price = order.price if command.price is None else command.price
        quantity = order.quantity if command.quantity is None else command.quantity
        if quantity <= order.filled and not self._is_late(command):
            return self._cancel(order)
        reason = (
            LATE
            if self._is_late(command)
            else self._breach(order.symbol, price, quantity) or self._level_excess(order.symbol, order.side, price)
        )
        if reason is None and order.post_only and _would_trade(self._books[order.symbol], order.side, price):
            reason = WOULD_TRADE
        if reason is None and self._accounts is not None:
            reason = self._accounts.amend(order, price, EXACT.subtract(quantity, order.filled))
        timestamp_ms = self._clock()
        if reason is not None:
            return [events.order_amend_rejected(order, reason, timestamp_ms)]
        price, quantity = self._written(order.symbol, price, quantity)
        book = self._books[order.symbol]
        fills: list[Event] = []
        closed: list[Event] = []
        if price == order.price and quantity <= order.quantity:
            if quantity < order.quantity:
                book.reduce(order, quantity)
        else:
            book.remove(order)
            order.remaining = EXACT.subtract(quantity, order.filled)
            order.price, order.quantity = price, quantity
            fills, closed, is_stopped = self._trade(book, order, price, timestamp_ms)
            if order.remaining and not is_stopped:
                book.rest(order)
            else:
                del self._orders[order.order_id]
                self._release(order)
        return [events.order_amended(order, timestamp_ms), *fills, *closed, *self._changes(book, timestamp_ms)]

    def snapshot(self, symbol: str) -> Event:
        """The whole book of a traded symbol, best levels first; as of its `sequence`."""
        self._step(symbol)
        return events.orderbook_snapshot(self._books[symbol], self._sequences[symbol], self._clock())

    def _match(self, book: Book, command: PlaceOrder) -> list[Event]:
        timestamp_ms = self._clock()
        self._step(command.symbol)
        # A market order has no price, and never rests, so the price it is held with is never looked at.
        taker = Order(
            command.order_id,
            command.symbol,
            command.side,
            command.price if command.price is not None else Decimal(0),
            command.quantity,
            command.quantity,
            command.user_id,
            command.post_only,
            command.stp,
        )
        fills, closed, is_stopped = self._trade(book, taker, command.price, timestamp_ms)
        if taker.remaining and not is_stopped:
            if command.order_type is OrderType.MARKET or command.time_in_force is not TimeInForce.GTC:
                closed.append(events.order_cancelled(taker, timestamp_ms))
            else:
                book.rest(taker)
                self._orders[taker.order_id] = taker
        if taker.order_id not in self._orders:
            self._release(taker)
        return [events.order_accepted(command, timestamp_ms), *fills, *closed, *self._changes(book, timestamp_ms)]

    def _trade(
        self, book: Book, taker: Order, limit: Decimal | None, timestamp_ms: int
    ) -> tuple[list[Event], list[Event], bool]:
        """Fill an order that is not in the book from what is there up to `limit`: its fills, the orders that ended by it, and whether
        it is one that was cancelled for meeting an order of the same user.
        """
        fills: list[Event] = []
        closed: list[Event] = []
        opposite = taker.side.opposite
        while taker.remaining:
            level = book.best(opposite)
            if level is None or not is_within(opposite, level.price, limit):
                break
            maker = level.first
            if taker.stp is not None and maker.is_of(taker.user_id):
                if taker.stp is not SelfTrade.CANCEL_NEWEST:
                    book.remove(maker)
                    del self._orders[maker.order_id]
                    self._release(maker)
                    closed.append(events.order_cancelled(maker, timestamp_ms))
                if taker.stp is not SelfTrade.CANCEL_OLDEST:
                    closed.append(events.order_cancelled(taker, timestamp_ms))
                    return fills, closed, True
                continue
            quantity = min(taker.remaining, maker.remaining)
            book.take(maker, quantity)
            taker.remaining = EXACT.subtract(taker.remaining, quantity)
            fills.append(events.fill(taker, maker, quantity, timestamp_ms))
            if self._accounts is not None:
                self._accounts.settle(taker, maker, quantity)
            if not maker.remaining:
                del self._orders[maker.order_id]
                self._release(maker)
                closed.append(events.order_filled(maker, timestamp_ms))
        if not taker.remaining:
            closed.append(events.order_filled(taker, timestamp_ms))
        return fills, closed, False

    def _changes(self, book: Book, timestamp_ms: int) -> list[Event]:
        """What a command changed in the book, in one delta if anything."""
        changes = book.take_changes()
        sequence = self._sequences[book.symbol]
        return [events.orderbook_delta(book.symbol, sequence, changes, timestamp_ms)] if changes else []

    def _release(self, order: Order) -> None:
        if self._accounts is not None:
            self._accounts.release(order)

    def _refusal(self, command: PlaceOrder) -> str | None:
        """Why the rules forbid this order, or None."""
        if self._is_late(command):
            return LATE
        if command.symbol not in self._rules and not self._open_symbols:
            return "symbol: is not traded here"
        breach = self._breach(command.symbol, command.price, command.quantity)
        if breach is not None:
            return breach
        if command.symbol not in self._books and len(self._books) >= MAX_SYMBOLS:
            return "symbol: too many symbols are traded already"
        if command.price is not None and command.time_in_force is TimeInForce.GTC:
            if len(self._orders) >= MAX_OPEN_ORDERS:
                return "too many open orders"
            return self._level_excess(command.symbol, command.side, command.price)
        return None

    def _is_late(self, command: PlaceOrder | AmendOrder) -> bool:
        return command.deadline_ms is not None and self._clock() > command.deadline_ms

    def _breach(self, symbol: str, price: Decimal | None, quantity: Decimal) -> str | None:
        """What of the instrument's rules an order of these terms would break, or None."""
        instrument = self._rules.get(symbol)
        if instrument is None:
            return None
        if price is not None and not is_multiple(price, instrument.tick):
            return f"price: must be a multiple of the tick, {decimal_text(instrument.tick)}"
        if not is_multiple(quantity, instrument.lot):
            return f"quantity: must be a multiple of the lot, {decimal_text(instrument.lot)}"
        if quantity < instrument.min_quantity:
            return f"quantity: must be at least {decimal_text(instrument.min_quantity)}"
        return None

    def _level_excess(self, symbol: str, side: Side, price: Decimal) -> str | None:
        book = self._books.get(symbol)
        if book is not None and book.level_count(side) >= MAX_LEVELS_A_SIDE and not book.has_level(side, price):
            return "price: too many price levels in the book"
        return None

    def _written(self, symbol: str, price: Decimal, quantity: Decimal) -> tuple[Decimal, Decimal]:
        """With as many decimals as tick and lot have, so one price is always written in one way."""
        instrument = self._rules.get(symbol)
        if instrument is None:
            return price, quantity
        return written_like(price, instrument.tick), written_like(quantity, instrument.lot)

    def _normalised(self, command: PlaceOrder) -> PlaceOrder:
        """With as many decimals as tick and lot have, so one price is always written in one way."""
        instrument = self._rules.get(command.symbol)
        if instrument is None:
            return command
        return PlaceOrder(
            command.order_id,
            command.symbol,
            command.side,
            command.order_type,
            written_like(command.price, instrument.tick) if command.price is not None else None,
            written_like(command.quantity, instrument.lot),
            command.time_in_force,
            command.user_id,
            command.deadline_ms,
            command.post_only,
            command.stp,
        )

    def _is_first(self, order_id: OrderId) -> bool:
        if order_id in self._seen or order_id in self._orders:
            return False
        self._seen.add(order_id)
        self._seen_in_order.append(order_id)
        if len(self._seen_in_order) > self._remembered_order_ids:
            self._seen.discard(self._seen_in_order.popleft())
        return True

    def _step(self, symbol: str) -> None:
        if symbol in self._sequences:
            self._sequences[symbol] += 1


def _would_trade(book: Book, side: Side, price: Decimal | None) -> bool:
    best = book.best(side.opposite)
    return best is not None and is_within(side.opposite, best.price, price)


def _market_cost(book: Book, command: PlaceOrder) -> Decimal:
    """What a market order to buy may cost: it goes past own orders that it has cancelled."""
    goes_past = command.stp is SelfTrade.CANCEL_OLDEST
    return book.cost(Side.ASK, command.quantity, command.user_id if goes_past else None)


def _lack_of_liquidity(book: Book, command: PlaceOrder) -> str | None:
    opposite = command.side.opposite
    if command.order_type is OrderType.MARKET and book.best(opposite) is None:
        return "no liquidity: the other side of the book is empty"
    if command.time_in_force is not TimeInForce.FOK:
        return None
    available = (
        book.available(opposite, command.price, enough=command.quantity)
        if command.stp is None
        else book.available_to(command.user_id, command.stp, opposite, command.price, command.quantity)
    )
    if available < command.quantity:
        return "insufficient liquidity to fill the whole order at once"
    return None
