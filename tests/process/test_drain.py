from __future__ import annotations

import asyncio

import pytest

from core.errors import CloseCode
from process.drain import HANDSHAKE_SECONDS, close_clients
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import Client, run

REASON = (CloseCode.GOING_AWAY, "reconnect")


class Crowd:
    """Clients of a hub; `ended_at` has when each was told to go, in the loop's time since the start."""

    def __init__(self, count: int) -> None:
        self.driven = DrivenHub()
        self.ended_at: list[float] = []
        self.announced: list[float] = []
        self.ends: list[tuple[CloseCode, str]] = []
        self.clients = [self._connect() for _ in range(count)]
        self.hurry = asyncio.Event()

    def _connect(self) -> Client:
        client = self.driven.connect()

        def end(code: CloseCode, reason: str) -> None:
            self.ended_at.append(asyncio.get_running_loop().time())
            self.ends.append((code, reason))
            self.driven.hub.remove(client.subscriber)

        client.subscriber.end = end
        return client

    async def close(self, seconds: float) -> float:
        """Returns how long it took."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await close_clients(self.driven.hub, seconds, self.hurry, lambda _, seconds: self.announced.append(seconds))
        self.ended_at = [round(at - started, 6) for at in self.ended_at]
        return round(loop.time() - started, 6)


def test_clients_are_closed_one_after_the_other_over_the_time() -> None:
    crowd = Crowd(3)
    assert run(crowd.close(8.0)) == 8.0 + HANDSHAKE_SECONDS
    assert crowd.ended_at == crowd.announced == [2.0, 4.0, 6.0]
    assert crowd.ends == [REASON] * 3


def test_client_that_went_meanwhile_is_not_closed() -> None:
    crowd = Crowd(2)

    async def close() -> None:
        asyncio.get_running_loop().call_later(1, crowd.driven.hub.remove, crowd.clients[0].subscriber)
        asyncio.get_running_loop().call_later(1, crowd.driven.hub.remove, crowd.clients[1].subscriber)
        await crowd.close(6.0)

    run(close())
    assert crowd.ends == []


def test_hurry_closes_the_others_at_once() -> None:
    crowd = Crowd(3)

    async def close() -> None:
        asyncio.get_running_loop().call_later(3, crowd.hurry.set)
        assert await crowd.close(8.0) == 3.0 + HANDSHAKE_SECONDS

    run(close())
    assert crowd.ended_at == [2.0, 3.0, 3.0]


@pytest.mark.parametrize(("seconds", "takes"), [(0.0, 0.1), (0.5, 1.1)])
def test_short_time_is_short_for_the_handshakes_too(seconds: float, takes: float) -> None:
    assert run(Crowd(2).close(seconds)) == takes


def test_nobody_is_waited_for_where_nobody_is() -> None:
    assert run(Crowd(0).close(0.0)) == 0.0
