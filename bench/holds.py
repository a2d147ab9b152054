"""What one client may ask for, and how long it holds the loop. `python -m bench.holds [PART ...]`.

In one process, without sockets and without Kafka: what it costs the loop's thread. CPU milliseconds, the collector off:
the longest of the pieces in which something is done, and all of them together. The machine's own noise is in the longest.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from time import thread_time
from typing import Final, cast
from uuid import UUID

from bench.order_directory import NOW_MS, command
from bench.support.transport import Transport
from core.channels.hub import Hub
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.market.market import Market
from core.messages.feed_record import Written
from core.orders.catch_up import CatchUp
from core.orders.directory import OrderDirectory
from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from core.orders.order import state
from core.orders.private_feed import PrivateFeed
from core.protocol.client_state import ClientState
from core.protocol.thalex import OrdersAnswer
from handlers.orders import _written

ORDERS: Final = 100_000

Figure = tuple[str, float, float]


class Ticker:
    """A loop of asyncio that is asked for a turn all the time: what lies between two of them is a hold."""

    def __init__(self) -> None:
        self._longest = self._began = self._last = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    async def give_way(self) -> None:
        """As the gateway's."""
        idle = asyncio.get_running_loop().create_future()
        self._waiting.append(idle)
        await idle

    def _tick(self) -> None:
        now = thread_time()
        self._longest = max(self._longest, now - self._last)
        waiting, self._waiting = self._waiting, []
        for idle in waiting:
            idle.set_result(None)
        self._handle = asyncio.get_running_loop().call_soon(self._tick)
        self._last = thread_time()

    async def measure(self, name: str, work: Callable[[], Awaitable[object]]) -> Figure:
        """Milliseconds: the longest hold, and all."""
        self._longest = 0.0
        self._began = self._last = thread_time()
        self._tick()
        await work()
        await self.give_way()
        self._handle.cancel()
        return name, self._longest * 1000, (thread_time() - self._began) * 1000


class _ReadToItsEnd:
    """An order topic that nobody else writes to."""

    def positions(self) -> dict[int, int]:
        return {0: 0}

    def ask_ends(self, on_answer: Callable[[dict[int, int] | None], None]) -> None:
        on_answer({0: 0})


class _Log:
    """Commands are acknowledged a hundred a turn of the loop."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[Written]] = []

    def produce(self, _order_id: str, _symbol: str, _command: bytes) -> asyncio.Future[Written]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._acknowledge)
        written = loop.create_future()
        self._waiting.append(written)
        return written

    def _acknowledge(self) -> None:
        some, self._waiting = self._waiting[:100], self._waiting[100:]
        for written in some:
            if not written.done():
                written.set_result(Written(0, 0))
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._acknowledge)


async def orders() -> list[Figure]:
    """Of a user who has `ORDERS` of them open."""
    directory = OrderDirectory(
        keep_terminal_seconds=86_400, on_change=lambda _order: None, on_private=lambda _user, _payload: None
    )
    for number in range(ORDERS):
        directory.fold_command(0, number, NOW_MS, command(number, 1)[1], True)
    user_id = "user-00000000-of-the-bench"
    ticker = Ticker()
    catch_up = CatchUp(_ReadToItsEnd(), is_reachable=lambda: True)
    lookup = OrderLookup(directory, catch_up, lambda: True, ticker.give_way)
    entry = OrderEntry(
        _Log(), directory, UUID(int=0), catch_up, answer_within_seconds=60.0, is_started=lambda: True,
        count=lambda _what, _outcome: None, clock=lambda: 0.0, give_way=ticker.give_way,
    )  # fmt: skip
    market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
    hub = Hub(market, lambda: "epoch", lambda: 0.0)
    subscriber = Subscriber(Outbox(Transport(len), 1 << 20), lambda _code, _reason: None)
    hub.add(subscriber, stream=False)
    private = PrivateFeed(hub.fanout.send, directory.shown_orders, state, ticker.give_way)
    private.join(user_id, subscriber)
    gc.collect()
    gc.disable()

    async def listed() -> None:
        await lookup.write_all(await lookup.open_orders(user_id), _written)

    async def thalex() -> None:
        answer = OrdersAnswer(1, cast("ClientState", None))
        await lookup.write_frame(await lookup.open_orders(user_id), answer.write, *answer.around())

    return [
        await ticker.measure("list of 100,000 orders", listed),
        await ticker.measure("account.orders", lambda: private.subscribe(user_id, subscriber)),
        await ticker.measure("open_orders", thalex),
        await ticker.measure("cancel_all", lambda: entry.cancel_all(user_id, None)),
    ]


if __name__ == "__main__":
    for row in asyncio.run(orders()):
        print(row)
