"""The log: one line each on standard error, librdkafka's and Tornado's own among them, as text or as JSON."""

from __future__ import annotations

import json
import logging
import re
import select
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import ujson

from core.telemetry.audit import Line, Write, write_nothing

AUDIT_LOGGER: Final = "gateway.audit"
# So much a pipe takes whole or not at all (POSIX, PIPE_BUF), and has room for when it says that it can be written to.
PIPE_BYTES: Final = 4096

# `json.dumps` with separators makes an encoder for each value.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
# What needs no quotes in a line of text; and fields of which none does.
_is_plain = re.compile(r"[A-Za-z0-9._:/+@,-]+").fullmatch
_are_plain = re.compile(r"(?: [a-z_]+=[A-Za-z0-9._:/+@,-]+)*").fullmatch


class _Clock:
    """Times as the log has them, RFC 3339 in UTC; to make the whole text anew for each line costs as much as the rest of it."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, seconds: float) -> str:
        whole = int(seconds)
        if whole != self._second:
            self._second, self._text = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        return f"{self._text}.{int((seconds - whole) * 1000):03d}Z"


class TextLines(logging.Formatter):
    """`TIME LEVEL logger: message`, and an audit's fields behind it as `name=value`."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._clock = _Clock()
        self._who = "" if worker is None else f"worker {worker} "

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without a traceback."""
        when = self._clock.text(record.created)
        return f"{when} {record.levelname:<7} {self._who}{record.name}: {record.message}"

    def audit(self, line: Line) -> str:
        """A line of the audit."""
        given = line.fields
        told = [f" {name}={value}" for name, value in given.items() if name not in _IN_THE_MESSAGE]
        fields = "".join(told)
        # All at once, which is for each order; its line has texts and integers, which are the same in Python. A value with a
        # space in it is none of two fields.
        if "command" not in given or fields.count(" ") != len(told) or not _are_plain(fields):
            fields = "".join(
                [f" {name}={_as_text(value)}" for name, value in given.items() if name not in _IN_THE_MESSAGE]
            )
        return f"{self._clock.text(line.time)} INFO    {self._who}{AUDIT_LOGGER}: {line.message}{fields}"


_IN_THE_MESSAGE: Final = frozenset({"command", "outcome", "action"})


def _as_text(value: object) -> str:
    if type(value) is int:
        return str(value)
    text = value if isinstance(value, str) else _encode(value)
    return text if _is_plain(text) else json.dumps(text)


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, an audit's fields, `worker`, `exception`."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._clock = _Clock()
        self._more: Mapping[str, object] = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """A record of Python's logging, its traceback in it."""
        members = {
            **self._head(record.created, record.levelname.lower(), record.name, record.getMessage()),
            **self._more,
        }
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            members["stack"] = self.formatStack(record.stack_info)
        return json.dumps(members)

    def audit(self, line: Line) -> str:
        """A line of the audit."""
        members = {**self._head(line.time, "info", AUDIT_LOGGER, line.message), **line.fields, **self._more}
        return ujson.dumps(members, escape_forward_slashes=False)

    def _head(self, seconds: float, level: str, logger: str, message: str) -> dict[str, object]:
        return {"time": self._clock.text(seconds), "level": level, "logger": logger, "message": message}


def set_up_logging(level: str, worker: int | None = None, form: str = "text") -> Write:
    """Log from this level on; of several workers, each line says whose it is. Gives what writes the audit's lines."""
    formatter = JsonLines(worker) if form == "json" else TextLines(worker)
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    if not logging.getLogger(AUDIT_LOGGER).isEnabledFor(logging.INFO):
        return write_nothing
    return AuditWriter(handler, formatter.audit)


class AuditWriter:
    """Writes lines to where the log goes, whole ones, and none to a pipe that is full: the loop waits for no reader of a log."""

    def __init__(self, handler: logging.StreamHandler, form: Callable[[Line], str]) -> None:  # type: ignore[type-arg]
        self._handler = handler
        self._form = form
        self._poll: select.poll | None = None
        try:
            descriptor = handler.stream.fileno()
        except (AttributeError, OSError, ValueError):
            return  # what has none is in memory
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def __call__(self, lines: list[Line]) -> int:
        """How many of them were written."""
        written = 0
        self._handler.acquire()
        try:
            for some, text in self._in_pieces(lines):
                if self._poll is not None and not self._poll.poll(0):
                    break
                self._handler.stream.write(text)
                self._handler.flush()
                written += some
        except (OSError, ValueError):
            return len(lines)  # nobody reads it any more
        finally:
            self._handler.release()
        return written

    def _in_pieces(self, lines: list[Line]) -> Iterator[tuple[int, str]]:
        """As many lines at once as a pipe that can be written to takes."""
        texts: list[str] = []
        size = 0
        for line in lines:
            text = self._form(line) + "\n"
            if texts and size + len(text) > PIPE_BYTES:
                yield len(texts), "".join(texts)
                texts, size = [], 0
            texts.append(text)
            size += len(text)
        if texts:
            yield len(texts), "".join(texts)
