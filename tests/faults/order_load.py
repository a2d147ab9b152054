"""Traders' programs that place orders until told to stop, over REST and WebSocket, and remember every word they were told.

They do what the contract lets a trader do: an order of unknown outcome (504, or no answer at all) is placed again under
its client_order_id until it is accepted; one that was certainly not written (503) is given up or placed again. All of them
run on one loop in a thread of its own, so that a test can kill things and wait for counts meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.core.tokens import token
from tests.faults.order_clients import Lost, RestClient, SocketClient

# What a busy machine may add to the gateway's own deadline.
SLACK_SECONDS = 15.0
# After the last fault has been made good, an order has to come to an end within this.
SETTLE_SECONDS = 60.0
REST_CLIENTS, SOCKETS, IN_FLIGHT_PER_SOCKET = 40, 4, 6
USERS = 8
# Two for each partition, as librdkafka's partitioner has it.
SYMBOLS = tuple(f"{base}/EUR" for base in ("BTC", "KCN", "ADA", "ETH", "DOT", "LTC", "ETC", "XRP"))
# As patient as the answers ask for would take minutes; a program that is not patient at all floods.
PAUSE_AFTER_UNKNOWN_SECONDS = 0.1
PAUSE_AFTER_REFUSED_SECONDS = 0.4

NO_ANSWER = 0
LATE = -1
# How WebSocket tells what REST has statuses for.
STATUS_OF_CODE = {10004: 503, 10005: 504}


@dataclass(frozen=True, slots=True)
class Told:
    """One attempt at an order. Times are seconds since the Unix epoch, by the clock that the gateway stamps commands with."""

    instance: int
    status: int
    order_id: str | None
    duplicate: bool
    began: float
    ended: float
    waited_seconds: float
    body: object = None


@dataclass(slots=True, eq=False)
class ClientOrder:
    """One order as its trader knows it."""

    user_id: str
    client_order_id: str
    symbol: str
    price: str
    quantity: str
    gives_up: bool  # once it is told that it was certainly not written
    told: list[Told] = field(default_factory=list)

    @property
    def body(self) -> dict[str, str]:
        return {
            "symbol": self.symbol,
            "side": "bid",
            "order_type": "limit",
            "price": self.price,
            "quantity": self.quantity,
            "client_order_id": self.client_order_id,
        }

    @property
    def statuses(self) -> list[int]:
        return [one.status for one in self.told]

    @property
    def is_accepted(self) -> bool:
        return 202 in self.statuses

    @property
    def is_settled(self) -> bool:
        """Its trader has nothing left to ask."""
        return self.is_accepted or (self.gives_up and bool(self.told) and set(self.statuses) == {503})


class Load:
    """Traders at work on the first of some instances, and on the next one when that is gone. A context manager.

    Args:
        ports: of the instances.
        secret: what tokens are signed with.
        ack_timeout_seconds: the gateway's setting; an answer that comes later than that and `SLACK_SECONDS` is `LATE`.
        at_most: orders; no more are begun, whatever happens.
        always_again: also what was certainly not written is placed again, by everybody; else by every second trader.
        pause_seconds: what a trader leaves between an order that was accepted and the next: a long story costs less so.
    """

    def __init__(
        self,
        ports: Sequence[int],
        secret: str,
        *,
        ack_timeout_seconds: float,
        at_most: int = 20_000,
        always_again: bool = False,
        pause_seconds: float = 0.0,
    ) -> None:
        self.pause_seconds = pause_seconds
        self._ports = list(ports)
        self._patience_seconds = ack_timeout_seconds + SLACK_SECONDS
        self._at_most = at_most
        self._always_again = always_again
        expires = time.time() + 3600
        self.tokens = {f"user-{number}": token(secret, sub=f"user-{number}", exp=expires) for number in range(USERS)}
        self.orders: list[ClientOrder] = []
        self.counts: Counter[int] = Counter()
        self.close_codes: Counter[int | None] = Counter()
        self._stopping = False
        self._settle_until = float("inf")
        self._news = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # Of a test that failed nobody waits for what is open.
        if error[0] is not None:
            self._settle_until = 0.0
        self.stop()

    @property
    def answers(self) -> int:
        """How many answers there were, of whichever kind."""
        return sum(self.counts.values())

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
        """Wait for something that depends on answers; AssertionError with the counts if it does not come."""
        with self._news:
            came = self._news.wait_for(lambda: condition() or not self._thread.is_alive(), seconds)
            assert came and condition(), f"not within {seconds:g} s: {what}; {self.counts} {self._failure!r}"

    def wait_more(self, count: int, status: int | None = None, seconds: float = 90.0) -> None:
        """Wait for so many more answers, with this status if one is given."""

        def counted() -> int:
            return self.answers if status is None else self.counts[status]

        before = counted()
        self.wait(lambda: counted() >= before + count, f"{count} more answers ({status or 'any'})", seconds)

    def stop(self) -> None:
        """Begin no more orders, and wait until the trader of each one has nothing left to ask."""
        if not self._stopping:
            self._settle_until = min(self._settle_until, time.monotonic() + SETTLE_SECONDS)
            self._stopping = True
        self._thread.join()
        if self._failure is not None:
            raise AssertionError("the load broke down") from self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._trade())
        except BaseException as error:
            self._failure = error
        with self._news:
            self._news.notify_all()

    async def _trade(self) -> None:
        users = sorted(self.tokens)
        sockets = [_SharedSocket(self, users[number % USERS]) for number in range(SOCKETS)]
        async with asyncio.TaskGroup() as group:
            for number in range(REST_CLIENTS):
                group.create_task(_RestTrader(self, users[number % USERS], f"r{number}").run())
            for number, shared in enumerate(sockets):
                for lane in range(IN_FLIGHT_PER_SOCKET):
                    group.create_task(_SocketTrader(self, shared, f"s{number}-{lane}").run())
        for shared in sockets:
            await shared.client.close()
        await asyncio.sleep(0)  # so that the streams that were closed last are gone before the loop is

    def begin(self, trader: str, user_id: str, number: int) -> ClientOrder | None:
        """The next order of a trader; None when it is time to go home."""
        if self._stopping or len(self.orders) >= self._at_most:
            return None
        count = len(self.orders)
        gives_up = not self._always_again and number % 2 == 0
        order = ClientOrder(
            user_id, f"{trader}-{number}", SYMBOLS[count % len(SYMBOLS)], f"{1 + count}.50", f"0.{1 + number}", gives_up
        )
        self.orders.append(order)
        return order

    def note(self, order: ClientOrder, told: Told) -> None:
        with self._news:
            order.told.append(told)
            self.counts[told.status] += 1
            self._news.notify_all()

    def is_over(self) -> bool:
        """Whether there is no more time to settle what is open."""
        return time.monotonic() > self._settle_until

    def port(self, instance: int) -> int:
        return self._ports[instance]

    def after(self, instance: int) -> int:
        return min(instance + 1, len(self._ports) - 1)

    async def within_patience(self, answer: Any) -> Any:
        """The answer, or TimeoutError if that comes too late."""
        async with asyncio.timeout(self._patience_seconds):
            return await answer


class _Trader:
    """One order after the other, and now and then again those that are not settled yet."""

    def __init__(self, load: Load, user_id: str, name: str) -> None:
        self._load = load
        self._user_id = user_id
        self._name = name
        self._instance = 0

    async def run(self) -> None:
        number = 0
        unsettled: deque[ClientOrder] = deque()
        try:
            while True:
                order = self._load.begin(self._name, self._user_id, number)
                number += 1
                if order is not None:
                    unsettled.append(order)
                elif self._load.is_over():
                    break
                # A new one, and one of those that are open, so that neither waits for the other.
                for _ in range(min(2, len(unsettled))):
                    order = unsettled.pop()
                    await self._try(order)
                    if not order.is_settled:
                        unsettled.appendleft(order)
                if order is None and not unsettled:
                    break
        finally:
            self.close()

    async def _try(self, order: ClientOrder) -> None:
        if await self._connected():
            await self._attempt(order)
        else:
            await asyncio.sleep(PAUSE_AFTER_UNKNOWN_SECONDS)

    async def _attempt(self, order: ClientOrder) -> None:
        instance, began, started = self._instance, time.time(), time.monotonic()
        status, body = NO_ANSWER, None
        try:
            status, body = await self._load.within_patience(self.place(order))
        except TimeoutError:
            status = LATE
        except Lost:
            pass
        if status <= 0:
            self.close()
        told = body or {}
        self._load.note(
            order,
            Told(
                instance,
                status,
                told.get("order_id"),
                told.get("duplicate", False),
                began,
                time.time(),
                time.monotonic() - started,
                body if status not in (202, 503, 504) else None,
            ),
        )
        if status == 503:
            await asyncio.sleep(PAUSE_AFTER_REFUSED_SECONDS)
        else:
            await asyncio.sleep(PAUSE_AFTER_UNKNOWN_SECONDS if status != 202 else self._load.pause_seconds)

    async def _connected(self) -> bool:
        raise NotImplementedError

    async def place(self, order: ClientOrder) -> tuple[int, Any]:
        """Status and body as over REST. Raises `Lost`."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _RestTrader(_Trader):
    def __init__(self, load: Load, user_id: str, name: str) -> None:
        super().__init__(load, user_id, name)
        self._client: RestClient | None = None
        self._has_connected = False

    async def _connected(self) -> bool:
        if self._client is not None and self._client.is_open:
            return True
        self.close()
        if self._has_connected:
            # It was here and has gone: to the next one.
            self._instance, self._has_connected = self._load.after(self._instance), False
        client = RestClient()
        try:
            await client.connect(self._load.port(self._instance))
        except Lost:
            self._instance = self._load.after(self._instance)
            return False
        self._client, self._has_connected = client, True
        return True

    async def place(self, order: ClientOrder) -> tuple[int, Any]:
        assert self._client is not None
        return await self._client.request("POST", "/api/order", self._load.tokens[order.user_id], order.body)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class _SharedSocket:
    """The connection of several traders of one user."""

    def __init__(self, load: Load, user_id: str) -> None:
        self._load = load
        self.user_id = user_id
        self.client = SocketClient()
        self.instance = 0
        self._has_connected = False
        self._lock = asyncio.Lock()

    async def connected(self) -> bool:
        async with self._lock:
            if self.client.is_open:
                return True
            if self._has_connected:
                self._load.close_codes[self.client.close_code] += 1
                self.instance, self._has_connected = self._load.after(self.instance), False
            self.client = SocketClient()
            try:
                await self.client.connect(self._load.port(self.instance), self._load.tokens[self.user_id])
            except Lost:
                self.instance = self._load.after(self.instance)
                return False
            self._has_connected = True
            return True


class _SocketTrader(_Trader):
    def __init__(self, load: Load, shared: _SharedSocket, name: str) -> None:
        super().__init__(load, shared.user_id, name)
        self._shared = shared

    async def _connected(self) -> bool:
        is_connected = await self._shared.connected()
        self._instance = self._shared.instance
        return is_connected

    async def place(self, order: ClientOrder) -> tuple[int, Any]:
        told = await self._shared.client.call("private/place_order", order.body)
        if "result" in told:
            return 202, told["result"]
        error = told["error"]
        return STATUS_OF_CODE.get(error["code"], error["code"]), error.get("data", error)

    def close(self) -> None:
        """The others go on; the last one out leaves it to the end of the loop."""


async def _look_up_some(client: RestClient, orders: Iterator[ClientOrder], load: Load, until: float) -> list[str]:
    missing = []
    for order in orders:
        order_id = next(one.order_id for one in order.told if one.status == 202)
        while True:
            status, body = await client.request("GET", f"/api/order/{order_id}", load.tokens[order.user_id])
            if status == 200:
                expected = {**order.body, "order_id": order_id, "status": "pending", "filled_quantity": "0"}
                if not expected.items() <= body.items():
                    missing.append(f"{expected} is told as {body}")
                break
            # What is acknowledged there is never unknown here; at worst it cannot be read in time.
            if status != 503 or time.monotonic() > until:
                missing.append(f"{order_id}: {status} {body}")
                break
            await asyncio.sleep(0.02)
    return missing


@asynccontextmanager
async def _clients(port: int, count: int) -> AsyncIterator[list[RestClient]]:
    clients = [RestClient() for _ in range(count)]
    try:
        for client in clients:
            await client.connect(port)
        yield clients
    finally:
        for client in clients:
            client.close()
        await asyncio.sleep(0)


def look_up(load: Load, port: int, seconds: float = 30.0) -> list[str]:
    """What an instance does not know of the accepted orders, or knows otherwise, after it has had time to read them."""

    async def ask() -> list[str]:
        until = time.monotonic() + seconds
        orders = iter([order for order in load.orders if order.is_accepted])
        async with _clients(port, 8) as clients:
            found = await asyncio.gather(*(_look_up_some(client, orders, load, until) for client in clients))
        return [line for lines in found for line in lines]

    return asyncio.run(ask())
