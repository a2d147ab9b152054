from __future__ import annotations

import asyncio
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

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        self.asked.append(topic)
        assert timeout == 2.0
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


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        monkeypatch.setattr("core.kafka.monitor.AdminClient", FakeAdmin)
        self.calls = InlineCalls()
        self.monitor = BusMonitor("127.0.0.1:9", {}, TOPICS, self.calls, **changes)  # type: ignore[arg-type]
        self.admin: FakeAdmin = self.monitor._admin  # type: ignore[assignment]
        self.admin.partitions = {"market-events": 4, "order-commands": 2}
        self.admin.ids = {"market-events": "id-m", "order-commands": "id-o"}
        self.changes: list[bool] = []
        self.monitor.on_change.append(lambda: self.changes.append(self.monitor.connected))


Test = Callable[[Bench], Coroutine[Any, Any, None]]


def on_bench(**changes: Any) -> Callable[[Test], Callable[[pytest.MonkeyPatch], None]]:
    def decorate(test: Test) -> Callable[[pytest.MonkeyPatch], None]:
        def tested(monkeypatch: pytest.MonkeyPatch) -> None:
            async def main() -> None:
                await test(Bench(monkeypatch, **changes))

            run(main())

        return tested

    return decorate


UNREACHABLE = KafkaException(KafkaError(KafkaError._TRANSPORT, "broker transport failure"))


@on_bench()
async def test_monitor_knows_nothing_before_it_has_asked(bench: Bench) -> None:
    assert (bench.monitor.connected, bench.monitor.reason) == (False, "not yet asked")
    assert (bench.monitor.partitions, bench.monitor.topic_ids) == ({}, {})


@on_bench()
async def test_monitor_gives_a_frozen_broker_up_with_its_question(bench: Bench) -> None:
    assert bench.admin.properties["socket.timeout.ms"] == 2000


@on_bench()
async def test_monitor_asks_for_each_topic_by_name(bench: Bench) -> None:
    await bench.monitor.ask()
    assert bench.admin.asked == list(TOPICS)
    assert (bench.monitor.connected, bench.monitor.reason) == (True, "")
    assert bench.monitor.partitions == {"market-events": 4, "order-commands": 2}
    assert bench.monitor.topic_ids == {"market-events": "id-m", "order-commands": "id-o"}
    assert bench.changes == [True]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(UNREACHABLE, "broker transport failure"), (TimeoutError(), "no answer within 2 s")],
    ids=["kafka", "timeout"],
)
def test_monitor_calls_the_bus_unreachable_when_it_cannot_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    async def main() -> None:
        bench = Bench(monkeypatch)
        await bench.monitor.ask()
        bench.calls.raises.append(error)
        await bench.monitor.ask()
        assert (bench.monitor.connected, bench.monitor.reason) == (False, reason)
        assert bench.changes == [True, False]
        assert bench.monitor.partitions["market-events"] == 4, "the topic has not gone"
        await bench.monitor.ask()
        assert (bench.monitor.connected, bench.monitor.reason) == (True, "")

    run(main())
    assert f"bus is not reachable: {reason}" in caplog.messages


def test_monitor_logs_a_change_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bench = Bench(monkeypatch)
        bench.admin.down = UNREACHABLE
        for _ in range(3):
            await bench.monitor.ask()
        bench.admin.down = None
        for _ in range(3):
            await bench.monitor.ask()

    with caplog.at_level("INFO"):
        run(main())
    assert caplog.messages == ["bus is not reachable: broker transport failure", "bus is reachable"]


@pytest.mark.parametrize("how", ["absent", "with an error", "without partitions"])
def test_monitor_waits_for_a_topic_that_does_not_exist_yet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async def main() -> None:
        bench = Bench(monkeypatch)
        topic, admin = "order-commands", bench.admin
        if how == "with an error":
            admin.topic_errors[topic] = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        elif how == "absent":
            del admin.partitions[topic]
        else:
            admin.partitions[topic] = 0
        for _ in range(3):
            await bench.monitor.ask()
        assert bench.monitor.connected, "the bus itself is there"
        assert bench.monitor.partitions == {"market-events": 4}
        assert admin.described[-1] == ["market-events"]
        assert caplog.messages.count("topic order-commands does not exist (yet); waiting for it") == 1
        admin.topic_errors.clear()
        admin.partitions[topic] = 6
        await bench.monitor.ask()
        assert bench.monitor.partitions == {"market-events": 4, "order-commands": 6}
        del admin.partitions[topic]
        await bench.monitor.ask()
        assert bench.monitor.partitions == {"market-events": 4}
        assert caplog.messages.count("topic order-commands does not exist (yet); waiting for it") == 2

    run(main())


@on_bench()
async def test_monitor_asks_for_no_ids_while_there_are_no_topics(bench: Bench) -> None:
    bench.admin.partitions.clear()
    await bench.monitor.ask()
    assert bench.admin.described == []
    assert bench.monitor.connected


@on_bench()
async def test_monitor_learns_that_a_topic_was_made_anew(bench: Bench) -> None:
    await bench.monitor.ask()
    bench.admin.ids["market-events"] = "id-new"
    for _ in range(ROUNDS_BETWEEN_IDS):
        assert bench.monitor.topic_ids["market-events"] == "id-m"
        await bench.monitor.ask()
    assert bench.monitor.topic_ids["market-events"] == "id-new"
    assert len(bench.admin.described) == 2


@on_bench()
async def test_monitor_asks_for_ids_at_once_when_partitions_have_changed(bench: Bench) -> None:
    await bench.monitor.ask()
    bench.admin.ids["market-events"] = "id-new"
    bench.admin.partitions["order-commands"] = 3
    await bench.monitor.ask()
    assert bench.monitor.topic_ids["market-events"] == "id-new"


@on_bench()
async def test_monitor_asks_for_ids_at_once_when_the_bus_is_back(bench: Bench) -> None:
    await bench.monitor.ask()
    bench.admin.ids["market-events"] = "id-new"
    bench.monitor.suspect("all brokers are down")
    await bench.monitor.ask()
    assert bench.monitor.topic_ids["market-events"] == "id-new"


@on_bench()
async def test_monitor_asks_for_ids_with_the_next_round_when_a_client_met_an_error(bench: Bench) -> None:
    await bench.monitor.ask()
    bench.admin.ids["market-events"] = "id-new"
    bench.monitor.doubt()
    assert len(bench.admin.described) == 1
    await bench.monitor.ask()
    assert bench.monitor.topic_ids["market-events"] == "id-new"


@on_bench()
async def test_monitor_asks_for_ids_whenever_it_is_told_to(bench: Bench) -> None:
    await bench.monitor.ask()
    bench.admin.ids["market-events"] = "id-new"
    await bench.monitor.ask(with_ids=True)
    assert bench.monitor.topic_ids["market-events"] == "id-new"


@on_bench(embedded=True)
async def test_monitor_asks_an_embedded_cluster_for_no_ids(bench: Bench) -> None:
    await bench.monitor.ask()
    assert bench.admin.described == []
    assert bench.monitor.connected


@on_bench()
async def test_monitor_does_not_ask_again_for_ids_that_the_cluster_does_not_have(bench: Bench) -> None:
    bench.admin.describe_raises = KafkaException(KafkaError(KafkaError._UNSUPPORTED_FEATURE))
    rounds = ATTEMPTS_AT_IDS + ROUNDS_BETWEEN_IDS
    answered = [await bench.monitor.ask() for _ in range(rounds)]
    assert len(bench.admin.described) == ATTEMPTS_AT_IDS
    assert answered == [False] * (ATTEMPTS_AT_IDS - 1) + [True] * (1 + ROUNDS_BETWEEN_IDS), "then nothing is missing"
    assert bench.monitor.topic_ids == {}
    assert bench.changes == [True] * rounds


@on_bench()
async def test_monitor_asks_again_for_ids_when_the_first_question_was_not_answered(bench: Bench) -> None:
    # A broker that is busy for a second answers too late.
    bench.admin.describe_raises = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    assert not await bench.monitor.ask()
    bench.admin.describe_raises = None
    assert await bench.monitor.ask()
    assert bench.monitor.topic_ids == {"market-events": "id-m", "order-commands": "id-o"}


@on_bench()
async def test_monitor_does_not_wait_for_ids_that_never_come(bench: Bench) -> None:
    bench.admin.describe_hangs = True
    started = asyncio.get_running_loop().time()
    await bench.monitor.ask()
    assert asyncio.get_running_loop().time() - started <= 2.0
    assert bench.monitor.connected
    assert len(bench.admin.described) == 1


@on_bench()
async def test_monitor_keeps_the_ids_it_has_when_one_question_fails(bench: Bench) -> None:
    await bench.monitor.ask()
    bench.admin.describe_raises = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    for _ in range(ROUNDS_BETWEEN_IDS):
        await bench.monitor.ask()
    assert bench.monitor.topic_ids == {"market-events": "id-m", "order-commands": "id-o"}
    bench.admin.describe_raises = None
    bench.admin.ids["market-events"] = "id-new"
    await bench.monitor.ask()
    assert bench.monitor.topic_ids["market-events"] == "id-new"


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
        bench = Bench(monkeypatch)
        bench.admin.configs.update({"cleanup.policy": policy, "retention.ms": retention_ms})
        return await bench.monitor.retention_warnings("order-commands", 3600)

    warnings = run(main())
    assert len(warnings) == len(expected)
    for warning, part in zip(warnings, expected, strict=True):
        assert warning.startswith("topic order-commands: ")
        assert part in warning


@on_bench()
async def test_monitor_has_nothing_to_warn_of_where_it_cannot_ask(bench: Bench) -> None:
    bench.admin.describe_raises = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert await bench.monitor.retention_warnings("order-commands", 3600) == []
    bench.admin.describe_raises, bench.admin.describe_hangs = None, True
    assert await bench.monitor.retention_warnings("order-commands", 3600) == []


# How often.


@on_bench()
async def test_monitor_asks_every_two_seconds_while_the_bus_answers(bench: Bench) -> None:
    running = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(9.9)
    assert len(bench.changes) == 5
    running.cancel()


@on_bench()
async def test_monitor_asks_three_times_a_second_while_the_bus_does_not_answer(bench: Bench) -> None:
    bench.admin.down = UNREACHABLE
    running = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(2.9)
    assert len(bench.changes) == 10
    bench.admin.down = None
    await asyncio.sleep(0.3)
    assert bench.monitor.connected
    running.cancel()


@on_bench()
async def test_monitor_believes_a_suspicion_at_once_and_asks_soon(bench: Bench) -> None:
    running = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(1)
    bench.admin.down = UNREACHABLE
    bench.monitor.suspect("all brokers are down")
    assert (bench.monitor.connected, bench.monitor.reason) == (False, "all brokers are down")
    assert bench.changes == [True, False]
    bench.monitor.suspect("and another says so")
    assert bench.changes == [True, False]
    await turns()
    assert len(bench.changes) == 3, "asked at once"
    bench.admin.down = None
    await asyncio.sleep(0.31)
    assert bench.monitor.connected
    asked = len(bench.changes)
    await asyncio.sleep(10)
    assert len(bench.changes) == asked + 5, "at its usual pace again"
    running.cancel()


@on_bench()
async def test_monitor_asks_at_a_bounded_rate_however_many_suspicions_come(bench: Bench) -> None:
    running = asyncio.create_task(bench.monitor.run())
    for _ in range(300):
        bench.monitor.suspect("again")
        await asyncio.sleep(0.01)
    running.cancel()
    assert 9 <= bench.admin.asked.count("market-events") <= 11


@on_bench()
async def test_monitor_forgets_no_suspicion_that_comes_while_it_asks(bench: Bench) -> None:
    running = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(1)
    bench.calls.gate.clear()
    await asyncio.sleep(1.5)  # it asks, and has no answer yet
    bench.monitor.suspect("all brokers are down")
    bench.calls.gate.set()
    await turns()
    asked = bench.admin.asked.count("market-events")
    await asyncio.sleep(0.31)
    assert bench.admin.asked.count("market-events") == asked + 1
    running.cancel()


@on_bench()
async def test_monitor_takes_no_answer_from_before_a_suspicion_for_the_end_of_it(bench: Bench) -> None:
    assert await bench.monitor.ask()
    bench.calls.gate.clear()
    asking = asyncio.create_task(bench.monitor.ask())
    await turns()
    bench.monitor.suspect("all brokers are down")
    bench.calls.gate.set()
    assert not await asking
    assert (bench.monitor.connected, bench.monitor.reason) == (False, "all brokers are down")
    assert await bench.monitor.ask()
    assert bench.monitor.connected
    assert bench.changes == [True, False, True]


@on_bench()
async def test_monitor_tells_whether_it_was_answered(bench: Bench) -> None:
    assert await bench.monitor.ask(with_ids=True)
    bench.admin.down = UNREACHABLE
    assert not await bench.monitor.ask(with_ids=True)
    bench.admin.down = None
    bench.admin.describe_raises = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    assert not await bench.monitor.ask(with_ids=True)
    bench.admin.describe_raises = None
    assert await bench.monitor.ask(with_ids=True)


@on_bench()
async def test_monitor_serves_its_clients_log(bench: Bench) -> None:
    # What librdkafka logs waits in memory for the client's next poll, whether the bus answers or not.
    await bench.monitor.ask()
    bench.admin.down = UNREACHABLE
    await bench.monitor.ask()
    assert bench.admin.polls == 2
