from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.kafka.unserved_market import UnservedMarket
from core.market.market import Market
from core.messages.feed_record import Record
from tests.core.fakes import run, snapshot

SYMBOL = "KCN/EUR"


class FakeFeed:
    """As the feed that it reads: one batch, after which a partition is to be served."""

    def __init__(self) -> None:
        self.reads: list[frozenset[int]] = []
        self.batches = [([Record(1, 0, 0, snapshot(SYMBOL), False)], [1], True)]
        self.served: list[int] = []

    def read_only(self, partitions: frozenset[int], count: int) -> None:
        self.reads.append(partitions)

    def drain(self) -> tuple[list[Record], list[int], bool]:
        return self.batches.pop() if self.batches else ([], [], False)

    def serve(self, partitions: list[int]) -> None:
        self.served += partitions


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.01)


def test_what_is_wanted_is_read_into_a_market_that_nobody_listens_to() -> None:
    async def main() -> None:
        wanted = frozenset({1})
        market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        unserved = UnservedMarket(market, lambda: wanted)
        feed = FakeFeed()
        unserved.feed = feed  # type: ignore[assignment]
        count = 0
        unserved.begin(1, 0)
        running = asyncio.create_task(unserved.run(lambda: count))
        await asyncio.sleep(0)
        assert feed.reads == [], "how many partitions there are is not known yet"
        count = 2
        await until(lambda: feed.served == [1])
        assert (feed.reads, market.symbols) == ([wanted], [SYMBOL])
        unserved.serve([1])
        unserved.set_unread({1})
        assert market.partitions.served == {1}
        unserved.lose(1)
        assert market.symbols == []
        wanted = frozenset()
        await until(lambda: feed.reads == [frozenset({1}), frozenset()])
        running.cancel()

    run(main())
