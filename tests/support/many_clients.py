"""A crowd of WebSocket clients in a process of its own, told by lines of JSON what to do. `PORT`

It answers each line with one when that is done: `connect` (count, rate, most_at_once, channels), `await_frames` (each
client has had so many texts in all), `leave`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from bench.support.crowd import Crowd, paced
from bench.support.websocket import TEXT, client_frame
from tests.support.gateway import REPOSITORY


class ManyClients:
    """The crowd as a test has it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def of(cls, port: int) -> Iterator[ManyClients]:
        """A crowd for this port, nobody in it yet."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.many_clients", str(port)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def ask(self, what: str, seconds: float, **more: object) -> dict[str, Any]:
        """Let them do something; what they tell of it. It has `seconds`, and then they are ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(seconds, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, f"the clients did not {what} within {seconds:g} s"
        return dict(json.loads(line))


def main() -> None:
    crowd = Crowd(int(sys.argv[1]))
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=listen, args=(lines,), daemon=True).start()
    while True:
        # Pings are answered meanwhile.
        while lines.empty():
            crowd.turn(0.01)
        line = lines.get()
        if not line:
            return
        order = json.loads(line)
        started = time.monotonic()
        if order["do"] == "connect":
            connect(crowd, order)
        elif order["do"] == "await_frames":
            least = order["frames"]
            while any(client.frames < least for client in crowd.clients.values()):
                crowd.turn(0.05)
        else:
            crowd.leave_all()
        told = {
            "seconds": time.monotonic() - started,
            "open": crowd.open,
            "frames": crowd.frames,
            "refused": crowd.refused,
            "ended": crowd.ended,
        }
        print(json.dumps(told), flush=True)


def listen(lines: SimpleQueue[str]) -> None:
    """Hand on each line of standard input, and an empty one for its end."""
    while line := sys.stdin.readline():
        lines.put(line)
    lines.put("")


def connect(crowd: Crowd, order: dict[str, Any]) -> None:
    """Connect so many, and wait until each has the answers to its subscriptions or was refused."""
    greeting = b""
    if order["channels"]:
        request = {"id": 1, "method": "public/subscribe", "params": {"channels": order["channels"]}}
        greeting = client_frame(TEXT, json.dumps(request).encode())
    due, left, owed = paced(order["rate"], order["count"]), order["count"], 0
    while left or crowd.connecting:
        owed += due()
        while owed and crowd.connecting < order["most_at_once"]:
            crowd.connect(greeting)
            owed -= 1
            left -= 1
        crowd.turn(0.002)
    # The answer, and a snapshot of each channel.
    least = 1 + len(order["channels"])
    while greeting and any(client.frames < least for client in crowd.clients.values()):
        crowd.turn(0.05)


if __name__ == "__main__":
    main()
