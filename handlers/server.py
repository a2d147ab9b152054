"""The gateway's HTTP: the route tables of all rooms, the servers they are on, and the sockets these accept on."""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import handlers.amends
import handlers.balance
import handlers.candles
import handlers.console
import handlers.documents
import handlers.fills
import handlers.health
import handlers.market_data
import handlers.orders
import handlers.passthrough
import handlers.status
import handlers.timers
import handlers.websocket
from core.accounts.balances import KnownBalances
from core.channels.hub import Hub
from core.control.status_channel import StatusChannel
from core.market.quotes import ticker_text, top_of_book_text
from core.market.symbol_market import SymbolMarket
from core.messages.order_rules import OrderRules
from core.protocol.client_state import SessionRules
from core.protocol.connection_orders import OrderServices
from handlers.acceptor import Listener
from handlers.bodies import Application, NotFoundHandler
from handlers.http_connection import ANY_BODY_BYTES
from handlers.http_connection import Server as HttpServer
from handlers.market_data import MarketData
from handlers.passthrough import Upstream, passed_user
from handlers.problems import Context

# Of the book that is asked for once.
TOP_LEVELS = 5
# Connections to the address of /metrics.
MOST_SCRAPERS = 64

Routes = list[tuple[Any, ...]]


class Server:
    """Everything that answers a connection. Accepts on nothing until it is told to `accept_on` some sockets, but for `/metrics`."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        order_services: OrderServices,
        instruments: Callable[[], Mapping[str, object]],
        market_data: MarketData,
        upstream: Upstream | None,
        balances: KnownBalances | None,
        status: StatusChannel,
        *,
        health: Callable[[], Awaitable[dict[str, Any]]],
        metrics: Callable[[], Awaitable[bytes]],
        is_ready: Callable[[], bool],
        most_connections: int,
        metrics_sockets: Iterable[socket.socket],
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`health`, `metrics`, `instruments` make bodies; market data is written from `market_data`, `balances` are None where there is no account topic. `/metrics` is on `metrics_sockets` alone if there are any, and without the others' `tls`."""
        metrics_sockets = tuple(metrics_sockets)
        rules = order_services.amends.rules
        operators = handlers.health.routes(context, health, is_ready)
        metrics_routes = handlers.health.metrics_routes(context, metrics)
        application = _application(
            context,
            [
                *handlers.websocket.routes(
                    context,
                    hub,
                    _session_rules(context, hub, instruments, market_data.market.find, rules, order_services),
                    order_services,
                    status,
                ),
                *handlers.amends.routes(
                    context, order_services.entry, order_services.lookup, rules, order_services.amends
                ),
                *handlers.timers.routes(context, order_services, rules),
                *handlers.orders.routes(context, order_services.entry, order_services.lookup, rules, instruments),
                *handlers.fills.routes(context, order_services.entry, order_services.lookup, rules, market_data.epoch),
                *handlers.balance.routes(context, balances),
                *handlers.status.routes(context, status.status),
                *handlers.market_data.routes(context, market_data),
                *handlers.candles.routes(context, market_data),
                *_passed_through(context, upstream),
                *operators,
                *([] if metrics_sockets else metrics_routes),
                *handlers.documents.routes(context, rules.attributes),
                *handlers.console.routes(context),
            ],
        )
        self._server = HttpServer(application, max_body_size=ANY_BODY_BYTES)
        self._listener = Listener(
            self._server,
            most=most_connections,
            clients=lambda: len(hub.subscribers),
            on_refused=lambda slug: context.metrics.refusals.labels(slug).inc(),
            tls=tls,
        )
        metrics_server = HttpServer(_application(context, [*operators, *metrics_routes]), max_body_size=ANY_BODY_BYTES)
        self._metrics_listener = Listener(metrics_server, most=MOST_SCRAPERS, clients=lambda: 0)
        self._metrics_listener.accept_on(metrics_sockets)

    def accept_on(self, sockets: Iterable[socket.socket]) -> None:
        """Accept on these too."""
        self._listener.accept_on(sockets)

    def stop_accepting_on(self, sockets: Iterable[socket.socket]) -> None:
        """Accept no more on these, which stay open."""
        self._listener.stop_accepting_on(sockets)

    def close(self) -> None:
        """Accept nothing any more. Harmless when repeated; connections live on."""
        self._listener.close()
        self._metrics_listener.close()

    async def close_all_connections(self) -> None:
        """End the clients' connections."""
        await self._server.close_all_connections()


def _application(context: Context, routes: Routes) -> Application:
    return Application(
        routes,
        default_handler_class=NotFoundHandler,
        default_handler_args={"context": context},
        log_function=lambda _handler: None,
    )


def _passed_through(context: Context, upstream: Upstream | None) -> Routes:
    if upstream is None:
        return []
    return handlers.passthrough.routes(
        context,
        upstream,
        functools.partial(passed_user, context.admission),
        lambda handler: handler.take_login(),
    )


def _session_rules(
    context: Context,
    hub: Hub,
    instruments: Callable[[], Mapping[str, object]],
    find_market: Callable[[str], SymbolMarket | None],
    rules: OrderRules,
    order_services: OrderServices,
) -> SessionRules:
    settings = context.settings

    def quote(text: Callable[[SymbolMarket], str]) -> Callable[[str], str | None]:
        def of_symbol(symbol: str) -> str | None:
            market = find_market(symbol)
            return None if market is None else text(market)

        return of_symbol

    return SessionRules(
        max_subscriptions=settings.websocket.max_subscriptions,
        max_views=settings.websocket.max_views,
        instruments=instruments,
        is_listed=lambda symbol: not settings.instruments or symbol in rules.by_symbol,
        has_tick=lambda symbol: symbol in rules.by_symbol,
        open_views=hub.open_views,
        orders=rules,
        allows_anonymous=settings.auth.mode == "optional",
        has_balances=bool(settings.kafka.account_topic),
        find_order=order_services.directory.get,
        ticker=quote(ticker_text),
        top_of_book=quote(lambda market: top_of_book_text(market, TOP_LEVELS)),
        messages_per_second=int(settings.limits.requests_per_second),
    )
