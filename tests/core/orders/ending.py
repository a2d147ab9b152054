"""A directory at an account service, whose time, and which partitions it leads, a test has the say of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.messages.kept_state import VERSION, Cursor
from core.messages.times import Times
from core.orders.releases import Releases
from core.orders.state import OrderState
from tests.core.fake_orders import Fed, command, event


def anybody(_order_id: str, _user_id: str) -> bool:
    return True


class Ending(Fed):
    """`now` is in seconds. All is kept, on so many partitions."""

    def __init__(
        self, partitions: int = 1, may_be_reserved: Callable[[str, str], bool] | None = anybody, **options: Any
    ) -> None:
        self.now = 1.0
        self.partitions = partitions
        self.releases = Releases(may_be_reserved)
        super().__init__(**({"releases": self.releases, "times": Times(lambda: self.now)} | options))
        self.kept = OrderState(self.directory, lambda: self.partitions)
        self.led: set[int] = set()
        self.wakes = 0
        self.releases.leads = self.led.__contains__
        self.releases.wake = self._wake

    def _wake(self) -> None:
        self.wakes += 1

    def lead(self, partition: int = 0, cursor: Cursor | None = None, kept: Mapping[str, bytes] | None = None) -> Ending:
        self.led.add(partition)
        for _ in self.releases.take_over(partition, cursor, kept or {}):
            pass
        return self

    def ended(self, **kinds: str) -> Ending:
        """Orders of these names, all of alice, each with such an end."""
        self.commands(*(command(name) for name in kinds))
        return self.events(*(event(kind, name) for name, kind in kinds.items()))

    def asked(self, now: float = 0.0) -> list[str]:
        """The orders that the service is asked to release now, in that order; it has answered none of them yet."""
        found = []
        while (due := self.releases.next(now, self.directory.get)) is not None:
            self.releases.begin(due)
            found.append(due.order_id)
        return found

    def written(self, keys: set[str] | None = None, partition: int = 0) -> dict[str, bytes | None]:
        """The releases in what is to be written for these keys, None for all."""
        cut = self.kept.cut(partition, keys, is_whole=False)
        return {record.key: record.value for piece in cut for record in piece if record.key.startswith("release/")}

    def changed(self, partition: int = 0) -> set[str]:
        """Their keys in the journal, of its last generation."""
        journal = self.kept.journal
        return {key for key in journal.since(partition, journal.generation) if key.startswith("release/")}


def cursor(events: int, releases: int | None = 0, ended_to: dict[int, int] | None = None) -> Cursor:
    """Whoever wrote it had read so many events of partition 0."""
    return Cursor(
        market=events,
        events={0: events},
        orders={0: 0},
        version=VERSION,
        market_epoch="",
        order_epoch="",
        known_since_ms=None,
        time_ms=0,
        releases=releases,
        ended_to=ended_to or {},
    )
