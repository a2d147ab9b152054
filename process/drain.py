"""Letting go of the clients of an instance that ends, spread over a time: they must not all come back at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.channels.hub import Hub
from core.delivery.subscriber import Subscriber
from core.errors import CloseCode

# For the closing handshakes.
HANDSHAKE_SECONDS = 1.0


async def close_clients(
    hub: Hub, spread_seconds: float, hurry: asyncio.Event, tell_closing: Callable[[Subscriber, float], None]
) -> None:
    """Close every client with 1001, and wait for their handshakes; `hurry` cuts the spreading short.

    `tell_closing` tells whoever wants to know in how many seconds it is closed.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    waiting = list(hub.subscribers)
    step = spread_seconds / (len(waiting) + 1)
    for number, subscriber in enumerate(waiting, start=1):
        tell_closing(subscriber, step * number)
    for number, subscriber in enumerate(waiting, start=1):
        await _wait(hurry, started + step * number - loop.time())
        if subscriber in hub.subscribers:
            subscriber.end(CloseCode.GOING_AWAY, "reconnect")
    await _wait(hurry, started + spread_seconds - loop.time())
    if waiting:
        await asyncio.sleep(min(HANDSHAKE_SECONDS, 0.1 + spread_seconds))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long."""
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass
