"""A gateway of nothing but the pass-through, and a client that sees every header line of its answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import handlers.passthrough
from core.access.addresses import client_address
from core.config.settings import Accounts, Settings
from core.telemetry.metrics import Metrics
from handlers.bodies import BaseHandler
from handlers.problems import Context, Refusal, Status
from services.accounts import Upstream
from tests.handlers.wire import Connection, connected, serving
from tests.support.accounts import AccountService, account_service

LONG_SECONDS = 15.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class FakeAdmission:
    """Who is behind a trusted proxy, and nothing else."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self.trusted = tuple(ip_network(network) for network in trusted)

    def address_of(self, peer: str, forwarded_for: Iterable[str]) -> str:
        return client_address(peer, forwarded_for, self.trusted)


class Callbacks:
    """What the composition root passes in."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_shut = False

    async def user_of(self, handler: BaseHandler) -> str | None:
        token = handler.request.headers.get("Authorization", "")
        return token.removeprefix("Bearer good-") if token.startswith("Bearer good-") else None

    def admit(self, handler: BaseHandler) -> None:
        self.asked.append(handler.request.path)
        if self.is_shut:
            raise Refusal("too-many-requests", "too many logins", headers={"Retry-After": "7"})


class Answer:
    """An answer with every header line; names in lower case."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def get(self, name: str) -> list[str]:
        return [value for given, value in self.headers if given == name]

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to the gateway."""

    def __init__(self, connection: Connection, callbacks: Callbacks) -> None:
        self.connection = connection
        self.callbacks = callbacks

    async def ask(self, method: str, target: str, *lines: str, body: bytes = b"") -> Answer:
        """One request, with header lines as they are."""
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: exchange.example", *lines, *length, "", ""])
        return await self.exchange(head.encode("latin-1") + body, method)

    async def exchange(self, data: bytes, method: str = "GET") -> Answer:
        await self.connection.send(data)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        head = (await self.connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in head[1:-2]]
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        answer = Answer(int(head[0].split()[1]), headers, b"")
        if method != "HEAD" and answer.status not in (204, 304):
            [length] = answer.get("content-length") or ["0"]
            answer.body = await self.connection.reader.readexactly(int(length))
        return answer


@asynccontextmanager
async def gateway(
    url: str,
    *,
    trusted: Iterable[str] = (),
    origins: tuple[str, ...] = (),
    max_answer_bytes: int = 8 * 1024 * 1024,
) -> AsyncIterator[Client]:
    defaults = Settings()
    settings = replace(defaults, http=replace(defaults.http, allowed_origins=origins))
    context = Context(settings, Metrics(), Status(), FakeAdmission(trusted))  # type: ignore[arg-type]
    upstream = Upstream(Accounts(url, LONG_SECONDS, 8), max_answer_bytes)
    callbacks = Callbacks()
    routes = handlers.passthrough.routes(context, upstream, callbacks.user_of, callbacks.admit)
    try:
        async with serving(context, routes) as port, connected(port) as connection:
            yield Client(connection, callbacks)
    finally:
        upstream.close()


@asynccontextmanager
async def before_accounts(**changes: Any) -> AsyncIterator[tuple[Client, AccountService]]:
    async with account_service() as service, gateway(service.url, **changes) as client:
        yield client, service


def check_problem(answer: Answer, status: int, slug: str) -> None:
    assert answer.status == status
    assert answer.get("content-type") == ["application/problem+json"]
    assert answer.json()["type"] == f"urn:mexchange:problem:{slug}"
    assert [answer.json()["request_id"]] == answer.get("x-request-id")
