"""The way of an order: entry, log, the directory that reads both topics, and when either topic begins to be read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

from core.access.admission import Admission
from core.config.settings import Settings
from core.kafka.feed import Feed
from core.kafka.order_log import OrderLog
from core.kafka.topic_lifecycle import TopicLifecycle
from core.log_throttle import QuietLog
from core.market.partitions import Left, Partitions
from core.messages.order_rules import OrderRules
from core.orders.account_trades import AccountTrades
from core.orders.amends import Amends
from core.orders.catch_up import END_SECONDS, CatchUp
from core.orders.change_waiters import OrderChanges
from core.orders.directory import OrderDirectory
from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from core.orders.order import Order, state
from core.orders.pre_trade import pre_trade
from core.orders.private_feed import PrivateFeed
from core.orders.reader import OrderReader
from core.orders.recent_closings import RecentClosings
from core.orders.releases import Releases
from core.protocol.connection_orders import OrderServices
from core.telemetry.audit import Audit
from core.telemetry.metrics import Metrics, OrderCounts
from services.accounts import Reservations, may_be_reserved
from services.releases import ReleaseWorker
from wiring.bus import Bus
from wiring.market import MarketRoom

# What an order may take from its reservation to the log, besides what is waited for: others' turns on a busy loop.
SLACK_SECONDS: Final = 1.0


class _OrderPartitions(Partitions):
    """Those of the order topic."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    def serve(self, partitions: Iterable[int], epoch: str = "") -> dict[int, Left]:
        # In another turn of the loop: this comes out of the drain of a feed.
        asyncio.get_running_loop().call_soon(self._look)
        return super().serve(partitions, epoch)


class OrdersRoom:
    """What is known of orders, and how they go out."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        order_log: OrderLog,
        market: MarketRoom,
        admission: Admission,
        metrics: Metrics,
        quiet_log: QuietLog,
        boot_id: str,
        audit: Audit,
    ) -> None:
        """`boot_id` stands in for the id of a topic where Kafka has none."""
        kafka = settings.kafka
        self.log = order_log
        counts = OrderCounts(metrics, quiet_log, kafka.order_topic)
        self.releases = Releases(None if settings.accounts.url is None else may_be_reserved)
        self.directory = OrderDirectory(
            keep_terminal_seconds=settings.orders.keep_terminal_seconds,
            max_terminal=settings.orders.max_terminal or None,
            on_change=self._on_change,
            on_private=lambda user_id, payload: self.private.on_event(user_id, payload),
            on_fill=lambda user_id, fill: self.private.trades.on_fill(user_id, fill),
            observer=counts,
            times=bus.times,
            releases=self.releases,
            attributes=settings.orders.attributes,
        )
        self._changes = OrderChanges(self.directory.get)
        deliver = market.hub.fanout.send
        read_to = self.directory.read_to
        trades = AccountTrades(
            deliver,
            self.directory.fills,
            read_to.seq,
            market.epoch,
            waiting_fills=read_to.waiting_fills,
        )
        closings = RecentClosings(read_to.folded_to, read_to.read_back_to, read_to.seq)
        self.private = PrivateFeed(
            deliver, self.directory.shown_orders, state, market.give_way, trades=trades, closings=closings
        )
        self.feed = bus.feed(kafka.order_topic, _OrderPartitions(lambda: self.topic_lifecycle.look()))
        self.catch_up = CatchUp(self.feed, is_reachable=lambda: bus.monitor.connected)
        self.lookup = OrderLookup(self.directory, self.catch_up, self.feed.has_been_live, market.give_way)
        # In a group of consumers the market is only a part; whose orders trade elsewhere has to be known all the same.
        self.event_feed: Feed | None = None
        partitions = market.market.partitions
        if kafka.consume == "shared":
            partitions = Partitions()
            self.event_feed = bus.feed(kafka.topic, partitions)
        self.directory.fills.read_from = (self.event_feed or market.feed).begins
        read_to.events_at = (self.event_feed or market.feed).positions
        self.reader = OrderReader(
            self.directory,
            self.feed,
            self.event_feed,
            self.private,
            partitions,
            self.catch_up,
            monotonic=time.monotonic,
            times=bus.times,
            on_failed=counts.failed,
        )
        if self.event_feed is None:
            market.reader = self.reader
        self.topic_lifecycle = TopicLifecycle(
            bus.monitor,
            market.feed,
            self.feed,
            self.event_feed,
            boot_id=boot_id,
            keep_seconds=kafka.warmup_seconds,
            on_order_topic_gone=self.directory.forget_order_topic,
            on_event_topic_gone=self.directory.forget_event_topic,
        )
        bus.monitor.on_change.append(self.topic_lifecycle.look)
        self.reservations: Reservations | None = None
        self.release_worker: ReleaseWorker | None = None
        if settings.accounts.url is not None:
            self.reservations = Reservations(
                settings.accounts,
                self.releases,
                on_release_failed=lambda _order_id: metrics.reservations.labels("release_failed").inc(),
            )
            self.release_worker = ReleaseWorker(
                self.releases,
                self.directory.get,
                self.reservations,
                max_connections=settings.accounts.max_connections,
                count=lambda outcome, orders: metrics.reservations.labels(outcome).inc(orders),
                now_ms=bus.times.now_ms,
            )
        limits = pre_trade(
            settings.instruments,
            settings.limits.max_open_orders,
            mark=market.market.mark,
            open_orders=self.directory.index.shown_count,
        )
        self.entry = OrderEntry(
            self.log,
            self.directory,
            settings.order_namespace,
            self.catch_up,
            answer_within_seconds=settings.orders.ack_timeout_seconds,
            is_started=self.feed.has_been_live,
            count=metrics.count_order,
            clock=time.time,
            reservations=self.reservations,
            use_within_seconds=settings.accounts.timeout_seconds + END_SECONDS + SLACK_SECONDS,
            passes_anonymous=settings.accounts.anonymous == "pass",
            give_way=market.give_way,
            pre_trade=limits,
        )
        rules = OrderRules(
            settings.instruments,
            settings.orders.default_symbol,
            accounts=settings.accounts.url is not None,
            amends=settings.orders.amend,
            attributes=settings.orders.attributes,
        )
        amends = Amends(
            self.entry,
            self.log,
            self.directory,
            rules,
            count=metrics.count_order,
            clock=time.time,
            pre_trade=limits,
        )
        self.order_services = OrderServices(
            self.entry,
            self.directory,
            self.private,
            self.lookup,
            admission,
            on_limited=lambda what: metrics.rate_limited.labels(what).inc(),
            changes=self._changes,
            amends=amends,
            audit=audit,
        )

    def _on_change(self, order: Order) -> None:
        self.private.on_change(order)
        self._changes.on_change(order)

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What has to go on for as long as this process serves."""
        if self.release_worker is not None:
            yield self.release_worker.run()

    async def finish_releases(self, timeout_seconds: float) -> None:
        """Wait so long for what is being released of ended orders, and begin no more."""
        if self.release_worker is not None:
            await self.release_worker.finish(timeout_seconds)

    @property
    def feeds(self) -> list[Feed]:
        """The consumers of this room."""
        return [self.feed] if self.event_feed is None else [self.feed, self.event_feed]
