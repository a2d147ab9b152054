"""`/ws`: one WebSocket connection between its session, its outbox and the hub."""

from __future__ import annotations

import asyncio
import itertools
import logging
from base64 import b64decode
from collections.abc import Awaitable
from functools import partial
from math import ceil
from types import TracebackType
from typing import Any, assert_never

from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketHandler, WebSocketProtocol, _WebSocketParams

from core.access.addresses import address_key
from core.access.identity import Principal
from core.access.limits import ConnectionLimits, Verdict
from core.access.scopes import no_scope
from core.accounts.account_balances import ACCOUNT_BALANCES
from core.channels.hub import Hub
from core.channels.names import STATUS
from core.control.status_channel import StatusChannel
from core.delivery.outbox import Outbox
from core.delivery.subscriber import Subscriber
from core.errors import CloseCode, RequestError, RpcCode, RpcError, TooManyRequests
from core.orders.account_trades import ACCOUNT_TRADES
from core.orders.origin import Origin
from core.orders.private_feed import ACCOUNT_ORDERS
from core.protocol.client_state import SessionRules
from core.protocol.connection_identity import ConnectionIdentity
from core.protocol.connection_orders import ConnectionOrders, OrderServices
from core.protocol.effects import (
    Amend,
    Authenticate,
    Batch,
    Cancel,
    CancelAll,
    CancelAllAfter,
    Effect,
    ListOrders,
    Place,
    PlaceNobodys,
    Reply,
    SetCancelOnDisconnect,
    Subscribe,
    SubscribeAccount,
    Unsubscribe,
    refusal,
)
from core.protocol.session import Session
from core.telemetry.audit import Asker
from handlers.connected_clients import CHANNELS_NAMED
from handlers.problems import Context, ProblemMixin, Refusal, full, refusal_of
from handlers.websocket_protocol import PING_TIMEOUT, GatewayProtocol
from handlers.websocket_transport import transport_of

log = logging.getLogger("gateway.ws")

_numbers = itertools.count(1)

# How long who has flooded waits for its 429.
PENALTY_ANSWER_SECONDS = 1.0

NO_HEADERS = HTTPHeaders()


class StreamHandler(ProblemMixin, WebSocketHandler):
    """One client.

    What is ours is in slots: with more than 30 attributes an instance's dictionary takes a kilobyte more.
    """

    __slots__ = (
        "_address",
        "_address_key",
        "_has_left",
        "_hub",
        "_identity",
        "_limits",
        "_order_services",
        "_orders",
        "_principal",
        "_session",
        "_status",
        "_subscriber",
        "_traceparent",
        "cause",
        "context",
        "number",
        "request_id",
        "since_ms",
    )

    def initialize(
        self,
        context: Context,
        hub: Hub,
        rules: SessionRules,
        order_services: OrderServices,
        status: StatusChannel,
    ) -> None:
        """`rules` are the session's."""
        self.context = context
        self._hub = hub
        self._status = status
        self._session = Session(rules)
        self._order_services = order_services
        self._subscriber: Subscriber | None = None
        self.number = next(_numbers)
        # Whose doing the end is; the protocol says so where it is ours.
        self.cause = "client"
        self._limits = ConnectionLimits(context.admission.messages)
        # Of the upgrade.
        self._principal: Principal | None = None
        # Most connections never sign in, nor order.
        self._identity: ConnectionIdentity | None = None
        self._orders: ConnectionOrders | None = None
        self._has_left = False

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
        if self.request.version == "HTTP/1.0":
            raise Refusal("bad-request", "a WebSocket begins with HTTP/1.1 (RFC 6455, section 4.2.1)")
        if not upgrade or "upgrade" not in connection:
            raise Refusal("bad-request", "this is a WebSocket: connect with an Upgrade (RFC 6455)")
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            raise Refusal(
                "upgrade-required", "this is WebSocket 13 (RFC 6455)", headers={"Sec-WebSocket-Version": "13"}
            )
        if not _is_key(self.request.headers.get("Sec-WebSocket-Key", "")):
            raise Refusal("bad-request", "Sec-WebSocket-Key: expected 16 bytes in base64 (RFC 6455, section 4.2.1)")
        if self._check_cross_origin(self.check_origin) is not None:
            raise Refusal("forbidden", "Origin: not this origin, and not one of http.allowed_origins")
        await self._check_penalty(admission.penalty_of_address(self.address))
        if wait := admission.take_connect(self.address):
            raise self.too_many("connects", {"Retry-After": str(max(1, ceil(wait)))})
        self._principal = await self.principal()
        if self._principal is not None:
            if not self._principal.allowed:
                raise refusal_of(no_scope())
            await self._check_penalty(admission.penalty_of_user(self._principal.user_id))
        if self._is_crowded():
            raise Refusal("unavailable", "too many connections of this address", headers={"Retry-After": "5"})

    async def _check_penalty(self, seconds: float) -> None:
        """Raises `Refusal` (429) while there is one; not at once, for who floods comes back as fast as it is refused."""
        if seconds:
            await asyncio.sleep(min(seconds, PENALTY_ANSWER_SECONDS))
            raise self.too_many(
                "messages on a connection that was closed for them",
                {"Retry-After": str(max(1, ceil(seconds)))},
                "penalty",
            )

    def _is_crowded(self) -> bool:
        most = self.context.settings.websocket.max_connections_per_address
        return self.context.admission.connected[address_key(self.address)] >= most > 0

    def check_origin(self, origin: str) -> bool:
        """Another origin than the page's own: only a configured one."""
        return self.is_allowed_origin(origin)

    @property
    def ping_interval(self) -> float | None:
        """Seconds between pings; a peer that shows no sign of life before the next is due is dropped."""
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
            turns=self.context.message_turns,
        )

    def open(self, *_args: str, **_kwargs: str) -> None:
        """Join the hub; on the market-data stream the snapshots go out at once."""
        assert isinstance(self.ws_connection, GatewayProtocol)
        self.set_nodelay(True)
        outbox = Outbox(transport_of(self.ws_connection.stream, lambda: outbox.drained()), self._max_buffer_bytes)
        outbox.others_wrote()  # the answer to the handshake
        self._subscriber = Subscriber(outbox, self.end, self.ws_connection.deflates)
        self._session.channels = partial(self._hub.channels_of, self._subscriber)
        self._address = self.address
        self._address_key = address_key(self._address)
        self.context.admission.connected[self._address_key] += 1
        self.context.metrics.connections.inc()
        log.info("client %d connected from %s (request %s)", self.number, self._address, self.request_id)
        # As bytes: an argument that is not UTF-8 is no reason to end the connection.
        asked = self.request.query_arguments.get("stream", [b""])[-1]
        self._traceparent = self.request.headers.get("Traceparent")
        # Two kilobytes of the handshake that nobody looks at again.
        self.request.headers = self._headers = NO_HEADERS
        self._hub.add(self._subscriber, stream=asked != b"none")
        self.since_ms = int(self.context.clock() * 1000)
        self.context.clients.add(self)
        if self._principal is not None:
            self._sign_in(self._subscriber, self._principal)

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
            log.exception("client %d: a message could not be handled", self.number)
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
        verdict = self._limits.take(len(message))
        wait = self._limits.retry_after
        if verdict is Verdict.ALLOWED and self.context.settings.limits.address_requests_per_second:
            decision = self.context.admission.take_request(self._address)
            if not decision.allowed:
                verdict, wait = Verdict.REFUSED, decision.retry_after
        if verdict is Verdict.ALLOWED:
            return True
        self.context.metrics.rate_limited.labels("messages").inc()
        if verdict is Verdict.FLOOD:
            self.context.admission.penalise(self._address, self._session.user_id)
            protocol = self.ws_connection  # forgotten with its Close
            self.end(CloseCode.POLICY, "flood")
            if isinstance(protocol, GatewayProtocol):
                protocol.hear_no_more()
        else:
            self.tell(self._session.refuse(message, TooManyRequests("requests", wait)))
        return False

    def _perform(self, effects: list[Effect]) -> Awaitable[None] | None:
        """Do what the session says; what has to be waited for before the next message is read is given back."""
        subscriber = self._subscriber
        if subscriber is None or self._has_left:
            return None
        waited_for: Awaitable[None] | None = None
        for number, effect in enumerate(effects):
            if waited_for is not None:
                return self._perform_behind(waited_for, effects[number:])
            match effect:
                case Reply():
                    self.tell(effect)
                case Place():
                    self._trader().place(effect.answer, effect.order, effect.awaits_engine)
                case Cancel():
                    self._trader().cancel(effect.answer, effect.cancel, effect.awaits_engine)
                case Amend():
                    self._trader().amend(effect.answer, effect.amend, effect.awaits_engine)
                case Batch():
                    self._trader().batch(effect.answer, effect.batch)
                case Subscribe():
                    self._hub.subscribe(subscriber, effect.channels, effect.since)
                    if effect.status:
                        self._session.hears_status = True
                        self._status.subscribe(subscriber)
                    waited_for = self._until_done(subscriber)
                case Unsubscribe():
                    self._hub.unsubscribe(subscriber, effect.names)
                    if STATUS in effect.names:
                        self._status.unsubscribe(subscriber)
                    if self._session.user_id is not None:
                        self._order_services.private.drop(self._session.user_id, subscriber, effect.names)
                    waited_for = self._until_done(subscriber)
                case SubscribeAccount():
                    waited_for = self._subscribe_account(subscriber, effect)
                case Authenticate():
                    waited_for = self._authenticate(subscriber, effect)
                case CancelAll():
                    self._trader().cancel_all(effect.answer, effect.symbol)
                case CancelAllAfter():
                    self._trader().cancel_all_after(effect.answer, effect.timeout_seconds)
                case ListOrders():
                    self._trader().list_open(effect.answer, effect.symbol)
                case SetCancelOnDisconnect():
                    self._trader().cancel_on_disconnect(effect.answer, effect.enabled, effect.result)
                    self._expect_life(effect.silence_seconds)
                case PlaceNobodys():
                    self._trader().place_nobodys(effect.answer, effect.orders)
                case _:
                    assert_never(effect)
        return waited_for

    async def _perform_behind(self, waited_for: Awaitable[None], effects: list[Effect]) -> None:
        await waited_for
        rest = self._perform(effects)
        if rest is not None:
            await rest

    def _until_done(self, subscriber: Subscriber) -> Awaitable[None] | None:
        """What to wait for if the hub has not done yet what it was asked for."""
        request = self._hub.pending(subscriber)
        if request is None:
            return None
        done = asyncio.get_running_loop().create_future()
        request.when_done(lambda: None if done.done() else done.set_result(None))
        return done

    def tell(self, reply: Reply | None) -> None:
        """Send an answer, if there is one; one that refuses is counted."""
        if reply is None:
            return
        if reply.is_refusal:
            self.context.metrics.refusals.labels(reply.counted_as).inc()
        if (refused := reply.refused) is not None:
            asker = Asker(self.request_id, self._session.user_id, self.number)
            self.context.audit.refused(refused.command, asker, refused.error, **refused.names)
        if self._subscriber is not None:
            self._hub.tell(self._subscriber, reply.text, reply.frame)

    def _expect_life(self, within_seconds: float | None) -> None:
        """How soon a client that says nothing is asked for a sign of life, and how soon after it is taken for gone."""
        longest = self.context.settings.websocket.ping_interval_seconds
        assert isinstance(self.ws_connection, GatewayProtocol)
        self.ws_connection.ping_every(longest if within_seconds is None else min(longest, within_seconds))

    def _trader(self) -> ConnectionOrders:
        if self._orders is None:
            origin = Origin(self.request_id, self._traceparent)
            self._orders = ConnectionOrders(self._order_services, self._session, self, self.number, origin)
        return self._orders

    async def _authenticate(self, subscriber: Subscriber, effect: Authenticate) -> None:
        try:
            principal = await self.context.admission.whose(effect.token)
            if effect.user_id not in (None, principal.user_id):
                raise RpcError(RpcCode.NOT_AUTHORISED, "account: the token is of another one")
            if self._has_left:
                return
            if self._identity is None and (wait := self.context.admission.penalty_of_user(principal.user_id)):
                self.context.metrics.rate_limited.labels("penalty").inc()
                raise TooManyRequests("messages on a connection that was closed for them", wait)
            self._sign_in(subscriber, principal)
        except RequestError as error:
            self.tell(effect.answer.failure(error))
        else:
            result = {"access_token": effect.token, "token_type": "bearer", "user_id": principal.user_id}
            self.tell(effect.answer.success(result))

    async def _subscribe_account(self, subscriber: Subscriber, effect: SubscribeAccount) -> None:
        user_id = self._session.user_id
        assert user_id is not None
        try:
            if effect.names != [ACCOUNT_BALANCES]:  # which no order topic tells of
                await self._order_services.lookup.catch_up()
        except RequestError as error:
            self.tell(effect.answer.failure(error))
            return
        if self._has_left:
            return
        self._session.account_channels.update(effect.names)
        self._hub.end_stream(subscriber)
        self.tell(effect.answer.success(effect.names))
        private = self._order_services.private
        if ACCOUNT_TRADES in effect.names and private.has_joined(user_id, subscriber):
            private.trades.subscribe(user_id, subscriber, effect.since.get(ACCOUNT_TRADES))
        if (
            private.balances is not None
            and ACCOUNT_BALANCES in effect.names
            and private.has_joined(user_id, subscriber)
        ):
            private.balances.subscribe(user_id, subscriber)
        if ACCOUNT_ORDERS in effect.names:
            await private.subscribe(user_id, subscriber, effect.since.get(ACCOUNT_ORDERS))

    def _sign_in(self, subscriber: Subscriber, principal: Principal) -> None:
        """Raises RpcError if the connection is another user's."""
        if self._identity is None:
            self._identity = ConnectionIdentity(
                self._session, self._order_services.private, subscriber, self, self.number, self.context.clock
            )
        self._identity.sign_in(principal)

    @property
    def user_id(self) -> str | None:
        """Who signed in."""
        return self._session.user_id

    def describe(self) -> dict[str, object]:
        """What operators are told of it; bytes are those that wait here, and not in the kernel."""
        assert self._subscriber is not None
        return {
            "user_id": self.user_id,
            "address": self._address,
            "subscriptions": self._session.subscription_count,
            "channels": list(itertools.islice(self._session.subscriptions(), CHANNELS_NAMED)),
            "waiting_bytes": self._subscriber.outbox.waiting_bytes,
        }

    def wrote_frame(self) -> None:
        """The protocol wrote a frame of its own."""
        if self._subscriber is not None:
            self._subscriber.outbox.others_wrote()

    def end(self, code: CloseCode, reason: str) -> None:
        """Close with a code; what waits unsent is dropped.

        Who is sent away by a shutdown is first told what became of its orders, and nothing more is done for it.
        """
        if code is CloseCode.GOING_AWAY and self._orders is not None and self._orders.delays_end(reason):
            return
        self.close(code, reason)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """A fault of ours ends a connection, and is not told as the client's."""
        super().log_exception(typ, value, tb)
        if self._subscriber is not None:
            self.end(CloseCode.INTERNAL, "internal error")

    def leave(self) -> None:
        """Out of the hub, before a Close frame is written. Harmless when repeated."""
        if self._subscriber is None or self._has_left:
            return
        self._has_left = True
        self.context.clients.discard(self)
        self._hub.remove(self._subscriber)
        self._status.unsubscribe(self._subscriber)
        self._subscriber.outbox.close()
        if self._identity is not None:
            self._identity.leave()
        connected = self.context.admission.connected
        connected[self._address_key] -= 1
        if not connected[self._address_key]:
            del connected[self._address_key]
        if self._orders is not None:
            self._orders.leave(self._silent_seconds())

    def _silent_seconds(self) -> float:
        """How long ago the client may have been seen last: of one that answered no ping, up to two pings before."""
        protocol = self.ws_connection
        if self.cause != PING_TIMEOUT or not isinstance(protocol, GatewayProtocol):
            return 0.0
        return 2 * (protocol.ping_interval or 0.0)

    def on_close(self) -> None:
        """The connection is over."""
        if self._subscriber is None:
            return
        self.leave()
        # The one reference that goes in a circle: all else goes with its last user, and the collector has no work.
        self._subscriber.end = _ended
        self.context.metrics.closes.labels(self.cause).inc()
        log.info("client %d disconnected: %s %s", self.number, self.cause, self.close_code or "")


def _is_key(text: str) -> bool:
    try:
        return len(b64decode(text, validate=True)) == 16
    except ValueError:
        return False


def _ended(_code: CloseCode, _reason: str) -> None:
    """What ends a connection that is over."""


def routes(
    context: Context, hub: Hub, rules: SessionRules, order_services: OrderServices, status: StatusChannel
) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    served = {"context": context, "hub": hub, "rules": rules, "order_services": order_services, "status": status}
    return [(r"/ws", StreamHandler, served)]
