"""The loop, on a bus that is a list and a clock that moves when the loop waits."""

from __future__ import annotations

import json
import logging
import random
import threading
from decimal import Decimal
from typing import Any

import pytest

from exchange.accounts import Accounts
from exchange.bus import Throttle
from exchange.events import Event
from exchange.matching import Engine
from exchange.service import Exchange
from exchange.traders import MARKETS, Traders


class FakeStop(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class FakeBus:
    """Time passes only in `receive`; what is to arrive is given as (second, record), and the end stops the loop."""

    def __init__(self, until_seconds: float, arriving: list[tuple[float, bytes | None]]) -> None:
        self.stop = FakeStop()
        self.now = 0.0
        self.published: list[tuple[float, Event]] = []
        self.unacknowledged = 0
        self.lost: list[str] = []
        self.accounts: list[tuple[float, str, Any]] = []
        self.lost_accounts: list[str] = []
        self.flushes: list[bool] = []
        self._until_seconds = until_seconds
        self._arriving = arriving

    def publish(self, events: list[Event]) -> None:
        self.published += [(self.now, event) for event in events]

    def receive(self, timeout_seconds: float) -> list[bytes | None]:
        assert timeout_seconds > 0
        self.now += timeout_seconds
        if self.now >= self._until_seconds:
            self.stop.set()
        arrived = [value for second, value in self._arriving if second <= self.now]
        self._arriving = [(second, value) for second, value in self._arriving if second > self.now]
        return arrived

    def publish_accounts(self, records: list[tuple[str, bytes]]) -> None:
        self.accounts += [(self.now, user_id, json.loads(value)["balances"]) for user_id, value in records]

    def take_lost_accounts(self) -> list[str]:
        lost, self.lost_accounts = self.lost_accounts, []
        return lost

    def flush(self, timeout_seconds: float) -> bool:
        return self.flushes.pop(0) if self.flushes else True

    def take_lost_symbols(self) -> list[str]:
        lost, self.lost = self.lost, []
        return lost


def order(order_id: str, **more: Any) -> bytes:
    return json.dumps(
        {
            "type": "place_order",
            "order_id": order_id,
            "symbol": "KCN/EUR",
            "side": "bid",
            "order_type": "limit",
            "price": "1.00",
            "quantity": "1",
            "user_id": "alice",
            "time_in_force": "GTC",
            **more,
        }
    ).encode()


def run(
    until_seconds: float,
    *arriving: tuple[float, bytes | None],
    rate: float | None = None,
    snapshot_seconds: float = 30.0,
    bus: FakeBus | None = None,
) -> FakeBus:
    bus = bus or FakeBus(until_seconds, list(arriving))
    engine = Engine([(market.instrument.symbol, market.instrument) for market in MARKETS], lambda: int(bus.now * 1000))
    traders = Traders(engine, random.Random(1), rate, MARKETS) if rate else None
    ready: list[float] = []
    Exchange(engine, traders, bus, bus.stop, lambda: bus.now, snapshot_seconds).run(lambda: ready.append(bus.now))
    assert len(ready) <= 1
    return bus


def of_kind(bus: FakeBus, kind: str) -> list[tuple[float, Event]]:
    return [(second, event) for second, event in bus.published if event["type"] == kind]


def test_exchange_publishes_every_book_at_start_and_then_periodically() -> None:
    snapshots = of_kind(run(100.0, snapshot_seconds=30.0), "orderbook_snapshot")
    assert [event["symbol"] for _, event in snapshots[:3]] == ["KCN/EUR", "BTC/EUR", "ETH/EUR"]
    assert [round(second / 30) for second, _ in snapshots[::3]] == [0, 1, 2, 3]


def test_exchange_publishes_only_the_first_snapshots_when_the_period_is_zero() -> None:
    assert len(of_kind(run(100.0, snapshot_seconds=0.0), "orderbook_snapshot")) == 3


def test_exchange_first_snapshots_show_the_traders_ladders() -> None:
    [(_, first), *_] = of_kind(run(0.1, rate=100.0), "orderbook_snapshot")
    assert len(first["bids"]) == len(first["asks"]) >= 10


def test_exchange_executes_commands_in_order() -> None:
    bus = run(5.0, (1.0, order("a")), (1.0, order("b", side="ask")), (2.0, order("a")))
    kinds = [event["type"] for _, event in bus.published[3:]]
    assert kinds == [
        "order_accepted",
        "orderbook_delta",
        "order_accepted",
        "fill",
        "order_filled",
        "order_filled",
        "orderbook_delta",
    ]


def test_exchange_skips_malformed_records_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    junk = [None, b"", b"\xff", b"{", b"[" * 20_000, b"NaN", b"{}", b'"x"'] * 3
    with caplog.at_level(logging.WARNING):
        bus = run(5.0, *[(1.0, value) for value in junk], (1.0, order("a")))
    assert [event["order_id"] for _, event in of_kind(bus, "order_accepted")] == ["a"]
    assert 0 < len(caplog.records) < len(junk) / 3 + 1


def test_exchange_traders_act_at_their_rate() -> None:
    events = run(50.0, rate=100.0).published
    assert len(events) == pytest.approx(5000, rel=0.1)


def test_exchange_traders_wait_while_kafka_does_not_confirm() -> None:
    bus = FakeBus(50.0, [])
    bus.unacknowledged = 1_001
    run(50.0, rate=100.0, bus=bus, snapshot_seconds=0.0)
    assert len(bus.published) == 3


def test_exchange_traders_do_not_catch_up_after_a_pause() -> None:
    bus = FakeBus(60.0, [])
    receive = bus.receive

    def suspended(timeout_seconds: float) -> list[bytes | None]:
        if bus.now < 1:
            bus.now = 50.0
        return receive(timeout_seconds)

    bus.receive = suspended  # type: ignore[method-assign]
    run(60.0, rate=100.0, bus=bus, snapshot_seconds=0.0)
    assert len(bus.published) == pytest.approx(1000, rel=0.2)


def test_exchange_publishes_a_fresh_snapshot_when_an_event_was_lost() -> None:
    bus = FakeBus(10.0, [])
    bus.flushes = [True]
    receive = bus.receive

    def losing(timeout_seconds: float) -> list[bytes | None]:
        if bus.now == 0:
            bus.lost = ["BTC/EUR", "UNKNOWN/EUR"]
        return receive(timeout_seconds)

    bus.receive = losing  # type: ignore[method-assign]
    run(10.0, bus=bus, snapshot_seconds=0.0)
    assert [event["symbol"] for _, event in of_kind(bus, "orderbook_snapshot")[3:]] == ["BTC/EUR"]


def test_exchange_is_not_ready_until_the_first_snapshots_are_confirmed() -> None:
    bus = FakeBus(10.0, [])
    bus.flushes = [False, False, True, True]
    bus.lost = ["ETH/EUR"]
    run(0.1, bus=bus)
    assert bus.flushes == []
    assert [event["symbol"] for _, event in bus.published[:4]] == ["KCN/EUR", "BTC/EUR", "ETH/EUR", "ETH/EUR"]


def test_exchange_stops_when_told_to_before_it_is_ready() -> None:
    bus = FakeBus(10.0, [])
    bus.stop.set()
    bus.flushes = [False] * 10
    run(10.0, bus=bus)
    assert bus.now == 0.0


def test_throttle_lets_one_line_a_minute_through_and_counts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            throttle.warn("lost", "why")
        throttle.warn("other")
        now[0] = 61.0
        throttle.warn("lost", "why")
    assert caplog.messages == ["lost: why", "other", "lost: why (4 more like it)"]


def test_exchange_tells_accounts_as_they_change_and_again_where_that_was_lost() -> None:
    bus = FakeBus(6.0, [(2.0, order("a", price="2.50", quantity="2"))])
    accounts = Accounts({"EUR": Decimal(100)}, lambda: 0)
    accounts.open("bob")
    rules = [(market.instrument.symbol, market.instrument) for market in MARKETS]
    engine = Engine(rules, lambda: 0, accounts=accounts)
    bus.lost_accounts = ["alice", "bob"]
    Exchange(engine, None, bus, bus.stop, lambda: bus.now, 0.0, accounts).run(lambda: None)
    bob = {"EUR": {"available": "100", "reserved": "0"}}
    alice = {"EUR": {"available": "95", "reserved": "5"}}
    assert [(user_id, balances) for _, user_id, balances in bus.accounts] == [
        ("bob", bob),
        ("bob", bob),
        ("alice", alice),
    ]
    assert [second >= at for (second, _, _), at in zip(bus.accounts, (0.0, 1.0, 2.0), strict=True)] == [True] * 3
