"""What one client may ask for, and how long it holds the loop. `python -m bench.holds [PART ...]`: subscriptions, partitions, orders, past.

In one process, without sockets and without Kafka: what it costs the loop's thread. CPU milliseconds, the collector off:
the longest of the pieces in which something is done, and all of them together. The machine's own noise is in the longest.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from decimal import Decimal
from functools import partial
from time import thread_time
from typing import Final, cast
from uuid import UUID

from bench.order_directory import NOW_MS, command
from bench.support import machine
from bench.support.transport import Transport
from core.channels.client_position import Since
from core.channels.hub import Hub
from core.channels.names import parse_channel
from core.config.settings import Settings
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.market.market import Market
from core.market.symbol_market import News
from core.messages.feed_record import Written
from core.messages.model import Side
from core.orders.catch_up import CatchUp
from core.orders.directory import OrderDirectory
from core.orders.entry import OrderEntry
from core.orders.fills import MOST_OF_A_USER, FillKey, KnownFill, OwnFill
from core.orders.lookup import OrderLookup
from core.orders.order import Status, state
from core.orders.private_feed import PrivateFeed
from core.protocol.client_state import ClientState
from core.protocol.thalex import OrdersAnswer
from handlers.orders import _written

ORDERS: Final = 100_000
CLOSED: Final = 1_000_000
LEVELS: Final = 1_000
INTERVALS: Final = ("raw", "50ms", "100ms", "200ms", "500ms", "1000ms", "5000ms", "60000ms")

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

    def produce(
        self, _order_id: str, _symbol: str, _command: bytes, _headers: object = None
    ) -> asyncio.Future[Written]:
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


async def past() -> list[Figure]:
    """Of a user with `CLOSED` orders that have ended, and as many fills as are kept."""
    directory = OrderDirectory(
        keep_terminal_seconds=86_400, on_change=lambda _order: None, on_private=lambda _user, _payload: None
    )
    user_id = "user-00000000-of-the-bench"
    for number in range(CLOSED):
        order_id, record = command(number, 1)
        directory.fold_command(0, number, NOW_MS, record, True)
        order = directory.get(order_id)
        assert order is not None
        order.status = Status.FILLED
        directory.index.remove_open(order)
        directory.index.end(order, order.time_ms)
    for number in range(MOST_OF_A_USER):
        fill = OwnFill("o", None, "KCN/EUR", "1000.25", "0.125", NOW_MS + number)
        directory.fills.add(user_id, KnownFill(FillKey(0, number, Side.BID), fill))
    ticker = Ticker()
    catch_up = CatchUp(_ReadToItsEnd(), is_reachable=lambda: True)
    lookup = OrderLookup(directory, catch_up, lambda: True, ticker.give_way)
    gc.collect()
    gc.freeze()
    gc.disable()
    return [
        await ticker.measure(
            "last 100 of 1,000,000 closed orders", lambda: lookup.closed_orders(user_id, 100, lambda _order: True)
        ),
        await ticker.measure(
            "last 100 of 1,000 fills",
            lambda: lookup.fills(user_id, 100, lambda _fill: True, before=None, after=None),
        ),
    ]


class _Socket(Transport):
    """It takes everything; what is left to it to write has been written in another turn."""

    def __init__(self, on_spilled: Callable[[], None]) -> None:
        super().__init__(len)
        self._on_spilled = on_spilled

    def spill(self, data: bytes | memoryview) -> None:
        self._on_spilled()


class Driven:
    """A hub in the hands of the bench: the turns that it asks for are run one after the other."""

    def __init__(self, symbols: int = 1, levels: int = LEVELS) -> None:
        self.market = Market(lambda *_: None, lambda *_: None, lambda *_: None, tick_of=lambda _symbol: Decimal("0.01"))
        self.hub = Hub(self.market, lambda: "epoch", thread_time)
        self._turns = deque[Callable[[], object]]()
        self.hub.fanout.slice_seconds = self.hub.slices.slice_seconds = Settings().hub.slice_ms / 1000
        self.hub.fanout.schedule_slice = self.hub.slices.schedule_slice = self._turns.append
        self.symbols = ["KCN/EUR", *(f"S{number}/EUR" for number in range(1, symbols))]
        self._levels = levels
        self._offset = -1
        self.market.partitions.begin(0, 0)
        self.fill_books()
        self.hub.partition_changes.serve([0])
        self.settle()

    def fill_books(self) -> None:
        """Each anew."""
        for symbol in self.symbols:
            self.say(large_book(symbol, self._levels))

    def touch_books(self) -> None:
        """Nothing that was worked out for somebody before serves anybody now."""
        for symbol in self.symbols:
            change = {"action": "update", "side": "bid", "price": "999.99", "quantity": f"{self._offset}.25"}
            event = {"type": "orderbook_delta", "symbol": symbol, "sequence": self._offset, "deltas": [change]}
            self.say(json.dumps(event).encode())

    def say(self, record: bytes) -> News | None:
        """Fold a record in."""
        self._offset += 1
        return self.market.fold(0, self._offset, record)

    def client(self) -> Subscriber:
        """One whose socket takes everything."""
        outbox = Outbox(_Socket(lambda: self._turns.append(outbox.drained)), 1 << 20)
        subscriber = Subscriber(outbox, lambda _code, _reason: None)
        self.hub.add(subscriber, stream=False)
        return subscriber

    def subscribed(self, *texts: str) -> Subscriber:
        """One with these channels."""
        subscriber = self.client()
        self.hub.subscribe(subscriber, map(parse_channel, texts))
        self.settle()
        return subscriber

    def settle(self) -> None:
        """Until nothing is left to do."""
        while self._turns:
            self._turns.popleft()()

    def measure(self, name: str, *calls: Callable[[], object]) -> Figure:
        """Milliseconds: the longest hold, of the calls and of all turns that they cause, and all."""
        gc.collect()
        gc.disable()
        self._turns.extend(calls)
        longest = together = 0.0
        while self._turns:
            began = thread_time()
            self._turns.popleft()()
            took = thread_time() - began
            longest, together = max(longest, took), together + took
        gc.enable()
        return name, longest * 1000, together * 1000


def large_book(symbol: str, levels: int) -> bytes:
    """A snapshot with so many levels a side."""
    sides = {
        name: [
            {"price": f"{(100_000 + sign * n) / 100:.2f}", "quantity": f"{n % 97 + 1}.5"} for n in range(1, levels + 1)
        ]
        for name, sign in (("bids", -1), ("asks", 1))
    }
    return json.dumps({"type": "orderbook_snapshot", "symbol": symbol, "sequence": 0, **sides}).encode()


def small_fill(symbol: str) -> bytes:
    return json.dumps(
        {
            "type": "fill", "symbol": symbol, "buy_order_id": "b", "sell_order_id": "s",
            "price": "1000", "quantity": "0.125", "timestamp": 1_790_000_000_000,
        }
    ).encode()  # fmt: skip


def partitions() -> Iterator[Figure]:
    """The one partition is lost, unread, read again and served."""
    for clients, title in ((1, "1,000 depths"), (10, "10,000 depths of 10 clients")):
        driven = Driven()
        for number in range(clients):
            interval = INTERVALS[number % len(INTERVALS)]
            grouping = "none" if number < len(INTERVALS) else "1"
            driven.subscribed(*(f"book.KCN/EUR.{grouping}.{depth}.{interval}" for depth in range(1, 1001)))
        changes = driven.hub.partition_changes
        yield driven.measure(f"unread, {title}", partial(changes.set_unread, {0}))
        yield driven.measure(f"read again, {title}", partial(changes.set_unread, ()))
        yield driven.measure(f"lost, {title}", partial(changes.lose, 0))
        driven.market.partitions.begin(0, 0)
        driven._offset = -1
        driven.fill_books()
        yield driven.measure(f"served, {title}", partial(changes.serve, [0]))
    driven = Driven(5_000, 3)
    for first in range(0, 5_000, 500):
        driven.subscribed(
            *(f"{kind}.{symbol}" for symbol in driven.symbols[first : first + 500] for kind in ("trades", "events"))
        )
    changes = driven.hub.partition_changes
    yield driven.measure("unread, 10,000 lossless channels of 10 clients", partial(changes.set_unread, {0}))
    yield driven.measure("read again, the same", partial(changes.set_unread, ()))
    yield driven.measure("lost, the same", partial(changes.lose, 0))
    driven.market.partitions.begin(0, 0)
    driven.fill_books()
    yield driven.measure("served, the same", partial(changes.serve, [0]))


def subscriptions() -> Iterator[Figure]:
    driven = Driven(500)
    books = [f"book.{symbol}.none.all.raw" for symbol in driven.symbols]
    events, trades = ([f"{kind}.{symbol}" for symbol in driven.symbols] for kind in ("events", "trades"))
    depths = [f"book.KCN/EUR.none.{depth}.raw" for depth in range(1, 1001)]
    groupings = [f"book.KCN/EUR.{grouping}.all.raw" for grouping in range(1, 501)]
    for title, texts in (
        ("500 books and 500 events", [*books, *events]),
        ("1,000 depths of one book", depths),
        ("500 groupings of one book", groupings),
        ("500 events and 500 trades", [*events, *trades]),
        ("events of all 500 symbols", ["events"]),
    ):
        for how in ("unsubscribe", "close"):
            driven.touch_books()
            client = driven.client()
            names = [parse_channel(text) for text in texts]
            joined = driven.measure(f"subscribe, {title}", partial(driven.hub.subscribe, client, names))
            if how == "close":
                yield joined
                yield driven.measure("close of the connection", partial(driven.hub.remove, client))
            else:
                yield driven.measure("unsubscribe", partial(driven.hub.unsubscribe, client, texts))
    for _ in range(20):
        for symbol in driven.symbols:
            driven.say(small_fill(symbol))
    client = driven.client()
    names = [parse_channel(text) for text in (*events, *trades)]
    since = {name.text: Since({None: 0}, None) for name in names}
    yield driven.measure(
        "since on 500 events and 500 trades", lambda: driven.hub.subscribe(client, names, since), driven.hub.beat
    )


PARTS: Final[dict[str, Callable[[], Iterable[Figure]]]] = {
    "subscriptions": subscriptions,
    "partitions": partitions,
    "orders": lambda: asyncio.run(orders()),
    "past": lambda: asyncio.run(past()),
}


def main() -> None:
    """The parts that are named, or all."""
    for line in machine.describe():
        print(line)
    print(f"{'CPU milliseconds':50}  longest      all")
    for part in sys.argv[1:] or PARTS:
        for name, longest, together in PARTS[part]():
            print(f"{name:50} {longest:8.1f} {together:8.0f}", flush=True)


if __name__ == "__main__":
    main()
