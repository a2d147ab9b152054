"""Peer: picows, `send` to each in a loop, on uvloop, as its authors advise."""

from __future__ import annotations

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.peers.ticks import Ticker

clients: set[WSTransport] = set()


class Listener(WSListener):  # type: ignore[misc]  # installed for the bench alone: to mypy it is Any
    def on_ws_connected(self, transport: WSTransport) -> None:
        clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        clients.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        pass


def publish(events: list[bytes]) -> None:
    for event in events:
        for client in clients:
            client.send(WSMsgType.TEXT, event)


def listener(_request: WSUpgradeRequest) -> WSListener:
    return Listener()


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", 0, backlog=1024)
    await Ticker(publish, lambda: len(clients)).serve(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    uvloop.run(main())
