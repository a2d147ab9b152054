"""The gateway's own fan-out, without Kafka: pump, market, hub, outbox, `/ws`, fed with records that are made here.

`python -m bench.fanout.ours COUNTER TEMPLATE [--deflate] [--candles]`, told as bench/peers/ticks.py says. With `--candles` each event that
it is told to make is ten fills, and the channel of candles says so after each tick, and not only four times a second.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import handlers.websocket
from bench.peers.ticks import Ticker
from bench.support.records import FILLS_A_TICK, snapshot
from core.access.admission import Admission, LocalTaker
from core.access.identity import Identity
from core.access.limits import Bucket, Limiter, Policy
from core.access.penalties import Penalties
from core.channels import names
from core.channels.hub import Hub
from core.config.settings import Settings
from core.control.exchange_status import ExchangeStatus
from core.control.status_channel import StatusChannel
from core.market.market import Market
from core.messages.feed_record import Record
from core.messages.order_rules import OrderRules
from core.orders.private_feed import PrivateFeed
from core.protocol.client_state import SessionRules
from core.protocol.connection_orders import OrderServices
from core.pump import Pump
from core.telemetry.metrics import Metrics
from handlers.acceptor import Listener
from handlers.http_connection import ANY_BODY_BYTES, MAX_HEAD_BYTES
from handlers.problems import Context, Status
from process.gc_tuning import GcTuning
from services.jwks import Authenticator

SYMBOL = "KCN/EUR"
PARTITION = 0


class Source:
    """The feed and the order log of a gateway that has no bus."""

    needs_beats = False

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._offset = 0

    def put(self, values: list[bytes]) -> None:
        """What the next drain brings."""
        moment_ms = time.time_ns() // 1_000_000
        for value in values:
            self.records.append(Record(PARTITION, self._offset, moment_ms, value, True))
            self._offset += 1

    def drain(self) -> tuple[list[Record], list[int], bool]:
        """As `core.messages.feed_record.RecordFeed`."""
        records, self.records = self.records, []
        return records, [], False

    def serve(self, partitions: list[int]) -> None:
        """As `core.messages.feed_record.RecordFeed`: there is no warm-up."""

    def poll(self) -> None:
        """As `core.pump.Acknowledgements`."""


def admission(settings: Settings) -> Admission:
    """Everybody may, as often as they like: limits are not what is measured."""

    def free(name: str) -> Policy:
        return Policy(name, 0, 1)

    return Admission(
        authenticator=Authenticator(Identity(settings.auth, None), None),
        allows_anonymous=True,
        orders=LocalTaker(Limiter(free("orders"))),
        cancels=LocalTaker(Limiter(free("cancels"))),
        connects=Bucket(free("connects")),
        address_connects=Limiter(free("connects")),
        address_requests=Limiter(free("requests")),
        address_logins=Limiter(free("logins")),
        messages=free("requests"),
        penalties=Penalties(0),
        trusts_addresses=False,
        trusted_proxies=(),
    )


def build(deflate: bool) -> tuple[Application, Callable[[list[bytes]], None], Hub]:
    """The route, what publishes on it, and the hub."""
    defaults = Settings()
    settings = replace(defaults, websocket=replace(defaults.websocket, compression=deflate))
    metrics, source = Metrics(), Source()
    market = Market(
        on_poisoned=lambda poison, _partition, _offset: sys.exit(f"ours: {poison}"),
        on_event=lambda event, _partition, _offset, _time_ms: metrics.count_event(event.type),
        on_stale=lambda _symbol, _cause: None,
        history_records=settings.history.records,
        history_seconds=settings.history.seconds,
    )
    hub = Hub(market, lambda: "bench.1", time.monotonic, metrics)
    loop = asyncio.get_running_loop()

    def again() -> None:
        loop.call_soon(pump.beat)

    pump = Pump(
        source, source, market, hub, metrics,
        poll_interval_ms=settings.kafka.poll_interval_ms,
        idle_interval_ms=settings.kafka.idle_interval_ms,
        again=again,
    )  # fmt: skip

    def publish(events: list[bytes]) -> None:
        source.put(events)
        pump.beat()

    market.partitions.begin(PARTITION, 0)
    hub.partition_changes.serve([PARTITION])
    publish([snapshot(SYMBOL)])
    rules = SessionRules(
        max_subscriptions=settings.websocket.max_subscriptions,
        max_views=settings.websocket.max_views,
        instruments=lambda: {"instruments": []},
        is_listed=lambda _symbol: True,
        has_tick=lambda _symbol: False,
        open_views=hub.open_views,
        orders=OrderRules((), None),
        allows_anonymous=True,
    )
    # Nobody orders here.
    nothing: Any = None
    context = Context(settings, metrics, Status(), admission(settings))
    private = PrivateFeed(hub.fanout.send, lambda _user_id: (), cast(Any, nothing))
    order_services = OrderServices(nothing, nothing, private, nothing, context.admission, nothing, nothing, nothing)
    status = StatusChannel(hub.fanout.send, ExchangeStatus({}, {}, lambda: None))
    routes = handlers.websocket.routes(context, hub, rules, order_services, status)
    return Application(routes, log_function=lambda _handler: None), publish, hub


def multiplied(publish: Callable[[list[bytes]], None]) -> Callable[[list[bytes]], None]:
    """Ten of each event in one tick."""

    def many(events: list[bytes]) -> None:
        publish([event for event in events for _ in range(FILLS_A_TICK)])

    return many


async def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.WARNING)
    GcTuning(asyncio.get_running_loop().call_later).start()
    application, publish, hub = build("--deflate" in sys.argv[3:])
    if "--candles" in sys.argv[3:]:
        names.CANDLES_EVERY_MS = 0
        publish = multiplied(publish)
    [socket] = bind_sockets(0, "127.0.0.1", backlog=1024)
    server = HTTPServer(application, max_body_size=ANY_BODY_BYTES, max_header_size=MAX_HEAD_BYTES)
    # The gateway's own, as it is what says how much the kernel holds for a connection.
    Listener(server, most=1 << 20, clients=lambda: 0).accept_on([socket])
    await Ticker(publish, lambda: len(hub.subscribers)).serve(socket.getsockname()[1])


if __name__ == "__main__":
    asyncio.run(main())
