"""A market and a hub as the pump drives them, without Kafka, sockets and time of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from core.channels.client_position import read_since
from core.channels.hub import Hub
from core.channels.names import parse_channel
from core.channels.replay import Gaps, Replay
from core.delivery.observer import Observer
from core.errors import PoisonedRecord
from core.market.history import Entry
from core.market.market import Market
from core.messages.times import Times
from tests.core.fakes import Client

EPOCH = 'topic"7.4'
BEGAN = 1000.0
WALL_MS = 1_700_000_000_000

# The least by which times around `BEGAN` differ for certain.
SHORTEST = 2.0**-40

Record = tuple[int, int, bytes]


class Counts(Observer):
    """What the hub told whoever counts."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[int, int]] = []
        self.conflations: list[str] = []
        self.closes: list[str] = []
        self.resumes: list[str] = []

    def delivered(self, writes: int, size: int, messages: int) -> None:
        self.deliveries.append((writes, size))

    def conflated(self, kind: str) -> None:
        self.conflations.append(kind)

    def slow_closed(self, cause: str) -> None:
        self.closes.append(cause)

    def resumed(self, outcome: str) -> None:
        self.resumes.append(outcome)


class DrivenHub:
    """Partitions are served unless told otherwise; `now` is the hub's clock, and `wall_ms` what our own said when it began."""

    def __init__(
        self,
        served: tuple[int, ...] = (0, 1, 2, 3),
        *,
        tick_of: Callable[[str], Decimal | None] = lambda _symbol: Decimal("0.01"),
        history_records: int = 10_000,
        history_seconds: float = 3600.0,
        is_sliced: bool = False,
    ) -> None:
        """`is_sliced`: whatever gives way does so after its smallest part, and goes on when it is given a `turn`."""
        self.now = BEGAN
        self.wall_ms = WALL_MS
        self.odd_times: list[tuple[str, str, int]] = []
        self.times = Times(self._wall_clock, lambda *odd: self.odd_times.append(odd))
        self.epoch = EPOCH
        self.poisoned: list[tuple[PoisonedRecord, int, int]] = []
        self.market = Market(
            lambda *poison: self.poisoned.append(poison),
            lambda *_event: None,
            self._on_stale,
            times=self.times,
            tick_of=tick_of,
            history_records=history_records,
            history_seconds=history_seconds,
        )
        self.distrusted: list[tuple[str, str]] = []
        self.counts = Counts()
        self._reads = 0
        self.is_sliced = is_sliced
        self.hub = Hub(self.market, lambda: self.epoch, self._clock, self.counts)
        self.turns: deque[Callable[[], None]] = deque()
        # When something that had given way went on last.
        self.went_on_at = 0.0
        if is_sliced:
            self.hub.publishing.at_once = 0
            self.hub.slices.slice_seconds = SHORTEST
            self.hub.slices.schedule_slice = self.turns.append
        self.asked_back: list[tuple[Replay, Gaps]] = []
        for partition in served:
            self.hub.partition_changes.begin(partition, 0)
        self.hub.partition_changes.serve(list(served))

    def _clock(self) -> float:
        """Where things are done in slices, each look at it takes as long as one."""
        self._reads += self.is_sliced
        return self.now + self._reads * SHORTEST

    def _wall_clock(self) -> float:
        # In the middle of a millisecond, so that none is lost in binary.
        return (self.wall_ms + round((self.now - BEGAN) * 1000) + 0.5) / 1000

    def _on_stale(self, symbol: str, cause: str) -> None:
        self.distrusted.append((symbol, cause))
        self.hub.publishing.mark_untrusted(symbol)

    def give_turns(self, most: float = float("inf")) -> None:
        """Let what has given way go on, for so many slices at most."""
        while self.turns and most > 0:
            self.went_on_at = self.now
            self.turns.popleft()()
            most -= 1

    def stop_slicing(self) -> None:
        """From now on nothing gives way."""
        self.hub.slices.slice_seconds = float("inf")
        self.hub.slices.schedule_slice = lambda go_on: go_on()
        self.give_turns()

    def say(self, *records: Record, live: bool = True, time_ms: int = 0) -> None:
        """Records arrive in one drain of the pump."""
        news = []
        for partition, offset, value in records:
            item = self.market.fold(partition, offset, value, time_ms)
            if item is not None and live:
                news.append(item)
        if news:
            self.hub.publish(news)
        self.hub.beat()

    def pass_time(self, seconds: float, step: float | None = None) -> None:
        """The clock goes on, and the pump beats each `step` seconds (once at the end if None)."""
        end = self.now + seconds
        while step is not None and self.now + step < end:
            self.now += step
            self.hub.beat()
        self.now = end
        self.hub.beat()

    def lose(self, partition: int) -> None:
        """A partition is revoked, or its records are gone."""
        self.hub.partition_changes.lose(partition)

    def connect(
        self,
        *channels: str,
        stream: bool = False,
        max_bytes: int = 1 << 20,
        room: float = float("inf"),
        objects: bool = False,
    ) -> Client:
        client = Client(max_bytes, room)
        self.hub.add(client.subscriber, stream)
        if channels:
            self.subscribe(client, *channels, objects=objects)
        return client

    def subscribe(
        self, client: Client, *channels: str, since: dict[str, Any] | None = None, objects: bool = False
    ) -> None:
        names = [parse_channel(name, objects) for name in channels]
        read = {name: read_since(position, name == "events") for name, position in (since or {}).items()}
        self.hub.subscribe(client.subscriber, names, read)

    def may_ask_for_missed_records(self) -> None:
        """From now on gaps are asked for, and answered by `bring_missed_records`."""

        def ask(replay: Replay, gaps: Gaps) -> bool:
            self.asked_back.append((replay, gaps))
            return True

        self.hub.resume.missed_records = ask

    def bring_missed_records(self, found: dict[int, list[Entry]] | None) -> None:
        """The bus answers the oldest question."""
        replay, _ = self.asked_back.pop(0)
        self.hub.resume.on_missed_records(replay, found)
