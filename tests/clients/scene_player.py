"""Plays the program's part of a scene (clients/conformance/README.md) with the client for Python."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import httpx
from mexchange import (
    Ack,
    Amend,
    BadRequest,
    Cancel,
    CancelFailed,
    Event,
    Exchange,
    Forbidden,
    Gap,
    InvalidFields,
    MExchangeError,
    NoSuchMethod,
    NotAuthorised,
    OrderRefused,
    OutcomeUnknown,
    Place,
    TooManyRequests,
    Unavailable,
)

from clients.conformance.server import ScriptedServer

# Ends only a wait for nothing.
STEP_SECONDS = 30.0

NAMES: dict[type[Exception], str] = {
    InvalidFields: "bad_params",
    NoSuchMethod: "no_such_method",
    NotAuthorised: "not_authorised",
    OrderRefused: "order_refused",
    CancelFailed: "cancel_failed",
    TooManyRequests: "too_many_requests",
    Forbidden: "insufficient_scope",
    Unavailable: "bus_unavailable",
    OutcomeUnknown: "outcome_unknown",
}


def name_of(error: MExchangeError) -> str:
    """The name of the contract's code."""
    return "too_big" if isinstance(error, BadRequest) and error.kind == 1009 else NAMES[type(error)]


def seen(item: Any) -> Any:
    """An item as a scene has it."""
    match item:
        case Gap():
            return {"gap": True}
        case Event():
            return item.body
        case Ack() | tuple():
            return {**item._asdict(), "raises": None}
        case MExchangeError():
            return {"raises": name_of(item)}
        case list():
            return [seen(one) for one in item]
    return {name: getattr(item, name) for name in item.__slots__}


def agrees(wanted: Any, told: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(told, Mapping) and all(
            name in told and agrees(one, told[name]) for name, one in wanted.items()
        )
    if isinstance(wanted, list):
        return len(wanted) == len(told) and all(map(agrees, wanted, told))
    if isinstance(told, Decimal):
        try:
            return Decimal(wanted) == told
        except InvalidOperation:
            return False
    return bool(wanted == told) and type(wanted) is type(told)


class Player:
    """One program: its exchange, and what it listens to. What another client does in its own way is overridden."""

    errors: type[Exception] = MExchangeError

    def __init__(self, exchange: Any, url: str) -> None:
        self._exchange = exchange
        self._url = url
        self._open: dict[str, Any] = {}

    def listen(self, kind: str, **given: Any) -> Any:
        return getattr(self._exchange, kind)(**given)

    def seen(self, item: Any) -> Any:
        """An item, an answer or an error as a scene has it."""
        return seen(item)

    def call(self, method: str, given: Any, **more: Any) -> Awaitable[Any]:
        if isinstance(given, list):
            kinds = {"place": Place, "cancel": Cancel, "amend": Amend}
            commands = [kinds[kind](**terms) for one in given for kind, terms in one.items()]
            return self._exchange.batch(commands, **more)  # type: ignore[no-any-return]
        return getattr(self._exchange, method)(**given, **more)  # type: ignore[no-any-return]

    async def play(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            try:
                async with asyncio.timeout(STEP_SECONDS):
                    await self._play(step)
            except TimeoutError:
                raise AssertionError(f"not within {STEP_SECONDS} s: {step}") from None

    async def _play(self, step: dict[str, Any]) -> None:
        match step:
            case {"open": kind, "as": name, **given}:
                self._open[name] = self.listen(kind, **given)
            case {"next": name, "raises": error}:
                try:
                    item = await anext(self._open[name])
                except self.errors as raised:
                    assert self.seen(raised)["raises"] == error
                else:
                    raise AssertionError(f"{item} instead of {error}")
            case {"next": name, "is": wanted}:
                item = await anext(self._open[name])
                assert agrees(wanted, self.seen(item)), (wanted, item)
            case {"book": name, "becomes": wanted}:
                book = self._open[name]
                while not agrees(wanted, {"bids": book.bids, "asks": book.asks, "stale": book.stale}):
                    await book.changed()
            case {"call": method, "with": given, **rest}:
                await self._call(method, given, rest)
            case {"mark": name}:
                async with httpx.AsyncClient(verify=False) as client:  # of http: nobody to be trusted is read
                    await client.get(f"{self._url}/mark/{name}")
            case _:
                raise ValueError(f"no step of a scene: {step}")

    async def _call(self, method: str, given: Any, rest: dict[str, Any]) -> None:
        more = {"within": rest["within"]} if "within" in rest else {}
        try:
            told = self.seen(await self.call(method, given, **more))
        except self.errors as raised:
            told = self.seen(raised)
        wanted = rest["gives"] if "gives" in rest else {"raises": rest["raises"]}
        assert agrees(wanted, told), (wanted, told)


async def play(scene: Mapping[str, Any]) -> None:
    """Raises AssertionError for whatever is not as the scene wants it, on either side."""
    tokens = [*scene.get("tokens", [])]

    async def token() -> str:
        return tokens.pop(0) if len(tokens) > 1 else tokens[0]

    async with ScriptedServer(scene) as server:
        exchange = Exchange(
            server.url, token=token if tokens else None, random=lambda: 0.0, bound=scene.get("bound", 1000)
        )
        try:
            async with exchange:
                await Player(exchange, server.url).play(scene["program"])
                await server.settled()
        except Exception as error:
            raise AssertionError(f"{error!r}; the gateway's side: {server.verdict()}") from error
        assert server.verdict() == []
