"""What the tests of channels share: a gateway's limits and instruments, and series of records."""

from __future__ import annotations

import random
import time
from decimal import Decimal
from typing import Any

from tests.integration.clients import WebSocket, exact, is_heartbeat, notification
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway

MAX_SUBSCRIPTIONS = 20
MAX_VIEWS = 30
HEARTBEAT_SECONDS = 5.0
TICK = Decimal("0.01")
# Recent: statistics are of the last 24 hours.
NOW_MS = int(time.time() * 1000)
NOW = f"{NOW_MS // 1000}.{NOW_MS % 1000:03d}"
# Grouping needs a tick, ticks need configured instruments, and who configures some takes no others.
LISTED = [fresh_symbol("CH") for _ in range(60)]


def quiet(gateway: Gateway, receive_buffer: int = 0) -> WebSocket:
    return WebSocket(gateway.address, "/ws?stream=none", receive_buffer=receive_buffer)


def folded(gateway: Gateway, market: Market, symbol: str, *records: bytes) -> int:
    """Publish, and wait until the gateway has folded them in; the last one's offset."""
    with quiet(gateway) as witness:
        witness.subscribe(f"events.{symbol}")
        places = market.publish(symbol, *records, timestamp_ms=NOW_MS)
        witness.receive_until(lambda message: exact(message)["seq"] >= places[-1][1])
    return places[-1][1]


def received(client: WebSocket) -> Any:
    """The next message but for heartbeats, which busy machines bring on; its numbers as their text."""
    while is_heartbeat(message := notification(client.receive())):
        pass
    return message


def expect_no_news(client: WebSocket) -> None:
    """Nothing but heartbeats was sent to it."""
    answer, before = client.call("public/ping")
    assert (answer["result"], [m for m in before if not is_heartbeat(exact(m))]) == ("pong", [])


def level(price: str, quantity: str) -> dict[str, str]:
    return {"price": price, "quantity": quantity}


def random_series(symbol: str, count: int, seed: int) -> list[bytes]:
    """Deltas with fills between them and a rare snapshot; bids below 10, asks above, never crossed."""
    chance = random.Random(seed)
    records = []
    for number in range(count):
        kind = chance.random()
        if number == 0 or kind < 0.01:
            sides = {
                f"{side}s": [level(f"{base + n}", str(chance.randint(1, 9))) for n in range(chance.randint(0, 5))]
                for side, base in (("bid", 1), ("ask", 11))
            }
            records.append(snapshot(symbol, number + 1, **sides))
        elif kind < 0.2:
            records.append(fill(symbol, quantity=str(number), timestamp=NOW_MS))
        else:
            changes = []
            for _ in range(chance.randint(1, 3)):
                side = chance.choice(["bid", "ask"])
                price = (
                    f"{chance.randint(3, 9) if side == 'bid' else chance.randint(11, 17)}.{chance.randint(0, 99):02d}"
                )
                action = chance.choice(["add", "update", "remove"])
                changes.append((action, side, price, f"{chance.randint(1, 999)}.{chance.randint(0, 99):02d}"))
            records.append(delta(symbol, number + 1, *changes))
    return records
