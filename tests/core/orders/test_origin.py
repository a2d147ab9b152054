from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.messages.commands import CancelOrder
from core.orders.origin import Origin, Turn, read_traceparent
from tests.core.attempts import ALICES, ANY_NAME, LIMIT, placed, placing, start
from tests.core.fakes import run, turns
from tests.core.trading import Trade

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"


def test_time_of_several_commands_is_that_of_the_slowest() -> None:
    origin = Origin("r-1")
    assert origin.bus_seconds is None
    for seconds in (0.2, 0.5, 0.3):
        origin.acknowledged(seconds)
    assert origin.bus_seconds == 0.5


# W3C Trace Context, sections 3.2 and 3.2.4.


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (VALID, VALID),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-ff"),
        (f"01-{TRACE}-{PARENT}-03", VALID),
        (f"cc-{TRACE}-{PARENT}-02-what-is-not-known-yet", f"00-{TRACE}-{PARENT}-00"),
    ],
)
def test_traceparent_is_read(text: str, read: str) -> None:
    assert read_traceparent(text) == read
    assert Origin("r-1", text).headers == [("x-request-id", "r-1"), ("traceparent", read)]


@pytest.mark.parametrize(
    "text",
    [
        "", "00", VALID[:-1], f"{VALID}-", f"{VALID}-more", f"{VALID} ", f" {VALID}", f"{VALID}\n", VALID.upper(),
        f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"01-{TRACE}-{PARENT}-01more",
        f"0-{TRACE}-{PARENT}-01", f"00-{TRACE[1:]}-{PARENT}-01", f"00-{TRACE}-{PARENT[1:]}-01", f"00_{TRACE}-{PARENT}-01",
        f"{VALID}, {VALID}", f"00-{TRACE[:-1]}g-{PARENT}-01", f"00-{TRACE}-{PARENT}-0x",
    ],
)  # fmt: skip
def test_traceparent_that_is_not_valid_is_as_none(text: str) -> None:
    assert read_traceparent(text) is None
    assert Origin("r-1", text).headers == [("x-request-id", "r-1")]


@given(
    st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,5})?", fullmatch=True) | st.text(max_size=60)
)
def test_what_is_read_of_a_traceparent_is_one_of_the_known_version(text: str) -> None:
    read = read_traceparent(text)
    assert read is None or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", read)
    assert read is None or read[2:52] == text[2:52]


# Whose records have which headers.


def test_records_say_what_request_they_come_from() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        for name, ask in {
            "place": lambda one: trade.entry.place("alice", LIMIT, one),
            "again": lambda one: trade.entry.place("alice", ANY_NAME, one),
            "cancel": lambda one: trade.entry.cancel("alice", CancelOrder(ALICES, None), one),
            "all": lambda one: trade.entry.cancel_all("alice", None, one),
        }.items():
            before = len(trade.log.produced)
            origin = Origin(name, VALID)
            await ask(origin)
            new = trade.log.produced[before:]
            assert new and all(one.headers == [("x-request-id", name), ("traceparent", VALID)] for one in new)
            assert origin.bus_seconds is not None

    run(main())


def test_record_of_nobodys_request_has_no_headers() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        assert trade.log.last.headers is None

    run(main())


def test_repeat_that_joins_is_on_no_record_and_took_kafka_no_time() -> None:
    async def main() -> None:
        trade = Trade()
        first = await placing(trade)
        origin = Origin("second")
        task = start(trade.entry.place("alice", LIMIT, origin))
        await turns()
        trade.log.last.ack()
        assert (await task).duplicate and not (await first).duplicate
        assert len(trade.log.produced) == 1 and origin.bus_seconds is None

    run(main())


def test_turn_comes_when_all_before_it_are_over_however_they_ended() -> None:
    async def main() -> None:
        first = Turn(None)
        second = Turn(first)
        both = [asyncio.create_task(Turn(second).come()), asyncio.create_task(Turn(second).come())]
        await turns()
        first.end()
        await turns()
        assert not any(task.done() for task in both)
        second.end()
        second.end()
        await asyncio.gather(*both)
        third = Turn(second)
        await third.come()  # nobody is waited for

    run(main())
