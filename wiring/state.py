"""State that outlives the warm-up: what the keeper is told of both topics, and where each feed begins because of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from core.config.settings import Settings
from core.kafka.feed import Feed
from core.kafka.older_state import OlderState
from core.kafka.state_interfaces import Place
from core.kafka.state_keeper import StateKeeper
from core.kafka.unserved_market import UnservedMarket
from core.kafka.warmup_start import GivenStart
from core.market.market import Market
from core.market.partitions import Partitions
from core.market.state import MarketState
from core.messages.kept_state import Cursor, KeptState
from core.orders.older_orders import OlderOrders
from core.orders.state import OrderState
from core.telemetry.metrics import Metrics
from wiring.bus import Bus
from wiring.market import MarketRoom
from wiring.orders import OrdersRoom


class _Topics:
    """Both topics as this process reads them."""

    def __init__(self, bus: Bus, market: MarketRoom, orders: OrdersRoom) -> None:
        self._bus = bus
        self._market = market
        self._orders = orders
        self.names = (bus.kafka.topic, bus.kafka.order_topic)
        self.events = market.feed if orders.event_feed is None else orders.event_feed
        # Of a partition that two of them have, the last one counts.
        self.markets: list[MarketRoom | UnservedMarket] = [market]

    @property
    def is_reachable(self) -> bool:
        return self._bus.monitor.connected

    def epochs(self) -> tuple[str, str] | None:
        monitor = self._bus.monitor
        market, orders = (
            f"{monitor.topic_ids[name]}.{monitor.partitions[name]}"
            if name in monitor.topic_ids and name in monitor.partitions
            else ""
            for name in self.names
        )
        return (market, orders) if market and orders else None

    @property
    def awaits_epochs(self) -> bool:
        return self._bus.monitor.awaits_ids

    def partitions(self) -> int:
        return self._bus.monitor.partitions.get(self.names[0], 0)

    def place(self) -> Place | None:
        events, orders = self.events, self._orders.feed
        if not (events.is_live and orders.is_live) or events.is_partial:
            return None
        market = {
            number: at
            for one in self.markets
            for number, at in one.feed.positions().items()
            if number in one.market.partitions.served
        }
        return Place(market, events.positions(), orders.positions())

    def begins(self) -> Place:
        market = {number: at for one in self.markets for number, at in one.feed.begins().items()}
        return Place(market, self.events.begins(), self._orders.feed.begins())

    @property
    def market_feeds(self) -> list[Feed]:
        return [one.feed for one in self.markets]

    def events_at(self) -> Mapping[int, int]:
        return self.events.positions()

    def commands_at(self) -> Mapping[int, int]:
        return self._orders.feed.positions()

    def new_feeds(self) -> tuple[Feed, Feed]:
        commands, events = (self._bus.feed(name, Partitions()) for name in reversed(self.names))
        return commands, events

    def known_since_ms(self) -> int | None:
        known = [feed.known_since_ms() for feed in (self._market.feed, self.events, self._orders.feed)]
        return max((moment for moment in known if moment is not None), default=None)

    def bounds(self) -> tuple[Place, Place]:
        market = self._market.feed.offsets.bounds(self.partitions())
        orders = self._orders.feed.offsets.bounds(self._bus.monitor.partitions[self.names[1]])
        first, end = (
            Place(
                {number: pair[which] for number, pair in market.items()},
                {number: pair[which] for number, pair in market.items()},
                {number: pair[which] for number, pair in orders.items()},
            )
            for which in (0, 1)
        )
        return first, end


class StateRoom:
    """What is kept of the market and of orders; without a state topic it keeps nothing, and every feed warms up by time."""

    def __init__(self, settings: Settings, bus: Bus, market: MarketRoom, orders: OrdersRoom, metrics: Metrics) -> None:
        self.keeper: StateKeeper | None = None
        self._market = market
        self._orders = orders
        self._metrics = metrics
        # The cursors of what is kept of orders, by partition; None before they were asked for.
        self._cursors: dict[int, Cursor] | None = None
        self._has_all = False
        self._unserved: UnservedMarket | None = None
        kafka = settings.kafka
        if not kafka.state_topic or bus.is_embedded:
            return
        self._topics = topics = _Topics(bus, market, orders)
        self.keeper = keeper = StateKeeper(
            bus.brokers,
            kafka.state_topic,
            kafka.consumer,
            kafka.producer,
            topics,
            metrics,
            interval_seconds=kafka.state_interval_seconds,
            give_way=market.give_way,
            clock=time.time,
        )
        self._order_state = OrderState(orders.directory, topics.partitions)
        self._market_state = MarketState(market.market)
        keeper.rooms = [self._order_state, self._market_state]
        keeper.learn = OlderState(
            topics,
            keeper.restore,
            lambda partition: OlderOrders(
                orders.directory,
                partition,
                topics.partitions(),
                keep_terminal_seconds=settings.orders.keep_terminal_seconds,
            ),
            market.give_way,
        ).learn
        if orders.release_worker is not None:
            keeper.duties = orders.releases
            orders.releases.leads = keeper.leads
            orders.release_worker.is_alone = lambda: keeper.problem is not None
            orders.release_worker.last_cursor = keeper.last_cursor
        orders.feed.starts = self._order_starts
        market.feed.starts = self._market_starts
        if orders.event_feed is not None:
            orders.event_feed.starts = self._event_starts
            self._unserved = self._build_unserved(settings, bus, market)
            orders.topic_lifecycle.feeds.append(self._unserved.feed)
            keeper.rooms_of = self._rooms_of

    def _build_unserved(self, settings: Settings, bus: Bus, served: MarketRoom) -> UnservedMarket:
        """What is written here and served elsewhere, in a group of instances."""
        keeper = self.keeper
        assert keeper is not None
        unserved = UnservedMarket(
            Market(
                on_poisoned=lambda *_: None,  # counted where it is served
                on_event=lambda *_: None,
                on_stale=lambda *_: None,
                times=bus.times,
                history_records=0,
            ),
            wanted=lambda: frozenset(keeper.mine - served.market.partitions.served),
        )
        unserved.feed = bus.feed(settings.kafka.topic, unserved)
        state = self._unserved_state = MarketState(unserved.market)
        keeper.rooms.append(state)
        self._topics.markets.insert(0, unserved)

        async def starts(numbers: list[int]) -> Mapping[int, GivenStart]:
            kept = await keeper.restore("market", state, numbers)
            return {number: GivenStart(one.market, one.known_since_ms) for number, one in kept.items()}

        unserved.feed.starts = starts
        return unserved

    def _rooms_of(self, partition: int) -> list[KeptState]:
        is_served = partition in self._market.market.partitions.served
        return [self._order_state, self._market_state if is_served else self._unserved_state]

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What has to go on for as long as this process serves."""
        if self.keeper is not None:
            yield self.keeper.run()
            if self._unserved is not None:
                yield self._unserved.run(self._topics.partitions)

    async def _order_starts(self, numbers: list[int]) -> Mapping[int, GivenStart]:
        keeper = self.keeper
        assert keeper is not None
        if self._cursors is None:
            partitions = range(self._topics.partitions())
            self._cursors = await keeper.restore("orders", self._order_state, partitions)
            self._has_all = bool(partitions) and len(self._cursors) == len(partitions)
        return self._starts_of_orders(numbers, self._orders.feed, lambda cursor: cursor.orders)

    async def _event_starts(self, numbers: list[int]) -> Mapping[int, GivenStart]:
        """For the feed of all events: where the orders' state leaves off."""
        return self._starts_of_orders(numbers, self._topics.events, lambda cursor: cursor.events)

    def _starts_of_orders(
        self, numbers: list[int], feed: Feed, offsets: Callable[[Cursor], Mapping[int, int]]
    ) -> dict[int, GivenStart]:
        """Asked again where the look-up failed; once all was read, what is known is newer than what was taken back."""
        cursors, epochs = self._cursors, self._topics.epochs()
        if not cursors or feed.has_been_live():
            return {}
        if epochs is None:
            raise TimeoutError("it is not known which topics these are")
        if any((one.market_epoch, one.order_epoch) != epochs for one in cursors.values()):
            return {}
        since = self._known_since(cursors)
        found = {number: [offsets(one)[number] for one in cursors.values()] for number in numbers}
        return {number: GivenStart(min(of_all), since, self._has_all) for number, of_all in found.items()}

    async def _market_starts(self, numbers: list[int]) -> Mapping[int, GivenStart]:
        keeper = self.keeper
        assert keeper is not None
        kept = await keeper.restore("market", self._market_state, numbers)
        starts = {number: GivenStart(one.market, one.known_since_ms, True) for number, one in kept.items()}
        if self._orders.event_feed is not None:
            return starts
        # This feed tells of orders, too: those may be further behind.
        events = await self._event_starts(numbers)
        for number in numbers:
            both = [one for one in (starts.get(number), events.get(number)) if one is not None]
            if both:
                is_enough = number in starts and number in events and self._has_all
                starts[number] = GivenStart(min(one.offset for one in both), both[0].known_since_ms, is_enough)
        return starts

    def warming_up(self) -> tuple[int, int] | None:
        """Records of the state topic that were read, and how many there are; None while none are."""
        progress = None if self.keeper is None else self.keeper.restored.progress
        return None if progress is None else (progress.done, progress.of)

    def health(self) -> dict[str, Any]:
        """The member `state` of `/health`; where nothing is kept, that."""
        if self.keeper is None:
            return {"restored": False, "age_seconds": None, "writer_of": []}
        return self.keeper.health()

    async def write_last(self) -> None:
        """What has come up to now."""
        if self.keeper is not None:
            await self.keeper.write_last()

    async def close(self) -> None:
        """Write no more."""
        closing = [] if self.keeper is None else [self.keeper.close()]
        if self._unserved is not None:
            closing.append(self._unserved.feed.close(1.0))
        await asyncio.gather(*closing)

    @staticmethod
    def _known_since(cursors: Mapping[int, Cursor]) -> int | None:
        known = [cursor.known_since_ms for cursor in cursors.values() if cursor.known_since_ms is not None]
        return max(known, default=None)
