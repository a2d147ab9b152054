"""The gateway's composition root: arguments, settings, wiring, the loop, signals, and the ordered drain.

    python gateway.py [--config FILE] [--check]

Start-up is `Gateway.start`, shutdown `Gateway.drain`: each one ordered function.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (whoever starts this with an older one gets one line, not a traceback)
    sys.exit("gateway: Python 3.11 or newer is needed; this is " + sys.version.split()[0])

from confluent_kafka import KafkaException
from tornado.ioloop import IOLoop, PeriodicCallback

from core.admission import Admission
from core.errors import SettingsError
from core.events import Event
from core.hub import Hub
from core.kafka.clients import EMBEDDED, Calls
from core.kafka.embedded import START_SECONDS, EmbeddedCluster
from core.kafka.feed import Feed
from core.kafka.monitor import BusMonitor
from core.kafka.order_log import OrderLog
from core.kafka.read_back import ReadBack
from core.kafka.topics import Topics
from core.listing import listing
from core.loop_lag import LoopLag
from core.market import Market
from core.metrics import ACROSS_WORKERS, Metrics, OrderCounts
from core.order_entry import OrderEntry
from core.order_state import state
from core.order_watch import OrderWatch
from core.orders import OrderDirectory
from core.partitions import Partitions
from core.private_feed import PrivateFeed
from core.pump import Pump
from core.quiet_log import QuietLog
from core.settings import Settings, load_settings
from handlers.base import Context, Status
from handlers.server import Server
from handlers.stream import Trading
from services.accounts import Reservations, Upstream
from services.admission import build_door
from services.allocator import keep_few_arenas
from services.announcement import announce, with_demo_secret
from services.collector import Collector
from services.descriptors import Room, fitted
from services.exchange_process import ExchangeProcess
from services.giving_way import Turns
from services.listening import CannotListen, listen
from services.logs import set_up_logging
from services.loop import loop_factory
from services.market_trouble import MarketTrouble
from services.parting import HANDSHAKE_SECONDS, close_clients
from services.siblings import voice_of
from services.vitals import Vitals
from services.workers import Parent, Worker, count_of, obey

VERSION = "0.1.0"
HERE = Path(__file__).resolve().parent

log = logging.getLogger("gateway")

# Of the shutdown's time beyond drain_seconds and orders.ack_timeout_seconds, with HANDSHAKE_SECONDS.
CONSUMER_CLOSE_SECONDS = 1.0
SERVICES_CLOSE_SECONDS = 1.0
# What a worker's drain may take beyond those two, so that all of it stays below 5.
DRAIN_SECONDS_MORE = 4.5


class Gateway:
    """One instance, or one worker of it: everything that runs, wired once."""

    def __init__(self, settings: Settings, worker: Worker, room: Room) -> None:
        self.settings = settings
        self.worker = worker
        self._room = room
        self.metrics = Metrics()
        self.status = Status()
        self._started_at = time.monotonic()
        self._calls = Calls()
        self._embedded = settings.kafka.brokers == EMBEDDED
        self._brokers = settings.kafka.brokers
        self._quiet_log = QuietLog(log)
        self._exchange: ExchangeProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Start-up, in order: the broker if it is ours, the parts, the server, then Kafka in the background.

    async def start(self) -> None:
        """Serve, and begin to read. Kafka may be absent: the gateway then says so and keeps trying."""
        settings = self.settings
        kafka = settings.kafka
        if self._embedded:
            self._cluster = await self._calls.run(
                lambda: EmbeddedCluster([kafka.topic, kafka.order_topic]), START_SECONDS
            )
            self._brokers = self._cluster.bootstrap
            log.warning("embedded broker on %s: it keeps nothing; all records go with this process", self._brokers)
        self._wire()
        self._wire_orders()
        self._wire_pump()
        door = build_door(settings, self.worker.share)
        self._key_fetcher, self._redis = door.key_fetcher, door.redis
        self._serve(door.admission)
        await self._voice.start()
        self._tasks.append(asyncio.create_task(self.monitor.run()))
        if self._key_fetcher is not None:
            self._tasks.append(asyncio.create_task(self._key_fetcher.run()))
        if self._redis is not None:
            self._tasks.append(asyncio.create_task(self._redis.start()))
        self._beats = PeriodicCallback(self._beat, kafka.poll_interval_ms)
        self._beats.start()
        self._loop_lag = LoopLag(asyncio.get_running_loop(), self.metrics.loop_lag_seconds.observe)
        if settings.demo.exchange and self.worker.number == 0:
            self._exchange = ExchangeProcess(
                HERE, self._brokers, kafka.topic, kafka.order_topic, is_fresh=self._embedded
            )
            self._tasks.append(asyncio.create_task(self._exchange.run(lambda: self.status.draining)))

    def _wire(self) -> None:
        settings, metrics, kafka = self.settings, self.metrics, self.settings.kafka
        self.monitor = BusMonitor(
            self._brokers, kafka.producer, (kafka.topic, kafka.order_topic), self._calls, embedded=self._embedded
        )
        ticks = {instrument.symbol: instrument.tick for instrument in settings.instruments}
        self.trouble = MarketTrouble(metrics, self._quiet_log, kafka.topic)
        self.market = Market(
            on_poisoned=self.trouble.on_poisoned,
            on_event=self._on_event,
            on_stale=self._on_stale,
            tick_of=ticks.get,
            history_records=settings.history.records,
            history_seconds=settings.history.seconds,
        )
        self.hub = Hub(self.market, lambda: self.topics.epoch(), time.monotonic, metrics)
        fanout, slice_seconds = self.hub.fanout, settings.hub.slice_ms / 1000
        turns = Turns(asyncio.get_running_loop(), slice_seconds)
        fanout.slice_seconds, fanout.again = slice_seconds, turns.give_way
        # That an acknowledgement has come, only a look at the producer tells.
        fanout.is_wanted = lambda: self.order_log.outstanding > 0 or turns.is_wanted()
        self.read_back = ReadBack(self._brokers, kafka.topic, kafka.consumer, self.hub.resume.read_back_done)
        self.hub.resume.read_back = self.read_back
        self.feed = self._feed(
            kafka.topic,
            self.hub.partitions.serve,
            broadcast=kafka.consume == "broadcast",
            on_lost=self.hub.partitions.lose,
            on_begin=self.hub.partitions.begin,
            on_unread=self.hub.partitions.set_unread,
            on_rebalance=metrics.rebalances.inc,
        )

    def _wire_orders(self) -> None:
        """The way of an order: entry, log, and the directory that reads both topics wherever the market is read."""
        settings, metrics, kafka = self.settings, self.metrics, self.settings.kafka
        self.order_log = OrderLog(
            self._brokers,
            kafka.order_topic,
            kafka.producer,
            ack_timeout_seconds=settings.orders.ack_timeout_seconds,
            calls=self._calls,
            is_reachable=lambda: self.monitor.connected,
            on_trouble=self.monitor.suspect,
            on_ack_seconds=metrics.order_ack_seconds.observe,
            embedded=self._embedded,
        )
        self.directory = OrderDirectory(
            keep_terminal_seconds=settings.orders.keep_terminal_seconds,
            max_terminal=settings.orders.max_terminal or None,
            on_change=lambda order: self.private.on_change(order),
            on_private=lambda user_id, payload: self.private.on_event(user_id, payload),
            observer=OrderCounts(metrics, self._quiet_log, kafka.order_topic),
        )
        self.private = PrivateFeed(self.hub.fanout.send, self.directory.open_orders, state)
        self.order_feed = self._feed(kafka.order_topic, self._on_orders_read)
        # In a group of consumers the market is only a part; whose orders trade elsewhere has to be known all the same.
        self.event_feed = None
        partitions = self.market.partitions
        if kafka.consume == "shared":
            partitions = Partitions()
            self.event_feed = self._feed(kafka.topic, partitions.serve)
        self.watch = OrderWatch(
            self.directory,
            self.order_feed,
            self.event_feed,
            self.private,
            partitions,
            monotonic=time.monotonic,
            clock=time.time,
        )
        self.topics = Topics(
            self.monitor,
            self.feed,
            self.order_feed,
            self.event_feed,
            boot_id=self.worker.boot_id,
            keep_seconds=kafka.warmup_seconds,
            on_order_topic_gone=self.directory.forget_order_topic,
            on_event_topic_gone=self.directory.forget_event_topic,
        )
        self._reservations = None
        if settings.accounts.url is not None:
            self._reservations = Reservations(
                settings.accounts,
                on_release_failed=lambda _order_id: metrics.reservations.labels("release_failed").inc(),
            )
        self.entry = OrderEntry(
            self.order_log,
            self.directory,
            settings.order_namespace,
            is_started=self.order_feed.has_been_live,
            count=metrics.count_order,
            clock=time.time,
            reservations=self._reservations,
        )

    def _feed(
        self,
        topic: str,
        on_live: Callable[[list[int]], object],
        *,
        broadcast: bool = True,
        on_lost: Callable[[int], None] = lambda _partition: None,
        on_begin: Callable[[int, int], None] = lambda _partition, _offset: None,
        on_unread: Callable[[set[int]], None] | None = None,
        on_rebalance: Callable[[], None] = lambda: None,
    ) -> Feed:
        """A topic as it is read: every partition, unless it is the market of a group of instances."""
        kafka = self.settings.kafka
        return Feed(
            self._brokers,
            topic,
            kafka.group_id,
            kafka.consumer,
            broadcast=broadcast,
            warmup_seconds=kafka.warmup_seconds,
            warmup_records=kafka.warmup_records,
            calls=self._calls,
            ask=partial(self.monitor.ask, with_ids=True),
            on_trouble=self.monitor.suspect,
            on_lost=on_lost,
            on_begin=on_begin,
            on_live=on_live,
            on_unread=on_unread,
            on_rebalance=on_rebalance,
            on_error=self._on_feed_error,
            embedded=self._embedded,
        )

    def _wire_pump(self) -> None:
        kafka = self.settings.kafka
        self.pump = Pump(
            self.feed,
            self.order_log,
            self.market,
            self.hub,
            self.metrics,
            poll_interval_ms=kafka.poll_interval_ms,
            idle_interval_ms=kafka.idle_interval_ms,
            again=lambda: IOLoop.current().add_callback(self._beat),
            watch=self.watch,
        )
        self.order_log.wake = self._hurry
        self.monitor.on_change.append(self.topics.look)

    def _serve(self, admission: Admission) -> None:
        settings, listeners = self.settings, self.worker.listeners
        self.vitals = Vitals(
            VERSION,
            settings.kafka,
            self.metrics,
            self.monitor,
            self.feed,
            self.order_feed,
            self.event_feed,
            self.order_log,
            self.hub,
            self.directory,
            self.private,
            {
                "partitions": self.topics,
                "jwks": self._key_fetcher,
                "redis": self._redis,
                "accounts": self._reservations,
            },
            is_draining=lambda: self.status.draining,
            started_at=self._started_at,
        )
        self._voice = voice_of(
            self.worker, self.vitals.report, self.metrics.registry, self.vitals.refresh_gauges, ACROSS_WORKERS
        )
        self.trading = Trading(self.entry, self.directory, self.private)
        self._upstream = Upstream(settings.accounts) if settings.accounts.url is not None else None
        self.server = Server(
            Context(settings, self.metrics, self.status, admission),
            self.hub,
            self.trading,
            lambda: listing(settings.instruments, lambda: self.market.symbols),
            self._upstream,
            health=self._voice.health,
            metrics=self._voice.metrics,
            is_ready=self.is_ready,
            most_connections=self._room.connections,
            metrics_sockets=listeners.metrics,
        )
        if self.worker.channel is None:
            self.take(0)
        if self.worker.number == self.worker.starts == 0:
            announce(settings, listeners, self._room)

    def take(self, slot: int) -> None:
        """Accept on the sockets of this slot."""
        self.server.take(self.worker.listeners.slots[slot])

    def leave(self, slot: int) -> None:
        """Somebody else accepts on the sockets of this slot."""
        self.server.leave(self.worker.listeners.slots[slot])

    def let_go(self) -> None:
        """Accept no more, so that another process can have the address. Harmless when repeated."""
        self.server.close()
        self.worker.listeners.close()
        self.worker.say("left")

    def is_ready(self) -> bool:
        """Whether traffic may come."""
        return self.vitals.is_ready()

    # The beat.

    def _beat(self) -> None:
        try:
            self.pump.beat()
        except KafkaException as error:
            self._quiet_log.warning("beat", "reading from Kafka failed: %s", error)
        self._beats.callback_time = self.pump.period_ms

    def _hurry(self) -> None:
        """An acknowledgement is awaited: do not sit out the rest of an idle period."""
        if self.pump.is_idle:
            self.pump.hurry()
            self._beats.stop()
            self._beats.callback_time = self.pump.period_ms
            self._beats.start()

    # What the parts tell.

    def _on_feed_error(self, name: str) -> None:
        self.metrics.kafka_errors.labels(name).inc()
        self.monitor.doubt()

    def _on_orders_read(self, _partitions: list[int]) -> None:
        # In another turn of the loop: this comes out of the drain of a feed.
        IOLoop.current().add_callback(self.topics.look)

    def _on_event(self, event: Event, partition: int, offset: int, time_ms: int) -> None:
        self.metrics.count_event(event.type)
        if self.event_feed is None:
            self.watch.fold(event, partition, offset, time_ms)

    def _on_stale(self, symbol: str, cause: str) -> None:
        self.trouble.on_stale(symbol, cause)
        self.hub.publishing.distrust(symbol)

    # Shutdown, in order: tell the balancer, let go of clients, finish orders, then the bus.

    async def drain(self, hurry: asyncio.Event) -> None:
        """End without losing anything; `hurry` cuts the waiting for clients short. Raises nothing."""
        settings = self.settings
        self.status.draining = True
        self.worker.say("draining")
        log.info("draining: %d clients, %g s", len(self.hub.subscribers), settings.drain_seconds)
        await close_clients(self.hub, settings.drain_seconds, hurry)
        self.let_go()
        deadline = time.monotonic() + settings.orders.ack_timeout_seconds
        # Cancels on disconnect come behind the orders that are under way, and before the producer is flushed.
        await self.trading.finish(settings.orders.ack_timeout_seconds)
        await self.order_log.close(max(0.0, deadline - time.monotonic()))
        # Handlers that just got their outcome write their answer in the next turns of the loop.
        await asyncio.sleep(0.05)
        self._beats.stop()
        self._loop_lag.stop()
        self.topics.close()
        for task in self._tasks:
            task.cancel()
        if self._exchange is not None:
            await self._exchange.end()
        feeds = [feed for feed in (self.feed, self.order_feed, self.event_feed) if feed is not None]
        await asyncio.gather(*(feed.close(CONSUMER_CLOSE_SECONDS) for feed in feeds))
        await self._close_services()
        try:
            await asyncio.wait_for(self.server.close_all_connections(), HANDSHAKE_SECONDS)
        except TimeoutError:
            log.warning("some connections did not end in time")
        self.read_back.close()
        self._calls.close()
        log.info("drained")

    async def _close_services(self) -> None:
        if self._reservations is not None:
            await self._reservations.close(SERVICES_CLOSE_SECONDS)
        if self._upstream is not None:
            self._upstream.close()
        if self._redis is not None:
            await self._redis.close()
        await self._voice.close()


async def run(settings: Settings, worker: Worker, room: Room) -> int:
    """Serve until a signal, or the parent, says to stop. Returns the exit code."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    gateway = Gateway(settings, worker, room)

    def on_signal() -> None:
        # Of a worker the parent decides what is a second signal; see services/workers.py.
        (hurry if stop.is_set() and worker.channel is None else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await gateway.start()
    except SettingsError as error:
        # What only those can tell who use it; the file's and the environment's own rules were checked before.
        return _fail(str(error))
    except KafkaException as error:
        # librdkafka names the property, and never its value.
        return _fail(f"kafka: {error.args[0].str()}")
    Collector(loop.call_later).start()
    obeying = asyncio.create_task(obey(worker, gateway, stop, hurry))
    await stop.wait()
    await gateway.drain(hurry)
    obeying.cancel()
    return 0


def _fail(text: str) -> int:
    print(f"gateway: {text}", file=sys.stderr)
    return 1


def start(settings: Settings) -> int:
    """Bind, and serve in this process or in several. Returns the exit code."""
    keep_few_arenas()
    count = count_of(settings.workers)
    settings, room = fitted(settings, count)
    try:
        listeners = listen(settings, count)
    except CannotListen as error:
        return _fail(str(error))

    def serve(worker: Worker) -> int:
        if worker.count > 1:
            set_up_logging(settings.log.level, worker.number)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(run(settings, worker, room))

    if count == 1:
        return serve(Worker(listeners))
    longest = settings.drain_seconds + settings.orders.ack_timeout_seconds + DRAIN_SECONDS_MORE
    return Parent(serve, listeners, grace_seconds=longest).run()


def main(arguments: list[str]) -> int:
    """Return the process's exit code: 0 after a drain, 1 if it could not start, 2 for settings that are refused."""
    parser = argparse.ArgumentParser(
        prog="gateway.py", description="The exchange gateway: Kafka to WebSocket and back."
    )
    default = HERE / "conf" / "gateway.yaml"
    parser.add_argument("--config", metavar="FILE", default=str(default), help="settings (default: conf/gateway.yaml)")
    parser.add_argument("--check", action="store_true", help="check the settings and do nothing else")
    options = parser.parse_args(arguments)
    try:
        settings, warnings = load_settings(options.config, os.environ)
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    set_up_logging(settings.log.level)
    for warning in warnings:
        log.warning("%s", warning)
    if options.check:
        print("gateway: the settings are in order")
        return 0
    return start(with_demo_secret(settings))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Everything has been closed in order. A client's call that still waits for a dead broker must not hold up the end.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
