"""The account service's own routes, passed through (docs/contract.md#account-service).

What crosses is a method, a target as it came, end-to-end headers and a bounded body. Who the user is, where the request
came from and its id are said here alone: whatever a client says of those under any spelling of the names is dropped.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from tornado.httputil import HTTPInputError

from core.access.admission import Admission
from core.access.scopes import READ, TRADE
from core.errors import InsufficientScope
from handlers.bodies import BaseHandler
from handlers.passthrough_targets import check_target
from handlers.problems import Context, Refusal, refusal_of

MAX_BODY_BYTES = 1024 * 1024

# Whole segments: /api/me and what is under it, but not /api/meow; /api/orders, but not our own /api/order.
PATHS = r"(?:/auth/.*|/api/(?:me|balances|orders|ohlcv)(?:/.*)?|/api/faucet/.*)"

# RFC 9110 section 7.6.1, and those that RFC 2616 had among them.
_HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ]
)
# What is said here alone, or nowhere: identity, origin, and the overrides of a path that some frameworks obey.
_OURS = frozenset(
    [
        "host",
        "content-length",
        "expect",
        "x-request-id",
        "x-user-id",
        "forwarded",
        "x-real-ip",
        "true-client-ip",
        "x-client-ip",
        "client-ip",
        "x-cluster-client-ip",
        "cf-connecting-ip",
        "x-original-url",
        "x-original-uri",
        "x-original-host",
        "x-rewrite-url",
    ]
)
_NOT_BACK = frozenset(["content-length", "server", "x-request-id", "alt-svc"])
# The gateway has one list of origins for all that it serves; the service's own would contradict it.
_CORS = "access-control-"

# Some servers make one name of `X-User-Id`, `X_User_Id` and `X.User.Id`.
_dashed = re.compile(r"[^a-z0-9]").sub

UserOf = Callable[[BaseHandler], "Awaitable[str | None] | str | None"]
Admit = Callable[[BaseHandler], "Awaitable[None] | None"]


class Answer(Protocol):
    """What the upstream answered, whole and encoded as it came."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """Names and values, in their order, a name as often as it came."""

    @property
    def body(self) -> bytes:
        """Within the upstream's own bound."""


class Upstream(Protocol):
    """The account service."""

    async def fetch(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes, user_id: str | None
    ) -> Answer:
        """Pass one request on, under `X-User-Id` if there is a user. Raises TimeoutError and ConnectionError."""


async def passed_user(admission: Admission, handler: BaseHandler) -> str | None:
    """Whose request is passed through. A scope says nothing of what is at `/auth/`: there such a token is nobody's."""
    request = handler.request
    needed = READ if request.method in ("GET", "HEAD", "OPTIONS") else TRADE
    try:
        return await admission.user_of(
            request.headers.get("Authorization"), None if request.path.startswith("/auth/") else needed
        )
    except InsufficientScope as error:
        raise refusal_of(error) from error


class PassthroughHandler(BaseHandler):
    """Every method of every path that is the account service's."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, upstream: Upstream, user_of: UserOf, admit: Admit) -> None:  # type: ignore[override]
        """See `routes`."""
        super().initialize(context)
        self._upstream = upstream
        self._user_of = user_of
        self._admit = admit

    async def get(self) -> None:
        """Pass it on, whatever the method, once the body is read."""
        self._check_size()
        target = self.request.uri or ""
        check_target(target)
        if self.request.path.startswith("/auth/"):
            await _outcome(self._admit(self))
        user_id: str | None = await _outcome(self._user_of(self))
        try:
            answer = await self._upstream.fetch(
                self.request.method or "", target, self._request_headers(), bytes(self.body), user_id
            )
        except TimeoutError as error:
            raise Refusal("gateway-timeout", "the account service did not answer in time") from error
        except ConnectionError as error:
            raise Refusal("bad-gateway", "the account service gave no usable answer") from error
        self._relay(answer)

    head = post = put = patch = delete = get

    def options(self, *args: str) -> Any:
        """A browser's question about other origins is ours to answer; every other OPTIONS is passed on."""
        if "Access-Control-Request-Method" in self.request.headers:
            return super().options(*args)
        return self.get()

    def _request_headers(self) -> list[tuple[str, str]]:
        headers = _end_to_end(self.request.headers.get_all())
        kept = [(name, value) for name, value in headers if not _is_ours(name)]
        return [
            *kept,
            ("X-Forwarded-For", self.address),
            ("X-Forwarded-Proto", self._protocol()),
            ("X-Forwarded-Host", self.request.host),
            ("X-Request-Id", self.request_id),
        ]

    def _protocol(self) -> str:
        """http or https, as the client sees it: a proxy's word counts where its word on the address does."""
        told = self.request.headers.get_list("X-Forwarded-Proto")
        last = told[-1].rpartition(",")[2].strip().lower() if told else ""
        if last in ("http", "https") and self.address != self.request.remote_ip:
            return last
        return self.request.protocol

    def _relay(self, answer: Answer) -> None:
        if not 200 <= answer.status <= 599:
            raise Refusal("bad-gateway", "the account service gave no usable answer")
        self.set_status(answer.status)
        self.clear_header("Content-Type")
        self.set_header("X-Content-Type-Options", "nosniff")
        headers = [
            (name, value)
            for name, value in _end_to_end(answer.headers)
            if name.lower() not in _NOT_BACK and not name.lower().startswith(_CORS)
        ]
        try:
            for name in {name for name, _ in headers} - {"Vary"}:
                self.clear_header(name)
            for name, value in headers:
                self.add_header(name, value)
        except (ValueError, HTTPInputError) as error:
            raise Refusal("bad-gateway", "the account service gave no usable answer") from error
        has_body = self.request.method != "HEAD" and answer.status not in (204, 304)
        if self.request.method == "HEAD" and answer.status not in (204, 304):
            self._tell_length_of_get(answer)
        self.finish(answer.body if has_body else None)

    def _tell_length_of_get(self, answer: Answer) -> None:
        """A HEAD has the length that GET would have, or says nothing of it; Tornado by itself would say 0."""
        lengths = {value.strip() for name, value in answer.headers if name.lower() == "content-length"}
        if len(lengths) == 1 and (length := lengths.pop()).isdecimal():
            self.set_header("Content-Length", length)
        else:
            self.flush()


def _end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the headers that are between two neighbours only, those that `Connection` names among them."""
    headers = list(headers)
    named = {
        token.strip().lower() for name, value in headers if name.lower() == "connection" for token in value.split(",")
    }
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP | named]


def _is_ours(name: str) -> bool:
    dashed = _dashed("-", name.lower())
    return dashed in _OURS or dashed in _HOP_BY_HOP or dashed.startswith("x-forwarded-")


async def _outcome(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def routes(context: Context, upstream: Upstream, user_of: UserOf, admit: Admit) -> list[tuple[Any, ...]]:
    """The route table of this room, for where an account service is set.

    `user_of` gives the user of a valid token, and None without one or with a bad one: a request with an expired token
    is passed on as nobody's, for `/auth/*` has to work with it. `admit` is asked for `/auth/*` alone and raises
    `Refusal`. Either may be a coroutine function.
    """
    larger = replace(context.settings.http, max_body_bytes=MAX_BODY_BYTES)
    own_context = replace(context, settings=replace(context.settings, http=larger))
    return [
        (PATHS, PassthroughHandler, {"context": own_context, "upstream": upstream, "user_of": user_of, "admit": admit})
    ]
