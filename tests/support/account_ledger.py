"""What an account service keeps in its database: balances, and what of them each order has reserved. Exact, and no I/O.

The gateway reserves and releases through `tests/support/accounts.py`; the engine tells it of orders, fills and ends (`take`)
before it publishes them. What a ledger must never see is written down in `wrongs`: an order that comes to the engine with nothing
reserved, a release before the engine has ended the order, one of an order that filled completely.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Any
from uuid import uuid4

from exchange.decimals import EXACT, ZERO, decimal_text

LOT = Decimal("0.00000001")

Owner = tuple[str, str]
"""A user and a currency."""


class Refused(Exception):
    """What the service answers with a status and a sentence."""

    def __init__(self, status: int, error: str) -> None:
        self.status = status
        self.error = error
        super().__init__(error)


@dataclass(slots=True, eq=False)
class Hold:
    """What is reserved for one order: `unit` (the price of a bid, 1 of an ask) for each of the `left` that has not filled."""

    order_id: str
    user_id: str
    key: str
    currency: str
    unit: Decimal
    left: Decimal
    is_released: bool = False
    is_placed: bool = False
    ended: str | None = None
    """The type of the event by which the engine ended the order."""

    @property
    def amount(self) -> Decimal:
        return ZERO if self.is_released else EXACT.multiply(self.unit, self.left)


class Ledger:
    """Thread-safe. `price` is what a market order without `max_slippage_price` reserves, in quote per base.

    `next_id` makes the id of a reservation from its Idempotency-Key.
    """

    def __init__(self, deposits: Mapping[Owner, str | Decimal], price: str | Decimal = "2") -> None:
        self.available = {owner: Decimal(amount) for owner, amount in deposits.items()}
        self.price = Decimal(price)
        self.next_id: Callable[[str], str | int] = lambda _key: str(uuid4())
        self.holds: dict[str, Hold] = {}
        self.past: list[Hold] = []
        """Those under whose id there is another one now."""
        self.wrongs: list[str] = []
        self._answers: dict[tuple[str, str], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        self._lock = threading.RLock()

    # What the gateway asks for.

    def reserve(self, user_id: str, key: str, order: Mapping[str, Any]) -> tuple[bool, Mapping[str, Any]]:
        """Whether it is new, and the answer; a repeated key gets the first one. Raises `Refused`."""
        with self._lock:
            known = self._answers.get((user_id, key))
            if known is not None:
                if known[0] != order:
                    raise Refused(409, "the key was used for another order")
                return False, known[1]
            base, quote = order["symbol"].split("/")
            price = Decimal(order.get("price") or order.get("max_slippage_price") or self.price)
            if "quantity" in order:
                quantity = Decimal(order["quantity"])
            else:
                quantity = (Decimal(order["quote_amount"]) / price).quantize(LOT, ROUND_DOWN)
            currency, unit = (quote, price) if order["side"] == "bid" else (base, Decimal(1))
            amount = EXACT.multiply(unit, quantity)
            if amount > self.available.get((user_id, currency), ZERO):
                raise Refused(422, f"insufficient {currency}")
            order_id = self.next_id(key)
            earlier = self.holds.get(str(order_id))
            if earlier is not None:
                self.past.append(earlier)
            self.holds[str(order_id)] = Hold(str(order_id), user_id, key, currency, unit, quantity)
            self._add(user_id, currency, -amount)
            answer = {"order": {"id": order_id, "quantity": decimal_text(quantity)}}
            self._answers[user_id, key] = (order, answer)
            return True, answer

    def release(self, user_id: str, order_id: str) -> Decimal:
        """Give back what is left reserved of an order: how much that was now, 0 if it was done before. Raises `Refused`."""
        with self._lock:
            hold = self.holds.get(order_id)
            if hold is None or hold.user_id != user_id:
                raise Refused(404, "no such reservation")
            if hold.is_placed and hold.ended is None:
                self.wrongs.append(f"order {order_id} was released before the engine had ended it")
            if hold.ended == "order_filled":
                self.wrongs.append(f"order {order_id} was released, and had filled completely")
            amount = hold.amount
            if not hold.is_released:
                hold.is_released = True
                self._answers.pop((user_id, hold.key), None)
                self._add(user_id, hold.currency, amount)
            return amount

    # What the engine tells.

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        """The events of one command, before they are published; told once."""
        with self._lock:
            for event in events:
                if event["type"] == "fill":
                    self._settle(event)
                elif event["type"] == "order_accepted":
                    self._place(str(event["order_id"]))
                elif event["type"] in ("order_filled", "order_cancelled", "order_rejected"):
                    self._place(str(event["order_id"]))
                    if (hold := self.holds.get(str(event["order_id"]))) is not None:
                        hold.ended = event["type"]

    def _place(self, order_id: str) -> None:
        hold = self.holds.get(order_id)
        if hold is None or (hold.is_released and not hold.is_placed):
            self.wrongs.append(f"order {order_id} came to the engine with nothing reserved")
        if hold is not None:
            hold.is_placed = True

    def _settle(self, fill: Mapping[str, Any]) -> None:
        price, quantity = Decimal(fill["price"]), Decimal(fill["quantity"])
        base, quote = fill["symbol"].split("/")
        value = EXACT.multiply(price, quantity)
        for order_id, gets, gotten, paid in (
            (str(fill["buy_order_id"]), base, quantity, value),
            (str(fill["sell_order_id"]), quote, value, quantity),
        ):
            hold = self.holds.get(order_id)
            if hold is None or hold.is_released or quantity > hold.left:
                self.wrongs.append(f"order {order_id} filled {quantity}, and so much was not reserved")
                continue
            # A bid may have been filled for less than it had reserved.
            self._add(hold.user_id, hold.currency, EXACT.subtract(EXACT.multiply(hold.unit, quantity), paid))
            self._add(hold.user_id, gets, gotten)
            hold.left = EXACT.subtract(hold.left, quantity)

    # What a test looks at.

    def reserved(self) -> dict[Owner, Decimal]:
        """What is reserved, by user and currency; those of whom something is."""
        with self._lock:
            sums: dict[Owner, Decimal] = {}
            for hold in [*self.past, *self.holds.values()]:
                if amount := hold.amount:
                    owner = (hold.user_id, hold.currency)
                    sums[owner] = EXACT.add(sums.get(owner, ZERO), amount)
            return sums

    def totals(self) -> dict[str, Decimal]:
        """All that there is of each currency, available and reserved: what was deposited, always."""
        with self._lock:
            sums: Counter[str] = Counter()
            for (_, currency), amount in [*self.available.items(), *self.reserved().items()]:
                sums[currency] = EXACT.add(Decimal(sums[currency]), amount)
            return {currency: Decimal(amount) for currency, amount in sums.items()}

    def unplaced(self) -> list[Hold]:
        """What is reserved for orders that the engine has not seen, or had ended before it was reserved."""
        with self._lock:
            return [hold for hold in [*self.past, *self.holds.values()] if hold.amount and not hold.is_placed]

    def balances(self, user_id: str) -> dict[str, Any]:
        """The body of `GET /api/balances`."""
        with self._lock:
            reserved = self.reserved()
            owners = sorted(owner for owner in self.available if owner[0] == user_id)
            return {
                "balances": [
                    {
                        "asset": owner[1],
                        "available": decimal_text(self.available[owner].normalize(EXACT)),
                        "locked": decimal_text(reserved.get(owner, ZERO).normalize(EXACT)),
                    }
                    for owner in owners
                ]
            }

    def _add(self, user_id: str, currency: str, amount: Decimal) -> None:
        owner = (user_id, currency)
        self.available[owner] = EXACT.add(self.available.get(owner, ZERO), amount)
