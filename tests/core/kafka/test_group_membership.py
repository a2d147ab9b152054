from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from core.kafka.group_membership import GroupMembership
from tests.core.kafka.fakes import FakeConsumer, FakeMessage

AWAY = KafkaError(KafkaError._ALL_BROKERS_DOWN)
DENIED = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)


class Member:
    """A membership, and what it tells."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **extra: int) -> None:
        monkeypatch.setattr("core.kafka.group_membership.Consumer", FakeConsumer)
        self.told: list[tuple[str, object]] = []
        self.membership = GroupMembership(
            "127.0.0.1:9",
            "market-events",
            "gateway",
            extra,
            on_assigned=lambda numbers: self.told.append(("assigned", numbers)),
            on_revoked=lambda numbers: self.told.append(("revoked", numbers)),
            on_error=lambda error: self.told.append(("error", error.code())),
        )

    @property
    def consumer(self) -> FakeConsumer:
        assert isinstance(self.membership._consumer, FakeConsumer)
        return self.membership._consumer

    def tell(self, callback: str, *partitions: int) -> None:
        self.consumer.waiting.append(lambda: self.consumer.tell(callback, *partitions))
        self.membership.poll()


def test_member_tells_what_is_its_own_and_reads_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(monkeypatch)
    member.membership.join()
    for callback in ("on_assign", "on_revoke", "on_assign", "on_lost"):
        member.tell(callback, 2, 0)
    assert [what for what, _ in member.told] == ["assigned", "revoked", "assigned", "revoked"]
    assert {numbers for _, numbers in member.told} == {frozenset({0, 2})}
    assert (member.consumer.subscribed, member.consumer.assigned) == ([["market-events"]], [{}, {}])
    assert member.consumer.unassigned == 2


@pytest.mark.parametrize("is_raised", [False, True], ids=["as a message", "raised"])
def test_member_tells_what_the_group_refuses(monkeypatch: pytest.MonkeyPatch, is_raised: bool) -> None:
    def refuse() -> None:
        raise KafkaException(DENIED)

    member = Member(monkeypatch)
    member.membership.join()
    member.consumer.waiting.append(refuse if is_raised else FakeMessage(None, None, None, DENIED))
    member.membership.poll()
    member.consumer.waiting.append(FakeMessage(7))
    member.membership.poll()
    assert member.told == [("error", KafkaError.GROUP_AUTHORIZATION_FAILED)]
    member.consumer.properties["error_cb"](AWAY)
    assert member.told[1:] == [("error", KafkaError._ALL_BROKERS_DOWN)]


def test_nobody_is_a_member_before_joining_and_after_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(monkeypatch)
    member.membership.poll()
    member.membership.leave()()
    member.membership.join()
    consumer = member.consumer
    tell_the_group = member.membership.leave()
    assert consumer.closed == 0, "it takes a round trip"
    tell_the_group()
    consumer.waiting.append(FakeMessage(None, None, None, DENIED))
    member.membership.poll()
    assert (consumer.closed, member.told) == (1, [])


@pytest.mark.parametrize(("extra", "told"), [({}, 6000), ({"session.timeout.ms": 2000}, 2000)])
def test_member_that_dies_is_missed_as_soon_as_kafka_allows_unless_the_operator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, int], told: int
) -> None:
    member = Member(monkeypatch, **extra)
    member.membership.join()
    properties = member.consumer.properties
    assert (properties["session.timeout.ms"], properties["group.id"]) == (told, "gateway")
