"""The connections of this process, as operators see them: listed in pages, found by name or user, and closed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from core.errors import CloseCode

# Looked at before others have their turn: half a millisecond.
PIECE: Final = 500
# To close one takes as long as to look at so many.
COST_OF_AN_END: Final = 50
# Of the channels of one connection so many are named.
CHANNELS_NAMED: Final = 20
DISCONNECTED: Final = "disconnected by an operator"

Page = dict[str, Any]
GiveWay = Callable[[], Awaitable[None]]


class Client(Protocol):
    """One connection. `number`: in the order in which they came; `since_ms`: milliseconds since the Unix epoch."""

    number: int
    since_ms: int

    @property
    def user_id(self) -> str | None:
        """Who signed in."""

    def describe(self) -> dict[str, object]:
        """Its user, address, subscriptions, and bytes that wait for it."""

    def end(self, code: CloseCode, reason: str) -> None:
        """Close it."""


class PageQuery(NamedTuple):
    """Which connections: those behind a place (worker and number) in the order of workers and numbers, `limit` at most."""

    after: tuple[int, int]
    limit: int
    user_id: str | None = None

    def line(self) -> str:
        """As one line, for other workers."""
        return json.dumps(self._asdict())

    @classmethod
    def of_line(cls, line: str) -> PageQuery:
        """The query of such a line."""
        members = json.loads(line)
        return cls((members["after"][0], members["after"][1]), members["limit"], members["user_id"])


class ConnectedClients:
    """Those that are open. Each has a name that no other one has, in this process or any other."""

    def __init__(self, give_way: GiveWay | None = None, process: str | None = None) -> None:
        """`give_way` returns once others have had their turn. `process` is a name of this one."""
        self.give_way = give_way
        self._process = process or secrets.token_hex(4)
        self._open: dict[int, Client] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, client: Client) -> None:
        """It is open."""
        self._open[client.number] = client

    def discard(self, client: Client) -> None:
        """It is not any more. Harmless when repeated."""
        self._open.pop(client.number, None)

    def name_of(self, client: Client) -> str:
        """Its name for operators."""
        return f"{self._process}-{client.number}"

    async def close_client(self, name: str, before_ms: int) -> int:
        """Close the one of this name, if it is here and began before; how many were closed."""
        process, _, number = name.rpartition("-")
        if process != self._process or not (number.isascii() and number.isdecimal() and len(number) < 19):
            return 0
        client = self._open.get(int(number))
        return 0 if client is None else _end(client, before_ms)

    async def close_user(self, user_id: str, before_ms: int) -> int:
        """Close the user's that began before; how many were closed."""
        ended = looked_at = 0
        for number in list(self._open):
            client = self._open.get(number)
            if client is not None and client.user_id == user_id:
                ended += _end(client, before_ms)
                looked_at += COST_OF_AN_END
            looked_at += 1
            if looked_at >= PIECE and self.give_way is not None:
                looked_at = 0
                await self.give_way()
        return ended

    async def page(self, query: PageQuery, worker: int) -> Page:
        """One page of this process, which is this worker: `clients`, whether there are `more`, and how many are `open`."""
        first = query.after[1] if worker == query.after[0] else 0 if worker > query.after[0] else None
        found: list[dict[str, object]] = []
        numbers = [] if first is None else [number for number in self._open if number > first]
        for count, number in enumerate(numbers, 1):
            client = self._open.get(number)
            if client is not None and query.user_id in (None, client.user_id):
                if len(found) == query.limit:
                    return self._page(found, worker, is_whole=False)
                found.append(self._described(client, worker))
            if count % PIECE == 0 and self.give_way is not None:
                await self.give_way()
        return self._page(found, worker, is_whole=True)

    def _page(self, clients: list[dict[str, object]], worker: int, *, is_whole: bool) -> Page:
        return {"clients": clients, "more": not is_whole, "open": len(self._open)}

    def _described(self, client: Client, worker: int) -> dict[str, object]:
        return {
            "client": self.name_of(client),
            "place": f"{worker}.{client.number}",
            "since_ms": client.since_ms,
            **client.describe(),
        }


def _end(client: Client, before_ms: int) -> bool:
    if client.since_ms > before_ms:
        return False
    client.end(CloseCode.POLICY, DISCONNECTED)
    return True


def merged(pages: Mapping[int, Page], workers: int, limit: int) -> dict[str, object]:
    """One page of all workers; `next` is the place to go on behind, None: there is nothing more."""
    found: list[dict[str, Any]] = []
    has_more = False
    for worker in sorted(pages):
        clients, room = pages[worker]["clients"], limit - len(found)
        found += clients[:room]
        has_more = len(clients) > room or pages[worker]["more"]
        if has_more:
            break
    silent = [number for number in range(workers) if number not in pages]
    return {
        "clients": [{name: value for name, value in client.items() if name != "place"} for client in found],
        "next": found[-1]["place"] if has_more else None,
        "open": sum(page["open"] for page in pages.values()),
        **({"silent_workers": silent} if silent else {}),
    }
