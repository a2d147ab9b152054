from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from core.channels.client_position import Since
from core.channels.kinds import make_channel
from core.channels.lossless_channels import LosslessChannel
from core.channels.names import parse_channel
from core.channels.replay import Replay
from core.channels.subscription import (
    LEFT,
    NEW,
    SETTLED,
    Behind,
    Listener,
    Replaying,
    State,
    Subscription,
    Waiting,
)
from core.market.lag import Lag
from core.market.market import Market
from tests.core.fakes import Client

SINCE = Since({0: 5}, "epoch")
LAG = Lag(2, 7.0, 9.0)
NAME = "trades.A/A"


def new_channel(name: str = NAME) -> LosslessChannel:
    channel = make_channel(parse_channel(name), Market(lambda *_: None, lambda *_: None, lambda *_: None))
    assert isinstance(channel, LosslessChannel)
    return channel


def new_replay(subscription: Subscription) -> Replay:
    assert isinstance(subscription.channel, LosslessChannel)
    return Replay(subscription.channel, subscription.subscriber, SINCE, "epoch")


CHANGES: dict[str, Callable[[Subscription], object]] = {
    "settled": lambda subscription: subscription.settle(),
    "behind": lambda subscription: subscription.fall_behind(b"head"),
    "toldstale": lambda subscription: subscription.tell_stale(),
    "waiting": lambda subscription: subscription.wait(SINCE, LAG),
    "replaying": lambda subscription: subscription.replay(new_replay(subscription)),
    "left": lambda subscription: subscription.leave(),
}
# What can become of a subscription, by what it is; nothing else can.
MAY_BECOME = {
    "new": {"settled", "behind", "toldstale", "waiting", "replaying", "left"},
    "settled": {"settled", "behind", "waiting", "replaying", "left"},
    "behind": {"settled", "toldstale", "left"},
    "toldstale": {"settled", "behind", "left"},
    "waiting": {"settled", "behind", "waiting", "replaying", "left"},
    "replaying": {"settled", "behind", "waiting", "replaying", "left"},
    "left": set[str](),
}
CROWD = {
    "new": "awaiting",
    "toldstale": "awaiting",
    "waiting": "awaiting",
    "settled": "settled",
    "behind": "pulling",
    "replaying": "pulling",
}


def kind_of(state: State) -> str:
    return type(state).__name__.lower()


def crowds_of(subscription: Subscription) -> list[str]:
    channel = subscription.channel
    return [name for name in ("awaiting", "settled", "pulling") if subscription.subscriber in getattr(channel, name)]


def subscription_that_is(kind: str) -> Subscription:
    subscription = Subscription(Listener(Client().subscriber), new_channel())
    if kind != "new":
        CHANGES[kind](subscription)
    return subscription


def test_subscription_is_new_and_awaits_its_first_notification() -> None:
    listener, channel = Listener(Client().subscriber), new_channel()
    subscription = Subscription(listener, channel)
    assert subscription.state is NEW
    assert listener.subscriptions == {NAME: subscription}
    assert list(channel.awaiting) == [listener.subscriber]
    assert channel.has_subscribers()


@pytest.mark.parametrize(("kind", "after"), [(kind, after) for kind in MAY_BECOME for after in CHANGES])
def test_subscription_becomes_what_it_may_and_nothing_else(kind: str, after: str) -> None:
    subscription = subscription_that_is(kind)
    before = subscription.state
    if after in MAY_BECOME[kind]:
        CHANGES[after](subscription)
        assert kind_of(subscription.state) == after
        assert crowds_of(subscription) == ([CROWD[after]] if after in CROWD else [])
    else:
        with pytest.raises(RuntimeError, match="cannot become"):
            CHANGES[after](subscription)
        assert subscription.state is before
        assert crowds_of(subscription) == ([CROWD[kind]] if kind in CROWD else [])


def test_subscription_keeps_what_belongs_to_its_state_and_forgets_it_with_that() -> None:
    subscription = subscription_that_is("new")
    subscription.wait(SINCE, LAG)
    assert subscription.state == Waiting(SINCE, LAG)
    subscription.wait(SINCE)
    assert subscription.state == Waiting(SINCE, None)
    replay = new_replay(subscription)
    subscription.replay(replay)
    assert subscription.state == Replaying(replay)
    subscription.fall_behind(b"head")
    assert subscription.state == Behind(b"head")
    subscription.settle()
    assert subscription.state is SETTLED
    subscription.leave()
    assert subscription.state is LEFT


@pytest.mark.parametrize("after", sorted(MAY_BECOME["replaying"]))
def test_subscription_cancels_a_replay_that_it_ends(after: str) -> None:
    subscription = subscription_that_is("new")
    replay = new_replay(subscription)
    subscription.replay(replay)
    assert not replay.cancelled
    CHANGES[after](subscription)
    assert replay.cancelled


def test_subscription_of_a_channel_that_tells_states_waits_for_nothing_missed() -> None:
    channel = make_channel(parse_channel("ticker.A/A.raw"), Market(lambda *_: None, lambda *_: None, lambda *_: None))
    with pytest.raises(AssertionError):
        Subscription(Listener(Client().subscriber), channel).wait(SINCE)


def test_listener_pulls_in_the_order_in_which_its_subscriptions_fell_behind() -> None:
    listener = Listener(Client().subscriber)
    first, second, third = (Subscription(listener, new_channel(f"trades.{symbol}")) for symbol in ("A/A", "B/B", "C/C"))
    for subscription in (third, first, second):
        subscription.settle()
        subscription.fall_behind()
    assert list(listener.pulling) == [third, first, second]
    third.settle()
    third.fall_behind()
    first.leave()
    assert list(listener.pulling) == [second, third]


def test_settled_crowd_is_the_same_object_until_somebody_joins_or_leaves_it() -> None:
    channel = new_channel()
    one, other = (Subscription(Listener(Client().subscriber), channel) for _ in range(2))
    one.settle()
    members = channel.settled.members()
    one.settle()
    other.wait(SINCE)
    other.replay(new_replay(other))
    assert channel.settled.members() is members
    other.settle()
    assert list(channel.settled.members()) == [one.subscriber, other.subscriber]
    assert list(members) == [one.subscriber], "who was told then is not who is told now"


@pytest.mark.parametrize("seed", range(30))
def test_crowds_are_in_step_with_every_subscription_whatever_happens(seed: int) -> None:
    """Random changes of many subscriptions beside a dictionary of what each has become."""
    chance = random.Random(seed)
    listeners = [Listener(Client().subscriber) for _ in range(4)]
    channels = [new_channel(f"trades.{symbol}") for symbol in ("A/A", "B/B", "C/C")]
    kinds: dict[Subscription, str] = {}
    pulled: list[Subscription] = []
    for _ in range(300):
        listener, channel = chance.choice(listeners), chance.choice(channels)
        subscription = listener.subscriptions.get(channel.name.text)
        if subscription is None:
            kinds[Subscription(listener, channel)] = "new"
        else:
            after = chance.choice(list(CHANGES))
            if after in MAY_BECOME[kinds[subscription]]:
                CHANGES[after](subscription)
                was_pulled = kinds[subscription] in ("behind", "replaying")
                kinds[subscription] = after
                if was_pulled and after not in ("behind", "replaying"):
                    pulled.remove(subscription)
                elif not was_pulled and after in ("behind", "replaying"):
                    pulled.append(subscription)
        check(listeners, channels, {one: kind for one, kind in kinds.items() if kind != "left"}, pulled)


def check(
    listeners: list[Listener],
    channels: list[LosslessChannel],
    kinds: dict[Subscription, str],
    pulled: list[Subscription],
) -> None:
    assert all(kind_of(subscription.state) == kind for subscription, kind in kinds.items())
    for listener in listeners:
        assert set(listener.subscriptions.values()) == {one for one in kinds if one.listener is listener}
        assert list(listener.pulling) == [one for one in pulled if one.listener is listener]
    for channel in channels:
        of_channel: dict[str, set[Any]] = {"awaiting": set(), "settled": set(), "pulling": set()}
        for subscription, kind in kinds.items():
            if subscription.channel is channel:
                of_channel[CROWD[kind]].add(subscription.subscriber)
        assert {name: set(getattr(channel, name)) for name in of_channel} == of_channel
        assert channel.has_subscribers() == any(of_channel.values())
        assert channel.everyone() == set().union(*of_channel.values())
