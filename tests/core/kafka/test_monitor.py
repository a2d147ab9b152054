from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from core.kafka.monitor import ATTEMPTS_AT_IDS, ROUNDS_BETWEEN_IDS, BusMonitor
from tests.core.fakes import run, turns
from tests.core.kafka.fakes import InlineCalls

TOPICS = ("market-events", "order-commands")


class FakeAdmin:
    """A cluster with topics, as a test has set it up."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties
        self.partitions: dict[str, int] = {}
        self.topic_errors: dict[str, KafkaError] = {}
        self.down: Exception | None = None
        self.asked: list[str] = []
        self.ids: dict[str, str] = {}
        self.describe_raises: Exception | None = None
        self.describe_hangs = False
        self.described: list[list[str]] = []
        self.polls = 0
        self.configs = {"cleanup.policy": "delete", "retention.ms": "604800000"}
        self.on_asked: Callable[[], object] = lambda: None

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        self.asked.append(topic)
        assert timeout == 2.0
        self.on_asked()
        if self.down is not None:
            raise self.down
        topics = {}
        if topic in self.topic_errors:
            topics[topic] = SimpleNamespace(error=self.topic_errors[topic], partitions={0: None})
        elif topic in self.partitions:
            topics[topic] = SimpleNamespace(error=None, partitions=dict.fromkeys(range(self.partitions[topic])))
        return SimpleNamespace(topics=topics)

    def describe_topics(self, topics: TopicCollection, request_timeout: float) -> dict[str, Future[SimpleNamespace]]:
        names = list(topics.topic_names)
        self.described.append(names)
        futures: dict[str, Future[SimpleNamespace]] = {}
        for name in names:
            future: Future[SimpleNamespace] = Future()
            futures[name] = future
            if self.describe_raises is not None:
                future.set_exception(self.describe_raises)
            elif not self.describe_hangs:
                future.set_result(SimpleNamespace(topic_id=self.ids[name]))
        return futures

    def describe_configs(
        self, resources: list[ConfigResource], request_timeout: float
    ) -> dict[ConfigResource, Future[dict[str, SimpleNamespace]]]:
        assert request_timeout == 1.0
        [resource] = resources
        assert (resource.restype, resource.name) == (ConfigResource.Type.TOPIC, "order-commands")
        future: Future[dict[str, SimpleNamespace]] = Future()
        if self.describe_raises is not None:
            future.set_exception(self.describe_raises)
        elif not self.describe_hangs:
            future.set_result({name: SimpleNamespace(value=value) for name, value in self.configs.items()})
        return {resource: future}

    def poll(self, _timeout: float = -1) -> int:
        self.polls += 1
        return 0


class WatchedBus:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        monkeypatch.setattr("core.kafka.monitor.AdminClient", FakeAdmin)
        self.calls = InlineCalls()
        self.monitor = BusMonitor("127.0.0.1:9", {}, TOPICS, self.calls, **changes)  # type: ignore[arg-type]
        self.admin: FakeAdmin = self.monitor._admin  # type: ignore[assignment]
        self.admin.partitions = {"market-events": 4, "order-commands": 2}
        self.admin.ids = {"market-events": "id-m", "order-commands": "id-o"}
        self.changes: list[bool] = []
        self.monitor.on_change.append(lambda: self.changes.append(self.monitor.connected))


Test = Callable[[WatchedBus], Coroutine[Any, Any, None]]


def on_bench(**changes: Any) -> Callable[[Test], Callable[[pytest.MonkeyPatch], None]]:
    def decorate(test: Test) -> Callable[[pytest.MonkeyPatch], None]:
        def tested(monkeypatch: pytest.MonkeyPatch) -> None:
            async def main() -> None:
                await test(WatchedBus(monkeypatch, **changes))

            run(main())

        return tested

    return decorate


UNREACHABLE = KafkaException(KafkaError(KafkaError._TRANSPORT, "broker transport failure"))


@on_bench()
async def test_monitor_knows_nothing_before_it_has_asked(watched: WatchedBus) -> None:
    assert (watched.monitor.connected, watched.monitor.reason) == (False, "not yet asked")
    assert (watched.monitor.partitions, watched.monitor.topic_ids) == ({}, {})


@on_bench()
async def test_monitor_gives_a_frozen_broker_up_with_its_question(watched: WatchedBus) -> None:
    assert watched.admin.properties["socket.timeout.ms"] == 2000


@on_bench()
async def test_monitor_asks_for_each_topic_by_name(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    assert watched.admin.asked == list(TOPICS)
    assert (watched.monitor.connected, watched.monitor.reason) == (True, "")
    assert watched.monitor.partitions == {"market-events": 4, "order-commands": 2}
    assert watched.monitor.topic_ids == {"market-events": "id-m", "order-commands": "id-o"}
    assert watched.changes == [True]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(UNREACHABLE, "broker transport failure"), (TimeoutError(), "no answer within 2 s")],
    ids=["kafka", "timeout"],
)
def test_monitor_calls_the_bus_unreachable_when_it_cannot_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    async def main() -> None:
        watched = WatchedBus(monkeypatch)
        await watched.monitor.ask()
        watched.calls.raises.append(error)
        await watched.monitor.ask()
        assert (watched.monitor.connected, watched.monitor.reason) == (False, reason)
        assert watched.changes == [True, False]
        assert watched.monitor.partitions["market-events"] == 4, "the topic has not gone"
        await watched.monitor.ask()
        assert (watched.monitor.connected, watched.monitor.reason) == (True, "")

    run(main())
    assert f"bus is not reachable: {reason}" in caplog.messages


def test_monitor_logs_a_change_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        watched = WatchedBus(monkeypatch)
        watched.admin.down = UNREACHABLE
        for _ in range(3):
            await watched.monitor.ask()
        watched.admin.down = None
        for _ in range(3):
            await watched.monitor.ask()

    with caplog.at_level("INFO"):
        run(main())
    assert caplog.messages == ["bus is not reachable: broker transport failure", "bus is reachable"]


@pytest.mark.parametrize("how", ["absent", "with an error", "without partitions"])
def test_monitor_waits_for_a_topic_that_does_not_exist_yet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async def main() -> None:
        watched = WatchedBus(monkeypatch)
        topic, admin = "order-commands", watched.admin
        if how == "with an error":
            admin.topic_errors[topic] = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        elif how == "absent":
            del admin.partitions[topic]
        else:
            admin.partitions[topic] = 0
        for _ in range(3):
            await watched.monitor.ask()
        assert watched.monitor.connected, "the bus itself is there"
        assert watched.monitor.partitions == {"market-events": 4}
        assert admin.described[-1] == ["market-events"]
        assert caplog.messages.count("topic order-commands does not exist (yet); waiting for it") == 1
        admin.topic_errors.clear()
        admin.partitions[topic] = 6
        await watched.monitor.ask()
        assert watched.monitor.partitions == {"market-events": 4, "order-commands": 6}
        del admin.partitions[topic]
        await watched.monitor.ask()
        assert watched.monitor.partitions == {"market-events": 4}
        assert caplog.messages.count("topic order-commands does not exist (yet); waiting for it") == 2

    run(main())


@on_bench()
async def test_monitor_asks_for_no_ids_while_there_are_no_topics(watched: WatchedBus) -> None:
    watched.admin.partitions.clear()
    await watched.monitor.ask()
    assert watched.admin.described == []
    assert watched.monitor.connected


@on_bench()
async def test_monitor_learns_that_a_topic_was_made_anew(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    watched.admin.ids["market-events"] = "id-new"
    for _ in range(ROUNDS_BETWEEN_IDS):
        assert watched.monitor.topic_ids["market-events"] == "id-m"
        await watched.monitor.ask()
    assert watched.monitor.topic_ids["market-events"] == "id-new"
    assert len(watched.admin.described) == 2


@on_bench()
async def test_monitor_asks_for_ids_at_once_when_partitions_have_changed(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    watched.admin.ids["market-events"] = "id-new"
    watched.admin.partitions["order-commands"] = 3
    await watched.monitor.ask()
    assert watched.monitor.topic_ids["market-events"] == "id-new"


@on_bench()
async def test_monitor_asks_for_ids_at_once_when_the_bus_is_back(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    watched.admin.ids["market-events"] = "id-new"
    watched.monitor.suspect("all brokers are down")
    await watched.monitor.ask()
    assert watched.monitor.topic_ids["market-events"] == "id-new"


@on_bench()
async def test_monitor_asks_for_ids_with_the_next_round_when_a_client_met_an_error(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    watched.admin.ids["market-events"] = "id-new"
    watched.monitor.doubt()
    assert len(watched.admin.described) == 1
    await watched.monitor.ask()
    assert watched.monitor.topic_ids["market-events"] == "id-new"


@on_bench()
async def test_monitor_asks_for_ids_whenever_it_is_told_to(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    watched.admin.ids["market-events"] = "id-new"
    await watched.monitor.ask(with_ids=True)
    assert watched.monitor.topic_ids["market-events"] == "id-new"


@on_bench(embedded=True)
async def test_monitor_asks_an_embedded_cluster_for_no_ids(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    assert watched.admin.described == []
    assert watched.monitor.connected


@on_bench()
async def test_monitor_does_not_ask_again_for_ids_that_the_cluster_does_not_have(watched: WatchedBus) -> None:
    watched.admin.describe_raises = KafkaException(KafkaError(KafkaError._UNSUPPORTED_FEATURE))
    rounds = ATTEMPTS_AT_IDS + ROUNDS_BETWEEN_IDS
    answered = [await watched.monitor.ask() for _ in range(rounds)]
    assert len(watched.admin.described) == ATTEMPTS_AT_IDS
    assert answered == [False] * (ATTEMPTS_AT_IDS - 1) + [True] * (1 + ROUNDS_BETWEEN_IDS), "then nothing is missing"
    assert watched.monitor.topic_ids == {}
    assert not watched.monitor.awaits_ids
    assert watched.changes == [True] * rounds


@on_bench()
async def test_monitor_asks_again_for_ids_when_the_first_question_was_not_answered(watched: WatchedBus) -> None:
    # A broker that is busy for a second answers too late.
    watched.admin.describe_raises = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    assert not await watched.monitor.ask()
    assert watched.monitor.awaits_ids
    watched.admin.describe_raises = None
    assert await watched.monitor.ask()
    assert not watched.monitor.awaits_ids
    assert watched.monitor.topic_ids == {"market-events": "id-m", "order-commands": "id-o"}


@on_bench()
async def test_monitor_does_not_wait_for_ids_that_never_come(watched: WatchedBus) -> None:
    watched.admin.describe_hangs = True
    started = asyncio.get_running_loop().time()
    await watched.monitor.ask()
    assert asyncio.get_running_loop().time() - started <= 2.0
    assert watched.monitor.connected
    assert len(watched.admin.described) == 1


@on_bench()
async def test_monitor_keeps_the_ids_it_has_when_one_question_fails(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    watched.admin.describe_raises = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    for _ in range(ROUNDS_BETWEEN_IDS):
        await watched.monitor.ask()
    assert watched.monitor.topic_ids == {"market-events": "id-m", "order-commands": "id-o"}
    watched.admin.describe_raises = None
    watched.admin.ids["market-events"] = "id-new"
    await watched.monitor.ask()
    assert watched.monitor.topic_ids["market-events"] == "id-new"


# How long the order topic keeps its records.


@pytest.mark.parametrize(
    ("policy", "retention_ms", "expected"),
    [
        ("delete", "604800000", []),
        ("delete", "3600000", []),
        ("delete", "3599999", ["retention.ms is 3599999, less than the warm-up of 3600 s"]),
        ("delete", "0", ["retention.ms is 0, less than the warm-up of 3600 s"]),
        ("delete", "-1", []),
        ("compact", "-1", ["cleanup.policy is compact, and has to be delete"]),
        ("compact,delete", "1", ["cleanup.policy is compact,delete, and has", "retention.ms is 1, less than"]),
    ],
)
def test_monitor_warns_of_a_topic_that_forgets_too_soon(
    monkeypatch: pytest.MonkeyPatch, policy: str, retention_ms: str, expected: list[str]
) -> None:
    async def main() -> list[str]:
        watched = WatchedBus(monkeypatch)
        watched.admin.configs.update({"cleanup.policy": policy, "retention.ms": retention_ms})
        return await watched.monitor.retention_warnings("order-commands", 3600)

    warnings = run(main())
    assert len(warnings) == len(expected)
    for warning, part in zip(warnings, expected, strict=True):
        assert warning.startswith("topic order-commands: ")
        assert part in warning


@pytest.mark.parametrize(("policy", "is_told"), [("compact", False), ("delete", True), ("compact,delete", True)])
def test_monitor_warns_of_a_topic_that_is_not_compacted(
    monkeypatch: pytest.MonkeyPatch, policy: str, is_told: bool
) -> None:
    async def main() -> list[str]:
        watched = WatchedBus(monkeypatch)
        watched.admin.configs["cleanup.policy"] = policy
        return await watched.monitor.compaction_warnings("order-commands")

    told = f"topic order-commands: cleanup.policy is {policy}, and has to be compact: what it says would be forgotten"
    assert run(main()) == ([told] if is_told else [])


@on_bench()
async def test_monitor_has_nothing_to_warn_of_where_it_cannot_ask(watched: WatchedBus) -> None:
    watched.admin.describe_raises = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert await watched.monitor.retention_warnings("order-commands", 3600) == []
    assert await watched.monitor.compaction_warnings("order-commands") == []
    watched.admin.describe_raises, watched.admin.describe_hangs = None, True
    assert await watched.monitor.retention_warnings("order-commands", 3600) == []


# How often.


@on_bench()
async def test_monitor_asks_every_two_seconds_while_the_bus_answers(watched: WatchedBus) -> None:
    running = asyncio.create_task(watched.monitor.run())
    await asyncio.sleep(9.9)
    assert len(watched.changes) == 5
    running.cancel()


@on_bench()
async def test_monitor_asks_three_times_a_second_while_the_bus_does_not_answer(watched: WatchedBus) -> None:
    watched.admin.down = UNREACHABLE
    running = asyncio.create_task(watched.monitor.run())
    await asyncio.sleep(2.9)
    assert len(watched.changes) == 10
    watched.admin.down = None
    await asyncio.sleep(0.3)
    assert watched.monitor.connected
    running.cancel()


@on_bench()
async def test_monitor_believes_a_suspicion_at_once_and_asks_soon(watched: WatchedBus) -> None:
    running = asyncio.create_task(watched.monitor.run())
    await asyncio.sleep(1)
    watched.admin.down = UNREACHABLE
    watched.monitor.suspect("all brokers are down")
    assert (watched.monitor.connected, watched.monitor.reason) == (False, "all brokers are down")
    assert watched.changes == [True, False]
    watched.monitor.suspect("and another says so")
    assert watched.changes == [True, False]
    await turns()
    assert len(watched.changes) == 3, "asked at once"
    watched.admin.down = None
    await asyncio.sleep(0.31)
    assert watched.monitor.connected
    asked = len(watched.changes)
    await asyncio.sleep(10)
    assert len(watched.changes) == asked + 5, "at its usual pace again"
    running.cancel()


@on_bench()
async def test_monitor_asks_at_a_bounded_rate_however_many_suspicions_come(watched: WatchedBus) -> None:
    running = asyncio.create_task(watched.monitor.run())
    for _ in range(300):
        watched.monitor.suspect("again")
        await asyncio.sleep(0.01)
    running.cancel()
    assert 9 <= watched.admin.asked.count("market-events") <= 11


@on_bench()
async def test_monitor_forgets_no_suspicion_that_comes_while_it_asks(watched: WatchedBus) -> None:
    running = asyncio.create_task(watched.monitor.run())
    await asyncio.sleep(1)
    watched.calls.gate.clear()
    await asyncio.sleep(1.5)  # it asks, and has no answer yet
    watched.monitor.suspect("all brokers are down")
    watched.calls.gate.set()
    await turns()
    asked = watched.admin.asked.count("market-events")
    await asyncio.sleep(0.31)
    assert watched.admin.asked.count("market-events") == asked + 1
    running.cancel()


@on_bench()
async def test_monitor_takes_no_answer_from_before_a_suspicion_for_the_end_of_it(watched: WatchedBus) -> None:
    assert await watched.monitor.ask()
    watched.calls.gate.clear()
    asking = asyncio.create_task(watched.monitor.ask())
    await turns()
    watched.monitor.suspect("all brokers are down")
    watched.calls.gate.set()
    assert not await asking
    assert (watched.monitor.connected, watched.monitor.reason) == (False, "all brokers are down")
    assert await watched.monitor.ask()
    assert watched.monitor.connected
    assert watched.changes == [True, False, True]


@on_bench()
async def test_monitor_tells_whether_it_was_answered(watched: WatchedBus) -> None:
    assert await watched.monitor.ask(with_ids=True)
    watched.admin.down = UNREACHABLE
    assert not await watched.monitor.ask(with_ids=True)
    watched.admin.down = None
    watched.admin.describe_raises = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    assert not await watched.monitor.ask(with_ids=True)
    watched.admin.describe_raises = None
    assert await watched.monitor.ask(with_ids=True)


@on_bench()
async def test_monitor_serves_its_clients_log(watched: WatchedBus) -> None:
    # What librdkafka logs waits in memory for the client's next poll, whether the bus answers or not.
    await watched.monitor.ask()
    watched.admin.down = UNREACHABLE
    await watched.monitor.ask()
    assert watched.admin.polls == 2


# Away for long.


def test_monitor_that_asks_for_hours_in_vain_keeps_nothing_of_it_and_is_back_within_two_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tens of thousands of rounds, each with what librdkafka says about it."""

    def living() -> int:
        gc.collect()
        return len(gc.get_objects())

    async def main() -> None:
        bus = WatchedBus(monkeypatch)
        loop = asyncio.get_running_loop()

        def refuse() -> None:
            bus.monitor.suspect("all brokers are down")
            bus.monitor.doubt()
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "broker transport failure"))

        running = loop.create_task(bus.monitor.run())
        await asyncio.sleep(5)
        assert bus.monitor.connected
        bus.admin.on_asked = refuse
        bus.changes.clear()
        counts = []
        for _ in range(3):
            await asyncio.sleep(3600)
            counts.append(living() - len(bus.changes) - len(bus.admin.asked))
            rounds, tasks = len(bus.changes), len(asyncio.all_tasks())
            bus.changes.clear()
            bus.admin.asked.clear()
            assert rounds > 10_000
            assert tasks == 2
            assert not bus.monitor.connected
        assert max(counts) - counts[0] < 100
        assert len(caplog.messages) < 20
        bus.admin.on_asked = lambda: None
        await asyncio.sleep(2)
        assert bus.monitor.connected
        running.cancel()

    run(main())


@on_bench()
async def test_monitor_asks_for_a_topic_only_once_it_is_watched(watched: WatchedBus) -> None:
    await watched.monitor.ask()
    assert "gateway-control" not in watched.admin.asked
    for _ in range(2):
        watched.monitor.watch("gateway-control")
    watched.admin.asked.clear()
    await watched.monitor.ask()
    assert watched.admin.asked == [*TOPICS, "gateway-control"]
