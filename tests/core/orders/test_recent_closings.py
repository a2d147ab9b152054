"""Orders that closed lately, and `account.orders` for who comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.channels.hub import Hub
from core.market.lag import PATIENCE_SECONDS
from core.market.market import Market
from core.orders.account_trades import AccountTrades
from core.orders.ahead import AccountPosition
from core.orders.fills import OwnFills
from core.orders.order import state
from core.orders.private_feed import PrivateFeed
from core.orders.recent_closings import RecentClosings
from tests.core.fake_orders import Fed, command, event, fill
from tests.core.fakes import Client, run, turns

EPOCH = "a-life.1"


class Alice:
    """Her orders, and a connection now and then."""

    def __init__(self, most: int = 100) -> None:
        self.now = 0.0
        self.hub = Hub(Market(lambda *_: None, lambda *_: None, lambda *_: None), lambda: EPOCH, lambda: 0.0)
        self.fed = Fed()
        directory = self.fed.directory
        directory._on_change = lambda order: self.feed.on_change(order)
        read_to = directory.read_to
        deliver = self.hub.fanout.send
        self.feed = PrivateFeed(
            deliver,
            directory.open_orders,
            state,
            trades=AccountTrades(deliver, OwnFills(), read_to.seq, lambda: EPOCH, lambda: self.now),
            closings=RecentClosings(read_to.folded_to, read_to.read_back_to, read_to.seq, most),
        )

    def close(self, *order_ids: str, live: bool = True) -> None:
        """In one beat."""
        self.fed.commands(*(command(order_id) for order_id in order_ids))
        self.fed.events(*(event("order_filled", order_id) for order_id in order_ids), live=live)
        self.feed.flush()

    def subscribe(self, since: dict[str, int] | None = None, epoch: str | None = EPOCH) -> Client:
        client = Client()
        self.hub.add(client.subscriber, stream=False)
        self.feed.join("alice", client.subscriber)
        position = None if since is None else AccountPosition({int(one): at for one, at in since.items()}, epoch)
        with pytest.raises(StopIteration):
            self.feed.subscribe("alice", client.subscriber, position).send(None)
        return client

    def told(self, since: dict[str, int] | None = None, epoch: str | None = EPOCH) -> tuple[bool | None, list[str]]:
        """Whether all is recovered, and the orders."""
        [message] = self.subscribe(since, epoch).messages()
        return message.get("recovered"), [one["order_id"] for one in message["notification"]["orders"]]


@pytest.fixture
def alice() -> Alice:
    return Alice()


def seq_of(client: Client) -> dict[str, Any]:
    return dict(client.messages()[-1]["seq"])


def test_who_comes_back_is_told_what_closed_meanwhile_and_what_is_open(alice: Alice) -> None:
    alice.close("before")
    alice.fed.commands(command("open"))
    seq = seq_of(alice.subscribe())
    alice.close("one", "two")
    alice.close("three")
    assert alice.told(seq) == (True, ["one", "two", "three", "open"])
    assert alice.told() == (None, ["open"])
    assert alice.told(seq, None) == (True, ["one", "two", "three", "open"])


def test_each_notification_says_how_far_it_goes(alice: Alice) -> None:
    client = alice.subscribe()
    assert seq_of(client) == {}
    alice.close("one")
    assert seq_of(client) == {"0": 0}
    assert alice.told({"0": 0}) == (True, [])


@pytest.mark.parametrize(("since", "epoch"), [({"0": 0}, "another"), ({"0": 9}, None), ({"0": 200_000}, EPOCH)])
def test_who_comes_back_from_another_epoch_or_the_future_is_told_what_is_open(
    alice: Alice, since: dict[str, int], epoch: str
) -> None:
    alice.close("one")
    assert alice.told(since, epoch) == (False, [])


def test_who_is_ahead_of_this_instance_is_told_once_that_has_come_as_far(alice: Alice) -> None:
    async def main() -> None:
        alice.close("one")
        client = alice.subscribe({"0": 1})
        alice.feed.flush()
        assert client.messages() == []
        alice.close("two", "three")
        await turns()
        [message] = client.messages()
        assert message["recovered"] is True
        assert [one["order_id"] for one in message["notification"]["orders"]] == ["two", "three"]
        alice.close("four")
        assert len(client.messages()) == 1

    run(main())


def test_who_was_told_as_far_as_this_instance_has_read_is_not_ahead_of_it_whatever_records_those_were(
    alice: Alice,
) -> None:
    """By an instance that began at what was kept."""
    alice.close("one")
    alice.fed.directory.read_to.events_at = lambda: {0: 10}
    assert alice.told({"0": 9}) == (True, [])


def test_who_stays_ahead_of_this_instance_is_told_what_is_open_in_the_end(alice: Alice) -> None:
    async def main() -> None:
        alice.close("one")
        client = alice.subscribe({"0": 9})
        alice.now = PATIENCE_SECONDS
        alice.feed.flush()
        await turns()
        [message] = client.messages()
        assert message["recovered"] is False

    run(main())


@pytest.mark.parametrize("how", ["drop", "drop at last", "leave", "subscribe"])
def test_who_does_not_want_it_any_more_waits_for_nothing(alice: Alice, how: str) -> None:
    async def main() -> None:
        alice.close("one")
        client = alice.subscribe({"0": 1})
        if how == "drop":
            alice.feed.drop("alice", client.subscriber, ["account.orders"])
        elif how == "leave":
            alice.feed.leave("alice", client.subscriber)
        elif how == "subscribe":
            await alice.feed.subscribe("alice", client.subscriber)
        alice.close("two")
        if how == "drop at last":
            alice.feed.drop("alice", client.subscriber, ["account.orders"])
        await turns()
        told = [message for message in client.messages() if "channel_name" in message]
        assert [message["notification"].get("snapshot") for message in told] == (
            [True, None] if how == "subscribe" else []
        )

    run(main())


def test_what_closed_before_this_instance_was_live_is_not_recovered(alice: Alice) -> None:
    alice.close("one", live=False)
    alice.close("two")
    assert alice.told({}) == (False, [])
    assert alice.told({"0": 0}) == (True, ["two"])


def test_no_more_than_the_last_ones_are_recovered() -> None:
    alice = Alice(most=2)
    for name in ("one", "two", "three"):
        alice.close(name)
    assert alice.told({}) == (False, [])
    assert alice.told({"0": 0}) == (True, ["two", "three"])


def test_orders_of_others_and_of_nobody_are_not_told(alice: Alice) -> None:
    alice.fed.commands(command("his", "bob"), command("nobodys", None))
    alice.fed.events(event("order_filled", "his"), event("order_filled", "nobodys"))
    alice.feed.flush()
    assert alice.told({}) == (True, [])


def test_an_order_that_closed_while_a_fill_still_waited_is_told_once_more(alice: Alice) -> None:
    alice.close("one")
    alice.fed.events(fill("late", "other"))
    client = alice.subscribe()
    alice.close("two")
    seq = seq_of(client)
    assert seq == {"0": 0}, json.dumps(seq)
    assert alice.told(seq) == (True, ["two"])
