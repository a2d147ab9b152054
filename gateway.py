"""The gateway's composition root: arguments, settings, wiring, the loop, signals, and the ordered drain.

    python gateway.py [--config FILE] [--check]

Start-up is `Gateway.start`, shutdown `Gateway.drain`: each one ordered function.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 (whoever starts this with an older one gets one line, not a traceback)
    sys.exit("gateway: Python 3.11 or newer is needed; this is " + sys.version.split()[0])

from confluent_kafka import KafkaException
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import Application

import handlers.console
import handlers.documents
import handlers.health
import handlers.orders
import handlers.passthrough
import handlers.stream
from core.admission import Admission
from core.commands import OrderRules
from core.errors import CloseCode, PoisonedRecord, SettingsError
from core.events import Event
from core.hub import Hub
from core.identity import demo_token
from core.kafka.clients import EMBEDDED, Calls
from core.kafka.embedded import EmbeddedCluster
from core.kafka.feed import Feed
from core.kafka.monitor import BusMonitor
from core.kafka.order_log import OrderLog
from core.kafka.read_back import ReadBack
from core.listing import listing
from core.loop_lag import LoopLag
from core.market import Market
from core.metrics import ACROSS_WORKERS, Metrics, OrderCounts
from core.order_entry import OrderEntry
from core.order_state import state
from core.order_watch import OrderWatch
from core.orders import OrderDirectory
from core.private_feed import ACCOUNT_ORDERS, PrivateFeed
from core.pump import Pump
from core.quiet_log import QuietLog
from core.session import SessionRules
from core.settings import Bind, Settings, load_settings
from handlers.base import Context, NotFoundHandler, Status
from handlers.listener import Listener
from services.accounts import Reservations, Upstream
from services.admission import build_door
from services.collector import Collector
from services.descriptors import Room, fitted
from services.exchange_process import ExchangeProcess
from services.listening import CannotListen, listen
from services.logs import set_up_logging
from services.loop import loop_factory
from services.siblings import voice_of
from services.workers import Parent, Worker, count_of, obey

VERSION = "0.1.0"
HERE = Path(__file__).resolve().parent

log = logging.getLogger("gateway")

# Of the shutdown's time beyond drain_seconds and orders.ack_timeout_seconds: for the closing handshakes, for the consumer.
HANDSHAKE_SECONDS = 1.0
CONSUMER_CLOSE_SECONDS = 1.0
SERVICES_CLOSE_SECONDS = 1.0
# What a worker's drain may take beyond those two, so that all of it stays below 5.
DRAIN_SECONDS_MORE = 4.5

# Connections to the address of /metrics.
MOST_SCRAPERS = 64

DEMO_TRADER = "demo-trader"
DEMO_SECONDS = 86_400


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
        self._quiet_log = QuietLog(log)
        self._boot_id = worker.boot_id
        self._topic_ids: dict[str, str] = {}
        self._was_repartitioned = False
        self._has_checked_retention = False
        self._exchange: ExchangeProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # Start-up, in order: the broker if it is ours, the parts, the server, then Kafka in the background.

    async def start(self) -> None:
        """Serve, and begin to read. Kafka may be absent: the gateway then says so and keeps trying."""
        settings = self.settings
        kafka = settings.kafka
        embedded = kafka.brokers == EMBEDDED
        brokers = kafka.brokers
        if embedded:
            cluster = await self._calls.run(lambda: EmbeddedCluster([kafka.topic, kafka.order_topic]), 10)
            self._cluster = cluster
            brokers = cluster.bootstrap
            log.warning("embedded broker on %s: it keeps nothing; all records go with this process", brokers)
        self._wire(brokers, embedded)
        self._wire_orders(brokers, embedded)
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
            self._exchange = ExchangeProcess(HERE, brokers, kafka.topic, kafka.order_topic, is_fresh=embedded)
            self._tasks.append(asyncio.create_task(self._exchange.run(lambda: self.status.draining)))

    def _wire(self, brokers: str, embedded: bool) -> None:
        settings, metrics, kafka = self.settings, self.metrics, self.settings.kafka
        self.monitor = BusMonitor(
            brokers, kafka.producer, (kafka.topic, kafka.order_topic), self._calls, embedded=embedded
        )
        ticks = {instrument.symbol: instrument.tick for instrument in settings.instruments}
        self.market = Market(
            on_poisoned=self._on_poisoned,
            on_event=self._on_event,
            on_stale=self._on_stale,
            tick_of=ticks.get,
            history_records=settings.history.records,
            history_seconds=settings.history.seconds,
        )
        self.hub = Hub(self.market, self.epoch, time.monotonic, metrics)
        self.hub.fanout.slice_seconds = settings.hub.slice_ms / 1000
        self.hub.fanout.again = lambda go_on: IOLoop.current().add_callback(go_on)
        self.read_back = ReadBack(brokers, kafka.topic, kafka.consumer, self.hub.read_back_done)
        self.hub.read_back = self.read_back
        self.feed = Feed(
            brokers,
            kafka.topic,
            kafka.group_id,
            kafka.consumer,
            broadcast=kafka.consume == "broadcast",
            warmup_seconds=kafka.warmup_seconds,
            warmup_records=kafka.warmup_records,
            calls=self._calls,
            ask=self.monitor.ask,
            on_trouble=self.monitor.suspect,
            on_lost=self._on_partition_lost,
            on_begin=self.market.begin,
            on_live=self._on_market_live,
            on_unread=self.hub.set_unread,
            on_rebalance=metrics.rebalances.inc,
            on_error=lambda name: metrics.kafka_errors.labels(name).inc(),
            embedded=embedded,
        )

    def _wire_orders(self, brokers: str, embedded: bool) -> None:
        """The way of an order: entry, log, and the directory that reads both topics wherever the market is read."""
        settings, metrics, kafka = self.settings, self.metrics, self.settings.kafka
        self.order_log = OrderLog(
            brokers,
            kafka.order_topic,
            kafka.producer,
            ack_timeout_seconds=settings.orders.ack_timeout_seconds,
            calls=self._calls,
            is_reachable=lambda: self.monitor.connected,
            on_trouble=self.monitor.suspect,
            on_ack_seconds=metrics.order_ack_seconds.observe,
            embedded=embedded,
        )
        self.directory = OrderDirectory(
            keep_terminal_seconds=settings.orders.keep_terminal_seconds,
            on_change=lambda order: self.private.on_change(order),
            on_private=lambda user_id, payload: self.private.on_event(user_id, payload),
            observer=OrderCounts(metrics, self._quiet_log, kafka.order_topic),
        )
        self.private = PrivateFeed(self.hub.deliver, self.directory.open_orders, state)
        self.order_feed = self._whole_feed(brokers, kafka.order_topic, embedded, self._on_orders_read)
        # In a group of consumers the market is only a part; whose orders trade elsewhere has to be known all the same.
        self.event_feed = None
        if kafka.consume == "shared":
            self.event_feed = self._whole_feed(
                brokers, kafka.topic, embedded, lambda done: self.watch.serve_events(done)
            )
        self.watch = OrderWatch(
            self.directory,
            self.order_feed,
            self.event_feed,
            self.private,
            monotonic=time.monotonic,
            clock=time.time,
        )
        self._reservations = None
        if settings.accounts.url is not None:
            self._reservations = Reservations(settings.accounts, on_release_failed=self._on_release_failed)
        self.entry = OrderEntry(
            self.order_log,
            self.directory,
            settings.order_namespace,
            is_started=self.order_feed.has_been_live,
            count=metrics.count_order,
            clock=time.time,
            reservations=self._reservations,
        )

    def _whole_feed(self, brokers: str, topic: str, embedded: bool, on_live: Callable[[list[int]], None]) -> Feed:
        """Every partition of a topic, for the order directory."""
        kafka = self.settings.kafka
        return Feed(
            brokers,
            topic,
            kafka.group_id,
            kafka.consumer,
            broadcast=True,
            warmup_seconds=kafka.warmup_seconds,
            warmup_records=kafka.warmup_records,
            calls=self._calls,
            ask=self.monitor.ask,
            on_trouble=self.monitor.suspect,
            on_lost=lambda _partition: None,
            on_begin=lambda _partition, _offset: None,
            on_live=on_live,
            on_unread=None,
            on_rebalance=lambda: None,
            on_error=lambda name: self.metrics.kafka_errors.labels(name).inc(),
            embedded=embedded,
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
        self.monitor.on_change.append(self._on_bus)

    def _serve(self, admission: Admission) -> None:
        settings = self.settings
        context = Context(settings, self.metrics, self.status, admission)
        rules = OrderRules(
            settings.instruments, settings.orders.default_symbol, accounts=settings.accounts.url is not None
        )
        self._voice = voice_of(self.worker, self.report, self.metrics.registry, self._refresh_gauges, ACROSS_WORKERS)
        self.trading = handlers.stream.Trading(self.entry, self.directory, self.private)
        metrics_sockets = self.worker.listeners.metrics
        operators = handlers.health.routes(context, self._voice.health, self.is_ready)
        metrics_routes = handlers.health.metrics_routes(context, self._voice.metrics)
        self.application = self._application(
            context,
            [
                *handlers.stream.routes(context, self.hub, self._session_rules(rules), self.trading),
                *handlers.orders.routes(context, self.entry, self.directory, rules, self.instruments),
                *self._passed_through(context),
                *operators,
                *([] if metrics_sockets else metrics_routes),
                *handlers.documents.routes(context),
                *handlers.console.routes(context),
            ],
        )
        # The handlers bound bodies themselves, with an answer; see handlers/base.py.
        self.server = HTTPServer(
            self.application,
            max_body_size=1 << 50,
            max_header_size=32_768,
            idle_connection_timeout=120,
            body_timeout=30,
        )
        self.listener = Listener(
            self.server,
            most=self._room.connections,
            clients=lambda: len(self.hub.subscribers),
            on_refused=lambda: self.metrics.refusals.labels("unavailable").inc(),
        )
        self._metrics_server = HTTPServer(
            self._application(context, [*operators, *metrics_routes]), idle_connection_timeout=120, body_timeout=30
        )
        self._metrics_listener = Listener(self._metrics_server, most=MOST_SCRAPERS, clients=lambda: 0)
        self._metrics_listener.take(metrics_sockets)
        if self.worker.channel is None:
            self.take(0)
        if self.worker.number == self.worker.starts == 0:
            self._announce()

    def take(self, slot: int) -> None:
        """Accept on the sockets of this slot."""
        self.listener.take(self.worker.listeners.slots[slot])

    def leave(self, slot: int) -> None:
        """Somebody else accepts on the sockets of this slot."""
        self.listener.leave(self.worker.listeners.slots[slot])

    def let_go(self) -> None:
        """Accept no more, so that another process can have the address. Harmless when repeated."""
        self.listener.close()
        self._metrics_listener.close()
        self.worker.listeners.close()
        self.worker.say("left")

    def _announce(self) -> None:
        settings = self.settings
        listeners = self.worker.listeners
        self.address = f"http://{listeners.reachable}"
        log.info("listening on %s (bound to %s)", self.address, listeners.bound)
        for one in listeners.metrics[:1]:
            log.info("metrics: bound to %s", Bind(*one.getsockname()[:2]))
        log.info("console: %s/", self.address)
        if self._room.shortage is not None:
            log.warning("%s", self._room.shortage)
        if settings.demo.trader and settings.auth.secret is not None:
            # On standard output and not in the log: who reads it may trade.
            token = demo_token(settings.auth.secret, DEMO_TRADER, time.time() + DEMO_SECONDS)
            print(
                f"\nOpen the page, signed in as {DEMO_TRADER} for a day:\n\n    {self.address}/#token={token}\n",
                flush=True,
            )

    @staticmethod
    def _application(context: Context, routes: list[tuple[Any, ...]]) -> Application:
        return Application(
            routes,
            default_handler_class=NotFoundHandler,
            default_handler_args={"context": context},
            log_function=lambda _handler: None,
        )

    def _passed_through(self, context: Context) -> list[tuple[Any, ...]]:
        self._upstream = None
        if self.settings.accounts.url is None:
            return []
        self._upstream = Upstream(self.settings.accounts)
        return handlers.passthrough.routes(
            context,
            self._upstream,
            lambda handler: context.admission.user_of(handler.request.headers.get("Authorization")),
            lambda handler: handler.take_login(),
        )

    def _session_rules(self, rules: OrderRules) -> SessionRules:
        settings = self.settings
        return SessionRules(
            max_subscriptions=settings.websocket.max_subscriptions,
            max_views=settings.websocket.max_views,
            instruments=self.instruments,
            is_listed=lambda symbol: not settings.instruments or symbol in rules.by_symbol,
            has_tick=lambda symbol: symbol in rules.by_symbol,
            open_views=self.hub.open_views,
            orders=rules,
            allows_anonymous=settings.auth.mode == "optional",
        )

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

    def _on_bus(self) -> None:
        if not self.monitor.connected:
            return
        kafka = self.settings.kafka
        for topic in (kafka.order_topic, kafka.topic):
            self._on_topic_id(topic)
        order_partitions = self.monitor.partitions.get(kafka.order_topic, 0)
        if order_partitions:
            self.order_feed.set_topic_partitions(order_partitions)
            if not self.order_feed.has_been_live():
                return  # the order topic to its end first: whose orders the events are about is known then
        self._read_market()
        if not self._has_checked_retention and self.monitor.partitions.get(kafka.order_topic):
            self._has_checked_retention = True
            self._tasks.append(asyncio.create_task(self._check_retention()))

    def _on_topic_id(self, topic: str) -> None:
        topic_id = self.monitor.topic_ids.get(topic)
        before = self._topic_ids.get(topic)
        if topic_id is None or topic_id == before:
            return
        self._topic_ids[topic] = topic_id
        if before is None:
            return
        log.error("topic %s was deleted and made again: warming up anew", topic)
        if topic == self.settings.kafka.order_topic:
            self.directory.forget_order_topic()
        else:
            self.directory.forget_event_topic()
        for feed in (self.order_feed, self.event_feed, self.feed):
            if feed is not None and feed.topic == topic:
                feed.restart()

    def _read_market(self) -> None:
        kafka = self.settings.kafka
        count = self.monitor.partitions.get(kafka.topic)
        if not count:
            return
        if self.event_feed is not None:
            self.event_feed.set_topic_partitions(count)
        if self.feed.set_topic_partitions(count):
            self._was_repartitioned = True
            log.error(
                "the number of partitions of %s changed to %d: symbols move; restart when it suits", kafka.topic, count
            )

    def _on_market_live(self, partitions: list[int]) -> None:
        """There was nothing to warm up on these partitions; of the others the drains tell."""
        self.hub.serve(partitions)
        self.watch.serve(partitions)

    def _on_orders_read(self, _partitions: list[int]) -> None:
        # In another turn of the loop: this comes out of the drain of a feed.
        IOLoop.current().add_callback(self._on_bus)

    def _on_event(self, event: Event, partition: int, offset: int, time_ms: int) -> None:
        self.metrics.count_event(event.type)
        if self.event_feed is None:
            self.watch.fold(event, partition, offset, time_ms)

    def _on_release_failed(self, _order_id: str) -> None:
        self.metrics.reservations.labels("release_failed").inc()

    async def _check_retention(self) -> None:
        kafka = self.settings.kafka
        for warning in await self.monitor.retention_warnings(kafka.order_topic, kafka.warmup_seconds):
            log.warning("%s", warning)

    def _on_partition_lost(self, partition: int) -> None:
        self.hub.forget(partition)
        self.market.forget(partition)

    def _on_poisoned(self, poison: PoisonedRecord, partition: int, offset: int) -> None:
        self.metrics.poisoned.labels(poison.reason).inc()
        self._quiet_log.warning(
            f"poisoned {poison.reason}",
            "poisoned record skipped: %s, topic %s partition %d offset %d (%s)",
            poison.reason, self.settings.kafka.topic, partition, offset, poison.detail,
        )  # fmt: skip

    def _on_stale(self, symbol: str, cause: str) -> None:
        self.metrics.stale_books.labels(cause).inc()
        self.hub.distrust(symbol)
        self._quiet_log.warning(
            f"stale {symbol}", "the book of %s cannot be trusted until its next snapshot: %s delta", symbol, cause
        )

    # What the handlers ask.

    def epoch(self) -> str:
        """The life of the market topic: its id (per start where Kafka has none) and its number of partitions."""
        topic_id = self.monitor.topic_ids.get(self.settings.kafka.topic) or self._boot_id
        return f"{topic_id}.{self.feed.topic_partitions}"

    def is_ready(self) -> bool:
        """Whether traffic may come."""
        return (
            not self.status.draining
            and self.monitor.connected
            and self.feed.is_live
            and self.order_feed.is_live
            and (self.event_feed is None or self.event_feed.is_live)
            and self.order_log.warm
        )

    def report(self) -> dict[str, Any]:
        """The body of `/health`, for this process."""
        since_ms = self.feed.known_since_ms()
        problems = self.problems()
        healthy = self.is_ready() and not problems
        return {
            "status": "ok" if healthy else "degraded",
            "version": VERSION,
            "uptime_seconds": round(time.monotonic() - self._started_at, 3),
            "clients": len(self.hub.subscribers),
            "kafka": {
                "connected": self.monitor.connected,
                "group": self.settings.kafka.group_id,
                "consume": self.settings.kafka.consume,
                "partitions": self.feed.assigned,
                "partial": self.feed.is_partial,
                "lag": sum(self.feed.lag().values()),
            },
            "known_since": None if since_ms is None else since_ms / 1000,
            **({"problems": problems} if problems else {}),
        }

    def problems_by_kind(self) -> dict[str, str | None]:
        """What can be wrong besides not being ready: a sentence where it is, None where it is not."""
        repartitioned = "the number of partitions of the market topic has changed: restart"
        found = {
            "partitions": repartitioned if self._was_repartitioned else None,
            "jwks": self._key_fetcher.problem if self._key_fetcher is not None else None,
            "redis": self._redis.problem if self._redis is not None else None,
            "accounts": self._reservations.problem if self._reservations is not None else None,
        }
        return found

    def problems(self) -> list[str]:
        """The sentences of what is wrong."""
        return [problem for problem in self.problems_by_kind().values() if problem is not None]

    def instruments(self) -> dict[str, Any]:
        """The body of `/api/instruments`."""
        return listing(self.settings.instruments, lambda: self.market.symbols)

    def _refresh_gauges(self) -> None:
        """At a scrape, for nobody keeps them meanwhile: a millisecond with 10,000 clients."""
        metrics = self.metrics
        metrics.clients.set(len(self.hub.subscribers))
        metrics.outbox_bytes.set(self.hub.waiting_bytes())
        metrics.ready.set(self.is_ready())
        metrics.known_orders.set(len(self.directory))
        metrics.authenticated.set(self.private.connections)
        subscriptions = {**self.hub.subscriptions(), ACCOUNT_ORDERS: self.private.listeners}
        for kind, count in subscriptions.items():
            metrics.subscriptions.labels(kind).set(count)
        metrics.problem.labels("bus").set(not self.monitor.connected)
        for kind, problem in self.problems_by_kind().items():
            metrics.problem.labels(kind).set(problem is not None)
        for feed in (self.feed, self.order_feed):
            metrics.set_lag(feed.topic, feed.lag())

    # Shutdown, in order: tell the balancer, let go of clients, finish orders, then the bus.

    async def drain(self, hurry: asyncio.Event) -> None:
        """End without losing anything; `hurry` cuts the waiting for clients short. Raises nothing."""
        settings = self.settings
        self.status.draining = True
        self.worker.say("draining")
        log.info("draining: %d clients, %g s", len(self.hub.subscribers), settings.drain_seconds)
        await self._close_clients(settings.drain_seconds, hurry)
        self.let_go()
        deadline = time.monotonic() + settings.orders.ack_timeout_seconds
        # Cancels on disconnect come behind the orders that are under way, and before the producer is flushed.
        await self.trading.finish(settings.orders.ack_timeout_seconds)
        await self.order_log.close(max(0.0, deadline - time.monotonic()))
        # Handlers that just got their outcome write their answer in the next turns of the loop.
        await asyncio.sleep(0.05)
        self._beats.stop()
        self._loop_lag.stop()
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

    async def _close_clients(self, seconds: float, hurry: asyncio.Event) -> None:
        """Close every client with 1001, spread over the time, so that they do not all come back at once."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        waiting = list(self.hub.subscribers)
        for number, subscriber in enumerate(waiting, start=1):
            await _wait(hurry, started + seconds * number / (len(waiting) + 1) - loop.time())
            if subscriber in self.hub.subscribers:
                subscriber.end(CloseCode.GOING_AWAY, "reconnect")
        await _wait(hurry, started + seconds - loop.time())
        if waiting:
            await asyncio.sleep(min(HANDSHAKE_SECONDS, 0.1 + seconds))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long."""
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


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


def with_demo_secret(settings: Settings) -> Settings:
    """The demo has a secret of its own at each start, unless one was set: its tokens die with it."""
    if not settings.demo.trader or settings.auth.secret is not None:
        return settings
    auth = replace(settings.auth, secret=secrets.token_urlsafe(32), algorithms=("HS256", *settings.auth.algorithms))
    return replace(settings, auth=auth)


def _fail(text: str) -> int:
    print(f"gateway: {text}", file=sys.stderr)
    return 1


def start(settings: Settings) -> int:
    """Bind, and serve in this process or in several. Returns the exit code."""
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
