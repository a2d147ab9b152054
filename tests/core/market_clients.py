"""Clients in the property test of market data: each holds every frame that it gets against what the world knows."""

from __future__ import annotations

import json
from bisect import bisect_right
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from core.channels.names import parse_channel
from core.channels.subscription import MOST_LEFT
from tests.core.driven_hub import EPOCH
from tests.core.fakes import Client
from tests.core.market_topic import MAX_BYTES, PARTITION_OF, PUBLIC, SYMBOLS, SYMBOLS_OF, TICK
from tests.core.naive import State, exact

if TYPE_CHECKING:
    from tests.core.market_world import World


Book = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]


def apply(levels: dict[Decimal, Decimal], changes: list[Any]) -> None:
    """As a client does that knows nothing but changes."""
    for price, _, new in changes:
        levels[price] = new
        if not new:
            del levels[price]


class Watch:
    """One subscription as its client sees it."""

    def __init__(self, peer: Peer, name: str, as_objects: bool, since: Any) -> None:
        self.peer, self.world = peer, peer.world
        self.name = parse_channel(name)
        self.as_objects = as_objects
        self.joined_at = self.world.driven.now
        self.is_first = True
        self.seqs: dict[int, int] = {}
        self.since = since
        self.is_resumed_again = self.world.served != set(SYMBOLS_OF)  # or a partition was lost since
        self.is_stale = False
        self.before = before = peer.watches.get(name)
        self.begins = before is None or before.begins  # it has had no snapshot yet
        self.is_owed = False
        # What it holds who clears at a snapshot, and (over all subscriptions to the channel) who does not know the word.
        self.holds: Any = None
        self.applied: Book = peer.applied.setdefault(name, ({}, {})) if self.name.kind == "book" else ({}, {})
        self.day: Any = None
        self.life = 0
        self.owed: list[int] = []
        self.news_at: float | None = None
        self.heard_at: float | None = None
        # By partition, the last seq since a notification that begins anew.
        self.held: dict[int, int] = {}
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
        if self.is_first and "epoch" not in m and self.before is not None and self.world.driven.is_sliced:
            self.before.hear(m)  # said before it was its turn to be joined anew
            return
        n, seq = m["notification"], int(m["seq"])
        partition = int(m["partition"]) if self.name.symbol is None else self.partition
        assert ("partition" in m) is (self.name.symbol is None)
        assert set(m) <= {"channel_name", "seq", "notification", "partition", "epoch", "recovered", "prev_seq"}
        assert seq >= self.seqs.get(partition, 0), "the sequence went back"
        self.check_prev_seq(m, n, seq, partition)
        self.held[partition] = seq
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
        self.heard_at = self.world.driven.now

    def check_prev_seq(self, m: dict[str, Any], n: dict[str, Any], seq: int, partition: int) -> None:
        """News names the record that was told before it, unless that came before this instance knows anything."""
        if "epoch" in m and not m.get("recovered"):
            self.held = {}
        is_news = self.name.kind in ("trades", "events") and bool(n) and n.get("trades") != [] and "snapshot" not in n
        if not is_news:
            assert "prev_seq" not in m
            return
        if "prev_seq" not in m:
            # The first of its partition in a replay, which says itself whether something is missing.
            assert "epoch" in m or self.name.symbol is None
            return
        previous = m["prev_seq"]
        if "epoch" not in m:
            assert previous <= self.held.get(partition, previous), "a client would think that it missed something"
        if self.name.kind == "trades":
            before = self.world.fills(self.symbol, -1, seq)[: -len(n["trades"])]
        else:
            symbols = SYMBOLS_OF[partition] if self.name.symbol is None else [self.symbol]
            before = sorted(offset for symbol in symbols for offset in self.world.public(symbol, -1, seq - 1))
        last = before[-1] if before else -1
        begun = max(life.begun for life in self.world.lives[partition])
        assert previous == last or (previous == -1 and last < begun), "whoever misses one would not see it"

    # Quotes.

    def hear_quote(self, n: dict[str, Any], seq: int) -> None:
        if n.pop("stale", False):
            forms: dict[str, Any] = {
                "book": {"trades": [], "bid_changes": [], "ask_changes": []}
                | dict.fromkeys(("total_bid_amount", "total_ask_amount"), 0),
                "ticker": dict.fromkeys(State().as_ticker(0), 0) | {"delta": 1},
                "lwt": {"b": [0, 0, 0], "a": [0, 0, 0], "l": 0, "m": 0},
            }
            n.pop({"book": "time", "ticker": "mark_timestamp", "lwt": ""}[self.name.kind], None)
            assert n == forms[self.name.kind], "a client that does not know the word has to find every member"
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
        if is_snapshot:
            self.begins = False
        if is_snapshot and not self.is_first:
            self.news_at = None if self.peer.was_slow else self.world.driven.now

    def states_at(self, seq: int) -> list[tuple[int, State]]:
        """What the symbol was at an offset, in each life from the one last heard of on."""
        lives = self.world.lives[self.partition]
        found = [(n, life.states.get(self.symbol, {}).get(seq)) for n, life in enumerate(lives)]
        return [(n, state) for n, state in found if state is not None and n >= self.life]

    def hear_state(self, n: dict[str, Any], seq: int, is_snapshot: bool) -> None:
        if self.name.kind == "ticker":
            time = n.pop("mark_timestamp")
            now_ms = self.world.time_ms
            fits = [
                (k, s)
                for k, s in self.states_at(seq)
                if not s.stale and any(s.as_ticker(end_ms) == n for end_ms in s.ends(s.time_ms, now_ms))
            ]
            assert fits, (n, [s.as_ticker(now_ms) for _, s in self.states_at(seq)])
            assert any(time <= Decimal(s.time_ms) / 1000 for _, s in fits)
        else:
            fits = [(k, s) for k, s in self.states_at(seq) if s.as_lwt() == n and not s.stale]
            assert fits, (n, [s.as_lwt() for _, s in self.states_at(seq)])
        self.life = fits[0][0]
        if not is_snapshot:
            self.keep_interval()
        self.holds = n

    def keep_interval(self) -> None:
        now = self.world.driven.now
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
            self.holds = ({}, {})
            # Of the batch that showed that its partition is read again, the trades come behind the snapshot.
            self.owed = self.hear_earlier_trades(n["trades"], seq)
            self.cursor[self.partition] = seq
        assert self.holds is not None, "changes before a snapshot"
        sides = zip(self.holds, self.applied, (n["bid_changes"], n["ask_changes"]), (-1, 1), strict=True)
        for holds, applied, changes, sign in sides:
            gone = [change for change in changes if is_snapshot and not change[2]]
            for part in changes[: len(changes) - len(gone)], gone:
                assert [p for p, _, _ in part] == sorted((p for p, _, _ in part), key=lambda p: sign * p)
            assert changes[len(changes) - len(gone) :] == gone
            for price, held, _ in gone:
                assert applied.get(price) == held, "named as gone, and never held"
            apply(applied, changes)
            for price, old, new in changes[: len(changes) - len(gone)]:
                assert old != new
                assert holds.get(price, 0) == old, "the chain is broken"
                if new:
                    holds[price] = new
                else:
                    del holds[price]
        assert self.applied == self.holds, "who only applies holds something else"
        at_seq = self.states_at(seq)
        shown = [n["total_bid_amount"], n["total_ask_amount"], n["time"]]
        fits = [
            (k, s)
            for k, s in at_seq
            if s.known and not s.stale and s.window(self.name.grouping, self.name.depth, TICK) == self.holds
            if shown == [s.total(s.bids), s.total(s.asks), Decimal(s.time_ms) / 1000]
            if any(s.stats_24h(end_ms) == stats for end_ms in s.ends(s.time_ms, self.world.time_ms))
        ]
        assert fits, (self.holds, shown, at_seq)
        self.life, state = fits[0]
        is_day_news, self.day = stats != self.day, stats
        if not is_snapshot:
            cursor = self.cursor[self.partition]
            assert cursor is not None
            expected = [fill for fill in state.fills if cursor < fill.offset <= seq]
            if len(n["trades"]) > len(expected):
                owed = self.owed[len(expected) - len(n["trades"]) :]
                expected = [self.world.fill_at(self.symbol, offset) for offset in owed] + expected
            elif self.is_owed:
                assert not has_news or self.peer.was_slow, "left out of the first snapshot, and not told behind it"
            self.owed, self.is_owed = [], self.is_owed and not has_news
            assert len(n["trades"]) == len(expected), "a trade was left out or told twice"
            for shown, fill in zip(n["trades"], expected, strict=True):
                assert fill.is_shown_as(shown, self.as_objects)
            self.cursor[self.partition] = seq
            if has_news or is_day_news:
                self.keep_interval()
            elif self.heard_at is not None and not self.peer.was_slow and not self.world.driven.is_sliced:
                # In slices it may have been due before it is said.
                assert self.world.driven.now - max(self.heard_at, self.joined_at) > 0, "a heartbeat right after news"

    def hear_earlier_trades(self, trades: list[Any], seq: int) -> list[int]:
        """Of the first snapshot the last 100, of others none; returns the offsets of those that may yet come."""
        if not self.begins:
            assert trades == []
            return self.world.fills(self.symbol, self.cursor[self.partition] or -1, seq)
        begun = [life.begun for life in self.world.lives[self.partition]]
        lives = [self.world.fills(self.symbol, start - 1, seq)[-100:] for start in begun]
        owed = [offsets[len(trades) :] for offsets in lives if self.are_these(trades, offsets[: len(trades)])]
        assert owed, "other trades than the last ones"
        self.is_owed = bool(min(owed, key=len))
        return min(owed, key=len)

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

    @property
    def names_of(self) -> int | None:
        """The partition that trades have their names of, where they have any."""
        return PARTITION_OF[self.symbol] if self.name.kind == "trades" else None

    def are_these(self, shown: list[Any], offsets: list[int]) -> bool:
        fills = [self.world.fill_at(self.symbol, offset) for offset in offsets]
        return len(shown) == len(fills) and all(
            fill.is_shown_as(one, self.as_objects, self.names_of) for fill, one in zip(fills, shown, strict=True)
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
        now, world = self.world.driven.now, self.world
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
            # A second late at the most.
            ends = state.ends(world.a_second_ago_ms(), world.time_ms)
            unsaid = unsaid or all(state.stats_24h(end_ms) != self.day for end_ms in ends)
        elif self.name.kind == "ticker":
            ends = state.ends(world.a_second_ago_ms(), world.time_ms)
            unsaid = all(state.as_ticker(end_ms) != self.holds for end_ms in ends)
        else:
            unsaid = state.as_lwt() != self.holds
        told_at = self.news_at or self.heard_at or self.joined_at
        waits = now - told_at < self.name.interval_ms / 1000
        assert not unsaid or waits, "not told when it was due"
        # One that was not said when it was due, for others were to be told before, is tried again a quarter of a second later.
        if (
            self.name.kind == "book"
            and self.heard_at is not None
            and not waits
            and now >= world.driven.went_on_at + 0.5
        ):
            assert now - self.heard_at < 5.0 + 0.5, "no heartbeat"


class Peer:
    """One client and what it made of its frames."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = Client(MAX_BYTES)
        self.watches: dict[str, Watch] = {}
        self.applied: dict[str, Book] = {}
        self.left: list[str] = []
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
            self.world.driven.subscribe(self.client, name, since=given, objects=as_objects)
            self.wait_until_done()
            self.look()

    def position(self, since: tuple[int, int], partition: int | None) -> dict[str, Any]:
        back, life = since
        epoch = (None, EPOCH, EPOCH, "another")[life]
        if partition is None:
            seqs = {str(p): max(-1, len(log) - 1 - back) for p, log in self.world.topic.items()}
            return {"epoch": epoch, "seq": seqs}
        return {"epoch": epoch, "seq": max(-1, len(self.world.topic[partition]) - 1 - back)}

    def wait_until_done(self) -> None:
        """What it asks for next is not read before."""
        while self.world.hub.pending(self.client.subscriber) is not None:
            self.world.driven.give_turns(1)
            self.look(is_judged=False)

    def leave(self, name: str) -> None:
        if self.was_slow and name.startswith(("trades", "events")):
            self.client.transport.settle()
            self.look()
        if name in self.applied:
            # Of so many that were left it is known what their clients hold.
            self.left = [*(text for text in self.left if text != name), name]
            for text in self.left[:-MOST_LEFT]:
                if text not in self.watches:
                    del self.applied[text]
            self.left = self.left[-MOST_LEFT:]
        assert self.world.hub.unsubscribe(self.client.subscriber, [name]) == ([name] if name in self.watches else [])
        self.wait_until_done()
        self.watches.pop(name, None)

    def stop(self) -> None:
        if not self.is_slow:
            self.is_slow = self.was_slow = True
            self.stopped_at = self.world.driven.now
            self.client.transport.room = 0

    def go(self) -> None:
        self.client.transport.settle()
        self.is_slow = False
        self.look()
        self.was_slow = self.is_slow
        for watch in self.watches.values():
            watch.news_at, watch.heard_at = None, self.world.driven.now  # who knows when it was said

    def look(self, is_judged: bool = True) -> None:
        outbox = self.client.outbox
        assert outbox.waiting_bytes - outbox._exempt_bytes <= MAX_BYTES
        for message in self.client.exact_messages():
            if message.get("type") == "stream_status":
                continue
            if self.is_over:
                continue  # what had been sent before; its subscriptions are gone
            watch = self.watches.get(message["channel_name"])
            if watch is None and self.was_slow and message["channel_name"].startswith(("book", "ticker", "lwt")):
                # On its way when it left.
                for levels, side in zip(self.applied.get(message["channel_name"], ()), ("bid", "ask"), strict=False):
                    apply(levels, message["notification"][f"{side}_changes"])
                continue
            assert watch is not None, "said to somebody who left"
            watch.hear(message)
        if self.client.ends:
            assert self.was_slow or self.was_ended, "a reader that keeps up was ended"
            self.was_ended = True
            self.watches.clear()
        elif is_judged and not self.was_slow and not self.world.driven.turns:
            for watch in self.watches.values():
                watch.must_be_up_to_date()
