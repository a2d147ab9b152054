"""Partitions that were lost while they were served: who comes back to them goes on where they were left."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from core.since import Since
from core.subscription import Subscription

Listeners = set[Subscription]


class Left(NamedTuple):
    """Where a lost partition was left, in which life of the topic, and who listened to it then."""

    offset: int
    epoch: str
    listeners: Listeners


class LostPartitions:
    """By partition: under which epoch it was served, and, once it is lost, how it was left."""

    def __init__(self) -> None:
        self._left: dict[int, Left] = {}
        self._epochs: dict[int, str] = {}

    def leave(self, partition: int, offset: int, listeners: Listeners) -> None:
        """It is not read any more, `offset` was the last record that was folded."""
        self._left[partition] = Left(offset, self._epochs.pop(partition, ""), listeners)

    def returned(self, partitions: Collection[int]) -> dict[int, Left]:
        """Those of them that had been lost, and how they were left."""
        return {partition: self._left[partition] for partition in partitions if partition in self._left}

    def settle(self, partition: int, epoch: str) -> None:
        """It is served again, and everybody has been told."""
        self._left.pop(partition, None)
        self._epochs[partition] = epoch


def since_left(subscription: Subscription, since: Since, returned: Mapping[int, Left]) -> Since:
    """Where a subscription stands when partitions return: there where they were left, if it was one of theirs then.

    If they were left in another life of the topic than `since` is of, that life's name remains: no way leads back.
    """
    left = {p: at for p, at in returned.items() if subscription in at.listeners}
    epoch = next((at.epoch for at in left.values() if at.epoch != since.epoch), since.epoch)
    return Since({**since.positions, **{p: at.offset for p, at in left.items()}}, epoch)
