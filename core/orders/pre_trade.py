"""Pre-trade limits: what an order may be at most, whatever its owner can pay for (docs/contract.md#pre-trade-limits).

They hold for what is new. A repeat of an order or amend is told what became of the first, whatever the mark is by now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

from core.errors import FieldError, LimitExceeded
from core.messages.commands import AmendOrder, PlaceOrder
from core.messages.model import EXACT, ZERO, Instrument, decimal_text
from core.orders.attempt import Attempt
from core.orders.order import Order, Outcome

MAX_QUANTITY: Final = "max_quantity"
MAX_NOTIONAL: Final = "max_notional"
PRICE_BAND: Final = "price_band_percent"
MAX_OPEN_ORDERS: Final = "max_open_orders"


class PreTrade:
    """What of the limits is set; where nothing is, there is none of these (`pre_trade`)."""

    def __init__(
        self,
        instruments: Iterable[Instrument],
        max_open_orders: int,
        *,
        mark: Callable[[str], Decimal | None],
        open_orders: Callable[[str], int],
    ) -> None:
        """`mark`: a symbol's, in quote per base, None where it is not known. `open_orders`: how many a user has that are shown.
        `max_open_orders` of 0 is no limit.
        """
        self._limited = {instrument.symbol: instrument for instrument in instruments if instrument.is_limited}
        self._max_open_orders = max_open_orders
        self._mark = mark
        self._open_orders = open_orders
        # By user, orders on their way in; some of them are shown already.
        self._under_way: defaultdict[str, set[Attempt]] = defaultdict(set)

    def check_order(self, user_id: str | None, order: PlaceOrder) -> None:
        """Whether a new order may go out. Raises LimitExceeded with every limit that it is beyond."""
        excesses: list[tuple[str, FieldError]] = []
        instrument = self._limited.get(order.symbol)
        if instrument is not None:
            self._check_terms(instrument, order.price, order.quantity, order.price, excesses)
            most = instrument.max_notional
            if most is not None and order.quote_amount is not None and order.quote_amount > most:
                excesses.append((MAX_NOTIONAL, FieldError("quote_amount", _at_most(most, MAX_NOTIONAL))))
        if self._max_open_orders and user_id is not None and self._open(user_id) >= self._max_open_orders:
            told = f"expected at most {self._max_open_orders} open orders (limits.{MAX_OPEN_ORDERS})"
            excesses.append((MAX_OPEN_ORDERS, FieldError("body", told)))
        _refuse(excesses)

    def check_amend(self, symbol: str, order: Order | None, amend: AmendOrder) -> None:
        """Whether the order may have these terms; of one that is not known (None) what it keeps is not. Raises LimitExceeded."""
        instrument = self._limited.get(symbol)
        if instrument is None:
            return
        price, quantity = amend.price, amend.quantity
        if order is not None:
            price = Decimal(order.price) if price is None and order.price is not None else price
            quantity = Decimal(order.quantity) if quantity is None else quantity
        excesses: list[tuple[str, FieldError]] = []
        if order is not None or price is not None:
            self._check_terms(instrument, price, quantity, amend.price, excesses)
        elif quantity is not None:
            _check_quantity(instrument, quantity, excesses)
        _refuse(excesses)

    def excess_reserved(self, symbol: str, quantity: Decimal) -> LimitExceeded | None:
        """Why an order by amount may not go out with what was reserved for it; None where it may."""
        excesses: list[tuple[str, FieldError]] = []
        if symbol in self._limited:
            _check_quantity(self._limited[symbol], quantity, excesses, "quote_amount")
        return _excess(excesses)

    def began(self, attempt: Attempt) -> None:
        """It is on its way in, and counts as open."""
        if self._max_open_orders and attempt.user_id is not None:
            self._under_way[attempt.user_id].add(attempt)

    def ended(self, attempt: Attempt) -> None:
        """It is over, and counts if it is shown."""
        if self._max_open_orders and attempt.user_id is not None:
            of_user = self._under_way[attempt.user_id]
            of_user.discard(attempt)
            if not of_user:
                del self._under_way[attempt.user_id]

    def _open(self, user_id: str) -> int:
        under_way = self._under_way.get(user_id, ())
        unseen = sum(one.record is None or one.record.outcome is Outcome.AWAITED for one in under_way)
        return self._open_orders(user_id) + unseen

    def _check_terms(
        self,
        instrument: Instrument,
        price: Decimal | None,
        quantity: Decimal | None,
        new_price: Decimal | None,
        excesses: list[tuple[str, FieldError]],
    ) -> None:
        """`price` is None for a market order, which is worth what it is at the mark."""
        mark = None
        if instrument.price_band_percent is not None or (instrument.max_notional is not None and price is None):
            mark = self._mark(instrument.symbol)
        if instrument.price_band_percent is not None and new_price is not None and mark is not None:
            _check_band(instrument.price_band_percent, new_price, mark, excesses)
        if quantity is None:
            return
        _check_quantity(instrument, quantity, excesses)
        worth = mark if price is None else price
        if instrument.max_notional is not None and worth is not None:
            notional = EXACT.multiply(worth, quantity)
            if notional > instrument.max_notional:
                at = "at the mark " if price is None else ""
                told = f"is worth {at}{_text(notional)}, {_at_most(instrument.max_notional, MAX_NOTIONAL)}"
                excesses.append((MAX_NOTIONAL, FieldError("quantity", told)))


def pre_trade(
    instruments: Iterable[Instrument],
    max_open_orders: int,
    *,
    mark: Callable[[str], Decimal | None],
    open_orders: Callable[[str], int],
) -> PreTrade | None:
    """The limits that are set, as `PreTrade`; None where none is."""
    limited = [instrument for instrument in instruments if instrument.is_limited]
    if not limited and not max_open_orders:
        return None
    return PreTrade(limited, max_open_orders, mark=mark, open_orders=open_orders)


def _check_quantity(
    instrument: Instrument, quantity: Decimal, excesses: list[tuple[str, FieldError]], field: str = "quantity"
) -> None:
    most = instrument.max_quantity
    if most is not None and quantity > most:
        got = "" if field == "quantity" else f"buys or sells {decimal_text(quantity)}, "
        excesses.append((MAX_QUANTITY, FieldError(field, got + _at_most(most, MAX_QUANTITY))))


def _check_band(percent: Decimal, price: Decimal, mark: Decimal, excesses: list[tuple[str, FieldError]]) -> None:
    distance = EXACT.multiply(mark, percent).scaleb(-2, EXACT)
    low, high = max(EXACT.subtract(mark, distance), ZERO), EXACT.add(mark, distance)
    if not low <= price <= high:
        told = f"expected {_text(low)} to {_text(high)}, within {_text(percent)} % of the mark, {_text(mark)} ({PRICE_BAND})"
        excesses.append((PRICE_BAND, FieldError("price", told)))


def _refuse(excesses: list[tuple[str, FieldError]]) -> None:
    if (excess := _excess(excesses)) is not None:
        raise excess


def _excess(excesses: list[tuple[str, FieldError]]) -> LimitExceeded | None:
    return LimitExceeded(excesses[0][0], [error for _, error in excesses]) if excesses else None


def _at_most(most: Decimal, limit: str) -> str:
    return f"expected at most {decimal_text(most)} ({limit})"


def _text(value: Decimal) -> str:
    return decimal_text(value.normalize(EXACT))
