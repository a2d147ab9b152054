"""How long an order takes: to Kafka, which is its answer, and to the engine's word that it is open.

python examples/latency_meter.py URL TOKEN SYMBOL PRICE [COUNT]

PRICE is one at which a bid rests. Each order is cancelled again.
"""

from __future__ import annotations

import asyncio
import sys
from statistics import quantiles
from time import perf_counter

from mexchange import Exchange, Gap


async def main(url: str, token: str, symbol: str, price: str, count: int = 100) -> None:
    answered: list[float] = []
    opened: list[float] = []
    async with Exchange(url, token=token) as exchange, exchange.orders() as orders:
        for _ in range(count):
            began = perf_counter()
            ack = await exchange.place(symbol, "bid", 1, price)
            answered.append(perf_counter() - began)
            async for state in orders:
                if not isinstance(state, Gap) and state.order_id == ack.order_id and state.status != "pending":
                    opened.append(perf_counter() - began)
                    break
            await exchange.cancel(ack.order_id)
    for name, seconds in (("answered", answered), ("open", opened)):
        cuts = quantiles(seconds, n=100)
        print(f"{name}: p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms, of {len(seconds)}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], *map(int, sys.argv[5:6])))
