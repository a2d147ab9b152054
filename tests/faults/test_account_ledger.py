"""Nobody's money is locked for ever, nor given back before its time, whatever dies (docs/contract.md#account-service).

Traders do everything at random while the account service fails in each of its ways, dies and comes back, and gateways are killed,
frozen and ended. Once all is quiet the ledger and the engine's book have to agree to the last digit.
"""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.faults.ledger_engine import TellingEngine, telling_engine
from tests.faults.ledger_traders import DEAREST, SYMBOLS, USERS, RandomOrder, Traders
from tests.integration.kept import KeptTopic, wait_writers
from tests.integration.market import Market
from tests.integration.processes import Gateway, stopped
from tests.integration.trading import NAMESPACE, UNLIMITED, order_id_of
from tests.integration.waiting import wait_until
from tests.support.account_ledger import Hold, Ledger, Owner
from tests.support.accounts import Seen
from tests.support.ledger_service import Fault, LedgerService, ServedLedger, ledger_service
from tools.kafka.running import RunningKafka

SEED = os.environ.get("LEDGER_SEED", "1")
# Of the whole story; a longer run is one with more of them.
ROUNDS = int(os.environ.get("LEDGER_ROUNDS", "1"))
# So much of what the account service is asked for meets a fault.
FAULTY = {"POST": 0.15, "DELETE": 0.25}
FEW, MANY = 15, 50
PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 0.5
ALARM = re.compile(r"the reservation of order (\S+) could not be released")
KAFKA: dict[str, Any] = {
    "state_interval_seconds": 0.5,
    # Who dies or freezes is noticed soon.
    "consumer": {"session.timeout.ms": 2000, "heartbeat.interval.ms": 500},
}
DEPOSITS = {
    (user_id, currency): "1000000"
    for user_id in USERS
    for currency in sorted({currency for symbol in SYMBOLS for currency in symbol.split("/")})
}
# One cannot pay for much, so that the service refuses too.
DEPOSITS |= {(USERS[-1], currency): "500" for _, currency in DEPOSITS}


class Story:
    """The instances, the service and the engine of one run, and in the end its judge."""

    def __init__(self, kept: KeptTopic, served: ServedLedger, engine: TellingEngine, seed: str) -> None:
        self.kept = kept
        self.served = served
        self.engine = engine
        self.random = random.Random(f"story {seed}")
        self.ledger = served.service.ledger
        self.running: list[Gateway] = []
        self.ended: list[Gateway] = []
        self._stack = ExitStack()

    def start(self) -> Gateway:
        """One more instance, with an address of its own for the account service."""
        accounts = {"url": self.served.open_url(), "timeout_seconds": TIMEOUT_SECONDS}
        orders = {"ack_timeout_seconds": 2, "id_secret": str(NAMESPACE)}
        gateway = self._stack.enter_context(
            self.kept.gateway(KAFKA, accounts=accounts, orders=orders, limits=UNLIMITED, drain_seconds=0)
        )
        self.running.append(gateway)
        return gateway

    def remove(self, gateway: Gateway, with_signal: signal.Signals) -> None:
        """End an instance, and wait until it has."""
        self.running.remove(gateway)
        self.ended.append(gateway)
        gateway.send_signal(with_signal)
        gateway.wait()

    def any(self) -> Gateway:
        return self.random.choice(self.running)

    def close(self) -> None:
        self._stack.close()

    # The end.

    def differences(self) -> dict[Owner, str]:
        """Where the ledger and the book do not agree, but for what is reserved for orders that the engine has not seen."""
        reserved, opened = self.ledger.reserved(), self.engine.open()
        for hold in self.ledger.unplaced():
            reserved[hold.user_id, hold.currency] -= hold.amount
        return {
            owner: f"reserved {reserved.get(owner, 0)}, open {opened.get(owner, 0)}"
            for owner in reserved.keys() | opened.keys()
            if reserved.get(owner, 0) != opened.get(owner, 0)
        }

    def is_quiet(self) -> bool:
        return not self.differences() and self.engine.executed == len(self.kept.market.orders())

    def wait_quiet(self) -> None:
        try:
            wait_until(self.is_quiet, "the ledger and the book agree")
        except AssertionError as error:
            logs = "\n".join(gateway.log[-3000:] for gateway in self.running)
            raise AssertionError(f"{error}: {self.differences()}; {self.ledger.wrongs[:5]}\n{logs}") from None

    def unexplained(self, orders: list[RandomOrder]) -> list[tuple[Hold, RandomOrder | None]]:
        """What is reserved for orders that are not on the topic, and neither an alarm nor an unknown outcome says why."""
        alarms = {found for gateway in [*self.running, *self.ended] for found in ALARM.findall(gateway.log)}
        by_key = {order_id_of(order.user_id, order.client_order_id): order for order in orders}
        return [
            (hold, order)
            for hold in self.ledger.unplaced()
            if hold.order_id not in alarms and not ((order := by_key.get(hold.key)) and order.is_unknown)
        ]

    def asked_again(self) -> list[str]:
        """Releases that an instance asked for once more although it had just been answered: it cannot have given up waiting."""
        answered: dict[tuple[int, str], float] = {}
        found = []
        for delete in self.served.service.deletes:
            who = (delete.port, delete.order_id)
            if who in answered and delete.came - answered[who] < TIMEOUT_SECONDS / 2:
                found.append(delete.order_id)
            answered[who] = delete.answered
        return found

    def asked_by_several(self) -> tuple[int, int]:
        """Of how many orders an instance asked for the release though another one had been answered; and of how many any did."""
        answered: dict[str, int] = {}
        again = set()
        for delete in self.served.service.deletes:
            if answered.setdefault(delete.order_id, delete.port) != delete.port:
                again.add(delete.order_id)
        return len(again), len(answered)

    def names_with_several_orders(self, orders: list[RandomOrder]) -> list[str]:
        """Orders that are on the topic under several ids, and what their traders were told."""
        commands: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
        for symbol in SYMBOLS:
            for command in self.kept.market.commands_of(symbol):
                if command["type"] == "place_order":
                    commands[command["user_id"], command["client_order_id"]].setdefault(command["order_id"], command)
        return [
            f"{order} is {[(found['order_id'], found['timestamp']) for found in several.values()]}"
            for order in orders
            if len(several := commands[order.user_id, order.client_order_id]) > 1
        ]


class Faults:
    """What comes over the account service's requests, while it is on."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(f"faults {seed}")
        self.are_on = True
        self._decks: dict[str, list[Fault]] = {"POST": [], "DELETE": []}
        self.met: Counter[tuple[str, Fault]] = Counter()

    def __call__(self, seen: Seen) -> Fault | None:
        if not self.are_on or self._random.random() >= FAULTY[seen.method]:
            return None
        # Each has its turn before one has it again.
        deck = self._decks[seen.method]
        if not deck:
            deck += self._random.sample(list(Fault), len(Fault))
        self.met[seen.method, deck[-1]] += 1
        return deck.pop()


@pytest.fixture
def kept(market: Market, real_kafka: RunningKafka) -> Iterator[KeptTopic]:
    with KeptTopic.of(market, real_kafka) as kept:
        yield kept


@contextmanager
def story_on(kept: KeptTopic, faults: Faults, seed: str) -> Iterator[Story]:
    ledger = Ledger(DEPOSITS, price=DEAREST)
    if random.Random(f"ids {seed}").random() < 0.5:
        # The contract allows either.
        ledger.next_id = lambda key: key
    with (
        ledger_service(LedgerService(ledger, faults)) as served,
        telling_engine(kept.market, ledger) as engine,
    ):
        story = Story(kept, served, engine, seed)
        try:
            yield story
        finally:
            story.close()


def one_round(story: Story, traders: Traders, number: int) -> None:
    """Every way to die once, of gateways and of the account service; each comes when so many answers were there."""
    traders.wait_more(MANY, "place", 202)
    frozen = story.any()
    with stopped(frozen):
        wait_writers([gateway for gateway in story.running if gateway is not frozen], story.kept.market.partitions)
        traders.wait_more(FEW, "place", 202)
    with story.served.dead():
        traders.wait_more(FEW, "place", 503, 504)
        traders.wait_more(FEW // 3, "cancel", 202)
        # What they had to release, others have to.
        killed = story.running[:] if number % 2 else [story.any()]
        for gateway in killed:
            traders.ports.remove(gateway.port)
            story.remove(gateway, signal.SIGKILL)
    for _ in killed:
        traders.ports.append(story.start().port)
    traders.wait_more(MANY, "place", 202)
    told = story.any()
    traders.ports.remove(told.port)
    story.remove(told, signal.SIGTERM)
    traders.wait_more(FEW, "place", 202)
    traders.ports.append(story.start().port)
    traders.wait_more(MANY, "place", 202)


def test_what_is_reserved_is_what_is_open_whatever_dies(kept: KeptTopic) -> None:
    print(f"\nLEDGER_SEED={SEED}")
    faults = Faults(SEED)
    with story_on(kept, faults, SEED) as story:
        ports = [story.start().port for _ in range(3)]
        wait_writers(story.running, kept.market.partitions)
        with Traders(SEED, ports, PAUSE_SECONDS) as traders:
            for number in range(ROUNDS):
                one_round(story, traders, number)
            faults.are_on = False
            traders.stop()
        print(traders, dict(Counter(method for method, _ in faults.met.elements())), sep="; ")
        story.wait_quiet()
        expect_nothing_is_released_again(story)
        story.wait_quiet()
        ledger = story.ledger
        assert traders.oddities == []
        assert ledger.wrongs == []
        assert story.asked_again() == []
        # Only where one led in place of another that had not written yet what was confirmed.
        again, released = story.asked_by_several()
        assert again < released / 3, f"{again} of {released} orders were released by several"
        assert story.names_with_several_orders(traders.orders) == []
        assert story.unexplained(traders.orders) == []
        for hold in ledger.unplaced():
            # As an operator would, by the log; or the service, in time.
            ledger.release(hold.user_id, hold.order_id)
        assert ledger.reserved() == story.engine.open()
        assert ledger.totals() == Ledger(DEPOSITS).totals()
        assert min(ledger.available.values()) >= 0
        # Else there was nothing to be seen.
        assert len(story.engine.open()) > len(USERS)
        assert {hold.ended for hold in ledger.holds.values()} > {"order_cancelled", "order_filled", "order_rejected"}
        assert {fault for method, fault in faults.met if method == "DELETE"} == set(Fault)


def expect_nothing_is_released_again(story: Story) -> None:
    """After a restart of all: what was confirmed is known to be."""
    wait_writers(story.running, story.kept.market.partitions)
    for gateway in story.running:
        # Its effect was there already, and not yet its answer.
        gateway.wait_until(lambda g=gateway: g.metric("gateway_releases_due") == 0, "all that is due is confirmed")
    story.kept.wait_written()
    for gateway in list(story.running):
        story.remove(gateway, signal.SIGTERM)
        assert "Traceback" not in gateway.log, gateway.log
    fresh = story.start()
    wait_writers([fresh], story.kept.market.partitions)
    fresh.wait_until(lambda: fresh.metric("gateway_releases_due") == 0, "nothing is due")
    port = story.served.service.ports[-1]
    assert [seen.uri for seen in story.served.service.seen if seen.at == port and seen.method == "DELETE"] == []
