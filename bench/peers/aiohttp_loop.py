"""Peer: aiohttp, `send_str` to each in a loop."""

from __future__ import annotations

import asyncio

from aiohttp import web

from bench.peers.ticks import Ticker

clients: set[web.WebSocketResponse] = set()


async def handle(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(compress=False)
    await client.prepare(request)
    clients.add(client)
    try:
        async for _message in client:
            pass
    finally:
        clients.discard(client)
    return client


async def publish(events: list[bytes]) -> None:
    for event in events:
        text = event.decode()
        for client in tuple(clients):
            try:
                await client.send_str(text)
            except ConnectionError:
                pass


async def main() -> None:
    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    await Ticker(publish, lambda: len(clients)).serve(runner.addresses[0][1])


if __name__ == "__main__":
    asyncio.run(main())
