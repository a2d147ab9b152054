from __future__ import annotations

import asyncio
import gc

import pytest
from confluent_kafka import KafkaError, KafkaException

from core.errors import BusUnavailable, OutcomeUnknown
from core.messages.feed_record import Headers, Written
from tests.core.fakes import run, turns
from tests.core.kafka.fakes import CODES
from tests.core.kafka.order_logs import ACK_TIMEOUT_SECONDS, ScriptedLog, on_bench, outcome

CERTAIN = {"MSG_SIZE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED", "INVALID_RECORD"}


# Produced, and acknowledged.


@on_bench
async def test_order_log_produces_the_command_keyed_by_symbol(scripted: ScriptedLog) -> None:
    scripted.place("o-1", "KCN/EUR", b'{"x":1}')
    assert scripted.producer.produced == [("order-commands", b'{"x":1}', b"KCN/EUR")]
    assert (scripted.log.outstanding, scripted.wakes) == (1, 1)


@on_bench
async def test_order_log_needs_no_beats_while_somebody_waits_for_its_reports(scripted: ScriptedLog) -> None:
    waits = True
    scripted.log.is_awaited = lambda: waits
    scripted.place()
    assert (scripted.log.needs_beats, scripted.wakes) == (False, 0)
    waits = False
    assert scripted.log.needs_beats
    scripted.place()  # waits for company
    scripted.log.poll()
    assert scripted.wakes == 1, "too much is under way now to be waited for"
    scripted.producer.report(0)
    scripted.producer.report(1)
    scripted.log.poll()
    assert not scripted.log.needs_beats


@on_bench
async def test_order_log_accepts_only_after_the_acknowledgement(scripted: ScriptedLog) -> None:
    future = scripted.place()
    scripted.log.poll()
    assert not future.done()
    await asyncio.sleep(0.25)
    scripted.producer.report(0)
    scripted.log.poll()
    assert await outcome(future) == "202"
    assert scripted.ack_seconds == [0.25]
    assert scripted.log.outstanding == 0


@on_bench
async def test_order_log_tells_each_command_its_own_fate(scripted: ScriptedLog) -> None:
    futures = scripted.place_all("o-0", "o-1", "o-2")
    scripted.producer.report(2)
    scripted.producer.report(0, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    scripted.log.poll()
    assert [future.done() for future in futures] == [True, False, True]
    scripted.producer.report(1, KafkaError(KafkaError._MSG_TIMED_OUT))
    scripted.log.poll()
    assert [await outcome(future) for future in futures] == ["503", "504", "202"]
    assert scripted.log.outstanding == 0


# Company.


@on_bench
async def test_order_log_sends_at_once_what_is_alone_and_holds_what_comes_meanwhile(scripted: ScriptedLog) -> None:
    first, second, third = (scripted.place(f"o-{number}", command=b"%d" % number) for number in range(3))
    assert [command for _, command, _ in scripted.producer.produced] == [b"0"]
    scripted.producer.report(0)
    assert scripted.log.serve(0)
    assert not first.done()
    scripted.log.settle()
    assert [command for _, command, _ in scripted.producer.produced] == [b"0", b"1", b"2"]
    scripted.producer.report(1)
    scripted.producer.report(2)
    scripted.log.poll()
    assert [await outcome(future) for future in (first, second, third)] == ["202"] * 3
    scripted.place("o-3", command=b"3")
    assert [command for _, command, _ in scripted.producer.produced][3:] == [b"3"]


@on_bench
async def test_order_log_holds_nothing_longer_than_to_the_next_beat(scripted: ScriptedLog) -> None:
    scripted.place("o-0")
    scripted.place("o-1")
    scripted.log.poll()
    assert len(scripted.producer.produced) == 2


@on_bench
async def test_order_log_tells_for_certain_that_what_was_held_was_not_written(scripted: ScriptedLog) -> None:
    scripted.place("o-0")
    unreachable = scripted.place("o-1")
    scripted.reachable = False
    scripted.log.poll()
    assert await outcome(unreachable) == "503"
    scripted.reachable = True
    refused, gone = scripted.place("o-2"), scripted.place("o-3")
    gone.cancel()
    scripted.producer.refuses = BufferError("Local: Queue full")
    scripted.log.poll()
    assert await outcome(refused) == "503"
    held = scripted.place("o-4")
    scripted.producer.fail_for_good()
    scripted.producer.refuses = KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))
    scripted.log.poll()
    assert await outcome(held) == "503"
    assert [len(one.produced) for one in scripted.producers] == [1, 0]


@on_bench
async def test_order_log_does_not_count_a_replaced_producers_reports_among_its_own(scripted: ScriptedLog) -> None:
    scripted.place("o-0")
    late = scripted.producer
    late.fail_for_good()
    scripted.log.poll()
    scripted.place("o-1")
    # Its purge has told what became of the record.
    await turns()
    scripted.log.settle()
    scripted.place("o-2")
    assert len(scripted.producer.produced) == 1, "the one under way is awaited"


# Certainly not written, or unknown.


@on_bench
async def test_order_log_is_certain_of_three_errors_only(scripted: ScriptedLog) -> None:
    assert len(CODES) > 150
    futures = dict(zip(CODES, scripted.place_all(*CODES), strict=True))
    for number, (name, code) in enumerate(CODES.items()):
        scripted.producer.report(number, KafkaError(code, f"why {name}"))
    scripted.log.poll()
    told = {name: await outcome(future) for name, future in futures.items()}
    assert told == {name: "503" if name in CERTAIN else "504" for name in CODES}
    assert scripted.ack_seconds == []


@on_bench
async def test_order_log_says_whose_outcome_is_unknown_and_why(scripted: ScriptedLog) -> None:
    future = scripted.place("o-7")
    scripted.producer.report(0, KafkaError(KafkaError._PURGE_QUEUE, "purged"))
    scripted.log.poll()
    with pytest.raises(OutcomeUnknown) as caught:
        await future
    assert (caught.value.order_id, caught.value.reason) == ("o-7", "_PURGE_QUEUE: purged")


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (BufferError("Local: Queue full"), "the producer's queue is full"),
        (KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC, "no such topic")), "_UNKNOWN_TOPIC: no such topic"),
        (KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, "late")), "_MSG_TIMED_OUT: late"),
    ],
    ids=["queue full", "raised", "raised a code that is unknown elsewhere"],
)
def test_order_log_refuses_at_once_when_produce_raises(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception, reason: str
) -> None:
    async def main() -> None:
        scripted = ScriptedLog(monkeypatch)
        scripted.producer.refuses = refusal
        with pytest.raises(BusUnavailable) as caught:
            scripted.place()
        assert caught.value.reason == reason
        assert (scripted.log.outstanding, scripted.wakes) == (0, 0)
        scripted.producer.refuses = None
        scripted.log.poll()
        assert len(scripted.producers) == 1
        scripted.place()
        assert len(scripted.producer.produced) == 1

    run(main())


@on_bench
async def test_order_log_produces_nothing_while_the_bus_is_unreachable(scripted: ScriptedLog) -> None:
    scripted.reachable = False
    with pytest.raises(BusUnavailable, match="cannot be reached"):
        scripted.place()
    assert scripted.producer.produced == []
    assert scripted.log.outstanding == 0
    scripted.reachable = True
    scripted.place()
    assert len(scripted.producer.produced) == 1


# The deadline.


@on_bench
async def test_order_log_answers_at_the_deadline_and_not_before(scripted: ScriptedLog) -> None:
    first = scripted.place("o-1")
    await asyncio.sleep(1)
    second = scripted.place("o-2")
    await asyncio.sleep(ACK_TIMEOUT_SECONDS - 1.01)
    scripted.log.poll()
    assert not first.done()
    await asyncio.sleep(0.01)
    scripted.log.poll()
    assert first.done()
    assert not second.done()
    assert scripted.log.outstanding == 1
    with pytest.raises(OutcomeUnknown) as caught:
        await first
    assert (caught.value.order_id, caught.value.reason) == ("o-1", "no acknowledgement in time")
    await asyncio.sleep(1)
    scripted.log.poll()
    assert await outcome(second) == "504"


@on_bench
async def test_order_log_takes_an_acknowledgement_that_came_with_the_deadline(scripted: ScriptedLog) -> None:
    future = scripted.place()
    await asyncio.sleep(ACK_TIMEOUT_SECONDS)
    scripted.producer.report(0)
    scripted.log.poll()
    assert await outcome(future) == "202"


@on_bench
async def test_order_log_ignores_what_is_delivered_after_the_deadline(scripted: ScriptedLog) -> None:
    futures = scripted.place_all("o-0", "o-1", "o-2")
    await asyncio.sleep(ACK_TIMEOUT_SECONDS)
    scripted.log.poll()
    scripted.producer.report(0)
    scripted.producer.report(1, KafkaError(KafkaError.INVALID_RECORD))
    scripted.producer.report(2, KafkaError(KafkaError._MSG_TIMED_OUT))
    scripted.log.poll()
    assert [await outcome(future) for future in futures] == ["504"] * 3
    assert scripted.ack_seconds == []


@on_bench
async def test_order_log_ignores_a_client_that_left(scripted: ScriptedLog) -> None:
    gone, later, slow = scripted.place_all("o-0", "o-1", "o-2")
    gone.cancel()
    slow.cancel()
    scripted.producer.report(0)
    scripted.producer.report(1)
    scripted.log.poll()
    assert await outcome(later) == "202"
    await asyncio.sleep(ACK_TIMEOUT_SECONDS)
    scripted.log.poll()
    assert scripted.log.outstanding == 0


def test_order_log_leaves_no_warning_of_an_outcome_that_nobody_awaited(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        scripted = ScriptedLog(monkeypatch)
        scripted.place()
        await asyncio.sleep(ACK_TIMEOUT_SECONDS)
        scripted.log.poll()
        scripted.producer.reports.clear()
        gc.collect()

    run(main())
    assert caplog.records == []


# What else the client tells.


@on_bench
async def test_order_log_passes_trouble_on_and_goes_on(scripted: ScriptedLog) -> None:
    scripted.producer.tell_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "2/2 brokers are down"))
    future = scripted.place()
    scripted.log.poll()
    assert scripted.troubles == ["all brokers are down"]
    assert len(scripted.producers) == 1
    assert not future.done()


@on_bench
async def test_order_log_does_not_take_the_loss_of_one_broker_for_that_of_the_bus(scripted: ScriptedLog) -> None:
    scripted.producer.tell_error(KafkaError(KafkaError._TRANSPORT, "refused"))
    scripted.producer.tell_error(KafkaError(KafkaError._TIMED_OUT, "1 request(s) timed out: disconnect"))
    future = scripted.place()
    scripted.log.poll()
    assert scripted.troubles == []
    assert len(scripted.producers) == 1
    assert not future.done()


@on_bench
async def test_order_log_is_warm_once_the_producer_has_its_id(scripted: ScriptedLog) -> None:
    for text in ("{}", '{"eos":{}}', '{"eos":{"idemp_state":"WaitPID"}}'):
        scripted.producer.tell_statistics(text)
        scripted.log.poll()
        assert not scripted.log.warm
    scripted.producer.tell_statistics('{"eos":{"idemp_state":"Assigned"}}')
    scripted.log.poll()
    assert scripted.log.warm
    scripted.producer.tell_statistics('{"eos":{"idemp_state":"DrainBump"}}')
    scripted.log.poll()
    assert scripted.log.warm


# The end.


@on_bench
async def test_order_log_takes_nothing_more_once_it_is_closed(scripted: ScriptedLog) -> None:
    await scripted.log.close(1)
    with pytest.raises(BusUnavailable, match="shutting down"):
        scripted.place()
    assert scripted.producer.produced == []
    assert scripted.producer.purges == 0


@on_bench
async def test_order_log_waits_at_its_close_for_what_is_outstanding(scripted: ScriptedLog) -> None:
    futures = [scripted.place() for _ in range(2)]
    closing = asyncio.create_task(scripted.log.close(3))
    for number in range(2):
        await asyncio.sleep(1)
        assert not closing.done()
        with pytest.raises(BusUnavailable):
            scripted.place()
        scripted.producer.report(number)
    await closing
    assert [await outcome(future) for future in futures] == ["202", "202"]
    assert scripted.producer.purges == 0


@on_bench
async def test_order_log_purges_at_its_close_and_calls_it_unknown(scripted: ScriptedLog) -> None:
    started = asyncio.get_running_loop().time()
    futures = [scripted.place("o-0"), scripted.place("o-1")]
    scripted.producer.report(0)
    await scripted.log.close(3)
    assert asyncio.get_running_loop().time() - started == pytest.approx(3, abs=0.01)
    assert scripted.producer.purges == 1
    assert await outcome(futures[0]) == "202"
    with pytest.raises(OutcomeUnknown, match="_PURGE_QUEUE"):
        await futures[1]
    assert scripted.log.outstanding == 0


@on_bench
async def test_order_log_leaves_nobody_without_an_answer_at_its_close(scripted: ScriptedLog) -> None:
    future = scripted.place()
    scripted.producer.reports[0] = None  # lost by the client: no report will ever come
    await scripted.log.close(1)
    with pytest.raises(OutcomeUnknown, match="shutting down"):
        await future


@on_bench
async def test_order_log_survives_a_failure_for_good_during_its_close(scripted: ScriptedLog) -> None:
    future = scripted.place()
    scripted.producer.fail_for_good()
    await scripted.log.close(3)
    assert await outcome(future) == "504"


# Where records are.


@on_bench
async def test_order_log_tells_since_where_nobody_else_wrote(scripted: ScriptedLog) -> None:
    offsets = [(0, 5), (0, 6), (1, 0), (0, 7), (0, 9), (0, 10), (1, 1), (0, -1), (0, 11)]
    futures = scripted.place_all(*(f"o-{number}" for number in range(len(offsets))))
    for number, (partition, offset) in enumerate(offsets):
        scripted.producer.report(number, offset=offset, partition=partition)
    scripted.log.poll()
    told = [await future for future in futures]
    assert told == [Written(*one) for one in [(0, 5), (0, 5), (1, 0), (0, 5), (0, 9), (0, 9), (1, 0), (0, -1), (0, 9)]]


@on_bench
async def test_order_log_counts_what_came_too_late_among_its_own(scripted: ScriptedLog) -> None:
    late = scripted.place()
    await asyncio.sleep(ACK_TIMEOUT_SECONDS)
    scripted.log.poll()
    [next_one] = scripted.place_all("o-1")
    scripted.producer.report(0, offset=3)
    scripted.producer.report(1, offset=4)
    scripted.log.poll()
    assert (await outcome(late), await next_one) == ("504", Written(0, 3))


@on_bench
async def test_command_has_its_own_headers_however_long_it_waited_for_company(scripted: ScriptedLog) -> None:
    mine: Headers = [("x-request-id", "one")]
    scripted.place("o-1", headers=mine)
    scripted.place("o-2")
    scripted.place("o-3", headers=[("x-request-id", "three"), ("traceparent", "00")])
    scripted.log.poll()
    assert scripted.producer.headers == [mine, None, [("x-request-id", "three"), ("traceparent", "00")]]
