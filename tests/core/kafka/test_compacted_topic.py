from __future__ import annotations

import logging

import pytest

from core.kafka.compacted_topic import CompactedTopic
from core.messages.feed_record import KeyedRecord, Record
from tests.core.fakes import run, turns
from tests.core.kafka.test_topic_lifecycle import FakeFeed, FakeMonitor

TOPIC = "accounts"
Taken = tuple[int, int, bytes | None, bytes | None]


class ReadFeed(FakeFeed):
    """What a test says has come, and what was done about it."""

    def __init__(self) -> None:
        super().__init__(TOPIC)
        self.script: list[tuple[list[Record], list[int], bool]] = []
        self.served: list[list[int]] = []
        self.reads: list[tuple[frozenset[int], int]] = []

    def drain(self) -> tuple[list[Record], list[int], bool]:
        return self.script.pop(0) if self.script else ([], [], False)

    def serve(self, partitions: list[int]) -> None:
        self.served.append(partitions)

    def read_only(self, partitions: frozenset[int], count: int) -> None:
        self.reads.append((partitions, count))
        self.topic_partitions = count


class ReadTopic:
    """As `KeyedTable` it keeps what it is told."""

    def __init__(self, partitions: int = 2) -> None:
        self.monitor = FakeMonitor()
        self.monitor.partitions, self.monitor.topic_ids = {TOPIC: partitions}, {TOPIC: "a"}
        self.taken: list[Taken] = []
        self.appended: list[int | None] = []
        self.forgotten: list[int] = []
        self.failed: list[str] = []
        self.looks = 0
        self.now = 0.0
        self.feed = ReadFeed()
        self.topic = CompactedTopic(
            TOPIC,
            self.monitor,
            self,
            slice_seconds=1.0,
            on_failed=lambda _error, place: self.failed.append(place),
            on_read=self._on_read,
            monotonic=lambda: self.now,
        )
        self.topic.feed = self.feed

    def _on_read(self) -> None:
        self.looks += 1

    def take(self, record: KeyedRecord) -> None:
        self.now += 0.4
        self.appended.append(record.appended_ms)
        if record.key == b"fault":
            raise RuntimeError("a fault of ours")
        self.taken.append((record.partition, record.offset, record.key, record.value))

    def forget(self, partition: int) -> None:
        self.forgotten.append(partition)

    def look(self) -> None:
        async def look() -> None:
            self.topic.look()
            await turns()

        run(look())

    def serve(self, *partitions: int) -> None:
        for number in partitions:
            self.topic.begin(number, 0)
        self.topic.serve([*partitions])


def keyed(offset: int, key: bytes = b"k", partition: int = 0) -> KeyedRecord:
    return KeyedRecord(partition, offset, 1, b"v", True).with_key(key)


def test_topic_is_read_once_the_bus_answers() -> None:
    read = ReadTopic()
    read.monitor.connected = False
    read.look()
    assert (read.feed.topic_partitions, read.topic.is_settled, read.topic.problem) == (0, False, None)
    read.monitor.connected = True
    read.look()
    assert (read.feed.topic_partitions, read.topic.is_settled, read.topic.problem) == (2, False, None)
    assert read.feed.restarts == 0


def test_topic_is_settled_when_all_of_it_has_been_read_once() -> None:
    read = ReadTopic()
    read.look()
    read.serve(0)
    assert (read.topic.is_settled, read.topic.is_read(0), read.topic.is_read(1), read.topic.is_read(None)) == (
        False, True, False, False,
    )  # fmt: skip
    read.serve(1)
    assert (read.topic.is_settled, read.topic.is_read(None)) == (True, True)
    read.topic.lose(1)
    assert (read.topic.is_settled, read.topic.is_read(None), read.forgotten) == (True, False, [1])


def test_missing_topic_keeps_nobody_waiting_and_is_told() -> None:
    read = ReadTopic()
    del read.monitor.partitions[TOPIC]
    read.look()
    assert read.topic.is_settled
    assert read.topic.problem == "topic accounts does not exist: what it says is not known"
    assert not read.topic.is_read(None)
    assert read.feed.reads == []
    read.monitor.partitions[TOPIC] = 2
    read.look()
    assert (read.topic.problem, read.feed.topic_partitions) == (None, 2)


def test_topic_that_is_deleted_is_read_no_more_until_it_is_there_again(caplog: pytest.LogCaptureFixture) -> None:
    read = ReadTopic()
    read.look()
    del read.monitor.partitions[TOPIC]
    for _ in range(2):
        read.look()
    assert read.feed.reads == [(frozenset(), 0)]
    read.monitor.partitions[TOPIC], read.monitor.topic_ids[TOPIC] = 2, "b"
    read.look()
    assert (read.feed.topic_partitions, read.feed.restarts) == (2, 0)
    assert "made again" not in caplog.text


def test_topic_that_was_made_again_unseen_is_read_anew(caplog: pytest.LogCaptureFixture) -> None:
    read = ReadTopic()
    read.look()
    del read.monitor.topic_ids[TOPIC]
    read.look()
    assert read.feed.restarts == 0
    read.monitor.topic_ids[TOPIC] = "b"
    read.look()
    read.look()
    assert read.feed.restarts == 1
    assert "topic accounts was deleted and made again: reading it anew" in caplog.messages


def test_topic_that_is_not_compacted_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    read = ReadTopic()
    read.monitor.warnings = ["cleanup.policy is delete"]
    read.look()
    read.look()
    assert [one.levelno for one in caplog.records if one.message == "cleanup.policy is delete"] == [logging.WARNING]


def test_records_are_taken_with_their_keys_in_slices_and_served_after_the_last() -> None:
    read = ReadTopic()
    read.feed.script = [([keyed(0), keyed(1, b"fault"), keyed(2), keyed(3)], [0], False)]
    assert read.topic.read() is True
    assert (read.taken, read.feed.served) == ([(0, 0, b"k", b"v"), (0, 2, b"k", b"v")], [])
    assert read.failed == ["topic accounts partition 0 offset 1"]
    read.feed.script = [([], [1], False)]
    assert read.topic.read() is True
    assert (read.taken[2:], read.feed.served, len(read.feed.script)) == ([(0, 3, b"k", b"v")], [[0]], 1)
    assert read.topic.read() is True
    assert read.feed.served == [[0], [1]]
    assert read.topic.read() is False


def test_record_is_told_with_when_its_broker_appended_it_where_that_is_known() -> None:
    read = ReadTopic()
    read.look()
    first, second = keyed(0), keyed(1)
    second.appended_ms = 7
    read.feed.script = [([first, second], [], False)]
    read.topic.read()
    assert read.appended == [None, 7]


def test_what_waits_of_a_lost_partition_is_never_taken() -> None:
    read = ReadTopic()
    read.feed.script = [([keyed(number, partition=number % 2) for number in range(6)], [0, 1], False)]
    read.topic.read()
    read.topic.lose(1)
    while read.topic.read():
        pass
    assert [(partition, offset) for partition, offset, _, _ in read.taken] == [(0, 0), (1, 1), (0, 2), (0, 4)]
    assert read.feed.served == [[0]]


def test_reader_is_told_when_other_partitions_are_up_to_date_than_before() -> None:
    read = ReadTopic()
    read.look()
    read.serve(0, 1)
    looks = read.looks
    for unread in ({1}, {1}, set(), set()):
        read.topic.set_unread(unread)
        assert read.topic.is_read(1) is not bool(unread)
    assert read.looks == looks + 2


def test_position_is_before_what_waits_for_its_slice() -> None:
    read = ReadTopic()
    read.feed.positions = lambda: {0: 9, 1: 4}  # type: ignore[method-assign]
    read.feed.script = [([keyed(offset) for offset in (5, 6, 7, 8)], [], False)]
    assert read.topic.positions() == {0: 9, 1: 4}
    read.topic.read()
    assert [offset for _, offset, _, _ in read.taken] == [5, 6, 7]
    assert read.topic.positions() == {0: 8, 1: 4}
    read.topic.read()
    assert read.topic.positions() == {0: 9, 1: 4}
