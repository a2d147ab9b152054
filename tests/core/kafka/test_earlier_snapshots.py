from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from core.kafka.earlier_snapshots import BATCH, SECONDS, STALLED_SECONDS, EarlierSnapshots, _Past
from core.market.market import Market
from core.messages.events import Event
from core.messages.times import Times
from tests.core.fakes import delta, fill, filled, run, snapshot, turns
from tests.core.kafka.fakes import FakeMessage, InlineCalls, end_of

A, B, C = "A/EUR", "B/EUR", "C/EUR"
NOW_MS = 1_700_000_100_000


class FakePartition:
    """Partition 3 of a topic, as each client that is made for it reads it. `None` stands where no record is."""

    def __init__(self, records: list[bytes | None]) -> None:
        self.records = records
        self.low = 0
        self.step = BATCH
        self.begun_at: list[int] = []
        self.made = 0
        self.closed = 0
        self.errors: deque[KafkaError] = deque()
        self.on_consume: Callable[[], None] = lambda: None

    def consumer(self, properties: dict[str, Any]) -> FakeReader:
        assert properties["auto.offset.reset"] == "error", "a gap is seen, and not jumped over"
        self.made += 1
        return FakeReader(self)


class FakeReader:
    def __init__(self, topic: FakePartition) -> None:
        self._topic = topic
        self._position: int | None = None

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, cached: bool) -> tuple[int, int]:
        assert (at.topic, at.partition, cached) == ("market-events", 3, False)
        return self._topic.low, len(self._topic.records)

    def assign(self, partitions: list[TopicPartition]) -> None:
        [at] = partitions
        assert (at.topic, at.partition) == ("market-events", 3)
        assert at.offset >= self._topic.low
        self._position = at.offset
        self._topic.begun_at.append(at.offset)

    def consume(self, count: int, timeout: float) -> list[FakeMessage]:
        topic = self._topic
        topic.on_consume()
        if topic.errors:
            return [FakeMessage(None, 3, None, topic.errors.popleft())]
        if self._position is None:
            return []
        first, end = self._position, min(self._position + min(count, topic.step), len(topic.records))
        found = [
            FakeMessage(at, 3, topic.records[at], time_ms=NOW_MS)
            for at in range(first, end)
            if topic.records[at] is not None
        ]
        self._position = end
        if end == len(topic.records):
            self._position = None
            found.append(end_of(3, end))
        return found

    def close(self) -> None:
        self._topic.closed += 1


class Warmed:
    """A market that has read the records from `begun_at` on, and what is to be looked for before that."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, records: list[bytes | None], begun_at: int, **changes: Any
    ) -> None:
        self.topic = FakePartition(records)
        monkeypatch.setattr("core.kafka.earlier_snapshots.Consumer", self.topic.consumer)
        self.now = 100.0
        self.calls = InlineCalls()
        self.heard: list[Event] = []
        self.poisoned: list[int] = []
        self.market = self.read(begun_at, self.heard, self.poisoned)
        self.earlier = EarlierSnapshots(
            "127.0.0.1:9",
            "market-events",
            {},
            self.market,
            warmup_records=changes.pop("warmup_records", 100_000),
            warmup_min_records=changes.pop("warmup_min_records", 2),
            times=Times(lambda: NOW_MS / 1000),
            calls=self.calls,  # type: ignore[arg-type]
            monotonic=lambda: self.now,
        )
        assert not changes

    def read(self, begun_at: int, heard: list[Event], poisoned: list[int]) -> Market:
        """A market that reads from there to the end."""
        market = Market(
            on_poisoned=lambda _poison, _partition, offset: poisoned.append(offset),
            on_event=lambda event, *_: heard.append(event),
            on_stale=lambda *_: None,
            times=Times(lambda: NOW_MS / 1000),
        )
        market.partitions.begin(3, begun_at)
        for offset, value in enumerate(self.topic.records):
            if value is not None and offset >= begun_at:
                market.fold(3, offset, value, NOW_MS)
        return market

    async def complete(self) -> None:
        await self.earlier.complete(3, len(self.topic.records))


def told(market: Market, symbol: str) -> object:
    """All that can be seen of a symbol."""
    one = market.of(symbol)
    return (
        one.book.live and one.book.snapshot_event(),
        one.state_text(),
        list(one.trades),
        list(one.history.after(-1)),
        one.history.complete_after,
        one.offset,
        one.partition,
    )


Test = Callable[[Warmed], Coroutine[Any, Any, None]]


def on_topic(
    records: list[bytes | None], begun_at: int, **changes: Any
) -> Callable[[Test], Callable[[pytest.MonkeyPatch], None]]:
    def decorate(test: Test) -> Callable[[pytest.MonkeyPatch], None]:
        def tested(monkeypatch: pytest.MonkeyPatch) -> None:
            run(test(Warmed(monkeypatch, records, begun_at, **changes)))

        return tested

    return decorate


QUIET = [snapshot(C, 1)] * 20


@on_topic([snapshot(A, 1), fill(A), delta(A, 2, "1.35"), *QUIET, delta(A, 3, "1.2"), delta(B, 9)], 23)
async def test_earlier_snapshots_make_a_book_of_deltas_that_had_none(warmed: Warmed) -> None:
    assert warmed.earlier.lacks(3)
    heard = list(warmed.heard)
    await warmed.complete()
    assert told(warmed.market, A) == told(warmed.read(0, [], []), A)
    assert warmed.market.of(A).book.live
    assert not warmed.market.of(B).book.known, "it has none"
    assert warmed.heard == heard, "whoever follows orders is told nothing twice"
    assert warmed.market.partitions.folded_to(3) == 24
    assert (warmed.topic.made, warmed.topic.closed) == (1, 1)


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_are_looked_for_twice_as_far_back_each_time(warmed: Warmed) -> None:
    await warmed.complete()
    # The last 4, 8, 16 of 22, then all of them: each record once, and then what is folded.
    assert warmed.topic.begun_at == [18, 14, 6, 0, 0]


@on_topic([snapshot(A, 1), snapshot(A, 5, "1.1"), snapshot(B, 1), *QUIET, delta(A, 6), delta(B, 2)], 23)
async def test_earlier_snapshots_fold_from_the_last_one_of_each_symbol(warmed: Warmed) -> None:
    await warmed.complete()
    assert warmed.topic.begun_at[-1] == 1
    assert told(warmed.market, A) == told(warmed.read(1, [], []), A)
    assert told(warmed.market, B) == told(warmed.read(1, [], []), B)


@on_topic([snapshot(A, 1), snapshot(B, 1), *QUIET, snapshot(A, 2), *QUIET, delta(A, 3), delta(B, 2)], 43)
async def test_earlier_snapshots_go_no_further_back_for_a_symbol_than_to_its_last_one(warmed: Warmed) -> None:
    await warmed.complete()
    assert warmed.topic.begun_at[-1] == 1
    assert (warmed.market.of(A).book.sequence, warmed.market.of(B).book.sequence) == (3, 2)


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21, warmup_records=21)
async def test_earlier_snapshots_are_not_looked_for_beyond_the_bound(warmed: Warmed) -> None:
    before = told(warmed.market, A)
    await warmed.complete()
    assert warmed.topic.begun_at[-1] == 1, "nothing was folded"
    assert told(warmed.market, A) == before
    assert not warmed.market.of(A).book.known


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 1, warmup_records=21)
async def test_earlier_snapshots_ask_nothing_where_all_within_the_bound_has_been_read(warmed: Warmed) -> None:
    await warmed.complete()
    assert (warmed.topic.begun_at, warmed.topic.made) == ([], 0)


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_are_not_looked_for_before_the_first_record_there_is(warmed: Warmed) -> None:
    warmed.topic.low = 5
    await warmed.complete()
    assert min(warmed.topic.begun_at) == 5
    assert not warmed.market.of(A).book.known


@on_topic([snapshot(A, 1), delta(A, 2), snapshot(B, 1), fill(A), filled(symbol=A)], 0)
async def test_earlier_snapshots_lack_nothing_where_every_delta_had_one(warmed: Warmed) -> None:
    assert not warmed.earlier.lacks(3)


@on_topic([delta(A, 1), snapshot(A, 2)], 0)
async def test_earlier_snapshots_lack_nothing_that_has_come_since(warmed: Warmed) -> None:
    assert not warmed.earlier.lacks(3)


@on_topic([delta(A, 1)], 0)
async def test_earlier_snapshots_lack_nothing_on_another_partition(warmed: Warmed) -> None:
    assert (warmed.earlier.lacks(3), warmed.earlier.lacks(2)) == (True, False)


@on_topic([snapshot(A, 1), delta(A, 2, deltas=[{"action": "replace"}]), *QUIET, delta(A, 3)], 22)
async def test_earlier_snapshots_show_no_book_behind_a_change_that_cannot_be_read(warmed: Warmed) -> None:
    await warmed.complete()
    book = warmed.market.of(A).book
    assert (book.known, book.stale) == (True, True)
    assert warmed.poisoned == [], "it was not read by the warm-up; what that read it has counted"


@on_topic([snapshot(A, 1), snapshot(A, 2, bids=7), *QUIET, delta(A, 3)], 22)
async def test_earlier_snapshots_take_none_that_cannot_be_read(warmed: Warmed) -> None:
    await warmed.complete()
    book = warmed.market.of(A).book
    assert (warmed.topic.begun_at[-1], book.known, book.stale) == (0, True, True)


@on_topic([snapshot(A, 1).replace(b"/", b"\\/"), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_are_found_however_they_are_spelt(warmed: Warmed) -> None:
    await warmed.complete()
    assert warmed.market.of(A).book.live


@on_topic([None, snapshot(A, 1), None, None, *[None] * 1500, delta(A, 2), None, None], 1504)
async def test_earlier_snapshots_are_found_between_offsets_that_hold_no_records(warmed: Warmed) -> None:
    await warmed.complete()
    assert warmed.market.of(A).book.live


@on_topic([snapshot(A, 1), *[delta(A, n) for n in range(2, 2 * BATCH + 10)]], 2 * BATCH)
async def test_earlier_snapshots_fold_batch_by_batch(warmed: Warmed) -> None:
    await warmed.complete()
    assert warmed.market.of(A).book.sequence == 2 * BATCH + 9
    assert len([seconds for seconds in warmed.calls.timeouts if seconds == STALLED_SECONDS]) > 3


EVENTS = st.sampled_from(
    [
        snapshot(A, 1),
        snapshot(B, 1, "1.5"),
        snapshot(A, 1, "1.7"),
        *(delta(symbol, 2, price) for symbol in (A, B) for price in ("1.3", "1.45", "1.65")),
        fill(A, price="1.55"),
        fill(B),
        delta(B, 3, deltas=[{"action": "replace"}]),
        b"poison",
        None,
    ]
)


@given(records=st.lists(EVENTS, max_size=40), begun_at=st.integers(0, 40), step=st.integers(1, 50))
def test_earlier_snapshots_end_at_what_whoever_read_it_all_knows(
    records: list[bytes | None], begun_at: int, step: int
) -> None:
    async def main() -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            warmed = Warmed(monkeypatch, [*records, filled()], begun_at)
            warmed.topic.step = step
            lacking = warmed.market.without_snapshot(3)
            await warmed.complete()
            whole = warmed.read(0, [], [])
            for symbol in (A, B):
                book, expected = warmed.market.of(symbol).book, whole.of(symbol).book
                if symbol in lacking:
                    assert (book.known, book.stale) == (expected.known, expected.stale)
                if book.live:
                    assert book.snapshot_event() == expected.snapshot_event()
                if warmed.market.of(symbol).partition is not None:
                    history = warmed.market.of(symbol).history
                    after = history.complete_after
                    found = [(one.offset, one.payload) for one in history.after(after)]
                    assert found == [(one.offset, one.payload) for one in whole.of(symbol).history.after(after)]

    run(main())


# What goes wrong.


TRANSPORT = KafkaError(KafkaError._TRANSPORT)


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_are_looked_for_again_when_the_bus_failed(warmed: Warmed) -> None:
    warmed.topic.errors.extend([TRANSPORT, TRANSPORT])
    await warmed.complete()
    assert warmed.market.of(A).book.live
    assert (warmed.topic.made, warmed.topic.closed) == (3, 3)


@on_topic([snapshot(A, 1), fill(A), *QUIET, delta(A, 2)], 22)
async def test_earlier_snapshots_are_folded_from_the_beginning_when_the_bus_failed_halfway(warmed: Warmed) -> None:
    warmed.topic.step = 5
    begin_again = warmed.market.begin_again

    def fail_later(*arguments: Any) -> None:
        begin_again(*arguments)
        if len(warmed.topic.begun_at) < 7:
            calls = iter(range(99))
            warmed.topic.on_consume = lambda: warmed.topic.errors.extend([TRANSPORT] if next(calls) == 2 else [])

    warmed.market.begin_again = fail_later  # type: ignore[method-assign]
    await warmed.complete()
    assert warmed.topic.closed == 2
    assert told(warmed.market, A) == told(warmed.read(0, [], []), A)


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_are_looked_for_again_when_the_records_are_gone(warmed: Warmed) -> None:
    # Retention has passed what was found.
    def drop() -> None:
        if warmed.topic.begun_at[-2:] == [0, 0] and warmed.topic.low == 0:
            warmed.topic.low = 1
            warmed.topic.errors.append(KafkaError(KafkaError._AUTO_OFFSET_RESET))

    warmed.topic.on_consume = drop
    await warmed.complete()
    book = warmed.market.of(A).book
    assert (book.known, warmed.topic.made) == (False, 2)


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_do_not_wait_for_a_bus_that_answers_nothing(
    warmed: Warmed,
) -> None:
    silent = [True]

    def nothing() -> list[FakeMessage]:
        warmed.now += STALLED_SECONDS / 2
        if warmed.topic.closed:
            silent.clear()
        return []

    consumer = warmed.topic.consumer

    def deaf(properties: dict[str, Any]) -> FakeReader:
        made = consumer(properties)
        consume = made.consume
        made.consume = lambda count, timeout: nothing() if silent else consume(count, timeout)  # type: ignore[method-assign]
        return made

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("core.kafka.earlier_snapshots.Consumer", deaf)
        task = asyncio.create_task(warmed.complete())
        await turns()
        silent.clear()
        await task
    assert (warmed.topic.made, warmed.topic.closed) == (2, 2)
    assert warmed.market.of(A).book.live


@on_topic([snapshot(A, 1), snapshot(B, 1), *QUIET, delta(A, 2), delta(B, 2)], 22)
async def test_earlier_snapshots_use_what_was_found_when_time_is_up(warmed: Warmed) -> None:
    warmed.topic.records[15] = snapshot(B, 1)

    def pass_time() -> None:
        warmed.now += SECONDS / 3

    warmed.topic.on_consume = pass_time
    await warmed.complete()
    assert (warmed.market.of(A).book.known, warmed.market.of(B).book.live) == (False, True)


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_show_nothing_that_was_folded_in_part(warmed: Warmed) -> None:
    fold_again = warmed.market.fold_again

    def fail(partition: int, symbols: Any, offset: int, value: bytes | None, time_ms: int) -> None:
        if offset == 5:
            raise RuntimeError("a fault of ours")
        fold_again(partition, symbols, offset, value, time_ms)

    warmed.market.fold_again = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await warmed.complete()
    one = warmed.market.of(A)
    assert (one.book.known, list(one.history.after(-1)), one.history.complete_after) == (False, [], 21)
    assert warmed.topic.closed == 1


@on_topic([snapshot(A, 1), *QUIET, delta(A, 2)], 21)
async def test_earlier_snapshots_close_their_client_when_the_partition_is_lost(warmed: Warmed) -> None:
    warmed.topic.errors.append(TRANSPORT)
    task = asyncio.create_task(warmed.complete())
    await turns()
    task.cancel()
    await turns()
    assert task.cancelled()
    assert (warmed.topic.made, warmed.topic.closed) == (1, 1)


@pytest.mark.parametrize("fails", [False, True])
def test_earlier_snapshots_fold_nothing_of_a_lost_partition_when_they_are_answered_despite_the_cancel(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async def main() -> None:
        warmed = Warmed(monkeypatch, [snapshot(A, 1), *QUIET, delta(A, 2)], 21)
        begun: list[object] = []
        begin_again = warmed.market.begin_again
        warmed.market.begin_again = lambda *what: begun.append(begin_again(*what))  # type: ignore[method-assign]
        never = asyncio.Event()
        waits = [True]

        async def run_despite_the_cancel(call: Callable[[], Any], _timeout_seconds: float) -> Any:
            if begun and waits:
                waits.clear()
                try:
                    await never.wait()
                except asyncio.CancelledError:
                    if fails:
                        raise RuntimeError("a fault of ours") from None
            return call()

        warmed.calls.run = run_despite_the_cancel  # type: ignore[assignment,method-assign]
        task = asyncio.create_task(warmed.complete())
        await turns()
        assert len(begun) == 1, "it is in the midst of its folding"
        task.cancel()
        warmed.market.forget(3)
        await turns()
        assert task.cancelled()
        assert (warmed.market.symbols, len(begun), warmed.topic.closed) == ([], 1, 1)

    run(main())


def test_earlier_snapshots_wait_for_no_reading_that_nobody_waits_for_when_they_close_their_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warmed = Warmed(monkeypatch, [snapshot(A, 1), *QUIET, delta(A, 2)], 21)
    was_given_up = []
    monkeypatch.setattr(_Past, "close", lambda past: was_given_up.append(past.is_given_up))
    run(warmed.complete())
    assert was_given_up == [True]


@on_topic([snapshot(A, 1)], 0)
async def test_earlier_snapshots_stop_reading_when_nobody_waits_for_it(warmed: Warmed) -> None:
    past = _Past({"auto.offset.reset": "error"}, "market-events", 3, lambda: warmed.now)
    looks = iter([False, False, True])

    def look() -> None:
        past.is_given_up = next(looks)

    warmed.topic.on_consume = look
    warmed.topic.step = 0
    with pytest.raises(TimeoutError, match="given up"):
        past.next_of(past.read(0, 1))


def test_earlier_snapshots_name_some_symbols_that_are_not_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    symbols = [f"S{number}/EUR" for number in range(7)]
    warmed = Warmed(monkeypatch, [snapshot(A), *QUIET, *(delta(symbol) for symbol in symbols), delta(A)], 21)
    with caplog.at_level(logging.INFO):
        run(warmed.complete())
    assert [one.message for one in caplog.records if "snapshot" in one.message] == [
        "market-events partition 3: snapshots of 1 symbols were found further back, from offset 0",
        "market-events partition 3: no snapshot of 7 symbols among the last 100000 records: "
        "S0/EUR, S1/EUR, S2/EUR, S3/EUR, S4/EUR, ...; not known before the next one",
    ]


def test_earlier_snapshots_ask_nothing_after_their_close() -> None:
    market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
    earlier = EarlierSnapshots(
        "127.0.0.1:9", "market-events", {}, market, warmup_records=9, warmup_min_records=1, times=Times()
    )
    earlier.close()
    market.partitions.begin(3, 20)
    market.fold(3, 21, delta(A), 1)
    with pytest.raises(RuntimeError):
        run(earlier.complete(3, 22))
