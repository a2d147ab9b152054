"""Who leads a partition of what is kept, and what it is told is to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest
from confluent_kafka import KafkaException

from core.kafka.state_keeper import StateKeeper
from core.kafka.state_reader import UnknownVersion
from core.kafka.state_writer import StateWriter
from core.messages.kept_state import VERSION, Cursor, KeptRecord, Offsets
from tests.core.kafka.keepers import AWAY, keeper
from tests.core.kept_rooms import FakeRoom, FakeTopics


class FakeDuties:
    """As `Duties`: what it is told, in order."""

    prefix = "release"

    def __init__(self) -> None:
        self.taken_over: list[tuple[int, Cursor | None, dict[str, bytes]]] = []
        self.begun: Callable[[], None] = lambda: None

    def count(self, partition: int) -> int | None:
        return 7 + partition

    def ended_to(self) -> dict[int, int]:
        return {0: 3}

    def take_over(self, partition: int, cursor: Cursor | None, kept: Mapping[str, bytes]) -> Iterator[None]:
        self.begun()
        yield
        self.taken_over.append((partition, cursor, dict(kept)))


class FakeReader:
    """As the reader: the last cursor, or the error that it meets, and the values that there are."""

    def __init__(self, cursor: Cursor | Exception | None = None, values: dict[str, bytes] | None = None) -> None:
        self.cursor = cursor
        self.kept = values or {}
        self.asked: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def last_cursor(self, partition: int) -> tuple[Cursor | None, bool]:
        if isinstance(self.cursor, Exception):
            raise self.cursor
        return self.cursor, self.cursor is None

    async def values(self, partition: int, prefix: str) -> dict[str, bytes]:
        self.asked.append(prefix)
        self.meanwhile()
        return self.kept


class TakingOver(StateWriter):
    """Takes over from whoever wrote the cursor that is there, and writes nothing."""

    async def take_over(self, begins: Callable[[Cursor | None], int | None]) -> None:
        self.found, _ = await self._reader.last_cursor(self.partition)
        self.generation = begins(self.found)
        self.is_ready = True

    async def write(self, pieces: Iterable[list[KeptRecord]], cursor: Cursor, generation: int) -> tuple[int, int]:
        self.written_cursor = cursor
        return 0, 0


def last(
    at: int = 0, releases: int | None = 0, topic: str = "market", life: str = "market-1", **more: Offsets
) -> Cursor:
    return Cursor(
        market=at, events={0: at}, orders={0: at}, version=VERSION, market_epoch=life, order_epoch="orders-1",
        known_since_ms=None, time_ms=0, market_topic=topic, order_topic="orders", releases=releases, **more,
    )  # fmt: skip


def leading(reader: FakeReader) -> tuple[StateKeeper, FakeDuties]:
    """A keeper that is to write the one partition there is."""
    kept, duties = keeper(FakeTopics(1)), FakeDuties()
    kept.rooms, kept.duties = [FakeRoom("order")], duties
    kept._reader = reader  # type: ignore[assignment]
    kept._begin_generation()
    kept.mine = {0}
    kept._writers[0] = TakingOver(
        0, "none:1", "state", {}, kept._calls, reader, give_way=lambda: asyncio.sleep(0)  # type: ignore[arg-type]
    )  # fmt: skip
    return kept, duties


KEPT = {"release/a": b"{}"}


@pytest.mark.parametrize(
    ("cursor", "is_of_use", "is_read"),
    [
        (None, False, True),
        (last(), True, False),
        (last(releases=2), True, True),
        (last(releases=None), True, True),
        (last(releases=2, life="market-0"), False, True),
    ],
    ids=["none", "nothing to do", "something to do", "not known", "of another life"],
)
def test_who_takes_over_is_told_what_is_to_be_done_before_anything_is_written(
    cursor: Cursor | None, is_of_use: bool, is_read: bool
) -> None:
    reader = FakeReader(cursor, KEPT)
    kept, duties = leading(reader)
    assert not kept.leads(0)
    asyncio.run(kept._round())
    assert duties.taken_over == [(0, cursor if is_of_use else None, KEPT if is_read else {})]
    assert (reader.asked, kept.leads(0), kept.leads(1)) == (["release"] * is_read, True, False)
    asyncio.run(kept._round())
    assert len(duties.taken_over) == 1
    written = kept._writers[0].written_cursor  # type: ignore[attr-defined]
    assert (written.releases, written.ended_to) == (7, {0: 3})


def test_writer_that_fails_leads_no_more_until_it_has_taken_over_again() -> None:
    kept, duties = leading(FakeReader(last()))
    asyncio.run(kept._round())
    kept._writers[0].fail(TimeoutError())
    assert not kept.leads(0)
    asyncio.run(kept._round())
    assert not kept.leads(0), "it waits before it tries again"
    kept._writers[0].retry_at = 0.0
    asyncio.run(kept._round())
    assert (kept.leads(0), len(duties.taken_over)) == (True, 2)


@pytest.mark.parametrize("when", ["read", "taken over"])
def test_partition_that_was_lost_meanwhile_is_not_led(when: str) -> None:
    reader = FakeReader(last(releases=1))
    kept, duties = leading(reader)

    def lose() -> None:
        kept._have_revoked(frozenset())
        kept._have_assigned(frozenset({0}))

    if when == "read":
        reader.meanwhile = lose
    else:
        duties.begun = lose
    asyncio.run(kept._round())
    assert (kept.leads(0), duties.taken_over) == (False, [])


@pytest.mark.parametrize("is_given_up", [False, True], ids=["to be written", "not to be written"])
def test_fault_of_ours_in_taking_over_costs_a_while_and_no_other_partition(
    is_given_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept, duties = leading(FakeReader(last()))
    if is_given_up:
        kept._given_up.add(0)

    def fail() -> None:
        raise ZeroDivisionError

    duties.begun = fail
    asyncio.run(kept._round())
    assert not kept.leads(0)
    assert any("taken over" in one.getMessage() and one.exc_info for one in caplog.records)
    duties.begun = lambda: None
    kept._writers[0].retry_at = 0.0
    asyncio.run(kept._round())
    assert kept.leads(0)


OLDER = Offsets(-1, {0: -1}, {0: -1})


@pytest.mark.parametrize(
    ("cursor", "told"),
    [
        (last(releases=1, known_from=OLDER), (last(releases=1, known_from=OLDER), KEPT)),
        (last(releases=1, topic="another"), (None, {})),
        (UnknownVersion("version 2"), (None, {})),
        (ValueError("no cursor"), (None, KEPT)),
    ],
    ids=["of who knows more", "of other topics", "of another version", "that cannot be read"],
)
def test_what_is_to_be_done_is_done_by_who_may_not_write(
    cursor: Cursor | Exception, told: tuple[Cursor | None, dict[str, bytes]]
) -> None:
    kept, duties = leading(FakeReader(cursor, KEPT))
    kept._given_up.add(0)
    for _ in range(2):
        asyncio.run(kept._round())
    assert (kept.leads(0), duties.taken_over) == (True, [(0, *told)])
    kept._have_revoked(frozenset())
    assert not kept.leads(0)


def test_who_finds_out_that_it_may_not_write_leads_from_the_next_round_on() -> None:
    kept, duties = leading(FakeReader(last(known_from=OLDER)))
    asyncio.run(kept._round())
    assert (kept._given_up, kept.leads(0)) == ({0}, False)
    asyncio.run(kept._round())
    assert (kept.leads(0), len(duties.taken_over)) == (True, 1)


@pytest.mark.parametrize("error", [TimeoutError(), KafkaException(AWAY)], ids=["no answer", "no brokers"])
def test_what_is_to_be_done_is_read_again_as_long_as_it_cannot_be(error: Exception) -> None:
    reader = FakeReader(error)
    kept, duties = leading(reader)
    kept._given_up.add(0)
    asyncio.run(kept._round())
    assert not kept.leads(0)
    reader.cursor = last()
    asyncio.run(kept._round())
    assert (kept.leads(0), len(duties.taken_over)) == (True, 1)


@pytest.mark.parametrize(
    ("cursor", "is_of_use"),
    [
        (last(), True),
        (last(life="market-0"), False),
        (None, False),
        (UnknownVersion("2"), False),
        (TimeoutError(), False),
    ],
)
def test_last_cursor_is_told_where_it_is_of_use(cursor: Cursor | Exception | None, is_of_use: bool) -> None:
    kept, _ = leading(FakeReader(cursor))
    assert asyncio.run(kept.last_cursor(0)) == (cursor if is_of_use else None)
