from __future__ import annotations

from collections.abc import Callable

import pytest

from core.errors import BusUnavailable, NoSuchOrder, OutcomeUnknown, RequestError
from core.telemetry.audit import Audit, Line, outcome_of, write_nothing


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


def audit_of(log: Log) -> Audit:
    return Audit(log.write, log.later, clock=lambda: log.now)


def test_audit_of_an_act_has_its_fields_and_says_what_came_of_it(log: Log) -> None:
    audit = audit_of(log)
    audit.act("block", user_id="alice", symbol=None, outcome="done")
    audit.act("resume", symbol="A/B")
    log.pass_time()
    assert log.lines == [
        Line(1000.0, "block done", {"action": "block", "user_id": "alice", "outcome": "done"}),
        Line(1000.0, "resume", {"action": "resume", "symbol": "A/B"}),
    ]


def test_audit_writes_the_lines_of_a_turn_together(log: Log) -> None:
    audit = audit_of(log)
    for _ in range(5):
        audit.act("a")
    assert log.lines == []
    log.pass_time()
    assert (len(log.lines), log.writes) == (5, 1)


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
    assert log.lines[-1].fields == {"lines": 3}


def test_audit_writes_at_its_end_what_waits(log: Log) -> None:
    audit = audit_of(log)
    audit.act("a")
    audit.close()
    assert log.messages == ["a"]


def test_audit_without_a_loop_writes_each_line_at_once(log: Log) -> None:
    audit = Audit(log.write, clock=lambda: log.now)
    audit.act("a")
    assert log.messages == ["a"]


def test_audit_by_default_tells_nobody() -> None:
    Audit().act("a")
    assert write_nothing([Line(0.0, "a", {})]) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(NoSuchOrder(), "refused"), (BusUnavailable("away"), "not_written"), (OutcomeUnknown("o-1", "late"), "unknown")],
)
def test_outcome_of_an_act_that_failed_says_whether_it_may_have_been_done(error: RequestError, outcome: str) -> None:
    assert outcome_of(error) == outcome
