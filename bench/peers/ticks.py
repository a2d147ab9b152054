"""What every server of the fan-out bench does: make events, tick after tick, as it is told.

A server is called `SERVER COUNTER TEMPLATE`. It listens on a free port of 127.0.0.1, tells {"port": ...}, and obeys lines on
standard input: `run EVENTS SECONDS RATE` makes ticks of so many events for so long, and then one line tells what it made.
With a RATE (ticks a second) a timer paces it. Without one the next tick comes as soon as all clients have read all but the
last: COUNTER is a file in which the load generator counts what was read, so nobody's buffers fill up, and nobody waits.
`run 0 SECONDS RATE` makes RATE events a second, and each tick, a millisecond or more after the one before, has those due.

An event is TEMPLATE and then the moment it was made, CLOCK_MONOTONIC in nanoseconds, and a brace.

Only the standard library is used here: the peers have a virtual environment of their own.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable

EVENT_BYTES = 200
TICKS_AHEAD = 2
LIFETIME_SECONDS = 3600

# What takes a tick's events to all clients, and whoever has to be waited for.
Publish = Callable[[list[bytes]], Awaitable[None] | None]


def template(symbol: str = "KCN/EUR") -> bytes:
    """An event without its end, of such a length that it has 200 bytes while the stamps have this many digits."""
    fields = {"type": "fill", "symbol": symbol, "buy_order_id": 1000001, "sell_order_id": 1000002}
    fields |= {"price": "100.00", "quantity": "0.125", "timestamp": time.time_ns() // 1_000_000, "pad": ""}
    text = json.dumps(fields, separators=(",", ":"))
    short = EVENT_BYTES - len(text) - len(f',"sent_ns":{time.monotonic_ns()}')
    return f'{text[:-2]}{"x" * short}","sent_ns":'.encode()


def stamped(beginning: bytes) -> bytes:
    """An event, made now."""
    return b"%b%d}" % (beginning, time.monotonic_ns())


class Counter:
    """How many events the clients have read."""

    def __init__(self, path: str) -> None:
        with open(path, "a+b") as file:
            file.truncate(8)
            self._memory = mmap.mmap(file.fileno(), 8, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self) -> int:
        """As of now."""
        return int.from_bytes(self._memory[:8], "little")


def tell(value: object) -> None:
    """One line to the bench."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


class Ticker:
    """Obeys the bench, in an asyncio loop."""

    def __init__(self, publish: Publish, clients: Callable[[], int]) -> None:
        """`clients` tells how many are connected."""
        self._publish = publish
        self._clients = clients
        self._counter = Counter(sys.argv[1])
        self._template = sys.argv[2].encode()

    async def serve(self, port: int) -> None:
        """Until standard input ends, or an hour has passed."""
        signal.alarm(LIFETIME_SECONDS)
        raise_file_limit()
        tell({"port": port})
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
        while line := await reader.readline():
            _run, events, seconds, rate = line.split()
            await self._run(int(events), float(seconds), float(rate))

    async def _run(self, events: int, seconds: float, rate: float) -> None:
        publish, beginning, clients = self._publish, self._template, self._clients()
        began = time.monotonic()
        end = began + seconds
        base = self._counter.read()
        ticks = made = 0
        while (now := time.monotonic()) < end:
            count = events
            if not events:
                count = int((now - began) * rate) - made
                if not count:
                    await asyncio.sleep(0.001)
                    continue
            elif rate:
                due = began + ticks / rate
                if due > now:
                    await asyncio.sleep(due - now)
            else:
                while (ticks - TICKS_AHEAD) * events * clients >= self._counter.read() - base and ticks >= TICKS_AHEAD:
                    await asyncio.sleep(0.001)
                    if time.monotonic() > end:
                        break
            waiting = publish([stamped(beginning) for _ in range(count)])
            if waiting is not None:
                await waiting
            made += count
            ticks += 1
            await asyncio.sleep(0)
        tell({"ticks": ticks, "events": made, "clients": clients, "seconds": time.monotonic() - began})


def raise_file_limit() -> None:
    """As far as is allowed."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
