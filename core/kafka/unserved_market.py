"""The market on partitions that this instance writes the state of, and does not serve.

In a group of instances Kafka shares out the partitions of the market, and who writes their state, each by itself. So the writer of
a partition may be another instance than the one that serves it: it then reads that partition too, for nobody but the state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from core.kafka.feed import Feed
from core.market.market import Market

# Nobody waits for it but what is kept, and that is written every few seconds. The timer runs for as long as the process does.
PAUSE_SECONDS: Final = 0.1


class UnservedMarket:
    """Reads what it is told to into a market that nobody listens to. As `PartitionListener` it is told by its feed."""

    def __init__(self, market: Market, wanted: Callable[[], frozenset[int]]) -> None:
        """`wanted` names the partitions that are to be read now. `feed` has to be set before `run`."""
        self.market = market
        self.feed: Feed
        self._wanted = wanted
        self._reads: frozenset[int] = frozenset()

    async def run(self, partitions: Callable[[], int]) -> None:
        """Read on for ever; ends when cancelled. `partitions`: how many the topic has, 0 as long as that is not known."""
        while True:
            wanted = self._wanted() if partitions() else frozenset()
            if wanted != self._reads:
                self._reads = wanted
                self.feed.read_only(wanted, partitions())
            more = bool(self._reads) and self._read()
            await asyncio.sleep(0 if more else PAUSE_SECONDS)

    def _read(self) -> bool:
        records, done, more = self.feed.drain()
        for partition, offset, time_ms, value, _ in records:
            self.market.fold(partition, offset, value, time_ms)
        if done:
            self.feed.serve(done)
        return more

    def begin(self, partition: int, offset: int, /) -> None:
        """Reading begins at this offset."""
        self.market.partitions.begin(partition, offset)

    def serve(self, partitions: list[int], /) -> None:
        """They have been read to the end that they had."""
        self.market.partitions.serve(partitions)

    def lose(self, partition: int, /) -> None:
        """It is read no more."""
        self.market.forget(partition)

    def set_unread(self, partitions: set[int], /) -> None:
        """Nobody is told."""
