"""A gateway that plays a scene (README.md beside this file), for the tests of clients in any language.

    python clients/conformance/server.py clients/conformance/scenes/NAME.json

prints the address to connect to, and serves until its standard input ends. `GET /mark/NAME` is the program's word that it
has come so far, `GET /verdict` what was not as the scene wants it, once all connections were played. Pages of every origin may
ask.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

# How long a verdict waits for connections that were not played to their end.
SETTLE_SECONDS = 20.0


class Digits(str):
    """A number of a scene, sent with the digits that it is written with."""


def load(path: Path) -> dict[str, Any]:
    scene: dict[str, Any] = json.loads(path.read_text("utf-8"), parse_float=Digits)
    return scene


def dump(value: object) -> str:
    if isinstance(value, Digits):
        return str.__str__(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {dump(member)}" for name, member in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    return json.dumps(value)


class ScriptedServer:
    """Plays a scene; a context manager. `url` is its address, `faults` what was not as the scene wants it."""

    def __init__(self, scene: Mapping[str, Any]) -> None:
        self.url = ""
        self.faults: list[str] = []
        self._connections: list[list[dict[str, Any]]] = [*scene["connections"]]
        self._http: list[dict[str, Any]] = [*scene.get("http", [])]
        self._begun = 0
        self._left = len(self._connections)
        self._bound: dict[str, Any] = {}
        self._marks: dict[str, asyncio.Event] = {}
        self._is_over = False
        self._played = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        server = await self._stack.enter_async_context(
            serve(self._play, "127.0.0.1", 0, process_request=self._answer, compression=None, ping_interval=None)
        )
        host, port = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._is_over = True
        for mark in self._marks.values():
            mark.set()
        await self._stack.aclose()

    async def settled(self) -> list[str]:
        """The verdict, once all connections were played; of one that the client does not make, after some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._played.wait()
        return self.verdict()

    def verdict(self) -> list[str]:
        """What was not as the scene wants it, up to now."""
        left = [f"{self._left} connections were not played to their end"] if self._left else []
        return [*self.faults, *left, *(f"nobody asked {one['get']}" for one in self._http)]

    def _mark(self, name: str) -> asyncio.Event:
        mark = self._marks.setdefault(name, asyncio.Event())
        if self._is_over:
            mark.set()
        return mark

    async def _answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        path = request.path
        if path.startswith("/mark/"):
            self._mark(path.removeprefix("/mark/")).set()
            return _response(200, "{}")
        if path == "/verdict":
            return _response(200, dump(await self.settled()))
        if path != "/ws?stream=none":
            return self._answer_question(path)
        if self._begun < len(self._connections) and "refuse" in (first := self._connections[self._begun][0]):
            self._begun += 1
            self._end_one()
            return _response(first["refuse"], "{}", first.get("headers"))
        return None

    def _answer_question(self, path: str) -> Response:
        if not self._http or not _asks(self._http[0]["get"], path):
            self.faults.append(f"GET {path} came, and is not in the scene now")
            return _response(404, "{}")
        told = self._http.pop(0)
        return _response(told.get("status", 200), dump(told["body"]), told.get("headers"))

    async def _play(self, socket: ServerConnection) -> None:
        if self._begun >= len(self._connections):
            self.faults.append("one connection more than the scene has")
            return
        number, self._begun = self._begun, self._begun + 1
        request_id: Any = None
        is_played = False
        try:
            for step in self._connections[number]:
                match step:
                    case {"expect": wanted}:
                        told = json.loads(await socket.recv(), parse_float=Digits)
                        request_id = told["id"]
                        if (why := self._differs(wanted, told)) is not None:
                            self.faults.append(f"connection {number + 1}: {why} in {dump(told)}")
                    case {"result": result}:
                        await socket.send(dump({"id": request_id, "result": self._filled(result)}))
                    case {"error": error}:
                        await socket.send(dump({"id": request_id, "error": self._filled(error)}))
                    case {"send": message}:
                        await socket.send(dump(self._filled(message)))
                    case {"until": name}:
                        await self._mark(name).wait()
                    case {"close": code}:
                        await socket.close(code, step.get("reason", ""))
                    case {"cut": True}:
                        socket.transport.abort()
                    case _:
                        raise ValueError(f"no step of a scene: {step}")
            self._end_one()
            is_played = True
            async for text in socket:
                self.faults.append(f"connection {number + 1}: {text!r} came, and nothing more is in the scene")
        except ConnectionClosed:
            if not is_played:
                self.faults.append(f"connection {number + 1}: the client ended it too early")

    def _end_one(self) -> None:
        self._left -= 1
        if not self._left:
            self._played.set()

    def _differs(self, wanted: Any, told: Any, at: str = "") -> str | None:
        """Where what came is not what is wanted: members that are not named may be there; `$name` stands for any value,
        the same wherever it stands."""
        if isinstance(wanted, str) and wanted.startswith("$"):
            return None if self._bound.setdefault(wanted, told) == told else f"{at} is another {wanted}"
        if isinstance(wanted, dict):
            if not isinstance(told, dict):
                return f"{at} is no object"
            found = (self._differs(one, told.get(name), f"{at}.{name}") for name, one in wanted.items())
            return next((why for why in found if why is not None), None)
        return None if dump(wanted) == dump(told) else f"{at or 'it'} is {dump(told)}, not {dump(wanted)}"

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._filled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        return self._bound.get(value, value) if type(value) is str else value


def _asks(wanted: str, path: str) -> bool:
    """The same path, and what is wanted of its query; how that is encoded, and what else it has, is the client's."""
    (left, query), (right, more) = ((parts.path, parse_qs(parts.query)) for parts in map(urlsplit, (wanted, path)))
    return left == right and query.items() <= more.items()


def _response(status: int, body: str, headers: Mapping[str, str] | None = None) -> Response:
    data = body.encode()
    given = {
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        "Connection": "close",
        "Access-Control-Allow-Origin": "*",
    }
    return Response(status, HTTPStatus(status).phrase, Headers({**given, **(headers or {})}), data)


async def main(path: str) -> None:
    async with ScriptedServer(load(Path(path))) as server:
        print(server.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
