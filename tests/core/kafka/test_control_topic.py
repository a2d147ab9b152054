from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from core.kafka.control_topic import PAUSE_SECONDS, ControlTopic
from core.kafka.state_topic import LOOK_SECONDS, Unfit
from tests.core.fakes import run

TOPIC = "gateway-control"


class FakeMonitor:
    """Knows of the control topic once it watches it, and it is there."""

    def __init__(self) -> None:
        self.connected = True
        self.there: dict[str, str] = {"market": "m"}
        self.watched = ["market"]
        self.answers = True
        self.partitions: dict[str, int] = {"market": 3}
        self.topic_ids: dict[str, str] = {}

    def watch(self, topic: str) -> None:
        self.watched.append(topic)

    async def ask(self, *, with_ids: bool = False) -> bool:
        assert with_ids
        if self.answers:
            self.learn()
        return self.answers

    def learn(self) -> None:
        self.topic_ids = {name: topic_id for name, topic_id in self.there.items() if name in self.watched}
        self.partitions = dict.fromkeys(self.topic_ids, 1)


class FakeCalls:
    async def run(self, call: Callable[[], Any], _timeout_seconds: float) -> Any:
        return call()


class Scene:
    """`outcomes` are what making it comes to, in turn; nothing left: it is there."""

    def __init__(self, *outcomes: bool | Exception) -> None:
        self.monitor = FakeMonitor()
        self.outcomes = list(outcomes)
        self.looks = 0
        self.usable = 0
        self.slept: list[float] = []
        self.topic = ControlTopic(
            "brokers", {}, TOPIC, "market", self.monitor, FakeCalls(),  # type: ignore[arg-type]
            on_usable=self._on_usable, ready=self._ready, sleep=self._sleep,
        )  # fmt: skip

    def _on_usable(self) -> None:
        self.usable += 1

    def _ready(self) -> bool:
        self.looks += 1
        outcome = self.outcomes.pop(0) if self.outcomes else False
        if isinstance(outcome, Exception):
            raise outcome
        self.monitor.there.setdefault(TOPIC, "c")
        return outcome

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 3:
            raise asyncio.CancelledError


def test_topic_is_made_and_watched_only_then(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(True)
    with caplog.at_level(logging.INFO):
        assert run(scene.topic.look()) == PAUSE_SECONDS
    assert f"topic {TOPIC} was made" in caplog.text
    assert (scene.topic.is_usable, scene.topic.problem, scene.usable, scene.monitor.watched[1:]) == (
        True, None, 1, [TOPIC],
    )  # fmt: skip
    run(scene.topic.look())
    assert (scene.looks, scene.usable) == (1, 1)


@pytest.mark.parametrize("what", ["away", "no market topic"])
def test_nothing_is_asked_while_the_bus_or_the_market_topic_is_away(what: str) -> None:
    scene = Scene()
    scene.monitor.connected = what != "away"
    if what != "away":
        scene.monitor.partitions = {}
    assert run(scene.topic.look()) < PAUSE_SECONDS
    assert (scene.looks, scene.topic.is_usable) == (0, False)


def test_topic_that_cannot_be_used_is_told_once_and_looked_at_again(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(Unfit("no right"), Unfit("no right"))
    for _ in range(2):
        assert run(scene.topic.look()) == LOOK_SECONDS
        assert (scene.topic.problem, scene.topic.is_usable, scene.monitor.watched[1:]) == ("no right", False, [])
    assert caplog.text.count("no right") == 1
    run(scene.topic.look())
    assert (scene.topic.problem, scene.topic.is_usable, scene.usable) == (None, True, 1)


@pytest.mark.parametrize("error", [KafkaException(KafkaError(KafkaError._TIMED_OUT)), TimeoutError()])
def test_cluster_that_does_not_answer_is_asked_again_soon(error: Exception) -> None:
    scene = Scene(error)
    assert run(scene.topic.look()) == PAUSE_SECONDS
    assert (scene.topic.problem, scene.topic.is_usable) == (None, False)
    run(scene.topic.look())
    assert scene.topic.is_usable


def test_topic_is_not_followed_before_the_monitor_knows_of_it() -> None:
    scene = Scene()
    scene.monitor.answers = False
    run(scene.topic.look())
    assert (scene.topic.is_usable, scene.usable) == (False, 0)


@pytest.mark.parametrize("gone", [True, False])
def test_topic_that_is_gone_or_another_one_is_looked_at_again(gone: bool) -> None:
    scene = Scene()
    run(scene.topic.look())
    if gone:
        del scene.monitor.there[TOPIC]
    else:
        scene.monitor.there[TOPIC] = "another"
    scene.monitor.learn()
    run(scene.topic.look())
    assert (scene.looks, scene.usable, scene.topic.is_usable) == (2, 2, True)


def test_looking_goes_on() -> None:
    scene = Scene(Unfit("no right"))
    with pytest.raises(asyncio.CancelledError):
        run(scene.topic.run())
    assert scene.slept == [LOOK_SECONDS, PAUSE_SECONDS, PAUSE_SECONDS]
