"""Part, the peer of orders in parallel: a Tornado handler that parses the body and answers the same, and no more.

Its HTTPServer is Tornado's own, with the bounds of the gateway's.
"""

from __future__ import annotations

import asyncio
import json
import signal
import uuid

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from bench.support.processes import tell
from handlers.http_connection import ANY_BODY_BYTES, IDLE_SECONDS, MAX_HEAD_BYTES


class OrderHandler(RequestHandler):
    """`POST /api/order`, accepted whatever it says."""

    def post(self) -> None:
        """Parse, name, answer."""
        order = json.loads(self.request.body)
        self.set_status(202)
        self.write({"order_id": str(uuid.uuid4()), "client_order_id": order["client_order_id"], "status": "accepted"})


async def main() -> None:
    """Serve on a free port, told as the first line, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sockets = bind_sockets(0, "127.0.0.1", backlog=1024)
    application = Application([(r"/api/order", OrderHandler)], log_function=lambda _handler: None)
    HTTPServer(
        application,
        max_body_size=ANY_BODY_BYTES,
        max_header_size=MAX_HEAD_BYTES,
        idle_connection_timeout=IDLE_SECONDS,
    ).add_sockets(sockets)
    tell(sockets[0].getsockname()[1])
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
