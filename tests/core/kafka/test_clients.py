from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading

import pytest
from confluent_kafka import KafkaError

from core.kafka.clients import Calls, common_properties, describe, patient
from core.log_throttle import FirstWordFilter
from tests.core.fakes import run


def test_a_broker_that_stands_still_is_given_up_soon_unless_the_operator_has_more_patience() -> None:
    assert common_properties("a:9092", {})["socket.timeout.ms"] == 10_000
    assert common_properties("a:9092", {"socket.timeout.ms": 60_000})["socket.timeout.ms"] == 60_000


def test_calls_give_what_the_call_gives_on_a_thread_of_their_own() -> None:
    async def main() -> threading.Thread:
        calls = Calls()
        try:
            return await calls.run(threading.current_thread, 5)
        finally:
            calls.close()

    assert asyncio.run(main()).name.startswith("kafka-call")


def test_calls_raise_what_the_call_raises() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def main() -> None:
        calls = Calls()
        try:
            await calls.run(fail, 5)
        finally:
            calls.close()

    with pytest.raises(ValueError, match="no"):
        asyncio.run(main())


def test_calls_wait_a_second_longer_than_the_call_may_take_and_no_longer() -> None:
    async def main() -> float:
        calls, answered = Calls(threads=1), threading.Event()
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            with pytest.raises(TimeoutError):
                await calls.run(answered.wait, 4)
            return loop.time() - started
        finally:
            answered.set()
            calls.close()

    assert run(main()) == pytest.approx(5)


def test_calls_take_nothing_more_once_they_are_closed_and_do_not_wait_for_what_is_under_way() -> None:
    async def main() -> None:
        calls, begun, answered = Calls(threads=1), threading.Event(), threading.Event()

        def blocked() -> bool:
            begun.set()
            return answered.wait()

        under_way = asyncio.create_task(calls.run(blocked, 600))
        queued = asyncio.create_task(calls.run(begun.is_set, 600))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)
        calls.close()
        with pytest.raises(asyncio.CancelledError):
            await queued
        with pytest.raises(RuntimeError):
            await calls.run(begun.is_set, 5)
        assert not under_way.done()
        answered.set()
        assert await under_way is True

    asyncio.run(main())


@pytest.mark.parametrize(
    ("brokers", "family"),
    [
        ("localhost:9092", "v4"),
        ("127.0.0.1:9092", None),
        ("localhost:9092, 127.0.0.2:9093", "v4"),
        ("kafka.example.org:9092", None),
        ("localhost:9092,kafka.example.org:9092", None),
        ("[::1]:9092", None),
    ],
)
def test_common_properties_keep_to_ipv4_only_where_localhost_is_named(brokers: str, family: str | None) -> None:
    properties = common_properties(brokers, {})
    assert properties["bootstrap.servers"] == brokers
    assert properties.get("broker.address.family") == family


def test_common_properties_let_the_operator_win() -> None:
    extra = {"client.id": "mine", "broker.address.family": "any", "security.protocol": "SASL_SSL"}
    properties = common_properties("localhost:9092", extra)
    assert {name: properties[name] for name in extra} == extra


def test_common_properties_log_to_a_log_that_says_the_same_once_a_minute() -> None:
    log = common_properties("localhost:9092", {})["logger"]
    assert log is logging.getLogger("gateway.librdkafka")
    assert [type(one) for one in log.filters] == [FirstWordFilter]


def test_describe_names_the_error_and_its_text() -> None:
    assert describe(KafkaError(KafkaError._TRANSPORT, "refused")) == "_TRANSPORT: refused"


# Threads that wait for their turn.


@pytest.mark.skipif(sys.platform != "linux", reason="sched(7) is Linux's")
def test_patient_client_begins_its_threads_as_a_batch_and_leaves_its_maker_as_it_was() -> None:
    begun: list[int] = []

    def client(properties: dict[str, object]) -> str:
        thread = threading.Thread(target=lambda: begun.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
        return f"a client of {properties['group.id']}"

    before = os.sched_getscheduler(0)
    assert patient(client, {"group.id": "g"}) == "a client of g"
    assert os.sched_getscheduler(0) == before
    # Who is told to run at another policy, as in a test at idle priority, hands that on.
    assert begun == [os.SCHED_BATCH if before == os.SCHED_OTHER else before]


def test_patient_client_leaves_its_maker_as_it_was_when_it_cannot_be_made() -> None:
    def client(_properties: dict[str, object]) -> None:
        raise ValueError("no such property")

    before = os.sched_getscheduler(0)
    with pytest.raises(ValueError, match="no such property"):
        patient(client, {})
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("refuses", [PermissionError(1, "not permitted"), AttributeError("not of this system")])
def test_patient_client_is_as_any_other_where_that_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, refuses: Exception
) -> None:
    def refuse(*_arguments: object) -> None:
        raise refuses

    monkeypatch.setattr(os, "sched_getscheduler", lambda _thread: os.SCHED_OTHER)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert patient(dict, {"a": 1}) == {"a": 1}
