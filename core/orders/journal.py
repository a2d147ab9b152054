"""Which orders and fills changed lately, by the partition that keeps those of their symbol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from core.messages.kept_state import Journal, order_partition
from core.orders.releases import NOT_KNOWN

ORDER: Final = "order/"
FILL: Final = "fill/"

# Symbols whose partition is remembered: whoever may order may make some up.
_MOST_SYMBOLS: Final = 10_000


class PartitionOf(dict[str, int]):
    """The partition that keeps the orders of a symbol; -1 while the number of partitions is not known."""

    def __init__(self, partitions: Callable[[], int]) -> None:
        self._partitions = partitions

    def __missing__(self, symbol: str) -> int:
        partitions = self._partitions()
        if not partitions:
            return NOT_KNOWN
        if len(self) >= _MOST_SYMBOLS:
            self.clear()
        partition = self[symbol] = order_partition(symbol, partitions)
        return partition


class OrderJournal(Journal):
    """Has the ids of orders instead of their keys, and by symbol the set where they go now: a change costs a third so."""

    def __init__(self, partition_of: PartitionOf) -> None:
        super().__init__()
        self.ids_of = _IdsOf(self._ids, partition_of)

    def touch(self, partition: int, key: str) -> None:
        if key.startswith(ORDER):
            self._ids(partition).add(key[len(ORDER) :])
        else:
            super().touch(~partition, key)

    def rotate(self) -> int:
        self.ids_of.clear()
        return super().rotate()

    def since(self, partition: int, generation: int) -> set[str]:
        keys = {ORDER + order_id for order_id in super().since(partition, generation)}
        return keys | super().since(~partition, generation)

    def all_orders(self, partition: int) -> Iterator[str]:
        """The keys of orders that changed in any generation that is known; it may be taken a few at a time."""
        *earlier, current = [one.get(partition, set()) for one in self._generations]
        return (ORDER + order_id for order_id in chain(*earlier, tuple(current)))

    def all_fills(self, partition: int) -> Iterator[str]:
        """The keys of fills that came or went, likewise."""
        *earlier, current = [one.get(~partition, set()) for one in self._generations]
        return (key for key in chain(*earlier, tuple(current)) if key.startswith(FILL))

    def _ids(self, partition: int) -> set[str]:
        return self._current.setdefault(partition, set())


class _IdsOf(dict[str, set[str]]):
    """By symbol, orders that changed; those of a symbol of which the partition is not known are not kept."""

    def __init__(self, ids: Callable[[int], set[str]], partition_of: PartitionOf) -> None:
        self._ids = ids
        self._partition_of = partition_of

    def __missing__(self, symbol: str) -> set[str]:
        partition = self._partition_of[symbol]
        if partition < 0:
            return set()
        if len(self) >= _MOST_SYMBOLS:
            self.clear()
        ids = self[symbol] = self._ids(partition)
        return ids
