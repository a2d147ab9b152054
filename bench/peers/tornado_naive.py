"""Peer: what one writes first with Tornado, `write_message` to each in a loop."""

from __future__ import annotations

import asyncio

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from bench.peers.ticks import Ticker

clients: set[WebSocketHandler] = set()


class Handler(WebSocketHandler):
    def open(self, *_args: str, **_kwargs: str) -> None:
        self.set_nodelay(True)
        clients.add(self)

    def on_message(self, message: str | bytes) -> None:
        pass

    def on_close(self) -> None:
        clients.discard(self)


def publish(events: list[bytes]) -> None:
    for event in events:
        # As one has it from Kafka: the text is decoded once, and not for every client.
        text = event.decode()
        for client in clients:
            try:
                client.write_message(text)
            except WebSocketClosedError:
                pass


def listen() -> int:
    [socket] = bind_sockets(0, "127.0.0.1", backlog=1024)
    HTTPServer(Application([("/", Handler)], log_function=lambda _handler: None)).add_socket(socket)
    return int(socket.getsockname()[1])


async def main() -> None:
    await Ticker(publish, lambda: len(clients)).serve(listen())


if __name__ == "__main__":
    asyncio.run(main())
