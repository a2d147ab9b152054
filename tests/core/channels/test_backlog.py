from __future__ import annotations

from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from core.channels.backlog import FEW_SUBSCRIBERS, MOST_PLACES, MOST_SUBSCRIBERS, Backlog


class Channel:
    """What the backlog looks at of one."""

    def __init__(self, name: str, *subscribers: object) -> None:
        self.name = name
        self.waits = False
        self.settled, self.awaiting, self.pulling = subscribers, (), ()


class Waiting:
    """A backlog; serving one channel is the unit of time."""

    def __init__(self, *channels: Channel) -> None:
        self.backlog = Backlog()
        self.add(*channels)

    def add(self, *channels: Channel) -> None:
        for channel in channels:
            self.backlog.add(cast(Any, channel))

    def serve(self) -> str:
        return cast(Any, self.backlog.pop()).name

    def serve_all(self) -> str:
        served = []
        while self.backlog:
            served.append(self.serve())
        return " ".join(served)


def many(count: int, name: str = "m") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


def test_backlog_serves_what_one_client_waits_for_longest_first() -> None:
    assert Waiting(*(Channel(name, "one") for name in "abc")).serve_all() == "a b c"


def test_backlog_serves_clients_by_turns() -> None:
    greedy = [Channel(f"g{number}", "greedy") for number in range(3)]
    assert Waiting(*greedy, Channel("x", "x"), Channel("y", "y")).serve_all() == "g0 x y g1 g2"


def test_backlog_serves_what_more_want_first() -> None:
    channels = [Channel("one", "a"), Channel("three", *"bcd"), Channel("many", *many(5000)), Channel("two", *"ef")]
    assert Waiting(*channels).serve_all() == "many three two one"


def test_backlog_gives_a_channel_the_best_place_that_a_subscriber_has() -> None:
    greedy = [Channel(f"g{number}", "greedy") for number in range(3)]
    assert Waiting(*greedy, Channel("shared", "greedy", "modest")).serve_all() == "shared g0 g1 g2"


def test_backlog_has_a_channel_once() -> None:
    channel = Channel("a", "one")
    waiting = Waiting(channel, channel)
    assert channel.waits
    assert waiting.serve_all() == "a"
    assert not channel.waits


def test_backlog_has_a_place_for_a_channel_that_nobody_listens_to_any_more() -> None:
    assert Waiting(Channel("left")).serve_all() == "left"


def test_backlog_serves_one_who_asks_for_one_channel_at_once_however_long_another_ones_thousand_have_waited() -> None:
    greedy = [Channel(f"g{number}", "greedy") for number in range(1000)]
    waiting, modest = Waiting(*greedy), Channel("modest", "modest")
    for served in range(3000):
        name = waiting.serve()
        waiting.add(greedy[int(name[1:])])
        if served % 100 == 99:
            waiting.add(modest)
            assert "modest" in (waiting.serve(), waiting.serve())


def test_backlog_forgets_the_places_that_are_past() -> None:
    waiting = Waiting(Channel("last", "a"), Channel("last", "a"))
    for number in range(3 * MOST_PLACES):
        waiting.add(Channel("x", f"gone {number}"))
        waiting.serve()
    assert len(waiting.backlog._places) <= MOST_PLACES + 1


@example([(1, 0), (13, 0)], 20_000)
@given(
    st.lists(st.tuples(st.integers(1, 3 * FEW_SUBSCRIBERS), st.integers(0, 3)), min_size=2, max_size=20),
    st.integers(1, 2000),
)
def test_backlog_lets_nobody_starve(channels: list[tuple[int, int]], most: int) -> None:
    """Each is due again right after it was served; so there is always more to do than time."""
    all_of_them = [
        Channel(str(number), *many(count, f"client {client} ")) for number, (count, client) in enumerate(channels)
    ]
    waiting = Waiting(*all_of_them)
    served_at = dict.fromkeys((channel.name for channel in all_of_them), 0)
    for now in range(most):
        name = waiting.serve()
        served_at[name] = now
        waiting.add(all_of_them[int(name)])
        assert now - min(served_at.values()) <= len(channels) ** 2 * MOST_SUBSCRIBERS
