"""What every HTTP handler shares: its context, the request id, who asks, and problems for errors."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import ujson
from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError, RequestHandler

from core.access.admission import Admission
from core.access.identity import Principal
from core.access.limits import rate_limit_headers
from core.access.scopes import check_scope
from core.config.settings import Settings
from core.errors import PROBLEM_OF_STATUS, PROBLEMS, InsufficientScope, RequestError, TokenNeeded, Unauthorised
from core.log_throttle import QuietLog
from core.telemetry.audit import Audit
from core.telemetry.metrics import Metrics
from handlers.connected_clients import ConnectedClients
from handlers.http_headers import Headers, date
from handlers.message_turns import MessageTurns

log = logging.getLogger("gateway.http")

_requests = itertools.count(1)
_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch

# What a page of another origin may read (Fetch standard, section 3.2: CORS protocol).
CORS_ANSWER_HEADERS = "Retry-After, RateLimit, RateLimit-Policy, Server-Timing, X-Request-Id"

API_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(slots=True)
class Status:
    """Where the process is in its life."""

    draining: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What the handlers are given: settings, metrics, and where the process is in its life."""

    settings: Settings
    metrics: Metrics
    status: Status
    admission: Admission
    clock: Callable[[], float] = time.time
    quiet_log: QuietLog = field(default_factory=lambda: QuietLog(log))
    message_turns: MessageTurns = field(default_factory=MessageTurns)
    clients: ConnectedClients = field(default_factory=ConnectedClients)
    audit: Audit = field(default_factory=Audit)


class Refusal(HTTPError):
    """An answer that is a problem: its slug, one sentence, and what else belongs into body and header."""

    def __init__(
        self,
        slug: str,
        error: str,
        *,
        members: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        is_common: bool = False,
        cause: RequestError | None = None,
    ) -> None:
        """`is_common`: so many may get the same that they are told in the log once a minute; `cause` is what it tells of."""
        self.cause = cause
        self.problem = PROBLEMS[slug]
        self.is_common = is_common
        self.error = error
        self.members = dict(members or {})
        self.headers = dict(headers or {})
        super().__init__(self.problem.status, self.problem.title)


@functools.cache
def _boot() -> str:
    """What makes request ids differ among all instances: no secret, so the kernel need not be asked for each.

    With the first request and not with the import, which several workers have in common: each is a fork of one process.
    """
    return os.urandom(4).hex()


CHALLENGE = {"WWW-Authenticate": 'Bearer realm="mexchange"'}
# RFC 6750 section 3.1: a token that was given and is no good is named as such.
BAD_TOKEN = {"WWW-Authenticate": 'Bearer realm="mexchange", error="invalid_token"'}


def refusal_of(error: RequestError) -> Refusal:
    """How a refusal is told over REST."""
    headers = CHALLENGE if isinstance(error, TokenNeeded) else BAD_TOKEN if isinstance(error, Unauthorised) else {}
    if isinstance(error, InsufficientScope):
        headers = {
            "WWW-Authenticate": f'{CHALLENGE["WWW-Authenticate"]}, error="insufficient_scope", scope="{error.needed}"'
        }
    if error.retry_after_seconds is not None:
        headers = {"Retry-After": str(error.retry_after_seconds)}
    return Refusal(error.problem, error.detail, members=error.members, headers=headers, cause=error)


def header(headers: HTTPHeaders, name: str, default: str) -> str:
    """What is rarely sent: `get` finds by an error that it is not there."""
    return headers[name] if name in headers else default  # noqa: SIM401


class ProblemMixin(RequestHandler):
    """Errors as RFC 9457 problems, and a request id on every answer."""

    request_id: str
    context: Context
    # Where the caller stands with its limit: told with an error too, for which Tornado forgets what was set.
    limit_headers: Mapping[str, str] = {}

    def clear(self) -> None:
        """See Tornado, which makes the text of `Date` anew for each answer."""
        self._headers = Headers({"Content-Type": "text/html; charset=UTF-8", "Date": date()})
        self.set_default_headers()
        self._write_buffer = []
        self._status_code, self._reason = 200, "OK"

    def set_default_headers(self) -> None:
        """Name no version of anything, and give the request an id, the client's own if it is a plain one."""
        if not hasattr(self, "request_id"):
            given = header(self.request.headers, "X-Request-Id", "")
            self.request_id = given if given and _is_request_id(given) else f"{_boot()}{next(_requests):08x}"
        self._headers["Server"] = "mexchange-gateway"
        self._headers["X-Request-Id"] = self.request_id
        # Tornado calls this before `initialize`, and once more before it writes an error.
        if hasattr(self, "context"):
            self.share()

    def share(self) -> None:
        """Let pages of the configured origins read the answer."""
        if not self.context.settings.http.allowed_origins:
            return
        self._headers["Vary"] = "Origin"
        origin = self.request.headers.get("Origin")
        if origin is not None and self.is_allowed_origin(origin):
            self._headers["Access-Control-Allow-Origin"] = origin
            self._headers["Access-Control-Allow-Credentials"] = "true"
            self._headers["Access-Control-Expose-Headers"] = CORS_ANSWER_HEADERS

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether pages of this other origin may use the gateway; for WebSockets too."""
        return origin.lower() in self.context.settings.http.allowed_origins

    @property
    def address(self) -> str:
        """The client's address, as trusted proxies tell it."""
        headers = self.request.headers
        forwarded = headers.get_list("X-Forwarded-For") if "X-Forwarded-For" in headers else ()
        return self.context.admission.address_of(self.request.remote_ip or "", forwarded)

    async def principal(self) -> Principal | None:
        """Whose token the request bears; None without one. Raises `Refusal` (401)."""
        try:
            return await self.context.admission.bearer(self.request.headers.get("Authorization"))
        except Unauthorised as error:
            raise refusal_of(error) from error

    @staticmethod
    def check_scope(principal: Principal | None, needed: str) -> None:
        """Whether the token, if there is one, allows what needs this word. Raises `Refusal` (403)."""
        if principal is not None:
            try:
                check_scope(principal.allowed, needed)
            except InsufficientScope as error:
                raise refusal_of(error) from error

    def take_request(self) -> None:
        """Count a request against its address. Raises `Refusal` (429)."""
        if self.context.settings.limits.address_requests_per_second:
            decision = self.context.admission.take_request(self.address)
            if not decision.allowed:
                raise self.too_many("requests of this address", rate_limit_headers(decision))

    def take_login(self) -> None:
        """Count an attempt to log in against its address. Raises `Refusal` (429)."""
        decision = self.context.admission.take_login(self.address)
        if not decision.allowed:
            raise self.too_many("logins of this address", rate_limit_headers(decision))

    def too_many(self, what: str, headers: Mapping[str, str], counted_as: str | None = None) -> Refusal:
        """A 429 that is counted, by what there is too much of if nothing else is said."""
        self.context.metrics.rate_limited.labels(counted_as or what).inc()
        return Refusal("too-many-requests", f"too many {what}; wait as long as Retry-After says", headers=headers)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what was wrong as `application/problem+json`."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        refusal = error if isinstance(error, Refusal) else self._as_refusal(status_code)
        problem = refusal.problem
        self.context.metrics.refusals.labels(problem.slug).inc()
        if error is None or isinstance(error, HTTPError):  # anything else was logged whole
            write = functools.partial(log.log, logging.WARNING if problem.status >= 500 else logging.DEBUG)
            if refusal.is_common:
                write = functools.partial(self.context.quiet_log.warning, refusal.error)
            write(
                "request %s: %s %s refused: %d %s",
                self.request_id, self.request.method, self.request.path, problem.status, refusal.error,
            )  # fmt: skip
        for name, value in {**API_HEADERS, **self.limit_headers, **refusal.headers}.items():
            self.set_header(name, value)
        self.set_header("Content-Type", "application/problem+json")
        self.finish(ujson.dumps(self.problem_body(refusal), escape_forward_slashes=False))

    def problem_body(self, refusal: Refusal) -> dict[str, object]:
        """What is said of a refusal (RFC 9457)."""
        problem = refusal.problem
        return {
            "type": problem.type,
            "title": problem.title,
            "status": problem.status,
            "detail": refusal.error,
            "error": refusal.error,
            "request_id": self.request_id,
            **refusal.members,
        }

    def _as_refusal(self, status_code: int) -> Refusal:
        if status_code == 405:
            return Refusal(
                "method-not-allowed",
                f"{self.request.path} does not take {self.request.method}",
                headers={"Allow": self.allowed_methods()},
            )
        slug = PROBLEM_OF_STATUS[status_code].slug if status_code in PROBLEM_OF_STATUS else "internal"
        if status_code == 400:  # Tornado's own: a target that is not UTF-8 once it is decoded; bodies are read here
            slug = "bad-request"
        sentences = {404: f"there is no {self.request.path}", 500: "a fault of the gateway's own; it was logged"}
        made = Refusal(slug, sentences.get(status_code, "the request cannot be served"))
        if status_code not in PROBLEM_OF_STATUS:
            self.set_status(made.problem.status)
        return made

    def allowed_methods(self) -> str:
        """What this resource takes, for `Allow`."""
        return ", ".join(
            method
            for method in self.SUPPORTED_METHODS
            if getattr(type(self), method.lower()) is not getattr(RequestHandler, method.lower())
        )

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """A refusal is the client's business and counted; anything else is ours, with its traceback."""
        if not isinstance(value, HTTPError):
            log.error(
                "request %s: %s %s failed",
                self.request_id, self.request.method, self.request.path, exc_info=value,
            )  # fmt: skip


def full() -> Refusal:
    """The refusal of one connection more than can be held."""
    return Refusal("unavailable", "no more connections can be held", headers={"Retry-After": "5"}, is_common=True)
