"""A room that keeps what a test puts into it, and topics that are where a test says."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping

from core.kafka.state_interfaces import Place
from core.messages.kept_state import Cursor, Journal, KeptRecord


class FakeRoom:
    """Values by partition and key, each its own record; `is_used` once `resume` was called."""

    def __init__(self, prefix: str) -> None:
        self.journal = Journal()
        self.prefix = prefix
        self.values: dict[tuple[int, str], object] = {}
        self.cursors: dict[int, Cursor] = {}

    def set(self, partition: int, key: str, value: object) -> None:
        self.values[partition, key] = value
        self.journal.touch(partition, key)

    def remove(self, partition: int, key: str) -> None:
        del self.values[partition, key]
        self.journal.touch(partition, key)

    def cut(self, partition: int, keys: set[str] | None, *, is_whole: bool) -> Generator[list[KeptRecord], None, None]:
        if keys is None:
            keys = {key for number, key in self.values if number == partition}
        pieces = [[KeptRecord(f"{self.prefix}/{key}", self._described(partition, key))] for key in sorted(keys)]
        return (piece for piece in pieces)

    def _described(self, partition: int, key: str) -> bytes | None:
        value = self.values.get((partition, key))
        return None if value is None else json.dumps(value).encode()

    def take_back(self, partition: int, key: str, value: bytes | None) -> None:
        name = key.partition("/")[2]
        if value is None:
            self.values.pop((partition, name), None)
        else:
            self.values[partition, name] = json.loads(value)

    def discard(self, partition: int) -> None:
        self.values = {at: value for at, value in self.values.items() if at[0] != partition}

    def resume(self, cursors: Mapping[int, Cursor]) -> None:
        self.cursors |= cursors


class FakeTopics:
    """Two topics of as many partitions, read to `at`, from `begun` on; the records from `low` to `end` are there."""

    is_reachable = True
    awaits_epochs = False
    names = ("market", "orders")

    def __init__(self, partitions: int) -> None:
        self.lives: tuple[str, str] | None = ("market-1", "orders-1")
        self.at = dict.fromkeys(range(partitions), 0)
        self.begun = dict.fromkeys(range(partitions), 0)
        self.low = dict.fromkeys(range(partitions), 0)
        self.end = dict.fromkeys(range(partitions), 1_000_000)
        self.is_read = True

    def epochs(self) -> tuple[str, str] | None:
        return self.lives

    def partitions(self) -> int:
        return len(self.at)

    def place(self) -> Place | None:
        return _place(self.at) if self.is_read else None

    def begins(self) -> Place:
        return _place(self.begun)

    def known_since_ms(self) -> int | None:
        return 1_000

    def bounds(self) -> tuple[Place, Place]:
        return _place(self.low), _place(self.end)


def _place(offsets: Mapping[int, int]) -> Place:
    return Place(dict(offsets), dict(offsets), dict(offsets))
