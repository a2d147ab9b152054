"""`/ws`: one WebSocket connection between its session, its outbox and the hub."""

from __future__ import annotations

import itertools
import logging
from asyncio import Future
from collections.abc import Callable
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol, _WebSocketParams

from core.commands import PlaceOrder
from core.errors import CloseCode, RpcCode, RpcError
from core.hub import Hub
from core.outbox import Outbox
from core.session import Effect, PlaceUnanswered, Reply, Session, SessionRules, Subscribe, Unsubscribe, refusal
from core.subscriber import Subscriber
from handlers.base import Context, ProblemMixin, Refusal
from handlers.protocol import GatewayProtocol

log = logging.getLogger("gateway.ws")

_numbers = itertools.count(1)


class SocketTransport:
    """An IOStream as an outbox needs it: straight to the socket while the stream's own buffer is empty."""

    __slots__ = ("_on_drained", "_stream", "send")

    def __init__(self, stream: IOStream, on_drained: Callable[[], None]) -> None:
        self._stream = stream
        self._on_drained = on_drained
        # The bound method and not the descriptor's number: after a close it raises, and reaches nobody else.
        self.send: Callable[[bytes], int] = stream.socket.send

    def is_empty(self) -> bool:
        """Nothing waits in the stream's buffer; there is none after the close, where `send` then raises."""
        return not self._stream._write_buffer

    def spill(self, data: bytes | memoryview) -> None:
        """Leave to the stream what the kernel did not take."""
        try:
            self._stream.write(data).add_done_callback(self._written)
        except StreamClosedError:
            pass  # the handler hears of it by itself

    def written(self) -> int:
        """Bytes that have left the stream's buffer since the connection began."""
        return self._stream._total_write_done_index

    def _written(self, future: Future[None]) -> None:
        if future.exception() is None:
            self._on_drained()


class StreamHandler(ProblemMixin, WebSocketHandler):
    """One client."""

    def initialize(self, context: Context, hub: Hub, rules: SessionRules, place: Callable[[PlaceOrder], None]) -> None:
        """`place` publishes an order of nobody's, whose outcome is only counted."""
        self.context = context
        self._hub = hub
        self._session = Session(rules)
        self._place = place
        self._subscriber: Subscriber | None = None
        self._number = next(_numbers)
        self._cause = "client"

    def prepare(self) -> None:
        """Refuse before the upgrade, as a problem, what cannot become a connection."""
        settings = self.context.settings
        if self.context.status.draining:
            raise Refusal("unavailable", "this instance is shutting down; connect again", headers={"Retry-After": "1"})
        if len(self._hub.subscribers) >= settings.websocket.max_connections > 0:
            raise Refusal("unavailable", "no more connections can be held", headers={"Retry-After": "5"})
        upgrade = self.request.headers.get("Upgrade", "").lower() == "websocket"
        connection = [part.strip().lower() for part in self.request.headers.get("Connection", "").split(",")]
        if self.request.method != "GET":
            return
        if not upgrade or "upgrade" not in connection:
            raise Refusal("bad-request", "this is a WebSocket: connect with an Upgrade (RFC 6455)")
        if self._check_cross_origin(self.check_origin) is not None:
            raise Refusal("forbidden", "Origin: not this origin, and not one of http.allowed_origins")

    def check_origin(self, origin: str) -> bool:
        """Another origin than the page's own: only a configured one."""
        return origin.lower() in self.context.settings.http.allowed_origins

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
        self._subscriber = Subscriber(outbox, self.end, self.ws_connection.deflates)
        self.context.metrics.connections.inc()
        log.info("client %d connected from %s (request %s)", self._number, self.request.remote_ip, self.request_id)
        # As bytes: an argument that is not UTF-8 is no reason to end the connection.
        asked = self.request.query_arguments.get("stream", [b""])[-1]
        self._hub.add(self._subscriber, stream=asked != b"none")

    @property
    def _max_buffer_bytes(self) -> int:
        return self.context.settings.websocket.max_buffer_bytes

    def on_text(self, data: bytes) -> None:
        """One message, as the bytes of a text frame."""
        self.context.metrics.messages.inc()
        try:
            effects = self._session.receive(data)
        except Exception:
            # A fault of ours must not cost a trader the connection; it is logged whole.
            log.exception("client %d: a message could not be handled", self._number)
            effects = [refusal(None, RpcError(RpcCode.INTERNAL, "a fault of the gateway's own; it was logged"))]
        self._perform(effects)

    def on_message(self, message: str | bytes) -> None:
        """A binary frame: text ones go to `on_text`."""
        self.context.metrics.messages.inc()
        self._perform(self._session.receive_binary() if isinstance(message, bytes) else self._session.receive(message))

    def _perform(self, effects: list[Effect]) -> None:
        subscriber = self._subscriber
        if subscriber is None:
            return
        for effect in effects:
            if isinstance(effect, Reply):
                if effect.is_refusal:
                    self.context.metrics.refusals.labels("rpc").inc()
                self._hub.tell(subscriber, effect.text)
            elif isinstance(effect, Subscribe):
                self._hub.subscribe(subscriber, effect.channels, effect.since, effect.objects)
            elif isinstance(effect, Unsubscribe):
                self._hub.unsubscribe(subscriber, effect.names)
            elif isinstance(effect, PlaceUnanswered):
                self.context.metrics.refusals.labels("unanswered-order").inc(effect.bad)
                for order in effect.orders:
                    self._place(order)

    def end(self, code: CloseCode, reason: str) -> None:
        """Close with a code; what waits unsent is dropped."""
        self._cause = reason
        self.close(code, reason)

    def leave(self) -> None:
        """Out of the hub, before a Close frame is written. Harmless when repeated."""
        if self._subscriber is not None:
            self._hub.remove(self._subscriber)
            self._subscriber.outbox.close()

    def on_close(self) -> None:
        """The connection is over."""
        if self._subscriber is None:
            return
        self.leave()
        self.context.metrics.closes.labels(self._cause).inc()
        log.info("client %d disconnected: %s %s", self._number, self._cause, self.close_code or "")


def routes(
    context: Context, hub: Hub, rules: SessionRules, place: Callable[[PlaceOrder], None]
) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    served = {"context": context, "hub": hub, "rules": rules, "place": place}
    return [(r"/ws", StreamHandler, served)]
