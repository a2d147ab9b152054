"""What is made of a cluster's answers about the state topic, by an admin client of a test's own."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from core.kafka import state_topic
from core.kafka.state_topic import Unfit, ready_topic


def answered(answer: object) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(answer, int):
        future.set_exception(KafkaException(KafkaError(answer)))
    else:
        future.set_result(answer)
    return future


def partitions(count: int, *, leader: int = 1) -> SimpleNamespace:
    one = SimpleNamespace(replicas=[1, 2, 3], leader=SimpleNamespace(id=leader))
    return SimpleNamespace(partitions=[one] * count)


class FakeAdmin:
    """Answers are values, or numbers of errors; those of a topic in turn, the last one for ever."""

    def __init__(self, described: dict[str, list[object]], configs: object, created: object = None) -> None:
        self.described, self.configs, self.created = described, configs, created
        self.made: list[Any] = []

    def describe_topics(self, topics: Any, request_timeout: float) -> dict[str, Future[Any]]:
        answers = self.described[
            "state" if "state" in repr(vars(topics) if hasattr(topics, "__dict__") else topics) else "market"
        ]
        return {"topic": answered(answers.pop(0) if len(answers) > 1 else answers[0])}

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[str, Future[Any]]:
        return {"topic": answered(self.configs)}

    def create_topics(self, topics: list[Any], **_more: Any) -> dict[str, Future[Any]]:
        self.made += topics
        return {"topic": answered(self.created)}


MISSING = KafkaError.UNKNOWN_TOPIC_OR_PART
DENIED = KafkaError.TOPIC_AUTHORIZATION_FAILED
CONFIGS = {"min.insync.replicas": SimpleNamespace(value="2"), "cleanup.policy": SimpleNamespace(value="compact")}


@pytest.fixture(autouse=True)
def named_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_topic, "TopicCollection", list)


def ready(monkeypatch: pytest.MonkeyPatch, admin: FakeAdmin) -> bool:
    monkeypatch.setattr(state_topic, "AdminClient", lambda _properties: admin)
    return ready_topic("127.0.0.1:9", {}, "state", "market", 4)


def test_topic_is_made_as_the_market_is_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    described: dict[str, list[object]] = {
        "state": [MISSING, MISSING, partitions(4, leader=-1), partitions(4)],
        "market": [partitions(4)],
    }
    admin = FakeAdmin(described, CONFIGS)
    assert ready(monkeypatch, admin)
    (made,) = admin.made
    assert (made.num_partitions, made.replication_factor) == (4, 3)
    assert made.config["min.insync.replicas"] == "2"


def test_topic_is_made_where_the_markets_settings_may_not_be_read_and_another_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin = FakeAdmin(
        {"state": [MISSING, partitions(4)], "market": [partitions(4)]}, DENIED, KafkaError.TOPIC_ALREADY_EXISTS
    )
    assert ready(monkeypatch, admin)
    assert "min.insync.replicas" not in admin.made[0].config


@pytest.mark.parametrize(
    ("described", "created", "told"),
    [
        ([MISSING], DENIED, r"could not be made .* kafka-topics\.sh --bootstrap-server 127\.0\.0\.1:9 --create"),
        ([DENIED], None, r"may not be described .* kafka-acls\.sh --add"),
    ],
)
def test_topic_that_may_not_be_had_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, described: list[object], created: object, told: str
) -> None:
    with pytest.raises(Unfit, match=told):
        ready(monkeypatch, FakeAdmin({"state": described, "market": [partitions(4)]}, CONFIGS, created))


@pytest.mark.parametrize(
    ("described", "configs", "created"),
    [
        ([MISSING], CONFIGS, KafkaError._TIMED_OUT),
        ([KafkaError._TRANSPORT], CONFIGS, None),
        ([partitions(4)], KafkaError._TRANSPORT, None),
    ],
    ids=["making it", "describing it", "its settings"],
)
def test_cluster_that_does_not_answer_is_to_be_asked_again(
    monkeypatch: pytest.MonkeyPatch, described: list[object], configs: object, created: object
) -> None:
    with pytest.raises(KafkaException):
        ready(monkeypatch, FakeAdmin({"state": described, "market": [partitions(4)]}, configs, created))
