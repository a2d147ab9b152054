"""Part, the peer of orders in parallel: a Tornado handler that parses the body and answers the same, and no more.

Its HTTPServer has the very settings that handlers/server.py gives the clients' one, read from there, so that they
cannot drift apart.
"""

from __future__ import annotations

import ast
import asyncio
import json
import signal
import uuid
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from bench.support.processes import ROOT, BenchError, tell


class OrderHandler(RequestHandler):
    """`POST /api/order`, accepted whatever it says."""

    def post(self) -> None:
        """Parse, name, answer."""
        order = json.loads(self.request.body)
        self.set_status(202)
        self.write({"order_id": str(uuid.uuid4()), "client_order_id": order["client_order_id"], "status": "accepted"})


def gateway_server_settings() -> dict[str, Any]:
    """What handlers/server.py gives its first HTTPServer, the clients'. Raises BenchError if it can no longer be read."""
    tree = ast.parse((ROOT / "handlers" / "server.py").read_text(encoding="utf-8"))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "HTTPServer":
            try:
                # Arithmetic of constants only, such as 1 << 50.
                return {
                    str(keyword.arg): eval(compile(ast.Expression(keyword.value), "handlers/server.py", "eval"), {})
                    for keyword in call.keywords
                }
            except NameError:
                break
    raise BenchError(
        "the settings of the HTTPServer in handlers/server.py are no constants any more: see bench/orders/bare_server.py"
    )


async def main() -> None:
    """Serve on a free port, told as the first line, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sockets = bind_sockets(0, "127.0.0.1", backlog=1024)
    application = Application([(r"/api/order", OrderHandler)], log_function=lambda _handler: None)
    HTTPServer(application, **gateway_server_settings()).add_sockets(sockets)
    tell(sockets[0].getsockname()[1])
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
