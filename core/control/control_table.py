"""The records of the control topic, each to the part that it is about. What nobody understands is counted and skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from core.errors import PoisonedRecord
from core.messages.control_records import UNKNOWN_KIND, read_control_key
from core.messages.feed_record import KeyedRecord


class Place(NamedTuple):
    """Where a record is, and when it was written: milliseconds since the Unix epoch, its writer's clock, or that of the broker which
    appended it, and then `appended_ms` is that too.
    """

    partition: int
    offset: int
    time_ms: int
    appended_ms: int | None = None


# Told of a name what is said of it now; None: nothing any more. Raises PoisonedRecord.
Take = Callable[[Place, str, bytes | None], None]


class ControlTable:
    """As `KeyedTable` it is told by who reads the topic."""

    def __init__(
        self,
        parts: Mapping[str, Take],
        forget: Callable[[int], None],
        on_poisoned: Callable[[PoisonedRecord, int, int], None],
        check_time: Callable[[int], None] = lambda _time_ms: None,
        on_appended: Callable[[int], None] = lambda _appended_ms: None,
    ) -> None:
        """`parts`: by kind. `forget` is told of a partition whose records are not known any more; `on_poisoned` of a
        record that is skipped, with its partition and offset; `check_time` of each record's time, and
        `on_appended` of when a broker appended it, where that is known.
        """
        self._parts = parts
        self._forget = forget
        self._on_poisoned = on_poisoned
        self._check_time = check_time
        self._on_appended = on_appended

    def take(self, record: KeyedRecord) -> None:
        """One record; None as its value: nothing is said of its key any more."""
        partition, offset, time_ms, value, _ = record
        self._check_time(time_ms)
        if record.appended_ms is not None:
            self._on_appended(record.appended_ms)
        try:
            kind, name = read_control_key(record.key)
            part = self._parts.get(kind)
            if part is None:
                raise PoisonedRecord(UNKNOWN_KIND, f"nothing is known of {kind[:80]!r}: a later version's")
            part(Place(partition, offset, time_ms, record.appended_ms), name, value)
        except PoisonedRecord as error:
            self._on_poisoned(error, partition, offset)

    def forget(self, partition: int) -> None:
        """What the partition said is not known any more."""
        self._forget(partition)
