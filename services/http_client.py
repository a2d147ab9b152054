"""One HTTP request on a connection of its own, under one deadline, with the knowledge of whether it was sent.

Tornado's AsyncHTTPClient cannot tell a request that never left from one that nobody answered, puts a Content-Type on
every POST and drops an empty query. This is its connection and parser, without those.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import StreamClosedError
from tornado.tcpclient import TCPClient

from core.errors import GatewayError

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


class _Answer(HTTPMessageDelegate):
    """What Tornado's parser tells, kept until it is whole."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = bytearray()
        self.is_whole = False

    def headers_received(self, start_line: object, headers: HTTPHeaders) -> None:
        # An interim answer (1xx) comes here too, and is replaced by the final one.
        assert isinstance(start_line, ResponseStartLine)
        self.status = start_line.code
        self.headers = list(headers.get_all())

    def data_received(self, chunk: bytes) -> None:
        self.body += chunk

    def finish(self) -> None:
        self.is_whole = True


class HttpClient:
    """Requests to one server, so many at a time; the others wait, and their time runs."""

    def __init__(self, url: str, *, max_connections: int, timeout_seconds: float, max_body_bytes: int) -> None:
        """`url` is as `core.settings` has checked it; `max_body_bytes` bounds an answer's body."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if is_tls else 80)
        self._authority = parts.netloc
        self._base_path = parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if is_tls else None
        self._timeout_seconds = timeout_seconds
        self._max_body_bytes = max_body_bytes
        self._slots = asyncio.Semaphore(max_connections)
        self._tcp = TCPClient()

    async def fetch(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> HttpResponse:
        """Send `target` (path and query, under the path of the url) as it is; the answer, whatever its status.

        Follows no redirect and decodes no content. Host, Connection and Content-Length are set here, so they are not
        to be among `headers`. Raises NoAnswer.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(self._timeout_seconds), self._slots:
                return await self._exchange(method, target, headers, body, progress)
        except TimeoutError as error:
            reason = f"no answer within {self._timeout_seconds:g} s"
            raise NoAnswer(reason, was_sent=progress.was_sent, timed_out=True) from error
        except (OSError, ValueError) as error:  # StreamClosedError is an OSError, and so is every one of ssl
            cause = (error.real_error if isinstance(error, StreamClosedError) else None) or error
            reason = str(cause) or type(cause).__name__
            raise NoAnswer(reason, was_sent=progress.was_sent, timed_out=False) from error

    async def _exchange(
        self, method: str, target: str, headers: Headers, body: bytes, progress: _Progress
    ) -> HttpResponse:
        stream = await self._tcp.connect(self._host, self._port, ssl_options=self._tls, timeout=self._timeout_seconds)
        try:
            stream.set_nodelay(True)
            all_headers = HTTPHeaders({"Host": self._authority, "Connection": "close"})
            if body or method in ("POST", "PUT", "PATCH"):
                all_headers["Content-Length"] = str(len(body))
            for name, value in headers:
                all_headers.add(name, value)
            connection = HTTP1Connection(
                stream,
                True,
                HTTP1ConnectionParameters(
                    no_keep_alive=True, max_header_size=_MAX_HEADER_BYTES, max_body_size=self._max_body_bytes
                ),
            )
            start_line = RequestStartLine(method, self._base_path + target, "")
            progress.was_sent = True
            # Not awaited: an answer may come before all of the body has gone, and the deadline is around it all.
            connection.write_headers(start_line, all_headers, body)
            connection.finish()
            answer = _Answer()
            await connection.read_response(answer)
            # A body without a length ends with the connection, and Tornado takes a broken one for that end.
            if not answer.is_whole or stream.error is not None:
                raise ConnectionError("an answer that is not whole, not HTTP, or too large")
            return HttpResponse(answer.status, answer.headers, bytes(answer.body))
        finally:
            stream.close()

    def close(self) -> None:
        """Give up the resolver."""
        self._tcp.close()


@dataclass(slots=True)
class _Progress:
    was_sent: bool = False
