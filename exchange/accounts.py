"""What each user has: by currency what is available, and what is reserved for open orders.

An order is taken only where its user can pay for all of it: what it may cost is reserved, moves with its fills, and is
released with its end. So neither is ever negative, and the sum of a currency over all accounts changes only by trades with
those who have none: nobody's orders, and the traders of the simulation. There are no fees.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from exchange.book import Order
from exchange.commands import Malformed, OrderId, PlaceOrder, Side, read_record
from exchange.decimals import EXACT, ZERO, decimal_text, read_decimal

# A bound on what strangers can make this hold.
MAX_ACCOUNTS: Final = 100_000


@dataclass(slots=True)
class _Balance:
    available: Decimal = ZERO
    reserved: Decimal = ZERO


_Account = dict[str, _Balance]


@dataclass(slots=True)
class _Hold:
    """What is still reserved for an order; `limit` is its price, None for a market order."""

    balance: _Balance
    amount: Decimal
    limit: Decimal | None


@dataclass(slots=True)
class Accounts:
    """`deposit` is what everybody begins with, by currency. `clock` gives integer milliseconds. `without` have no account."""

    deposit: Mapping[str, Decimal]
    clock: Callable[[], int]
    without: set[str | None] = field(default_factory=lambda: {None})
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _holds: dict[OrderId, _Hold] = field(default_factory=dict)
    # In the order in which they changed first.
    _changed: dict[str, None] = field(default_factory=dict)

    def open(self, user_id: str) -> None:
        """Have an account for the user, with the deposit if it is a new one."""
        if user_id not in self._accounts:
            self._accounts[user_id] = {currency: _Balance(amount) for currency, amount in self.deposit.items()}
            self._changed[user_id] = None

    def restore(self, value: bytes | None) -> None:
        """What an earlier exchange told of an account: its orders are gone, so all is available. What cannot be read is not taken."""
        try:
            record = read_record(value)
        except Malformed:
            return
        if not isinstance(record, dict) or not isinstance(record.get("user_id"), str):
            return
        account: _Account = {}
        try:
            for currency, amounts in record["balances"].items():
                both = (read_decimal(amounts[name]) for name in ("available", "reserved"))
                account[currency] = _Balance(EXACT.add(*both))
        except (KeyError, TypeError, AttributeError, ValueError):
            return
        self._accounts[record["user_id"]] = account
        self._changed[record["user_id"]] = None

    def reserve(self, command: PlaceOrder, market_cost: Decimal) -> str | None:
        """Reserve what the order may cost (a market order to buy: `market_cost`); else the reason for refusing it."""
        user_id = command.user_id
        if user_id is None or user_id in self.without:
            return None
        if user_id not in self._accounts and len(self._accounts) >= MAX_ACCOUNTS:
            return "too many accounts"
        self.open(user_id)
        base, _, quote = command.symbol.partition("/")
        currency, amount = base, command.quantity
        if command.side is Side.BID:
            currency = quote
            amount = market_cost if command.price is None else EXACT.multiply(command.price, command.quantity)
        balance = self._balance(user_id, currency)
        if balance.available < amount:
            return f"insufficient funds: {_text(amount)} {currency} needed, {_text(balance.available)} available"
        _move(balance, amount)
        self._holds[command.order_id] = _Hold(balance, amount, command.price if command.side is Side.BID else None)
        self._changed[user_id] = None
        return None

    def amend(self, order: Order, price: Decimal, remaining: Decimal) -> str | None:
        """Reserve what an open order may cost at another price and with so much of it left; else the reason for refusing it."""
        hold = self._holds.get(order.order_id)
        if hold is None or order.user_id is None:
            return None
        base, _, quote = order.symbol.partition("/")
        currency, amount = (quote, EXACT.multiply(price, remaining)) if order.side is Side.BID else (base, remaining)
        more = EXACT.subtract(amount, hold.amount)
        if hold.balance.available < more:
            return (
                f"insufficient funds: {_text(more)} {currency} more needed, {_text(hold.balance.available)} available"
            )
        _move(hold.balance, more)
        hold.amount = amount
        if hold.limit is not None:
            hold.limit = price
        self._changed[order.user_id] = None
        return None

    def settle(self, taker: Order, maker: Order, quantity: Decimal) -> None:
        """They traded `quantity`, at the maker's price."""
        base, _, quote = taker.symbol.partition("/")
        amount = EXACT.multiply(maker.price, quantity)
        buyer, seller = (taker, maker) if taker.side is Side.BID else (maker, taker)
        for order, paid, got, currency in ((buyer, amount, quantity, base), (seller, quantity, amount, quote)):
            hold = self._holds.get(order.order_id)
            if hold is None or order.user_id is None:
                continue
            hold.amount = EXACT.subtract(hold.amount, paid)
            hold.balance.reserved = EXACT.subtract(hold.balance.reserved, paid)
            if hold.limit is not None:
                # Bought for less than what was reserved for it.
                self._free(hold, EXACT.multiply(EXACT.subtract(hold.limit, maker.price), quantity))
            into = self._balance(order.user_id, currency)
            into.available = EXACT.add(into.available, got)
            self._changed[order.user_id] = None

    def release(self, order: Order) -> None:
        """The order has ended: what is still reserved for it is free again."""
        hold = self._holds.pop(order.order_id, None)
        if hold is not None and order.user_id is not None:
            self._free(hold, hold.amount)
            self._changed[order.user_id] = None

    def tell_again(self, user_ids: Iterable[str]) -> None:
        """Records of these were lost."""
        self._changed |= dict.fromkeys(user_id for user_id in user_ids if user_id in self._accounts)

    def take_changes(self) -> list[tuple[str, bytes]]:
        """By user the records of all accounts that have changed since the last call."""
        changed, self._changed = self._changed, {}
        return [(user_id, self._record(user_id)) for user_id in changed]

    def _record(self, user_id: str) -> bytes:
        balances = {
            currency: {"available": _text(one.available), "reserved": _text(one.reserved)}
            for currency, one in self._accounts[user_id].items()
        }
        record = {"user_id": user_id, "balances": balances, "timestamp": self.clock()}
        return json.dumps(record, separators=(",", ":")).encode("ascii")

    def _balance(self, user_id: str, currency: str) -> _Balance:
        return self._accounts[user_id].setdefault(currency, _Balance())

    @staticmethod
    def _free(hold: _Hold, amount: Decimal) -> None:
        hold.amount = EXACT.subtract(hold.amount, amount)
        _move(hold.balance, -amount)


def _move(balance: _Balance, amount: Decimal) -> None:
    """From what is available to what is reserved."""
    balance.available = EXACT.subtract(balance.available, amount)
    balance.reserved = EXACT.add(balance.reserved, amount)


def _text(amount: Decimal) -> str:
    return decimal_text(EXACT.normalize(amount))
