"""What `cancel_all_after` costs whoever sets it again and again: `python -m bench.timers_cost`

CPU microseconds of a request, of users who each set their timer ten times a second, by a clock of the bench's own: those that a
record covers, and all of them, with the records that some need (made, and read back; their way over Kafka is not in it). The messages
themselves are not either.
"""

from __future__ import annotations

import asyncio
import statistics
from time import process_time_ns

from bench.support import machine
from core.control.cancel_timers import CancelTimers
from core.control.control_table import ControlTable
from core.messages.control_records import FIRED, TIMER
from core.messages.feed_record import KeyedRecord
from core.telemetry.metrics import Metrics

ROUNDS = 15
USERS = 300
TICKS = 55  # of a tenth of a second: five records each
A_BEAT = 10  # requests from one beat of the gateway to the next
EPOCH = 1_700_000_000.0


class _Instance:
    """One, and its topic."""

    def __init__(self) -> None:
        self.now = 0.0
        self._unread: list[tuple[asyncio.Future[None], str, bytes | None]] = []
        self._offset = 0
        self.timers = CancelTimers(
            self._write,
            me="me",
            why_not=lambda: None,
            to_end=self._to_end,
            cancel_all=self._cancel_all,
            count=Metrics().count_timer,
            say_alive=self._to_end,
            age=lambda _appended_ms: 0.0,
            clock=lambda: EPOCH + self.now,
            monotonic=lambda: self.now,
        )
        parts = {TIMER: self.timers.take_timer, FIRED: self.timers.take_fired}
        self._table = ControlTable(parts, self.timers.forget, lambda _error, _partition, _offset: None)

    def _write(self, key: str, value: bytes | None) -> asyncio.Future[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unread.append((written, key, value))
        return written

    async def _to_end(self) -> None:
        raise AssertionError("no timer is to fire")

    async def _cancel_all(self, user_id: str) -> list[str]:
        raise AssertionError("no timer is to fire")

    def beat(self) -> None:
        unread, self._unread = self._unread, []
        for written, key, value in unread:
            written.set_result(None)
            time_ms = int((EPOCH + self.now) * 1000)
            self._table.take(KeyedRecord(0, self._offset, time_ms, value, True).with_key(key.encode()))
            self._offset += 1
        self.timers.look()


def _admitted() -> bool:
    return True


async def _round() -> tuple[float, float]:
    """Of all requests, and of those of beats in which a record covered all."""
    instance = _Instance()
    timers = instance.timers
    users = [f"user-{number}" for number in range(USERS)]
    began = covered_ns = covered = 0
    for tick in range(-TICKS, TICKS):
        if tick == 0:
            began, covered_ns, covered = process_time_ns(), 0, 0
        instance.now += 0.1
        for start in range(0, USERS, A_BEAT):
            asked = process_time_ns()
            needing = [user for user in users[start : start + A_BEAT] if timers.extend(user, 5, _admitted) is None]
            if not needing:
                covered_ns, covered = covered_ns + process_time_ns() - asked, covered + A_BEAT
            tasks = [asyncio.create_task(timers.set(user, 5)) for user in needing]
            await asyncio.sleep(0)
            instance.beat()
            if tasks:
                await asyncio.wait(tasks)
    return (process_time_ns() - began) / (TICKS * USERS) / 1000, covered_ns / covered / 1000


def main() -> None:
    """Measure and print."""
    for line in machine.describe():
        print(line, flush=True)
    rounds = [asyncio.run(_round()) for _ in range(ROUNDS)]
    for name, values in zip(("all", "covered"), zip(*rounds, strict=True), strict=True):
        print(f"{name:<8} {statistics.median(values):5.2f} us a request ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
