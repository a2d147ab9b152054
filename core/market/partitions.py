"""The life of each partition of a topic: read from where, folded how far, shown or not, and how it was left.

A partition is begun, folded record by record, *served* once it has been read to its end, and lost when it is read no more.
While it is served it may be *unread* for a time: nothing comes from it, and nobody knows whether there is something.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol


class Left(NamedTuple):
    """Where a lost partition was left, and in which life of the topic."""

    offset: int
    epoch: str


class PartitionListener(Protocol):
    """Who is told of the partitions of a topic by whoever reads it."""

    def begin(self, partition: int, offset: int, /) -> None:
        """Reading begins at this offset."""

    def serve(self, partitions: list[int], /) -> object:
        """They have been read to the end that they had."""

    def lose(self, partition: int, /) -> None:
        """It is read no more."""

    def set_unread(self, partitions: set[int], /) -> object:
        """Of those that should be read, nothing comes from these."""


class Partitions:
    """What is known of each. Others ask, and change nothing but by the methods.

    `folded` has the last offset that was folded in; `served` and `unread` are the partitions that are so now.
    """

    def __init__(self) -> None:
        self.folded: dict[int, int] = {}
        self.served: set[int] = set()
        self.unread: set[int] = set()
        self._begun_at: dict[int, int] = {}
        self._epochs: dict[int, str] = {}
        self._left: dict[int, Left] = {}

    def begin(self, partition: int, offset: int) -> None:
        """Reading begins at this offset: what is before it is not known."""
        self._begun_at[partition] = offset
        self.folded[partition] = offset - 1

    def begun_at(self, partition: int) -> int:
        """The offset at which the reading began."""
        return self._begun_at.get(partition, 0)

    def folded_to(self, partition: int) -> int:
        """The last offset that was folded in; -1 before the first."""
        return self.folded.get(partition, -1)

    def serve(self, partitions: Iterable[int], epoch: str = "") -> dict[int, Left]:
        """They have been read to their end, in this life of the topic; those that had been lost, and how they were left."""
        returned = {}
        for partition in partitions:
            self.served.add(partition)
            self.unread.discard(partition)
            self._epochs[partition] = epoch
            left = self._left.pop(partition, None)
            if left is not None:
                returned[partition] = left
        return returned

    def has_been_served(self, partition: int) -> bool:
        """Whether it was read to its end at some time, even if it was lost since."""
        return partition in self._epochs

    def set_unread(self, partitions: Collection[int]) -> tuple[set[int], set[int]]:
        """Of those that are served, these are not read at the moment; which are so newly, and which are read again."""
        unread = self.served.intersection(partitions)
        gone, back = unread - self.unread, self.unread - unread
        self.unread = unread
        return gone, back

    def lose(self, partition: int) -> None:
        """It is read no more. If it was not served yet, it is left where it was left the last time."""
        if partition in self.served:
            self._left[partition] = Left(self.folded_to(partition), self._epochs[partition])
        self.served.discard(partition)
        self.unread.discard(partition)
        self.folded.pop(partition, None)
        self._begun_at.pop(partition, None)

    @property
    def are_warm(self) -> bool:
        """Whether there are some, and all that are read have been read to their end: what is not known then is not there."""
        return self.are_served(self.folded.keys())

    def are_served(self, partitions: Collection[int]) -> bool:
        """Whether there is one, and all of them are shown."""
        return bool(partitions) and self.served.issuperset(partitions)

    def are_read(self, partitions: Collection[int]) -> bool:
        """Whether they are shown, and what is shown is not out of date."""
        return self.are_served(partitions) and self.unread.isdisjoint(partitions)
