"""All scenes of clients/conformance at once, each with its scripted gateway, for clients that are not Python's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from threading import Thread
from typing import Any

from clients.conformance.server import ScriptedServer, load
from tests.support.gateway import REPOSITORY

NAMES = sorted(path.stem for path in (REPOSITORY / "clients" / "conformance" / "scenes").glob("*.json"))

# A scene with one thing in it that is not so: the program's side or the gateway's has to notice.
CHANGES = [
    ("trades_resume", '"is": {"price": "10.12", "trade_id": "0-14"}', '"is": {"price": "10.13"}'),
    ("trades_resume", '"seq": 12}}}', '"seq": 11}}}'),
    ("trades_filled_over_rest", "after=0-10", "after=0-9"),
    ("order_refused", '"raises": "bad_params"', '"raises": "order_refused"'),
    ("order_accepted", '"duplicate": false', '"duplicate": true'),
    ("token_ends", '"token": "t2"', '"token": "t3"'),
]


def scene(name: str) -> dict[str, Any]:
    """One scene by its name."""
    return load(REPOSITORY / "clients" / "conformance" / "scenes" / f"{name}.json")


def changed(value: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The scene with one thing in it that is not so."""
    text = json.dumps(value)
    assert old in text
    found: dict[str, Any] = json.loads(text.replace(old, new))
    return found


def all_scenes() -> dict[str, dict[str, Any]]:
    """Every scene by its name, and those of `CHANGES` by their number."""
    wrong = {str(number): changed(scene(name), old, new) for number, (name, old, new) in enumerate(CHANGES)}
    return {name: scene(name) for name in NAMES} | wrong


class ServedScenes:
    """What a player needs of each scene, and the gateways' verdicts."""

    def __init__(self, servers: Mapping[str, ScriptedServer], scenes: Mapping[str, Mapping[str, Any]]) -> None:
        self._servers = servers
        self._scenes = scenes

    def wanted(self) -> list[dict[str, Any]]:
        """For a player: name, address and the program's part."""
        members = ("tokens", "bound", "program")
        return [
            {
                "name": name,
                "url": self._servers[name].url,
                "scene": {member: scene[member] for member in members if member in scene},
            }
            for name, scene in self._scenes.items()
        ]

    def verdicts(self, told: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """What was not as a scene wants it, on either side."""
        return {name: [*told[name], *self._servers[name].verdict()] for name in self._scenes}


@contextmanager
def served(scenes: Mapping[str, Mapping[str, Any]]) -> Iterator[ServedScenes]:
    """Serves them in a thread with a loop of its own, for this one may have another."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    servers = {name: ScriptedServer(scene) for name, scene in scenes.items()}

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for server in servers.values():
                await stack.enter_async_context(server)
            is_over = asyncio.Event()
            ready.set_result((asyncio.get_running_loop(), is_over))
            await is_over.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = Thread(target=run)
    thread.start()
    loop, is_over = ready.result()
    try:
        yield ServedScenes(servers, scenes)
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join()
