"""What one partition's writer does with its producer, which is a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from core.kafka.state_reader import UnknownVersion
from core.kafka.state_writer import NotOurs, StateWriter
from core.messages.kept_state import VERSION, Cursor, KeptRecord
from tests.core.kafka.fakes import InlineCalls

CURSOR = Cursor(
    market=1,
    events={0: 1},
    orders={0: 1},
    version=VERSION,
    market_epoch="",
    order_epoch="",
    known_since_ms=None,
    time_ms=0,
)


class Calls(InlineCalls):
    """As the calls of Kafka's clients; what nobody waits for is done at once."""

    def leave(self, call: Callable[[], object]) -> None:
        call()


class FakeProducer:
    """Transactions as lists of (key, value); `full` times the queue has no room."""

    made: list[FakeProducer]
    full = 0

    def __init__(self, properties: dict[str, object]) -> None:
        self.properties = properties
        self.transactions: list[list[tuple[str, bytes | None]]] = []
        self.is_purged = False
        FakeProducer.made.append(self)

    def init_transactions(self, timeout: float) -> None:
        pass

    def begin_transaction(self) -> None:
        self.transactions.append([])

    def commit_transaction(self, timeout: float) -> None:
        pass

    def produce(self, topic: str, value: bytes | None, key: str, partition: int) -> None:
        if FakeProducer.full:
            FakeProducer.full -= 1
            raise BufferError
        self.transactions[-1].append((key, value))

    def poll(self, timeout: float) -> None:
        pass

    def purge(self) -> None:
        self.is_purged = True

    def flush(self, timeout: float) -> None:
        pass


class FakeReader:
    """What is on the partition."""

    def __init__(self, cursor: Cursor | Exception | None, keys: set[str]) -> None:
        self._cursor, self._keys = cursor, keys

    async def last_cursor(self, partition: int) -> tuple[Cursor | None, bool]:
        if isinstance(self._cursor, Exception):
            raise self._cursor
        return self._cursor, not self._keys

    async def keys(self, partition: int) -> set[str]:
        return self._keys


@pytest.fixture(autouse=True)
def producers(monkeypatch: pytest.MonkeyPatch) -> list[FakeProducer]:
    FakeProducer.made = []
    monkeypatch.setattr("core.kafka.state_writer.Producer", FakeProducer)
    return FakeProducer.made


def writer(reader: FakeReader) -> StateWriter:
    return StateWriter(
        3,
        "none:1",
        "state",
        {},
        Calls(),
        reader,
        give_way=lambda: asyncio.sleep(0),  # type: ignore[arg-type]
    )


def piece(*names: str) -> list[KeptRecord]:
    return [KeptRecord(f"order/{name}", b"1") for name in names]


def keys_of(producer: FakeProducer) -> list[list[str]]:
    return [[key if value is not None else f"-{key}" for key, value in one] for one in producer.transactions]


def test_changes_and_the_cursor_are_one_transaction(producers: list[FakeProducer]) -> None:
    async def main() -> None:
        one = writer(FakeReader(CURSOR, {"order/a"}))
        await one.take_over(lambda _cursor: 7)
        FakeProducer.full = 2
        assert await one.write(iter([piece("a"), [], piece("b")]), CURSOR, 8) == (3, len(b"order/a1order/b1"))
        assert (one.generation, one.written, one.is_whole) == (8, 8, False)

    asyncio.run(main())
    assert producers[0].properties["transactional.id"] == "state-3"
    assert producers[0].properties["max.in.flight.requests.per.connection"] == 4
    assert keys_of(producers[0]) == [["order/a", "order/b", "cursor"]]


def test_writing_of_everything_is_many_transactions_of_which_none_counts_before_the_last(
    producers: list[FakeProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.kafka.state_writer.MOST_RECORDS", 2)

    async def main() -> None:
        one = writer(FakeReader(CURSOR, {"order/a", "order/gone"}))
        await one.take_over(lambda _cursor: None)
        await one.write(iter([piece("a", "b"), piece("c")]), CURSOR, 1)

    asyncio.run(main())
    assert keys_of(producers[0]) == [["-cursor", "order/a", "order/b"], ["order/c", "-order/gone", "cursor"]]


@pytest.mark.parametrize("error", [UnknownVersion("version 2"), ValueError("cursor: broken")])
def test_cursor_that_cannot_be_read_is_left_if_it_is_of_another_version(error: ValueError) -> None:
    async def main() -> None:
        told: list[Cursor | None] = []
        one = writer(FakeReader(error, {"order/a"}))

        def begins(cursor: Cursor | None) -> None:
            told.append(cursor)

        if isinstance(error, UnknownVersion):
            with pytest.raises(NotOurs, match="another version"):
                await one.take_over(begins)
        else:
            await one.take_over(begins)
            assert (told, one.is_ready) == ([None], True)

    asyncio.run(main())


def test_writer_that_was_ended_while_it_took_over_is_not_ready(producers: list[FakeProducer]) -> None:
    async def main() -> None:
        one = writer(FakeReader(CURSOR, {"order/a"}))

        def begins(_cursor: Cursor | None) -> int:
            one.end()
            return 0

        await one.take_over(begins)
        assert not one.is_ready
        one.fail(KafkaException(KafkaError(KafkaError._FENCED)))
        assert one.generation is None

    asyncio.run(main())
    assert producers[0].is_purged


def test_writer_that_was_ended_before_it_began_writes_nothing_and_is_no_fault(producers: list[FakeProducer]) -> None:
    async def main() -> None:
        one = writer(FakeReader(CURSOR, set()))
        await one.take_over(lambda _cursor: 7)
        one.end()
        with pytest.raises(LookupError, match="any more"):
            await one.write(iter([piece("a")]), CURSOR, 8)

    asyncio.run(main())
    assert producers[0].transactions == []
