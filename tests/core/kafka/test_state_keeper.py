"""What the keeper makes of both topics, without Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable
from functools import partial

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from core.kafka.state_keeper import GENERATIONS_KEPT, LEARN_AGAIN_SECONDS
from core.kafka.state_reader import Found, Route, StateReader, Wanted
from core.kafka.state_topic import Unfit
from core.kafka.state_writer import KnowsLess, NotOurs, StateWriter
from core.messages.kept_state import VERSION, Cursor, KeptRecord, Offsets
from tests.core.kafka.keepers import AWAY, keeper
from tests.core.kept_rooms import FakeRoom, FakeTopics


@pytest.mark.parametrize(
    ("lives", "known_from"),
    [
        (("market-1", "orders-1"), Offsets(3, {0: 4}, {0: 5})),
        (("market-1", "orders-2"), Offsets(3, {0: 4}, {0: 9})),
        (("market-2", "orders-1"), Offsets(9, {0: 9}, {0: 5})),
    ],
)
def test_what_is_known_goes_back_to_where_what_was_taken_back_did_while_the_topics_are_the_same(
    lives: tuple[str, str], known_from: Offsets
) -> None:
    topics = FakeTopics(1)
    topics.begun, topics.lives = {0: 9}, lives
    kept = keeper(topics)
    taken_back = Cursor(
        market=9,
        events={0: 9},
        orders={0: 9},
        version=VERSION,
        market_epoch="market-1",
        order_epoch="orders-1",
        known_since_ms=None,
        time_ms=0,
        known_from=Offsets(3, {0: 4}, {0: 5}),
    )
    for cursors in kept.restored.cursors.values():
        cursors[0] = taken_back
    assert kept._known_from(0) == known_from


def test_record_that_cannot_be_read_is_no_problem_once_a_later_one_of_its_key_is_there() -> None:
    found, room = Found(), FakeRoom("order")
    route = Route(0, [Wanted(("order",), room.take_back, {0: found})])
    for key, value, problem in (
        (b"order/a", b"1", False),
        (b"order/a", b"{", True),
        (b"order/b", b"1", True),
        (b"order/a", b"2", False),
        (b"order/\xff", b"2", True),
        (b"order/\xff", None, False),
        (b"order/b", b"{", True),
        (b"cursor", b'{"version":%d}' % (VERSION + 1), True),
        (b"order/b", b"3", True),
    ):
        route.hand_over(key, value)
        assert (found.problem is not None) is problem
    assert "version" in str(found.problem)
    assert room.values == {(0, "a"): 2, (0, "b"): 3}


@pytest.mark.parametrize("written", [1, None], ids=["it wrote", "it never wrote"])
def test_generation_that_a_failing_writer_would_go_on_from_stays_known(written: int | None) -> None:
    kept, room = keeper(FakeTopics(1)), FakeRoom("order")
    kept.rooms = [room]
    kept._begin_generation()
    writer = kept._writers[0] = StateWriter(
        0, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0)
    )
    writer.written = written

    async def rounds() -> None:
        room.set(0, "a", 1)
        for _ in range(GENERATIONS_KEPT + 5):
            await kept._write()

    asyncio.run(rounds())
    if written is None:
        with pytest.raises(LookupError):
            room.journal.since(0, 1)
    else:
        assert room.journal.since(0, written) == set()
        assert kept._generations[0][0] == written


DENIED = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)


def test_instance_that_may_not_take_part_leaves_the_writing_to_others_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = keeper(FakeTopics(2))
    kept._have_assigned(frozenset({0, 1}))
    assert kept.mine == {0, 1}
    kept._writers[0] = StateWriter(
        0, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0)
    )
    kept._on_election_error(AWAY)
    assert kept.problem is None
    kept._on_election_error(DENIED)
    kept._on_election_error(DENIED)
    assert (kept.mine, kept._writers) == (set(), {})
    assert len([one for one in caplog.records if "--group state-writers" in one.getMessage()]) == 1


def test_partitions_that_are_revoked_are_written_no_more() -> None:
    kept = keeper(FakeTopics(1))
    kept._have_assigned(frozenset({0}))
    kept._writers[0] = writer = StateWriter(
        0, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0)
    )
    writer.is_ready = True
    kept._have_revoked(frozenset({0}))
    assert (kept.mine, kept._writers, writer.is_ready) == (set(), {}, False)


class FailingWriter(StateWriter):
    """Fails as a test says, in taking over and in writing."""

    error: Exception

    async def take_over(self, begins: Callable[[Cursor | None], int | None]) -> None:
        raise self.error

    async def write(self, pieces: Iterable[list[KeptRecord]], cursor: Cursor, generation: int) -> tuple[int, int]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "is_resigned"),
    [
        (KafkaException(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)), True),
        (KafkaException(KafkaError(KafkaError._FENCED)), False),
        (TimeoutError(), False),
        (LookupError("partition 0 is not read"), False),
    ],
    ids=["not allowed", "fenced", "no answer", "not read"],
)
def test_writer_that_fails_begins_anew_unless_it_has_no_right_to_write(error: Exception, is_resigned: bool) -> None:
    async def main() -> None:
        kept, room = keeper(FakeTopics(1)), FakeRoom("order")
        kept.rooms = [room]
        kept._begin_generation()
        writer = FailingWriter(0, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0))
        writer.error = error
        for fails in (kept._round, kept._write):
            kept.mine, kept._writers = {0}, {0: writer}
            writer.retry_at, writer.is_ready = 0.0, fails == kept._write
            await fails()
            assert not writer.is_ready
            assert (kept.problem is not None) is is_resigned
            assert (kept._writers == {}) is is_resigned
            assert is_resigned or writer.retry_at > 0

    asyncio.run(main())


def test_fault_of_ours_in_describing_costs_the_writing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        kept = keeper(FakeTopics(1))
        kept.rooms = [FakeRoom("order")]
        kept._begin_generation()
        writer = FailingWriter(0, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0))
        writer.error, writer.is_ready = ZeroDivisionError("ours"), True
        kept._writers = {0: writer}
        await kept._write()
        assert not writer.is_ready

    asyncio.run(main())
    assert any("could not be described" in one.getMessage() for one in caplog.records)


def test_nothing_is_written_before_all_is_read() -> None:
    topics = FakeTopics(1)
    topics.is_read = False
    kept, room = keeper(topics), FakeRoom("order")
    kept.rooms = [room]
    asyncio.run(kept._round())
    asyncio.run(kept._write())
    assert room.journal.generation == 0


def test_market_gained_while_all_goes_on_is_told_by_the_generation_of_now() -> None:
    topics = FakeTopics(2)
    kept = keeper(topics)
    kept._begin_generation()
    kept._generations.append((1, {0: Offsets(9, {0: 9, 1: 9}, {0: 9, 1: 9})}))
    cursor = Cursor(
        market=7, events={0: 7, 1: 7}, orders={0: 7, 1: 7}, version=VERSION, market_epoch="", order_epoch="",
        known_since_ms=None, time_ms=0,
    )  # fmt: skip
    kept._go_on_from([1], {1: cursor})
    (_, before), (_, now) = kept._generations
    assert 1 not in before
    assert now[1] == Offsets(7, {0: 9, 1: 9}, {0: 9, 1: 9})


def test_record_of_no_known_kind_is_a_problem_for_all_of_its_partition() -> None:
    found, room = {0: Found()}, FakeRoom("order")
    route = Route(0, [Wanted(("order",), room.take_back, found)])
    route.hand_over(b"balance/alice", b"1")
    assert "no such kind of record" in str(found[0].problem)
    route.hand_over(b"balance/alice", None)
    assert found[0].problem is None
    route.hand_over(b"symbol/KCN/EUR", b"of the other room")
    assert (found[0].problem, room.values) == (None, {})


def test_partition_that_a_room_does_not_read_costs_no_other_its_writing() -> None:
    class Unread(FakeRoom):
        def cut(
            self, partition: int, keys: set[str] | None, *, is_whole: bool
        ) -> Generator[list[KeptRecord], None, None]:
            if partition == 0:
                raise LookupError("partition 0 is not read")
            return super().cut(partition, keys, is_whole=is_whole)

    class Noting(FailingWriter):
        async def write(self, pieces: Iterable[list[KeptRecord]], cursor: Cursor, generation: int) -> tuple[int, int]:
            written.append(self.partition)
            return 0, 0

    async def main() -> None:
        kept = keeper(FakeTopics(2))
        kept.rooms = [Unread("order")]
        kept._begin_generation()
        for number in range(2):
            writer = kept._writers[number] = Noting(
                number, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0)
            )
            writer.is_ready = True
        await kept._write()
        assert [writer.is_ready for writer in kept._writers.values()] == [False, True]

    written: list[int] = []
    asyncio.run(main())
    assert written == [1]


def test_topic_that_is_not_fit_is_told_once_and_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[bool | Exception] = [Unfit("not compacted"), Unfit("not compacted"), KafkaException(AWAY), False]

    def look(*_: object) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("core.kafka.state_topic.ready_topic", look)
    kept = keeper(FakeTopics(1))
    looks = [asyncio.run(kept._look_quietly()) for _ in range(5)]
    assert (looks, answers, kept.problem) == ([False, False, False, True, True], [], None)
    assert len([one for one in caplog.records if one.getMessage() == "not compacted"]) == 1


def cursor_at(at: int, topic: str = "market", life: str = "market-1", version: int = VERSION) -> Cursor:
    return Cursor(
        market=at, events={0: at}, orders={0: at}, version=version, market_epoch=life, order_epoch="orders-1",
        known_since_ms=None, time_ms=0, market_topic=topic, order_topic="orders",
    )  # fmt: skip


def test_writer_goes_on_only_where_it_knows_what_is_kept() -> None:
    topics = FakeTopics(1)
    topics.at = {0: 5}
    kept = keeper(topics)
    kept._begin_generation()

    assert kept._begins(0, cursor_at(4)) == 0
    assert kept._begins(0, cursor_at(4, life="market-0")) is None
    assert kept._begins(0, None) is None
    assert kept._begins(0, cursor_at(4, version=VERSION - 1)) is None, "what that version did not keep is missing"
    with pytest.raises(NotOurs, match="of the topics another and orders"):
        kept._begins(0, cursor_at(4, "another"))
    with pytest.raises(TimeoutError, match="further than what has been read here"):
        kept._begins(0, cursor_at(6))
    topics.begun = {0: 2}
    from_there = partial(msgspec.structs.replace, cursor_at(4))
    assert kept._begins(0, from_there(known_from=Offsets(2, {0: 2}, {0: 2}))) == 0
    assert kept._begins(0, from_there(known_from=Offsets(2, {0: 2}, {0: 3}))) is None, "more is known than is kept"
    with pytest.raises(KnowsLess) as less:
        kept._begins(0, from_there(known_from=Offsets(2, {0: 1}, {0: 3})))
    assert (less.value.kept.events, less.value.known.events) == ({0: 1}, {0: 2})
    kept._generations = [(7, {0: Offsets(5, {0: 5}, {0: 5})})]
    assert kept._begins(0, cursor_at(4)) is None, "no generation began as early"


class LessKnown(FailingWriter):
    """One that finds, so many times, that what is kept goes further back."""

    times = 1

    async def take_over(self, begins: Callable[[Cursor | None], int | None]) -> None:
        self.times -= 1
        if self.times >= 0:
            raise KnowsLess(Offsets(1, {0: 1}, {0: 1}), Offsets(2, {0: 2}, {0: 2}))
        self.is_ready = True

    async def write(self, pieces: Iterable[list[KeptRecord]], cursor: Cursor, generation: int) -> tuple[int, int]:
        return 0, 0


@pytest.mark.parametrize(
    ("times", "errors", "is_written", "is_known"),
    [
        (1, [None], True, True),
        (2, [KafkaException(AWAY), None], True, True),
        (2, [TimeoutError(), None], True, True),
        (2, [None], False, True),
        (2, [ZeroDivisionError()], False, False),
    ],
    ids=["learnt", "kafka away at first", "no answer at first", "still less", "fault"],
)
def test_partition_of_which_more_is_kept_is_learnt_and_then_written(
    times: int,
    errors: list[Exception | None],
    is_written: bool,
    is_known: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    before, kept_there = (msgspec.structs.replace(cursor_at(4), time_ms=number) for number in (1, 2))

    async def learn(_partition: int, _kept: Offsets, _known: Offsets) -> int:
        kept.restored.cursors["orders"][0] = kept_there
        error = errors.pop(0)
        if error is not None:
            raise error
        return 3

    async def no_answer(_reader: StateReader, _partition: int) -> tuple[Cursor | None, bool]:
        raise TimeoutError

    monkeypatch.setattr(StateReader, "last_cursor", no_answer)

    async def main() -> None:
        kept.mine, kept.learn, kept.rooms = {0}, learn, [FakeRoom("order")]
        kept._begin_generation()
        writer = LessKnown(0, "none:1", "state", {}, kept._calls, kept._reader, give_way=lambda: asyncio.sleep(0))
        writer.times = times
        kept._writers[0] = writer
        for _ in range(2 + len(errors)):
            await kept._round()
            assert not (writer.is_ready and kept._learning)
            await asyncio.gather(*kept._learning.values())
            now[0] += LEARN_AGAIN_SECONDS
        assert (writer.is_ready, kept._given_up, errors) == (is_written, set() if is_written else {0}, [])

    now = [0.0]
    kept = keeper(FakeTopics(1), monotonic=lambda: now[0])
    kept.restored.cursors["orders"][0] = before
    asyncio.run(main())
    assert kept.restored.cursors["orders"][0] is (kept_there if is_known else before)
    assert ("with 3 orders that were not known" in caplog.text) is is_known
    assert ("is not written by this instance" in caplog.text) is not is_written


def test_learning_ends_with_the_process() -> None:
    async def main() -> None:
        kept = keeper(FakeTopics(1))
        learning = kept._learning[0] = asyncio.create_task(asyncio.sleep(3600))
        await kept.close()
        await asyncio.wait([learning])
        assert learning.cancelled()

    asyncio.run(main())
