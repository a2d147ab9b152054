from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from core.channels.client_position import Since
from core.channels.kinds import make_channel
from core.channels.lossless_channels import LosslessChannel
from core.channels.names import parse_channel
from core.channels.replay import Gaps, Replay
from core.delivery.subscriber import Subscriber
from core.kafka import missed_records
from core.kafka.missed_records import MAX_WAITING, READERS, WAIT_SECONDS, MissedRecords
from core.market.history import Entry
from core.market.market import Market
from tests.core.fakes import Client, delta, fill, filled, run, turns
from tests.core.kafka.fakes import FakeMessage, InlineCalls, end_of

Found = dict[int, list[Entry]]


class FakeReader:
    """A consumer that reads what a test has put on its partitions."""

    topic: dict[int, list[FakeMessage]]
    made: list[FakeReader]
    error: KafkaError | None = None

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties
        self.waiting: deque[FakeMessage] = deque()
        self.assigned: dict[int, int] = {}
        self.closed = 0
        FakeReader.made.append(self)

    def assign(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self.assigned[partition.partition] = partition.offset
            messages = FakeReader.topic.get(partition.partition, [])
            self.waiting.extend(m for m in messages if m.at is not None and m.at >= partition.offset)

    def consume(self, count: int, timeout: float) -> list[FakeMessage]:
        if FakeReader.error is not None:
            return [FakeMessage(None, 0, None, FakeReader.error)]
        return [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]

    def close(self) -> None:
        self.closed += 1


class AskedRecords:
    """A reader back over a fake topic, and what it answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FakeReader, "topic", {}, raising=False)
        monkeypatch.setattr(FakeReader, "made", [], raising=False)
        monkeypatch.setattr(FakeReader, "error", None)
        monkeypatch.setattr("core.kafka.missed_records.Consumer", FakeReader)
        self.answers: list[tuple[Replay, Found | None]] = []
        extra = {"fetch.wait.max.ms": 77}
        self.missed_records = MissedRecords("127.0.0.1:9", "market-events", extra, lambda *a: self.answers.append(a))
        self.calls = InlineCalls()
        self.missed_records._calls.close()
        self.missed_records._calls = self.calls  # type: ignore[assignment]
        self.market = Market(lambda *_: None, lambda *_: None, lambda *_: None)

    def replay(self, channel: str = "events.KCN/EUR", subscriber: Subscriber | None = None) -> Replay:
        channel = make_channel(parse_channel(channel), self.market)
        assert isinstance(channel, LosslessChannel)
        return Replay(channel, subscriber or Client().subscriber, Since({0: 1}, None), "epoch")

    async def ask(self, gaps: Gaps, replay: Replay | None = None) -> Found | None:
        assert self.missed_records(replay or self.replay(), gaps)
        await turns()
        return self.answers.pop()[1]


def on_bench(test: Callable[[AskedRecords], Coroutine[Any, Any, None]]) -> Callable[[pytest.MonkeyPatch], None]:
    def tested(monkeypatch: pytest.MonkeyPatch) -> None:
        run(test(AskedRecords(monkeypatch)))

    return tested


def put(partition: int, *values: bytes | None, start: int = 0) -> None:
    FakeReader.topic[partition] = [
        FakeMessage(start + number, partition, value, time_ms=1000 + number) for number, value in enumerate(values)
    ]


@on_bench
async def test_missed_records_finds_what_is_missing_and_nothing_else(asked: AskedRecords) -> None:
    values = [fill(timestamp=number) for number in range(20)]
    put(0, *values)
    found = await asked.ask({0: (5, 8)})
    assert found is not None
    assert [(e.partition, e.offset, e.time_ms, e.payload) for e in found[0]] == [
        (0, offset, 1000 + offset, values[offset]) for offset in (5, 6, 7)
    ]
    [reader] = FakeReader.made
    assert (reader.assigned, reader.closed) == ({0: 5}, 1)
    properties = reader.properties
    assert (properties["auto.offset.reset"], properties["enable.auto.commit"]) == ("error", False)
    assert properties["enable.partition.eof"] is True


@on_bench
async def test_missed_records_reads_several_partitions(asked: AskedRecords) -> None:
    put(0, *[fill("A/A")] * 9)
    put(2, *[fill("B/B")] * 9)
    found = await asked.ask({0: (1, 3), 2: (4, 9)}, asked.replay("events"))
    assert found is not None
    assert {number: [e.offset for e in entries] for number, entries in found.items()} == {0: [1, 2], 2: [4, 5, 6, 7, 8]}
    assert {e.symbol for e in found[2]} == {"B/B"}


@on_bench
async def test_missed_records_leaves_out_other_symbols_private_events_and_poison(asked: AskedRecords) -> None:
    put(0, fill("A/A"), filled(symbol="KCN/EUR"), b"poison", None, delta(), b'{"type":"halt"}', fill(user_id="alice"))
    found = await asked.ask({0: (0, 7)})
    assert found is not None
    assert [e.offset for e in found[0]] == [4, 6]
    assert b"alice" not in found[0][1].payload
    assert found[0][0].trade is None
    assert found[0][1].trade is not None


@on_bench
async def test_missed_records_ends_at_the_end_of_the_partition_where_the_last_offsets_hold_no_records(
    asked: AskedRecords,
) -> None:
    FakeReader.topic[0] = [FakeMessage(3, 0, fill()), end_of(0, 9)]
    found = await asked.ask({0: (3, 9)})
    assert found is not None
    assert [e.offset for e in found[0]] == [3]


@on_bench
async def test_missed_records_goes_past_offsets_that_hold_no_records(asked: AskedRecords) -> None:
    FakeReader.topic[0] = [FakeMessage(3, 0, fill()), FakeMessage(12, 0, fill())]
    found = await asked.ask({0: (3, 9)})
    assert found is not None
    assert [e.offset for e in found[0]] == [3]


@on_bench
async def test_missed_records_keeps_every_digit_and_the_engines_aggressor(asked: AskedRecords) -> None:
    price = "1." + "0123456789" * 3
    put(0, fill(price=price, taker_side="bid"), fill(price="2", taker_side="ask"), fill(price="3"), fill(price="3"))
    found = await asked.ask({0: (0, 4)}, asked.replay("trades.KCN/EUR"))
    assert found is not None
    trades = [e.trade for e in found[0]]
    assert all(trades)
    assert trades[0] is not None
    assert trades[0].price == Decimal(price)
    assert [trade.side for trade in trades if trade] == ["buy", "sell", "buy", "buy"], "by the tick, without a book"


@on_bench
async def test_missed_records_takes_times_as_they_were_taken_when_they_were_new(asked: AskedRecords) -> None:
    put(0, fill(timestamp=2**62), fill(timestamp=1_700_000_000))
    found = await asked.ask({0: (0, 2)})
    assert found is not None
    assert [one.trade.timestamp_ms for one in found[0] if one.trade is not None] == [1000, 1_700_000_000_000]


@on_bench
async def test_missed_records_gives_up_on_too_many_records_without_reading(asked: AskedRecords) -> None:
    assert await asked.ask({0: (0, 150_000), 1: (0, 50_001)}) is None
    assert FakeReader.made == []


def test_missed_records_gives_up_on_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(asked: AskedRecords) -> None:
        monkeypatch.setattr(missed_records, "MAX_BYTES", 1000)
        put(0, *[b"x" * 600] * 3)
        assert await asked.ask({0: (0, 600)}) is None
        assert FakeReader.made[0].closed == 1

    run(main(AskedRecords(monkeypatch)))


def test_missed_records_gives_up_when_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(asked: AskedRecords) -> None:
        moments = iter([0.0, 5.0, 10.1])
        monkeypatch.setattr("core.kafka.missed_records.time.monotonic", lambda: next(moments))
        assert await asked.ask({0: (0, 6)}) is None
        assert FakeReader.made[0].closed == 1

    run(main(AskedRecords(monkeypatch)))


@on_bench
async def test_missed_records_ends_when_nobody_waits_for_it_any_more(asked: AskedRecords) -> None:
    replay = asked.replay()
    replay.cancelled = True
    assert await asked.ask({0: (0, 6)}, replay) is None


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_missed_records_says_that_it_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    async def main(asked: AskedRecords) -> None:
        FakeReader.error = KafkaError(code, "gone")
        assert await asked.ask({0: (0, 6)}) is None
        assert FakeReader.made[0].closed == 1

    run(main(AskedRecords(monkeypatch)))
    assert "reading back for a client failed" in caplog.text


@pytest.mark.parametrize("error", [TimeoutError(), KafkaException(KafkaError(KafkaError._TRANSPORT)), ValueError()])
def test_missed_records_answers_even_when_the_call_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def main(asked: AskedRecords) -> None:
        asked.calls.raises.append(error)
        assert await asked.ask({0: (0, 6)}) is None
        asked.calls.raises.clear()
        put(0, fill())
        assert await asked.ask({0: (0, 1)}) is not None, "and its place is free again"

    run(main(AskedRecords(monkeypatch)))


@on_bench
async def test_missed_records_reads_for_one_connection_at_a_time_and_for_four_in_all(asked: AskedRecords) -> None:
    put(0, fill())
    asked.calls.gate.clear()
    subscriber = Client().subscriber
    replays = [asked.replay(subscriber=subscriber), asked.replay("trades.KCN/EUR", subscriber)]
    replays += [asked.replay() for _ in range(READERS)]
    for replay in replays:
        assert asked.missed_records(replay, {0: (0, 1)})
    await turns()
    assert (READERS, len(asked.calls.timeouts)) == (4, READERS)
    asked.calls.gate.set()
    await turns(100)
    assert [replay for replay, _ in asked.answers] == [replays[0], *replays[2:5], replays[1], replays[5]]
    assert None not in [found for _, found in asked.answers]


@on_bench
async def test_missed_records_waits_for_a_place_for_a_while(asked: AskedRecords) -> None:
    put(0, fill())
    asked.calls.gate.clear()
    subscriber = Client().subscriber
    reading, waiting, left, late = (asked.replay(subscriber=subscriber) for _ in range(4))
    for replay in (reading, waiting, left):
        assert asked.missed_records(replay, {0: (0, 1)})
    await asyncio.sleep(WAIT_SECONDS - 1)
    assert asked.missed_records(late, {0: (0, 1)})
    left.cancelled = True
    await asyncio.sleep(2)
    assert dict(asked.answers) == {waiting: None, left: None}
    asked.calls.gate.set()
    await turns(100)
    assert [replay for replay, _ in asked.answers[2:]] == [reading, late]
    assert asked.answers[3][1] is not None


@on_bench
async def test_missed_records_reads_nothing_for_who_left_while_waiting(asked: AskedRecords) -> None:
    put(0, fill())
    asked.calls.gate.clear()
    subscriber = Client().subscriber
    reading, left, next_one = (asked.replay(subscriber=subscriber) for _ in range(3))
    for replay in (reading, left, next_one):
        assert asked.missed_records(replay, {0: (0, 1)})
    left.cancelled = True
    asked.calls.gate.set()
    await turns(100)
    assert [replay for replay, _ in asked.answers] == [reading, next_one]


@on_bench
async def test_missed_records_refuses_where_too_many_wait(asked: AskedRecords) -> None:
    asked.calls.gate.clear()
    asked.calls.close = lambda: None  # type: ignore[attr-defined]
    assert all(asked.missed_records(asked.replay(), {0: (0, 1)}) for _ in range(READERS + MAX_WAITING))
    assert not asked.missed_records(asked.replay(), {0: (0, 1)})
    asked.missed_records.close()
    await asyncio.sleep(WAIT_SECONDS + 1)
    assert asked.answers == []


@on_bench
async def test_missed_records_answers_nobody_after_its_end(asked: AskedRecords) -> None:
    asked.calls.gate.clear()
    asked.calls.close = lambda: None  # type: ignore[attr-defined]
    assert asked.missed_records(asked.replay(), {0: (0, 1)})
    await asyncio.sleep(0)
    asked.missed_records.close()
    asked.calls.gate.set()
    await turns()
    assert asked.answers == []
