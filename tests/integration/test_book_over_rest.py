"""A book over REST, and then `events` with its seq as `since`: the engine's book, however much happens in between."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.integration.clients import WebSocket, exact
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.support.kafka import Bus
from tools.kafka.running import quiet_client

SETTINGS: dict[str, Any] = {"auth": {"mode": "optional"}, "kafka": {"consume": "broadcast"}}
JOINS = 12
# Every ten milliseconds: 2,000 events a second.
BURST = 20
# At most so many while one joins: on a busy machine that takes long, and who has joined does not read meanwhile.
EVENTS_A_JOIN = 300
LEVELS = 400

Book = dict[str, dict[Decimal, Decimal]]


@pytest.fixture(scope="module")
def bus(each_bus: Bus) -> Bus:
    """What is tested here is what a bus could get wrong."""
    return each_bus


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, SETTINGS) as gateway:
        yield gateway


class Load:
    """An engine that rests only where it has gone too far, on a thread of its own: changes of one book, its fills, and events of
    another symbol.
    """

    def __init__(self, market: Market, symbol: str) -> None:
        self._producer = Producer({**quiet_client(market.bootstrap), "acks": "all", "enable.idempotence": True})
        self._topic = market.topic
        self._symbol = symbol
        self._other = fresh_symbol()
        self._random = random.Random(7)
        self._sequence = 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.events = 0
        self.most_events = 0
        self.book: Book = {
            "bid": {Decimal(1000 - number): Decimal(1) for number in range(1, LEVELS)},
            "ask": {Decimal(1000 + number): Decimal(1) for number in range(1, LEVELS)},
        }

    def snapshot(self) -> bytes:
        sides = {
            f"{side}s": [{"price": f"{price}", "quantity": f"{quantity}"} for price, quantity in levels.items()]
            for side, levels in self.book.items()
        }
        return snapshot(self._symbol, 1, **sides)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            if self.events >= self.most_events:
                continue
            for _ in range(BURST):
                symbol, record = self._next()
                self._producer.produce(self._topic, record, symbol)
                self.events += 1
            self._producer.poll(0)
        assert not self._producer.flush(30)

    def _next(self) -> tuple[str, bytes]:
        chosen = self._random.random()
        if chosen < 0.1:
            return self._other, fill(self._other)
        if chosen < 0.3:
            return self._symbol, fill(self._symbol, price="1000")
        changes = []
        for _ in range(self._random.randint(1, 3)):
            side = self._random.choice(["bid", "ask"])
            price = Decimal(1000 + self._random.randint(1, LEVELS) * (-1 if side == "bid" else 1))
            quantity = Decimal(self._random.choice([0, 0, 1, 2, 3]))
            self.book[side][price] = quantity
            action = "update" if quantity else "remove"
            changes.append((action, side, f"{price}", f"{quantity}"))
        self._sequence += 1
        return self._symbol, delta(self._symbol, self._sequence, *changes)


class Follower:
    """A client that begins with the book over REST."""

    def __init__(self, gateway: Gateway, symbol: str, client: WebSocket) -> None:
        self._client = client
        answer = gateway.get(f"/api/book?symbol={symbol}&depth=all")
        assert answer.status == 200
        book = json.loads(answer.body)
        self.book: Book = {
            side: {Decimal(price): Decimal(quantity) for price, quantity in book[f"{side}s"]} for side in ("bid", "ask")
        }
        self._seq: int = book["seq"]
        channel = f"events.{symbol}"
        client.subscribe(channel, since={channel: {"epoch": book["epoch"], "seq": book["seq"]}})
        self._hear(exact(client.receive()), is_first=True)

    def follow_to(self, seq: int) -> Book:
        """Hear everything up to this one."""
        while self._seq < seq:
            self._hear(exact(self._client.receive()))
        return self.book

    def _hear(self, told: dict[str, Any], is_first: bool = False) -> None:
        if is_first:
            assert told["recovered"] is True
        event = told["notification"].get("event")
        if event is None:
            return
        # Before its own first news a follower holds the book's seq; from then on each names the one before.
        if "prev_seq" in told:
            assert told["prev_seq"] == self._seq
        else:
            assert is_first
        self._seq = int(told["seq"])
        for change in event.get("deltas", ()):
            self.book[change["side"]][Decimal(change["price"])] = Decimal(change["quantity"])


def levels(book: Book) -> Book:
    """Without what is gone."""
    return {side: {price: quantity for price, quantity in of.items() if quantity} for side, of in book.items()}


def test_book_over_rest_and_events_since_then_are_the_engines_book_under_load(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    load = Load(market, symbol)
    with ExitStack() as stack:
        witness = stack.enter_context(WebSocket(gateway.address, "/ws?stream=none"))
        witness.subscribe(f"events.{symbol}")
        market.publish(symbol, load.snapshot())
        witness.receive()
        followers = []
        with load:
            for _ in range(JOINS):
                before = load.events
                load.most_events = before + EVENTS_A_JOIN
                witness.receive_until(lambda _: load.events > before + BURST)  # noqa: B023 (called at once)
                client = stack.enter_context(WebSocket(gateway.address, "/ws?stream=none"))
                followers.append(Follower(gateway, symbol, client))
        [(_, last)] = market.publish(symbol, fill(symbol))
        told = [levels(follower.follow_to(last)) for follower in followers]
    assert load.events > JOINS * BURST
    assert all(book == levels(load.book) for book in told)
