"""Balances from a real compacted topic (docs/contract.md#balances)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from tests.integration.clients import WebSocket
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.trading import Trader, check_problem, limit, settings
from tests.integration.waiting import DEADLINE_SECONDS
from tests.support.kafka import real_bus
from tools.kafka.running import RunningKafka, quiet_client

COMPACTED = {"cleanup.policy": "compact"}
# Ten times as often as by itself a gateway learns what has become of its topics.
REFRESHED = {"topic.metadata.refresh.interval.ms": 1000}


class AccountTopic:
    """A topic of the test's own, and whoever keeps the accounts that are told there."""

    def __init__(self, kafka: RunningKafka, market: Market) -> None:
        self.kafka = kafka
        self.market = market
        self.name = f"accounts-{uuid.uuid4().hex[:12]}"
        self._producer = Producer({**quiet_client(market.bootstrap), "acks": "all"})

    def create(self, **config: str) -> None:
        self.kafka.create_topic(self.name, 3, config or COMPACTED)
        self._producer = Producer({**quiet_client(self.market.bootstrap), "acks": "all"})

    def write(self, user_id: str, **balances: tuple[str, str]) -> None:
        told = {currency: {"available": one[0], "reserved": one[1]} for currency, one in balances.items()}
        self.write_value(
            user_id, json.dumps({"user_id": user_id, "balances": told, "timestamp": 1_700_000_000_000}).encode()
        )

    def write_value(self, key: str, value: bytes | None) -> None:
        self._producer.produce(self.name, value, key)
        assert self._producer.flush(DEADLINE_SECONDS) == 0

    def gateway(self, *, wait: bool = True) -> Any:
        kafka = {
            "consume": "broadcast", "account_topic": self.name, "state_topic": "",
            "consumer": REFRESHED, "producer": REFRESHED,
        }  # fmt: skip
        return Gateway.on(self.market, settings(kafka=kafka), wait=wait)


@pytest.fixture
def accounts(real_kafka: RunningKafka) -> Iterator[AccountTopic]:
    with real_bus(real_kafka) as bus:
        market = Market.create(bus)
        topic = AccountTopic(real_kafka, market)
        yield topic
        market.close()
        if topic.name in AdminClient(quiet_client(bus.bootstrap)).list_topics(timeout=DEADLINE_SECONDS).topics:
            real_kafka.delete_topic(topic.name)


def asked(gateway: Gateway, trader: Trader) -> Any:
    return gateway.request("GET", "/api/balance", headers=trader.headers)


def has(gateway: Gateway, trader: Trader) -> dict[str, tuple[str, str]]:
    answer = asked(gateway, trader)
    assert answer.status == 200, answer.body
    return {currency: (one["available"], one["reserved"]) for currency, one in answer.json()["balances"].items()}


def subscribed(gateway: Gateway, trader: Trader) -> WebSocket:
    client = trader.connect(gateway)
    assert client.call("private/subscribe", {"channels": ["account.balances"]})[0]["result"] == ["account.balances"]
    return client


def told(client: WebSocket) -> dict[str, Any]:
    """The next notification, without its time; the engine's own events pass."""
    while "type" in (message := client.news()):
        pass
    assert message["channel_name"] == "account.balances"
    notification: dict[str, Any] = message["notification"]
    return {name: value for name, value in notification.items() if name != "time"}


def eur(available: str, reserved: str) -> dict[str, Any]:
    return {"EUR": {"available": available, "reserved": reserved}}


def test_every_instance_tells_what_the_topic_says_from_its_beginning_on(accounts: AccountTopic) -> None:
    alice, bob, carol = Trader(), Trader(), Trader()
    accounts.create()
    accounts.write(str(alice.user_id), EUR=("1", "0"))
    accounts.write(str(bob.user_id), EUR=("7", "0"))
    accounts.write(str(alice.user_id), EUR=("99.50", "0.50"), KCN=("3", "0"))
    accounts.write_value(str(bob.user_id), None)
    with accounts.gateway() as one, accounts.gateway() as two:
        for gateway in (one, two):
            assert has(gateway, alice) == {"EUR": ("99.50", "0.50"), "KCN": ("3", "0")}
            assert asked(gateway, alice).json()["time"] == "1700000000.0"
            assert has(gateway, bob) == has(gateway, carol) == {}
        with subscribed(one, alice) as first, subscribed(two, alice) as second, subscribed(two, carol) as hers:
            assert told(hers) == {"balances": {}, "snapshot": True}
            for client in (first, second):
                assert told(client)["balances"].keys() == {"EUR", "KCN"}
            accounts.write(str(alice.user_id), EUR=("100", "0"), KCN=("3", "0"))
            for client in (first, second):
                assert told(client) == {"balances": eur("100", "0")}
            accounts.write_value(str(alice.user_id), None)
            gone = {"balances": {**eur("0", "0"), "KCN": {"available": "0", "reserved": "0"}}}
            for client in (first, second):
                assert told(client) == gone
            accounts.write(str(carol.user_id), EUR=("5", "0"))
            assert told(hers) == {"balances": eur("5", "0")}
        # The other one has read it.
        one.wait_until(lambda: one.metric("gateway_known_accounts") == 1, "Carol alone is known")
    with accounts.gateway() as again:
        assert (has(again, alice), has(again, carol)) == ({}, {"EUR": ("5", "0")})


def test_record_that_cannot_be_read_costs_nobody_else_a_thing(accounts: AccountTopic) -> None:
    alice, bob = Trader(), Trader()
    accounts.create()
    user_id = str(alice.user_id)
    accounts.write(user_id, EUR=("1", "0"))
    bad = [
        b"", b"\xff", b"{", b"[" * 20_000, b"[]", b"{}", b'{"user_id":"somebody"}', b"9" * 5_000, b" " * 70_000,
        json.dumps({"user_id": user_id, "balances": {"EUR": {"available": "NaN", "reserved": "0"}}}).encode(),
        b'{"user_id":"%b","balances":{"EUR":{"available":1e999999,"reserved":0}}}' % user_id.encode(),
    ]  # fmt: skip
    for value in bad[:5]:
        accounts.write_value(user_id, value)
    with accounts.gateway() as gateway, subscribed(gateway, alice) as client:
        assert told(client) == {"balances": eur("1", "0"), "snapshot": True}
        for value in bad[5:]:
            accounts.write_value(user_id, value)
        accounts.write_value("", b"{}")
        accounts.write(str(bob.user_id), EUR=("2", "0"))
        accounts.write(user_id, EUR=("3", "0"))
        assert told(client) == {"balances": eur("3", "0")}
        gateway.wait_until(lambda: has(gateway, bob), "the other one told")
        skipped = "gateway_poisoned_accounts_total"
        reasons = ("empty", "not_utf8", "not_json", "too_deep", "not_an_object", "bad_field", "bad_key", "too_large")
        assert all(gateway.metric(skipped, reason=reason) >= 1 for reason in reasons)
        assert gateway.metric("gateway_faults_total", where="accounts") == 0
        assert gateway.get("/ready").status == 200
        gateway.wait_log(f"topic {accounts.name} partition")


def test_missing_topic_keeps_nobody_from_trading_and_is_read_when_it_is_there(accounts: AccountTopic) -> None:
    alice, symbol = Trader(), fresh_symbol()
    with accounts.gateway() as gateway, subscribed(gateway, alice) as client:
        assert told(client) == {"balances": {}, "stale": True}
        assert check_problem(asked(gateway, alice), 503)["type"] == "urn:mexchange:problem:unavailable"
        missing = f"topic {accounts.name} does not exist: what it says is not known"
        assert (gateway.get("/ready").status, gateway.health()["problems"]) == (200, [missing])
        alice.place(gateway, limit(symbol))
        accounts.create()
        accounts.write(str(alice.user_id), EUR=("1", "0"))
        first = told(client)
        if not first["balances"]:  # its record came behind the end that the topic had when it was found
            assert first == {"balances": {}, "snapshot": True}
            first = {**told(client), "snapshot": True}
        assert first == {"balances": eur("1", "0"), "snapshot": True}
        gateway.wait_until(lambda: gateway.health()["status"] == "ok", "no problem any more")
        assert has(gateway, alice) == {"EUR": ("1", "0")}


def test_topic_made_anew_is_read_anew(accounts: AccountTopic) -> None:
    alice, bob = Trader(), Trader()
    accounts.create()
    for trader in (alice, bob):
        accounts.write(str(trader.user_id), EUR=("1", "0"))
    with accounts.gateway() as gateway, subscribed(gateway, alice) as client:
        assert told(client) == {"balances": eur("1", "0"), "snapshot": True}
        accounts.kafka.delete_topic(accounts.name)
        accounts.create()
        accounts.write(str(alice.user_id), EUR=("2", "0"))
        balances: dict[str, Any] = {}
        while balances != eur("2", "0"):
            notification = told(client)
            balances = notification["balances"]
            assert notification.get("stale") or notification.get("snapshot") or balances == eur("2", "0")
        assert has(gateway, bob) == {}
        assert gateway.get("/ready").status == 200


def test_topic_that_is_not_compacted_is_told(accounts: AccountTopic) -> None:
    accounts.create(**{"cleanup.policy": "delete"})
    with accounts.gateway() as gateway:
        gateway.wait_log(f"topic {accounts.name}: cleanup.policy is delete, and has to be compact")


def test_exchange_keeps_accounts_on_a_topic_that_it_makes(accounts: AccountTopic) -> None:
    alice, bob, symbol = Trader(), Trader(), fresh_symbol()
    base = symbol.partition("/")[0]
    deposit = f"EUR=100,{base}=10"
    told_there = ["--account-topic", accounts.name, "--deposit", deposit, "--account", str(alice.user_id)]
    with exchange_on(accounts.market, *told_there), accounts.gateway() as gateway:
        resource = ConfigResource(ConfigResource.Type.TOPIC, accounts.name)
        admin = AdminClient(quiet_client(accounts.market.bootstrap))
        found = admin.describe_configs([resource])[resource].result(DEADLINE_SECONDS)
        assert found["cleanup.policy"].value == "compact"
        gateway.wait_until(lambda: asked(gateway, alice).status == 200 and has(gateway, alice), "an account")
        assert has(gateway, alice) == {"EUR": ("100", "0"), base: ("10", "0")}
        with subscribed(gateway, alice) as client:
            assert told(client)["snapshot"] is True
            order = alice.place(gateway, limit(symbol, side="bid", price="10", quantity="4"))
            assert told(client) == {"balances": eur("60", "40")}
            bob.place(gateway, limit(symbol, side="ask", price="10", quantity="1"))
            assert told(client) == {"balances": {**eur("60", "30"), base: {"available": "11", "reserved": "0"}}}
            alice.cancel(gateway, order_id=order["order_id"])
            assert told(client) == {"balances": eur("90", "0")}
        dear = alice.place(gateway, limit(symbol, side="bid", price="10", quantity="10"))
        rejected = alice.wait_for(gateway, dear["order_id"], "rejected")
        assert rejected["reason"] == "insufficient funds: 100 EUR needed, 90 available"
        resting = alice.place(gateway, limit(symbol, side="bid", price="1", quantity="10"))
        gateway.wait_until(lambda: has(gateway, alice)["EUR"] == ("80", "10"), "it is reserved")
        assert alice.order(gateway, resting["order_id"]) is not None
    with exchange_on(accounts.market, *told_there), accounts.gateway() as gateway:
        # Its orders went with the exchange.
        gateway.wait_until(lambda: has(gateway, alice)["EUR"] == ("90", "0"), "nothing is reserved any more")
        assert has(gateway, bob) == {"EUR": ("110", "0"), base: ("9", "0")}
