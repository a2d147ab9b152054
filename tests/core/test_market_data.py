"""The property: whatever the engine publishes, whoever joins, leaves, reads slowly or comes back, and whatever partitions
are lost and read again, each client's frames say exactly what the contract has them say."""

from __future__ import annotations

import gc
import json
import random
import weakref
from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.channels import parse_channel
from core.history import Entry
from core.replay import Gaps, Replay
from core.trades import Trade
from tests.core.fakes import Client
from tests.core.floor import EPOCH, Floor
from tests.core.naive import State, exact

TICK = Decimal("0.01")
SYMBOLS_OF = {0: ("A/A", "B/B"), 1: ("C/C",), 2: ("D/D",)}
PARTITION_OF = {symbol: partition for partition, symbols in SYMBOLS_OF.items() for symbol in symbols}
SYMBOLS = tuple(PARTITION_OF)
CLIENTS = range(4)
MAX_BYTES = 4000
HISTORY = 12
WARM_UP = 15
STUCK_SECONDS = 30

LONG = "0123456789012345678901234567890"
BIDS = ("99.99", "99.98", "99.90", "99.5", "98", "97." + LONG, "97." + LONG[:-1] + "1", "1E+1")
ASKS = ("100.01", "100.010", "100.02", "100.1", "101", "102." + LONG, "102." + LONG[:-1] + "1", "1E+3")
QUANTITIES = ("1", "2.50", "0." + LONG[1:], LONG[1:], "7E-7", "0")

Kind = tuple[str, str, int, int]  # what, of which symbol, and two numbers that choose among prices and quantities


def engines_record(what: str, symbol: str, one: int, two: int, time_ms: int) -> bytes:
    """One record as the engine writes it."""
    bid, ask = BIDS[one % len(BIDS)], ASKS[two % len(ASKS)]
    positive = QUANTITIES[:-1]
    record: dict[str, Any] = {"symbol": symbol, "timestamp": time_ms}
    if what == "fill":
        taker = ("bid", "ask", None)[one % 3]
        record |= {"type": "fill", "buy_order_id": f"b{one}", "sell_order_id": two}
        record |= {"price": (bid, ask)[two % 2], "quantity": positive[two % len(positive)]}
        record |= {"taker_side": taker} if taker else {}
    elif what in ("snapshot", "crossed snapshot"):
        bids = [
            {"price": p, "quantity": positive[(one + n) % len(positive)]} for n, p in enumerate(BIDS) if (one >> n) & 1
        ]
        asks = {Decimal(p): p for n, p in enumerate(ASKS) if (two >> n) & 1}
        record |= {"type": "orderbook_snapshot", "sequence": time_ms, "bids": bids}
        record["asks"] = [{"price": p, "quantity": positive[two % len(positive)]} for p in asks.values()]
        if what == "crossed snapshot":
            record["bids"], record["asks"] = ({"price": "5", "quantity": "1"},), ({"price": "5.0", "quantity": "1"},)
    elif what == "private":
        record |= {"type": "order_filled", "order_id": "o", "user_id": "alice"}
    elif what == "poison":
        return b'{"type":"fill","price":NaN}'
    else:
        changes = [("bid", bid, QUANTITIES[two % len(QUANTITIES)]), ("ask", ask, QUANTITIES[one % len(QUANTITIES)])]
        if what == "crossing":
            changes = [("bid", "5000", "1")]
        deltas = [{"action": "update", "side": side, "price": p, "quantity": q} for side, p, q in changes]
        if what == "malformed":
            deltas = [{"action": "replace"}]
        record |= {"type": "orderbook_delta", "sequence": time_ms, "deltas": deltas[: 1 + one % 2]}
    return json.dumps(record).encode()


PUBLIC = ("fill", "snapshot", "crossed snapshot", "delta", "crossing")


@dataclass
class Life:
    """What is known of one partition since its reading began: every state of every symbol, by offset."""

    begun: int
    states: dict[str, dict[int, State]] = field(default_factory=dict)
    now: dict[str, State] = field(default_factory=dict)

    def fold(self, symbol: str, what: str, value: bytes, offset: int, kafka_ms: int) -> None:
        if what == "malformed" and symbol in self.now:
            self.now[symbol] = self.now[symbol].after_malformed()
            # Nothing was published: it is still the state of the last public event.
        if what in PUBLIC:
            state = self.now.get(symbol, State()).after(json.loads(value), offset, kafka_ms)
            self.now[symbol] = self.states.setdefault(symbol, {})[offset] = state


@dataclass
class Logged:
    symbol: str
    what: str
    value: bytes
    kafka_ms: int


class World:
    """The topic, the gateway's hub, and everybody at it."""

    def __init__(self) -> None:
        self.floor = Floor((), tick_of=lambda _: TICK, history_records=HISTORY)
        self.hub, self.market = self.floor.hub, self.floor.market
        self.topic: dict[int, list[Logged]] = {partition: [] for partition in SYMBOLS_OF}
        self.lives: dict[int, list[Life]] = {partition: [] for partition in SYMBOLS_OF}
        self.served: set[int] = set()
        self.unread: set[int] = set()
        self.time_ms = 1_700_000_000_000
        self.asked: list[tuple[Replay, Gaps]] = []
        self.hub.read_back = self._ask
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
            self.time_ms += gap_ms
            partition = PARTITION_OF[symbol]
            value = engines_record(what, symbol, one, two, self.time_ms)
            self.topic[partition].append(Logged(symbol, what, value, self.time_ms))
            if partition in self.served:
                offset = len(self.topic[partition]) - 1
                self.life(partition).fold(symbol, what, value, offset, self.time_ms)
                drained.append((partition, offset, value))
                if what in PUBLIC:
                    self.unread.discard(partition)
        self.floor.say(*drained, time_ms=self.time_ms)

    def life(self, partition: int) -> Life:
        return self.lives[partition][-1]

    def lose(self, partition: int) -> None:
        if partition in self.served:
            self.served.discard(partition)
            self.unread.discard(partition)
            self.floor.lose(partition)

    def serve(self, partition: int, warm_up: int = 0) -> None:
        """Warm a partition up by its last records, and show it."""
        if partition in self.served:
            return
        log = self.topic[partition]
        begun = max(0, len(log) - warm_up)
        life = Life(begun)
        self.lives[partition].append(life)
        self.market.begin(partition, begun)
        for offset in range(begun, len(log)):
            logged = log[offset]
            self.market.fold(partition, offset, logged.value, logged.kafka_ms)
            life.fold(logged.symbol, logged.what, logged.value, offset, logged.kafka_ms)
            if offset == begun:
                self.hub.beat()
        self.served.add(partition)
        self.hub.serve([partition])
        self.hub.beat()

    def set_unread(self, partitions: set[int]) -> None:
        self.unread = partitions & self.served
        self.hub.set_unread(set(self.unread))

    def answer(self, works: bool) -> None:
        """The bus answers the oldest question for what the history no longer has."""
        if not self.asked:
            return
        replay, gaps = self.asked.pop(0)
        found: dict[int, list[Entry]] = {}
        for partition, (first, end) in gaps.items():
            found[partition] = []
            for offset in range(first, end):
                logged = self.topic[partition][offset]
                if logged.what in PUBLIC and replay.line.wants(logged.symbol):
                    found[partition].append(self._entry(offset, logged))
        self.hub.read_back_done(replay, found if works else None)

    def _entry(self, offset: int, logged: Logged) -> Entry:
        trade = None
        if logged.what == "fill":
            e = json.loads(logged.value)
            side = {"bid": "buy", "ask": "sell", None: "buy"}[e.get("taker_side")]
            ids = e["buy_order_id"], e["sell_order_id"]
            trade = Trade(Decimal(e["price"]), Decimal(e["quantity"]), side, e["timestamp"], *ids)
        return Entry(PARTITION_OF[logged.symbol], offset, logged.kafka_ms, logged.symbol, logged.value, trade)

    def pass_time(self, seconds: float) -> None:
        end = self.floor.now + seconds
        while self.floor.now < end:
            self.floor.now = min(end, self.floor.now + 0.1)
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


class Watch:
    """One subscription as its client sees it."""

    def __init__(self, peer: Peer, name: str, as_objects: bool, since: Any) -> None:
        self.peer, self.world = peer, peer.world
        self.name = parse_channel(name)
        self.as_objects = as_objects
        self.joined_at = self.world.floor.now
        self.is_first = True
        self.seqs: dict[int, int] = {}
        self.since = since
        self.is_resumed_again = self.world.served != set(SYMBOLS_OF)  # or a partition was lost since
        self.is_stale = False
        self.holds: Any = None
        self.life = 0
        self.owed: list[int] = []
        self.news_at: float | None = None
        self.heard_at: float | None = None
        symbol = self.name.symbol
        self.cursor: dict[int, int | None] = dict.fromkeys(SYMBOLS_OF)
        for partition in self.world.served if since is None else ():
            self.cursor[partition] = len(self.world.topic[partition]) - 1
        if symbol is not None:
            self.partition = PARTITION_OF[symbol]
            self.life = max(0, len(self.world.lives[self.partition]) - 1)

    @property
    def symbol(self) -> str:
        assert self.name.symbol is not None
        return self.name.symbol

    def hear(self, m: dict[str, Any]) -> None:
        n, seq = m["notification"], int(m["seq"])
        partition = int(m["partition"]) if self.name.symbol is None else self.partition
        assert ("partition" in m) is (self.name.symbol is None)
        assert set(m) <= {"channel_name", "seq", "notification", "partition", "epoch", "recovered"}
        assert seq >= self.seqs.get(partition, 0), "the sequence went back"
        self.seqs[partition] = seq
        if self.is_first:
            assert m["epoch"] == EPOCH
        elif "epoch" in m:
            assert self.is_resumed_again
            assert "recovered" in m
        if self.name.kind in ("book", "ticker", "lwt"):
            assert "recovered" not in m
            self.hear_quote(n, seq)
        else:
            self.hear_lossless(m, n, seq, partition)
        self.is_first = False
        self.heard_at = self.world.floor.now

    # Quotes.

    def hear_quote(self, n: dict[str, Any], seq: int) -> None:
        if "stale" in n:
            assert n == {"stale": True}
            assert not self.is_stale or self.peer.was_slow, "told twice"
            self.is_stale, self.holds = True, None
            return
        is_snapshot = n.pop("snapshot", False)
        assert not self.is_stale or is_snapshot, "nothing but a snapshot heals"
        assert not self.is_first or is_snapshot
        if n.pop("conflated", False):
            assert is_snapshot
            assert self.peer.was_slow
        self.is_stale = False
        {"book": self.hear_book, "ticker": self.hear_state, "lwt": self.hear_state}[self.name.kind](n, seq, is_snapshot)
        if is_snapshot and not self.is_first:
            self.news_at = None if self.peer.was_slow else self.world.floor.now

    def states_at(self, seq: int) -> list[tuple[int, State]]:
        """What the symbol was at an offset, in each life from the one last heard of on."""
        lives = self.world.lives[self.partition]
        found = [(n, life.states.get(self.symbol, {}).get(seq)) for n, life in enumerate(lives)]
        return [(n, state) for n, state in found if state is not None and n >= self.life]

    def hear_state(self, n: dict[str, Any], seq: int, is_snapshot: bool) -> None:
        if self.name.kind == "ticker":
            time = n.pop("mark_timestamp")
            fits = [(k, s) for k, s in self.states_at(seq) if s.as_ticker() == n and not s.stale]
            assert fits, (n, [s.as_ticker() for _, s in self.states_at(seq)])
            assert any(time <= Decimal(s.time_ms) / 1000 for _, s in fits)
        else:
            fits = [(k, s) for k, s in self.states_at(seq) if s.as_lwt() == n and not s.stale]
            assert fits, (n, [s.as_lwt() for _, s in self.states_at(seq)])
        self.life = fits[0][0]
        if not is_snapshot:
            self.keep_interval()
        self.holds = n

    def keep_interval(self) -> None:
        now = self.world.floor.now
        if self.peer.was_slow:
            self.news_at = None  # who knows when it was said
            return
        if self.news_at is not None:
            assert now - self.news_at >= self.name.interval_ms / 1000 - 1e-9, "sooner than the interval"
        self.news_at = now

    def hear_book(self, n: dict[str, Any], seq: int, is_snapshot: bool) -> None:
        stats = n.pop("stats_24h", None)
        assert set(n) == {"trades", "bid_changes", "ask_changes", "total_bid_amount", "total_ask_amount", "time"}
        has_news = n["bid_changes"] or n["ask_changes"] or n["trades"]
        if is_snapshot:
            assert n["trades"] == []
            self.holds = ({}, {})
            # Of the batch that showed that its partition is read again, the trades come behind the snapshot.
            self.owed = self.world.fills(self.symbol, -1 if self.is_first else self.cursor[self.partition] or -1, seq)
            self.cursor[self.partition] = seq
        assert self.holds is not None, "changes before a snapshot"
        for holds, changes, sign in zip(self.holds, (n["bid_changes"], n["ask_changes"]), (-1, 1), strict=True):
            assert [p for p, _, _ in changes] == sorted((p for p, _, _ in changes), key=lambda p: sign * p)
            for price, old, new in changes:
                assert old != new
                assert holds.get(price, 0) == old, "the chain is broken"
                if new:
                    holds[price] = new
                else:
                    del holds[price]
        at_seq = self.states_at(seq)
        shown = [n["total_bid_amount"], n["total_ask_amount"], n["time"], stats]
        fits = [
            (k, s)
            for k, s in at_seq
            if s.known and not s.stale and s.window(self.name.grouping, self.name.depth, TICK) == self.holds
            if shown == [s.total(s.bids), s.total(s.asks), Decimal(s.time_ms) / 1000, s.stats_24h()]
        ]
        assert fits, (self.holds, shown, at_seq)
        self.life, state = fits[0]
        if not is_snapshot:
            cursor = self.cursor[self.partition]
            assert cursor is not None
            expected = [fill for fill in state.fills if cursor < fill.offset <= seq]
            if len(n["trades"]) > len(expected):
                owed = self.owed[len(expected) - len(n["trades"]) :]
                expected = [self.world.fill_at(self.symbol, offset) for offset in owed] + expected
            self.owed = []
            assert len(n["trades"]) == len(expected), "a trade was left out or told twice"
            for shown, fill in zip(n["trades"], expected, strict=True):
                assert fill.is_shown_as(shown, self.as_objects)
            self.cursor[self.partition] = seq
            if has_news:
                self.keep_interval()
            elif self.heard_at is not None and not self.peer.was_slow:
                assert self.world.floor.now - max(self.heard_at, self.joined_at) > 0, "a heartbeat right after news"

    # Lossless ones.

    def hear_lossless(self, m: dict[str, Any], n: dict[str, Any], seq: int, partition: int) -> None:
        if "recovered" in m:
            assert self.since is not None if self.is_first else self.is_resumed_again
            if not m["recovered"]:
                self.cursor = dict.fromkeys(SYMBOLS_OF)
                if self.name.symbol is not None and not n.get("snapshot"):
                    self.cursor[partition] = seq if n in ({}, {"trades": []}) else seq - 1
            elif self.is_first:
                assert self.since is not None
                assert self.since["epoch"] in (None, EPOCH)
                position = self.since["seq"]
                positions = {partition: position} if isinstance(position, int) else position
                self.cursor = {p: positions.get(p, positions.get(str(p), -1)) for p in SYMBOLS_OF}
        else:
            assert not (self.is_first and self.since), "nothing about what was missed"
        if self.name.kind == "trades":
            self.hear_trades(n, seq, partition)
        elif n:
            self.hear_event(n, seq, partition)
        elif self.name.symbol is not None and self.cursor[partition] is not None:
            assert self.world.public(self.symbol, self.cursor[partition], seq) == []
            self.cursor[partition] = seq

    def hear_trades(self, n: dict[str, Any], seq: int, partition: int) -> None:
        if n.pop("snapshot", False):
            begun = [life.begun for life in self.world.lives[partition]]
            offsets = [self.world.fills(self.symbol, start - 1, seq)[-100:] for start in begun]
            assert any(self.are_these(n["trades"], choice) for choice in offsets)
        else:
            cursor = self.cursor[partition]
            assert cursor is not None, "trades before a snapshot"
            assert self.are_these(n["trades"], self.world.fills(self.symbol, cursor, seq)), "a gap or a repeat"
        assert set(n) == {"trades"}
        self.cursor[partition] = seq

    def are_these(self, shown: list[Any], offsets: list[int]) -> bool:
        fills = [self.world.fill_at(self.symbol, offset) for offset in offsets]
        return len(shown) == len(fills) and all(
            fill.is_shown_as(one, self.as_objects) for fill, one in zip(fills, shown, strict=True)
        )

    def hear_event(self, n: dict[str, Any], seq: int, partition: int) -> None:
        event = n.pop("event")
        is_snapshot = n.pop("snapshot", False)
        assert n == {}
        if is_snapshot:
            lives = self.world.lives[partition]
            fits = []
            for life in lives:
                states = life.states.get(event["symbol"], {})
                at = bisect_right(list(states), seq)
                fits += [states[list(states)[at - 1]]] if at else []
            shown = tuple({Decimal(x["price"]): Decimal(x["quantity"]) for x in event[s]} for s in ("bids", "asks"))
            assert any((s.bids, s.asks) == shown and s.known for s in fits), (shown, fits)
        else:
            logged = self.world.topic[partition][seq]
            assert logged.what in PUBLIC
            assert (
                json.loads(logged.value) == json.loads(json.dumps(event, default=str)) or exact(logged.value) == event
            )
            symbols = SYMBOLS if self.name.symbol is None else (self.symbol,)
            cursor = self.cursor[partition]
            if cursor is not None:
                missed = [o for s in symbols if PARTITION_OF[s] == partition for o in self.world.public(s, cursor, seq)]
                assert sorted(missed) == [seq], "a gap or a repeat"
        self.cursor[partition] = seq

    # What has to have been said by now, to who reads at once.

    def must_be_up_to_date(self) -> None:
        now, world = self.world.floor.now, self.world
        if self.name.symbol is None:
            return
        state = world.now_of(self.symbol)
        if self.name.kind in ("trades", "events"):
            replaying = any(r.subscriber is self.peer.client.subscriber for r, _ in world.asked)
            cursor = self.cursor[self.partition]
            if not replaying and cursor is not None and world.is_read(self.symbol) and not self.is_first:
                offsets = world.fills if self.name.kind == "trades" else world.public
                assert offsets(self.symbol, cursor, len(world.topic[self.partition]) - 1) == [], "not told at once"
            return
        if not world.is_read(self.symbol) or (state is not None and state.stale):
            assert self.is_stale or self.is_first, "not told that it is stale"
            return
        if state is None or (self.name.kind == "book" and not state.known):
            return
        if self.name.kind == "book":
            present: Any = state.window(self.name.grouping, self.name.depth, TICK)
            unsaid = present != self.holds or any(f.offset > (self.cursor[self.partition] or -1) for f in state.fills)
        else:
            present = state.as_ticker() if self.name.kind == "ticker" else state.as_lwt()
            unsaid = present != self.holds
        told_at = self.news_at or self.heard_at or self.joined_at
        waits = now - told_at < self.name.interval_ms / 1000
        assert not unsaid or waits, "not told when it was due"
        if self.name.kind == "book" and self.heard_at is not None and not waits:
            assert now - self.heard_at < 5.0 + 0.5, "no heartbeat"


class Peer:
    """One client and what it made of its frames."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = Client(MAX_BYTES)
        self.watches: dict[str, Watch] = {}
        self.is_slow = False
        self.was_slow = False  # since its socket stopped, until it has got all there was
        self.was_ended = False
        self.stopped_at = 0.0
        world.hub.add(self.client.subscriber, stream=False)

    @property
    def is_over(self) -> bool:
        return bool(self.client.ends)

    def join(self, names: list[str], since: Any, as_objects: bool) -> None:
        if self.is_over:
            return
        self.look()
        for name in names:
            partition = PARTITION_OF.get(parse_channel(name).symbol or "")
            position = self.position(since, partition) if since is not None else None
            if self.was_slow:
                # What was on its way for the last subscription cannot be told apart from what is for this one.
                self.client.transport.settle()
                self.look()
            is_lossless = name.startswith(("trades", "events"))
            self.watches[name] = Watch(self, name, as_objects, position if is_lossless else None)
            given = {name: position} if position is not None else None
            self.world.floor.subscribe(self.client, name, since=given, objects=as_objects)
            self.look()

    def position(self, since: tuple[int, int], partition: int | None) -> dict[str, Any]:
        back, life = since
        epoch = (None, EPOCH, EPOCH, "another")[life]
        if partition is None:
            seqs = {str(p): max(-1, len(log) - 1 - back) for p, log in self.world.topic.items()}
            return {"epoch": epoch, "seq": seqs}
        return {"epoch": epoch, "seq": max(-1, len(self.world.topic[partition]) - 1 - back)}

    def leave(self, name: str) -> None:
        if self.was_slow:
            self.client.transport.settle()
            self.look()
        assert self.world.hub.unsubscribe(self.client.subscriber, [name]) == ([name] if name in self.watches else [])
        self.watches.pop(name, None)

    def stop(self) -> None:
        if not self.is_slow:
            self.is_slow = self.was_slow = True
            self.stopped_at = self.world.floor.now
            self.client.transport.room = 0

    def go(self) -> None:
        self.client.transport.settle()
        self.is_slow = False
        self.look()
        self.was_slow = self.is_slow
        for watch in self.watches.values():
            watch.news_at, watch.heard_at = None, self.world.floor.now  # who knows when it was said

    def look(self) -> None:
        outbox = self.client.outbox
        assert outbox.waiting_bytes - outbox._exempt_bytes <= MAX_BYTES
        for message in self.client.exact_messages():
            if message.get("type") == "stream_status":
                continue
            if self.is_over:
                continue  # what had been sent before; its subscriptions are gone
            watch = self.watches.get(message["channel_name"])
            assert watch is not None, "said to somebody who left"
            watch.hear(message)
        if self.client.ends:
            assert self.was_slow or self.was_ended, "a reader that keeps up was ended"
            self.was_ended = True
            self.watches.clear()
        elif not self.was_slow:
            for watch in self.watches.values():
                watch.must_be_up_to_date()


KINDS = st.tuples(
    st.sampled_from(["fill", "fill", "delta", "delta", "delta", "snapshot", "snapshot", "crossing", "malformed", "private",
                     "poison", "crossed snapshot"]),
    st.sampled_from(SYMBOLS),
    st.integers(0, 255),
    st.integers(0, 255),
)  # fmt: skip
CHANNELS = st.one_of(
    st.builds(
        "book.{}.{}.{}.{}".format,
        st.sampled_from(SYMBOLS),
        st.sampled_from(["none", "1", "10", "5000"]),
        st.sampled_from(["1", "2", "5", "all"]),
        st.sampled_from(["raw", "100ms", "1000ms", "5000ms"]),
    ),
    st.builds(
        "{}.{}.{}".format,
        st.sampled_from(["ticker", "lwt"]),
        st.sampled_from(SYMBOLS),
        st.sampled_from(["raw", "500ms"]),
    ),
    st.builds("{}.{}".format, st.sampled_from(["trades", "events"]), st.sampled_from(SYMBOLS)),
    st.just("events"),
)
SINCES = st.none() | st.tuples(st.integers(-3, 30), st.integers(0, 3))
WHO = st.sampled_from(CLIENTS)
PARTITIONS = st.sampled_from(sorted(SYMBOLS_OF))
SAY = st.tuples(st.just("say"), st.lists(KINDS, min_size=1, max_size=8), st.sampled_from([0, 7, 7, 1000, 50_000_000]))
JOIN = st.tuples(st.just("join"), WHO, st.lists(CHANNELS, min_size=1, max_size=3, unique=True), SINCES, st.booleans())
STEPS = st.one_of(
    SAY, SAY, SAY, JOIN, JOIN,
    st.tuples(st.just("leave"), WHO, st.integers(0, 9)),
    st.tuples(st.just("replace"), WHO),
    st.tuples(st.just("stop"), WHO),
    st.tuples(st.just("go"), WHO),
    st.tuples(st.just("drip"), WHO, st.sampled_from([1, 300, 3000])),
    st.tuples(st.just("time"), st.sampled_from([0.05, 0.3, 1.1, 6.0])),
    st.tuples(st.just("lose"), PARTITIONS),
    st.tuples(st.just("serve"), PARTITIONS, st.sampled_from([0, 2, WARM_UP, 1000])),
    st.tuples(st.just("unread"), st.sets(PARTITIONS, max_size=2)),
    st.tuples(st.just("answer"), st.booleans()),
)  # fmt: skip


def take_step(world: World, kind: str, *rest: Any) -> None:
    if kind == "say":
        world.say(*rest)
    elif kind == "lose":
        for peer in world.peers:
            for watch in peer.watches.values():
                watch.is_resumed_again = True
                if watch.is_first:
                    watch.cursor = dict.fromkeys(SYMBOLS_OF)  # it has had nothing yet that it could miss
        world.lose(*rest)
    elif kind == "serve":
        world.serve(*rest)
    elif kind == "unread":
        world.set_unread(*rest)
    elif kind == "answer":
        world.answer(*rest)
    elif kind == "time":
        world.pass_time(*rest)
    else:
        number, *more = rest
        peer = world.peers[number]
        if kind == "replace" or peer.is_over:
            world.hub.remove(peer.client.subscriber)
            peer.client.outbox.close()
            world.peers[number] = Peer(world)
        elif kind == "join":
            peer.join(*more)
        elif kind == "leave" and peer.watches:
            peer.leave(sorted(peer.watches)[more[0] % len(peer.watches)])
        elif kind == "stop":
            peer.stop()
        elif kind == "go":
            peer.go()
        elif kind == "drip" and peer.is_slow:
            peer.client.transport.take(more[0])
            peer.client.transport.room = 0
            peer.client.transport.turn()


def end(world: World) -> None:
    """Everybody reads all there is; then all leave, and nothing may be left of them."""
    world.set_unread(set())
    for partition in SYMBOLS_OF:
        world.serve(partition, WARM_UP)
    while world.asked:
        world.answer(works=True)
    world.pass_time(6)
    for peer in world.peers:
        peer.go()
    world.pass_time(6)
    for partition, symbols in SYMBOLS_OF.items():
        world.say([("fill", symbol, 1, 1) for symbol in symbols], 7)
        while world.asked:
            world.answer(works=True)
        world.pass_time(4)  # whoever is ahead of the instance has had its time
        last = len(world.topic[partition]) - 1
        for peer in world.peers:
            for watch in peer.watches.values():
                if watch.name.kind in ("trades", "events") and watch.name.symbol in symbols:
                    cursor = watch.cursor[partition]
                    assert cursor is not None
                    assert world.fills(watch.symbol, cursor, last) == []
    lines = [weakref.ref(line) for line in world.hub._lines.values()]
    for peer in world.peers:
        world.hub.remove(peer.client.subscriber)
    assert not world.hub._lines
    assert not world.hub._lines_of
    assert not world.hub.subscribers
    for symbol in world.market.symbols:
        assert world.market.of(symbol).listeners == 0
        assert len(world.market.of(symbol).views) == 0
    world.peers.clear()
    world.floor.pass_time(61)
    gc.collect()
    assert [line for line in lines if line() is not None] == []


def prepared() -> World:
    """A world in which something is known and everybody listens, so that few steps are wasted."""
    world = World()
    world.say([("snapshot", symbol, 0b01101011, 0b10010111) for symbol in SYMBOLS], 7)
    world.peers[0].join(["book.A/A.none.5.raw", "trades.A/A", "events.C/C"], None, False)
    world.peers[1].join(["book.A/A.10.2.1000ms", "book.C/C.none.all.100ms", "ticker.A/A.500ms"], None, True)
    world.peers[2].join(["events", "lwt.A/A.raw", "book.A/A.none.5.raw", "trades.C/C"], None, False)
    return world


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=8, max_size=40))
def test_channels_say_what_the_contract_says_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    world = prepared()
    for step in steps:
        take_step(world, *step)
        world.look()
    end(world)


# What needs a long history is found by chance, and better by many long runs than by small examples.

WEIGHTS = {
    "say": 10.0, "join": 5.0, "time": 2.0, "stop": 1.5, "answer": 1.5, "go": 1.2, "serve": 1.2, "leave": 1.0, "drip": 1.0,
    "lose": 0.6, "unread": 0.6, "replace": 0.5,
}  # fmt: skip
WHATS = (
    ["fill"] * 2 + ["delta"] * 4 + ["snapshot"] * 2 + ["crossing", "malformed", "private", "poison", "crossed snapshot"]
)


def any_channel(chance: random.Random) -> str:
    symbol, pick = chance.choice(SYMBOLS), chance.choice
    match pick(["book", "book", "book", "ticker", "lwt", "trades", "events", "all"]):
        case "book":
            grouping, depth = pick(["none", "1", "10", "5000"]), pick(["1", "2", "5", "all"])
            return f"book.{symbol}.{grouping}.{depth}.{pick(['raw', '100ms', '1000ms', '5000ms'])}"
        case "trades" | "events" as kind:
            return f"{kind}.{symbol}"
        case "all":
            return "events"
        case kind:
            return f"{kind}.{symbol}.{pick(['raw', '500ms'])}"


def any_step(chance: random.Random) -> tuple[Any, ...]:
    pick = chance.choice
    [kind] = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
    who = pick(CLIENTS)
    match kind:
        case "say":
            numbers = range(256)
            said = [(pick(WHATS), pick(SYMBOLS), pick(numbers), pick(numbers)) for _ in range(chance.randrange(1, 9))]
            return kind, said, pick([0, 7, 7, 1000, 50_000_000])
        case "join":
            names = list(dict.fromkeys(any_channel(chance) for _ in range(chance.randrange(1, 4))))
            return (
                kind,
                who,
                names,
                pick([None, (chance.randrange(-3, 31), chance.randrange(4))]),
                chance.random() < 0.4,
            )
        case "time":
            return kind, pick([0.05, 0.3, 1.1, 6.0])
        case "answer":
            return kind, chance.random() < 0.7
        case "serve":
            return kind, pick(list(SYMBOLS_OF)), pick([0, 2, WARM_UP, 1000])
        case "lose":
            return kind, pick(list(SYMBOLS_OF))
        case "unread":
            return kind, set(chance.sample(list(SYMBOLS_OF), chance.randrange(3)))
        case "leave":
            return kind, who, chance.randrange(10)
        case "drip":
            return kind, who, pick([1, 300, 3000])
    return kind, who


@pytest.mark.parametrize("seed", range(40))
def test_channels_say_what_the_contract_says_in_long_runs(seed: int) -> None:
    chance = random.Random(seed)
    world = prepared()
    for _ in range(120):
        take_step(world, *any_step(chance))
        world.look()
    end(world)
