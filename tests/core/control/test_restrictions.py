"""Blocks and halts: set on one instance, known to all (docs/contract.md#control-topic)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from core.control.restrictions import Restrictions
from core.errors import BusUnavailable, ControlUnavailable, ControlUnknown, InvalidFields, OutcomeUnknown
from core.messages.control_records import Restriction
from tests.core.control.control_topic import NOW, Instance, Topic
from tests.core.fakes import run

Setting = Callable[[Restrictions], Awaitable[None]]
SETTINGS: tuple[Setting, ...] = (
    lambda on: on.block("alice"),
    lambda on: on.unblock("alice"),
    lambda on: on.halt("KCN/EUR"),
    lambda on: on.resume(None),
)


def test_block_holds_on_every_instance_once_it_is_read() -> None:
    async def scene() -> None:
        topic = Topic()
        here, there = Instance(topic), Instance(topic)
        await here.restrictions.block("alice", "too many cancels")
        assert here.restrictions.is_blocked("alice")
        assert not there.restrictions.is_blocked("alice")
        there.read()
        assert there.restrictions.blocked() == {"alice": Restriction(int(NOW * 1000), "too many cancels")}
        assert not there.restrictions.is_blocked("bob")
        assert not there.restrictions.is_blocked(None)
        await there.restrictions.unblock("alice")
        here.read()
        assert not here.restrictions.blocked() and not there.restrictions.blocked()

    run(scene())


def test_halt_of_all_and_of_a_symbol_end_apart() -> None:
    async def scene() -> None:
        instance = Instance(Topic())
        restrictions = instance.restrictions
        await restrictions.halt("KCN/EUR")
        assert (restrictions.is_halted("KCN/EUR"), restrictions.is_halted("BTC/EUR")) == (True, False)
        await restrictions.halt(None, "the engine is upgraded")
        assert restrictions.is_halted("BTC/EUR")
        assert {symbol: halt.reason for symbol, halt in restrictions.halted().items()} == {
            "KCN/EUR": None,
            None: "the engine is upgraded",
        }
        await restrictions.resume(None)
        assert (restrictions.is_halted("KCN/EUR"), restrictions.is_halted("BTC/EUR")) == (True, False)
        await restrictions.resume("KCN/EUR")
        assert not restrictions.is_halted("KCN/EUR")

    run(scene())


def test_what_an_instance_reads_after_a_start_holds() -> None:
    async def scene() -> None:
        topic = Topic()
        before = Instance(topic).restrictions
        await before.block("alice/1 ü")
        await before.halt("KCN/EUR")
        after = Instance(topic)
        after.read()
        assert after.restrictions.is_blocked("alice/1 ü") and after.restrictions.is_halted("KCN/EUR")
        after.forget(0)
        assert not after.restrictions.blocked() and not after.restrictions.halted()

    run(scene())


@pytest.mark.parametrize("setting", SETTINGS)
def test_setting_is_refused_with_what_is_wrong_with_the_topic(setting: Setting) -> None:
    async def scene() -> None:
        topic = Topic()
        instance = Instance(topic)
        instance.reason = "topic gateway-control does not exist"
        with pytest.raises(ControlUnavailable, match="does not exist"):
            await setting(instance.restrictions)
        instance.reason = None
        topic.refuses = BusUnavailable("away")
        with pytest.raises(BusUnavailable):
            await setting(instance.restrictions)
        topic.refuses, topic.refuses_late = None, OutcomeUnknown("", "timed out")
        with pytest.raises(ControlUnknown, match="timed out"):
            await setting(instance.restrictions)
        assert not topic.records

    run(scene())


def test_setting_is_done_once_written_though_it_is_not_read_in_time() -> None:
    async def scene() -> None:
        topic = Topic()
        instance = Instance(topic)
        instance.is_behind = True
        await instance.restrictions.block("alice")
        assert len(topic.records) == 1

    run(scene())


def test_record_is_written_though_nobody_waits_for_it() -> None:
    async def scene() -> None:
        topic = Topic()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        topic.write = lambda _key, _value: written  # type: ignore[method-assign]
        task = asyncio.create_task(Instance(topic).restrictions.block("alice"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not written.cancelled()

    run(scene())


@pytest.mark.parametrize("user_id", ["", "a" * 257, "a\nb", "\ud800"])
def test_user_that_no_token_names_is_refused(user_id: str) -> None:
    for method in (Restrictions.block, Restrictions.unblock):
        with pytest.raises(InvalidFields):
            run(method(Instance(Topic()).restrictions, user_id))


def test_symbol_or_reason_that_is_none_is_refused() -> None:
    restrictions = Instance(Topic()).restrictions
    for refused in (
        restrictions.halt("KCN"),
        restrictions.resume("*"),
        restrictions.halt(None, " "),
        restrictions.block("alice", "a\nb"),
        restrictions.block("alice", "a" * 501),
    ):
        with pytest.raises(InvalidFields):
            run(refused)


def test_bad_record_is_skipped_and_what_was_said_before_holds() -> None:
    async def scene() -> None:
        topic = Topic()
        instance = Instance(topic)
        await instance.restrictions.block("alice", "why")
        topic.records += [
            (b"block/alice", b"{"),
            (b"block/alice", b'{"since_ms":"1"}'),
            (b"block/alice", b'{"since_ms":1,"reason":2}'),
            (b"halt/KCN", b'{"since_ms":1}'),
            (b"halt/KCN", None),
        ]
        instance.read()
        assert instance.restrictions.blocked()["alice"].reason == "why"
        assert not instance.restrictions.halted()
        assert instance.poisoned == ["not_json", "bad_field", "bad_field", "bad_key", "bad_key"]

    run(scene())
