"""A bot that was written for a sandbox of another exchange, moved here: only the name and the keys are others.

    python examples/bot_of_ccxt.py binance KEY SECRET BTC/USDT          before, on Binance's testnet
    python examples/bot_of_ccxt.py mexchange@127.0.0.1:3000 TOKEN "" KCN/EUR [ROUNDS]

It keeps a bid a twentieth below the market, and moves it as that moves.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

import ccxt.pro
from ccxt.base.errors import NetworkError, OrderNotFound
from mexchange_ccxt import register

register()  # from here on ccxt knows `mexchange`

BELOW = 0.95
AMOUNT = 0.5


def sandbox(name: str, key: str, secret: str) -> Any:
    name, _, hostname = name.partition("@")
    config = {"apiKey": key, "secret": secret} | ({"hostname": hostname} if hostname else {})
    exchange = getattr(ccxt.pro, name)(config)
    exchange.set_sandbox_mode(True)  # here: http and ws, as on one machine, in place of https and wss
    return exchange


async def follow(exchange: Any, symbol: str, order: Any, best_bid: float) -> Any:
    price = float(exchange.price_to_precision(symbol, best_bid * BELOW))
    if order is None:
        order = await exchange.create_order(symbol, "limit", "buy", AMOUNT, price)
        print(f"bid {AMOUNT} @ {price}")
    elif price != order["price"]:
        order = await exchange.edit_order(order["id"], symbol, "limit", "buy", AMOUNT, price)
        print(f"moved to {price}")
    return order


async def main(name: str, key: str, secret: str, symbol: str, rounds: int | None = None) -> None:
    exchange = sandbox(name, key, secret)
    order = None
    try:
        while rounds != 0:
            try:
                book = await exchange.watch_order_book(symbol)
                if book["bids"]:
                    order = await follow(exchange, symbol, order, book["bids"][0][0])
            except OrderNotFound:
                order = None  # it was filled
            except NetworkError as error:
                print(f"again: {error}")  # ccxt connects anew, and here nothing is missed by it
                continue
            rounds = None if rounds is None else rounds - 1
    finally:
        await exchange.cancel_all_orders(symbol)
        await exchange.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], *map(int, sys.argv[5:6])))
