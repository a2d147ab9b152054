"""The processes on a market: gateways, and the exchange that executes orders."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.integration.market import Market
from tests.integration.waiting import DEADLINE_SECONDS, wait_until
from tests.support.exchange import exchange_process
from tests.support.gateway import GatewayProcess
from tools import paused_process


class Gateway(GatewayProcess):
    """A gateway process, with what these tests ask of it."""

    @classmethod
    @contextmanager
    def on(
        cls,
        market: Market | None,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        brokers: str | None = None,
        wait: bool = True,
        files: int | None = None,
    ) -> Iterator[Gateway]:
        """One on this market, ready unless told not to `wait`; `brokers` stands in for the market's. Ends at once."""
        given: dict[str, Any] = {"drain_seconds": 0, **(settings or {})}
        # A client that is not read for a while, on a machine that is busy, is no dead one.
        given["websocket"] = {"ping_interval_seconds": 3600, **given.get("websocket", {})}
        kafka: dict[str, Any] = {**given.get("kafka", {})}
        if brokers is not None:
            kafka["brokers"] = brokers
        if market is not None and market.embedded:
            # Its groups take almost a session's length to form, each time.
            kafka.setdefault("consume", "broadcast")
        given["kafka"] = kafka
        gateway = cls(given, environ, bus=market, files=files)
        with gateway:
            if wait:
                gateway.wait_ready(DEADLINE_SECONDS)
            yield gateway

    @property
    def address(self) -> str:
        """`http://host:port`."""
        return self.url

    def health(self) -> dict[str, Any]:
        """The body of /health."""
        answer = self.get("/health")
        assert answer.status == 200
        return dict(answer.json())

    def clients(self) -> int:
        """Open WebSocket connections."""
        return int(self.health()["clients"])

    def metric(self, name: str, /, **labels: str) -> float:
        """A metric's value; 0 where it is not there yet."""
        wanted = set(labels.items())
        for line in self.get("/metrics").body.decode().splitlines():
            left, _, value = line.rpartition(" ")
            found, _, inside = left.partition("{")
            pairs = (pair.partition("=") for pair in inside.rstrip("}").split(",") if pair)
            if found == name and wanted <= {(label, text.strip('"')) for label, _, text in pairs}:
                return float(value)
        return 0.0

    def wait_until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
        """What `condition` returns once it is true; AssertionError with the log after the deadline."""
        try:
            return wait_until(condition, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None


@contextmanager
def stopped(*gateways: Gateway) -> Iterator[None]:
    """Held up, as a busy machine does: what is written meanwhile is all there when they go on, in both topics."""
    with paused_process.stopped(*(gateway.process for gateway in gateways)):
        yield


@contextmanager
def exchange_on(market: Market, *more: str, traders: bool = False) -> Iterator[subprocess.Popen[str]]:
    """`python -m exchange`, engine only unless told, ready to execute what is on the market's order topic from now on.

    A book's snapshot comes with its first order, and no other one while a test is slow. `more` are arguments.
    """
    topics = ["--brokers", market.bootstrap, "--topic", market.topic, "--order-topic", market.order_topic]
    traders_or_none = [] if traders else ["--no-traders"]
    with exchange_process(*traders_or_none, "--snapshot-seconds", "0", *topics, *more) as process:
        yield process
