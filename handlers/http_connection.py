"""Tornado's HTTP/1.1 below the handlers, where it is not RFC 9112 to the letter, or ends a connection without an answer.

Chunks may have extensions and trailers, which say nothing to us (sections 7.1.1 and 7.1.2); a target may be absolute
(section 3.2.2; `handlers.bodies.Application` reads it). A head that cannot be read, is too long or does not come whole, and a
body that does not come, are answered: the socket, by then nobody's request any more, is handed over to be told so, and
closed once the peer has had its say. So is one that was answered while its peer was still sending.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import re
import socket
import sys
from asyncio import Future
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from tornado.concurrent import future_add_done_callback
from tornado.gen import with_timeout
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError
from tornado.web import Application

from handlers.http_headers import Headers

log = logging.getLogger("gateway.http")

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

BODY_SECONDS = 30.0
IDLE_SECONDS = 120.0
MAX_HEAD_BYTES = 32_768
# Bodies are bounded elsewhere, with an answer; see handlers/bodies.py.
ANY_BODY_BYTES = 1 << 50
# Of one line of a chunk's size or a trailer; and of all extensions and trailers of a body together.
MAX_CHUNK_LINE_BYTES = 4_096
MAX_IGNORED_BYTES = 16_384
# As Tornado: how much is read of what has come before others have a turn, and what a chunk counts for besides.
BYTES_A_TURN = 256 * 1024
CHUNK_COST_BYTES = 1_024

# Tornado's whole answer to what it cannot read, which it writes itself.
BARE_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"
MAX_QUOTED = 100

_read_chunk_size = re.compile(rb"([0-9A-Fa-f]{1,32})[ \t]*(?:;.*)?", re.DOTALL).fullmatch
_read_absolute_form = re.compile(r"https?://([^/?#@\s]+)(/[^?]*)?(\?.*)?", re.IGNORECASE | re.DOTALL).fullmatch


class ServerStream(IOStream):
    """An IOStream that goes as soon as nobody holds it, also when its peer did not say goodbye.

    Tornado keeps the error that closed a stream. The error's traceback, and that of the error in whose handling it came up,
    refer to the frames they came through and to those that called them: to the stream itself, so that only the garbage
    collector would find it, and, where it was the fan-out that came upon the error, to the lists of everybody who was being
    served.
    """

    # Is given the socket of who has no handler, and the slug and sentence of the problem to answer with; None: it has its answer.
    on_left: Callable[[socket.socket, tuple[str, str] | None], None] | None = None
    is_handed_over = False
    _sends_at_once = False
    # Of `read_some`, at most how many bytes; 0 when it is not waited for.
    _reads_some = 0

    def close(self, exc_info: bool | BaseException | ExcInfo | None = False) -> None:
        """See Tornado; of an error only what went wrong is kept, and not where. What is too long is told so."""
        if isinstance(exc_info, UnsatisfiableReadError) and not self.closed():
            self.refuse(*self._too_long())
            return
        # A copy has neither traceback nor context, and gets none when the error is raised further.
        super().close(copy.copy(exc_info) if isinstance(exc_info, BaseException) else exc_info)

    def write(self, data: bytes | memoryview) -> Future[None]:
        """See Tornado; what it cannot read is told so with a body, as everything else."""
        if data == BARE_REFUSAL and not self.closed() and not self.writing():
            error = sys.exception()
            why = f": {str(error)[:MAX_QUOTED]}" if isinstance(error, HTTPInputError) else ""
            self.refuse("bad-request", f"the request is not well formed HTTP/1.1 (RFC 9112){why}")
            raise StreamClosedError
        return super().write(data)

    def refuse(self, slug: str, error: str) -> None:
        """Close, and have somebody answer with a problem what is left of the connection."""
        self._leave((slug, error))

    def end(self, is_read: bool) -> None:
        """Close behind an answer. What is left unread would reset the connection, and take the answer with it."""
        if self.closed():
            return
        if is_read and not self._read_buffer and not self._has_come():
            self.close()
        else:
            self._leave(None)

    def _handle_events(self, fd: Any, events: int) -> None:
        """See Tornado, which listens no more when a request's head has come, and again behind the answer: two calls of the kernel a
        request, and much around them. Here it listens on, until something comes while there is something that nobody reads.
        """
        loop = self.io_loop
        if self.closed():
            return
        try:
            listens = (self._state or 0) & loop.READ
            if events & loop.READ:
                if self._reads_some:
                    self._read_some()
                elif self.reading() or not self._read_buffer_size:
                    self._handle_read()
                else:
                    listens = 0
            if events & loop.WRITE and not self.closed():
                self._handle_write()
            if self.closed():
                return
            state = loop.ERROR | listens | (loop.WRITE if self.writing() else 0)
            if state != self._state:
                self._state = state
                loop.update_handler(self.fileno(), state)
        except UnsatisfiableReadError as error:
            self.close(error)
        except Exception as error:
            log.exception("a connection could not be read or written")
            self.close(error)

    def read_some(self, most: int) -> Awaitable[bytes]:
        """At least a byte, at most so many. As `read_bytes(most, partial=True)`, which looks whether there is something before it
        waits, into 64 KiB of its own each time, and searches and cuts what it gives whole.
        """
        if self._read_buffer_size or self.closed():
            return self.read_bytes(most, partial=True)
        future = self._start_read()
        self._reads_some = most
        self._add_io_state(self.io_loop.READ)
        return future

    def _read_some(self) -> None:
        try:
            data = self.socket.recv(self._reads_some)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(error)
            return
        if not data:
            self.close()
            return
        future, self._read_future, self._reads_some = self._read_future, None, 0
        assert future is not None
        if not future.done():
            future.set_result(data)

    def set_nodelay(self, value: bool) -> None:
        """See Tornado, which sets it behind each answer, and back for the next: answers are written whole."""
        if value and not self._sends_at_once:
            self._sends_at_once = True
            super().set_nodelay(True)

    def hand_over(self) -> socket.socket:
        """Close, but for the socket, which is the caller's from now on."""
        left: socket.socket = self.socket
        self.is_handed_over = True
        super().close()
        return left

    def close_fd(self) -> None:
        """See Tornado; a socket that is somebody else's stays open."""
        if self.is_handed_over:
            self.socket = None  # type: ignore[assignment]
        else:
            super().close_fd()

    def has_begun(self) -> bool:
        """Whether the peer has sent something of a request whose head is not there yet."""
        return not self.closed() and bool(self._read_buffer[:MAX_HEAD_BYTES].strip(b"\r\n"))

    def _has_come(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing, or it was reset
            return False

    def _leave(self, problem: tuple[str, str] | None) -> None:
        on_left, self.on_left = self.on_left, None
        if on_left is None:
            super().close()
        else:
            on_left(self.hand_over(), problem)

    def _too_long(self) -> tuple[str, str]:
        if self._read_regex is None:
            return "bad-request", f"a chunk's first line has at most {MAX_CHUNK_LINE_BYTES} bytes"
        line_ends = b"\n" in self._read_buffer[:MAX_HEAD_BYTES].lstrip(b"\r\n")
        slug, what = ("headers-too-large", "request's head") if line_ends else ("target-too-long", "request's target")
        return slug, f"a {what} has at most {MAX_HEAD_BYTES} bytes"


class HeadDeadlines:
    """Until when each head that is awaited has to be there: one timer for all, where Tornado has one for each request."""

    def __init__(self) -> None:
        # The one that began first is the first.
        self._awaited: dict[RequestConnection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, request: RequestConnection) -> None:
        """Its head is awaited from now on."""
        loop = asyncio.get_running_loop()
        deadline = self._awaited[request] = loop.time() + IDLE_SECONDS
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._look)

    def end(self, request: RequestConnection) -> None:
        """It has come, or will not any more. Harmless when repeated."""
        self._awaited.pop(request, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer, now = None, loop.time()
        late: list[RequestConnection] = []
        for request, deadline in self._awaited.items():
            if deadline > now:
                # Not for each of thousands by itself.
                self._timer = loop.call_at(max(deadline, now + IDLE_SECONDS / 100), self._look)
                break
            late.append(request)
        for request in late:
            self.end(request)
            request.close()


class RequestConnection(HTTP1Connection):
    """One request and its answer."""

    stream: ServerStream

    def __init__(
        self,
        stream: ServerStream,
        params: HTTP1ConnectionParameters,
        context: object,
        deadlines: HeadDeadlines,
    ) -> None:
        """`deadlines` are those of the server's heads."""
        super().__init__(stream, False, params, context)
        self._deadlines = deadlines
        deadlines.begin(self)

    def _parse_headers(self, data: bytes) -> tuple[str, HTTPHeaders]:
        self._deadlines.end(self)
        # As Tornado's, with headers of ours.
        text = data.decode("latin1").lstrip("\r\n")
        end = text.find("\n")
        return text[:end].rstrip("\r"), Headers.parse(text[end + 1 :])

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> Future[None]:
        """See Tornado; a whole answer is one text, and looked at as one."""
        request = self._request_start_line
        if (
            not chunk
            or "Content-Length" not in headers
            or request is None
            or request.method == "HEAD"
            or request.version != "HTTP/1.1"
            or self._disconnect_on_finish
            or self.stream.closed()
        ):
            return super().write_headers(start_line, headers, chunk)
        assert isinstance(start_line, ResponseStartLine)
        lines = [f"{name}: {value}" for name, value in headers.get_all()]
        head = "\r\n".join((f"HTTP/1.1 {start_line.code} {start_line.reason}", *lines))
        if head.count("\r") != len(lines) or head.count("\n") != len(lines):
            return super().write_headers(start_line, headers, chunk)  # which refuses it
        self._response_start_line = start_line
        self._expected_content_remaining = int(headers["Content-Length"])
        future = self._write_future = Future()
        self._pending_write = self.stream.write(b"%b\r\n\r\n%b" % (head.encode("latin1"), self._format_chunk(chunk)))
        future_add_done_callback(self._pending_write, self._on_write_complete)
        return future

    def close(self) -> None:
        """See Tornado, which ends so a head that does not come, and the connection behind an answer."""
        if self.stream is not None and not self.stream.closed():
            if self._write_finished:
                self.stream.end(self._read_finished)
            elif self._request_start_line is None and self.stream.has_begun():
                self.stream.refuse("request-timeout", f"the head did not come within {IDLE_SECONDS:g} s")
        super().close()

    def _read_body(self, code: int, headers: HTTPHeaders, delegate: HTTPMessageDelegate) -> Awaitable[None] | None:
        reading = super()._read_body(code, headers, delegate)
        return reading if reading is None or self._is_here(headers) else self._in_time(reading)

    def _is_here(self, headers: HTTPHeaders) -> bool:
        """Whether all of a body has come with its head, as that of an order does: nothing is waited for."""
        length = headers.get("Content-Length", "")
        return 0 < len(length) < 6 and length.isdecimal() and int(length) <= len(self.stream._read_buffer)

    async def _in_time(self, reading: Awaitable[None]) -> None:
        deadline = self.stream.io_loop.time() + BODY_SECONDS
        try:
            await with_timeout(deadline, reading, quiet_exceptions=StreamClosedError)
        except TimeoutError:
            if self._write_finished:  # it has been answered already, and is only being read to its end
                self.stream.end(is_read=False)
            else:
                self.stream.refuse("request-timeout", f"the body did not come within {BODY_SECONDS:g} s")
            raise StreamClosedError from None

    async def _read_chunked_body(self, delegate: HTTPMessageDelegate) -> None:
        total = ignored = work = 0
        while True:
            line = await self._read_line()
            left = chunk_size(line)
            ignored += max(0, len(line) - 32)
            total += left
            if ignored > MAX_IGNORED_BYTES or total > self._max_body_size:
                raise HTTPInputError("too much in chunks")
            if not left:
                break
            work += CHUNK_COST_BYTES + left
            while left:
                piece = await self.stream.read_bytes(min(left, self.params.chunk_size), partial=True)
                left -= len(piece)
                await self._deliver_body(delegate, piece)
            if await self.stream.read_bytes(2) != b"\r\n":
                raise HTTPInputError("a chunk is longer than it says")
            if work >= BYTES_A_TURN:
                work = 0
                await asyncio.sleep(0)
        while line := await self._read_line():
            ignored += len(line)
            if ignored > MAX_IGNORED_BYTES or line.find(b":") < 1:
                raise HTTPInputError("trailers that are none")

    async def _read_line(self) -> bytes:
        line = (await self.stream.read_until(b"\r\n", max_bytes=MAX_CHUNK_LINE_BYTES))[:-2]
        # A proxy before us may take one for the line's end, and what follows for something else than we do.
        if b"\r" in line or b"\n" in line:
            raise HTTPInputError("half an end of line among chunks")
        return line


class ServerConnection(HTTP1ServerConnection):
    """One connection, request by request; as Tornado's, whose requests would be its own."""

    stream: ServerStream

    def __init__(
        self,
        stream: ServerStream,
        params: HTTP1ConnectionParameters,
        context: object,
        deadlines: HeadDeadlines,
    ) -> None:
        """`deadlines` are those of the server's heads."""
        super().__init__(stream, params, context)
        self._deadlines = deadlines

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        request = None
        try:
            while True:
                request = RequestConnection(self.stream, self.params, self.context, self._deadlines)
                if not await request.read_response(delegate.start_request(self, request)):
                    return
                await asyncio.sleep(0)
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            return
        except Exception:  # of one connection, and of ours
            log.exception("a request could not be served")
            self.stream.close()
        finally:
            if request is not None:
                self._deadlines.end(request)
            delegate.on_close(self)


class Server(HTTPServer):
    """Tornado's server of such connections."""

    def initialize(self, application: Application, max_body_size: int | None = None) -> None:  # type: ignore[override]
        """As Tornado's, within bounds of ours."""
        super().initialize(
            application,
            max_body_size=max_body_size,
            max_header_size=MAX_HEAD_BYTES,
        )
        # The deadline of a head is ours.
        self.conn_params.header_timeout = None
        self._deadlines = HeadDeadlines()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """See Tornado."""
        context = _HTTPRequestContext(stream, address, self.protocol, self.trusted_downstream)
        assert isinstance(stream, ServerStream)
        connection = ServerConnection(stream, self.conn_params, context, self._deadlines)
        self._connections.add(connection)
        connection.start_serving(self)


def chunk_size(line: bytes) -> int:
    """How many bytes a chunk has that begins so. Raises HTTPInputError."""
    found = _read_chunk_size(line)
    if found is None:
        raise HTTPInputError("invalid chunk size")
    return int(found[1], 16)


def origin_form(target: str) -> tuple[str, str] | None:
    """Host, and path with query, of an absolute target; None if it is not one of HTTP (RFC 9110 section 4.2)."""
    found = _read_absolute_form(target)
    return None if found is None else (found[1], (found[2] or "/") + (found[3] or ""))
