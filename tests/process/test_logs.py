from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from core.telemetry.audit import Line, write_nothing
from process.logs import PIPE_BYTES, AuditWriter, JsonLines, TextLines, set_up_logging

WHEN = 1_795_350_151.0625
LINE = Line(WHEN, "place refused", {"command": "place", "outcome": "refused", "user_id": "alice", "client": 7})


def record(message: str, *arguments: object, fault: Exception | None = None) -> logging.LogRecord:
    made = logging.LogRecord("gateway", logging.WARNING, "", 0, message, arguments,
                             None if fault is None else (type(fault), fault, None))  # fmt: skip
    made.created = WHEN
    return made


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_lines_have_time_level_logger_and_message() -> None:
    assert TextLines().format(record("%d clients", 3)) == "2026-11-22T12:22:31.062Z WARNING gateway: 3 clients"


def test_text_lines_of_a_worker_say_whose_they_are() -> None:
    assert TextLines(2).format(record("here")) == "2026-11-22T12:22:31.062Z WARNING worker 2 gateway: here"


def test_text_lines_have_the_traceback_behind_them() -> None:
    first, *rest = TextLines().format(record("a fault", fault=ValueError("x"))).split("\n")
    assert first.endswith("gateway: a fault")
    assert rest == ["ValueError: x"]


def test_text_lines_of_the_audit_have_their_fields_behind_them() -> None:
    line = LINE._replace(fields={**LINE.fields, "detail": "quantity: at most (10)", "of": {"a": 1}})
    assert TextLines().audit(line) == (
        "2026-11-22T12:22:31.062Z INFO    gateway.audit: place refused user_id=alice client=7 "
        'detail="quantity: at most (10)" of="{\\"a\\":1}"'
    )


@pytest.mark.parametrize("more", [{}, {"command": "place", "outcome": "refused"}])
@pytest.mark.parametrize("text", ["a b=c", "a symbol=KCN/EUR", "a\nb", "a\u2028b", 'say "x"', "", "\x1b[2J", "\ud800"])
def test_text_lines_of_the_audit_keep_what_a_client_made_up_in_its_quotes(text: str, more: dict[str, str]) -> None:
    told = TextLines().audit(LINE._replace(fields={**more, "user_id": text}))
    value = told.partition(" user_id=")[2]
    assert json.loads(value) == text
    assert told.isascii()
    assert told.isprintable()


def test_text_lines_of_an_order_are_those_of_any_other_act() -> None:
    fields = {"user_id": "alice", "order_ids": ["a", "b"], "client": 7}
    told = TextLines().audit(LINE._replace(fields={"command": "cancel_all", "outcome": "accepted", **fields}))
    assert told == TextLines().audit(LINE._replace(fields=fields))
    assert told.endswith(' user_id=alice order_ids="[\\"a\\",\\"b\\"]" client=7')


def test_json_lines_have_time_level_logger_and_message() -> None:
    assert json.loads(JsonLines().format(record("%d clients", 3))) == {
        "time": "2026-11-22T12:22:31.062Z",
        "level": "warning",
        "logger": "gateway",
        "message": "3 clients",
    }


def test_json_lines_have_the_traceback_in_them() -> None:
    made = record("a fault", fault=ValueError("x\ny"))
    made.stack_info = "here"
    text = JsonLines(1).format(made)
    assert "\n" not in text
    told = json.loads(text)
    assert (told["exception"], told["stack"], told["worker"]) == ("ValueError: x\ny", "here", 1)


def test_json_lines_of_the_audit_have_its_fields_as_members() -> None:
    assert json.loads(JsonLines(2).audit(LINE)) == {
        "time": "2026-11-22T12:22:31.062Z",
        "level": "info",
        "logger": "gateway.audit",
        "message": "place refused",
        "command": "place",
        "outcome": "refused",
        "user_id": "alice",
        "client": 7,
        "worker": 2,
    }


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b", 'say "x"', "\x1b[2J", "ä", "\ud800"])
def test_json_lines_are_one_line_whatever_a_client_made_up(text: str) -> None:
    told = JsonLines().audit(LINE._replace(fields={"user_id": text}))
    assert told.isascii()
    assert told.isprintable()
    assert json.loads(told)["user_id"] == text


@pytest.mark.parametrize(("form", "kind"), [("text", TextLines), ("json", JsonLines)])
@pytest.mark.usefixtures("logging_as_before")
def test_logging_is_set_up_in_the_form_that_is_asked_for(form: str, kind: type) -> None:
    assert isinstance(set_up_logging("info", form=form), AuditWriter)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler.formatter, kind)


@pytest.mark.usefixtures("logging_as_before")
def test_logging_of_warnings_has_no_audit() -> None:
    assert set_up_logging("warning") is write_nothing


def writer_to(stream: io.TextIOBase) -> AuditWriter:
    return AuditWriter(logging.StreamHandler(stream), JsonLines().audit)


def test_audit_writer_writes_whole_lines() -> None:
    stream = io.StringIO()
    assert writer_to(stream)([LINE] * 100) == 100
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["place refused"] * 100
    assert stream.getvalue().endswith("\n")


def test_audit_writer_waits_for_nobody_when_a_pipe_is_full() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb", buffering=0) as reader:
        write = writer_to(stream)
        written = 0
        while taken := write([LINE] * 1000):  # whoever blocks here is stopped by the test's time limit
            written += taken
        assert write([LINE]) == 0
        told = b""
        while told.count(b"\n") < written:
            told += reader.read(PIPE_BYTES)
        assert told.count(b"\n") == written
        assert write([LINE]) == 1


def test_audit_writer_gives_up_where_nobody_reads_any_more() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    assert writer_to(stream)([LINE] * 3) == 3
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_audit_writer_gives_up_where_the_log_is_closed() -> None:
    stream = io.StringIO()
    write = writer_to(stream)
    stream.close()
    assert write([LINE] * 3) == 3
