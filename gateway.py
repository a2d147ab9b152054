"""The gateway's composition root: arguments, settings, the rooms, the loop, signals, and the ordered drain.

    python gateway.py [--config FILE] [--check]

Start-up is `Gateway.start`, shutdown `Gateway.drain`: each one ordered function. How a room is built stands in wiring/.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    # From the first moment on: to load what follows takes half a second, in which there is nothing to drain.
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(0))

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 (whoever starts this with an older one gets one line, not a traceback)
    sys.exit("gateway: Python 3.11 or newer is needed; this is " + sys.version.split()[0])

from confluent_kafka import KafkaException

from core.access.keys import problem_of_pem
from core.config.settings import Settings, load_settings
from core.errors import SettingsError
from core.kafka.clients import PROPERTY_CHECKS
from core.log_throttle import QuietLog
from core.pump import Pump
from core.telemetry.loop_lag import LoopLag
from core.telemetry.metrics import Metrics
from handlers.problems import Status
from process.allocator import keep_few_arenas
from process.beats import Beats
from process.certificate import Certificate
from process.drain import close_clients
from process.event_loop import loop_factory
from process.exchange_process import ExchangeProcess
from process.file_limit import Capacity, fit_to_file_limit
from process.gc_tuning import GcTuning
from process.logs import set_up_logging
from process.signals import hear_signals
from process.sockets import CannotListen, listen
from process.start_report import DEMO_TRADER, demo_admin_token, report_start, with_demo_secret
from process.workers import Parent, Worker, follow_parent, worker_count
from wiring.access import build_access
from wiring.accounts import build_accounts
from wiring.bus import Bus
from wiring.control import build_control
from wiring.http import HttpRoom
from wiring.log import build_audit
from wiring.market import MarketRoom
from wiring.orders import OrdersRoom
from wiring.state import StateRoom

VERSION = "0.1.0"
HERE = Path(__file__).resolve().parent

log = logging.getLogger("gateway")

# By setting, what only those can tell who use it.
CHECKS = {"auth.public_key": problem_of_pem, **PROPERTY_CHECKS}

# Of the shutdown's time beyond drain_seconds and orders.ack_timeout_seconds, with two closing handshakes.
CONSUMER_CLOSE_SECONDS = 1.0
SERVICES_CLOSE_SECONDS = 1.0
# What a worker's drain may take beyond those two, so that all of it stays below 5.
DRAIN_SECONDS_MORE = 4.5


class Gateway:
    """One instance, or one worker of it: the rooms, built in order, and the beat that drives them."""

    def __init__(self, settings: Settings, worker: Worker, capacity: Capacity) -> None:
        self._settings = settings
        self._worker = worker
        self._capacity = capacity
        self._status = Status()
        self._started_at = time.monotonic()
        self._quiet_log = QuietLog(log)
        self._exchange: ExchangeProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """In order: the broker if it is ours, the rooms, the server, then Kafka in the background, which may be absent.

        Raises SettingsError and KafkaException for settings that only those can judge who use them.
        """
        settings, worker, kafka = self._settings, self._worker, self._settings.kafka
        audit = build_audit(settings.log, worker)
        metrics = Metrics()
        self._bus = bus = Bus(settings, metrics)
        await bus.start()
        order_log = bus.order_log()
        self._market = market = MarketRoom(
            settings,
            bus,
            metrics,
            self._quiet_log,
            epoch=lambda: self._orders.topic_lifecycle.epoch(),
            is_ack_awaited=lambda: order_log.outstanding > 0,
        )
        self._access = access = build_access(settings, worker.share)
        self._orders = orders = OrdersRoom(
            settings, bus, order_log, market, access.admission, metrics, self._quiet_log, worker.boot_id, audit
        )
        self._state = state = StateRoom(settings, bus, market, orders, metrics)
        accounts = build_accounts(settings, bus, market, orders, metrics, self._quiet_log)
        self._control = control = build_control(settings, bus, orders, metrics, self._quiet_log)
        keyed = [room for room in (accounts, control) if room is not None]
        self._beats = beats = Beats(lambda error: self._quiet_log.fault("beat", error, "a beat failed"))
        pump = Pump(
            market.feed,
            order_log,
            market.market,
            market.hub,
            metrics,
            poll_interval_ms=kafka.poll_interval_ms,
            idle_interval_ms=kafka.idle_interval_ms,
            again=beats.again,
            order_reader=orders.reader,
            others={room.name: room.beat for room in keyed},
            is_away=lambda: not bus.monitor.connected,
        )
        order_log.wake = orders.catch_up.wake = beats.hurry
        self._feeds = [market.feed, *orders.feeds, *(room.compacted.feed for room in keyed)]
        if control is not None:
            control.catch_up.wake = beats.hurry
        for feed in self._feeds:
            feed.wake, feed.is_busy = beats.now, lambda: bus.is_busy
        self.http = HttpRoom(
            VERSION,
            settings,
            worker,
            self._capacity,
            metrics,
            self._status,
            access,
            bus,
            market,
            orders,
            state,
            accounts,
            control,
            started_at=self._started_at,
        )
        if worker.channel is None:
            self.http.accept_on(0)
        if worker.number == worker.starts == 0:
            report_start(settings, worker.listeners, self._capacity)
        await self.http.reports.start()
        self._run(bus.monitor.run())
        for work in (*access.work(), *orders.work(), *state.work(), *(() if control is None else control.work())):
            self._run(work)
        beats.start(pump)
        self._loop_lag = LoopLag(asyncio.get_running_loop(), metrics.loop_lag_seconds.observe)
        if settings.demo.exchange and worker.number == 0:
            self._exchange = ExchangeProcess(
                HERE, bus.brokers, kafka.topic, kafka.order_topic, kafka.account_topic,
                trader=DEMO_TRADER if settings.demo.trader else None, is_fresh=bus.is_embedded,
            )  # fmt: skip
            self._run(self._exchange.run(lambda: self._status.draining))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Until the drain ends it."""
        self._tasks.append(asyncio.create_task(work))

    async def drain(self, hurry: asyncio.Event) -> None:
        """In order: tell the balancer, let go of clients, finish orders, then the bus. Nothing is lost, nothing raised.

        `hurry` cuts the waiting for clients short.
        """
        settings = self._settings
        self._status.draining = True
        self._worker.tell_parent("draining")
        log.info("draining: %d clients, %g s", len(self._market.hub.subscribers), settings.drain_seconds)
        if self._control is not None:
            self._control.drain()
        await close_clients(self._market.hub, settings.drain_seconds, hurry, self.http.exchange_status.tell_closing)
        self.http.stop_listening()
        deadline = time.monotonic() + settings.orders.ack_timeout_seconds
        # Cancels on disconnect come behind the orders that are under way, and before the producer is flushed.
        await self._orders.order_services.finish(settings.orders.ack_timeout_seconds)
        if self._control is not None:
            await self._control.close(max(0.0, deadline - time.monotonic()))
        await self._orders.entry.finish(max(0.0, deadline - time.monotonic()))
        await self._orders.log.close(max(0.0, deadline - time.monotonic()))
        await self._orders.finish_releases(max(0.0, deadline - time.monotonic()))
        # Handlers that just got their outcome write their answer in the next turns of the loop.
        await asyncio.sleep(0.05)
        self._beats.stop()
        self._loop_lag.stop()
        self._orders.topic_lifecycle.close()
        for task in self._tasks:
            task.cancel()
        await self._state.write_last()
        if self._exchange is not None:
            await self._exchange.end()
        closing = [self._state.close(), *(feed.close(CONSUMER_CLOSE_SECONDS) for feed in self._feeds)]
        if self._orders.reservations is not None:
            closing.append(self._orders.reservations.close(SERVICES_CLOSE_SECONDS))
        await asyncio.gather(*closing)
        await self._access.close()
        await self.http.close()
        self._market.missed_records.close()
        self._market.earlier_snapshots.close()
        self._bus.close()
        self._orders.order_services.audit.close()
        log.info("drained")


async def run(settings: Settings, worker: Worker, capacity: Capacity) -> int:
    """Serve until a signal, or the parent, says to stop. Returns the exit code."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    gateway = Gateway(settings, worker, capacity)
    hear_signals(worker, stop, hurry)
    try:
        await gateway.start()
    except SettingsError as error:
        # What only those can tell who use it; the file's and the environment's own rules were checked before.
        return _fail(str(error))
    except KafkaException as error:
        # librdkafka names the property, and never its value.
        return _fail(f"kafka: {error.args[0].str()}")
    GcTuning(loop.call_later).start()
    following = asyncio.create_task(follow_parent(worker, gateway.http, stop, hurry))
    await stop.wait()
    await gateway.drain(hurry)
    following.cancel()
    return 0


def _fail(text: str) -> int:
    print(f"gateway: {text}", file=sys.stderr)
    return 1


def start(settings: Settings, certificate: Certificate | None) -> int:
    """Bind, and serve in this process or in several. Returns the exit code."""
    keep_few_arenas()
    count = worker_count(settings.workers)
    settings, capacity = fit_to_file_limit(settings, count)
    try:
        listeners = listen(settings, count, certificate)
    except CannotListen as error:
        return _fail(str(error))

    def serve(worker: Worker) -> int:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(run(settings, worker, capacity))

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
        settings, warnings = load_settings(options.config, os.environ, CHECKS)
        certificate = Certificate.of(settings.tls)
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    set_up_logging(settings.log.level, form=settings.log.format)
    for warning in warnings:
        log.warning("%s", warning)
    if options.check:
        print("gateway: the settings are in order")
        return 0
    with demo_admin_token(with_demo_secret(settings)) as settings:
        return start(settings, certificate)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Everything has been closed in order. A client's call that still waits for a dead broker must not hold up the end.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
