"""A record as it comes from a topic, and whoever it comes from."""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self


class Record(NamedTuple):
    """One record of a topic; `live` tells whether clients may see it, or it is still the warm-up.

    `time_ms` is what is taken for Kafka's time of it (`core.messages.times`).
    """

    partition: int
    offset: int
    time_ms: int
    value: bytes | None
    live: bool


class KeyedRecord(Record):
    """A record, and its key. `appended_ms`: when a broker appended it, by that one's clock; None where its writer said when."""

    key: bytes | None = None
    appended_ms: int | None = None

    def with_key(self, key: bytes | None, appended_ms: int | None = None) -> Self:
        """The same record, which was made without."""
        self.key, self.appended_ms = key, appended_ms
        return self


# Of a record: names and values, in their order.
Headers = list[tuple[str, str | bytes | None]]


class Written(NamedTuple):
    """Where a record is that was acknowledged: all from `since` up to it, on its partition, is of the same writer.

    `since` is -1 where the cluster did not say.
    """

    partition: int
    since: int


class RecordFeed(Protocol):
    """Where records come from."""

    def drain(self) -> tuple[list[Record], list[int], bool]:
        """Records, partitions that are to be served once those are folded in, and whether more waits."""

    def serve(self, partitions: list[int]) -> None:
        """All that was read of these is folded in: have them served, and take them for live."""
