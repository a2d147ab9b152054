"""The account service in a thread of its own, with faults: over a request now and then, or over all at once.

Each client may have a port of its own, all of them fixed over its restarts: so a test can tell which gateway asked for what.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from tests.support.account_ledger import Ledger
from tests.support.accounts import AccountService, Canned, Seen

DEADLINE_SECONDS = 15.0
SLOW_SECONDS = 0.1

T = TypeVar("T")


class Fault(Enum):
    """What may come over one request."""

    FAILS = "500, and nothing is done"
    FAILS_AFTERWARDS = "500, and it was done"
    IS_OVERLOADED = "503, and nothing is done"
    HAS_TOO_MUCH_TO_DO = "429, and nothing is done"
    IS_SILENT = "no answer, and nothing is done"
    IS_SILENT_AFTERWARDS = "no answer, and it was done"
    IS_TOO_LATE = "it is done when nobody waits for the answer any more"
    IS_CUT_OFF = "the connection ends, and nothing is done"
    IS_CUT_OFF_AFTERWARDS = "the connection ends, and it was done"
    IS_SLOW = "it is done, and answered, some time later"


_STATUS = {Fault.FAILS: 500, Fault.IS_OVERLOADED: 503, Fault.HAS_TOO_MUCH_TO_DO: 429, Fault.IS_CUT_OFF: 0}
_STATUS_AFTERWARDS = {Fault.FAILS_AFTERWARDS: 500, Fault.IS_CUT_OFF_AFTERWARDS: 0}


@dataclass(frozen=True, slots=True)
class Delete:
    """A `DELETE /internal/orders/{id}` that was answered truly: by whom, and when (monotonic seconds) it came."""

    port: int
    order_id: str
    came: float
    answered: float


class LedgerService(AccountService):
    """`fault_of` is asked for each request, on the service's own thread."""

    def __init__(self, ledger: Ledger, fault_of: Callable[[Seen], Fault | None] = lambda _seen: None) -> None:
        super().__init__({})
        self.ledger = ledger
        self.fault_of = fault_of
        self.deletes: list[Delete] = []

    async def serve(self, seen: Seen) -> Canned:
        came = time.monotonic()
        fault = self.fault_of(seen)
        if fault is not None and (answer := await self._fail(fault, seen)) is not None:
            return answer
        answer = await super().serve(seen)
        if fault is None and seen.method == "DELETE":
            self.deletes.append(Delete(seen.at, seen.uri.rpartition("/")[2], came, time.monotonic()))
        return answer

    async def _fail(self, fault: Fault, seen: Seen) -> Canned | None:
        """What becomes of it; None if that is what should."""
        if fault in _STATUS:
            return Canned(_STATUS[fault])
        if fault in _STATUS_AFTERWARDS:
            await super().serve(seen)
            return Canned(_STATUS_AFTERWARDS[fault])
        if fault is Fault.IS_SLOW:
            await asyncio.sleep(SLOW_SECONDS)
            return None
        if fault is Fault.IS_SILENT_AFTERWARDS:
            await super().serve(seen)
        await seen.gone.wait()
        if fault is Fault.IS_TOO_LATE:
            await super().serve(seen)
        return Canned(0)

    async def open_port(self) -> int:
        """One more port to be asked on."""
        assert self._server is not None
        self.ports.append(self._listen(self._server, 0))
        return self.ports[-1]

    def _work(self, seen: Seen) -> Canned:
        user_id = seen.headers.get("X-User-Id")
        if seen.uri == "/api/balances" and user_id is not None:
            body = json.dumps(self.ledger.balances(user_id), separators=(",", ":")).encode()
            return Canned(200, body, {"Content-Type": "application/json"})
        return super()._work(seen)


class ServedLedger:
    """A `LedgerService` as other threads see it."""

    def __init__(self, service: LedgerService, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self._loop = loop

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_SECONDS)

    def open_url(self) -> str:
        """An address that nobody else is given."""
        return f"http://127.0.0.1:{self._do(self.service.open_port())}"

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Its process is gone, with all connections; it comes back with what is in its database."""
        self._do(self.service.stop())
        try:
            yield
        finally:
            self._do(self.service.start())


@contextmanager
def ledger_service(service: LedgerService) -> Iterator[ServedLedger]:
    """Serve it, until the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="accounts")
    thread.start()
    served = ServedLedger(service, loop)
    try:
        served._do(service.start())
        yield served
        served._do(service.stop())
    finally:
        served._do(_end_tasks())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
