"""The exchange as a process: one loop that executes commands, lets the traders act and publishes what happened.

One thread. It sleeps in the consumer's poll, until a command arrives or the traders or a snapshot are due.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from exchange.accounts import Accounts
from exchange.bus import Throttle
from exchange.commands import Malformed, read_record
from exchange.events import Event
from exchange.matching import Engine
from exchange.traders import Traders

log = logging.getLogger("exchange")

# How soon a signal is noticed.
_MAX_WAIT_SECONDS: Final = 0.2
# The traders act no more often: each waking, with a request of its own to Kafka, costs more than the acts themselves.
_TRADING_PAUSE_SECONDS: Final = 0.03
# The traders stop while more than this is unconfirmed: a market nobody can see need not move, and Kafka, back after
# an hour, shall not be given an hour's worth of it.
_MAX_UNACKNOWLEDGED: Final = 1_000
# After a longer pause the traders go on from now instead of catching up.
_MAX_BEHIND_SECONDS: Final = 0.5
# Between snapshots that stand in for lost events: what refused those may refuse these too.
_RESTORE_SECONDS: Final = 1.0


class MarketBus(Protocol):
    """What of bus.Bus the loop uses."""

    @property
    def unacknowledged(self) -> int: ...
    def publish(self, events: list[Event]) -> None: ...
    def receive(self, timeout_seconds: float) -> list[bytes | None]: ...
    def flush(self, timeout_seconds: float) -> bool: ...
    def take_lost_symbols(self) -> list[str]: ...
    def publish_accounts(self, records: list[tuple[str, bytes]]) -> None: ...
    def take_lost_accounts(self) -> list[str]: ...


class Exchange:
    """`clock` is monotonic, in seconds; `snapshot_seconds` 0 means no snapshots but the first."""

    def __init__(
        self,
        engine: Engine,
        traders: Traders | None,
        bus: MarketBus,
        stop: threading.Event,
        clock: Callable[[], float],
        snapshot_seconds: float,
        accounts: Accounts | None = None,
    ) -> None:
        self._engine = engine
        self._traders = traders
        self._bus = bus
        self._stop = stop
        self._clock = clock
        self._snapshot_seconds = snapshot_seconds
        self._accounts = accounts
        self._throttle = Throttle(clock)

    def run(self, ready: Callable[[], None]) -> None:
        """Until stopped. Calls `ready` once the first snapshots are confirmed by Kafka."""
        if self._traders is not None:
            self._traders.open()
        if not self._open_books():
            return
        ready()
        began = snapshot_at = restored_at = self._clock()
        while not self._stop.is_set():
            now = self._clock()
            if self._snapshot_seconds and now - snapshot_at >= self._snapshot_seconds:
                snapshot_at = now
                self._publish_snapshots(self._engine.symbols)
            if now - restored_at >= _RESTORE_SECONDS:
                restored_at = now
                self._publish_snapshots(self._bus.take_lost_symbols())
                if self._accounts is not None:
                    self._accounts.tell_again(self._bus.take_lost_accounts())
            wait = self._trade(now - began)
            self._publish_accounts()
            for value in self._bus.receive(wait):
                self._execute(value)
            self._publish_accounts()

    def _open_books(self) -> bool:
        """Publish every book until Kafka has confirmed each of them; False if stopped before."""
        symbols = self._engine.symbols
        while not self._stop.is_set():
            self._publish_snapshots(symbols)
            while not self._bus.flush(_MAX_WAIT_SECONDS):
                if self._stop.is_set():
                    return False
            symbols = self._bus.take_lost_symbols()
            if not symbols:
                return True
            self._stop.wait(_RESTORE_SECONDS)
        return False

    def _trade(self, elapsed_seconds: float) -> float:
        """Let the traders do what is due, and return how long there is nothing for them to do."""
        traders = self._traders
        if traders is None:
            return _MAX_WAIT_SECONDS
        if self._bus.unacknowledged > _MAX_UNACKNOWLEDGED:
            traders.skip_to(elapsed_seconds)
            return _MAX_WAIT_SECONDS
        traders.skip_to(elapsed_seconds - _MAX_BEHIND_SECONDS)
        while traders.due_seconds <= elapsed_seconds:
            self._bus.publish(traders.act())
        return min(max(traders.due_seconds - elapsed_seconds, _TRADING_PAUSE_SECONDS), _MAX_WAIT_SECONDS)

    def _execute(self, value: bytes | None) -> None:
        try:
            events = self._engine.execute(read_record(value))
        except Malformed as malformed:
            self._throttle.warn("command skipped", malformed.reason)
            return
        self._bus.publish(events if self._traders is None else self._traders.without_own(events))

    def _publish_accounts(self) -> None:
        if self._accounts is not None:
            self._bus.publish_accounts(self._accounts.take_changes())

    def _publish_snapshots(self, symbols: list[str]) -> None:
        # A rejected order's symbol may be one that has no book.
        traded = set(self._engine.symbols)
        self._bus.publish([self._engine.snapshot(symbol) for symbol in symbols if symbol in traded])
