"""What ended orders left reserved while gateways are killed, frozen and started again, at a service that counts what it does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from decimal import Decimal
from typing import Any

import pytest

from core.messages.kept_state import order_partition
from tests.integration.events import fresh_symbol
from tests.integration.kept import ONLY_KEPT, KeptTopic, wait_writers
from tests.integration.market import Market
from tests.integration.processes import Gateway, stopped
from tests.integration.trading import Trader, limit, order_event
from tests.integration.waiting import wait_until
from tests.support.accounts import AccountService
from tools.kafka.running import RunningKafka

FUNDS = Decimal(100)
COST = Decimal("2.20")


class Ledger:
    """An account service on a thread of its own, and one user's euros there."""

    def __init__(self) -> None:
        self.trader = Trader()
        self._owner = (str(self.trader.user_id), "EUR")
        self._service = AccountService({self._owner: str(FUNDS)})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def start(self) -> None:
        """Answer, after a `stop` at the same address again."""
        self._run(self._service.start())

    def stop(self) -> None:
        """Answer nobody."""
        self._run(self._service.stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self._service.url

    @property
    def available(self) -> Decimal:
        return self._service.balances[self._owner]

    @property
    def asked(self) -> list[str]:
        """The orders of which the release was asked for, each as often as it was."""
        paths = [seen.uri for seen in self._service.seen if seen.method == "DELETE"]
        return [path.rpartition("/")[2] for path in paths]

    def wait_available(self, amount: Decimal) -> None:
        wait_until(lambda: self.available == amount, f"{amount} available")


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    ledger.close()


@pytest.fixture
def kept(market: Market, real_kafka: RunningKafka) -> Iterator[KeptTopic]:
    with KeptTopic.of(market, real_kafka) as kept:
        yield kept


class Orders:
    """Orders of one trader, and the engine's word on them."""

    def __init__(self, kept: KeptTopic, ledger: Ledger) -> None:
        self.kept, self.ledger = kept, ledger
        self.settings = {"accounts": {"url": ledger.url, "timeout_seconds": 1}}
        self.symbols: dict[str, str] = {}

    def place(self, gateway: Gateway, symbol: str = "") -> str:
        symbol = symbol or fresh_symbol()
        order_id = str(self.ledger.trader.place(gateway, limit(symbol))["order_id"])
        self.symbols[order_id] = symbol
        return order_id

    def end(self, kind: str, *order_ids: str) -> None:
        for order_id in order_ids:
            self.kept.market.publish(self.symbols[order_id], order_event(kind, order_id, self.symbols[order_id]))

    def kept_as_due(self) -> set[str]:
        self.kept.read()
        return {
            key.removeprefix("release/")
            for records in self.kept.records.values()
            for key, value in records.items()
            if key.startswith("release/") and value is not None
        }

    def symbol_of(self, partitions: list[int]) -> str:
        """One whose orders are kept by one of these."""
        while order_partition(symbol := fresh_symbol(), self.kept.market.partitions) not in partitions:
            pass
        return symbol


@pytest.fixture
def orders(kept: KeptTopic, ledger: Ledger) -> Orders:
    return Orders(kept, ledger)


def test_order_whose_gateway_was_killed_before_it_ended_is_released_by_another(orders: Orders) -> None:
    ledger, kept = orders.ledger, orders.kept
    with kept.gateway(**orders.settings) as first, kept.gateway(**orders.settings) as second:
        wait_writers([first, second], kept.market.partitions)
        ended = [orders.place(first) for _ in range(8)]
        rejected, filled, living = orders.place(first), orders.place(first), orders.place(first)
        for order_id in (*ended, rejected, filled, living):
            ledger.trader.wait_for(second, order_id, "pending")
        assert ledger.available == FUNDS - 11 * COST
        first.kill()
        assert ledger.asked == [], "the engine has ended none of them"
        orders.end("cancelled", *ended)
        orders.end("rejected", rejected)
        orders.end("filled", filled)
        ledger.wait_available(FUNDS - 2 * COST)
        wait_until(lambda: orders.kept_as_due() == set(), "nothing is due any more")
        assert sorted(ledger.asked) == sorted([*ended, rejected])
        wait_until(lambda: second.metric("gateway_reservations_total", outcome="released") == 9, "all are counted")
        assert second.metric("gateway_releases_due") == 0


def test_what_could_not_be_released_before_all_were_restarted_is_released_once_the_service_is_back(
    orders: Orders,
) -> None:
    ledger, kept = orders.ledger, orders.kept
    with kept.gateway(**orders.settings) as first, kept.gateway(**orders.settings) as second:
        wait_writers([first, second], kept.market.partitions)
        ended = [orders.place(first) for _ in range(12)]
        for order_id in ended:
            ledger.trader.wait_for(second, order_id, "pending")
        ledger.stop()
        orders.end("cancelled", *ended)
        wait_until(lambda: orders.kept_as_due() == set(ended), "all is kept as due")
        first.kill()
    # All that both topics said of these orders is behind what is kept.
    with kept.gateway(ONLY_KEPT, **orders.settings) as third:
        wait_writers([third], kept.market.partitions)
        wait_until(lambda: third.metric("gateway_releases_due") == 12, "all is due again")
        ledger.start()
        ledger.wait_available(FUNDS)
        assert sorted(ledger.asked) == sorted(ended)
        wait_until(lambda: orders.kept_as_due() == set(), "nothing is due any more")
    with kept.gateway(ONLY_KEPT, **orders.settings) as fourth:
        wait_writers([fourth], kept.market.partitions)
        last = orders.place(fourth)
        orders.end("cancelled", last)
        ledger.wait_available(FUNDS)
        assert ledger.asked.count(last) == 1 and len(ledger.asked) == 13


def test_writer_that_was_frozen_while_its_orders_ended_releases_none_of_them_again(orders: Orders) -> None:
    ledger, kept = orders.ledger, orders.kept
    with kept.gateway(**orders.settings) as first, kept.gateway(**orders.settings) as second:
        _, share = wait_writers([first, second], kept.market.partitions)
        ended = [orders.place(second, orders.symbol_of(share)) for _ in range(4)]
        for order_id in ended:
            ledger.trader.wait_for(first, order_id, "pending")
        with stopped(second):
            orders.end("cancelled", *ended)
            ledger.wait_available(FUNDS)
            wait_writers([first], kept.market.partitions)
            # What was confirmed and is not written yet is asked for again by whoever leads next.
            kept.wait_written()
            wait_until(lambda: orders.kept_as_due() == set(), "nothing is due any more")
        wait_writers([first, second], kept.market.partitions)
        for order_id in ended:
            ledger.trader.wait_for(second, order_id, "cancelled")
        _, share = wait_writers([first, second], kept.market.partitions)
        last = orders.place(first, orders.symbol_of(share))
        orders.end("cancelled", last)
        ledger.wait_available(FUNDS)
        assert sorted(ledger.asked) == sorted([*ended, last])
        wait_until(lambda: second.metric("gateway_reservations_total", outcome="released") == 1, "it leads again")


def test_without_a_state_topic_each_releases_its_own_and_says_what_it_could_not(orders: Orders) -> None:
    ledger, kept = orders.ledger, orders.kept
    settings = {"kafka": {"state_topic": ""}, **orders.settings}
    with kept.gateway(**settings) as first, kept.gateway(**settings) as second:
        one, other, late = orders.place(first), orders.place(second), orders.place(first)
        ledger.trader.wait_for(second, late, "pending")
        orders.end("cancelled", one, other)
        ledger.wait_available(FUNDS - COST)
        assert [gateway.metric("gateway_reservations_total", outcome="released") for gateway in (first, second)] == [
            1,
            1,
        ]
        ledger.stop()
        orders.end("cancelled", late)
        first.wait_until(lambda: first.metric("gateway_releases_due") == 1, "it is due")
        first.terminate()
        assert (
            f"1 ended orders could not be released before the gateway ended: their funds stay reserved: {late}"
            in first.log
        )
        assert second.metric("gateway_releases_due") == 0
