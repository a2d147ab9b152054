"""The producer of the order log: its properties, and what takes its place when it failed for good."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from core.errors import OutcomeUnknown
from tests.core.fakes import run, turns
from tests.core.kafka.fakes import FakeProducer
from tests.core.kafka.order_logs import ScriptedLog, on_bench, outcome


def fails_in_poll(scripted: ScriptedLog) -> None:
    scripted.producer.fail_for_good()


def fails_in_error_callback(scripted: ScriptedLog) -> None:
    scripted.producer.tell_error(KafkaError(KafkaError._FENCED, "fenced", fatal=True))


def fails_in_produce(scripted: ScriptedLog) -> None:
    scripted.producer.refuses = KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))
    scripted.place("refused")  # with the next beat


def configured(producer: FakeProducer) -> dict[str, Any]:
    return {name: value for name, value in producer.properties.items() if not callable(value)}


@pytest.mark.parametrize("fail", [fails_in_poll, fails_in_error_callback, fails_in_produce])
def test_order_log_replaces_a_producer_that_failed_for_good(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[ScriptedLog], None]
) -> None:
    async def main() -> None:
        scripted = ScriptedLog(monkeypatch)
        scripted.producer.tell_statistics('{"eos":{"idemp_state":"Assigned"}}')
        futures = scripted.place_all("o-0", "o-1")
        assert scripted.log.warm
        fail(scripted)
        scripted.log.poll()
        with pytest.raises(OutcomeUnknown, match="o-0: the producer failed for good"):
            await futures[0]
        assert await outcome(futures[1]) == "504"
        assert (scripted.log.outstanding, scripted.log.warm) == (0, False)
        old, new = scripted.producers
        assert old.purges == 1
        assert configured(old) == configured(new)
        await turns()
        assert old.flushes == [1.0]
        assert len(old) == 0, "its late reports came, and harmed nobody"
        again = scripted.place("o-3")
        assert (len(old.produced), len(new.produced)) == (2, 1)
        new.report(0)
        scripted.log.poll()
        assert await outcome(again) == "202"
        assert len(scripted.producers) == 2

    run(main())


def test_order_log_leaves_a_failed_producer_behind_that_does_not_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        scripted = ScriptedLog(monkeypatch)
        scripted.calls.raises.append(TimeoutError())
        scripted.producer.fail_for_good()
        scripted.log.poll()
        await turns()

    run(main())
    assert caplog.messages[-1] == "the failed producer did not end in time"
    assert not [record for record in caplog.records if record.name == "asyncio"]


@on_bench
async def test_order_log_leaves_a_failed_producer_behind_that_fails_again_at_its_end(scripted: ScriptedLog) -> None:
    scripted.producer.flush_raises = KafkaException(KafkaError(KafkaError._FENCED, "fenced by another", fatal=True))
    scripted.producer.fail_for_good()
    scripted.log.poll()


@on_bench
async def test_order_log_listens_no_more_to_a_producer_that_it_replaced(scripted: ScriptedLog) -> None:
    scripted.producer.fail_for_good()
    scripted.log.poll()
    old, new = scripted.producers
    old.properties["error_cb"](KafkaError(KafkaError._ALL_BROKERS_DOWN))
    old.properties["error_cb"](KafkaError(KafkaError._FENCED, "fenced", fatal=True))
    old.properties["stats_cb"]('{"eos":{"idemp_state":"Assigned"}}')
    scripted.log.poll()
    assert scripted.producers == [old, new]
    assert scripted.troubles == []
    assert not scripted.log.warm


def properties_of(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        return ScriptedLog(monkeypatch, **changes).producer.properties

    return run(main())


def test_order_log_produces_idempotently_to_all_replicas_and_gives_up_before_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = properties_of(monkeypatch)
    assert properties["bootstrap.servers"] == "127.0.0.1:9"
    assert (properties["acks"], properties["enable.idempotence"], properties["linger.ms"]) == ("all", True, 0)
    assert properties["message.timeout.ms"] == 4500
    assert properties["max.in.flight.requests.per.connection"] == 4, (
        "with five librdkafka takes a core while a broker stands still"
    )
    assert properties_of(monkeypatch, embedded=True)["linger.ms"] == 5
    assert properties_of(monkeypatch, linger_ms=20)["linger.ms"] == 20


def test_order_log_gives_up_at_once_when_the_deadline_is_very_short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert properties_of(monkeypatch, ack_timeout_seconds=0.2)["message.timeout.ms"] == 1


def test_order_log_lets_the_operator_set_properties_but_not_its_own_callbacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = {"linger.ms": 9, "sasl.password": "x", "error_cb": "no", "stats_cb": "no", "statistics.interval.ms": 0}
    properties = properties_of(monkeypatch, extra=extra)
    assert (properties["linger.ms"], properties["sasl.password"]) == (9, "x")
    assert callable(properties["error_cb"])
    assert callable(properties["stats_cb"])
    assert properties["statistics.interval.ms"] == 200, "readiness is read from the statistics"


def test_order_log_logs_no_password_when_the_client_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        scripted = ScriptedLog(monkeypatch, extra={"sasl.password": "geheim"})
        scripted.place()
        scripted.producer.fail_for_good()
        scripted.log.poll()
        await turns()

    with caplog.at_level(logging.DEBUG):
        run(main())
    assert "producer: _FENCED: fenced by another" in caplog.messages
    assert "geheim" not in caplog.text


@pytest.mark.parametrize("partition", [None, 0])
def test_order_log_sends_all_to_one_partition_if_it_is_told_which(
    monkeypatch: pytest.MonkeyPatch, partition: int | None
) -> None:
    async def main() -> int | None:
        log = ScriptedLog(monkeypatch, partition=partition)
        log.place()
        return log.producer.partition

    assert run(main()) == partition
