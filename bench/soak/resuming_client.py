"""Part: the client that misses nothing. `PORT RECONNECT_SECONDS`

It listens to `events`, to the trades and the book of two symbols, leaves without a word now and then, and comes back with
`since`. Events and trades have numbers, offsets only rise, and each change of a book starts from what was held.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from decimal import Decimal
from typing import Any

from bench.soak.faults import Problems
from bench.soak.market import SYMBOLS
from bench.support.processes import is_told, tell
from bench.support.websocket import Stream

AWAY_SECONDS = 0.5
LAST_SECONDS = 60.0
BOOKS = {f"book.{SYMBOLS[0]}.none.all.raw": SYMBOLS[0], f"book.{SYMBOLS[1]}.none.all.100ms": SYMBOLS[1]}
TRADES = {f"trades.{symbol}": symbol for symbol in SYMBOLS[:2]}


class Checked:
    """What has come, and whether it fits."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.problems = Problems()
        self.reconnects = 0
        self.events = 0
        self.changes = 0
        self.numbers: dict[str, int] = {}
        self._trade_numbers: dict[str, int] = {}
        self._trade_seq: dict[str, int] = {}
        self._epoch: dict[str, str] = {}
        # By partition: the last offset, the first, how many, and a hash of all of them.
        self._seq: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._hash: dict[str, Any] = {}
        self._count: dict[str, int] = {}
        self.books: dict[str, dict[str, dict[Decimal, Decimal]] | None] = {}
        self._unrecovered: set[str] = set()
        self._stream: Stream | None = None

    def connect(self) -> None:
        """Subscribe to everything, and to what can be resumed from where it was."""
        self._stream = Stream(self._port)
        self.books = dict.fromkeys(BOOKS)
        since: dict[str, object] = {}
        if self._seq:
            since["events"] = {"epoch": self._epoch["events"], "seq": self._seq}
            for channel, seq in self._trade_seq.items():
                since[channel] = {"epoch": self._epoch[channel], "seq": seq}
        self._unrecovered = set(since)
        names = ["events", *TRADES, *BOOKS]
        answer, texts = self._stream.call("public/subscribe", {"channels": names, "since": since})
        if answer.get("result") != names:
            self.problems.add(f"not subscribed: {answer}")
        self.take(texts)

    def leave(self) -> None:
        """Without a word, and without what is on its way."""
        assert self._stream is not None
        self._stream.close()
        self.reconnects += 1

    def read(self, seconds: float) -> None:
        """Take what comes."""
        assert self._stream is not None
        self.take(self._stream.texts(seconds))

    def take(self, texts: list[bytes]) -> None:
        """Look at each of some messages."""
        for text in texts:
            told = json.loads(text, parse_float=Decimal)
            channel = told.get("channel_name")
            if channel is None:
                self.problems.add(f"unexpected: {text[:200]!r}")
                continue
            if "epoch" in told:
                self._epoch[channel] = told["epoch"]
            if channel in self._unrecovered:
                self._unrecovered.discard(channel)
                if told.get("recovered") is not True:
                    self.problems.add(f"{channel} could not be resumed: {text[:200]!r}")
            if channel == "events":
                self._take_event(told)
            elif channel in TRADES:
                self._take_trades(channel, told)
            else:
                self._take_book(channel, told)

    def _take_event(self, told: dict[str, Any]) -> None:
        partition, seq, inside = str(told["partition"]), told["seq"], told["notification"]
        if "snapshot" in inside or "event" not in inside:
            # A snapshot says how far it reaches; where nothing was missed there is nothing but the position.
            self._seq[partition] = max(seq, self._seq.get(partition, -1))
            return
        event = inside["event"]
        if seq <= self._seq.get(partition, -1):
            self.problems.add(f"events {partition}: {seq} came after {self._seq[partition]}")
        self._seq[partition] = seq
        self._first.setdefault(partition, seq)
        self._hash.setdefault(partition, hashlib.sha256()).update(b"%d," % seq)
        self._count[partition] = self._count.get(partition, 0) + 1
        self.events += 1
        if "n" in event and event["symbol"] in SYMBOLS:
            symbol, number = event["symbol"], event["n"]
            if symbol in self.numbers and number != self.numbers[symbol] + 1:
                self.problems.add(f"events of {symbol}: {number} came after {self.numbers[symbol]}")
            self.numbers[symbol] = number

    def _take_trades(self, channel: str, told: dict[str, Any]) -> None:
        self._trade_seq[channel] = told["seq"]
        for trade in told["notification"]["trades"]:
            number = int(trade[1]) - 1
            before = self._trade_numbers.get(channel)
            # Fills have every second number, but for the snapshots among the others.
            if before is not None and "snapshot" not in told["notification"] and number != before + 2:
                self.problems.add(f"{channel}: {number} came after {before}")
            self._trade_numbers[channel] = number

    def _take_book(self, channel: str, told: dict[str, Any]) -> None:
        inside = told["notification"]
        if "stale" in inside:
            self.problems.add(f"{channel} is stale")
            self.books[channel] = None
            return
        book = self.books[channel]
        if "snapshot" in inside:
            book = self.books[channel] = {"bid": {}, "ask": {}}
        if book is None:
            self.problems.add(f"{channel}: changes of nothing")
            return
        for side, levels in book.items():
            for price, old, new in inside[f"{side}_changes"]:
                self.changes += 1
                price, old, new = Decimal(price), Decimal(old), Decimal(new)
                if levels.get(price, 0) != old:
                    self.problems.add(f"{channel}: {side} {price} was {levels.get(price, 0)}, not {old}")
                levels[price] = new
                if not new:
                    del levels[price]

    def lacks(self, numbers: dict[str, int], books: dict[str, dict[str, dict[str, str]]]) -> str | None:
        """What has not come yet of all that was published."""
        for symbol, count in numbers.items():
            if self.numbers.get(symbol) != count - 1:
                return f"of {symbol} the last event was {self.numbers.get(symbol)}, not {count - 1}"
        for channel, symbol in BOOKS.items():
            last = {
                side: {Decimal(price): Decimal(quantity) for price, quantity in levels.items()}
                for side, levels in books[symbol].items()
            }
            if self.books[channel] != last:
                return f"{channel} is not the book of {symbol}"
        return None

    def offsets(self) -> dict[str, tuple[int, int, int, str]]:
        """Of each partition: the first offset and the last, how many, and the hash of all."""
        return {
            partition: (first, self._seq[partition], self._count[partition], self._hash[partition].hexdigest())
            for partition, first in self._first.items()
        }


def main() -> None:
    """Check until a line with what was published comes; then see that it is all there, and tell."""
    port, reconnect_seconds = sys.argv[1:]
    checked = Checked(int(port))
    checked.connect()
    tell("ready")
    next_reconnect = time.monotonic() + float(reconnect_seconds)
    while not is_told():
        checked.read(0.2)
        if time.monotonic() >= next_reconnect:
            checked.leave()
            time.sleep(AWAY_SECONDS)  # something has to be missed, to come back to
            checked.connect()
            next_reconnect = time.monotonic() + float(reconnect_seconds)
    published = json.loads(sys.stdin.readline())
    deadline = time.monotonic() + LAST_SECONDS
    while (lacks := checked.lacks(published["numbers"], published["books"])) and time.monotonic() < deadline:
        checked.read(0.2)
    if lacks:
        checked.problems.append(lacks)
    # What belongs to no symbol of ours may still be on its way.
    while checked.events != (before := checked.events) or time.monotonic() < deadline - LAST_SECONDS + 1.0:
        checked.read(1.0)
        if checked.events == before:
            break
    checked.leave()
    tell(
        {
            "problems": checked.problems,
            "reconnects": checked.reconnects - 1,
            "events": checked.events,
            "changes": checked.changes,
            "offsets": checked.offsets(),
        }
    )


if __name__ == "__main__":
    main()
