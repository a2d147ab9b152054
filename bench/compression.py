"""What permessage-deflate costs, and what it saves. `python -m bench.compression`, a minute; CPU seconds, so on a busy machine too.

Real notifications of one symbol's channels while 1,000 events a second are joined for 1, 10 or 100 ms, as frames: without
compression, as the gateway compresses (once for everybody, no context between messages), and with a context of each client's
own, at zlib's usual size and at a small one.
"""

from __future__ import annotations

import gc
import json
import os
import zlib
from collections.abc import Callable, Iterable
from random import Random
from time import thread_time_ns

from bench.support import machine
from bench.support.transport import Transport
from bench.support.websocket import take_frame
from bench.views import delta_records
from core.channels.hub import Hub
from core.channels.names import parse_channel
from core.delivery.frames import DEFLATE_LEVEL, FIN_TEXT_DEFLATED, FLUSH_TAIL, deflated_frame, text_frame
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.market.market import Market

SYMBOL = "KCN/EUR"
LEVELS = 200
EVENTS_A_SECOND = 1_000
# Nine deltas to one fill.
FILL_EVERY = 10
JOINED_MS = (1, 10, 100)
CHANNELS = {
    "book, top 10": f"book.{SYMBOL}.none.10.raw",
    "book, all": f"book.{SYMBOL}.none.all.raw",
    "trades": f"trades.{SYMBOL}",
    "ticker": f"ticker.{SYMBOL}.raw",
    "event stream": f"events.{SYMBOL}",
}
MOST_MESSAGES = 4_000
CONTEXTS = {"own, 32 KiB window": (15, 8), "own, 2 KiB window": (11, 4)}
MEASURED_CONTEXTS = 300


def events(count: int) -> list[bytes]:
    """A snapshot, then deltas and fills."""
    side = {
        name: [{"price": f"{1000 + sign * i / 100:.2f}", "quantity": f"{i % 97 + 1}.5"} for i in range(1, LEVELS + 1)]
        for name, sign in (("bids", -1), ("asks", 1))
    }
    snapshot = {"type": "orderbook_snapshot", "symbol": SYMBOL, "sequence": 0, **side}
    chance, deltas = Random(1), iter(delta_records(Random(1)))
    made = [json.dumps(snapshot, separators=(",", ":")).encode()]
    for number in range(count):
        if number % FILL_EVERY:
            made.append(next(deltas))
            continue
        fill = {
            "type": "fill", "symbol": SYMBOL, "buy_order_id": f"{chance.getrandbits(128):032x}",
            "sell_order_id": f"{chance.getrandbits(128):032x}", "price": f"{1000 + chance.randrange(-20, 20) / 100:.2f}",
            "quantity": f"{chance.randrange(1, 10**4) / 1000:.3f}", "timestamp": 1_760_000_000_000 + number,
        }  # fmt: skip
        made.append(json.dumps(fill, separators=(",", ":")).encode())
    return made


def messages(channel: str, records: list[bytes], joined: int) -> list[bytes]:
    """What a subscriber is told when so many events are joined, without its first snapshot."""
    told = bytearray()

    def take(data: bytes) -> int:
        told.extend(data)
        return len(data)

    market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
    hub = Hub(market, lambda: "epoch", lambda: 0.0)
    market.partitions.begin(0, 0)
    market.fold(0, 0, records[0])
    hub.partition_changes.serve([0])
    subscriber = Subscriber(Outbox(Transport(take), 1 << 20), lambda _code, _reason: None)
    hub.add(subscriber, stream=False)
    hub.subscribe(subscriber, [parse_channel(channel)])
    hub.publish([])
    told.clear()
    texts: list[bytes] = []
    for begin in range(1, len(records), joined):
        offsets = range(begin, min(begin + joined, len(records)))
        folded = [market.fold(0, offset, records[offset]) for offset in offsets]
        hub.publish([news for news in folded if news is not None])
        while (frame := take_frame(told)) is not None:
            texts.append(frame[1])
        if len(texts) >= MOST_MESSAGES:
            break
    return texts


def own_context(bits: int, memory: int) -> Callable[[bytes], bytes]:
    """Compresses one client's messages, each with what came before it in mind."""
    deflate = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -bits, memory)

    def frame(text: bytes) -> bytes:
        packed = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return text_frame(packed.removesuffix(FLUSH_TAIL), FIN_TEXT_DEFLATED)

    return frame


def cost(frame: Callable[[bytes], bytes], texts: Iterable[bytes]) -> tuple[float, float]:
    """Bytes and microseconds of CPU of one message."""
    texts = list(texts)
    began = thread_time_ns()
    size = sum(len(frame(text)) for text in texts)
    return size / len(texts), (thread_time_ns() - began) / len(texts) / 1000


def context_bytes(bits: int, memory: int) -> float:
    """What one client's context takes, once it has compressed something."""
    gc.collect()
    before = machine.resident_bytes(os.getpid())
    held = [own_context(bits, memory) for _ in range(MEASURED_CONTEXTS)]
    noise = Random(2).randbytes(65_536)
    for frame in held:
        frame(noise)
    return (machine.resident_bytes(os.getpid()) - before) / len(held)


def main() -> None:
    """The table."""
    records = events(MOST_MESSAGES * 4)
    print(
        "| channel | joined | plain B | shared B | saved | us a message | "
        + " | ".join(f"{name} B | saved | us a delivery" for name in CONTEXTS)
        + " |"
    )
    print("| --- |" + " ---: |" * (5 + 3 * len(CONTEXTS)))
    for title, channel in CHANNELS.items():
        for joined_ms in JOINED_MS:
            texts = messages(channel, records, max(1, EVENTS_A_SECOND * joined_ms // 1000))
            plain, _ = cost(text_frame, texts)
            cells = [title, f"{joined_ms} ms", f"{plain:,.0f}"]
            for frame in (deflated_frame, *(own_context(*size) for size in CONTEXTS.values())):
                size, us = cost(frame, texts)
                cells += [f"{size:,.0f}", f"{100 - 100 * size / plain:.0f} %", f"{us:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    for name, (bits, memory) in CONTEXTS.items():
        print(f"{name}: {context_bytes(bits, memory) / 1024:.0f} KiB a connection")


if __name__ == "__main__":
    main()
