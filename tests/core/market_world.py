"""The world of the property test of market data: the topic, the gateway's hub, and everybody at it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from core.channels.replay import Gaps, Replay
from core.market.history import Entry
from core.market.trade import Trade
from tests.core.driven_hub import DrivenHub
from tests.core.market_clients import Peer
from tests.core.market_topic import (
    CLIENTS,
    HISTORY,
    PARTITION_OF,
    PUBLIC,
    SYMBOLS_OF,
    TICK,
    Kind,
    Life,
    Logged,
    engines_record,
)
from tests.core.naive import State


class World:
    """The topic, the gateway's hub, and everybody at it."""

    def __init__(self, is_sliced: bool = False) -> None:
        self.driven = DrivenHub((), tick_of=lambda _: TICK, history_records=HISTORY, is_sliced=is_sliced)
        self.hub, self.market = self.driven.hub, self.driven.market
        self.topic: dict[int, list[Logged]] = {partition: [] for partition in SYMBOLS_OF}
        self.lives: dict[int, list[Life]] = {partition: [] for partition in SYMBOLS_OF}
        self.served: set[int] = set()
        self.unread: set[int] = set()
        # What our clock said, by the monotonic one.
        self.clock: list[tuple[float, int]] = [(self.driven.now, self.time_ms)]
        self.asked: list[tuple[Replay, Gaps]] = []
        self.hub.resume.missed_records = self._ask
        self.peers = [Peer(self) for _ in CLIENTS]
        for partition in SYMBOLS_OF:
            self.serve(partition)

    def _ask(self, replay: Replay, gaps: Gaps) -> bool:
        if len(self.asked) >= 2:
            return False
        self.asked.append((replay, gaps))
        return True

    # What a step does.

    def say(self, kinds: list[Kind], gap_ms: int) -> None:
        drained = []
        for what, symbol, one, two in kinds:
            self.jump(gap_ms)
            partition = PARTITION_OF[symbol]
            value = engines_record(what, symbol, one, two, self.time_ms)
            self.topic[partition].append(Logged(symbol, what, value, self.time_ms))
            if partition in self.served:
                offset = len(self.topic[partition]) - 1
                self.life(partition).fold(symbol, what, value, offset, self.time_ms)
                drained.append((partition, offset, value))
                if what in PUBLIC:
                    self.unread.discard(partition)
        self.driven.say(*drained, time_ms=self.time_ms)

    @property
    def time_ms(self) -> int:
        """What our clock says, and the engine's."""
        return self.driven.times.now_ms()

    def jump(self, gap_ms: int) -> None:
        """So much passes in which nobody is looked after."""
        self.driven.wall_ms += gap_ms
        self.clock.append((self.driven.now, self.time_ms))

    def a_second_ago_ms(self) -> int:
        """What our clock said at the beginning of the last second in which everybody was looked after."""
        begun = self.driven.now - 1.0
        return max((wall_ms for now, wall_ms in self.clock if now <= begun), default=self.clock[0][1])

    def life(self, partition: int) -> Life:
        return self.lives[partition][-1]

    def lose(self, partition: int) -> None:
        if partition in self.served:
            self.served.discard(partition)
            self.unread.discard(partition)
            self.driven.lose(partition)

    def serve(self, partition: int, warm_up: int = 0) -> None:
        """Warm a partition up by its last records, and show it."""
        if partition in self.served:
            return
        log = self.topic[partition]
        begun = max(0, len(log) - warm_up)
        life = Life(begun)
        self.lives[partition].append(life)
        self.hub.partition_changes.begin(partition, begun)
        for offset in range(begun, len(log)):
            logged = log[offset]
            self.market.fold(partition, offset, logged.value, logged.kafka_ms)
            life.fold(logged.symbol, logged.what, logged.value, offset, logged.kafka_ms)
            if offset == begun:
                self.hub.beat()
        self.served.add(partition)
        self.hub.partition_changes.serve([partition])
        self.hub.beat()

    def set_unread(self, partitions: set[int]) -> None:
        self.unread = partitions & self.served
        self.hub.partition_changes.set_unread(set(self.unread))

    def answer(self, works: bool) -> None:
        """The bus answers the oldest question for what the history no longer has."""
        if not self.asked:
            return
        replay, gaps = self.asked.pop(0)
        if replay.has_begun and not works:
            # What the history lost while it was read cannot be had: that ends its connection.
            for peer in self.peers:
                peer.was_ended = peer.was_ended or peer.client.subscriber is replay.subscriber
        found: dict[int, list[Entry]] = {}
        for partition, (first, end) in gaps.items():
            found[partition] = []
            for offset in range(first, end):
                logged = self.topic[partition][offset]
                if logged.what in PUBLIC and replay.channel.wants(logged.symbol):
                    found[partition].append(self._entry(offset, logged))
        self.hub.resume.on_missed_records(replay, found if works else None)

    def _entry(self, offset: int, logged: Logged) -> Entry:
        trade = None
        if logged.what == "fill":
            e = json.loads(logged.value)
            side = {"bid": "buy", "ask": "sell", None: "buy"}[e.get("taker_side")]
            ids = str(e["buy_order_id"]), str(e["sell_order_id"])
            at = PARTITION_OF[logged.symbol], offset
            trade = Trade(Decimal(e["price"]), Decimal(e["quantity"]), side, e["timestamp"], *ids, *at)
        return Entry(PARTITION_OF[logged.symbol], offset, logged.kafka_ms, logged.symbol, logged.value, trade)

    def pass_time(self, seconds: float) -> None:
        end = self.driven.now + seconds
        while self.driven.now < end:
            self.driven.now = min(end, self.driven.now + 0.1)
            self.clock.append((self.driven.now, self.time_ms))
            self.hub.beat()
            self.look()

    # What is judged after each step.

    def look(self) -> None:
        for peer in self.peers:
            peer.look()

    def public(self, symbol: str, after: int, upto: int) -> list[int]:
        """Offsets of a symbol's public records in (after, upto]."""
        log = self.topic[PARTITION_OF[symbol]]
        return [o for o in range(after + 1, upto + 1) if log[o].symbol == symbol and log[o].what in PUBLIC]

    def fills(self, symbol: str, after: int, upto: int) -> list[int]:
        log = self.topic[PARTITION_OF[symbol]]
        return [o for o in self.public(symbol, after, upto) if log[o].what == "fill"]

    def fill_at(self, symbol: str, offset: int) -> Any:
        return State().after(json.loads(self.topic[PARTITION_OF[symbol]][offset].value), offset, 0).fills[0]

    def is_read(self, symbol: str) -> bool:
        partition = PARTITION_OF[symbol]
        return partition in self.served and partition not in self.unread

    def now_of(self, symbol: str) -> State | None:
        """The present state, if the symbol has one that is served."""
        partition = PARTITION_OF[symbol]
        return self.life(partition).now.get(symbol) if partition in self.served else None
