"""Orders that flow steadily at several instances, and what became of each: every one under a name of its own, and tried once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.integration.processes import Gateway
from tests.integration.trading import Trader, limit
from tests.integration.waiting import wait_until

# From an answer to the next order of its instance: more would only cost more.
PAUSE_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt. Times are those of this machine's clock, which all instances have, in seconds since the Unix epoch."""

    instance: int
    client_order_id: str
    began: float
    ended: float
    status: int
    body: dict[str, Any]


class SteadyOrders:
    """One user's, at each of the instances; a context manager."""

    def __init__(self, gateways: Sequence[Gateway], symbol: str) -> None:
        self.trader = Trader()
        self.symbol = symbol
        self._gateways = gateways
        self.tried: list[Tried] = []
        self._failures: list[BaseException] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(len(gateways))]

    def __enter__(self) -> SteadyOrders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures

    def _run(self, number: int) -> None:
        try:
            while not self._stopping.wait(PAUSE_SECONDS):
                name = f"{number}-{len(self.tried)}"
                began = time.time()
                body = limit(self.symbol, client_order_id=name)
                answer = self.trader.post(self._gateways[number], "/api/order", body)
                self.tried.append(Tried(number, name, began, time.time(), answer.status, answer.json()))
        except BaseException as error:
            self._failures.append(error)
            raise

    def wait_at_each(self, is_meant: Callable[[Tried], bool], what: str, count: int = 3) -> None:
        """Wait until so many more of those that begin now and are meant have been tried at each instance."""
        since = time.time()

        def reached() -> bool:
            assert not self._failures
            found = [one.instance for one in list(self.tried) if one.began >= since and is_meant(one)]
            return all(found.count(number) >= count for number in range(len(self._gateways)))

        wait_until(reached, what)

    def accepted(self) -> dict[str, str]:
        """By its client_order_id, the order_id of each that was."""
        return {one.client_order_id: one.body["order_id"] for one in self.tried if one.status == 202}
