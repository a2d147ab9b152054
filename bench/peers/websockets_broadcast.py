"""Peer: websockets' own `broadcast`."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.ticks import Ticker

clients: set[ServerConnection] = set()


async def handle(client: ServerConnection) -> None:
    clients.add(client)
    try:
        await client.wait_closed()
    finally:
        clients.discard(client)


def publish(events: list[bytes]) -> None:
    for event in events:
        broadcast(clients, event.decode())


async def main() -> None:
    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=1024) as server:
        await Ticker(publish, lambda: len(clients)).serve(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    asyncio.run(main())
