"""`account.trades`, before the hub's own delivery."""

from __future__ import annotations

from typing import Any

import pytest

from core.channels.hub import Hub
from core.delivery.outbox import EXEMPT, LOSSLESS
from core.market.lag import LONGEST_WAIT_SECONDS, MAX_AHEAD_RECORDS, PATIENCE_SECONDS
from core.market.market import Market
from core.orders.account_trades import SNAPSHOT_FILLS, AccountTrades
from core.orders.ahead import AccountPosition
from core.orders.fills import OwnFills
from tests.core.fake_orders import Fed, command, fill
from tests.core.fakes import Client

EPOCH = "a-life.1"


class Listeners:
    """A directory that reads, and connections of alice's."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        self.hub = Hub(market, lambda: EPOCH, lambda: 0.0)
        self.tags: list[object] = []
        self.fed = Fed(on_fill=lambda user_id, one: self.trades.on_fill(user_id, one), **options)
        self.directory = self.fed.directory
        self.directory.fills.read_from = lambda: {0: 0}
        self.trades = AccountTrades(
            self._deliver,
            self.directory.fills,
            self.directory.read_to.seq,
            lambda: EPOCH,
            lambda: self.now,
            waiting_fills=self.directory.read_to.waiting_fills,
        )
        self.fed.commands(command("a"), command("b", "bob"))

    def _deliver(self, bundle: Any, audience: Any, tag: Any) -> None:
        self.tags.append(tag)
        self.hub.fanout.send(bundle, audience, tag)

    def client(self) -> Client:
        client = Client()
        self.hub.add(client.subscriber, stream=False)
        return client

    def subscribed(self, since: AccountPosition | None = None, user_id: str = "alice") -> Client:
        client = self.client()
        self.trades.subscribe(user_id, client.subscriber, since)
        return client

    def trade(self, count: int = 1, buy: str = "a", sell: str = "b", **more: Any) -> None:
        self.fed.events(*(fill(buy, sell, **more) for _ in range(count)))


@pytest.fixture
def at() -> Listeners:
    return Listeners()


def told(client: Client) -> list[tuple[list[str], dict[str, Any]]]:
    """Of each notification the fills' names, and what else it says."""
    found = []
    for message in client.messages():
        assert message.pop("channel_name") == "account.trades"
        notification = message.pop("notification")
        names = [trade["fill_id"] for trade in notification.pop("trades")]
        found.append((names, {**message, **notification}))
    return found


def test_who_subscribes_is_told_the_last_ones_and_then_each(at: Listeners) -> None:
    at.trade(2)
    client = at.subscribed()
    assert told(client) == [(["0-0", "0-1"], {"epoch": EPOCH, "seq": {"0": 1}, "snapshot": True})]
    at.trade(2)
    assert told(client) == [], "at the end of the beat"
    at.trades.flush()
    at.trades.flush()
    assert told(client) == [(["0-2", "0-3"], {"seq": {"0": 3}})]
    assert at.tags == [EXEMPT, LOSSLESS]


def test_a_snapshot_is_of_the_last_hundred(at: Listeners) -> None:
    at.trade(SNAPSHOT_FILLS + 2)
    [(names, _)] = told(at.subscribed())
    assert (len(names), names[0]) == (SNAPSHOT_FILLS, "0-2")


def test_both_sides_of_a_trade_with_oneself_are_told(at: Listeners) -> None:
    client = at.subscribed()
    at.fed.commands(command("c"))
    at.trade(sell="c")
    at.trades.flush()
    [_, message] = client.messages()
    sides = [(trade["fill_id"], trade["order_id"], trade["side"]) for trade in message["notification"]["trades"]]
    assert sides == [("0-0", "a", "bid"), ("0-0", "c", "ask")]


def test_fills_of_others_are_not_told(at: Listeners) -> None:
    at.fed.commands(command("c", "bob"))
    client, his = at.subscribed(), at.subscribed(user_id="bob")
    told(client)
    at.trade(buy="c")
    at.trades.flush()
    assert told(client) == []
    assert [names for names, _ in told(his)] == [[], ["0-0", "0-0"]]


def test_who_subscribes_later_is_told_nothing_twice(at: Listeners) -> None:
    first = at.subscribed()
    at.trade()
    second = at.subscribed()
    at.trades.flush()
    assert [names for names, _ in told(first)] == [[], ["0-0"]]
    assert [names for names, _ in told(second)] == [["0-0"]]


def test_who_left_is_told_no_more(at: Listeners) -> None:
    client, other = at.subscribed(), at.subscribed()
    told(client), told(other)
    assert at.trades.listeners == 2
    at.trade()
    at.trades.unsubscribe("alice", client.subscriber)
    at.trades.unsubscribe("alice", client.subscriber)
    at.trades.flush()
    assert (told(client), [names for names, _ in told(other)]) == ([], [["0-0"]])
    at.trade()
    at.trades.unsubscribe("alice", other.subscriber)
    at.trades.unsubscribe("alice", other.subscriber)
    at.trades.flush()
    assert (told(other), at.trades.listeners) == ([], 0)


@pytest.mark.parametrize("epoch", [EPOCH, None])
@pytest.mark.parametrize(("position", "names"), [({0: 0}, ["0-1", "0-2"]), ({0: 2}, []), ({}, ["0-0", "0-1", "0-2"])])
def test_who_comes_back_is_told_what_was_missed(
    at: Listeners, position: dict[int, int], names: list[str], epoch: str | None
) -> None:
    at.trade(3)
    client = at.subscribed(AccountPosition(position, epoch))
    assert told(client) == [(names, {"epoch": EPOCH, "seq": {"0": 2}, "recovered": True})]
    at.trade()
    at.trades.flush()
    assert told(client) == [(["0-3"], {"seq": {"0": 3}})]


@pytest.mark.parametrize(
    "since",
    [AccountPosition({0: 0}, "another"), AccountPosition({0: 3}), AccountPosition({1: MAX_AHEAD_RECORDS}, EPOCH)],
)
def test_who_comes_back_from_another_epoch_or_the_future_is_told_the_last_ones(
    at: Listeners, since: AccountPosition
) -> None:
    at.trade(3)
    [(names, said)] = told(at.subscribed(since))
    assert names == ["0-0", "0-1", "0-2"]
    assert said == {"epoch": EPOCH, "seq": {"0": 2}, "recovered": False, "snapshot": True}


def test_who_is_ahead_of_this_instance_is_told_once_that_has_come_as_far(at: Listeners) -> None:
    at.trade(2)
    client = at.subscribed(AccountPosition({0: 2}, EPOCH))
    at.trades.flush()
    assert told(client) == []
    at.trade(2)
    at.trades.flush()
    assert told(client) == [(["0-3"], {"epoch": EPOCH, "seq": {"0": 3}, "recovered": True})]
    at.trade()
    at.trades.flush()
    assert told(client) == [(["0-4"], {"seq": {"0": 4}})]


def test_who_was_told_as_far_as_this_instance_has_read_is_not_ahead_of_it_whatever_records_those_were(
    at: Listeners,
) -> None:
    """By an instance that began at what was kept. It is told of no smaller seq than that."""
    at.trade(2)
    client = at.subscribed(AccountPosition({0: 9}, EPOCH))
    at.trades.flush()
    assert told(client) == []
    at.directory.read_to.events_at = lambda: {0: 10, 1: 0}
    at.trades.flush()
    assert told(client) == [([], {"epoch": EPOCH, "seq": {"0": 9}, "recovered": True})]


def test_who_was_told_more_than_is_known_while_a_fill_waits_is_ahead(at: Listeners) -> None:
    at.directory.read_to.events_at = lambda: {0: 10}
    at.trade(buy="late")
    client = at.subscribed(AccountPosition({0: 9}, EPOCH))
    at.trades.flush()
    assert told(client) == []
    at.fed.commands(command("late"))
    at.trades.flush()
    assert [said["recovered"] for _, said in told(client)] == [True]


def test_who_stays_ahead_of_this_instance_is_told_the_last_ones_in_the_end(at: Listeners) -> None:
    at.trade()
    client = at.subscribed(AccountPosition({0: 1000}, EPOCH))
    waited = 0.0
    while waited < LONGEST_WAIT_SECONDS:  # it comes nearer, but not there
        at.now = waited
        at.trades.flush()
        assert told(client) == []
        at.trade()
        waited += PATIENCE_SECONDS / 2
    at.now = LONGEST_WAIT_SECONDS
    at.trades.flush()
    [(_, said)] = told(client)
    assert said["recovered"] is False


def test_who_is_ahead_of_an_instance_that_stands_still_is_told_sooner(at: Listeners) -> None:
    at.trade()
    client = at.subscribed(AccountPosition({0: 5}, EPOCH))
    at.now = PATIENCE_SECONDS
    at.trades.flush()
    assert [said["recovered"] for _, said in told(client)] == [False]


def test_who_waits_for_this_instance_is_told_nothing_meanwhile_and_may_go(at: Listeners) -> None:
    client = at.subscribed()
    assert len(told(client)) == 1
    at.trades.subscribe("alice", client.subscriber, AccountPosition({0: 5}, EPOCH))
    at.trade()
    at.trades.flush()
    at.trades.unsubscribe("alice", client.subscriber)
    at.trade(9)
    at.trades.flush()
    assert told(client) == []


def test_what_is_not_kept_any_more_is_not_recovered() -> None:
    at = Listeners(fills=OwnFills(most_of_a_user=2))
    at.trade(4)
    assert told(at.subscribed(AccountPosition({0: 0})))[0][1]["recovered"] is False
    assert told(at.subscribed(AccountPosition({0: 1})))[0][0] == ["0-2", "0-3"]


def test_nothing_is_lost_behind_a_fill_that_waits_for_its_order(at: Listeners) -> None:
    at.trade()
    client = at.subscribed()
    told(client)
    at.trade(buy="late", sell="b")
    at.trade()
    at.trades.flush()
    [(names, said)] = told(client)
    assert (names, said["seq"]) == (["0-2"], {"0": 0}), "what waits is behind it"
    again = at.subscribed(AccountPosition(dict.fromkeys([0], said["seq"]["0"])))
    assert told(again)[0][0] == ["0-2"]
    at.fed.commands(command("late"))
    at.trades.flush()
    assert told(again) == [(["0-1"], {"seq": {"0": 2}})]


@pytest.mark.parametrize("whose", ["bob", "alice", None])
def test_fill_whose_other_side_is_not_known_is_told_once_that_is(at: Listeners, whose: str | None) -> None:
    """So that who comes back with what it says is told it no more."""
    client, his = at.subscribed(), at.subscribed(user_id="bob")
    told(client), told(his)
    at.trade(sell="unknown")
    at.trades.flush()
    at.trades.flush()
    assert told(client) == [], "its seq would be that of before"
    if whose is None:
        at.fed.mark()  # it is on no topic
    else:
        at.fed.commands(command("unknown", whose))
    at.trades.flush()
    sides = ["0-0"] * (2 if whose == "alice" else 1)
    assert told(client) == [(sides, {"seq": {"0": 0}})]
    assert told(his) == ([(["0-0"], {"seq": {"0": 0}})] if whose == "bob" else [])
    again = at.subscribed(AccountPosition({0: 0}, EPOCH))
    assert told(again) == [([], {"epoch": EPOCH, "seq": {"0": 0}, "recovered": True})]


def test_other_fills_are_told_while_one_waits(at: Listeners) -> None:
    client = at.subscribed()
    told(client)
    at.trade(sell="unknown")
    at.trade()
    at.trades.flush()
    assert told(client) == [(["0-1"], {"seq": {"0": -1}})]
    at.fed.mark()
    at.trades.flush()
    assert told(client) == [(["0-0"], {"seq": {"0": 1}})]


def test_fills_are_not_held_back_while_more_wait_than_are_looked_through(
    at: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.orders.read_positions.MAX_LOOKED_THROUGH", 0)
    client = at.subscribed()
    told(client)
    at.trade(sell="unknown")
    at.trades.flush()
    assert [names for names, _ in told(client)] == [["0-0"]]


def test_the_seq_stays_while_more_wait_than_are_looked_through(at: Listeners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.orders.read_positions.MAX_LOOKED_THROUGH", 1)
    at.trade()
    at.trade(buy="late", sell="b")
    assert at.directory.read_to.seq() == {0: 0}
    at.trade(buy="later", sell="b")
    at.trade()
    assert at.directory.read_to.seq() == {0: 0}
    at.fed.commands(command("late"), command("later"))
    assert at.directory.read_to.seq() == {0: 3}


def test_the_seq_of_other_partitions_goes_on_while_a_fill_waits(at: Listeners) -> None:
    at.trade()
    at.directory.fold_event(fill("late", "b"), 1, 4, 1, True)
    assert at.directory.read_to.seq() == {0: 0, 1: 3}
    at.trade()
    assert at.directory.read_to.seq() == {0: 1, 1: 3}


def test_the_seq_begins_anew_with_the_topic(at: Listeners) -> None:
    at.trade()
    assert at.directory.read_to.seq() == {0: 0}
    at.directory.forget_event_topic()
    assert at.directory.read_to.seq() == {}
