"""What of a room outlives the process: keyed records, and up to where in both topics they stand.

Whoever keeps the records knows nothing of what is in them, and a room nothing of where they are kept
(docs/contract.md#kept-state). A record is the whole of what is said under its key; with no value, the key is forgotten.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final, NamedTuple, Protocol
from zlib import crc32

import msgspec

# Of the format of all records: 2 has candles besides, 3 orders that were amended. Those that can be read; another one is neither read nor written over, so
# that instances of two versions may share the topic.
VERSION: Final = 3
READABLE_VERSIONS: Final = (1, 2, 3)


class KeptRecord(NamedTuple):
    """One record of a partition: `value` is UTF-8 JSON, None for a key that is forgotten."""

    key: str
    value: bytes | None


class Offsets(msgspec.Struct, frozen=True):
    """A place in both topics. `market`: in the market topic's partition of the same number, for what is known of its symbols.
    `events` and `orders`: in every partition of the market and of the order topic, for what is known of orders.
    """

    market: int
    events: dict[int, int]
    orders: dict[int, int]

    def is_before(self, other: Offsets) -> bool:
        """Whether it is nowhere behind the other one."""
        return (
            self.market <= other.market
            and _are_before(self.events, other.events)
            and _are_before(self.orders, other.orders)
        )


def _are_before(these: Mapping[int, int], others: Mapping[int, int]) -> bool:
    return these.keys() == others.keys() and all(offset <= others[number] for number, offset in these.items())


class Cursor(Offsets, frozen=True):
    """Up to where both topics are in what is kept of one partition: the next records to read.

    `known_from`: where the first record was that went into it. Epochs are the lives of the topics of these names. Times are
    milliseconds since the Unix epoch.

    `releases`: how many orders of the partition are kept as still to be released at the account service, None where whoever
    wrote it does not know. Every order that ended before `events` is released or among them; of a partition of the
    market that is in `ended_to` only before that, because an event behind it still waited for its order.
    """

    version: int
    market_epoch: str
    order_epoch: str
    known_since_ms: int | None
    time_ms: int
    market_topic: str = ""
    order_topic: str = ""
    known_from: Offsets | None = None
    releases: int | None = None
    ended_to: dict[int, int] = {}


class Journal:
    """Which keys changed lately, in generations: whoever is to write what changed since some moment asks for those since.

    A partition is that of the kept state. Generations are numbered from 0.
    """

    def __init__(self) -> None:
        self._first = 0
        self._generations: list[dict[int, set[str]]] = [{}]
        self._current = self._generations[-1]

    @property
    def generation(self) -> int:
        """The number of the one that is written now."""
        return self._first + len(self._generations) - 1

    def touch(self, partition: int, key: str) -> None:
        """It changes."""
        keys = self._current.get(partition)
        if keys is None:
            keys = self._current[partition] = set()
        keys.add(key)

    def rotate(self) -> int:
        """Begin the next generation; its number."""
        self._current = {}
        self._generations.append(self._current)
        return self.generation

    def since(self, partition: int, generation: int) -> set[str]:
        """The keys that changed in this generation or later. Raises LookupError if it is no longer known."""
        if generation < self._first:
            raise LookupError(f"generation {generation} is gone, the first is {self._first}")
        return set().union(*(one.get(partition, ()) for one in self._generations[generation - self._first :]))

    def drop_before(self, generation: int) -> None:
        """Nobody will ask for what is older than this one."""
        gone = min(max(generation - self._first, 0), len(self._generations) - 1)
        del self._generations[:gone]
        self._first += gone


class KeptState(Protocol):
    """A room, as whoever keeps its state sees it. All on the loop's thread."""

    journal: Journal

    def cut(self, partition: int, keys: set[str] | None, *, is_whole: bool) -> Generator[list[KeptRecord], None, None]:
        """What is to be written for these keys of the journal (None: for all there is), piece by piece, as of this call.

        Each piece is little work, and stands as it is: what is folded between two pieces does not make it wrong. Not
        `is_whole`: all that the cuts before described of this partition is what is kept of it. Raises LookupError, then or
        from a piece, where nothing is known of the partition (any more).
        """

    def take_back(self, partition: int, key: str, value: bytes | None) -> None:
        """A record as it is kept; a later one of its key replaces it. Raises ValueError for one that cannot be read."""

    def discard(self, partition: int) -> None:
        """What was taken back of this partition is not to be used after all."""

    def resume(self, cursors: Mapping[int, Cursor]) -> None:
        """All is taken back that there is, by partition; now both topics follow, from no later than those cursors on."""


def order_partition(symbol: str, partitions: int) -> int:
    """The partition of the state topic that keeps the orders of a symbol: CRC-32 modulo the number of partitions.

    It has to be known before any event tells on which partition the symbol's market is; it is that one where the
    engine's client partitions as librdkafka does.
    """
    return crc32(symbol.encode()) % partitions
