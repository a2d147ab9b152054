"""Peer: socketify (uWebSockets), its own `publish` to a topic.

uWebSockets joins what is published in one turn of its loop. While idle its Python loop spins, so the bench stops this
process when it is not its turn.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from socketify import App, CompressOptions, OpCode

from bench.peers.ticks import Ticker

joined = 0


def on_open(client: Any) -> None:
    global joined
    joined += 1
    client.subscribe("all")


def on_close(_client: Any, _code: int, _reason: object) -> None:
    global joined
    joined -= 1


def main() -> None:
    app = App()

    def publish(events: list[bytes]) -> None:
        for event in events:
            app.publish("all", event, OpCode.TEXT, False)

    app.ws(
        "/*",
        {
            "compression": CompressOptions.DISABLED,
            "idle_timeout": 0,
            "max_backpressure": 64 * 1024 * 1024,
            "open": on_open,
            "close": on_close,
            "message": lambda _client, _message, _opcode: None,
        },
    )
    app.listen({"port": 0, "host": "127.0.0.1"}, lambda _config: None)
    port = listening_port()
    kept = []

    async def serve() -> None:
        # Neither socketify nor asyncio keeps a task from the garbage collector.
        kept.append(asyncio.current_task())
        await Ticker(publish, lambda: joined).serve(port)
        app.loop.stop()

    app.loop.create_background_task(serve)
    app.run()


def listening_port() -> int:
    """The port of this process's only listening socket: socketify does not tell which one it was given."""
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    return int(found.getsockname()[1])
        except OSError:
            continue
    raise SystemExit("socketify listens nowhere")


if __name__ == "__main__":
    main()
