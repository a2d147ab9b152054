"""Market events as engines write them, in all the ways that JSON allows."""

from __future__ import annotations

import json
import random
import string
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.integration.clients import notification

_serial = iter(range(1_000_000))


def fresh_symbol(base: str = "T") -> str:
    """A symbol that no other test uses, so that tests share a gateway and its topics."""
    return f"{base}{next(_serial)}-{uuid.uuid4().hex[:8]}/EUR"


def dump(event: object) -> bytes:
    """Compact JSON."""
    return json.dumps(event, separators=(",", ":")).encode()


def fill(symbol: str, /, **more: object) -> bytes:
    """A fill; `more` replaces and adds members."""
    return dump(
        {
            "type": "fill",
            "symbol": symbol,
            "buy_order_id": str(uuid.uuid4()),
            "sell_order_id": str(uuid.uuid4()),
            "price": "10.10",
            "quantity": "0.500",
            "timestamp": 1_700_000_000_000,
            **more,
        }
    )


def snapshot(symbol: str, sequence: int = 1, /, **more: object) -> bytes:
    """A book of one level a side."""
    return dump(
        {
            "type": "orderbook_snapshot",
            "symbol": symbol,
            "sequence": sequence,
            "bids": [{"price": "10.00", "quantity": "1.50"}],
            "asks": [{"price": "10.20", "quantity": "2"}],
            **more,
        }
    )


def delta(symbol: str, sequence: int, *changes: tuple[str, str, str, str], **more: object) -> bytes:
    """A delta of (action, side, price, quantity)."""
    names = ("action", "side", "price", "quantity")
    return dump(
        {
            "type": "orderbook_delta",
            "symbol": symbol,
            "sequence": sequence,
            "deltas": [dict(zip(names, change, strict=True)) for change in changes],
            **more,
        }
    )


@dataclass
class Engine:
    """Random events of some symbols, written as differently as JSON allows. Repeatable by its seed.

    `public` has, for each symbol, the records that clients may see, in order.
    """

    random: random.Random
    symbols: list[str]
    public: dict[str, list[bytes]] = field(default_factory=dict)
    _sequence: int = 0

    def records(self, count: int) -> Iterator[tuple[str, bytes]]:
        """(symbol, record): first a snapshot of each symbol, then anything."""
        for symbol in self.symbols:
            self.public[symbol] = []
        for number in range(count):
            is_first = number < len(self.symbols)
            symbol = self.symbols[number] if is_first else self.random.choice(self.symbols)
            kinds = (
                [self._snapshot] if is_first else [self._fill, self._delta, self._snapshot, self._private, self._odd]
            )
            make = self.random.choices(kinds, [1] if is_first else [40, 40, 2, 12, 6])[0]
            members = make(symbol)
            is_public = make not in (self._private, self._odd)
            if self.random.random() < 0.2:
                members["user_id"] = self._word()
            record = self._write(members).encode()
            if is_public:
                self.public[symbol].append(record)
            yield symbol, record

    def _price(self, side: str) -> object:
        # Bids stay below 100 and asks above, so that no book is ever crossed.
        whole = self.random.randint(1, 99) if side == "bid" else self.random.randint(101, 999)
        return self._number(f"{whole}.{self.random.randint(0, 999):03d}")

    def _number(self, digits: str) -> object:
        return Raw(digits) if self.random.random() < 0.3 else digits

    def _quantity(self) -> object:
        return self._number(f"{self.random.randint(1, 999)}.{'0' * self.random.randint(1, 20)}1")

    def _step(self) -> int:
        self._sequence += self.random.randint(1, 5)
        return self._sequence

    def _word(self) -> str:
        alphabet = string.ascii_letters + '/\\"éß漢🙂\u2028\t\x7f'
        return "".join(self.random.choices(alphabet, k=self.random.randint(1, 12)))

    def _fill(self, symbol: str) -> dict[str, object]:
        members: dict[str, object] = {
            "type": "fill",
            "symbol": symbol,
            "buy_order_id": self.random.randint(1, 10**9) if self.random.random() < 0.3 else str(uuid.uuid4()),
            "sell_order_id": str(uuid.uuid4()),
            "price": self._price("bid"),
            "quantity": self._quantity(),
            "timestamp": 1_700_000_000_000 + self._step(),
        }
        if self.random.random() < 0.5:
            members["taker_side"] = self.random.choice(["bid", "ask"])
        return members

    def _levels(self, side: str) -> list[object]:
        return [{"price": self._price(side), "quantity": self._quantity()} for _ in range(self.random.randint(0, 8))]

    def _snapshot(self, symbol: str) -> dict[str, object]:
        return {
            "type": "orderbook_snapshot",
            "symbol": symbol,
            "sequence": self._step(),
            "bids": self._levels("bid"),
            "asks": self._levels("ask"),
        }

    def _delta(self, symbol: str) -> dict[str, object]:
        changes: list[object] = []
        for _ in range(self.random.randint(0, 4)):
            side = self.random.choice(["bid", "ask"])
            action = self.random.choice(["add", "update", "remove"])
            changes.append({"action": action, "side": side, "price": self._price(side), "quantity": self._quantity()})
        return {"type": "orderbook_delta", "symbol": symbol, "sequence": self._step(), "deltas": changes}

    def _private(self, symbol: str) -> dict[str, object]:
        kind = self.random.choice(["order_accepted", "order_filled", "order_cancelled", "order_rejected"])
        return {
            "type": kind,
            "order_id": str(uuid.uuid4()),
            "symbol": symbol,
            "side": "bid",
            "order_type": "limit",
            "price": "1",
            "quantity": "1",
            "filled_quantity": "0",
            "reason": "no",
            "user_id": "trader",
        }

    def _odd(self, symbol: str) -> dict[str, object]:
        return {"type": self.random.choice(["settlement", "Fill", "heartbeat", ""]), "symbol": symbol}

    def _write(self, members: dict[str, object]) -> str:
        items = [*members.items(), *((self._word() + "_", self._word()) for _ in range(self.random.randint(0, 2)))]
        self.random.shuffle(items)
        return self._space() + self._object(items) + self._space()

    def _space(self) -> str:
        return "".join(self.random.choices(" \t\n\r", k=self.random.choice([0, 0, 0, 1, 3])))

    def _object(self, items: Iterable[tuple[str, object]]) -> str:
        written = [
            f"{self._space()}{self._text(name)}{self._space()}:{self._space()}{self._value(value)}{self._space()}"
            for name, value in items
        ]
        return "{" + ",".join(written) + "}"

    def _value(self, value: object) -> str:
        if isinstance(value, Raw):
            return value.text
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return "[" + ",".join(f"{self._space()}{self._value(one)}{self._space()}" for one in value) + "]"
        if isinstance(value, dict):
            return self._object(value.items())
        return json.dumps(value)

    def _text(self, text: str) -> str:
        written = json.dumps(text, ensure_ascii=self.random.random() < 0.5)
        return written.replace("/", "\\/") if self.random.random() < 0.3 else written


@dataclass(frozen=True)
class Raw:
    """A number as it is to be written."""

    text: str


def shown(record: bytes) -> Any:
    """What a client may see of a record, by value: without `user_id`, every digit as it was written."""
    members = notification(record)
    members.pop("user_id", None)
    return members
