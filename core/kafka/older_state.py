"""Learns what is kept of a partition and goes further back than what this instance has read, without a restart.

The market on it is read anew, as if the partition had been gained: what is kept is taken back, and what follows is read. Orders are
known here as a whole, of all partitions, and go on being asked for: the older ones are taken in beside
(`core.orders.older_orders`), with clients of their own for what both topics say behind the kept cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from core.kafka.feed import Feed
from core.kafka.warmup_start import GivenStart
from core.messages.feed_record import Record
from core.messages.kept_state import Cursor, KeptState, Offsets

PAUSE_SECONDS = 0.02

Restore = Callable[[str, KeptState, Sequence[int]], Awaitable[Mapping[int, Cursor]]]


class ReadTopics(Protocol):
    """Both topics as this instance reads them."""

    @property
    def market_feeds(self) -> Iterable[Feed]:
        """Whatever reads partitions of the market."""

    def events_at(self) -> Mapping[int, int]:
        """By partition, up to where the orders' events have been read."""

    def commands_at(self) -> Mapping[int, int]:
        """The same of the order topic."""

    def new_feeds(self) -> tuple[Feed, Feed]:
        """Others, of the order topic and of the market topic, that read nothing yet."""


class OlderOrders(Protocol):
    """Those of one partition, beside what is known of orders."""

    @property
    def room(self) -> KeptState:
        """Takes back what is kept of them."""

    def listening(self) -> AbstractContextManager[None]:
        """Around all that follows."""

    def fold_command(self, record: Record, /) -> None:
        """A record of the order topic."""

    def fold_event(self, record: Record, /) -> None:
        """One of the market topic."""

    async def take_in(self, until: Mapping[int, int], give_way: Callable[[], Awaitable[None]], /) -> int:
        """Have them known to all; how many were news. `until`: where the reading of the market topic ended."""


class OlderState:
    """Learns one partition at a time."""

    def __init__(
        self,
        topics: ReadTopics,
        restore: Restore,
        orders: Callable[[int], OlderOrders],
        give_way: Callable[[], Awaitable[None]],
    ) -> None:
        self._topics = topics
        self._restore = restore
        self._orders = orders
        self._give_way = give_way
        self._learning = asyncio.Lock()

    async def learn(self, partition: int, kept: Offsets, known: Offsets) -> int:
        """Know what goes back to `kept`, where what is known begins at `known`; how many orders were news.

        Raises KafkaException and TimeoutError.
        """
        async with self._learning:
            taken = 0
            if not Offsets(0, known.events, known.orders).is_before(Offsets(0, kept.events, kept.orders)):
                taken = await self._learn_orders(self._orders(partition), partition)
            if known.market > kept.market:
                for feed in self._topics.market_feeds:
                    feed.read_anew(partition)
            return taken

    async def _learn_orders(self, orders: OlderOrders, partition: int) -> int:
        with orders.listening():
            cursor = (await self._restore("orders", orders.room, [partition])).get(partition)
            if cursor is None:
                return 0  # of no use to anybody
            commands, events = self._topics.new_feeds()
            try:
                await self._read(commands, cursor.orders, orders.fold_command)
                await self._read(events, cursor.events, orders.fold_event)
                until = events.positions()
                await self._come_to(commands.positions(), until)
            finally:
                await asyncio.gather(commands.close(1.0), events.close(1.0))
            return await orders.take_in(until, self._give_way)

    async def _come_to(self, commands: Mapping[int, int], events: Mapping[int, int]) -> None:
        topics = self._topics
        # Whoever reads for all does so in a moment.
        while not (_are_at(topics.commands_at(), commands) and _are_at(topics.events_at(), events)):  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, feed: Feed, places: Mapping[int, int], fold: Callable[[Record], None]) -> None:
        """All from these places on that is there now."""

        async def starts(_numbers: list[int]) -> Mapping[int, GivenStart]:
            return {number: GivenStart(offset, None) for number, offset in places.items()}

        feed.starts = starts
        feed.read_only(frozenset(places), len(places))
        while not feed.is_live:
            records, done, more = feed.drain()
            for record in records:
                fold(record)
            if done:
                feed.serve(done)
            await (self._give_way() if more else asyncio.sleep(PAUSE_SECONDS))
        # Further back is harmless: what is in the orders already is not folded again.
        if not _are_at(places, feed.begins()):
            raise TimeoutError("the topics no longer have what follows it")


def _are_at(positions: Mapping[int, int], places: Mapping[int, int]) -> bool:
    return all(positions.get(partition, -1) >= offset for partition, offset in places.items())
