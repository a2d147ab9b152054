from __future__ import annotations

import json
from typing import Any

import pytest

from core.channels.hub import Hub
from core.delivery.outbox import EXEMPT, LOSSLESS
from core.errors import CloseCode
from core.market.market import Market
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.order import Order, Outcome, Status
from core.orders.private_feed import PrivateFeed
from tests.core.fakes import Client

EVENT = b'{"type":"order_filled","order_id":"o"}'
OTHER_EVENT = b'{"type":"order_cancelled","order_id":"o","filled_quantity":"0"}'
WHOLE = b'"channel_name":"account.orders","seq":{},"notification":{"orders":'


def an_order(user_id: str | None = "alice", order_id: str = "o", status: Status = Status.OPEN) -> Order:
    return Order(
        order_id, user_id, None, "KCN/EUR", Side.BID, OrderType.LIMIT, TimeInForce.GTC, "1.5", "2", None, 1, 1,
        Outcome.ACCEPTED, status=status,
    )  # fmt: skip


class PrivateFeedAndClients:
    """A feed before the hub's own delivery."""

    def __init__(self) -> None:
        market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        self.hub = Hub(market, lambda: "epoch", lambda: 0.0)
        self.open: dict[str, list[Order]] = {}
        self.tags: list[object] = []
        self.states = 0
        self.feed = PrivateFeed(self._deliver, lambda user_id: self.open.get(user_id, []), self._state)

    def _deliver(self, bundle: Any, audience: Any, tag: Any) -> None:
        self.tags.append(tag)
        self.hub.fanout.send(bundle, audience, tag)

    def _state(self, order: Order) -> dict[str, object]:
        self.states += 1
        return {"order_id": order.order_id, "status": order.status.value}

    def connect(self, user_id: str | None = "alice", *, listens: bool = False, **options: Any) -> Client:
        client = Client(**options)
        self.hub.add(client.subscriber, stream=False)
        if user_id is not None:
            self.feed.join(user_id, client.subscriber)
            if listens:
                self.feed.subscribe(user_id, client.subscriber)
                client.texts()
        self.tags.clear()
        return client

    def change(self, order: Order) -> None:
        self.feed.on_change(order)


@pytest.fixture
def told() -> PrivateFeedAndClients:
    return PrivateFeedAndClients()


def test_feed_knows_how_many_listen(told: PrivateFeedAndClients) -> None:
    for user_id, listens in (("alice", True), ("alice", True), ("alice", False), ("bob", True), (None, False)):
        told.connect(user_id, listens=listens)
    assert (told.feed.listeners, told.feed.connections) == (3, 4)


def orders_of(client: Client) -> list[tuple[list[tuple[str, str]], bool]]:
    """Of each notification of `account.orders`: ids and statuses, and whether it is a snapshot."""
    told = []
    for message in client.messages():
        assert message.pop("channel_name") == "account.orders"
        notification = message.pop("notification")
        assert message.pop("seq") == {}
        message.pop("epoch", None)
        assert message == {}
        orders = [(order["order_id"], order["status"]) for order in notification.pop("orders")]
        is_snapshot = notification.pop("snapshot", False)
        assert notification == {}
        told.append((orders, is_snapshot))
    return told


# The engine's own events.


def test_events_go_to_every_connection_of_their_owner_as_the_engine_wrote_them(told: PrivateFeedAndClients) -> None:
    mine, also_mine, hers, nobodys = (
        told.connect(), told.connect(listens=True), told.connect("bob"), told.connect(None),
    )  # fmt: skip
    told.feed.on_event("alice", EVENT)
    told.feed.on_event("alice", OTHER_EVENT)
    assert mine.texts() == [], "at the end of the beat"
    told.feed.flush()
    assert mine.texts() == also_mine.texts() == [EVENT, OTHER_EVENT]
    assert hers.texts() == nobodys.texts() == []
    assert len(mine.transport.sends) == 1, "one write a beat"
    assert set(told.tags) == {LOSSLESS}


def test_events_of_a_user_without_a_connection_are_not_kept(told: PrivateFeedAndClients) -> None:
    told.feed.on_event("alice", EVENT)
    client = told.connect()
    told.feed.flush()
    assert client.texts() == []


def test_events_are_told_once(told: PrivateFeedAndClients) -> None:
    client = told.connect(listens=True)
    told.feed.on_event("alice", EVENT)
    told.feed.flush()
    told.feed.flush()
    assert client.texts() == [EVENT]


def test_nothing_is_delivered_when_there_is_nothing_to_tell(told: PrivateFeedAndClients) -> None:
    told.connect(listens=True)
    told.feed.flush()
    assert told.tags == []


# account.orders.


def test_subscriber_gets_the_open_orders_and_then_each_change(told: PrivateFeedAndClients) -> None:
    told.open["alice"] = [an_order(order_id="a"), an_order(order_id="b", status=Status.PENDING)]
    client = told.connect()
    told.feed.subscribe("alice", client.subscriber)
    assert told.tags == [EXEMPT], "a snapshot may be larger than what may wait"
    assert orders_of(client) == [([("a", "open"), ("b", "pending")], True)]
    told.change(an_order(order_id="b"))
    told.change(an_order(order_id="a", status=Status.FILLED))
    told.feed.flush()
    assert orders_of(client) == [([("b", "open"), ("a", "filled")], False)]


def test_snapshot_of_a_user_without_orders_is_empty(told: PrivateFeedAndClients) -> None:
    client = told.connect()
    told.feed.subscribe("alice", client.subscriber)
    assert client.texts() == [b'{"epoch":"",' + WHOLE + b'[],"snapshot":true}}']


def test_state_of_each_moment_is_told_when_an_order_changes_twice_in_a_beat(told: PrivateFeedAndClients) -> None:
    client = told.connect(listens=True)
    order = an_order()
    told.change(order)
    order.status = Status.FILLED
    told.change(order)
    told.feed.flush()
    assert orders_of(client) == [([("o", "open"), ("o", "filled")], False)]


def test_events_come_before_the_changes_that_they_made_in_one_write(told: PrivateFeedAndClients) -> None:
    client = told.connect(listens=True)
    told.change(an_order(status=Status.FILLED))
    told.feed.on_event("alice", EVENT)
    sends = len(client.transport.sends)
    told.feed.flush()
    assert client.texts() == [EVENT, b"{" + WHOLE + b'[{"order_id":"o","status":"filled"}]}}']
    assert len(client.transport.sends) == sends + 1


def test_changes_go_to_who_subscribed_alone(told: PrivateFeedAndClients) -> None:
    signed_in, hers = told.connect(), told.connect("bob", listens=True)
    told.change(an_order())
    told.feed.flush()
    assert signed_in.texts() == hers.texts() == []


@pytest.mark.parametrize("user_id", ["alice", None])
def test_change_that_nobody_listens_to_costs_no_state(told: PrivateFeedAndClients, user_id: str | None) -> None:
    told.connect()
    told.change(an_order(user_id))
    assert told.states == 0


def test_who_subscribes_gets_nothing_twice_that_is_in_the_snapshot_already(told: PrivateFeedAndClients) -> None:
    first, second = told.connect(listens=True), told.connect()
    order = an_order()
    told.open["alice"] = [order]
    told.change(order)
    told.feed.on_event("alice", EVENT)
    told.feed.subscribe("alice", second.subscriber)
    told.feed.flush()
    event, snapshot = second.texts()
    assert event == EVENT, "it is signed in, and hears of every event"
    assert json.loads(snapshot)["notification"]["snapshot"]
    assert len(first.texts()) == 2
    assert second.texts() == []


def test_who_subscribes_again_gets_another_snapshot(told: PrivateFeedAndClients) -> None:
    client = told.connect(listens=True)
    told.feed.subscribe("alice", client.subscriber)
    assert orders_of(client) == [([], True)]
    told.change(an_order())
    told.feed.flush()
    assert orders_of(client) == [([("o", "open")], False)]


def test_who_unsubscribes_still_hears_of_the_events(told: PrivateFeedAndClients) -> None:
    client = told.connect(listens=True)
    told.feed.unsubscribe("alice", client.subscriber)
    told.feed.unsubscribe("alice", client.subscriber)
    told.change(an_order())
    told.feed.on_event("alice", EVENT)
    told.feed.flush()
    assert client.texts() == [EVENT]
    told.feed.unsubscribe("nobody", client.subscriber)


def test_text_of_a_state_is_json_with_every_character_as_it_is(told: PrivateFeedAndClients) -> None:
    client = told.connect()
    told.open["alice"] = [an_order(order_id='gr\u00f6\u00dfe/"\u2603')]
    told.feed.subscribe("alice", client.subscriber)
    [text] = client.texts()
    assert "größe/" in text.decode()
    assert json.loads(text)["notification"]["orders"][0]["order_id"] == 'größe/"☃'


# Coming and going.


def test_connections_are_counted_while_they_are_signed_in(told: PrivateFeedAndClients) -> None:
    first, second = told.connect(), told.connect("bob")
    assert told.feed.connections == 2
    told.feed.join("alice", first.subscriber)
    assert told.feed.connections == 2, "a renewed token is the same connection"
    for _ in range(2):
        told.feed.leave("alice", first.subscriber)
        assert told.feed.connections == 1
    told.feed.leave("bob", second.subscriber)
    assert told.feed.connections == 0


def test_who_leaves_hears_nothing_more_and_the_others_do(told: PrivateFeedAndClients) -> None:
    leaving, staying = told.connect(listens=True), told.connect(listens=True)
    told.feed.on_event("alice", EVENT)
    told.change(an_order())
    told.feed.leave("alice", leaving.subscriber)
    told.feed.flush()
    assert leaving.texts() == []
    assert len(staying.texts()) == 2


def test_last_to_leave_takes_what_was_to_be_told_with_it(told: PrivateFeedAndClients) -> None:
    leaving = told.connect(listens=True)
    told.feed.on_event("alice", EVENT)
    told.feed.leave("alice", leaving.subscriber)
    coming = told.connect()
    told.feed.flush()
    assert leaving.texts() == coming.texts() == []


def test_who_returns_has_to_subscribe_again(told: PrivateFeedAndClients) -> None:
    client = told.connect(listens=True)
    told.feed.leave("alice", client.subscriber)
    told.feed.join("alice", client.subscriber)
    told.change(an_order())
    told.feed.on_event("alice", EVENT)
    told.feed.flush()
    assert client.texts() == [EVENT]


@pytest.mark.parametrize("others", [0, 1])
def test_who_has_left_cannot_subscribe(told: PrivateFeedAndClients, others: int) -> None:
    for _ in range(others):
        told.connect()
    client = told.connect()
    told.feed.leave("alice", client.subscriber)
    told.feed.subscribe("alice", client.subscriber)
    told.change(an_order())
    told.feed.flush()
    assert client.texts() == []


def test_slow_consumer_is_closed_and_disturbs_no_other(told: PrivateFeedAndClients) -> None:
    slow = told.connect(listens=True, max_bytes=100, room=0)
    fast = told.connect(listens=True)
    leave = slow.subscriber.end

    def end(code: CloseCode, reason: str) -> None:
        told.feed.leave("alice", slow.subscriber)
        leave(code, reason)

    slow.subscriber.end = end
    for _ in range(9):
        told.feed.on_event("alice", EVENT)
        told.change(an_order())
        told.feed.flush()
    assert [code for code, _ in slow.ends] == [CloseCode.SLOW_CONSUMER]
    assert len(fast.texts()) == 18
    assert told.feed.connections == 1
