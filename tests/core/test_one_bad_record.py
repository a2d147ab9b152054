"""Whatever fails in folding one record costs that record at most: a feed, the pump, a market and a hub put together."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial

import pytest
from confluent_kafka import KafkaError

from core.channels.conflated_channels import BookChannel
from core.channels.hub import Hub
from core.channels.lossless_channels import TradesChannel
from core.channels.names import parse_channel
from core.channels.schedule import RETRY_SECONDS
from core.delivery.frames import Bundle
from core.log_throttle import QuietLog
from core.market.market import Market
from core.market.partitions import Partitions
from core.market.symbol_market import SymbolMarket
from core.pump import Pump
from core.telemetry.market_faults import MarketFaults
from core.telemetry.metrics import Metrics
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import Client, delta, fill, snapshot, turns
from tests.core.kafka.fakes import FakeMessage
from tests.core.kafka.feeds import ScriptedFeed, with_feed

SYMBOL = "KCN/EUR"


def nothing(*_: object) -> None:
    pass


class Room:
    """A market and a hub. `on_event` and `on_stale` fail at the offsets, and for the causes, that are in `failing`."""

    needs_beats = False

    def __init__(self) -> None:
        self.failing: set[object] = set()
        self.now = 1000.0
        self.metrics = Metrics()
        faults = MarketFaults(self.metrics, QuietLog(logging.getLogger("gateway")), "market-events")
        self.market = Market(
            nothing,
            lambda _event, _partition, offset, _time_ms: self.fail_at(offset),
            lambda _symbol, cause: self.fail_at(cause),
            on_failed=faults.on_failed,
        )
        self.hub = Hub(self.market, lambda: "epoch", lambda: self.now, self.metrics)
        self.client = Client()
        self.hub.add(self.client.subscriber, stream=True)

    def fail_at(self, what: object) -> None:
        if what in self.failing:
            raise ValueError(f"a fault of ours at {what}")

    def faults(self, where: str) -> float:
        return self.metrics.registry.get_sample_value("gateway_faults_total", {"where": where}) or 0

    def poll(self) -> None:
        pass

    def pump(self, scripted: ScriptedFeed) -> Pump:
        return Pump(
            scripted.feed, self, self.market, self.hub, self.metrics,
            poll_interval_ms=1.0, idle_interval_ms=10.0, again=lambda: None, clock=lambda: 1000.0,
        )  # fmt: skip


@pytest.fixture
def room() -> Room:
    return Room()


async def warm_up(scripted: ScriptedFeed, room: Room, *values: bytes) -> Pump:
    """One batch, which is all of the warm-up."""
    scripted.topic(0, start=0, end=len(values))
    scripted.feed.set_topic_partitions(1)
    await turns()
    scripted.consumer.waiting.extend(FakeMessage(offset, data=value) for offset, value in enumerate(values))
    pump = room.pump(scripted)
    pump.beat()
    return pump


def test_record_that_fails_in_the_batch_that_ends_the_warm_up_costs_neither_the_next_nor_the_partition(
    monkeypatch: pytest.MonkeyPatch, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(scripted: ScriptedFeed) -> None:
        room.failing = {1}
        await warm_up(scripted, room, snapshot(), fill(price="1.5"), delta(price="1.3"))
        assert room.market.partitions.folded == {0: 2}
        assert room.market.partitions.served == {0}
        assert scripted.feed.is_live
        market = room.market.of(SYMBOL)
        assert [trade.as_tuple()[:5] for trade in market.trades] == ["[1.5,"], "the market has what the orders lost"
        assert room.client.texts() == [market.book.snapshot_event()]

    with_feed(main, monkeypatch, listener=room.hub.partition_changes)
    assert room.faults("market") == 1
    [told] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert told.getMessage().endswith("topic market-events partition 0 offset 1")
    assert told.exc_info is not None


def test_partition_is_live_only_once_it_is_served(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    class Reluctant(Partitions):
        def __init__(self) -> None:
            super().__init__()
            self.refusals = 2

        def serve(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
            if self.refusals:
                self.refusals -= 1
                raise ValueError("a fault of ours")
            return super().serve(*arguments, **named)  # type: ignore[arg-type]

    room.market.partitions = room.hub.partition_changes._partitions = partitions = Reluctant()

    async def main(scripted: ScriptedFeed) -> None:
        pump = await warm_up(scripted, room, snapshot())
        for _ in range(2):
            assert (scripted.feed.is_live, partitions.served) == (False, set())
            scripted.consumer.waiting.append(FakeMessage(room.market.partitions.folded_to(0) + 1, data=delta()))
            pump.beat()
        assert (scripted.feed.is_live, partitions.served) == (True, {0})
        assert [where for where, _, _ in scripted.faults] == ["consumer"] * 2
        scripted.faults.clear()
        [first] = room.client.texts()
        assert b'"orderbook_snapshot"' in first, "what came before it was served is shown with it, not before it"

    with_feed(main, monkeypatch, listener=room.hub.partition_changes)


@pytest.mark.parametrize("what", ["lose", "set_unread"])
def test_listener_that_fails_inside_a_call_of_the_client_costs_no_record(
    monkeypatch: pytest.MonkeyPatch, room: Room, what: str
) -> None:
    def failing(*_: object) -> None:
        raise ValueError("a fault of ours")

    async def main(scripted: ScriptedFeed) -> None:
        for number in (0, 1):
            scripted.topic(number, start=0, end=1)
        scripted.feed.set_topic_partitions(2)
        await turns()
        scripted.arrive(FakeMessage(0), FakeMessage(0, of=1))
        monkeypatch.setattr(room.hub.partition_changes, what, failing)
        if what == "lose":
            trouble: FakeMessage | Callable[[], None] = FakeMessage(
                None, 0, None, KafkaError(KafkaError._AUTO_OFFSET_RESET)
            )
        else:
            trouble = partial(scripted.consumer.properties["stats_cb"], '{"brokers": {}, "topics": {}}')
        records, _, _ = scripted.arrive(trouble, FakeMessage(1, of=1))
        assert [(record.partition, record.offset) for record in records] == [(1, 1)]
        assert [where for where, _, _ in scripted.faults] == ["consumer"]
        scripted.faults.clear()

    with_feed(main, monkeypatch, listener=room.hub.partition_changes)


# The market by itself.


def served(room: Room) -> Callable[..., None]:
    offsets = iter(range(1000))
    room.hub.partition_changes.begin(0, 0)
    room.hub.partition_changes.serve([0])

    def say(*values: bytes) -> None:
        news = [room.market.fold(0, next(offsets), value, 1) for value in values]
        room.hub.publish([item for item in news if item is not None])
        room.hub.beat()

    return say


@pytest.mark.parametrize(("record", "is_stale"), [(delta(price="1.3"), True), (snapshot(), True), (fill(), False)])
def test_event_that_fails_is_lost_and_a_book_that_lost_a_change_waits_for_its_snapshot(
    room: Room, monkeypatch: pytest.MonkeyPatch, record: bytes, is_stale: bool
) -> None:
    say, fold = served(room), SymbolMarket.fold
    say(snapshot())

    def failing(*_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(SymbolMarket, "fold", failing)
    room.failing = {"failed"}
    say(record)
    monkeypatch.setattr(SymbolMarket, "fold", fold)
    assert room.market.of(SYMBOL).book.stale is is_stale
    assert room.faults("market") == 1 + is_stale, "what could not be told of it besides is one more"
    say(fill(price="1.5"), snapshot())
    assert len(room.market.of(SYMBOL).trades) == 1
    assert room.market.of(SYMBOL).book.live


def test_event_that_was_lost_is_had_from_the_bus_by_who_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    driven, fold = DrivenHub(), SymbolMarket.fold
    driven.may_ask_for_missed_records()
    driven.say((0, 0, snapshot()), (0, 1, fill()))

    def failing(*_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(SymbolMarket, "fold", failing)
    driven.say((0, 2, fill()))
    monkeypatch.setattr(SymbolMarket, "fold", fold)
    driven.say((0, 3, fill()))
    for seq, gaps in ((0, {0: (1, 4)}), (1, {0: (2, 4)})):
        client = driven.connect()
        driven.subscribe(client, "trades.KCN/EUR", since={"trades.KCN/EUR": {"epoch": driven.epoch, "seq": seq}})
        assert driven.asked_back.pop()[1] == gaps
    client = driven.connect()
    driven.subscribe(client, "trades.KCN/EUR", since={"trades.KCN/EUR": {"epoch": driven.epoch, "seq": 2}})
    [told] = client.messages()
    assert (told["recovered"], len(told["notification"]["trades"])) == (True, 1)


def test_channel_that_fails_keeps_no_other_from_its_turn(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    say = served(room)
    say(snapshot())
    listeners = [Client(), Client()]
    for client, name in zip(listeners, ("trades.KCN/EUR", "events.KCN/EUR"), strict=True):
        room.hub.add(client.subscriber, stream=False)
        room.hub.subscribe(client.subscriber, [parse_channel(name)])
        client.texts()

    def failing(*_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(TradesChannel, "news_texts", failing)
    say(fill())
    assert [len(client.texts()) for client in listeners] == [0, 1]
    assert room.client.texts()[-1] == fill()
    assert room.faults("channels") == 1
    room.hub.partition_changes.lose(0)
    room.hub.partition_changes.begin(0, 0)
    room.hub.partition_changes.serve([0])
    assert room.market.partitions.served == {0}


def test_book_whose_change_could_not_be_told_goes_on_with_a_snapshot(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = served(room)
    say(snapshot())
    client = Client()
    room.hub.add(client.subscriber, stream=False)
    room.hub.subscribe(client.subscriber, [parse_channel("book.KCN/EUR.none.5.raw")])
    client.texts()

    def failing(*_: object) -> None:
        raise ValueError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(BookChannel, "news_texts", failing)
        say(delta(price="1.3"))
    assert client.texts() == []
    room.now += RETRY_SECONDS
    room.hub.beat()
    [told] = [message["notification"] for message in client.messages()]
    assert told["snapshot"]
    assert [price for price, _, _ in told["bid_changes"]] == [1.4, 1.3]


@pytest.mark.parametrize("seed", range(5))
def test_market_is_what_it_would_be_without_the_records_that_fail(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    values = [
        chance.choice([
            lambda: fill(price=f"1.{chance.randrange(10)}", timestamp=chance.randrange(1, 9), taker_side="bid"),
            lambda: snapshot(bid=f"1.{chance.randrange(4)}", ask=f"1.{chance.randrange(5, 9)}"),
            lambda: b"poison",
        ])()
        for _ in range(200)
    ]  # fmt: skip
    failing = set(chance.sample(range(200), 40))
    room, whole = Room(), Room()
    fold = SymbolMarket.fold

    def sometimes(market: SymbolMarket, event: object, partition: int, offset: int, time_ms: int) -> object:
        if market is room.market.of(SYMBOL) and offset in failing:
            raise ValueError("a fault of ours")
        return fold(market, event, partition, offset, time_ms)  # type: ignore[arg-type]

    monkeypatch.setattr(SymbolMarket, "fold", sometimes)
    for offset, value in enumerate(values):
        room.market.fold(0, offset, value, 1)
        if offset not in failing:
            whole.market.fold(0, offset, value, 1)
    for one in (room, whole):
        one.market.fold(0, 200, snapshot(), 1)
    ours, theirs = room.market.of(SYMBOL), whole.market.of(SYMBOL)
    assert [trade.as_tuple() for trade in ours.trades] == [trade.as_tuple() for trade in theirs.trades]
    assert ours.state_text() == theirs.state_text()
    assert ours.book.snapshot_event() == theirs.book.snapshot_event()


def test_part_of_the_beat_that_fails_keeps_no_other_from_its_turn(room: Room) -> None:
    def failing(*_: object) -> None:
        raise ValueError("a fault of ours")

    say = served(room)
    say(snapshot())
    room.client.texts()
    room.hub._beaten = (failing, *room.hub._beaten[1:])
    room.hub.fanout.gather(Bundle([b"said"]), [room.client.subscriber])
    room.hub.beat()
    assert room.client.texts() == [b"said"]
    assert room.faults("channels") == 1


def test_acknowledgements_that_fail_keep_nobody_from_the_market(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    def failing() -> None:
        raise SystemError("a callback raised")

    room.poll = failing  # type: ignore[method-assign]

    async def main(scripted: ScriptedFeed) -> None:
        await warm_up(scripted, room, snapshot())
        assert room.market.partitions.served == {0}

    with_feed(main, monkeypatch, listener=room.hub.partition_changes)
    assert room.faults("orders") == 1
