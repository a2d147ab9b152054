"""An order log in virtual time, with a producer that reports what a test says."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from core.errors import BusUnavailable, OutcomeUnknown
from core.kafka.order_log import OrderLog
from core.messages.feed_record import Headers, Written
from tests.core.fakes import run, turns
from tests.core.kafka.fakes import FakeProducer, InlineCalls

ACK_TIMEOUT_SECONDS = 5.0


class ScriptedLog:
    """An order log in virtual time, with a producer that reports what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.producers: list[FakeProducer] = []
        self.reachable = True
        self.troubles: list[str] = []
        self.ack_seconds: list[float] = []
        self.wakes = 0
        self.calls = InlineCalls()
        monkeypatch.setattr("core.kafka.order_log.Producer", self._make_producer)
        self.log = OrderLog(
            "127.0.0.1:9",
            "order-commands",
            changes.pop("extra", {}),
            ack_timeout_seconds=changes.pop("ack_timeout_seconds", ACK_TIMEOUT_SECONDS),
            calls=self.calls,  # type: ignore[arg-type]
            is_reachable=lambda: self.reachable,
            on_trouble=self.troubles.append,
            on_ack_seconds=self.ack_seconds.append,
            clock=asyncio.get_running_loop().time,
            **changes,
        )
        self.log.wake = self._wake

    def _make_producer(self, properties: dict[str, Any]) -> FakeProducer:
        self.producers.append(FakeProducer(properties))
        return self.producers[-1]

    def _wake(self) -> None:
        self.wakes += 1

    @property
    def producer(self) -> FakeProducer:
        return self.producers[-1]

    def place(
        self,
        order_id: str = "o",
        symbol: str = "KCN/EUR",
        command: bytes = b"{}",
        headers: Headers | None = None,
    ) -> asyncio.Future[Written]:
        return self.log.produce(order_id, symbol, command, headers)

    def place_all(self, *order_ids: str) -> list[asyncio.Future[Written]]:
        """Placed, and all of them with the producer."""
        futures = [self.place(order_id) for order_id in order_ids]
        self.log.poll()
        return futures


Test = Callable[[ScriptedLog], Coroutine[Any, Any, None]]


def on_bench(test: Test) -> Callable[[pytest.MonkeyPatch], None]:
    """Run the test on a scripted of its own, in virtual time; a fault that only the loop hears of fails it."""

    def tested(monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            faults: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
            await test(ScriptedLog(monkeypatch))
            await turns()
            gc.collect()
            assert faults == []

        run(main())

    tested.__name__ = test.__name__
    return tested


async def outcome(future: Awaitable[None]) -> str:
    """What a client would be told."""
    try:
        await future
    except BusUnavailable:
        return "503"
    except OutcomeUnknown:
        return "504"
    return "202"
