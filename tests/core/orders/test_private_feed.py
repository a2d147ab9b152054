from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from itertools import count
from types import coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.channels.hub import Hub
from core.delivery.outbox import EXEMPT, LOSSLESS
from core.errors import CloseCode
from core.market.market import Market
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.order import Order, Outcome, Status
from core.orders.pieces import PIECE
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


@coroutine
def give_way() -> Generator[None]:
    """Until the test goes on."""
    yield


class PrivateFeedAndClients:
    """A feed before the hub's own delivery."""

    def __init__(self) -> None:
        market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        self.hub = Hub(market, lambda: "epoch", lambda: 0.0)
        self.open: dict[str, list[Order]] = {}
        self.tags: list[object] = []
        self.states = 0
        self.feed = PrivateFeed(self._deliver, lambda user_id: list(self.open.get(user_id, [])), self._state, give_way)

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
                self.subscribe(client, user_id)
                client.texts()
        self.tags.clear()
        return client

    def subscribe(self, client: Client, user_id: str = "alice") -> None:
        """At once."""
        for _ in self.subscribing(client, user_id):
            pass

    def subscribing(self, client: Client, user_id: str = "alice") -> Iterator[None]:
        """A piece at a time."""
        work = self.feed.subscribe(user_id, client.subscriber)
        try:
            while True:
                work.send(None)
                yield
        except StopIteration:
            return

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
    told.subscribe(client)
    assert told.tags == [EXEMPT], "a snapshot may be larger than what may wait"
    assert orders_of(client) == [([("a", "open"), ("b", "pending")], True)]
    told.change(an_order(order_id="b"))
    told.change(an_order(order_id="a", status=Status.FILLED))
    told.feed.flush()
    assert orders_of(client) == [([("b", "open"), ("a", "filled")], False)]


def test_snapshot_of_a_user_without_orders_is_empty(told: PrivateFeedAndClients) -> None:
    client = told.connect()
    told.subscribe(client)
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
    told.subscribe(second)
    told.feed.flush()
    event, snapshot = second.texts()
    assert event == EVENT, "it is signed in, and hears of every event"
    assert json.loads(snapshot)["notification"]["snapshot"]
    assert len(first.texts()) == 2
    assert second.texts() == []


def test_who_subscribes_again_gets_another_snapshot(told: PrivateFeedAndClients) -> None:
    client = told.connect(listens=True)
    told.subscribe(client)
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
    told.subscribe(client)
    [text] = client.texts()
    assert "größe/" in text.decode()
    assert json.loads(text)["notification"]["orders"][0]["order_id"] == 'größe/"☃'


# A snapshot in pieces.


class Versions:
    """Orders that change, by what a client holds of them: it may not go back, and has to end where they are."""

    def __init__(self, many: int) -> None:
        self.told = PrivateFeedAndClients()
        self.orders = [an_order(order_id=f"{number:04}") for number in range(many)]
        self.told.open["alice"] = self.orders
        self.numbers = count(1)
        self.changed = set[str]()

    def change(self, number: int) -> None:
        """One of them, or a new one."""
        if number >= len(self.orders):
            self.orders.append(an_order(order_id=f"{len(self.orders):04}"))
        order = self.orders[min(number, len(self.orders) - 1)]
        order.filled = str(next(self.numbers))
        self.changed.add(order.order_id)
        self.told.change(order)

    def close(self, number: int) -> None:
        order = self.orders[number % len(self.orders)]
        order.status = Status.CANCELLED
        self.change(number % len(self.orders))


@given(
    st.integers(0, 3 * PIECE),
    st.lists(
        st.lists(st.tuples(st.integers(0, 4 * PIECE), st.sampled_from(["change", "close", "flush"]))), max_size=12
    ),
    st.booleans(),
)
def test_who_subscribes_meets_changes_at_every_moment_and_no_state_goes_back(
    many: int, meanwhile: list[list[tuple[int, str]]], is_again: bool
) -> None:
    versions = Versions(many)
    told = versions.told
    told.feed._state_of = lambda order: {
        "order_id": order.order_id,
        "version": int(order.filled),
        "s": order.status.value,
    }
    client, other = told.connect(listens=is_again), told.connect(listens=True)
    client.texts()
    left = iter(meanwhile)
    for _ in told.subscribing(client):
        for number, what in next(left, ()):
            if what == "flush":
                told.feed.flush()
            elif what == "close" and versions.orders:
                versions.close(number)
            else:
                versions.change(number)
    told.feed.flush()
    messages = client.messages()
    assert [m["notification"].get("snapshot", False) for m in messages].count(True) == 1
    holds: dict[str, tuple[int, str]] = {}
    for message in messages:
        for order in message["notification"]["orders"]:
            name, state = order["order_id"], (order["version"], order["s"])
            assert name not in holds or holds[name][0] < state[0], "it goes back, or is told twice"
            holds[name] = state
    truth = {order.order_id: (int(order.filled), order.status.value) for order in versions.orders}
    unknown = {name for name in truth if name not in holds}
    assert {name: truth[name] for name in holds} == holds
    assert unknown <= {name for name, (_, status) in truth.items() if status == "cancelled"}
    assert len(other.messages()) >= bool(versions.changed)


@pytest.mark.parametrize("how", ["leave", "unsubscribe"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_who_leaves_before_its_snapshot_is_written_gets_none(
    told: PrivateFeedAndClients, how: str, pieces: int
) -> None:
    told.open["alice"] = [an_order(order_id=str(number)) for number in range(3 * PIECE)]
    told.connect()
    client = told.connect()
    work = told.subscribing(client)
    for _ in range(pieces):
        next(work)
    getattr(told.feed, how)("alice", client.subscriber)
    assert list(work) == []
    told.change(an_order())
    told.feed.flush()
    assert client.texts() == []


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
    told.subscribe(client)
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
