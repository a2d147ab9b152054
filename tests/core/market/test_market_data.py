"""The property: whatever the engine publishes, whoever joins, leaves, reads slowly or comes back, and whatever partitions
are lost and read again, each client's frames say exactly what the contract has them say."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.core.market_clients import Peer
from tests.core.market_topic import CLIENTS, SYMBOLS, SYMBOLS_OF, WARM_UP
from tests.core.market_world import World
from tests.support.examples import examples

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
    st.tuples(st.just("jump"), st.sampled_from([1000, 50_000_000])),
    st.tuples(st.just("lose"), PARTITIONS),
    st.tuples(st.just("serve"), PARTITIONS, st.sampled_from([0, 2, WARM_UP, 1000])),
    st.tuples(st.just("unread"), st.sets(PARTITIONS, max_size=2)),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.just("turns"), st.just(float("inf"))),
)  # fmt: skip


def take_step(world: World, kind: str, *rest: Any) -> None:
    if kind == "say":
        world.say(*rest)
    elif kind == "jump":
        world.jump(*rest)
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
    elif kind == "turns":
        world.driven.give_turns(*rest)
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
    world.driven.stop_slicing()
    world.look()
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
    channels = [weakref.ref(channel) for channel in world.hub._members.channels.values()]
    for peer in world.peers:
        world.hub.remove(peer.client.subscriber)
    assert not world.hub._members.channels
    assert not world.hub._members.channels_of
    assert not world.hub.subscribers
    for symbol in world.market.symbols:
        assert world.market.of(symbol).listeners == 0
        assert len(world.market.of(symbol).views) == 0
    world.peers.clear()
    world.driven.pass_time(61)
    gc.collect()
    assert [channel for channel in channels if channel() is not None] == []


def prepared(is_sliced: bool = False) -> World:
    """A world in which something is known and everybody listens, so that few steps are wasted."""
    world = World(is_sliced)
    world.say([("snapshot", symbol, 0b01101011, 0b10010111) for symbol in SYMBOLS], 7)
    world.peers[0].join(["book.A/A.none.5.raw", "trades.A/A", "events.C/C"], None, False)
    world.peers[1].join(["book.A/A.10.2.1000ms", "book.C/C.none.all.100ms", "ticker.A/A.500ms"], None, True)
    world.peers[2].join(["events", "lwt.A/A.raw", "book.A/A.none.5.raw", "trades.C/C"], None, False)
    return world


LATE = [("join", 0, ["book.A/A.none.1.raw"], None, False), ("say", [("delta", "A/A", 91, 53)], 0), ("time", 6.0)]


@settings(max_examples=examples(50), deadline=None, suppress_health_check=list(HealthCheck))
@example(LATE, True)
@given(st.lists(STEPS, min_size=8, max_size=40), st.booleans())
def test_channels_say_what_the_contract_says_whatever_happens(steps: list[tuple[Any, ...]], is_sliced: bool) -> None:
    world = prepared(is_sliced)
    for step in steps:
        take_step(world, *step)
        world.look()
    end(world)


# What needs a long history is found by chance, and better by many long runs than by small examples.

WEIGHTS = {
    "say": 10.0, "join": 5.0, "time": 2.0, "stop": 1.5, "answer": 1.5, "go": 1.2, "serve": 1.2, "leave": 1.0, "drip": 1.0,
    "jump": 0.8, "turns": 8.0, "lose": 0.6, "unread": 0.6, "replace": 0.5,
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
        case "jump":
            return kind, pick([1000, 50_000_000])
        case "answer":
            return kind, chance.random() < 0.7
        case "turns":
            return kind, pick([1, 2, 5, float("inf")])
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


@pytest.mark.parametrize("seed", range(examples(40)))
def test_channels_say_what_the_contract_says_in_long_runs(seed: int) -> None:
    chance = random.Random(seed)
    world = prepared(is_sliced=seed % 2 == 1)
    for _ in range(120):
        take_step(world, *any_step(chance))
        world.look()
    end(world)
