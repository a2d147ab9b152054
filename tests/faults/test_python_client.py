"""The client for Python as the workload: a gateway that restarts, one of two that is killed, a broker that stands still.
Nothing is lost, told twice or told wrongly (docs/contract.md#resume, #retries).
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from decimal import Decimal
from typing import Any

from mexchange import Ack, Exchange, Gap, OrderState, OutcomeUnknown, Trade, Unavailable

from tests.clients.balancer import Balancer
from tests.faults.test_broker_frozen import ACK_TIMEOUT_SECONDS, frozen
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.trading import fresh_user, pass_of, settings
from tests.support.ports import free_port
from tools.kafka.cluster import KafkaCluster

SECONDS = 60.0
TRADERS = 8
ORDERS = 25


async def taken(stream: Any, count: int) -> list[Any]:
    async with asyncio.timeout(SECONDS):
        return [await anext(stream) for _ in range(count)]


def names(places: list[tuple[int, int]]) -> list[str]:
    return [f"{partition}-{offset}" for partition, offset in places]


def test_streams_go_on_over_a_restart_of_the_gateway_without_a_hole_or_a_repeat(market: Market) -> None:
    symbol = fresh_symbol()
    bound = settings(bind=f"127.0.0.1:{free_port()}")

    async def program() -> None:
        first = Gateway.on(market, bound)
        gateway = await asyncio.to_thread(first.__enter__)
        market.publish(symbol, snapshot(symbol, 1))
        told = names(market.publish(symbol, fill(symbol), fill(symbol)))
        async with Exchange(gateway.address, timeout=SECONDS) as exchange:
            trades, book = exchange.trades(symbol), exchange.book(symbol, "all", "raw")
            seen = await taken(trades, 2)
            async with asyncio.timeout(SECONDS):
                await book.live()
                levels = (book.bids, book.asks)
                await asyncio.to_thread(first.__exit__, None, None, None)
                while not book.stale:
                    await book.changed()
                told += names(market.publish(symbol, fill(symbol), fill(symbol), fill(symbol)))
                with Gateway.on(market, bound):
                    seen += await taken(trades, 3)
                    told += names(market.publish(symbol, fill(symbol)))
                    seen += await taken(trades, 1)
                    await book.live()
                    assert (book.bids, book.asks) == levels
        assert [one.trade_id if isinstance(one, Trade) else one for one in seen] == told

    asyncio.run(program())


def test_orders_and_their_states_survive_the_death_of_one_of_two_instances(market: Market) -> None:
    symbol, user = fresh_symbol(), fresh_user()

    async def trade(exchange: Exchange, number: int, acks: dict[str, Ack], began: asyncio.Event) -> None:
        for step in range(ORDERS):
            name = f"{number}-{step}"
            acks[name] = await exchange.place(symbol, "bid", 1, Decimal(100 + number), client_order_id=name)
            began.set()

    async def follow(exchange: Exchange, states: dict[str, list[OrderState]]) -> None:
        """Until all are closed."""
        async with exchange.orders() as orders:
            async for state in orders:
                assert not isinstance(state, Gap), state
                states.setdefault(str(state.client_order_id), []).append(state)
                is_closed = (told[-1].status == "cancelled" for told in states.values())
                if len(states) == TRADERS * ORDERS and all(is_closed):
                    return

    async def program() -> None:
        acks: dict[str, Ack] = {}
        states: dict[str, list[OrderState]] = {}
        began = asyncio.Event()
        async with Balancer(first.port, second.port) as balancer:
            async with Exchange(balancer.url, token=pass_of(user), timeout=SECONDS) as exchange:
                following = asyncio.create_task(follow(exchange, states))
                trading = [asyncio.create_task(trade(exchange, number, acks, began)) for number in range(TRADERS)]
                await began.wait()
                first.kill()
                await asyncio.gather(*trading)
                assert len(await exchange.open_orders()) == TRADERS * ORDERS
                await exchange.cancel_all()
                async with asyncio.timeout(SECONDS):
                    await following
        places = [one for one in market.commands_of(symbol) if one["type"] == "place_order"]
        ids: dict[str, set[str]] = {}
        for one in places:
            ids.setdefault(one["client_order_id"], set()).add(one["order_id"])
        assert ids == {name: {ack.order_id} for name, ack in acks.items()}
        assert len(ids) == TRADERS * ORDERS
        for name, told in states.items():
            assert {one.order_id for one in told} == ids[name]
            closed = [one.is_open for one in told]
            assert closed == sorted(closed, reverse=True), "a state went back"

    with exchange_on(market), Gateway.on(market, settings()) as first, Gateway.on(market, settings()) as second:
        asyncio.run(program())


def test_orders_are_told_the_truth_while_the_broker_stands_still(cluster: KafkaCluster, market: Market) -> None:
    symbol = fresh_symbol()
    given = settings(orders={"ack_timeout_seconds": ACK_TIMEOUT_SECONDS})

    async def program(url: str) -> None:
        async with Exchange(url, token=pass_of(fresh_user())) as exchange:

            async def place(name: str, within: float) -> Ack | OutcomeUnknown | Unavailable:
                try:
                    return await exchange.place(symbol, "bid", 1, 100, client_order_id=name, within=within)
                except (OutcomeUnknown, Unavailable) as error:
                    return error

            client_order_ids = [str(uuid.uuid4()) for _ in range(5)]
            assert isinstance(await place("before", SECONDS), Ack)
            with frozen(cluster):
                first = await asyncio.gather(*(place(name, ACK_TIMEOUT_SECONDS + 2) for name in client_order_ids))
            assert any(isinstance(one, OutcomeUnknown) for one in first)
            assert not any(isinstance(one, Ack) for one in first)
            for name, one in zip(client_order_ids, first, strict=True):
                assert not isinstance(one, OutcomeUnknown) or one.client_order_id == name
            again = await asyncio.gather(*(place(name, SECONDS) for name in client_order_ids))
        commands = market.commands_of(symbol)
        ids = {one["client_order_id"]: one["order_id"] for one in commands}
        accepted = {
            name: one.order_id for name, one in zip(client_order_ids, again, strict=True) if isinstance(one, Ack)
        }
        assert accepted == {name: ids[name] for name in client_order_ids}
        assert len(Counter(one["order_id"] for one in commands)) == len(client_order_ids) + 1

    with Gateway.on(market, given) as gateway:
        asyncio.run(program(gateway.address))
