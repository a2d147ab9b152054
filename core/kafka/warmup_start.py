"""Where the reading of a partition begins: a warm-up ago, or where it is told that all before is known.

It does not hang on the times of records alone, for those are somebody else's: so many records are read back in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from core.kafka.topic_offsets import TopicOffsets


class GivenStart(NamedTuple):
    """What is before this offset of a partition is known already, from `known_since_ms` on (Unix epoch; None: not told).

    Not `is_enough`: not all of it, so reading begins where the warm-up does if that is further back.
    """

    offset: int
    known_since_ms: int | None
    is_enough: bool = True


@dataclass(frozen=True, slots=True)
class Start:
    """Where the reading of one partition begins, and what there was to read then."""

    low: int  # nothing is to be read of before
    offset: int
    end: int
    known_since_ms: int | None  # None: the first record's own time
    is_given: bool = False


@dataclass(frozen=True, slots=True)
class Warmup:
    """How far back reading begins: so many seconds, or records where times cannot be asked; and so many records in any case."""

    seconds: float
    records: int
    min_records: int

    def look_up(
        self, offsets: TopicOffsets, numbers: list[int], given: Mapping[int, GivenStart], now_ms: Callable[[], int]
    ) -> dict[int, Start]:
        """Blocking: where each partition begins and ends, and where its reading begins. Raises `KafkaException`."""
        since_ms = now_ms() - int(self.seconds * 1000)
        if self.seconds >= 60:
            # From a whole minute on: instances that are started together begin at the same record.
            since_ms -= since_ms % 60_000
        # The ends first: what arrives between the two questions is then behind the end, and read.
        ends = {number: offsets.watermarks(number) for number in numbers}
        given = {
            number: start
            for number, start in given.items()
            if number in ends and ends[number][0] <= start.offset <= ends[number][1]
        }
        starts = {
            number: Start(start.offset, start.offset, ends[number][1], start.known_since_ms, is_given=True)
            for number, start in given.items()
        }
        others = [number for number in numbers if number not in given or not given[number].is_enough]
        by_time = offsets.at(others, since_ms) if others else {}
        for number, offset in by_time.items():
            start = self._start(offsets, number, *ends[number], offset, since_ms)
            if number not in given or start.offset < given[number].offset:
                starts[number] = start
        return starts

    def _start(self, offsets: TopicOffsets, number: int, low: int, high: int, by_time: int, since_ms: int) -> Start:
        """Blocking. `by_time` is the first record that is as young as our clock wants it, by the times of others.

        Those times may be anything, so it only makes the reading begin sooner. Raises `KafkaException`.
        """
        can_tell = True
        if by_time < 0:
            by_time = high
            # Nothing that young; or a cluster that cannot tell, which also knows nothing of the year 1970.
            if high > low and offsets.at([number], 0)[number] < 0:
                can_tell = False
                by_time = max(low, high - self.records)
        offset = min(by_time, max(low, high - self.min_records))
        # What the topic has dropped may have been young enough, if all that it still has is.
        is_gone = low > 0 and by_time <= low
        is_all_known = offset == 0 or (can_tell and not is_gone)
        return Start(low, offset, high, since_ms if is_all_known else None)

    def further_back(self, low: int, begun_at: int, end: int) -> int | None:
        """Where to begin instead, twice as far back, when nothing was found from `begun_at` to `end`; None: that was far enough.

        Offsets were counted for want of a count of records: markers of transactions, and what compaction left out, have one too.
        """
        if begun_at <= low or self.min_records == 0:
            return None
        return max(low, end - 2 * max(end - begun_at, self.min_records))
