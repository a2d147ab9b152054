"""HTTP requests to one server over connections that are kept, each under one deadline.

The invariant: a request that must not be carried out twice is written once, on a connection that was opened for it. Only
what may be repeated takes a kept one, which the server may be closing at that moment, and is then written once more.

Tornado's AsyncHTTPClient keeps no connection, cannot tell a request that never left from one that nobody answered, puts a
Content-Type on every POST and drops an empty query. This is its connection and parser, without those.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient

from core.errors import GatewayError

# What changes nothing may be asked twice (RFC 9110 section 9.2.1).
SAFE_METHODS: Final = frozenset(["GET", "HEAD", "OPTIONS"])
# Below the minutes after which a firewall between the two forgets a connection without telling either of them.
MAX_IDLE_SECONDS: Final = 30.0

_MAX_HEADER_BYTES = 65_536

Headers = Sequence[tuple[str, str]]


class NoAnswer(GatewayError):
    """There was no answer, or none that can be read. Where `was_sent` is false, nothing of the request left."""

    def __init__(self, reason: str, *, was_sent: bool, timed_out: bool) -> None:
        self.reason = reason
        self.was_sent = was_sent
        self.timed_out = timed_out
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer; header values are what latin-1 makes of their bytes, the body is still encoded as it came."""

    status: int
    headers: Headers
    body: bytes
    is_to_repeat: bool = False
    """The request was sent twice: what this says of it need not hold for the first time."""


@dataclass(frozen=True, slots=True)
class _Request:
    start_line: RequestStartLine
    headers: HTTPHeaders
    body: bytes


@dataclass(slots=True)
class _Progress:
    was_sent: bool = False
    is_answered: bool = False


class _Answer(HTTPMessageDelegate):
    """What Tornado's parser tells, kept until it is whole."""

    def __init__(self, method: str, progress: _Progress) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.is_whole = False
        self.has_clear_end = False
        """Another answer may follow on this connection, and nothing that belongs to this one."""
        self._method = method
        self._progress = progress

    def headers_received(self, start_line: object, headers: HTTPHeaders) -> None:
        # An interim answer (1xx) comes here too, and is replaced by the final one.
        assert isinstance(start_line, ResponseStartLine)
        self._progress.is_answered = True
        self.status = start_line.code
        self.headers = list(headers.get_all())
        # Where an answer has no body by rule, a server that sends one all the same would have it read as the next answer.
        self.has_clear_end = (
            start_line.version == "HTTP/1.1"
            and "close" not in headers.get("Connection", "").lower()
            and ("Content-Length" in headers or "Transfer-Encoding" in headers)
            and self._method != "HEAD"
            and self.status not in (204, 304)
        )

    def data_received(self, chunk: bytes) -> None:
        self.body += chunk

    def finish(self) -> None:
        self.is_whole = True


class HttpClient:
    """Requests to one server, over so many connections at most; what finds none free waits, and its time runs."""

    def __init__(
        self,
        url: str,
        *,
        max_connections: int,
        timeout_seconds: float,
        max_body_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is as `core.config.settings` has checked it; `max_body_bytes` bounds an answer's body."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if is_tls else 80)
        self._authority = parts.netloc
        self._base_path = parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if is_tls else None
        self._timeout_seconds = timeout_seconds
        self._parameters = HTTP1ConnectionParameters(max_header_size=_MAX_HEADER_BYTES, max_body_size=max_body_bytes)
        self._max_connections = max_connections
        self._slots = asyncio.Semaphore(max_connections)
        self._busy = 0
        # Since when each is idle; the one that was used last stands last, and is taken first.
        self._idle: dict[IOStream, float] = {}
        self._clock = clock
        self._is_closed = False
        self._tcp = TCPClient()

    async def fetch(
        self, method: str, target: str, headers: Headers = (), body: bytes = b"", *, is_repeatable: bool
    ) -> HttpResponse:
        """Send `target` (path and query, under the path of the url) as it is; the answer, whatever its status.

        `is_repeatable`: the server may carry it out twice without harm. Follows no redirect and decodes no content. Host,
        Connection and Content-Length are set here, so they are not to be among `headers`. Raises NoAnswer.
        """
        progress = _Progress()
        try:
            request = self._request(method, target, headers, body)
            async with asyncio.timeout(self._timeout_seconds), self._slots:
                self._busy += 1
                try:
                    return await self._send(request, is_repeatable, progress)
                finally:
                    self._busy -= 1
        except TimeoutError as error:
            reason = f"no answer within {self._timeout_seconds:g} s"
            raise NoAnswer(reason, was_sent=progress.was_sent, timed_out=True) from error
        except (OSError, ValueError) as error:  # StreamClosedError is an OSError, and so is every one of ssl
            cause = (error.real_error if isinstance(error, StreamClosedError) else None) or error
            reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            raise NoAnswer(reason, was_sent=progress.was_sent, timed_out=False) from error

    def _request(self, method: str, target: str, headers: Headers, body: bytes) -> _Request:
        all_headers = HTTPHeaders({"Host": self._authority})
        if body or method in ("POST", "PUT", "PATCH"):
            all_headers["Content-Length"] = str(len(body))
        for name, value in headers:
            all_headers.add(name, value)
        return _Request(RequestStartLine(method, self._base_path + target or "/", ""), all_headers, body)

    async def _send(self, request: _Request, is_repeatable: bool, progress: _Progress) -> HttpResponse:
        stream = self._take_idle() if is_repeatable else None
        if stream is not None:
            try:
                return await self._exchange(stream, request, progress)
            except OSError:
                if progress.is_answered:
                    raise
            return replace(await self._exchange(await self._open(), request, progress), is_to_repeat=True)
        return await self._exchange(await self._open(), request, progress)

    async def _open(self) -> IOStream:
        while self._idle and self._busy + len(self._idle) > self._max_connections:
            self._drop(next(iter(self._idle)))
        return await self._tcp.connect(self._host, self._port, ssl_options=self._tls, timeout=self._timeout_seconds)

    async def _exchange(self, stream: IOStream, request: _Request, progress: _Progress) -> HttpResponse:
        is_kept = False
        try:
            stream.set_nodelay(True)
            connection = HTTP1Connection(stream, True, self._parameters)
            progress.was_sent = True
            # Not awaited: an answer may come before all of the body has gone, and the deadline is around it all.
            connection.write_headers(request.start_line, request.headers, request.body)
            connection.finish()
            answer = _Answer(request.start_line.method, progress)
            await connection.read_response(answer)
            # A body without a length ends with the connection, and Tornado takes a broken one for that end.
            if not answer.is_whole or stream.error is not None:
                raise ConnectionError("an answer that is not whole, not HTTP, or too large")
            is_kept = answer.has_clear_end and self._keep(stream)
            return HttpResponse(answer.status, answer.headers, bytes(answer.body))
        finally:
            if not is_kept:
                stream.close()

    def _keep(self, stream: IOStream) -> bool:
        if self._is_closed or not _is_quiet(stream):
            return False
        self._drop_old()
        self._idle[stream] = self._clock()
        # Only with one does Tornado look whether the server closes it.
        stream.set_close_callback(lambda: self._drop(stream))
        return True

    def _take_idle(self) -> IOStream | None:
        self._drop_old()
        while self._idle:
            stream, _ = self._idle.popitem()
            if _is_quiet(stream):
                return stream
            stream.close()
        return None

    def _drop_old(self) -> None:
        while self._idle:
            stream, since = next(iter(self._idle.items()))
            if self._clock() - since <= MAX_IDLE_SECONDS:
                break
            self._drop(stream)

    def _drop(self, stream: IOStream) -> None:
        self._idle.pop(stream, None)
        stream.close()

    def close(self) -> None:
        """Give up the resolver and the kept connections; one in use ends with its answer."""
        self._is_closed = True
        for stream in list(self._idle):
            self._drop(stream)
        self._tcp.close()


def _is_quiet(stream: IOStream) -> bool:
    """Neither closed nor spoken on: what came unasked would be taken for the answer to the next request."""
    # What Tornado has read beyond an answer has no public name; what it has not read yet, an end too, the socket knows.
    if stream.closed() or stream._read_buffer_size:
        return False
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    return not poll.poll(0)
