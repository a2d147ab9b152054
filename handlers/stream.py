"""`/ws`: one WebSocket connection between its session, its outbox and the hub."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from math import ceil
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketHandler, WebSocketProtocol, _WebSocketParams

from core.addresses import address_key
from core.client import SessionRules
from core.commands import CancelOrder, PlaceOrder
from core.effects import (
    Answer,
    Authenticate,
    Cancel,
    CancelAll,
    Effect,
    Place,
    PlaceUnanswered,
    Reply,
    SetCancelOnDisconnect,
    Subscribe,
    SubscribeAccount,
    Unsubscribe,
    refusal,
)
from core.errors import (
    BusUnavailable,
    CloseCode,
    GatewayError,
    OutcomeUnknown,
    RpcCode,
    RpcError,
    Unauthorised,
    UnknownKey,
)
from core.hub import Hub
from core.identity import Principal
from core.limits import ConnectionLimits, Decision, Verdict
from core.order_entry import OrderEntry, rpc_error
from core.order_state import Order
from core.orders import OrderDirectory
from core.outbox import Outbox
from core.private_feed import ACCOUNT_ORDERS, PrivateFeed
from core.session import Session
from core.subscriber import Subscriber
from handlers import older_dialect
from handlers.base import Context, ProblemMixin, Refusal, full
from handlers.orders import refusal_of
from handlers.protocol import GatewayProtocol
from handlers.transport import SocketTransport

log = logging.getLogger("gateway.ws")

_numbers = itertools.count(1)

AUTH_EXPIRED = b'{"type":"auth_status","status":"expired"}'
MAX_WAIT_SECONDS = 3600.0
NO_HEADERS = HTTPHeaders()
# Orders of one connection that are remembered before the closed ones among them are looked for.
PRUNE_AT = 256


class Trading:
    """What every connection orders by: the order path, the private feed, and the open connections' orders."""

    def __init__(self, entry: OrderEntry, directory: OrderDirectory, private: PrivateFeed) -> None:
        self.entry = entry
        self.directory = directory
        self.private = private
        # Orders under way and cancels on disconnect: the drain waits for them before it flushes the producer. The loop
        # itself keeps only weak references.
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that a connection does not wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def finish(self, timeout_seconds: float) -> None:
        """Wait for what is under way, and for what follows from it."""
        deadline = time.monotonic() + timeout_seconds
        while self.tasks and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(self.tasks, timeout=left)


class StreamHandler(ProblemMixin, WebSocketHandler):
    """One client.

    What is ours is in slots: with more than 30 attributes an instance's dictionary takes a kilobyte more.
    """

    __slots__ = (
        "_address",
        "_address_key",
        "_awaited",
        "_cancels_on_disconnect",
        "_cause",
        "_expiry",
        "_has_left",
        "_hub",
        "_last_words",
        "_limits",
        "_number",
        "_placed",
        "_principal",
        "_prune_at",
        "_session",
        "_subscriber",
        "_trading",
        "_turn",
        "context",
        "request_id",
    )

    def initialize(self, context: Context, hub: Hub, rules: SessionRules, trading: Trading) -> None:
        """`rules` are the session's."""
        self.context = context
        self._hub = hub
        self._session = Session(rules)
        self._trading = trading
        self._subscriber: Subscriber | None = None
        self._number = next(_numbers)
        self._cause = "client"
        self._limits = ConnectionLimits(context.admission.messages)
        self._principal: Principal | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._cancels_on_disconnect = False
        # The orders that were placed here, the youngest last, and whose they are.
        self._placed: dict[str, str | None] = {}
        self._prune_at = PRUNE_AT
        self._has_left = False
        # Requests whose outcome the client is waiting for, and what to close with once it has been told of them all.
        self._awaited = 0
        self._last_words: str | None = None
        self._turn = asyncio.Lock()

    async def prepare(self) -> None:
        """Refuse before the upgrade, as a problem, what cannot become a connection."""
        settings, admission = self.context.settings, self.context.admission
        if self.context.status.draining:
            raise Refusal("unavailable", "this instance is shutting down; connect again", headers={"Retry-After": "1"})
        if len(self._hub.subscribers) >= settings.websocket.max_connections > 0:
            raise full()
        upgrade = self.request.headers.get("Upgrade", "").lower() == "websocket"
        connection = [part.strip().lower() for part in self.request.headers.get("Connection", "").split(",")]
        if self.request.method != "GET":
            return
        if not upgrade or "upgrade" not in connection:
            raise Refusal("bad-request", "this is a WebSocket: connect with an Upgrade (RFC 6455)")
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            raise Refusal(
                "upgrade-required", "this is WebSocket 13 (RFC 6455)", headers={"Sec-WebSocket-Version": "13"}
            )
        if not self.request.headers.get("Sec-WebSocket-Key"):
            raise Refusal("bad-request", "Sec-WebSocket-Key: expected one (RFC 6455, section 4.2.1)")
        if self._check_cross_origin(self.check_origin) is not None:
            raise Refusal("forbidden", "Origin: not this origin, and not one of http.allowed_origins")
        if wait := admission.take_connect(self.address):
            raise self.too_many("connects", {"Retry-After": str(max(1, ceil(wait)))})
        try:
            self._principal = await admission.bearer(self.request.headers.get("Authorization"))
        except Unauthorised as error:
            raise refusal_of(error) from error
        if self._is_crowded():
            raise Refusal("unavailable", "too many connections of this address", headers={"Retry-After": "5"})

    def _is_crowded(self) -> bool:
        most = self.context.settings.websocket.max_connections_per_address
        return self.context.admission.connected[address_key(self.address)] >= most > 0

    def check_origin(self, origin: str) -> bool:
        """Another origin than the page's own: only a configured one."""
        return self.is_allowed_origin(origin)

    @property
    def ping_interval(self) -> float | None:
        """Seconds between pings; a peer that does not answer one before the next is due is dropped."""
        return self.context.settings.websocket.ping_interval_seconds

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message that is read."""
        return self.context.settings.websocket.max_message_bytes

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """Tornado's protocol with our manners at the end of a connection."""
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        return GatewayProtocol(
            self,
            False,
            _WebSocketParams(
                ping_interval=self.ping_interval,
                ping_timeout=self.ping_timeout,
                max_message_size=self.max_message_size,
                compression_options=None,
            ),
            may_deflate=self.context.settings.websocket.compression,
        )

    def open(self, *_args: str, **_kwargs: str) -> None:
        """Join the hub; on the market-data stream the snapshots go out at once."""
        assert isinstance(self.ws_connection, GatewayProtocol)
        self.set_nodelay(True)
        outbox = Outbox(SocketTransport(self.ws_connection.stream, lambda: outbox.drained()), self._max_buffer_bytes)
        outbox.others_wrote()  # the answer to the handshake
        self._subscriber = Subscriber(outbox, self.end, self.ws_connection.deflates)
        self._address = self.address
        self._address_key = address_key(self._address)
        self.context.admission.connected[self._address_key] += 1
        self.context.metrics.connections.inc()
        log.info("client %d connected from %s (request %s)", self._number, self._address, self.request_id)
        # As bytes: an argument that is not UTF-8 is no reason to end the connection.
        asked = self.request.query_arguments.get("stream", [b""])[-1]
        # Two kilobytes of the handshake that nobody looks at again.
        self.request.headers = self._headers = NO_HEADERS
        self._hub.add(self._subscriber, stream=asked != b"none")
        if self._principal is not None:
            self._sign_in(self._principal)

    @property
    def _max_buffer_bytes(self) -> int:
        return self.context.settings.websocket.max_buffer_bytes

    def on_text(self, data: bytes) -> Awaitable[None] | None:
        """One message, as the bytes of a text frame. The next is read when what is given back is done."""
        self.context.metrics.messages.inc()
        if not self._is_admitted(data):
            return None
        try:
            effects = self._session.receive(data)
        except Exception:
            # A fault of ours must not cost a trader the connection; it is logged whole.
            log.exception("client %d: a message could not be handled", self._number)
            effects = [refusal(None, RpcError(RpcCode.INTERNAL, "a fault of the gateway's own; it was logged"))]
        return self._perform(effects)

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """A binary frame: text ones go to `on_text`."""
        self.context.metrics.messages.inc()
        if not self._is_admitted(message):
            return None
        return self._perform(
            self._session.receive_binary() if isinstance(message, bytes) else self._session.receive(message)
        )

    def _is_admitted(self, message: str | bytes) -> bool:
        """Whether a message may be read: it is within the limits. Who floods is closed at last."""
        verdict = self._limits.take()
        wait = self._limits.retry_after
        if verdict is Verdict.ALLOWED and self.context.settings.limits.address_requests_per_second:
            decision = self.context.admission.take_request(self._address)
            if not decision.allowed:
                verdict, wait = Verdict.REFUSED, decision.retry_after
        if verdict is Verdict.ALLOWED:
            return True
        self.context.metrics.rate_limited.labels("messages").inc()
        if verdict is Verdict.FLOOD:
            self.end(CloseCode.POLICY, "flood")
        else:
            self._tell(older_dialect.refuse(self._session, message, _too_many("requests", wait)))
        return False

    def _perform(self, effects: list[Effect]) -> Awaitable[None] | None:
        """Do what the session says; what has to be waited for before the next message is read is given back."""
        subscriber = self._subscriber
        if subscriber is None or self._has_left:
            return None
        for effect in effects:
            if isinstance(effect, Reply):
                self._tell(effect)
            elif isinstance(effect, Place):
                self._later(effect.answer, self._place(self._session.user_id, effect.order))
            elif isinstance(effect, Cancel):
                self._later(effect.answer, self._cancel(self._session.user_id, effect.cancel))
            elif isinstance(effect, Subscribe):
                self._hub.subscribe(subscriber, effect.channels, effect.since)
            elif isinstance(effect, Unsubscribe):
                self._hub.unsubscribe(subscriber, effect.names)
                if ACCOUNT_ORDERS in effect.names and self._session.user_id is not None:
                    self._trading.private.unsubscribe(self._session.user_id, subscriber)
            elif isinstance(effect, SubscribeAccount):
                self._hub.end_stream(subscriber)
                assert self._session.user_id is not None
                self._trading.private.subscribe(self._session.user_id, subscriber)
            elif isinstance(effect, Authenticate):
                return self._authenticate(effect)
            elif isinstance(effect, CancelAll):
                assert self._session.user_id is not None
                self._later(effect.answer, self._cancel_all(self._session.user_id, effect.symbol))
            elif isinstance(effect, SetCancelOnDisconnect):
                self._cancels_on_disconnect = effect.enabled
            elif isinstance(effect, PlaceUnanswered):
                self.context.metrics.refusals.labels("unanswered-order").inc(effect.bad)
                for order in effect.orders:
                    self._later(None, self._place(None, order))
        return None

    def _tell(self, reply: Reply) -> None:
        if reply.is_refusal:
            self.context.metrics.refusals.labels("rpc").inc()
        if self._subscriber is not None:
            self._hub.tell(self._subscriber, reply.text)

    # Who.

    def _authenticate(self, effect: Authenticate) -> Awaitable[None] | None:
        try:
            principal = self.context.admission.authenticator.authenticate(effect.token)
        except UnknownKey:
            return self._authenticate_fresh(effect)
        except Unauthorised as error:
            self._tell(effect.answer.failure(rpc_error(error)))
            return None
        self._accept(effect, principal)
        return None

    async def _authenticate_fresh(self, effect: Authenticate) -> None:
        try:
            principal = await self.context.admission.authenticator.authenticate_fresh(effect.token)
        except Unauthorised as error:
            self._tell(effect.answer.failure(rpc_error(error)))
            return
        self._accept(effect, principal)

    def _accept(self, effect: Authenticate, principal: Principal) -> None:
        if self._principal is not None and principal.user_id != self._principal.user_id:
            error = RpcError(RpcCode.NOT_AUTHORISED, "this connection is another user's; open one of your own")
            self._tell(effect.answer.failure(error))
            return
        if self._has_left:
            return
        self._sign_in(principal)
        result = {"access_token": effect.token, "token_type": "bearer", "user_id": principal.user_id}
        self._tell(effect.answer.success(result))

    def _sign_in(self, principal: Principal) -> None:
        assert self._subscriber is not None
        self._principal = principal
        self._session.user_id = principal.user_id
        self._session.is_expired = False
        self._trading.private.join(principal.user_id, self._subscriber)
        if self._expiry is not None:
            self._expiry.cancel()
        self._wait_for_expiry()

    def _wait_for_expiry(self) -> None:
        assert self._principal is not None
        # By the wall clock, which may be set: not further ahead than an hour, and then looked at again.
        seconds = self._principal.expires_at - self.context.clock()
        loop = asyncio.get_running_loop()
        if seconds <= 0:
            self._expire()
        else:
            self._expiry = loop.call_later(min(seconds, MAX_WAIT_SECONDS), self._wait_for_expiry)

    def _expire(self) -> None:
        """What is private ends, and the client is told; what is public stays, and so does cancel on disconnect."""
        assert self._subscriber is not None and self._principal is not None
        self._session.is_expired = True
        self._session.subscribed.discard(ACCOUNT_ORDERS)
        self._trading.private.leave(self._principal.user_id, self._subscriber)
        self._hub.tell(self._subscriber, AUTH_EXPIRED)
        log.info("client %d: its token has expired", self._number)

    # Orders.

    def _later(self, answer: Answer | None, attempt: Coroutine[Any, Any, Mapping[str, object]]) -> None:
        """Answer when it is known what became of an order; meanwhile other messages are read."""
        if self._last_words is not None:
            attempt.close()
            if answer is not None:
                self._tell(answer.failure(rpc_error(BusUnavailable("the gateway is shutting down"))))
            return
        self._awaited += 1
        self._trading.start(self._finish(answer, attempt))

    async def _finish(self, answer: Answer | None, attempt: Coroutine[Any, Any, Mapping[str, object]]) -> None:
        reply = None
        try:
            result = await attempt
            reply = None if answer is None else answer.success(result)
        except GatewayError as error:
            told = error if isinstance(error, RpcError) else rpc_error(error)
            reply = None if answer is None else answer.failure(told)
        except Exception:
            log.exception("client %d: an order could not be handled", self._number)
            fault = RpcError(RpcCode.INTERNAL, "a fault of the gateway's own; it was logged")
            reply = None if answer is None else answer.failure(fault)
        if reply is not None and not self._has_left:
            self._tell(reply)
        self._awaited -= 1
        if self._last_words is not None and not self._awaited:
            self.end(CloseCode.GOING_AWAY, self._last_words)

    # `user_id` is whose connection it was when the message was read: the next one may be of somebody who signed in.

    async def _place(self, user_id: str | None, order: PlaceOrder) -> Mapping[str, object]:
        await self._take(self.context.admission.take_order, user_id, "orders")
        try:
            placed = await self._trading.entry.place(user_id, order)
        except OutcomeUnknown as error:
            self._remember(error.order_id, user_id)
            raise
        self._remember(placed.order_id, user_id)
        return placed.body()

    async def _cancel(self, user_id: str | None, cancel: CancelOrder) -> Mapping[str, object]:
        await self._take(self.context.admission.take_cancel, user_id, "cancels")
        return {"order_id": await self._trading.entry.cancel(user_id, cancel)}

    async def _cancel_all(self, user_id: str, symbol: str | None) -> Mapping[str, object]:
        async with self._turn:  # has no limit, and is behind what was sent before it all the same
            pass
        return {"order_ids": await self._trading.entry.cancel_all(user_id, symbol)}

    async def _take(
        self, ask: Callable[[str | None], Awaitable[Decision | None]], user_id: str | None, what: str
    ) -> None:
        """Ask a limit, in turn. Raises RpcError (10003).

        A shared limit is asked over the network, and its answers may overtake each other. A cancel that overtakes its
        order finds nothing to cancel, and the order goes out. What follows runs without a pause until the command is
        with the producer, before the next one in turn does.
        """
        async with self._turn:
            decision = await ask(user_id)
        if decision is not None and not decision.allowed:
            self.context.metrics.rate_limited.labels(what).inc()
            raise _too_many(what, decision.retry_after)

    def _remember(self, order_id: str, user_id: str | None) -> None:
        """An order was placed here, or may have been; it is cancelled with the connection if that is wanted."""
        if self._has_left:
            self._cancel_placed({order_id: user_id})
            return
        self._placed[order_id] = user_id
        if len(self._placed) > self._prune_at:
            self._placed = {known: owner for known, owner in self._placed.items() if self._is_open(known)}
            self._prune_at = max(PRUNE_AT, 2 * len(self._placed))

    def _is_open(self, order_id: str) -> bool:
        order = self._trading.directory.get(order_id)
        return order is not None and not order.is_closed

    def _cancel_placed(self, placed: Mapping[str, str | None]) -> None:
        orders = [self._trading.directory.get(order_id) for order_id in placed]
        left = [order for order in orders if order is not None and not order.is_closed]
        if not self._cancels_on_disconnect or not left:
            return
        log.info("client %d disconnected: cancelling its %d open orders", self._number, len(left))
        self._trading.start(self._cancel_each(left))

    async def _cancel_each(self, orders: list[Order]) -> None:
        failed = [error for error in await self._trading.entry.cancel_each(orders) if error is not None]
        if failed:
            log.error(
                "client %d: %d of its %d cancels on disconnect failed: %s",
                self._number, len(failed), len(orders), failed[0],
            )  # fmt: skip

    def wrote_frame(self) -> None:
        """The protocol wrote a frame of its own."""
        if self._subscriber is not None:
            self._subscriber.outbox.others_wrote()

    def end(self, code: CloseCode, reason: str) -> None:
        """Close with a code; what waits unsent is dropped.

        Who is sent away by a shutdown is first told what became of its orders, and nothing more is done for it.
        """
        if code is CloseCode.GOING_AWAY and self._awaited:
            self._last_words = reason
            return
        self._cause = reason
        self.close(code, reason)

    def leave(self) -> None:
        """Out of the hub, before a Close frame is written. Harmless when repeated."""
        if self._subscriber is None or self._has_left:
            return
        self._has_left = True
        self._hub.remove(self._subscriber)
        self._subscriber.outbox.close()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._principal is not None:
            self._trading.private.leave(self._principal.user_id, self._subscriber)
        connected = self.context.admission.connected
        connected[self._address_key] -= 1
        if not connected[self._address_key]:
            del connected[self._address_key]
        self._cancel_placed(self._placed)

    def on_close(self) -> None:
        """The connection is over."""
        if self._subscriber is None:
            return
        self.leave()
        # The one reference that goes in a circle: all else goes with its last user, and the collector has no work.
        self._subscriber.end = _ended
        self.context.metrics.closes.labels(self._cause).inc()
        log.info("client %d disconnected: %s %s", self._number, self._cause, self.close_code or "")


def _ended(_code: CloseCode, _reason: str) -> None:
    """What ends a connection that is over."""


def _too_many(what: str, seconds: float) -> RpcError:
    return RpcError(RpcCode.TOO_MANY_REQUESTS, f"too many {what}; wait", {"retry_after": max(1, ceil(seconds))})


def routes(context: Context, hub: Hub, rules: SessionRules, trading: Trading) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    served = {"context": context, "hub": hub, "rules": rules, "trading": trading}
    return [(r"/ws", StreamHandler, served)]
