"""The operators' address: its routes, its page, and the sockets it accepts on."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import handlers.admin
from handlers.acceptor import Listener
from handlers.admin import Operations
from handlers.bodies import Application, BaseHandler, NotFoundHandler
from handlers.console import CONSOLE, PAGE_HEADERS, ConsoleHandler
from handlers.documents import DOCS, DocumentHandler
from handlers.http_connection import ANY_BODY_BYTES
from handlers.http_connection import Server as HttpServer
from handlers.problems import Context

# Connections to this address.
MOST_OPERATORS = 64

PAGE = CONSOLE.parent / "operators"


class OperatorsPageHandler(ConsoleHandler):
    """One file of the operators' page, of which nothing is kept."""

    def set_extra_headers(self, path: str) -> None:
        """As the traders' page, but for that."""
        for name, value in {**PAGE_HEADERS, "Cache-Control": "no-store"}.items():
            self.set_header(name, value)


class ToPageHandler(BaseHandler):
    """`/` and `/admin`, for whoever types an address."""

    def get(self) -> None:
        """On to the page."""
        self.redirect("/admin/")

    head = get


def page_routes(context: Context) -> list[tuple[Any, ...]]:
    """The page, and what it shares with the traders'."""
    page = {"context": context, "path": str(PAGE)}
    return [
        (r"/(?:admin)?", ToPageHandler, {"context": context}),
        (r"/admin/()", OperatorsPageHandler, {**page, "default_filename": "index.html"}),
        (r"/admin/page/(.+)", OperatorsPageHandler, page),
        (r"/console/((?:console\.css|dom\.js|favicon\.svg))", OperatorsPageHandler, {**page, "path": str(CONSOLE)}),
    ]


def document_routes(context: Context) -> list[tuple[Any, ...]]:
    """What this address can be asked, for machines. Raises `OSError` where it is missing."""
    document = (DOCS / "openapi-admin.json").read_bytes()
    return [(r"/admin/openapi\.json", DocumentHandler, {"context": context, "document": document})]


class AdminServer:
    """Everything that answers an operator."""

    def __init__(self, context: Context, operations: Operations, sockets: Iterable[socket.socket]) -> None:
        """Accepts on the sockets."""
        # Those origins are of the traders' pages.
        http = replace(context.settings.http, allowed_origins=())
        context = replace(context, settings=replace(context.settings, http=http))
        application = Application(
            [
                *handlers.admin.routes(context, operations),
                *document_routes(context),
                *page_routes(context),
            ],
            default_handler_class=NotFoundHandler,
            default_handler_args={"context": context},
            log_function=lambda _handler: None,
        )
        self._server = HttpServer(application, max_body_size=ANY_BODY_BYTES)
        self._listener = Listener(
            self._server,
            most=MOST_OPERATORS,
            clients=lambda: 0,
            on_refused=lambda slug: context.metrics.refusals.labels(slug).inc(),
        )
        self._listener.accept_on(sockets)

    def close(self) -> None:
        """Accept nothing any more. Harmless when repeated; connections live on."""
        self._listener.close()

    async def close_all_connections(self) -> None:
        """End the operators' connections."""
        await self._server.close_all_connections()
