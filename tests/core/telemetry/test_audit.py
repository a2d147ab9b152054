from __future__ import annotations

from collections.abc import Callable

import pytest

from core.errors import (
    BusUnavailable,
    FieldError,
    InvalidFields,
    LimitExceeded,
    NoSuchOrder,
    OutcomeUnknown,
    RpcCode,
    RpcError,
    TooManyRequests,
)
from core.messages.batch_rules import Batch
from core.messages.model import OrderType, Side
from core.orders.order import Order, Outcome
from core.telemetry.audit import Asker, Audit, Line, write_nothing

ALICE = Asker("r-1", "alice")


class Log:
    """Takes lines, no more than there is room for, and plays the loop and its clock."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.room = 1_000_000
        self.writes = 0
        self.now = 1000.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def write(self, lines: list[Line]) -> int:
        taken = lines[: self.room]
        self.writes += 1
        self.room -= len(taken)
        self.lines += taken
        return len(taken)

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, what))

    def pass_time(self, seconds: float = 0.0) -> None:
        self.now += seconds
        while ready := [one for one in self.due if one[0] <= self.now]:
            self.due = [one for one in self.due if one not in ready]
            for _, what in ready:
                what()

    @property
    def messages(self) -> list[str]:
        return [line.message for line in self.lines]


@pytest.fixture
def log() -> Log:
    return Log()


def audit_of(log: Log, orders: str = "all", most: int = 1000) -> Audit:
    return Audit(log.write, log.later, orders=orders, lines_per_second=most, clock=lambda: log.now)


def test_audit_of_an_accepted_command_has_who_what_and_all_its_ids(log: Log) -> None:
    audit = audit_of(log)
    asker = Asker("r-1", "alice", 7)
    audit.accepted("place", asker, order_id="o-1", client_order_id="c-1", symbol="KCN/EUR", reason=None)
    log.pass_time()
    assert log.lines == [
        Line(
            1000.0,
            "place accepted",
            {
                "command": "place",
                "outcome": "accepted",
                "user_id": "alice",
                "order_id": "o-1",
                "client_order_id": "c-1",
                "symbol": "KCN/EUR",
                "request_id": "r-1",
                "client": 7,
            },
        )
    ]


def test_audit_of_nobodys_command_names_no_user(log: Log) -> None:
    audit = audit_of(log)
    audit.accepted("cancel", Asker("r-1", None), order_id="o-1")
    log.pass_time()
    fields = {"command": "cancel", "outcome": "accepted", "order_id": "o-1", "request_id": "r-1"}
    assert log.lines[0].fields == fields


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "field"),
    [
        (InvalidFields([FieldError("price", "bad"), FieldError("quantity", "bad")]), "refused", "invalid-fields",
         "price,quantity"),
        (LimitExceeded("max_notional", [FieldError("quantity", "at most (10)")]), "refused", "max_notional", "quantity"),
        (NoSuchOrder(), "refused", "not-found", None),
        (TooManyRequests("orders", 1.0), "refused", "too-many-requests", None),
        (RpcError(RpcCode.NOT_AUTHORISED, "send public/auth first"), "refused", "unauthorised", None),
        (RpcError(RpcCode.BAD_PARAMS, "params: expected an object"), "refused", "invalid-fields", None),
        (BusUnavailable("the bus is away"), "not_written", "bus-unavailable", None),
        (OutcomeUnknown("o-1", "no answer"), "unknown", "outcome-unknown", None),
    ],
)  # fmt: skip
def test_audit_of_a_refusal_says_why(log: Log, error: RpcError, outcome: str, reason: str, field: str | None) -> None:
    audit = audit_of(log)
    audit.refused("place", ALICE, error, client_order_id="c-1")
    log.pass_time()
    fields = dict(log.lines[0].fields)
    assert log.messages == [f"place {outcome}"]
    assert (fields["outcome"], fields["reason"], fields.get("field")) == (outcome, reason, field)
    assert fields["detail"] == error.message
    assert fields["client_order_id"] == "c-1"


def test_audit_cuts_what_a_client_made_up(log: Log) -> None:
    audit = audit_of(log)
    audit.refused("place", ALICE, InvalidFields([FieldError("x" * 1000, "y" * 1000)] * 30))
    log.pass_time()
    fields = log.lines[0].fields
    assert len(str(fields["detail"])) == 200
    assert str(fields["field"]) == ",".join(["x" * 200] * 10)


def test_audit_writes_the_lines_of_a_turn_together(log: Log) -> None:
    audit = audit_of(log)
    for _ in range(5):
        audit.accepted("place", ALICE)
    assert log.lines == []
    log.pass_time()
    assert (len(log.lines), log.writes) == (5, 1)


@pytest.mark.parametrize(("orders", "told"), [("all", ["a", "place accepted", "place refused"]),
                                              ("refused", ["a", "place refused"]), ("none", ["a"])])  # fmt: skip
def test_audit_tells_the_commands_that_it_is_set_to_and_every_act(log: Log, orders: str, told: list[str]) -> None:
    audit = audit_of(log, orders)
    audit.act("a", user_id="alice", symbol=None)
    audit.accepted("place", ALICE)
    audit.refused("place", ALICE, NoSuchOrder())
    log.pass_time()
    assert log.messages == told
    assert log.lines[0].fields == {"action": "a", "user_id": "alice"}


def test_audit_says_how_many_lines_it_left_out_once_the_second_is_over(log: Log) -> None:
    audit = audit_of(log, most=10)
    for number in range(30):
        audit.refused("cancel", Asker("r", f"user-{number}"), NoSuchOrder())
    for _ in range(15):
        audit.accepted("place", ALICE)
    log.pass_time()
    assert log.messages == ["cancel refused"] * 10 + ["place accepted"] * 10
    log.pass_time(1.0)
    last = log.lines[-1]
    assert last.message == "lines left out"
    assert last.fields["lines"] == 25
    assert last.fields["of"] == {"cancel not-found": 20, "place accepted": 5}
    assert len(last.fields["user_ids"]) == 10  # type: ignore[arg-type]
    log.pass_time(1.0)
    assert log.lines[-1] is last


def test_audit_has_room_again_in_the_next_second(log: Log) -> None:
    audit = audit_of(log, most=2)
    for _ in range(3):
        for _ in range(2):
            audit.accepted("place", ALICE)
        log.pass_time(1.0)
    assert log.messages == ["place accepted"] * 6


def test_audit_goes_on_when_the_clock_is_set_back(log: Log) -> None:
    audit = audit_of(log, most=1)
    audit.accepted("place", ALICE)
    log.now -= 3600
    audit.accepted("place", ALICE)
    log.now += 3600
    log.pass_time()
    assert log.messages == ["place accepted"] * 2


def test_audit_of_whoever_floods_leaves_room_for_others(log: Log) -> None:
    audit = audit_of(log, most=100)
    for _ in range(1000):
        audit.refused("place", Asker("r", "mallory"), NoSuchOrder())
    audit.refused("place", ALICE, NoSuchOrder())
    log.pass_time()
    assert [line.fields["user_id"] for line in log.lines] == ["mallory"] * 10 + ["alice"]
    log.pass_time(1.0)
    assert log.lines[-1].fields["user_ids"] == {"mallory": 990}


def test_audit_without_a_bound_leaves_nothing_out(log: Log) -> None:
    audit = audit_of(log, most=0)
    for _ in range(5000):
        audit.refused("place", ALICE, NoSuchOrder())
    log.pass_time(1.0)
    assert log.messages == ["place refused"] * 5000


def test_audit_tries_again_what_the_log_did_not_take(log: Log) -> None:
    audit = audit_of(log)
    log.room = 1
    for name in ("a", "b", "c"):
        audit.act(name)
    log.pass_time()
    assert log.messages == ["a"]
    log.room = 10
    log.pass_time(0.1)
    assert log.messages == ["a", "b", "c"]


def test_audit_waits_for_a_log_that_takes_nothing_within_a_bound_and_tells_what_was_lost(log: Log) -> None:
    audit = audit_of(log)
    log.room = 0
    for _ in range(10_003):
        audit.act("a")
    log.pass_time()
    log.room = 1_000_000
    log.pass_time(1.0)
    log.pass_time()
    assert log.messages == ["a"] * 10_000 + ["lines left out"]
    assert log.lines[-1].fields == {"lines": 3, "of": {"a the log takes no more": 3}}


def test_audit_writes_at_its_end_what_waits_and_what_was_left_out(log: Log) -> None:
    audit = audit_of(log, most=1)
    audit.accepted("place", ALICE)
    audit.accepted("place", ALICE)
    audit.close()
    assert log.messages == ["place accepted", "lines left out"]


def test_audit_without_a_loop_writes_each_line_at_once(log: Log) -> None:
    audit = Audit(log.write, orders="all", clock=lambda: log.now, lines_per_second=1)
    audit.accepted("place", ALICE)
    audit.accepted("place", ALICE)
    log.now += 1
    audit.accepted("place", ALICE)
    assert log.messages == ["place accepted", "lines left out", "place accepted"]


def test_audit_by_default_tells_nobody() -> None:
    audit = Audit()
    audit.act("a")
    audit.accepted("place", ALICE)
    assert write_nothing([Line(0.0, "a", {})]) == 1
    assert not audit.tells_refused


def test_audit_of_a_cancel_on_disconnect_says_what_became_of_it(log: Log) -> None:
    audit = audit_of(log)
    order = Order(
        "o-1", "alice", None, "KCN/EUR", Side.BID, OrderType.LIMIT, None, "1", "1", None, 0, 0, Outcome.ACCEPTED
    )
    for error in (None, BusUnavailable("away"), RuntimeError("is in the log elsewhere")):
        audit.cancelled_on_disconnect(ALICE, order, error)
    log.pass_time()
    assert log.messages == ["cancel_on_disconnect accepted", "cancel_on_disconnect not_written"]
    assert {(line.fields["order_id"], line.fields["symbol"]) for line in log.lines} == {("o-1", "KCN/EUR")}


def test_audit_that_tells_of_none_tells_of_no_batch(log: Log) -> None:
    requests = [{"method": "cancel", "params": {"order_id": "o-1"}}, {"method": "cancel"}, "no request"]
    outcomes = ["o-1", NoSuchOrder(), RpcError(RpcCode.BAD_PARAMS, "expected an object")]
    for tells in ("none", "all"):
        audit_of(log, tells).batch(ALICE, Batch([], None, False, requests), outcomes)
    log.pass_time()
    assert log.messages == ["cancel accepted", "cancel refused", "batch refused"]
