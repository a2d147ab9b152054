"""The simulated engine in a thread, which tells a ledger of what becomes of orders before it publishes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from exchange.bus import Bus, BusOptions
from exchange.commands import Side
from exchange.decimals import EXACT, ZERO
from exchange.events import Event
from exchange.matching import Engine
from exchange.service import Exchange
from tests.integration.market import Market
from tests.integration.waiting import DEADLINE_SECONDS
from tests.support.account_ledger import Ledger, Owner


class TellingEngine(Engine):
    """Any symbol, without tick and lot. `executed` counts commands."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__([], lambda: int(time.time() * 1000), open_symbols=True)
        self.executed = 0
        self._ledger = ledger
        self._lock = threading.Lock()

    def execute(self, command: object) -> list[Event]:
        with self._lock:
            events = super().execute(command)
            self._ledger.take(events)
            self.executed += 1
            return events

    def open(self) -> dict[Owner, Decimal]:
        """What its books have open, by user and currency: of bids what they would cost, of asks the quantity."""
        sums: dict[Owner, Decimal] = {}
        with self._lock:
            for symbol in self.symbols:
                base, quote = symbol.split("/")
                for side, currency in ((Side.BID, quote), (Side.ASK, base)):
                    for level in self.book(symbol).levels(side):
                        for order in level.orders.values():
                            assert order.user_id is not None
                            unit = order.price if side is Side.BID else Decimal(1)
                            owner = (order.user_id, currency)
                            sums[owner] = EXACT.add(sums.get(owner, ZERO), EXACT.multiply(unit, order.remaining))
        return sums


@contextmanager
def telling_engine(market: Market, ledger: Ledger) -> Iterator[TellingEngine]:
    """Execute all that is and will be on the market's order topic."""
    engine = TellingEngine(ledger)
    stop, ready = threading.Event(), threading.Event()
    bus = Bus(BusOptions(market.bootstrap, market.topic, market.order_topic, from_beginning=True), stop)

    def run() -> None:
        if bus.connect():
            Exchange(engine, None, bus, stop, time.monotonic, 0).run(ready.set)
        bus.close(DEADLINE_SECONDS)

    thread = threading.Thread(target=run, name="engine")
    thread.start()
    try:
        assert ready.wait(DEADLINE_SECONDS), "the engine did not begin"
        yield engine
    finally:
        stop.set()
        thread.join()
