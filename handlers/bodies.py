"""Handlers of small JSON bodies: read with a bound, answered in full.

Bodies are streamed so that one that is too large gets a 413: Tornado by itself only drops the connection. A body that is
too large, but not absurdly so, is read to its end and thrown away before the answer, because closing with unread data
resets the connection and can take the answer with it. Only where the head of a request says that there is nothing to fear,
which is so of every order, and of what has no body, Tornado gathers it: streaming costs two more turns of the loop, 4 % of the
CPU of an order.
"""

from __future__ import annotations

import re
from typing import Any

import tornado.web
import ujson
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import HTTPError, RequestHandler, stream_request_body

from handlers.http_connection import origin_form
from handlers.problems import API_HEADERS, Context, ProblemMixin, Refusal, header

READ_AND_DROP_BYTES = 64 * 1024 * 1024

# What a page of another origin may send (Fetch standard, section 3.2: CORS protocol).
CORS_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
CORS_REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, Traceparent, X-Request-Id"
CORS_SECONDS = "600"

ANSWER_HEADERS = {**API_HEADERS, "Content-Type": "application/json"}


@stream_request_body
class BaseHandler(ProblemMixin):
    """A handler of small JSON bodies, or of none."""

    def initialize(self, context: Context) -> None:
        """Take the shared context; see `Context`."""
        self.context = context
        self.share()
        self.body: bytes | bytearray = bytearray()
        self._too_large = False
        self._dropped_bytes = 0

    def prepare(self) -> None:
        """Look at the announced size before the body comes, or take the body that has come."""
        if not self._stream_request_body:
            self.body = self.request.body
            return
        announced = announced_bytes(self.request.headers)
        if announced is not None and announced > self.context.settings.http.max_body_bytes:
            self._too_large = True
            if announced > READ_AND_DROP_BYTES:
                self._check_size()

    def options(self, *_args: str) -> Any:
        """A browser asks whether a page of another origin may; everybody else, which methods there are."""
        if "Access-Control-Request-Method" in self.request.headers:
            if "Access-Control-Allow-Origin" not in self._headers:
                raise Refusal("forbidden", "Origin: not one of http.allowed_origins")
            self._headers["Access-Control-Allow-Methods"] = CORS_METHODS
            self._headers["Access-Control-Allow-Headers"] = CORS_REQUEST_HEADERS
            self._headers["Access-Control-Max-Age"] = CORS_SECONDS
        else:
            self._headers["Allow"] = self.allowed_methods()
        self.set_status(204)
        self.finish()

    def compute_etag(self) -> str | None:
        """None: answers of the API are never cached, so nobody asks for their hash."""
        return None

    def data_received(self, chunk: bytes) -> None:
        """Keep the body while it is within the bound, then only count it."""
        if self._finished:
            return
        assert isinstance(self.body, bytearray)
        self.body += chunk
        if len(self.body) > self.context.settings.http.max_body_bytes:
            self._too_large = True
        if self._too_large:
            self._dropped_bytes += len(self.body)
            self.body.clear()
            if self._dropped_bytes > READ_AND_DROP_BYTES:
                self.send_error(413, exc_info=(Refusal, self._too_large_refusal(), None))

    def _too_large_refusal(self) -> Refusal:
        return Refusal("too-large", f"a body has at most {self.context.settings.http.max_body_bytes} bytes")

    def _check_size(self) -> None:
        if self._too_large:
            raise self._too_large_refusal()

    def json_body(self) -> bytes:
        """The body of a request that has to be JSON by its content type. Raises `Refusal` (413, 415)."""
        self._check_size()
        if header(self.request.headers, "Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise Refusal(
                "not-json-type", "Content-Encoding: a body is read as it is", headers={"Accept-Encoding": "identity"}
            )
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            raise Refusal("not-json-type", "Content-Type: expected application/json")
        return bytes(self.body)

    def answer(self, status: int, body: object) -> None:
        """Finish with a JSON body."""
        self.answer_text(status, ujson.dumps(body, escape_forward_slashes=False))

    def answer_text(self, status: int, text: str) -> None:
        """Finish with a body that is JSON already."""
        self.set_status(status)
        for name, value in ANSWER_HEADERS.items():
            self._headers[name] = value  # constants of ours, which `set_header` would check each time
        self.finish(text)


def announced_bytes(headers: HTTPHeaders) -> int | None:
    """What Content-Length says; None if nothing, or nothing of sense, which Tornado refuses by itself."""
    announced = headers.get("Content-Length", "")
    if not announced.isdecimal():
        return None
    return int(announced) if len(announced) < 19 else 1 << 63


# The same handlers, asked when the body is there.
_gathered: dict[type[BaseHandler], type[BaseHandler]] = {}


def _gathering(handler: type[BaseHandler]) -> type[BaseHandler]:
    if handler not in _gathered:
        _gathered[handler] = type(handler.__name__, (handler,), {"_stream_request_body": False})
    return _gathered[handler]


class Application(tornado.web.Application):
    """Tornado's, which streams only what has to be streamed, reads absolute targets, and finds a path without a pattern at once."""

    def __init__(self, routes: list[tuple[Any, ...]], **settings: Any) -> None:
        """`routes`: pattern, handler and, if it has any, its arguments. A path that is one whole comes before all patterns."""
        super().__init__(routes, **settings)
        self._by_path = {
            path: (handler, *arguments)
            for path, handler, *arguments in routes
            if path == re.escape(path).replace("\\-", "-")
        }

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Tornado's; whatever the form of a target, from here on it is a path (RFC 9112 section 3.2.2)."""
        target = request.uri or ""
        if not target.startswith("/") and (found := origin_form(target)) is not None:
            # The host that is asked is the target's, whatever the header says.
            request.headers["Host"], request.uri = found
            request.host = found[0]
            request.path, _, request.query = request.uri.partition("?")
        found_by_path = self._by_path.get(request.path)
        if found_by_path is not None:
            return self.get_handler_delegate(request, *found_by_path)
        return super().find_handler(request, **kwargs)

    def get_handler_delegate(
        self,
        request: HTTPServerRequest,
        target_class: type[RequestHandler],
        target_kwargs: dict[str, Any] | None = None,
        path_args: list[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> Any:
        """Tornado's; it is asked once the head of a request is there."""
        if target_kwargs is not None and issubclass(target_class, BaseHandler):
            context: Context = target_kwargs["context"]
            if _is_small(request.headers, context.settings.http.max_body_bytes) or _is_none(request.headers):
                target_class = _gathering(target_class)
        return super().get_handler_delegate(request, target_class, target_kwargs, path_args, path_kwargs)


def _is_small(headers: HTTPHeaders, max_bytes: int) -> bool:
    """Whether a JSON body of at most `max_bytes` is announced (others, as forms, Tornado would try to read itself)."""
    announced = announced_bytes(headers)
    return (
        announced is not None
        and announced <= max_bytes
        and headers.get("Content-Type") == "application/json"
        and "Transfer-Encoding" not in headers
    )


def _is_none(headers: HTTPHeaders) -> bool:
    """Whether there is no body (RFC 9112 section 6.3)."""
    return "Content-Length" not in headers and "Transfer-Encoding" not in headers


class NotFoundHandler(BaseHandler):
    """Every path that has no other handler."""

    def get(self, *_args: str) -> None:
        """Refuse, whatever the method, once the body is read."""
        if not self.request.path.startswith("/") and self.request.path != "*":
            raise Refusal("bad-request", "the request's target: expected a path, or an http address without a user")
        raise HTTPError(404)

    head = post = put = patch = delete = options = get
