"""What answers a connection: the servers, the passed-through account service, and what a process says of itself."""

from __future__ import annotations

import asyncio
import logging

from core.config.settings import Settings
from core.health import Health
from core.telemetry.metrics import ACROSS_WORKERS, Metrics
from handlers.connected_clients import ConnectedClients
from handlers.market_data import MarketData
from handlers.message_turns import TURN_SECONDS, MessageTurns
from handlers.problems import Context, Status
from handlers.server import Server
from process.drain import HANDSHAKE_SECONDS
from process.file_limit import Capacity
from process.worker_reports import build_reports
from process.workers import Worker
from services.accounts import Upstream
from wiring.access import Access
from wiring.accounts import AccountsRoom
from wiring.admin import build_admin
from wiring.bus import Bus
from wiring.control import ControlRoom, build_status
from wiring.market import REST_OF_A_SLICE, MarketRoom
from wiring.orders import OrdersRoom
from wiring.state import StateRoom

log = logging.getLogger("gateway")


class HttpRoom:
    """The listening side of one process."""

    def __init__(
        self,
        version: str,
        settings: Settings,
        worker: Worker,
        capacity: Capacity,
        metrics: Metrics,
        status: Status,
        access: Access,
        bus: Bus,
        market: MarketRoom,
        orders: OrdersRoom,
        state: StateRoom,
        accounts: AccountsRoom | None,
        control: ControlRoom | None,
        *,
        started_at: float,
    ) -> None:
        self._worker = worker
        certificate = worker.listeners.certificate
        self.exchange_status = exchange_status = build_status(market, control)
        self.health = Health(
            version,
            settings.kafka,
            metrics,
            bus.monitor,
            market.feed,
            orders.feed,
            orders.event_feed,
            orders.log,
            market.hub,
            orders.directory,
            orders.private,
            {
                "partitions": orders.topic_lifecycle,
                "jwks": access.key_fetcher,
                "redis": access.redis,
                "accounts": orders.release_worker,
                "account_topic": None if accounts is None else accounts.compacted,
                "control_topic": control,
                "tls": certificate,
            },
            state,
            accounts,
            control,
            is_draining=lambda: status.draining,
            started_at=started_at,
            status_listeners=lambda: exchange_status.listeners,
        )

        def refresh_gauges() -> None:
            self.health.refresh_gauges()
            if certificate is not None:
                metrics.certificate_days.labels("bind").set(certificate.days_left())

        self.reports = build_reports(worker, self.health.report, metrics.registry, refresh_gauges, ACROSS_WORKERS)
        self._upstream = Upstream(settings.accounts) if settings.accounts.url is not None else None
        context = Context(
            settings,
            metrics,
            status,
            access.admission,
            audit=orders.order_services.audit,
            message_turns=MessageTurns(lambda go_on: market.call_when_idle(go_on, TURN_SECONDS * REST_OF_A_SLICE)),
            clients=ConnectedClients(market.give_way),
        )
        self.server = Server(
            context,
            market.hub,
            orders.order_services,
            market.instruments,
            MarketData(market.market, market.epoch, market.give_way),
            self._upstream,
            None if accounts is None else accounts.known,
            exchange_status,
            health=self.reports.health,
            metrics=self.reports.metrics,
            is_ready=self.health.is_ready,
            most_connections=capacity.connections,
            metrics_sockets=worker.listeners.metrics,
            tls=None if certificate is None else certificate.context,
        )
        self.admin = build_admin(settings, worker, context, self.reports, control, market.market.find)

    def accept_on(self, slot: int) -> None:
        """Accept on the sockets of this slot."""
        self.server.accept_on(self._worker.listeners.slots[slot])

    def stop_accepting_on(self, slot: int) -> None:
        """Somebody else accepts on the sockets of this slot."""
        self.server.stop_accepting_on(self._worker.listeners.slots[slot])

    def stop_listening(self) -> None:
        """Accept no more, so that another process can have the address. Harmless when repeated."""
        self.server.close()
        if self.admin is not None:
            self.admin.close()
        self._worker.listeners.close()
        self._worker.tell_parent("left")

    async def ready(self) -> None:
        """Until traffic may come."""
        await self.health.ready()

    async def close(self) -> None:
        """End what connections there are, and what it keeps beside them."""
        if self._upstream is not None:
            self._upstream.close()
        await self.reports.close()
        try:
            closing = [self.server.close_all_connections()]
            if self.admin is not None:
                closing.append(self.admin.close_all_connections())
            await asyncio.wait_for(asyncio.gather(*closing), HANDSHAKE_SECONDS)
        except TimeoutError:
            log.warning("some connections did not end in time")
