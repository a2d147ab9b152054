"""Traders' programs at random: they place orders of every kind, cancel in every way, vanish, and remember what they were told.

Several users, each with programs on REST and on WebSocket, on any of the instances. All run on one loop in a thread of its own, so
that a test can kill things and wait for counts meanwhile. Everything that they decide comes from one seed; when it comes about
is the machine's.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.order_clients import Lost, RestClient, SocketClient
from tests.integration.trading import pass_of

USERS = tuple(f"trader-{number}" for number in range(5))
# One for each partition, as librdkafka's partitioner has it.
SYMBOLS = ("BTC/EUR", "KCN/EUR", "ADA/EUR", "ETH/EUR")
# They touch: most orders rest, and some trade.
PRICES = {"bid": range(90, 101), "ask": range(100, 111)}
DEAREST = "120"
REST_PROGRAMS, SOCKET_PROGRAMS = 8, 5
PATIENCE_SECONDS = 4.0
DEADLINE_SECONDS = 60.0

NO_ANSWER = 0
# How WebSocket tells what REST has statuses for.
STATUS_OF_CODE = {10001: 422, 10002: 404, 10004: 503, 10005: 504}
ANSWERS = {"place": {202, 409, 422, 503, 504, NO_ANSWER}, "cancel": {202, 404, 409, 503, 504, NO_ANSWER}}


@dataclass(slots=True, eq=False)
class RandomOrder:
    """One order as its trader knows it."""

    user_id: str
    body: dict[str, str]
    statuses: list[int] = field(default_factory=list)
    order_id: str | None = None

    @property
    def client_order_id(self) -> str:
        return self.body["client_order_id"]

    @property
    def is_unknown(self) -> bool:
        """Its trader was told of an attempt that nobody knows what became of it, or was told nothing."""
        return bool({504, NO_ANSWER} & set(self.statuses))


class Traders:
    """At work until told to stop. A context manager.

    Args:
        seed: of all that they decide.
        ports: of the instances; the test changes them as instances come and go.
        pause_seconds: what each leaves between two requests.
    """

    def __init__(self, seed: str, ports: Sequence[int], pause_seconds: float) -> None:
        self.ports = list(ports)
        self.random = random.Random(seed)
        self.pause_seconds = pause_seconds
        self.tokens = {user_id: pass_of(user_id) for user_id in USERS}
        self.orders: list[RandomOrder] = []
        self.counts: Counter[tuple[str, int]] = Counter()
        self.oddities: list[str] = []
        self.stopping = False
        self._news = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traders")

    def __enter__(self) -> Traders:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Begin nothing more, and wait until everybody has gone home."""
        self.stopping = True
        self._thread.join()
        if self._failure is not None:
            raise AssertionError("the traders broke down") from self._failure

    def wait_more(self, count: int, what: str, *statuses: int) -> None:
        """Wait for so many more answers to `place` or `cancel` with one of these statuses."""

        def counted() -> int:
            return sum(self.counts[what, status] for status in statuses)

        with self._news:
            before = counted()
            self._news.wait_for(
                lambda: counted() >= before + count or not self._thread.is_alive(), timeout=DEADLINE_SECONDS
            )
            assert counted() >= before + count, f"not {count} more {what} {statuses}: {self.counts} {self._failure!r}"

    def __str__(self) -> str:
        told = ", ".join(f"{what} {status or 'none'}: {count}" for (what, status), count in sorted(self.counts.items()))
        return f"{len(self.orders)} orders; {told}"

    def note(self, what: str, status: int, body: object) -> None:
        """One answer."""
        with self._news:
            if status not in ANSWERS[what]:
                self.oddities.append(f"{what}: {status} {body}")
            self.counts[what, status] += 1
            self._news.notify_all()

    def _run(self) -> None:
        try:
            asyncio.run(self._trade())
        except BaseException as error:
            self._failure = error
        with self._news:
            self._news.notify_all()

    async def _trade(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(REST_PROGRAMS + SOCKET_PROGRAMS):
                kind = _RestProgram if number < REST_PROGRAMS else _SocketProgram
                group.create_task(kind(self, USERS[number % len(USERS)], f"p{number}").run())
        await asyncio.sleep(0)  # so that the streams that were closed last are gone before the loop is


class _Program:
    def __init__(self, traders: Traders, user_id: str, name: str) -> None:
        self.traders = traders
        self.user_id = user_id
        self._name = name
        self._mine: list[RandomOrder] = []
        self._count = 0
        # Of its own, so that what it decides does not hang on when others are served.
        self._random = random.Random(f"{traders.random.random()} {name}")

    async def run(self) -> None:
        steps: list[tuple[int, Callable[[], Any]]] = [
            (60, self._place),
            (20, self._cancel_by_id),
            (10, self._cancel_by_name),
            (1, self._cancel_all),
            (3, self._vanish),
        ]
        weights, actions = [weight for weight, _ in steps], [action for _, action in steps]
        try:
            while not self.traders.stopping:
                await self._random.choices(actions, weights)[0]()
                await asyncio.sleep(self.traders.pause_seconds * (0.5 + self._random.random()))
        finally:
            await self.leave()

    async def _place(self) -> None:
        self._count += 1
        order = RandomOrder(self.user_id, self._body())
        self._mine.append(order)
        self.traders.orders.append(order)
        while True:
            status, answer = await self._ask("place", order.body)
            order.statuses.append(status)
            order.order_id = answer.get("order_id") or order.order_id
            if status in (202, 409, 422) or self._random.random() < (0.2 if status != 503 else 0.5):
                break
            await asyncio.sleep(self.traders.pause_seconds * (4 if status == 503 else 1))

    def _body(self) -> dict[str, str]:
        pick = self._random.choice
        body = {
            "symbol": pick(SYMBOLS),
            "side": pick(("bid", "ask")),
            "client_order_id": f"{self._name}-{self._count}",
        }
        quantity = f"{self._random.randrange(1, 400) / 100:.2f}"
        if self._random.random() < 0.85:
            price = f"{pick(PRICES[body['side']])}.{self._random.randrange(100):02}"
            kind = {"order_type": "limit", "price": price, "quantity": quantity}
            return {**body, **kind, "time_in_force": pick(("GTC", "GTC", "GTC", "GTC", "IOC", "FOK"))}
        if body["side"] == "bid" and self._random.random() < 0.5:
            return {**body, "order_type": "market", "quote_amount": f"{self._random.randrange(50, 500)}.50"}
        more = {"max_slippage_price": DEAREST} if body["side"] == "bid" else {}
        return {**body, "order_type": "market", "quantity": quantity, **more}

    async def _cancel_by_id(self) -> None:
        if placed := [order for order in self._mine if order.order_id is not None]:
            order = self._random.choice(placed)
            await self._cancel(order, {"order_id": str(order.order_id)})

    async def _cancel_by_name(self) -> None:
        if self._mine:
            order = self._random.choice(self._mine[-10:])
            await self._cancel(order, {"client_order_id": order.client_order_id})

    async def _cancel(self, order: RandomOrder, request: dict[str, str]) -> None:
        status, _ = await self._ask("cancel", request)
        if status in (404, 409):
            # Closed, or never placed: most of the time nobody asks again.
            self._mine = [one for one in self._mine if one is not order or self._random.random() < 0.2]

    async def _cancel_all(self) -> None:
        await self._ask("cancel", {"symbol": self._random.choice(SYMBOLS)}, of_all=True)

    async def _vanish(self) -> None:
        """End the connection, in the middle of whatever happens."""
        await self.leave()

    async def _ask(self, what: str, body: dict[str, str], of_all: bool = False) -> tuple[int, dict[str, Any]]:
        status, answer = NO_ANSWER, {}
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                status, answer = await self.request(what, body, of_all)
        except (TimeoutError, Lost):
            await self.leave()
        self.traders.note(what, status, answer)
        return status, answer

    def _somewhere(self) -> int:
        if not self.traders.ports:
            raise Lost("there is no instance")
        return self._random.choice(self.traders.ports)

    async def request(self, what: str, body: dict[str, str], of_all: bool) -> tuple[int, dict[str, Any]]:
        """Status and body as over REST. Raises `Lost`."""
        raise NotImplementedError

    async def leave(self) -> None:
        """Close the connection, if there is one."""
        raise NotImplementedError


class _RestProgram(_Program):
    _client: RestClient | None = None

    async def request(self, what: str, body: dict[str, str], of_all: bool) -> tuple[int, dict[str, Any]]:
        if self._client is None or not self._client.is_open or self._random.random() < 0.1:
            await self.leave()
            self._client = RestClient()
            await self._client.connect(self._somewhere())
        path = "/api/order" if what == "place" else "/api/order/cancel_all" if of_all else "/api/order/cancel"
        return await self._client.request("POST", path, self.traders.tokens[self.user_id], body)

    async def leave(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class _SocketProgram(_Program):
    """Its open orders are cancelled when its connection ends."""

    _client: SocketClient | None = None

    async def request(self, what: str, body: dict[str, str], of_all: bool) -> tuple[int, dict[str, Any]]:
        if self._client is None or not self._client.is_open:
            await self.leave()
            self._client = SocketClient()
            await self._client.connect(self._somewhere(), self.traders.tokens[self.user_id])
            await self._client.call("private/set_cancel_on_disconnect", {"enabled": True})
        method = "place_order" if what == "place" else "cancel_all" if of_all else "cancel_order"
        told = await self._client.call(f"private/{method}", body)
        if "result" in told:
            return 202, told["result"]
        error = told["error"]
        return STATUS_OF_CODE.get(error["code"], error["code"]), error.get("data", {})

    async def leave(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()
