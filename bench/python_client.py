"""What the client for Python costs a notification, beside bare `websockets` and `json.loads`.

    python -m bench.python_client [--rounds N] [--notifications N]

A server in a process of its own writes the same notifications to both, as fast as they are read or at a rate, by turns. Each
reads them in a fresh process and tells its own CPU time from the first to the last, so what the server costs is not in it.
The bare one parses numbers as floats and does nothing with them; the client makes decimals, checks and keeps the book,
makes trades, and hands them out. Needs `websockets` and `httpx` (requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHANNELS = {"trades": "trades.KCN/EUR", "book": "book.KCN/EUR.none.10.100ms"}
EPOCH = "AAAAAAAAAAAAAAAAAAAAAQ.4"
TARGET = 1.5
# At this rate a process sleeps between notifications, as most programs do; 0 is as fast as they are read.
RATES = (0, 2000)


def notifications(kind: str, count: int) -> Iterator[str]:
    """One trade each, or a book of ten levels a side of which three change: as the gateway writes them."""
    if kind == "trades":
        yield _frame(kind, 0, '{"trades": [], "snapshot": true}', first=True)
        for seq in range(1, count):
            trade = f'[10.{seq % 100:02}, 0.{seq % 900 + 100}, "buy", 1760000000.250, false, "0-{seq}"]'
            yield _frame(kind, seq, f'{{"trades": [{trade}]}}', f'"prev_seq": {seq - 1}, ')
        return
    held = [f"{n + 1}.500" for n in range(10)]
    levels = ", ".join(f"[10.{50 - n:02}, 0, {held[n]}]" for n in range(10))
    asks = ", ".join(f"[10.{51 + n:02}, 0, 1.500]" for n in range(10))
    rest = '"total_bid_amount": 125.500, "total_ask_amount": 98.250, "time": 1760000000.250'
    yield _frame(
        kind,
        0,
        f'{{"trades": [], "bid_changes": [{levels}], "ask_changes": [{asks}], {rest}, "snapshot": true}}',
        first=True,
    )
    for seq in range(1, count):
        changes = []
        for n in {seq % 10, (seq + 3) % 10, (seq + 7) % 10}:
            old, held[n] = held[n], f"{seq % 90 + 10}.{seq % 900 + 100}"
            if old != held[n]:
                changes.append(f"[10.{50 - n:02}, {old}, {held[n]}]")
        yield _frame(kind, seq, f'{{"trades": [], "bid_changes": [{", ".join(changes)}], "ask_changes": [], {rest}}}')


def _frame(kind: str, seq: int, body: str, more: str = "", *, first: bool = False) -> str:
    epoch = f'"epoch": "{EPOCH}", ' if first else ""
    return f'{{{epoch}"channel_name": "{CHANNELS[kind]}", "seq": {seq}, {more}"notification": {body}}}'


async def serve(kind: str, count: int, rate: int) -> None:
    """Answers a subscription, then writes everything; prints its port."""
    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as websockets_serve

    texts = [*notifications(kind, count)]

    async def play(socket: ServerConnection) -> None:
        request = json.loads(await socket.recv())
        await socket.send(json.dumps({"id": request["id"], "result": request["params"]["channels"]}))
        began = time.monotonic()
        for number, text in enumerate(texts):
            await socket.send(text)
            if rate and (ahead := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
        await socket.wait_closed()

    async with websockets_serve(play, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def read_bare(kind: str, count: int, port: int) -> float:
    """CPU seconds."""
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}/ws?stream=none", compression=None, max_size=None) as socket:
        request = {"id": 1, "method": "public/subscribe", "params": {"channels": [CHANNELS[kind]]}}
        await socket.send(json.dumps(request))
        await socket.recv()
        json.loads(await socket.recv())
        began = time.process_time()
        for _ in range(count - 1):
            message = json.loads(await socket.recv())
        spent = time.process_time() - began
        assert message["seq"] == count - 1, message
        return spent


async def read_client(kind: str, count: int, port: int) -> float:
    """CPU seconds."""
    from mexchange import Exchange, Trade

    async with Exchange(f"http://127.0.0.1:{port}") as exchange:
        if kind == "book":
            book = exchange.book("KCN/EUR")
            await book.live()
            began = time.process_time()
            while book.seq < count - 1:
                await book.changed()
            assert not book.stale and book.mended == 0
        else:
            trades = exchange.trades("KCN/EUR")
            first = await anext(trades)
            assert isinstance(first, Trade)
            began = time.process_time()
            for seq in range(2, count):
                trade = await anext(trades)
                assert isinstance(trade, Trade) and trade.trade_id == f"0-{seq}"
        return time.process_time() - began


def measure(who: str, kind: str, count: int, rate: int) -> float:
    """Microseconds of CPU a notification, in processes that this one starts."""
    common = [sys.executable, "-m", "bench.python_client", "--kind", kind, "--notifications", str(count)]
    with subprocess.Popen(
        [*common, "--be", "server", "--rate", str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        port = server.stdout.readline().strip()
        answer = subprocess.run([*common, "--be", who, "--port", port], stdout=subprocess.PIPE, text=True, check=True)
        server.stdin.close()
    return float(answer.stdout) / count * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.python_client", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--notifications", type=int, default=20_000)
    parser.add_argument("--kind", choices=CHANNELS, help=argparse.SUPPRESS)
    parser.add_argument("--be", choices=("server", "bare", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "clients" / "python"))
    if given.be == "server":
        asyncio.run(serve(given.kind, given.notifications, given.rate))
        return 0
    if given.be is not None:
        read: Any = read_client if given.be == "client" else read_bare
        print(asyncio.run(read(given.kind, given.notifications, given.port)))
        return 0
    print("| notifications | bare | client | ratio (median of rounds) | least to most | target |")
    print("| --- | --- | --- | --- | --- | --- |")
    is_met = True
    for kind in CHANNELS:
        for rate in RATES:
            count = given.notifications if not rate else min(given.notifications, 2 * rate)
            pairs = []
            for number in range(given.rounds):
                order = ("bare", "client") if number % 2 else ("client", "bare")
                spent = {who: measure(who, kind, count, rate) for who in order}
                pairs.append((spent["bare"], spent["client"]))
            ratios = [client / bare for bare, client in pairs]
            bare, client = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(ratios)
            is_met = is_met and ratio <= TARGET
            name = f"{kind}, {f'{rate:,} a second' if rate else 'as fast as they are read'}"
            met = "met" if ratio <= TARGET else "missed"
            print(
                f"| {name} | {bare:.1f} us | {client:.1f} us | {ratio:.2f} "
                f"| {min(ratios):.2f} to {max(ratios):.2f} ({len(ratios)}) | {TARGET}: {met} |",
                flush=True,
            )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
